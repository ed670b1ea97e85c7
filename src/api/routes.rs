//! Paths and what answers them. Reading the store is done off the runtime's workers.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rollcall_core::staged::PlanHash;

use super::conflicts::ResolveQuery;
use super::events::EventQuery;
use super::named::NoUser;
use super::tokens::Denied;
use super::{fields, named, orders, plans, users, views};
use crate::daemon::Shared;
use crate::observe::{health, metrics};
use crate::sync::clock::now_us;
use crate::sync::fields::{EditWork, ResolveWork};
use crate::sync::planned::Planned;
use crate::sync::staging::Word;
use crate::sync::work::{Cause, Work};

/// What is served over TCP: health and metrics for anybody, a sync for who has a token.
pub fn public(shared: Arc<Shared>) -> Router {
    let open = open(Arc::clone(&shared));
    if shared.tokens.is_empty() {
        return open;
    }
    let with_token = Router::new()
        .route("/v1/sources/{name}/sync", post(sync_with_token))
        .with_state(shared);
    open.merge(with_token)
}

/// What anybody may ask: health and metrics.
fn open(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(shared)
}

/// Everything: what the owner of the socket may ask.
pub fn router(shared: Arc<Shared>) -> Router {
    let v1 = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/users", get(users))
        .route("/v1/users/{user}", get(user))
        .route("/v1/users/{user}/fields", post(edit))
        .route("/v1/conflicts", get(conflicts))
        .route("/v1/conflicts/{conflict}", get(conflict))
        .route("/v1/conflicts/{conflict}/resolve", post(resolve))
        .route("/v1/runs", get(runs))
        .route("/v1/runs/{run}", get(run))
        .route("/v1/events", get(events))
        .route("/v1/plans", get(plans))
        .route("/v1/plans/{hash}/{word}", post(plan_word))
        .route(
            "/v1/undo",
            post(undo).layer(DefaultBodyLimit::max(orders::PLAN_MAX_BYTES)),
        )
        .route("/v1/sources/{name}/reconcile", post(reconcile))
        .route("/v1/sources/{name}/sync", post(sync))
        .route(
            "/v1/sources/{name}/apply",
            post(apply).layer(DefaultBodyLimit::max(orders::PLAN_MAX_BYTES)),
        )
        .with_state(Arc::clone(&shared));
    open(shared).merge(v1)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let obstacles = health::obstacles(&shared);
    if obstacles.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(obstacles)).into_response()
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    let text = tokio::task::spawn_blocking(move || {
        metrics::refresh(&shared);
        shared.metrics.render()
    })
    .await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    answer(move || Ok(Some(views::status_live(&shared)?))).await
}

async fn users(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<users::UserQuery>,
) -> Response {
    answer(move || Ok(Some(users::users(&shared.readers, &query)?))).await
}

async fn user(State(shared): State<Arc<Shared>>, Path(user): Path<String>) -> Response {
    match tokio::task::spawn_blocking(move || users::user(&shared.readers, &user)).await {
        Ok(Ok(Ok(view))) => axum::Json(view).into_response(),
        Ok(Ok(Err(none))) => no_user(&none),
        Ok(Err(e)) => failed(&e),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Why a name leads to no user.
fn no_user(none: &NoUser) -> Response {
    let why = serde_json::json!({ "error": none.to_string() });
    let status = match none {
        NoUser::Several(_) => StatusCode::BAD_REQUEST,
        NoUser::Nobody | NoUser::Record(_) => StatusCode::NOT_FOUND,
    };
    (status, axum::Json(why)).into_response()
}

/// Writes, pins or takes back values of a user.
async fn edit(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    axum::Json(query): axum::Json<fields::EditQuery>,
) -> Response {
    let found = {
        let (shared, query) = (Arc::clone(&shared), query.clone());
        tokio::task::spawn_blocking(move || {
            let named = |name: &str| {
                let place = named::place_of(&shared.readers, name).ok()?;
                place.ok().map(|(row, _)| row)
            };
            let edits = fields::edits(&query, &shared.attributes, now_us(), named);
            named::place_of(&shared.readers, &user).map(|place| (edits, place))
        })
    };
    let (edits, place, id) = match found.await {
        Ok(Ok((Err(reasons), _))) => {
            return axum::Json(fields::EditView::Refused { reasons }).into_response();
        }
        Ok(Ok((Ok(edits), Ok((place, id))))) => (edits, place, id),
        Ok(Ok((Ok(_), Err(none)))) => return no_user(&none),
        Ok(Err(e)) => return failed(&e),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let (reply, told) = tokio::sync::oneshot::channel();
    let work = Work::Edit(EditWork {
        user: place,
        edits,
        actor: query.actor,
        reason: query.reason,
        reply,
    });
    match asked(&shared, work, told).await {
        Ok(edited) => {
            axum::Json(fields::told(edited, id.to_string(), &shared.attributes)).into_response()
        }
        Err(gone) => gone.into_response(),
    }
}

/// What the engine says of work; the daemon is stopping when it says nothing.
async fn asked<T>(
    shared: &Shared,
    work: Work,
    told: tokio::sync::oneshot::Receiver<T>,
) -> Result<T, StatusCode> {
    let sent = shared.engine.send(work).await.is_ok();
    match sent {
        true => told.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE),
        false => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn conflicts(State(shared): State<Arc<Shared>>) -> Response {
    answer(move || Ok(Some(super::conflicts::conflicts(&shared.readers, false)?))).await
}

async fn conflict(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    answer(move || super::conflicts::conflict(&shared.readers, &name)).await
}

async fn resolve(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    axum::Json(query): axum::Json<ResolveQuery>,
) -> Response {
    let take = query.take;
    let readers = Arc::clone(&shared);
    let found = tokio::task::spawn_blocking(move || {
        super::conflicts::chosen(&readers.readers, &name, take.as_deref())
    });
    let chosen = match found.await {
        Ok(Ok(Ok(chosen))) => chosen,
        Ok(Ok(Err(refused))) => return axum::Json(refused).into_response(),
        Ok(Err(e)) => return failed(&e),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let (reply, told) = tokio::sync::oneshot::channel();
    let work = Work::Resolve(ResolveWork {
        fingerprint: chosen.fingerprint,
        choice: chosen.choice.clone(),
        user: chosen.user,
        actor: query.actor,
        reason: query.reason,
        reply,
    });
    match asked(&shared, work, told).await {
        Ok(word) => axum::Json(super::conflicts::told(&chosen, word)).into_response(),
        Err(gone) => gone.into_response(),
    }
}

async fn runs(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<super::runs::RunQuery>,
) -> Response {
    answer(move || Ok(Some(super::runs::runs(&shared.readers, &query)?))).await
}

async fn run(State(shared): State<Arc<Shared>>, Path(run): Path<u64>) -> Response {
    answer(move || super::runs::run(&shared.readers, run)).await
}

async fn events(State(shared): State<Arc<Shared>>, Query(query): Query<EventQuery>) -> Response {
    let read = move || super::events::events(&shared.readers, &query);
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, super::events::array(&found)).into_response()
        }
        Ok(Err(e)) => failed(&e),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn plans(State(shared): State<Arc<Shared>>) -> Response {
    answer(move || Ok(Some(plans::plans(&shared.readers)?))).await
}

async fn plan_word(
    State(shared): State<Arc<Shared>>,
    Path((hash, word)): Path<(String, String)>,
) -> Response {
    let word = match word.as_str() {
        "approve" => Word::Approve,
        "discard" => Word::Discard,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let Some(hash) = PlanHash::parse(&hash) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (reply, told) = tokio::sync::oneshot::channel();
    let work = Work::Plan { hash, word, reply };
    match asked(&shared, work, told).await {
        Ok(told) => answer(move || Ok(Some(plans::told(&shared.readers, &told)?))).await,
        Err(gone) => gone.into_response(),
    }
}

async fn sync_with_token(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|h| h.as_bytes());
    let program = match shared.tokens.admit(given, Instant::now()) {
        Ok(program) => program,
        Err(Denied::Unknown) => {
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, scheme).into_response();
        }
        Err(Denied::TooMany(wait)) => {
            let seconds = wait.as_secs_f64().ceil().to_string();
            let after = [(header::RETRY_AFTER, seconds)];
            return (StatusCode::TOO_MANY_REQUESTS, after).into_response();
        }
    };
    let Some(source) = shared.sources.iter().find(|s| s.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    tracing::info!(source = name, program, "a sync was asked for");
    let patience = orders::BEGINS_WITHIN;
    orders::sync(source, Cause::Api, &body, patience, &shared.engine).await
}

async fn apply(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    axum::Json(plan): axum::Json<Planned>,
) -> Response {
    let Some(source) = shared.sources.iter().find(|s| s.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match shared.readers.identity() {
        Ok(identity) => orders::apply(source, identity.store, plan).await,
        Err(e) => failed(&e),
    }
}

async fn undo(
    State(shared): State<Arc<Shared>>,
    axum::Json(order): axum::Json<orders::UndoOrder>,
) -> Response {
    match shared.readers.identity() {
        Ok(identity) => orders::undo(&shared, identity.store, order).await,
        Err(e) => failed(&e),
    }
}

async fn reconcile(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match shared.sources.iter().find(|s| s.name == name) {
        Some(source) => orders::reconcile(source, Cause::Manual, &shared.engine).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn sync(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    match shared.sources.iter().find(|s| s.name == name) {
        Some(source) => {
            let patience = orders::PATIENCE;
            orders::sync(source, Cause::Manual, &body, patience, &shared.engine).await
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn answer<T: serde::Serialize + Send + 'static>(
    read: impl FnOnce() -> Result<Option<T>, rollcall_store::StoreError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Some(body))) => axum::Json(body).into_response(),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(e)) => failed(&e),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn failed(e: &rollcall_store::StoreError) -> Response {
    tracing::error!("a request could not be answered: {e}");
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        axum::Json(serde_json::json!({ "error": e.to_string() })),
    )
        .into_response()
}
