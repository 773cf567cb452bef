//! Connections to the upstream: opened, kept for the next request, given up in doubt.
//!
//! In: where a request goes, and the request. Out: the head of the answer, and a [`Lease`] on the connection its body comes
//! over. A connection serves again only after an answer that came whole, to a request that was sent whole; hyper drops one
//! that has bytes nobody asked for. A request of which a byte was sent is never sent again.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use firewall_inspect::{forwarded, reason::Reason};
use http::{HeaderValue, Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    body::RequestBody,
    connection::Peer,
    policy::{Target, UpstreamPolicy},
    worker::Worker,
};
/// How long a connection waits for the next request. Shorter than what servers usually allow (Node.js: 5 seconds), so that
/// they seldom close one just when we use it.
const KEEP: Duration = Duration::from_secs(4);
/// Connections kept for one upstream, by each worker.
const KEEP_AT_MOST: usize = 256;

/// Connections are shared by requests for which all of this is the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    upstream: u64,
    /// Where a steered client wanted to go.
    to: Option<SocketAddr>,
    /// The client, where the connection names it to the upstream at its start.
    client: Option<SocketAddr>,
    /// The name the upstream's certificate must have, if the request decides it.
    name: Option<Box<str>>,
}

/// The connections of one worker.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    shared: Mutex<HashMap<Key, http2::SendRequest<RequestBody>>>,
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// A connection in use.
pub(super) struct Lease {
    back: Option<(Arc<Worker>, Key, http1::SendRequest<RequestBody>)>,
}

impl Lease {
    /// The answer is over: the next request may have the connection.
    pub(super) fn give_back(self) {
        let Some((worker, key, mut sender)) = self.back else { return };
        if sender.is_ready() {
            worker.pool().put(key, sender);
            return;
        }
        // hyper has yet to notice the end of the answer itself.
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(KEEP, sender.ready()).await {
                worker.pool().put(key, sender);
            }
        });
    }
}

enum Sender {
    Http1 { sender: http1::SendRequest<RequestBody>, used: bool },
    Http2 { sender: http2::SendRequest<RequestBody>, used: bool },
}

/// What decides over the connection, beside its key.
pub(super) struct Route<'r> {
    pub(super) upstream: &'r Arc<UpstreamPolicy>,
    pub(super) peer: &'r Peer,
    /// The client's address and port, as the upstream shall know it.
    pub(super) client: SocketAddr,
    /// The host the request is for.
    pub(super) host: Option<&'r str>,
    /// Speak HTTP/2 where nothing is negotiated.
    pub(super) http2: bool,
    /// It asks for an upgrade, which HTTP/1 has alone.
    pub(super) upgrade: bool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, HashMap<Key, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, HashMap<Key, http2::SendRequest<RequestBody>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: Key, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle();
        let kept = idle.entry(key).or_default();
        if kept.len() < KEEP_AT_MOST {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    fn take(&self, key: &Key, route: &Route<'_>) -> Option<Sender> {
        if let Some(sender) = self.shared().get(key)
            && !route.upgrade
            && !sender.is_closed()
        {
            return Some(Sender::Http2 { sender: sender.clone(), used: true });
        }
        if route.http2 {
            return None;
        }
        let mut idle = self.idle();
        let kept = idle.get_mut(key)?;
        while let Some(Idle { sender, since }) = kept.pop() {
            if sender.is_ready() && since.elapsed() < KEEP {
                return Some(Sender::Http1 { sender, used: true });
            }
        }
        None
    }

    /// Lets go of connections that nobody used for long.
    pub(super) fn sweep(&self) {
        self.idle().retain(|_, kept| {
            kept.retain(|idle| idle.since.elapsed() < KEEP && !idle.sender.is_closed());
            !kept.is_empty()
        });
        self.shared().retain(|_, sender| !sender.is_closed());
    }
}

/// Sends `request` and waits for the head of its answer.
pub(super) async fn send(
    worker: &Arc<Worker>,
    route: &Route<'_>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let key = route.key();
    loop {
        let connection = match worker.pool().take(&key, route) {
            Some(connection) => connection,
            None => {
                let within = route.upstream.connect;
                // Boxed: it is large, and most requests find a connection.
                let connecting = Box::pin(connect(worker, route, &key));
                timeout(within, connecting).await.map_err(|_| Reason::UpstreamTimeout)??
            }
        };
        match connection {
            Sender::Http1 { mut sender, used } => {
                prepare(&mut request, route, false);
                match sender.try_send_request(request).await {
                    Ok(answer) => {
                        return Ok((answer, Lease { back: Some((Arc::clone(worker), key, sender)) }));
                    }
                    Err(error) => request = unsent(error, used)?,
                }
            }
            Sender::Http2 { mut sender, used } => {
                prepare(&mut request, route, true);
                match sender.try_send_request(request).await {
                    Ok(answer) => return Ok((answer, Lease { back: None })),
                    Err(error) => {
                        worker.pool().shared().remove(&key);
                        request = unsent(error, used)?;
                    }
                }
            }
        }
    }
}

/// The request, if no byte of it was sent over a connection that had been used before.
fn unsent(mut error: TrySendError<Request<RequestBody>>, used: bool) -> Result<Request<RequestBody>, Reason> {
    match error.take_message() {
        Some(request) if used => Ok(request),
        _ => Err(Reason::UpstreamProtocol),
    }
}

/// HTTP/2 names scheme and authority in the request line, HTTP/1.1 the authority in `Host`.
fn prepare(request: &mut Request<RequestBody>, route: &Route<'_>, http2: bool) {
    *request.version_mut() = if http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
    if !http2 {
        if request.body().size_hint().exact().is_none() {
            // Of itself, hyper would leave such a body out of a GET.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(http::header::TRANSFER_ENCODING, chunked);
        }
        return;
    }
    request.headers_mut().remove(http::header::TRANSFER_ENCODING);
    let host = request.headers_mut().remove(http::header::HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let scheme = if route.upstream.tls.is_some() { "https" } else { "http" };
    let path = request.uri().path_and_query().cloned();
    let uri = http::Uri::builder().scheme(scheme).authority(authority);
    let uri = match path {
        Some(path) => uri.path_and_query(path),
        None => uri.path_and_query("/"),
    };
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
    }
}

impl Route<'_> {
    fn key(&self) -> Key {
        let steered = matches!(self.upstream.target, Target::Original { .. });
        Key {
            upstream: self.upstream.id,
            to: steered.then_some(self.peer.local),
            client: self.upstream.proxy_v2.then_some(self.client),
            name: self.upstream.names_by_request().then(|| self.host.unwrap_or("").into()),
        }
    }
}

async fn connect(worker: &Arc<Worker>, route: &Route<'_>, key: &Key) -> Result<Sender, Reason> {
    let mut stream = dial(route).await?;
    let _best_effort = stream.set_nodelay(true);
    if route.upstream.proxy_v2 {
        let header = forwarded::proxy_v2(route.client, route.peer.local);
        stream.write_all(&header).await.map_err(|_| Reason::UpstreamProtocol)?;
    }
    let Some(tls) = &route.upstream.tls else { return shake(worker, stream, route.http2, key).await };
    let name = tls.server_name.as_deref().or(route.host).unwrap_or("");
    let name = ServerName::try_from(name.to_owned()).map_err(|_| Reason::UpstreamTls)?;
    let stream = TlsConnector::from(tls.config(route.http2, route.upgrade)).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        tracing::debug!("TLS with the upstream: {error}");
        Reason::UpstreamTls
    })?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    shake(worker, stream, http2, key).await
}

/// Starts HTTP on a connection.
async fn shake(
    worker: &Arc<Worker>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    key: &Key,
) -> Result<Sender, Reason> {
    if http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = connection.map_err(|_| Reason::UpstreamProtocol)?;
        tokio::spawn(connection);
        worker.pool().shared().insert(key.clone(), sender.clone());
        return Ok(Sender::Http2 { sender, used: false });
    }
    let connection = http1::Builder::new().max_buf_size(256 << 10).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = connection.map_err(|_| Reason::UpstreamProtocol)?;
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1 { sender, used: false })
}

async fn dial(route: &Route<'_>) -> Result<TcpStream, Reason> {
    match &route.upstream.target {
        Target::Original { network } => {
            let to = route.peer.local;
            let (socket, _exempt_until_connected) = network.upstream_socket(to).map_err(|error| unreachable(&error))?;
            TcpSocket::from_std_stream(socket).connect(to).await.map_err(|error| unreachable(&error))
        }
        Target::Named { host, port } => {
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await;
            let addresses = addresses.map_err(|error| unreachable(&error))?;
            let mut last = Reason::UpstreamUnreachable;
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = unreachable(&error),
                }
            }
            Err(last)
        }
    }
}

fn unreachable(error: &io::Error) -> Reason {
    tracing::debug!("upstream: {error}");
    if error.kind() == io::ErrorKind::TimedOut { Reason::UpstreamTimeout } else { Reason::UpstreamUnreachable }
}
