//! An application to protect: HTTP/1.1 and HTTP/2 without TLS on one port, told apart by the preface.
//!
//! | path | answer |
//! |---|---|
//! | `/` and what is not below | what the application saw, as JSON: [`Seen`] |
//! | `/bytes/N` | N bytes of the pattern, or the part that `Range` asks for |
//! | `/slow/MS` | `slow`, after so many milliseconds |
//! | `/sse/N/MS` | an event stream: N events, one each so many milliseconds |
//! | `/ws` | WebSocket: each message back |
//! | `/upload` | bytes and hash of the body |
//! | `/early` | 200 at once, the body unread |
//! | `/drop` | none: the connection ends |
//! | `/half` | a head that promises 100 bytes, 10 bytes, and the end of the connection |
//! | `/status/N` | that status, without a body |
//! | `/chunked` | three chunks |
//! | `/poll`, `/poke` | the first waits for the second |
//! | `/test.Echo/…` | gRPC: see [`super::grpc`] |

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_RANGE, CONTENT_TYPE, FORWARDED, HeaderName, HeaderValue, RANGE},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, sync::Notify};

use super::{
    Server,
    body::{Digest, Stream, feed},
    grpc, websocket,
};
use crate::netns::Namespace;

/// How HTTP/2 begins without TLS (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The application; it runs until dropped.
#[derive(Debug)]
pub struct App {
    state: Arc<State>,
    server: Server,
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicU64,
    requests: AtomicU64,
    bare: AtomicU64,
    poked: Notify,
}

/// What the application saw of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// As `HTTP/1.1`.
    pub version: String,
    /// Names in lower case, in order.
    pub fields: Vec<(String, String)>,
    pub peer: SocketAddr,
    pub body: usize,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| &value[..]).collect()
    }
}

impl App {
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let state = Arc::<State>::default();
        let serving = Arc::clone(&state);
        let server = Server::start(namespace, address, move |stream, peer| serve(stream, peer, Arc::clone(&serving)))?;
        Ok(Self { state, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Requests so far that came by no gateway: without `Forwarded`.
    pub fn bare(&self) -> u64 {
        self.state.bare.load(Ordering::Relaxed)
    }

    /// Requests begun so far.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    let mut start = [0; PREFACE.len()];
    let second = loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return,
            Ok(length) if start[..length] != PREFACE[..length] => break false,
            Ok(length) if length == PREFACE.len() => break true,
            // The rest of the preface is on its way.
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { answer(request, peer, &state).await }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the client's business; what the application said is asserted there.
    let _ = if second {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await
    };
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, state: &State) -> io::Result<Response<Stream>> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    if !request.headers().contains_key(FORWARDED) {
        state.bare.fetch_add(1, Ordering::Relaxed);
    }
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    Ok(match words[0] {
        "bytes" => bytes(&request, number(1)),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number(1))).await;
            text("slow")
        }
        "sse" => event_stream(number(1), Duration::from_millis(number(2))),
        "ws" => websocket::accept(request),
        "upload" => {
            let digest = digest(request.into_body()).await?;
            json(&serde_json::json!({ "bytes": digest.bytes, "hash": digest.hash.to_string() }))
        }
        "early" => text("early"),
        "drop" => return Err(io::Error::other("the application gives up")),
        "half" => {
            let (feeder, body) = Stream::new(Some(100));
            tokio::spawn(async move {
                // The channel has room.
                let _ = feeder.try_send(Frame::data(Bytes::from_static(b"ten bytes.")));
                // They shall have left before the connection ends.
                tokio::time::sleep(Duration::from_millis(100)).await;
            });
            Response::new(body)
        }
        "status" => {
            let mut response = Response::new(Stream::full(""));
            *response.status_mut() = StatusCode::from_u16(number(1) as u16).unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        "chunked" => {
            let (feeder, body) = Stream::new(None);
            for chunk in ["one ", "two ", "three"] {
                let _ = feeder.try_send(Frame::data(chunk.into()));
            }
            Response::new(body)
        }
        "poll" => {
            state.poked.notified().await;
            text("poked")
        }
        "poke" => {
            state.poked.notify_one();
            text("done")
        }
        "test.Echo" => grpc::serve(&words[1..].join("/"), request),
        _ => seen(request, peer).await?,
    })
}

async fn seen(request: Request<Incoming>, peer: SocketAddr) -> io::Result<Response<Stream>> {
    let (head, body) = request.into_parts();
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let body = body.collect().await.map_err(io::Error::other)?;
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        version: format!("{:?}", head.version),
        fields: head.headers.iter().map(text).collect(),
        peer,
        trailers: body.trailers().map(|trailers| trailers.iter().map(text).collect()).unwrap_or_default(),
        body: body.to_bytes().len(),
    };
    Ok(json(&seen))
}

/// Reads a body to its end.
pub async fn digest(mut body: Incoming) -> io::Result<Digest> {
    let mut digest = Digest::default();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(io::Error::other)?.data_ref() {
            digest.add(data);
        }
    }
    Ok(digest)
}

fn bytes(request: &Request<Incoming>, length: u64) -> Response<Stream> {
    let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let range = range.and_then(|range| {
        let (from, to) = range.split_once('-')?;
        Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?.min(length.checked_sub(1)?)))
    });
    let (from, to) = range.map_or((0, length), |(from, to)| (from, to + 1));
    let (feeder, body) = Stream::new(Some(to.saturating_sub(from)));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {from}-{}/{length}", to.saturating_sub(1));
        response.headers_mut().extend(HeaderValue::from_str(&value).ok().map(|value| (CONTENT_RANGE, value)));
    }
    tokio::spawn(feed(feeder, from, to));
    response
}

fn event_stream(count: u64, every: Duration) -> Response<Stream> {
    let (feeder, body) = Stream::new(None);
    tokio::spawn(async move {
        for number in 0..count {
            if feeder.send(Frame::data(format!("id: {number}\ndata: event {number}\n\n").into())).await.is_err() {
                return;
            }
            tokio::time::sleep(every).await;
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn text(text: &'static str) -> Response<Stream> {
    let mut response = Response::new(Stream::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn json(value: &impl Serialize) -> Response<Stream> {
    let mut response = Response::new(Stream::full(serde_json::to_vec(value).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
