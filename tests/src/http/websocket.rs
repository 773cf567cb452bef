//! WebSocket: a service that sends each message back, and a client.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{PATIENCE, body::Stream, connect};

/// Agrees to the upgrade and echoes from then on.
pub(super) fn accept(mut request: Request<Incoming>) -> Response<Stream> {
    let mut response = Response::new(Stream::full(""));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(key) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // Without an upgrade there is nobody to talk to.
        let Ok(stream) = upgraded.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    response
}

/// A client's end. For use inside [`super::within`].
#[derive(Debug)]
pub struct Socket<S> {
    stream: WebSocketStream<S>,
}

impl Socket<tokio::net::TcpStream> {
    /// Opens `/ws`.
    pub async fn open(server: SocketAddr) -> Result<Self> {
        Self::over(connect(None, server).await?).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub async fn over(stream: S) -> Result<Self> {
        let opening = client_async("ws://api.test/ws", stream);
        let (stream, _response) = tokio::time::timeout(PATIENCE, opening).await.context("no answer in time")??;
        Ok(Self { stream })
    }

    /// Says something and waits for the echo.
    pub async fn say(&mut self, words: &str) -> Result<String> {
        self.stream.send(Message::text(words)).await?;
        let answer = tokio::time::timeout(PATIENCE, self.stream.next()).await.context("no echo in time")?;
        match answer.context("closed without an echo")?? {
            Message::Text(text) => Ok(text.to_string()),
            other => bail!("another message: {other:?}"),
        }
    }

    /// Waits for the end of the connection.
    pub async fn closed(&mut self) -> bool {
        let end = async { while let Some(Ok(_)) = self.stream.next().await {} };
        tokio::time::timeout(PATIENCE, end).await.is_ok()
    }
}
