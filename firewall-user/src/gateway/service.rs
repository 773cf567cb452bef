//! A request on its way: judged, forwarded, answered.
//!
//! In: the head as the client sent it, and the body. Out: the upstream's answer, or ours where the request is refused. What
//! goes upstream is built from what was judged: path in normal form, one host, one framing, no header that is the client's
//! word for who it is.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use firewall_inspect::{
    fields, forwarded,
    framing::Framing,
    head::{self, Head, Version},
    problem,
    protocol::Judged,
    reason::Reason,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use super::{
    body::{RequestBody, ResponseBody},
    connection::Connection,
    exchange::{self, Exchange},
    policy::ApiPolicy,
    upstream::{self, Lease, Route},
};
use crate::events::request::Verdict;

/// The connection ends without an answer.
#[derive(Debug)]
pub(super) struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed without an answer")
    }
}

impl std::error::Error for Closed {}

type Answer = Result<Response<ResponseBody>, Closed>;

/// A request of HTTP/1: hyper's is the one we fed it, the head came by the lane.
pub(super) async fn http1(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let Some(arrival) = connection.lane.take() else { return Err(Closed) };
    let arrival = arrival.and_then(|head| if agrees(&head, &request) { Ok(head) } else { Err(Reason::FramingMismatch) });
    handle(connection, arrival, request).await
}

/// Whether hyper read the framing that the gate decided.
fn agrees(head: &Head, request: &Request<Incoming>) -> bool {
    if head.refusal.is_some() {
        return true;
    }
    let length = request.body().size_hint().exact();
    match head.framing {
        Framing::None | Framing::Stream => length == Some(0),
        Framing::Length(expected) => length == Some(expected),
        Framing::Chunked => length.is_none(),
    }
}

/// A request of HTTP/2.
pub(super) async fn http2(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let uri = request.uri();
    let fields = request.headers().iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let arrival = head::from_http2(
        request.method().as_str(),
        uri.scheme_str(),
        uri.authority().map(http::uri::Authority::as_str),
        uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str),
        fields,
        request.body().is_end_stream(),
    );
    handle(connection, arrival, request).await
}

async fn handle(connection: Arc<Connection>, arrival: Result<Head, Reason>, request: Request<Incoming>) -> Answer {
    let Some(policy) = connection.slot.policy() else { return Err(Closed) };
    let head = match arrival {
        Ok(head) => head,
        Err(reason) => {
            let told = exchange::Request::default();
            let exchange = Exchange::new(&connection.worker, &policy, &connection.peer, told);
            return refuse(&connection, &exchange, reason);
        }
    };
    let peer = &connection.peer;
    let client = forwarded::client(peer.address.ip(), &head, &policy.config.trusted_proxies);
    let judged = policy.protocol.judge(&head, peer.server_name.as_deref());
    let path = judged.path.as_deref().unwrap_or_else(|| head.bytes(head.target.path));
    let told = exchange::Request {
        client: client.as_ref().ok().map(|client| client.address),
        proxy: client.as_ref().ok().and_then(|client| client.via),
        method: exchange::method(head.method()),
        host: head.host.clone(),
        path: exchange::path(path),
        version: Some(match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }),
        cross_site: firewall_inspect::reputation::cross_site(&head),
    };
    let exchange = Exchange::new(&connection.worker, &policy, peer, told);
    connection.watch(&exchange);
    let client = match client {
        Ok(client) => client,
        Err(reason) => return refuse(&connection, &exchange, reason),
    };
    if connection.worker.reputation().refuses(client.address) {
        return refuse(&connection, &exchange, Reason::Reputation);
    }
    if let Some(reason) = judged.refusal.or_else(|| over_limits(&policy, &head)) {
        if !(policy.monitors() && reason.may_monitor()) {
            return refuse(&connection, &exchange, reason);
        }
        exchange.fail(Verdict::Monitor, reason);
    }
    let (parts, body) = request.into_parts();
    let Some(outgoing) = outgoing(&policy, &connection, &head, &judged, &client) else {
        return refuse(&connection, &exchange, Reason::MalformedTarget);
    };
    let grpc = is_grpc(&head);
    let port = if client.via.is_some() { 0 } else { peer.address.port() };
    let route = Route {
        upstream: &policy.upstream,
        peer,
        client: SocketAddr::new(client.address, port),
        host: head.host.as_deref(),
        http2: judged.upgrade.is_none() && policy.upstream_http2(peer.prior_knowledge, grpc),
    };
    let lane = (head.version != Version::Http2).then(|| Arc::clone(&connection.lane));
    let body = RequestBody::new(body, Arc::clone(&exchange), lane, grpc, head.version == Version::Http2);
    let sending = upstream::send(&connection.worker, &route, outgoing.map(|()| body));
    match in_time(&exchange, policy.config.timeouts.upstream, sending).await {
        Ok((answer, lease)) => {
            exchange.upstream_answered();
            if judged.upgrade.is_some() {
                return Ok(upgraded(&connection, exchange, Request::from_parts(parts, ()), answer, lease));
            }
            Ok(pass(exchange, answer, lease, grpc))
        }
        Err(reason) => {
            connection.lane.decide_upgrade(false);
            // The upstream's failure may be the client's: a body that broke off.
            let reason = exchange.reason().filter(|_| !exchange_monitors(&exchange)).unwrap_or(reason);
            refuse(&connection, &exchange, reason)
        }
    }
}

fn exchange_monitors(exchange: &Exchange) -> bool {
    exchange.policy().monitors()
}

/// What HTTP/2 does not bound by itself.
fn over_limits(policy: &ApiPolicy, head: &Head) -> Option<Reason> {
    if head.version != Version::Http2 {
        return None;
    }
    let limits = policy.head_limits();
    if head.raw_target.range().len() > limits.request_line as usize {
        return Some(Reason::RequestLineTooLong);
    }
    if head.fields.len() > limits.count as usize {
        return Some(Reason::TooManyHeaders);
    }
    (head.raw.len() > limits.headers as usize).then_some(Reason::HeadersTooLarge)
}

fn is_grpc(head: &Head) -> bool {
    head.values("content-type").any(|value| value.starts_with(b"application/grpc"))
}

/// Waits for the upstream's answer: so long after the request's body last moved.
async fn in_time<T>(
    exchange: &Exchange,
    patience: Duration,
    sending: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    let mut sending = std::pin::pin!(sending);
    let mut until = Instant::now() + patience;
    loop {
        tokio::select! {
            biased;
            result = sending.as_mut() => return result,
            () = sleep_until(until) => {
                let still = exchange.still_for();
                if still >= patience {
                    return Err(Reason::UpstreamTimeout);
                }
                until = Instant::now() + (patience - still);
            }
        }
    }
}

/// The head that goes upstream. `None`: the target is not one that can be sent.
fn outgoing(
    policy: &ApiPolicy,
    connection: &Connection,
    head: &Head,
    judged: &Judged<'_>,
    client: &forwarded::Client,
) -> Option<Request<()>> {
    let peer = &connection.peer;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = target(head, judged)?;
    let headers = request.headers_mut();
    headers.reserve(head.fields.len() + 4);
    let dropped = fields::connection_options(head);
    for field in &head.fields {
        let name = head.bytes(field.name);
        if !fields::goes_upstream(name) || dropped.names(name) {
            continue;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_maybe_shared(head.shared(field.value)).ok()?;
        headers.append(name, value);
    }
    if let Some(authority) = head.authority() {
        headers.insert(header::HOST, HeaderValue::from_bytes(authority).ok()?);
    }
    if head.version == Version::Http2 && head.values("te").any(|value| value == b"trailers") {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(token) = &judged.upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_bytes(token).ok()?);
    }
    let chain = forwarded::append(head, peer.address.ip(), client, peer.tls.is_some());
    headers.insert(header::FORWARDED, HeaderValue::from_maybe_shared(Bytes::from(chain.forwarded)).ok()?);
    let name = HeaderName::from_static("x-forwarded-for");
    headers.insert(name, HeaderValue::from_maybe_shared(Bytes::from(chain.x_forwarded_for)).ok()?);
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(chain.proto));
    let _for_later = policy;
    Some(request)
}

/// Path in normal form, and the query as sent.
fn target(head: &Head, judged: &Judged<'_>) -> Option<Uri> {
    let path = judged.path.as_deref().unwrap_or_else(|| head.bytes(head.target.path));
    let path = if path.is_empty() { b"/" } else { path };
    let Some(query) = head.target.query else {
        return Uri::from_maybe_shared(Bytes::copy_from_slice(path)).ok();
    };
    let query = head.bytes(query);
    let mut target = Vec::with_capacity(path.len() + 1 + query.len());
    target.extend_from_slice(path);
    target.push(b'?');
    target.extend_from_slice(query);
    Uri::from_maybe_shared(Bytes::from(target)).ok()
}

/// The upstream's answer, on its way to the client.
fn pass(exchange: Arc<Exchange>, answer: Response<Incoming>, lease: Lease, grpc: bool) -> Response<ResponseBody> {
    let (mut parts, body) = answer.into_parts();
    clean(&mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions.clear();
    exchange.answered(parts.status.as_u16());
    let events = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    Response::from_parts(parts, ResponseBody::upstream(body, exchange, lease, grpc || events))
}

/// Removes what concerns the connection to the upstream only.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "upgrade"] {
        headers.remove(name);
    }
    headers.remove(header::TRANSFER_ENCODING);
}

/// An answer to a request for an upgrade: only a 101 with the same token opens the tunnel.
fn upgraded(
    connection: &Arc<Connection>,
    exchange: Arc<Exchange>,
    mut request: Request<()>,
    mut answer: Response<Incoming>,
    lease: Lease,
) -> Response<ResponseBody> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        connection.lane.decide_upgrade(false);
        return pass(exchange, answer, lease, false);
    }
    let (Some(client), upstream) = (Some(hyper::upgrade::on(&mut request)), hyper::upgrade::on(&mut answer)) else {
        unreachable!("both sides were asked");
    };
    let (mut parts, _) = answer.into_parts();
    let token = parts.headers.get(header::UPGRADE).cloned();
    clean(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(token) = token {
        parts.headers.insert(header::UPGRADE, token);
    }
    parts.extensions.clear();
    parts.version = http::Version::default();
    exchange.answered(101);
    connection.lane.decide_upgrade(true);
    let tunnel = Arc::clone(&exchange);
    tokio::spawn(async move {
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        let _counted = tunnel.policy().metrics.tunnel();
        if let Ok((up, down)) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tunnel.took(usize::try_from(up).unwrap_or(usize::MAX));
            tunnel.gave(usize::try_from(down).unwrap_or(usize::MAX));
        }
    });
    Response::from_parts(parts, ResponseBody::own(Bytes::new(), exchange))
}

/// Our own answer.
fn refuse(connection: &Connection, exchange: &Arc<Exchange>, reason: Reason) -> Answer {
    let failed = reason.status() >= 500 && reason.blame() == firewall_inspect::reason::Blame::Nobody;
    exchange.fail(if failed { Verdict::Fail } else { Verdict::Refuse }, reason);
    connection.refused.store(true, std::sync::atomic::Ordering::Relaxed);
    let status = reason.status();
    if status == 0 {
        return Err(Closed);
    }
    exchange.answered(status);
    let body = Bytes::from(problem::body(status, exchange.id));
    let mut answer = Response::new(ResponseBody::own(body, Arc::clone(exchange)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if reason == Reason::Method
        && let Ok(methods) = HeaderValue::from_str(&exchange.policy().config.protocol.methods.join(", "))
    {
        headers.insert(header::ALLOW, methods);
    }
    Ok(answer)
}

/// hyper wants an error type; there is none here.
#[expect(dead_code, reason = "documents that nothing else can fail")]
type Never = Infallible;
