//! The agent's side of the control socket: HTTP/1 and JSON for root, the agent's own user and one group.
//!
//! In: requests of admitted peers. Out: what the [`Agent`] says. A request it refuses is answered with 409, one that makes
//! no sense with 400, and a peer that is not admitted with 403; each with a [`Refusal`] as body.

use std::{convert::Infallible, io, net::IpAddr, os::unix::net::UnixListener, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ipnet::IpNet;
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::{
    api::{Agent, BanRequest, Refusal},
    peer::Peer,
};
use crate::{http, metrics};

type Shared = Arc<dyn Agent>;

/// Serves `listener` until dropped; within a runtime of tokio. `group` may use the socket beside root.
pub async fn serve(listener: UnixListener, agent: Arc<dyn Agent>, group: Option<Gid>) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let own = Uid::effective();
    let routes = routes(agent);
    let admit = |stream: &tokio::net::UnixStream| match Peer::of(stream) {
        Ok(peer) if peer.is_admitted(own, group) => routes.clone(),
        Ok(peer) => {
            tracing::warn!(uid = %peer.uid, gid = %peer.gid, "refused the control socket to a user");
            denied(&format!("user {} may not use the control socket: only root and the control group may", peer.uid))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell who is at the control socket");
            denied("the agent cannot tell who you are")
        }
    };
    Ok(http::serve(listener, admit).await)
}

fn routes(agent: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/bans", get(bans).post(ban).delete(unban))
        .route("/v1/lists", get(lists))
        .route("/v1/rules", get(rules))
        .route("/v1/confirm", post(confirm))
        .route("/metrics", get(scrape))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is no such request"))
        .method_not_allowed_fallback(async || refuse(StatusCode::METHOD_NOT_ALLOWED, "there is no such request"))
        .with_state(agent)
}

/// Routes for a peer that may do nothing.
fn denied(message: &str) -> Router {
    let message: Arc<str> = message.into();
    Router::new().fallback(async move || refuse(StatusCode::FORBIDDEN, &message))
}

async fn status(State(agent): State<Shared>) -> Response {
    answer(agent, |agent| Ok(agent.status())).await
}

async fn reload(State(agent): State<Shared>) -> Response {
    answer(agent, |agent| agent.reload()).await
}

async fn bans(State(agent): State<Shared>) -> Response {
    answer(agent, |agent| agent.bans()).await
}

async fn ban(State(agent): State<Shared>, body: Body) -> Response {
    let bytes = match http::read_body(body).await {
        Ok(bytes) => bytes,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let request: BanRequest = match serde_json::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if request.prefix != request.prefix.trunc() {
        let message = format!("{} has host bits set; its network is {}", request.prefix, request.prefix.trunc());
        return refuse(StatusCode::BAD_REQUEST, &message);
    }
    if request.seconds == 0 {
        return refuse(StatusCode::BAD_REQUEST, "a ban lasts at least one second");
    }
    answer(agent, move |agent| agent.ban(request)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unban {
    prefix: IpNet,
}

async fn unban(State(agent): State<Shared>, query: Result<Query<Unban>, QueryRejection>) -> Response {
    match query {
        Ok(Query(Unban { prefix })) => answer(agent, move |agent| agent.unban(prefix)).await,
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookup {
    lookup: Option<IpAddr>,
}

async fn lists(State(agent): State<Shared>, query: Result<Query<Lookup>, QueryRejection>) -> Response {
    match query {
        Ok(Query(Lookup { lookup })) => answer(agent, move |agent| agent.lists(lookup)).await,
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

async fn rules(State(agent): State<Shared>) -> Response {
    answer(agent, |agent| agent.rules()).await
}

async fn confirm(State(agent): State<Shared>) -> Response {
    answer(agent, |agent| agent.confirm()).await
}

/// `GET /metrics`, here and on the port for Prometheus.
pub(crate) async fn scrape(State(agent): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || metrics::render(&agent.status())).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => failed(),
    }
}

/// What `call` says, off the threads that serve.
async fn answer<T, F>(agent: Shared, call: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&dyn Agent) -> Result<T, Refusal> + Send + 'static,
{
    match tokio::task::spawn_blocking(move || call(&*agent)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(refusal)) => (StatusCode::CONFLICT, Json(refusal)).into_response(),
        Err(_) => failed(),
    }
}

/// The call panicked; the panic is in the log.
fn failed() -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "the agent failed at this request; its log says more")
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(Refusal { message: message.to_owned() })).into_response()
}

#[cfg(test)]
mod tests;
