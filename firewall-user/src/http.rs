//! HTTP/1 for the agent's own small servers, with bounds on everything a peer can take: connections, bytes, time.
//!
//! In: a listener and, for each connection, the routes it may use. Out: answers. One request per connection.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;

/// Connections served at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Bytes of a request's body.
const MAX_BODY: usize = 64 << 10;
/// For the head of a request, and again for its body.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// For everything: reading, carrying out and answering.
const SERVE_WITHIN: Duration = Duration::from_secs(300);

/// Serves every connection with the routes that `admit` gives it. Ends only when dropped.
pub(crate) async fn serve<L: Listener>(mut listener: L, admit: impl Fn(&L::Io) -> Router) -> std::convert::Infallible {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed, so this only waits.
        let slot = Arc::clone(&slots).acquire_owned().await;
        // Waits and tries again by itself after an error such as EMFILE.
        let (stream, _) = listener.accept().await;
        let routes = admit(&stream);
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_WITHIN)
                .max_buf_size(MAX_HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
            // A peer that breaks off, or sends nothing sensible, harms only itself.
            let _ = tokio::time::timeout(SERVE_WITHIN, connection).await;
            drop(slot);
        });
    }
}

/// The whole of a request's body, or why it was not accepted.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, &'static str> {
    match tokio::time::timeout(READ_WITHIN, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err("the request is too large or broke off"),
        Err(_) => Err("the request took too long to arrive"),
    }
}
