//! A request on its way: judged, forwarded, answered.
//!
//! In: the head as the client sent it, and the body. Out: the upstream's answer, or ours where the request is refused. What
//! goes upstream is built from what was judged: path in normal form, one host, one framing, no header that is the client's
//! word for who it is.

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use firewall_inspect::{
    fields, forwarded,
    framing::Framing,
    head::{self, Head, Version},
    problem,
    protocol::Judged,
    reason::{Blame, Reason},
    reputation,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use super::{
    body::{RequestBody, ResponseBody},
    connection::{Connection, Peer},
    exchange::{self, Exchange},
    upstream::{self, Lease, Route},
};
use crate::events::request::{Verdict, excerpt};

/// Bytes of a method, and of a path, that a record keeps.
const METHOD: usize = 32;
const PATH: usize = 1024;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
    let arrival =
        arrival.and_then(|head| if agrees(&head, &request) { Ok(head) } else { Err(Reason::FramingMismatch) });
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
    let Some(policy) = connection.slot.policy() else { return Err(Closed) };
    let uri = request.uri();
    // Which h2 saw to, but does not tell where there is Host in place of `:authority`.
    let scheme = if connection.peer.tls.is_some() { "https" } else { "http" };
    let untold = uri.authority().is_none().then_some(scheme);
    let asked = head::Http2 {
        method: request.method().as_str().as_bytes(),
        scheme: uri.scheme_str().or(untold).map(str::as_bytes),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        path: uri.path_and_query().map_or(&[], |path| path.as_str().as_bytes()),
        end_of_stream: request.body().is_end_stream(),
    };
    let fields = request.headers().iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let arrival = head::from_http2(asked, fields, &policy.head_limits());
    handle(connection, arrival, request).await
}

async fn handle(connection: Arc<Connection>, arrival: Result<Head, Reason>, request: Request<Incoming>) -> Answer {
    let Some(policy) = connection.slot.policy() else { return Err(Closed) };
    let head = match arrival {
        Ok(head) => head,
        Err(reason) => {
            let told = exchange::Request::default();
            let exchange = Exchange::new(&connection.worker, &policy, &connection.peer, told);
            connection.watch(&exchange);
            return refuse(&connection, &exchange, None, reason);
        }
    };
    let peer = &connection.peer;
    let client = forwarded::client(peer.address.ip(), &head, &policy.config.trusted_proxies);
    let judged = policy.protocol.judge(&head, peer.server_name.as_deref(), policy.monitors());
    let path = judged.as_ref().map_or_else(|_| head.bytes(head.target.path), |judged| &judged.path);
    let told = exchange::Request {
        client: client.as_ref().ok().map(|client| client.address),
        proxy: client.as_ref().ok().and_then(forwarded::Client::proxy),
        method: excerpt(head.method(), METHOD),
        host: head.host.clone(),
        path: excerpt(path, PATH),
        version: Some(match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }),
    };
    let exchange = Exchange::new(&connection.worker, &policy, peer, told);
    connection.watch(&exchange);
    let (client, judged) = match (client, judged) {
        (Ok(client), _) if !policy.monitors() && connection.worker.reputation().refuses(client.address) => {
            return refuse(&connection, &exchange, Some(&head), Reason::Reputation);
        }
        (Ok(client), Ok(judged)) => (client, judged),
        (_, Err(reason)) | (Err(reason), _) => return refuse(&connection, &exchange, Some(&head), reason),
    };
    if policy.monitors() && connection.worker.reputation().refuses(client.address) {
        exchange.fail(Verdict::Monitor, Reason::Reputation);
    } else if let Some(reason) = judged.monitored {
        exchange.fail(Verdict::Monitor, reason);
    }
    if judged.upgrade.is_none() {
        connection.lane.decide_upgrade(false);
    }
    let grpc = is_grpc(&head);
    let http2 = judged.upgrade.is_none() && policy.upstream_http2(peer.prior_knowledge, grpc);
    let outgoing = match outgoing(peer, &head, &judged, &client, http2) {
        Ok(outgoing) => outgoing,
        Err(reason) => return refuse(&connection, &exchange, Some(&head), reason),
    };
    let (parts, body) = request.into_parts();
    let port = if client.proxies.is_empty() { peer.address.port() } else { 0 };
    let route = Route {
        upstream: &policy.upstream,
        peer,
        client: SocketAddr::new(client.address, port),
        host: head.host.as_deref(),
        http2,
        upgrade: judged.upgrade.is_some(),
    };
    let lane = (head.version != Version::Http2).then(|| Arc::clone(&connection.lane));
    let body = RequestBody::new(body, Arc::clone(&exchange), lane, grpc, head.version == Version::Http2);
    let sending = pin!(upstream::send(&connection.worker, &route, outgoing.map(|()| body)));
    match in_time(&exchange, policy.config.timeouts.upstream, sending).await {
        Ok((answer, lease)) => {
            exchange.upstream_answered();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS && switches(&judged, &answer) {
                return Ok(upgraded(&connection, exchange, Request::from_parts(parts, ()), answer));
            }
            if !is_plain(&answer) {
                return refuse(&connection, &exchange, Some(&head), Reason::UpstreamProtocol);
            }
            connection.lane.decide_upgrade(false);
            let bodiless = head.method() == b"HEAD"
                || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            Ok(pass(exchange, answer, lease, bodiless, grpc))
        }
        Err(reason) => {
            // The upstream's failure may be the client's: a body that broke off.
            let reason = exchange.cut().unwrap_or(reason);
            refuse(&connection, &exchange, Some(&head), reason)
        }
    }
}

/// gRPC itself, whose streams may be silent for long. gRPC-Web, and what else HTTP/1 carries under such a name, has no such streams.
fn is_grpc(head: &Head) -> bool {
    let is = |value: &[u8]| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    head.version == Version::Http2 && head.values("content-type").any(is)
}

/// Whether the upstream switches to what the client asked for, and to nothing else.
fn switches(judged: &Judged, answer: &Response<Incoming>) -> bool {
    let mut tokens = answer.headers().get_all(header::UPGRADE).iter();
    let token = tokens.next().filter(|_| tokens.next().is_none());
    token.zip(judged.upgrade.as_ref()).is_some_and(|(token, asked)| token.as_bytes().eq_ignore_ascii_case(asked))
}

/// Whether the end of an answer is beyond doubt, for whoever reads it after us as well, and nobody switches protocols.
fn is_plain(answer: &Response<Incoming>) -> bool {
    let headers = answer.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let framed = match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
        (None, Some(coding)) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    framed && lengths.next().is_none() && codings.next().is_none() && !answer.status().is_informational()
}

/// Waits for the upstream's answer: so long after the request's body last moved.
async fn in_time<T>(
    exchange: &Exchange,
    patience: Duration,
    mut sending: Pin<&mut impl Future<Output = Result<T, Reason>>>,
) -> Result<T, Reason> {
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

/// The head that goes upstream.
fn outgoing(
    peer: &Peer,
    head: &Head,
    judged: &Judged,
    client: &forwarded::Client,
    http2: bool,
) -> Result<Request<()>, Reason> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).map_err(|_| Reason::Method)?;
    let target = if judged.target.is_empty() { Bytes::from_static(b"/") } else { judged.target.clone() };
    *request.uri_mut() = Uri::from_maybe_shared(target).map_err(|_| Reason::MalformedTarget)?;
    let headers = request.headers_mut();
    headers.reserve(head.fields.len() + 4);
    let value = |bytes: Bytes| HeaderValue::from_maybe_shared(bytes).map_err(|_| Reason::ControlCharacter);
    for (name, sent) in fields::upstream(head, http2)? {
        let name = HeaderName::from_bytes(name).map_err(|_| Reason::HeaderName)?;
        headers.append(name, value(head.raw.slice_ref(sent))?);
    }
    let host = match head.authority() {
        Some(authority) => Bytes::copy_from_slice(authority),
        // HTTP/1.0 goes on as HTTP/1.1, which has one: where the client went.
        None => SocketAddr::new(peer.local.ip(), peer.local.port()).to_string().into(),
    };
    headers.insert(header::HOST, value(host)?);
    if let Some(token) = &judged.upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, value(token.clone())?);
    }
    let https = client.speaks_tls(peer.tls.is_some());
    let forwarded = forwarded::forwarded(client, https, head.authority());
    headers.insert(header::FORWARDED, value(forwarded.into())?);
    headers.insert(X_FORWARDED_FOR, value(forwarded::x_forwarded_for(client).into())?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(forwarded::x_forwarded_proto(https)));
    Ok(request)
}

/// The upstream's answer, on its way to the client.
fn pass(
    exchange: Arc<Exchange>,
    answer: Response<Incoming>,
    lease: Lease,
    bodiless: bool,
    grpc: bool,
) -> Response<ResponseBody> {
    let (mut parts, body) = answer.into_parts();
    clean(&mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions.clear();
    exchange.answered(parts.status.as_u16());
    let events = parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    let body = if bodiless && !body.is_end_stream() {
        // Over HTTP/2, some servers send a body even so.
        ResponseBody::own(Bytes::new(), exchange)
    } else {
        ResponseBody::upstream(body, exchange, lease, grpc || events)
    };
    Response::from_parts(parts, body)
}

/// Removes what concerns the connection to the upstream only.
fn clean(headers: &mut HeaderMap) {
    let about_connection = |name: &HeaderName, named: &fields::Named<'_>| {
        !fields::goes_downstream(name.as_str().as_bytes()) || named.has(name.as_str().as_bytes())
    };
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let named = fields::Named::in_response(values);
    let removed: Vec<HeaderName> = headers.keys().filter(|name| about_connection(name, &named)).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// A 101 with the token that the client asked for: bytes pass from now on.
fn upgraded(
    connection: &Arc<Connection>,
    exchange: Arc<Exchange>,
    mut request: Request<()>,
    mut answer: Response<Incoming>,
) -> Response<ResponseBody> {
    let (client, upstream) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
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
    connection.tunnels(async move {
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
fn refuse(connection: &Connection, exchange: &Arc<Exchange>, head: Option<&Head>, reason: Reason) -> Answer {
    exchange.weighs(reputation::weight(reason, head));
    let failed = reason.status() >= 500 && reason.blame() == Blame::Nobody;
    exchange.fail(if failed { Verdict::Fail } else { Verdict::Refuse }, reason);
    connection.refused.store(true, Ordering::Relaxed);
    connection.lane.decide_upgrade(false);
    let status = reason.status();
    if status == 0 {
        return Err(Closed);
    }
    exchange.answered(status);
    let body = Bytes::from(problem::body(status, exchange.id));
    let mut answer = Response::new(ResponseBody::own(body, Arc::clone(exchange)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if head.is_some_and(|head| matches!(head.framing, Framing::Length(_) | Framing::Chunked)) {
        // Whether the client will still send a body that we did not ask for (100-continue) is its secret.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if reason == Reason::Method
        && let Ok(methods) = HeaderValue::from_str(&exchange.policy().config.protocol.methods.join(", "))
    {
        headers.insert(header::ALLOW, methods);
    }
    Ok(answer)
}
