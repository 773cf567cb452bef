//! The gate: the one parser of HTTP/1 requests.
//!
//! In: bytes of a client. Out: heads, as they were sent, and the bytes of their bodies, whose framing is decided here, once,
//! and beyond doubt. The next head is looked for only behind the body's end. Behind a head that is refused for its form
//! nothing is read: what follows could be anything.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use firewall_inspect::{
    chunk::{self, Chunks, Step},
    fields::elements,
    framing::Framing,
    head::{self, Head, Scan, Version},
    reason::Reason,
};
use tokio::{io::AsyncWrite as _, time::Instant};
use tokio_util::io::poll_read_buf;

use super::{
    outbox::Outbox,
    stream::{ClientStream, Deadline},
};

/// Bytes asked of the client at once: for a head or a short body, and for a long one.
const READ: usize = 8 << 10;
const READ_LONG: usize = 64 << 10;

/// How long a connection that is to end waits for one more request.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(1);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A head, or why there is none.
pub(super) type Arrival = Result<Head, Reason>;

/// The body of a request is read by whoever sends it on, while the answer is written by another.
pub(super) type SharedGate = Arc<Mutex<Gate>>;

/// Bounds that the gate itself holds.
#[derive(Clone, Copy)]
pub(super) struct GateLimits {
    pub(super) head: head::Limits,
    pub(super) trailers: chunk::Limits,
    /// From the first byte of a head to its last.
    pub(super) head_within: Duration,
    /// For a first byte.
    pub(super) idle: Duration,
}

enum State {
    /// Between two requests, or within a head.
    Head(Scan),
    Length(u64),
    Chunked(Box<Chunks>),
    /// Nothing more is read.
    Done,
}

pub(super) struct Gate {
    io: ClientStream,
    limits: GateLimits,
    /// Received, and not yet judged.
    input: BytesMut,
    state: State,
    deadline: Deadline,
    /// What is left to say of `100 Continue`, once somebody wants the body.
    interim: &'static [u8],
}

impl Gate {
    pub(super) fn new(io: ClientStream, limits: GateLimits) -> Self {
        let (state, deadline) = (State::Head(Scan::default()), Deadline::none());
        Self { io, limits, input: BytesMut::new(), state, deadline, interim: b"" }
    }

    /// Whether the last request is behind us, and another may come.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// The connection, and what came behind the last request.
    pub(super) fn into_inner(mut self) -> ClientStream {
        if !self.input.is_empty() {
            self.io.unread(self.input.freeze());
        }
        self.io
    }

    /// The next head; `None` at the end. With `closing`, a client whose next request is on its way gets its answer, and
    /// with it the word that it was the last.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, closing: bool) -> Poll<io::Result<Option<Arrival>>> {
        loop {
            let State::Head(scan) = &mut self.state else { return Poll::Ready(Ok(None)) };
            if !self.input.is_empty() {
                match scan.advance(&self.input, &self.limits.head) {
                    Ok(Some(range)) => {
                        self.deadline.set(None);
                        let mut raw = self.input.split_to(range.end);
                        raw.advance(range.start);
                        let arrival = head::parse(raw.freeze());
                        match &arrival {
                            Ok(head) if head.refusal.is_none() => self.expect_body(head),
                            _ => self.state = State::Done,
                        }
                        return Poll::Ready(Ok(Some(arrival)));
                    }
                    Ok(None) => {}
                    Err(reason) => {
                        self.state = State::Done;
                        return Poll::Ready(Ok(Some(Err(reason))));
                    }
                }
            }
            let first = self.input.is_empty();
            self.deadline.within(if first { self.limits.idle } else { self.limits.head_within });
            if first && closing {
                self.deadline.sooner(Instant::now() + LAST_REQUEST);
            }
            match self.poll_fill(cx, READ) {
                Poll::Ready(count) => {
                    if count? == 0 {
                        return Poll::Ready(Ok(None));
                    }
                    if first {
                        // Most heads come whole. For one that does not, another time begins to run.
                        self.deadline.set(None);
                    }
                }
                Poll::Pending => {
                    if first {
                        // An idle connection holds no buffer.
                        self.input = BytesMut::new();
                    }
                    ready!(self.deadline.poll(cx));
                    self.state = State::Done;
                    let late = (!first).then_some(Err(Reason::HeadTimeout));
                    return Poll::Ready(Ok(late));
                }
            }
        }
    }

    fn expect_body(&mut self, head: &Head) {
        self.state = match head.framing {
            Framing::None | Framing::Stream | Framing::Length(0) => State::Head(Scan::default()),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Box::new(Chunks::new(self.limits.trailers))),
        };
        let waits = !self.is_between()
            && head.version == Version::Http11
            && head.values("expect").flat_map(elements).any(|token| token.eq_ignore_ascii_case(b"100-continue"));
        self.interim = if waits { CONTINUE } else { b"" };
    }

    /// The next bytes of the body at hand; `None` behind its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reason>>> {
        if !self.input.is_empty() {
            self.forgo_interim();
        }
        loop {
            match &mut self.state {
                State::Head(_) | State::Done => return Poll::Ready(None),
                State::Length(left) if !self.input.is_empty() => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= count as u64;
                    if *left == 0 {
                        self.state = State::Head(Scan::default());
                    }
                    return Poll::Ready(Some(Ok(self.input.split_to(count).freeze())));
                }
                State::Length(_) => {}
                State::Chunked(chunks) => match chunks.advance(&self.input, 0) {
                    Ok(Step::Data(range)) => {
                        let mut data = self.input.split_to(range.end);
                        data.advance(range.start);
                        return Poll::Ready(Some(Ok(data.freeze())));
                    }
                    Ok(Step::End(end)) => {
                        self.input.advance(end);
                        self.state = State::Head(Scan::default());
                        return Poll::Ready(None);
                    }
                    Ok(Step::More) => self.input.clear(),
                    Err(reason) => return Poll::Ready(Some(Err(self.cut(reason)))),
                },
            }
            let most = match &self.state {
                State::Length(left) => usize::try_from(*left).unwrap_or(READ_LONG).clamp(READ, READ_LONG),
                _ => READ,
            };
            if self.poll_interim(cx).is_err() {
                return Poll::Ready(Some(Err(self.cut(Reason::BodyBrokenOff))));
            }
            if !matches!(ready!(self.poll_fill(cx, most)), Ok(1..)) {
                return Poll::Ready(Some(Err(self.cut(Reason::BodyBrokenOff))));
            }
        }
    }

    /// Tells a client that waits for it to send its body. It may send before it has heard.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.interim.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, self.interim) {
                Poll::Ready(count) => self.interim = &self.interim[count?..],
                Poll::Pending => return Ok(()),
            }
            if self.interim.is_empty()
                && let Poll::Ready(Err(error)) = Pin::new(&mut self.io).poll_flush(cx)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the client waits for a word before it sends the body at hand.
    pub(super) fn is_waited_for(&self) -> bool {
        self.interim.len() == CONTINUE.len()
    }

    /// Says nothing in between, unless it has begun to.
    fn forgo_interim(&mut self) {
        if self.is_waited_for() {
            self.interim = b"";
        }
    }

    /// Sends an answer, or a part of one, behind what is left of an interim answer that has begun.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<()>> {
        self.forgo_interim();
        self.poll_interim(cx)?;
        if !self.interim.is_empty() {
            return Poll::Pending;
        }
        outbox.poll_send(cx, Pin::new(&mut self.io))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Ends the body at hand, and with it the connection.
    fn cut(&mut self, reason: Reason) -> Reason {
        self.state = State::Done;
        self.input = BytesMut::new();
        reason
    }

    /// Reads more of the client into `input`; 0 at its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.input.reserve(most);
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// Reads and forgets what the client sends: how many bytes now, 0 at its end.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.input.clear();
        match ready!(self.poll_fill(cx, READ)) {
            Ok(count) => Poll::Ready(count),
            Err(_) => Poll::Ready(0),
        }
    }
}
