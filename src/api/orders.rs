//! Orders to sources, from people and programs: handed to the driver, and answered with the
//! run that obeys as soon as it is known.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::named;
use crate::daemon::{Shared, SourceEntry};
use crate::sync::planned::{Answered, MAX_APPLIED, Planned};
use crate::sync::undoing::{UndoWork, Undoing};
use crate::sync::work::{Cause, KeysOrder, Order, Work};

/// A source that is connected begins within moments; one that is not would keep the asker
/// waiting for as long as its server is away.
pub(super) const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// A plan that is to be applied has at most so many bytes. One of
/// [`MAX_APPLIED`] records of a source is smaller; one that takes back long values may be larger.
pub(crate) const PLAN_MAX_BYTES: usize = 64 << 20;

/// An order was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The source.
    pub source: String,
    /// The run that obeys; none while the source is not connected: the run begins as soon
    /// as it is.
    pub run: Option<u64>,
}

/// Has a source reconciled: 202 with the run, 503 when more orders wait than are kept. An order
/// to a source that is not connected outlives the daemon.
pub(super) async fn reconcile(
    source: &SourceEntry,
    cause: Cause,
    engine: &mpsc::Sender<Work>,
) -> Response {
    let (reply, stored) = oneshot::channel();
    let work = Work::Ordered {
        source: source.id,
        cause,
        reply,
    };
    if engine.send(work).await.is_err() || stored.await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
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

/// Has a plan applied: 200 with what became of it, also when it is refused.
pub(super) async fn apply(source: &SourceEntry, store: Uuid, plan: Planned) -> Response {
    let refused = |reason: String| axum::Json(Answered::refused(reason)).into_response();
    if plan.store != store {
        return refused(
            "The plan was made for another store. Fix: make it with the configuration file of this daemon"
                .to_owned(),
        );
    }
    if plan.configuration != source.configuration {
        return refused(format!(
            "The plan was made under another configuration of {} than the daemon's. Nothing was applied. Fix: change the daemon's configuration file to it, restart the daemon, and apply the plan again",
            source.name
        ));
    }
    if plan.records.len() > MAX_APPLIED {
        return refused(format!(
            "A plan of more than {MAX_APPLIED} records cannot be applied."
        ));
    }
    let state = source.live.snapshot().state;
    if !matches!(state.as_str(), "streaming" | "polling") {
        return refused(format!(
            "The source is {state}. Nothing was applied. Fix: apply the plan again when `rollcall status` says that it is streaming"
        ));
    }
    let (reply, answer) = oneshot::channel();
    if source
        .orders
        .try_send(Order::Apply { plan, reply })
        .is_err()
    {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match answer.await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(_) => refused(
            "The connection to the source ended. Nothing was applied. Fix: apply the plan again"
                .to_owned(),
        ),
    }
}

/// A plan that takes back what runs did, and who wants it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndoOrder {
    /// Who wants it.
    pub actor: String,
    /// The plan.
    pub plan: Undoing,
}

/// Has such a plan applied: 200 with what became of it, also when it is refused.
pub(super) async fn undo(shared: &Shared, store: Uuid, order: UndoOrder) -> Response {
    let refused = |reason: String| axum::Json(Answered::refused(reason)).into_response();
    let UndoOrder { actor, plan } = order;
    if plan.store != store {
        return refused(
            "The plan was made for another store. Fix: make it with the configuration file of this daemon"
                .to_owned(),
        );
    }
    let mut sources = shared.sources.iter();
    let source = sources.find(|s| Some(&s.name) == plan.source.as_ref());
    let (reply, answer) = oneshot::channel();
    let work = Work::Undo(UndoWork {
        source: source.map(|s| s.id),
        plan,
        actor,
        reply,
    });
    if shared.engine.send(work).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match answer.await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// What is to be brought in step: some records, or the whole source when nothing is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Keys, as `rollcall users show` spells them.
    pub keys: Vec<String>,
}

/// At most so many records are named in one order.
pub const KEYS_MAX: usize = 100;

/// How long the owner of the socket is kept waiting for records.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Brings a source in step, or those records of it that the body names.
pub(super) async fn sync(
    source: &SourceEntry,
    cause: Cause,
    body: &[u8],
    patience: Duration,
    engine: &mpsc::Sender<Work>,
) -> Response {
    if body.is_empty() {
        return reconcile(source, cause, engine).await;
    }
    let refused = |status: StatusCode, why: &str| {
        (status, axum::Json(serde_json::json!({ "error": why }))).into_response()
    };
    let Ok(wanted) = serde_json::from_slice::<Wanted>(body) else {
        let why = "The body is not of the form {\"keys\": [\"…\"]}.";
        return refused(StatusCode::BAD_REQUEST, why);
    };
    if wanted.keys.is_empty() || wanted.keys.len() > KEYS_MAX {
        let why = format!("Name at least one key and at most {KEYS_MAX}.");
        return refused(StatusCode::BAD_REQUEST, &why);
    }
    let (ended, run) = oneshot::channel();
    let order = Order::Keys(KeysOrder {
        keys: wanted.keys.iter().map(|k| named::keys_of(k)).collect(),
        cause,
        ended,
    });
    if source.orders.try_send(order).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let run = match tokio::time::timeout(patience, run).await {
        Ok(Ok(Ok(run))) => Some(run.0),
        Ok(Ok(Err(why))) => {
            let status = match why.is_transient() {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => StatusCode::UNPROCESSABLE_ENTITY,
            };
            return refused(status, &why.to_string());
        }
        Ok(Err(_)) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(_) => None,
    };
    let accepted = Accepted {
        source: source.name.clone(),
        run,
    };
    (StatusCode::ACCEPTED, axum::Json(accepted)).into_response()
}
