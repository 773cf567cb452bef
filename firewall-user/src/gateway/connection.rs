//! A client's connection from accept to end: TLS, which HTTP it speaks, and HTTP/2 with hyper.

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use firewall_inspect::reason::Reason;
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{interval, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    exchange::Exchange,
    gate::{Gate, LAST_REQUEST},
    http1,
    policy::ApiPolicy,
    registry::{Full, Handle},
    service,
    stream::{ClientStream, Transport},
    worker::{ApiSlot, Worker},
};
use crate::{
    config::api::Timeouts,
    events::request::{RequestRecord, Verdict},
};

/// What a client that knows us to speak HTTP/2 sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Windows of HTTP/2: what a client may send ahead of us, in each stream and in all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a client may open and reset before we accept them: above, it is a flood (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// The other end.
pub(super) struct Peer {
    /// Never an IPv4 address in IPv6 notation.
    pub(super) address: SocketAddr,
    /// Where it wanted to go.
    pub(super) local: SocketAddr,
    pub(super) tls: Option<&'static str>,
    /// The name it asked for in TLS.
    pub(super) server_name: Option<Box<str>>,
    /// It began with HTTP/2 in the clear.
    pub(super) prior_knowledge: bool,
}

/// A connection as its requests see it.
pub(super) struct Connection {
    pub(super) worker: Arc<Worker>,
    pub(super) slot: Arc<ApiSlot>,
    pub(super) peer: Arc<Peer>,
    /// Requests under way, of HTTP/2.
    streams: Mutex<Vec<Weak<Exchange>>>,
    /// What follows HTTP/1, once the answer that says so is sent.
    pub(super) tunnel: Mutex<Option<Box<Tunnel>>>,
}

/// The other end of a connection that has left HTTP, and the request that asked for it.
pub(super) struct Tunnel {
    pub(super) upstream: ClientStream,
    pub(super) exchange: Arc<Exchange>,
}

impl Connection {
    /// Takes note of a request that is under way, of HTTP/2.
    pub(super) fn watch(&self, exchange: &Arc<Exchange>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(exchange));
    }

    fn under_way(&self) -> Vec<Arc<Exchange>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Serves a connection that was just accepted, until it ends.
pub(super) async fn serve(
    worker: Arc<Worker>,
    slot: Arc<ApiSlot>,
    stream: TcpStream,
    address: SocketAddr,
    local: SocketAddr,
) {
    let Some(policy) = slot.policy() else { return };
    let mut peer = Peer { address, local, tls: None, server_name: None, prior_knowledge: false };
    let limits = &policy.config.limits;
    let of_client = if policy.trusts(address.ip()) { u32::MAX } else { limits.connections_per_client };
    let most = worker.shared.limits.load().connections;
    let key = worker.reputation().key(address.ip());
    let ticket = worker.shared.registry.admit(key, &policy.config.name, most, of_client);
    let ticket = match ticket {
        Ok(ticket) => ticket,
        Err(full) => {
            let reason = match full {
                Full::Total => Reason::ConnectionsTotal,
                Full::Client => Reason::ConnectionsPerClient,
            };
            policy.metrics.connection_refused(reason);
            return tell(&worker, &policy, &peer, reason);
        }
    };
    let _counted = policy.metrics.connection();
    let _slower_without = stream.set_nodelay(true);
    let handle = Arc::clone(&ticket.handle);
    let work = async {
        // Boxed, so that a connection takes the memory of what it is doing, not of all it might.
        let entering = Box::pin(enter(&worker, &policy, &mut peer, stream, &handle));
        let Some((transport, ahead)) = entering.await else { return };
        let http2 = peer.prior_knowledge || alpn(&transport) == Some(b"h2");
        let slow = Arc::new(AtomicBool::new(false));
        let io = ClientStream::new(transport, ahead, policy.config.timeouts.idle, Arc::clone(&slow));
        let limits = policy.gate_limits();
        // A connection lasts longer than a policy need: each request asks for the one of its time.
        drop(policy);
        let connection = Arc::new(Connection {
            worker: Arc::clone(&worker),
            slot,
            peer: Arc::new(peer),
            streams: Mutex::default(),
            tunnel: Mutex::default(),
        });
        if http2 {
            Box::pin(serve_http2(&connection, io, &handle)).await;
        } else {
            http1::serve(&connection, Gate::new(io, limits), &handle).await;
        }
        if slow.load(Ordering::Relaxed) {
            cut(&connection, Reason::SlowReader);
        }
    };
    tokio::select! {
        () = work => {}
        () = handle.abort.notified() => {}
    }
}

/// Tells of a connection that was cut without a request to blame.
fn tell(worker: &Arc<Worker>, policy: &Arc<ApiPolicy>, peer: &Peer, reason: Reason) {
    worker.judge_connection(policy, peer.address.ip(), reason);
    worker.record(RequestRecord {
        time: SystemTime::now(),
        id: worker.next_id(),
        api: policy.name(),
        client: peer.address.ip(),
        client_port: peer.address.port(),
        proxy: None,
        method: "".into(),
        host: peer.server_name.clone(),
        path: "".into(),
        version: None,
        tls: peer.tls,
        verdict: Verdict::Refuse,
        reason: Some(reason),
        status: 0,
        bytes_in: 0,
        bytes_out: 0,
        duration: 0,
        upstream: None,
        generation: policy.generation,
        content: None,
    });
}

/// Tells of a connection that we ended. Of an API that is no more, nobody asks.
fn cut(connection: &Connection, reason: Reason) {
    if let Some(policy) = connection.slot.policy() {
        policy.metrics.cut(reason);
        tell(&connection.worker, &policy, &connection.peer, reason);
    }
}

fn alpn(transport: &Transport) -> Option<&[u8]> {
    match transport {
        Transport::Plain(_) => None,
        Transport::Tls(tls) => tls.get_ref().1.alpn_protocol(),
    }
}

/// TLS, or in the clear the question which HTTP this is. `None`: the connection is over, and told of.
async fn enter(
    worker: &Arc<Worker>,
    policy: &Arc<ApiPolicy>,
    peer: &mut Peer,
    mut stream: TcpStream,
    handle: &Handle,
) -> Option<(Transport, Bytes)> {
    let Some(tls) = &policy.tls else {
        let ahead = match first_bytes(&mut stream, &policy.config.timeouts, handle).await? {
            Ok(ahead) => ahead,
            Err(reason) => {
                tell(worker, policy, peer, reason);
                return None;
            }
        };
        peer.prior_knowledge = ahead.starts_with(PREFACE);
        return Some((Transport::Plain(stream), ahead));
    };
    // Boxed: a connection in the clear need not have room for it.
    let accepting = Box::pin(TlsAcceptor::from(Arc::clone(tls)).accept(stream));
    let accepted = timeout(policy.config.timeouts.head, accepting).await;
    match accepted {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            peer.tls = match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
                _ => Some("TLSv1.2"),
            };
            peer.server_name = session.server_name().map(Into::into);
            policy.metrics.handshake(true);
            Some((Transport::Tls(Box::new(stream.into())), Bytes::new()))
        }
        Ok(Err(error)) => {
            policy.metrics.handshake(false);
            // A peer that just goes away, as health checks do, is nothing to tell.
            if error.kind() == io::ErrorKind::InvalidData {
                tracing::debug!("TLS with {}: {error}", peer.address);
                tell(worker, policy, peer, Reason::TlsHandshake);
            }
            None
        }
        Err(_) => {
            policy.metrics.handshake(false);
            tell(worker, policy, peer, Reason::TlsTimeout);
            None
        }
    }
}

/// The first bytes of a client, or why they do not tell which HTTP it speaks. `None`: it sent nothing.
async fn first_bytes(stream: &mut TcpStream, timeouts: &Timeouts, handle: &Handle) -> Option<Result<Bytes, Reason>> {
    {
        // Until something comes, the connection has no buffer. That it is `readable` tokio may say too soon.
        let mut first = [0];
        let mut waiting = pin!(timeout(timeouts.idle, stream.peek(&mut first)));
        let came = tokio::select! {
            came = waiting.as_mut() => came,
            // The agent is going: only a moment more.
            () = handle.drain.notified() => {
                let came = timeout(LAST_REQUEST, waiting).await.ok()?;
                // What comes next must be told, too.
                handle.drain();
                came
            }
        };
        came.ok()?.ok()?;
    }
    match timeout(timeouts.head, sniff(stream)).await {
        Ok(ahead) => ahead.ok().map(Ok),
        Err(_) => Some(Err(Reason::HeadTimeout)),
    }
}

/// The first bytes of a client: as many as tell whether this is HTTP/2.
async fn sniff(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut ahead = BytesMut::with_capacity(2048);
    loop {
        if stream.read_buf(&mut ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = ahead.len().min(PREFACE.len());
        if ahead[..length] != PREFACE[..length] || length == PREFACE.len() {
            return Ok(ahead.freeze());
        }
    }
}

async fn serve_http2(connection: &Arc<Connection>, io: ClientStream, handle: &Handle) {
    let Some(policy) = connection.slot.policy() else { return };
    let (limits, patience) = (&policy.config.limits, policy.config.timeouts.idle);
    let serving = Arc::clone(connection);
    let service = service_fn(move |request| service::http2(Arc::clone(&serving), request));
    let http = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        // Above our own limit, so that what is over that is refused with a reason; beyond, HTTP/2 itself refuses.
        .max_header_list_size(limits.headers.saturating_mul(2))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(io), service);
    drop(policy);
    let mut http = pin!(http);
    let mut look = interval((patience / 4).clamp(Duration::from_millis(250), Duration::from_secs(15)));
    let mut idle_since = None;
    let ended = loop {
        tokio::select! {
            ended = http.as_mut() => break ended,
            () = handle.drain.notified() => http.as_mut().graceful_shutdown(),
            now = look.tick() => {
                let streams = connection.under_way();
                if streams.iter().any(|stream| stream.stalled_for().is_some_and(|still| still > patience)) {
                    return cut(connection, Reason::SlowReader);
                }
                if !streams.is_empty() {
                    idle_since = None;
                } else if now.duration_since(*idle_since.get_or_insert(now)) > patience {
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    };
    let broken = ended.err().is_some_and(|error| {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
        // What we complain of, not what the client says of us.
        cause.is_some_and(|cause| !cause.is_remote() && !cause.is_io() && cause.reason() != Some(h2::Reason::NO_ERROR))
    });
    if broken {
        cut(connection, Reason::Http2);
    }
}
