//! Connections to the upstream: opened, kept for the next request, given up in doubt.
//!
//! In: where a request goes, and the request. Out: the head of the answer, and a [`Lease`] on the connection its body comes
//! over. A connection serves again only after an answer that came whole, to a request that was sent whole, and not if it has
//! bytes that nobody asked for. A request of which a byte was sent is never sent again.

mod link;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use firewall_inspect::{forwarded, reason::Reason};
use http::Response;
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::{sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use self::link::Link;
pub(super) use self::link::RequestFraming;
use super::{
    body::RequestBody,
    connection::Peer,
    exchange::Exchange,
    outgoing::Outgoing,
    policy::{Target, UpstreamPolicy},
    stream::Transport,
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
    link: Box<Link>,
    since: Instant,
}

/// A connection that an answer comes over.
pub(super) struct Lease {
    pub(super) link: Box<Link>,
    worker: Arc<Worker>,
    key: Key,
}

impl Lease {
    /// The answer is over: the next request may have the connection, if nothing speaks against it.
    pub(super) fn give_back(mut self) {
        if self.link.is_reusable() {
            self.link.rest();
            self.worker.pool().put(self.key, self.link);
        }
    }
}

/// The body of an answer.
pub(super) enum AnswerBody {
    Http1(Lease),
    Http2(Incoming),
}

enum Sender {
    Http1(Box<Link>),
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

    fn put(&self, key: Key, link: Box<Link>) {
        let mut idle = self.idle();
        let kept = idle.entry(key).or_default();
        if kept.len() < KEEP_AT_MOST {
            kept.push(Idle { link, since: Instant::now() });
        }
    }

    fn take(&self, key: &Key, route: &Route<'_>) -> Option<Sender> {
        // Where TLS did not choose, one client's HTTP/2 is none of another's business.
        if !route.upgrade
            && (route.http2 || route.upstream.tls.is_some())
            && let Some(sender) = self.shared().get(key)
            && !sender.is_closed()
        {
            return Some(Sender::Http2 { sender: sender.clone(), used: true });
        }
        if route.http2 {
            return None;
        }
        let mut idle = self.idle();
        let kept = idle.get_mut(key)?;
        while let Some(Idle { mut link, since }) = kept.pop() {
            if since.elapsed() < KEEP && link.is_quiet() {
                return Some(Sender::Http1(link));
            }
        }
        None
    }

    /// Lets go of connections that nobody used for long, or that the upstream has ended.
    pub(super) fn sweep(&self) {
        self.idle().retain(|_, kept| {
            kept.retain_mut(|idle| idle.since.elapsed() < KEEP && idle.link.is_quiet());
            !kept.is_empty()
        });
        self.shared().retain(|_, sender| !sender.is_closed());
    }
}

/// Sends the request and waits for the head of its answer.
pub(super) async fn send(
    worker: &Arc<Worker>,
    route: &Route<'_>,
    outgoing: &Outgoing<'_>,
    mut body: RequestBody,
    exchange: &Exchange,
) -> Result<(Response<()>, AnswerBody), Reason> {
    let key = route.key();
    let patience = exchange.policy().config.timeouts.upstream;
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
            Sender::Http1(mut link) => {
                let framing = match body.size_hint().exact() {
                    Some(length) => RequestFraming::Length(length),
                    None => RequestFraming::Chunked,
                };
                outgoing.write(link.head(), framing)?;
                link.begin(body, framing);
                let answer = link.answer(outgoing.method(), exchange, patience).await?;
                let lease = Lease { link, worker: Arc::clone(worker), key };
                return Ok((answer, AnswerBody::Http1(lease)));
            }
            Sender::Http2 { mut sender, used } => {
                let request = outgoing.request(route.upstream.tls.is_some())?.map(|()| body);
                let sending = pin!(sender.try_send_request(request));
                match in_time(exchange, patience, sending).await? {
                    Ok(answer) => {
                        let (head, body) = answer.into_parts();
                        return Ok((Response::from_parts(head, ()), AnswerBody::Http2(body)));
                    }
                    Err(mut error) => {
                        worker.pool().shared().remove(&key);
                        // Only if no byte of it was sent, over a connection that had been used before.
                        match error.take_message() {
                            Some(request) if used => body = request.into_body(),
                            _ => return Err(Reason::UpstreamProtocol),
                        }
                    }
                }
            }
        }
    }
}

/// Waits for the upstream's answer: so long after the request's body last moved.
async fn in_time<T>(
    exchange: &Exchange,
    patience: Duration,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Reason> {
    let mut until = tokio::time::Instant::now() + patience;
    loop {
        tokio::select! {
            biased;
            result = sending.as_mut() => return Ok(result),
            () = sleep_until(until) => {
                let still = exchange.still_for();
                if still >= patience {
                    return Err(Reason::UpstreamTimeout);
                }
                until = tokio::time::Instant::now() + (patience - still);
            }
        }
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
    let Some(tls) = &route.upstream.tls else {
        return shake(worker, Transport::Plain(stream), route.http2, key).await;
    };
    let name = tls.server_name.as_deref().or(route.host).unwrap_or("");
    let name = ServerName::try_from(name.to_owned()).map_err(|_| Reason::UpstreamTls)?;
    let stream = TlsConnector::from(tls.config(route.http2, route.upgrade)).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        tracing::debug!("TLS with the upstream: {error}");
        Reason::UpstreamTls
    })?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    shake(worker, Transport::Tls(Box::new(stream.into())), http2, key).await
}

/// Starts HTTP on a connection.
async fn shake(worker: &Arc<Worker>, stream: Transport, http2: bool, key: &Key) -> Result<Sender, Reason> {
    if !http2 {
        return Ok(Sender::Http1(Link::new(stream)));
    }
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = connection.map_err(|_| Reason::UpstreamProtocol)?;
    tokio::spawn(connection);
    worker.pool().shared().insert(key.clone(), sender.clone());
    Ok(Sender::Http2 { sender, used: false })
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
