//! HTTP/1 towards a client: one request after the other, each answer written whole before the next head is looked at.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use firewall_inspect::head::{Head, Version};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    body::{ResponseBody, Source},
    connection::{Connection, Tunnel},
    gate::{Arrival, Gate, SharedGate},
    outbox::Outbox,
    registry::Handle,
    service,
    stream::ClientStream,
};

/// What is still read and forgotten behind an answer, of a request that it overtook, or of whatever comes before the end, so
/// that the client sees the answer before a reset: so many bytes, for so long.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of the connection after an answer.
enum After {
    Next,
    /// It ends, in order; the client may still be sending.
    End,
    /// It breaks off: the answer could not be sent whole.
    BreakOff,
    Tunnel(Box<Tunnel>),
}

/// Serves requests until the connection ends.
pub(super) async fn serve(connection: &Arc<Connection>, gate: Gate, handle: &Handle) {
    let gate = Arc::new(Mutex::new(gate));
    loop {
        let arrival = tokio::select! {
            biased;
            arrival = poll_fn(|cx| lock(&gate).poll_head(cx, handle.is_draining())) => arrival,
            () = handle.drain.notified() => continue,
        };
        let Ok(Some(arrival)) = arrival else {
            let _gone = poll_fn(|cx| lock(&gate).poll_shutdown(cx)).await;
            return;
        };
        // Boxed: between requests, a connection needs no room for one.
        match Box::pin(answer(connection, &gate, arrival, handle)).await {
            After::Next => {}
            After::End => return linger(&gate).await,
            After::BreakOff => return,
            After::Tunnel(tunnel) => {
                let Ok(gate) = Arc::try_unwrap(gate) else { return };
                let client = gate.into_inner().unwrap_or_else(PoisonError::into_inner).into_inner();
                return tunnel_through(client, *tunnel).await;
            }
        }
    }
}

fn lock(gate: &SharedGate) -> std::sync::MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request.
async fn answer(connection: &Arc<Connection>, gate: &SharedGate, arrival: Arrival, handle: &Handle) -> After {
    // What is refused for its form ends the connection: nobody knows what follows.
    let client = match &arrival {
        Ok(head) => Client {
            http11: head.version == Version::Http11,
            head: head.method() == b"HEAD",
            keep_alive: head.refusal.is_none() && head.keep_alive(),
        },
        Err(_) => Client { http11: true, head: false, keep_alive: false },
    };
    let framing = arrival.as_ref().map(|head: &Head| head.framing);
    let source = framing.map_or(Source::Gone, |framing| Source::Http1(Arc::clone(gate), framing));
    let Ok(answer) = service::handle(connection, arrival, source).await else { return After::BreakOff };
    let (mut head, body) = answer.into_parts();
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let framing = AnswerFraming::decide(&client, head.status, &mut head.headers, &body);
    let closes = head.headers.remove(header::CONNECTION).is_some_and(|value| value == "close");
    // A client that waits to be asked for its body, and never was, may send it or not: nobody knows what follows.
    let known = !lock(gate).is_waited_for();
    let keep_alive = client.keep_alive && known && framing != AnswerFraming::Close && !closes && !handle.is_draining();
    let mut outbox = Outbox::default();
    write_head(outbox.head(), &client, &Response::from_parts(head, ()), switches, keep_alive);
    let body = (framing != AnswerFraming::None).then_some(body);
    let mut sending = Sending { gate, outbox, body, framing };
    if !poll_fn(|cx| sending.poll(cx)).await {
        return After::BreakOff;
    }
    drop(sending);
    if switches {
        let tunnel = connection.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
        return tunnel.map_or(After::End, After::Tunnel);
    }
    if keep_alive && forget(gate).await { After::Next } else { After::End }
}

/// Reads what is left of a request that the answer overtook; whether that was soon over.
async fn forget(gate: &SharedGate) -> bool {
    let mut left = LINGER_BYTES;
    let rest = async {
        while !lock(gate).is_between() {
            match poll_fn(|cx| lock(gate).poll_body(cx)).await {
                Some(Ok(data)) if data.len() <= left => left -= data.len(),
                _ => break,
            }
        }
        lock(gate).is_between()
    };
    tokio::time::timeout(LINGER, rest).await.unwrap_or(false)
}

/// What the client's request says of the answer's form.
struct Client {
    http11: bool,
    /// It asks for a head alone.
    head: bool,
    keep_alive: bool,
}

/// How the body of an answer goes out (RFC 9112 section 6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerFraming {
    /// No body, whatever the headers say.
    None,
    Length,
    Chunked,
    /// The end of the connection is the end of the body.
    Close,
}

impl AnswerFraming {
    /// Sets the headers that tell of it. Of a body that is not sent, the upstream's word on its length stays.
    fn decide(client: &Client, status: StatusCode, headers: &mut HeaderMap, body: &ResponseBody) -> Self {
        let length = body.size_hint().exact();
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            headers.remove(header::CONTENT_LENGTH);
            return Self::None;
        }
        if client.head || status == StatusCode::NOT_MODIFIED {
            if let Some(length @ 1..) = length {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            return Self::None;
        }
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
            return Self::Length;
        }
        headers.remove(header::CONTENT_LENGTH);
        if !client.http11 {
            return Self::Close;
        }
        headers.insert(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
        Self::Chunked
    }
}

fn write_head(output: &mut BytesMut, client: &Client, answer: &Response<()>, switches: bool, keep_alive: bool) {
    let (status, headers) = (answer.status(), answer.headers());
    output.reserve(512);
    output.extend_from_slice(if client.http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    output.extend_from_slice(status.as_str().as_bytes());
    output.extend_from_slice(b" ");
    output.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    output.extend_from_slice(b"\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            output.extend_from_slice(part);
        }
    };
    for (name, value) in headers {
        field(name.as_str().as_bytes(), value.as_bytes());
    }
    match (switches, keep_alive, client.http11) {
        (true, _, _) => field(b"connection", b"upgrade"),
        (false, false, _) => field(b"connection", b"close"),
        (false, true, false) => field(b"connection", b"keep-alive"),
        (false, true, true) => {}
    }
    if !headers.contains_key(header::DATE) {
        date(|date| field(b"date", date));
    }
    output.extend_from_slice(b"\r\n");
}

/// The time of day, as HTTP writes it; put together once a second.
fn date(use_it: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        use_it(text.as_bytes());
    });
}

/// An answer on its way out.
struct Sending<'g> {
    gate: &'g SharedGate,
    outbox: Outbox,
    /// What is still to come of it.
    body: Option<ResponseBody>,
    framing: AnswerFraming,
}

impl Sending<'_> {
    /// Whether all of it went out.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            while let Some(body) = &mut self.body
                && self.outbox.has_room()
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // Trailers are for clients that asked for them; over HTTP/1, hardly any does.
                        let Ok(data) = frame.into_data() else { continue };
                        self.push(data);
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Ready(None) => {
                        self.body = None;
                        if self.framing == AnswerFraming::Chunked {
                            self.outbox.push_last_chunk();
                        }
                    }
                    Poll::Pending => break,
                }
            }
            let full = !self.outbox.has_room();
            if ready!(lock(self.gate).poll_send(cx, &mut self.outbox)).is_err() {
                return Poll::Ready(false);
            }
            if self.body.is_none() {
                return Poll::Ready(true);
            }
            if !full {
                // The body itself wakes us.
                return Poll::Pending;
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.framing == AnswerFraming::Chunked {
            self.outbox.push_chunk(data);
        } else {
            self.outbox.push(data);
        }
    }
}

/// Ends a connection, and reads on for a moment.
async fn linger(gate: &SharedGate) {
    let mut left = LINGER_BYTES;
    let rest = async {
        if poll_fn(|cx| lock(gate).poll_shutdown(cx)).await.is_err() {
            return;
        }
        while left > 0 {
            match poll_fn(|cx| lock(gate).poll_drain(cx)).await {
                0 => return,
                count => left = left.saturating_sub(count),
            }
        }
    };
    let _out_of_time = tokio::time::timeout(LINGER, rest).await;
}

/// Bytes pass both ways, whatever they are.
async fn tunnel_through(mut client: ClientStream, tunnel: Tunnel) {
    let Tunnel { mut upstream, exchange } = tunnel;
    let _counted = exchange.policy().metrics.tunnel();
    if let Ok((up, down)) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        exchange.took(usize::try_from(up).unwrap_or(usize::MAX));
        exchange.gave(usize::try_from(down).unwrap_or(usize::MAX));
    }
}
