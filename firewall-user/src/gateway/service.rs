//! A request on its way: judged, forwarded, answered.
//!
//! In: the head as the client sent it, and the body. Out: the upstream's answer, or ours where the request is refused. What
//! goes upstream is built from what was judged: path in normal form, one host, one framing, no header that is the client's
//! word for who it is.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
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
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};

use super::{
    body::{RequestBody, ResponseBody, Source},
    connection::{Connection, Tunnel},
    exchange::{self, Exchange},
    inspection::{self, Refusal},
    outgoing::Outgoing,
    stream::ClientStream,
    upstream::{self, AnswerBody, Lease, Route},
};
use crate::{
    config::api::RuleSet,
    events::request::{Verdict, excerpt},
};

/// Bytes of a method, and of a path, that a record keeps.
const METHOD: usize = 32;
const PATH: usize = 1024;

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
    handle(&connection, arrival, Source::Http2(request.into_body())).await
}

/// Answers a request, of either HTTP.
pub(super) async fn handle(connection: &Arc<Connection>, arrival: Result<Head, Reason>, source: Source) -> Answer {
    let http2 = matches!(source, Source::Http2(_));
    let Some(policy) = connection.slot.policy() else { return Err(Closed) };
    let head = match arrival {
        Ok(head) => head,
        Err(reason) => {
            let told = exchange::Request::default();
            let exchange = Exchange::new(&connection.worker, &policy, &connection.peer, told);
            return refuse(&exchange, None, reason);
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
    if http2 {
        connection.watch(&exchange);
    }
    let (client, judged) = match (client, judged) {
        (Ok(client), _) if !policy.monitors() && connection.worker.reputation().refuses(client.address) => {
            return refuse(&exchange, Some(&head), Reason::Reputation);
        }
        (Ok(client), Ok(judged)) => (client, judged),
        (_, Err(reason)) | (Err(reason), _) => {
            // Rules could be right about one of several readings alone.
            if !reason.is_ambiguous() {
                exchange.inspect_from(peer.address);
                inspection::explain(&exchange, &head);
            }
            return refuse(&exchange, Some(&head), reason);
        }
    };
    if policy.monitors() && connection.worker.reputation().refuses(client.address) {
        exchange.fail(Verdict::Monitor, Reason::Reputation);
    } else if let Some(reason) = judged.monitored {
        exchange.fail(Verdict::Monitor, reason);
    }
    let grpc = is_grpc(&head);
    let plain = policy.config.rules.as_ref().is_some_and(RuleSet::reads_answers);
    let mut outgoing = match Outgoing::new(peer, &head, &judged, &client, plain) {
        Ok(outgoing) => outgoing,
        Err(reason) => return refuse(&exchange, Some(&head), reason),
    };
    let port = if client.proxies.is_empty() { peer.address.port() } else { 0 };
    let route = Route {
        upstream: &policy.upstream,
        peer,
        client: SocketAddr::new(client.address, port),
        host: head.host.as_deref(),
        http2: judged.upgrade.is_none() && policy.upstream_http2(peer.prior_knowledge, grpc),
        upgrade: judged.upgrade.is_some(),
    };
    let mut body = RequestBody::new(source, Arc::clone(&exchange), grpc);
    exchange.inspect_from(route.client);
    match inspection::request(&exchange, &head, &mut body, grpc || judged.upgrade.is_some()).await {
        Ok(decoded) => outgoing.decoded = decoded,
        Err(refusal) => return refuse(&exchange, Some(&head), refusal),
    }
    match upstream::send(&connection.worker, &route, &outgoing, body, &exchange).await {
        Ok((answer, body)) => {
            exchange.upstream_answered();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS
                && switches(&judged, &answer)
                && let AnswerBody::Http1(lease) = body
            {
                return Ok(upgraded(connection, exchange, answer, lease));
            }
            if !is_plain(&answer, &body) {
                return refuse(&exchange, Some(&head), Reason::UpstreamProtocol);
            }
            let bodiless = head.method() == b"HEAD"
                || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            match pass(&exchange, answer, body, bodiless, grpc).await {
                Ok(answer) => Ok(answer),
                Err(refusal) => refuse(&exchange, Some(&head), refusal),
            }
        }
        Err(reason) => {
            // The upstream's failure may be the client's: a body that broke off.
            let reason = exchange.cut().unwrap_or(reason);
            refuse(&exchange, Some(&head), reason)
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
fn switches(judged: &Judged, answer: &Response<()>) -> bool {
    let mut tokens = answer.headers().get_all(header::UPGRADE).iter();
    let token = tokens.next().filter(|_| tokens.next().is_none());
    token.zip(judged.upgrade.as_ref()).is_some_and(|(token, asked)| token.as_bytes().eq_ignore_ascii_case(asked))
}

/// Whether nobody switches protocols, and the end of the answer is beyond doubt for whoever reads it after us as well. Of
/// HTTP/1, the connection it came over has seen to the latter.
fn is_plain(answer: &Response<()>, body: &AnswerBody) -> bool {
    let framed = || {
        let mut lengths = answer.headers().get_all(header::CONTENT_LENGTH).iter();
        let length = lengths.next().is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit));
        length && lengths.next().is_none() && !answer.headers().contains_key(header::TRANSFER_ENCODING)
    };
    !answer.status().is_informational() && (matches!(body, AnswerBody::Http1(_)) || framed())
}

/// The upstream's answer, on its way to the client.
async fn pass(
    exchange: &Arc<Exchange>,
    answer: Response<()>,
    body: AnswerBody,
    bodiless: bool,
    grpc: bool,
) -> Result<Response<ResponseBody>, Refusal> {
    let events = answer.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    });
    let mut body = if bodiless && matches!(body, AnswerBody::Http2(_)) {
        // Some servers send a body even so.
        ResponseBody::own(Bytes::new(), Arc::clone(exchange))
    } else {
        ResponseBody::upstream(body, Arc::clone(exchange), grpc || events)
    };
    inspection::answer(exchange, &answer, &mut body, grpc || events).await?;
    let (mut parts, ()) = answer.into_parts();
    clean(&mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions.clear();
    exchange.answered(parts.status.as_u16());
    Ok(Response::from_parts(parts, body))
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
    connection: &Connection,
    exchange: Arc<Exchange>,
    answer: Response<()>,
    lease: Lease,
) -> Response<ResponseBody> {
    let (mut parts, ()) = answer.into_parts();
    let token = parts.headers.get(header::UPGRADE).cloned();
    clean(&mut parts.headers);
    if let Some(token) = token {
        parts.headers.insert(header::UPGRADE, token);
    }
    exchange.answered(101);
    let (transport, ahead) = lease.link.into_parts();
    let patience = exchange.policy().config.timeouts.idle;
    let upstream = ClientStream::new(transport, ahead, patience, Arc::default());
    let tunnel = Tunnel { upstream, exchange: Arc::clone(&exchange) };
    *connection.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tunnel));
    Response::from_parts(parts, ResponseBody::own(Bytes::new(), exchange))
}

/// Our own answer.
fn refuse(exchange: &Arc<Exchange>, head: Option<&Head>, refusal: impl Into<Refusal>) -> Answer {
    let Refusal { reason, status, location } = refusal.into();
    exchange.weighs(reputation::weight(reason, head));
    let failed = status >= 500 && reason.blame() == Blame::Nobody;
    exchange.fail(if failed { Verdict::Fail } else { Verdict::Refuse }, reason);
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
    if let Some(location) = location {
        headers.insert(header::LOCATION, location);
    }
    if reason == Reason::Method
        && let Ok(methods) = HeaderValue::from_str(&exchange.policy().config.protocol.methods.join(", "))
    {
        headers.insert(header::ALLOW, methods);
    }
    Ok(answer)
}
