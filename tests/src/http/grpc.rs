//! gRPC by hand: length-prefixed messages over HTTP/2, and a status in the trailers. A service that echoes, and its client.

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue, TE},
};

use super::{
    body::{Feeder, Stream},
    http2::Connection,
};

const TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// A message with its prefix, uncompressed.
pub fn frame(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}

/// Takes one message off the front, if it is all there.
fn unframe(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}

/// `Echo` and whatever else sends each message back as it comes, and then status 0; `Fail` has status 5 and no message.
pub(super) fn serve(method: &str, request: Request<Incoming>) -> Response<Stream> {
    let (feeder, body) = Stream::new(None);
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, TYPE);
    if method == "Fail" {
        drop(feeder);
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        *response.body_mut() = Stream::full("");
    } else {
        tokio::spawn(echo(request.into_body(), feeder));
    }
    response
}

async fn echo(mut body: Incoming, feeder: Feeder) {
    let mut buffer = BytesMut::new();
    while let Some(Ok(piece)) = body.frame().await {
        let Ok(data) = piece.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(message) = unframe(&mut buffer) {
            if feeder.send(Frame::data(frame(&message))).await.is_err() {
                return;
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", HeaderValue::from_static("echoed"));
    // A client that went has no use for them.
    let _ = feeder.send(Frame::trailers(trailers)).await;
}

/// A call whose two streams are open.
#[derive(Debug)]
pub struct Call {
    feeder: Option<Feeder>,
    body: Incoming,
    buffer: BytesMut,
    status: Option<String>,
}

impl Call {
    /// Calls `/test.Echo/<method>`. For use inside [`super::within`].
    pub async fn start(connection: &mut Connection, method: &str) -> Result<Self> {
        let (feeder, body) = Stream::new(None);
        let mut request = Request::post(connection.url(&format!("/test.Echo/{method}"))).body(body)?;
        request.headers_mut().insert(CONTENT_TYPE, TYPE);
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let response = connection.send(request).await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let kind = response.headers().get(CONTENT_TYPE).context("no content type")?;
        ensure!(kind == TYPE, "the content type {kind:?}");
        let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned);
        Ok(Self { feeder: Some(feeder), body: response.into_body(), buffer: BytesMut::new(), status })
    }

    pub async fn say(&mut self, message: &[u8]) -> Result<()> {
        let feeder = self.feeder.as_ref().context("it was finished")?;
        feeder.send(Frame::data(frame(message))).await.ok().context("the call is over")
    }

    /// Says that no message follows.
    pub fn finish(&mut self) {
        self.feeder = None;
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = unframe(&mut self.buffer) {
                return Ok(Some(message));
            }
            match self.body.frame().await.transpose()? {
                None => return Ok(None),
                Some(piece) => match piece.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(piece) => {
                        let status = piece.trailers_ref().and_then(|trailers| trailers.get("grpc-status"));
                        self.status = status.and_then(|status| status.to_str().ok()).map(str::to_owned);
                    }
                },
            }
        }
    }

    /// `grpc-status`, from the head or, once [`Call::next`] gave `None`, from the trailers.
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }
}
