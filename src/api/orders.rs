//! Orders to sources, from people and programs: handed to the driver, and answered with the
//! run that obeys as soon as it is known.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::daemon::SourceEntry;
use crate::sync::work::{Cause, Order};

/// A source that is connected begins within moments; one that is not would keep the asker
/// waiting for as long as its server is away.
const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// An order was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The source.
    pub source: String,
    /// The run that obeys; none while the source is not connected: the run begins as soon
    /// as it is.
    pub run: Option<u64>,
}

/// Has a source reconciled: 202 with the run, 503 when more orders wait than are kept.
pub(super) async fn reconcile(source: &SourceEntry, cause: Cause) -> Response {
    let (began, run) = oneshot::channel();
    let order = Order::Reconcile {
        cause,
        began: Some(began),
    };
    if source.orders.try_send(order).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let run = tokio::time::timeout(BEGINS_WITHIN, run).await;
    let accepted = Accepted {
        source: source.name.clone(),
        run: run.ok().and_then(Result::ok).map(|run| run.0),
    };
    (StatusCode::ACCEPTED, axum::Json(accepted)).into_response()
}
