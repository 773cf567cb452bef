//! HTTP/2 clients: a good one, and one that resets each stream as soon as it has opened it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{PATIENCE, body::Stream, connect, raw};

/// A connection that many requests share. For use inside [`super::within`].
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Stream>,
    scheme: &'static str,
}

impl Connection {
    /// Over TLS that has agreed on `h2`, or, with `scheme` `http`, by prior knowledge.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
    ) -> Result<Self> {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, scheme })
    }

    /// By prior knowledge, without TLS.
    pub async fn open(server: SocketAddr) -> Result<Self> {
        Self::over(connect(None, server).await?, "http").await
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://api.test{path}", self.scheme)
    }

    pub async fn send(&mut self, request: Request<Stream>) -> Result<Response<Incoming>> {
        self.sender.ready().await?;
        tokio::time::timeout(PATIENCE, self.sender.send_request(request))
            .await
            .context("no answer in time")?
            .map_err(Into::into)
    }

    pub async fn get(&mut self, path: &str) -> Result<raw::Response> {
        let request = Request::get(self.url(path)).body(Stream::full(""))?;
        let (head, body) = self.send(request).await?.into_parts();
        let fields = head.headers.iter();
        Ok(raw::Response {
            status: head.status.as_u16(),
            fields: fields
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect(),
            body: body.collect().await?.to_bytes().to_vec(),
        })
    }
}

/// Opens streams and resets each at once, until `limit` or until the other side has enough. Gives how many it opened.
pub async fn rapid_reset(server: SocketAddr, limit: usize) -> Result<usize> {
    let (mut sender, connection) = h2::client::handshake(connect(None, server).await?).await?;
    let running = tokio::spawn(connection);
    let mut opened = 0;
    while opened < limit && !running.is_finished() {
        let Ok(ready) = tokio::time::timeout(PATIENCE, sender.clone().ready()).await.context("no window in time")?
        else {
            break;
        };
        sender = ready;
        let request = Request::get("http://api.test/slow/1000").body(())?;
        let Ok((_answer, mut stream)) = sender.send_request(request, true) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        opened += 1;
        // The connection's task writes on this thread, too.
        tokio::task::yield_now().await;
    }
    Ok(opened)
}

/// Frames as they are, for floods that no library sends: type, flags, stream, payload.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat().into()
}

/// The preface and an empty SETTINGS frame (RFC 9113 section 3.4).
pub fn preface() -> Bytes {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat().into()
}
