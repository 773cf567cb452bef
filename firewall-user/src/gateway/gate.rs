//! The gate under hyper: the one parser of HTTP/1 requests.
//!
//! In: bytes of a client. Out, towards hyper: for each request a head that we wrote ourselves, whose framing is beyond
//! doubt, and then exactly its body; towards the service: the [`Head`] as it was sent, through a [`Lane`]. The next head
//! goes in only after the body's end, and after the service took the one before. What is refused enters as a plain request
//! with a refusal in its place, so that its answer comes in order, and the connection ends there.
//!
//! What hyper reads can therefore not be misread: it never sees a byte of a head that a client sent.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use firewall_inspect::{
    chunk::{self, Chunks, Step},
    framing::Framing,
    head::{self, Head, Scan, Version},
    reason::Reason,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::stream::{ClientStream, Deadline};

/// Bytes asked of the client at once.
const READ: usize = 8 << 10;

/// How long a connection that is to end waits for one more request.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(1);

/// A head on its way to the service, or why there is none.
pub(super) type Arrival = Result<Head, Reason>;

/// What gate and service tell each other.
#[derive(Default)]
pub(super) struct Lane {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    arrivals: VecDeque<Arrival>,
    /// The gate, waiting for the service.
    waker: Option<Waker>,
    upgrade: Upgrade,
    /// Why the body of the request at hand broke off.
    cut: Option<Reason>,
    /// No further requests: the agent is going, or the client is banned.
    closing: bool,
    /// Nothing of the next request has come, and all answers have gone out.
    resting: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    None,
    /// The service has not decided.
    Asked,
    Granted,
}

impl Lane {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of the request that hyper hands to the service. `None`: hyper saw a request that we did not feed it.
    pub(super) fn take(&self) -> Option<Arrival> {
        let mut inner = self.inner();
        let arrival = inner.arrivals.pop_front();
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
        arrival
    }

    /// The service's word on the upgrade that a head asked for: bytes pass freely from now on, or HTTP goes on.
    pub(super) fn decide_upgrade(&self, granted: bool) {
        let mut inner = self.inner();
        if inner.upgrade == Upgrade::Asked {
            inner.upgrade = if granted { Upgrade::Granted } else { Upgrade::None };
        }
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    /// Why the body of the request at hand broke off, if the gate ended it.
    pub(super) fn cut(&self) -> Option<Reason> {
        self.inner().cut
    }

    /// Whether the client owes us a request, and we owe it nothing.
    pub(super) fn is_resting(&self) -> bool {
        self.inner().resting
    }

    /// No request is read after the one at hand.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.closing = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}

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
    /// The head asked for an upgrade; nothing is read before the service decided.
    Upgrade,
    /// Bytes pass as they are.
    Tunnel,
    /// Nothing more is read.
    Done,
}

pub(super) struct Gate {
    io: ClientStream,
    limits: GateLimits,
    lane: Arc<Lane>,
    /// Received, and not yet judged.
    input: BytesMut,
    /// Canonical bytes that hyper has not read yet.
    output: BytesMut,
    state: State,
    deadline: Deadline,
    /// The client has yet to take what hyper writes.
    unwritten: bool,
}

impl Gate {
    pub(super) fn new(io: ClientStream, limits: GateLimits, lane: Arc<Lane>) -> Self {
        let state = State::Head(Scan::default());
        let deadline = Deadline::none();
        Self { io, limits, lane, input: BytesMut::new(), output: BytesMut::new(), state, deadline, unwritten: false }
    }

    /// Waits until there is something for hyper: a head, or the end.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !ready!(self.advance_head(cx))? {
            self.state = State::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets what the client still sends, so that it reads our last answer before it sees a reset.
    pub(super) async fn linger(mut self) {
        const AT_MOST: usize = 1 << 20;
        const WITHIN: Duration = Duration::from_secs(2);
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let drain = async {
            if self.io.shutdown().await.is_err() {
                return;
            }
            let mut sink = vec![0; 4096];
            let mut read = 0;
            while read < AT_MOST {
                match self.io.read(&mut sink).await {
                    Ok(count) if count > 0 => read += count,
                    _ => return,
                }
            }
        };
        let _out_of_time = tokio::time::timeout(WITHIN, drain).await;
    }

    /// A request that is refused, in the place of what came: nothing after it is read.
    fn refuse(&mut self, arrival: Arrival) {
        // An answer to HEAD has no body, whatever its reason.
        let head = matches!(&arrival, Ok(head) if head.method() == b"HEAD");
        let method = if head { "HEAD" } else { "GET" };
        self.output.extend_from_slice(method.as_bytes());
        self.output.extend_from_slice(b" / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        self.lane.inner().arrivals.push_back(arrival);
        self.state = State::Done;
        self.input = BytesMut::new();
    }

    /// Feeds hyper the head of a request that may go on.
    fn admit(&mut self, head: Head) {
        let output = &mut self.output;
        output.extend_from_slice(head.method());
        output.extend_from_slice(match head.version {
            Version::Http10 => b" / HTTP/1.0\r\nhost: x\r\n",
            _ => b" / HTTP/1.1\r\nhost: x\r\n",
        });
        let closes = has_token(&head, "connection", b"close");
        let upgrade = head.framing == Framing::None
            && head.values("upgrade").next().is_some()
            && has_token(&head, "connection", b"upgrade")
            && !closes;
        let closing = closes || self.lane.inner().closing;
        if upgrade {
            output.extend_from_slice(b"connection: upgrade\r\nupgrade: x\r\n");
        } else if closing {
            output.extend_from_slice(b"connection: close\r\n");
        } else if head.version == Version::Http10 && has_token(&head, "connection", b"keep-alive") {
            // hyper closes after HTTP/1.0 unless asked.
            output.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if head.version == Version::Http11 && has_token(&head, "expect", b"100-continue") {
            output.extend_from_slice(b"expect: 100-continue\r\n");
        }
        self.state = match head.framing {
            Framing::None | Framing::Stream if upgrade => State::Upgrade,
            Framing::None | Framing::Stream => State::Head(Scan::default()),
            Framing::Length(length) => {
                output.extend_from_slice(b"content-length: ");
                output.extend_from_slice(length.to_string().as_bytes());
                output.extend_from_slice(b"\r\n");
                State::Length(length)
            }
            Framing::Chunked => {
                output.extend_from_slice(b"transfer-encoding: chunked\r\n");
                State::Chunked(Box::new(Chunks::new(self.limits.trailers)))
            }
        };
        output.extend_from_slice(b"\r\n");
        let mut inner = self.lane.inner();
        inner.cut = None;
        inner.upgrade = if upgrade { Upgrade::Asked } else { Upgrade::None };
        inner.arrivals.push_back(Ok(head));
    }

    /// Ends the body at hand.
    fn cut(&mut self, reason: Reason) -> io::Error {
        self.lane.inner().cut = Some(reason);
        self.state = State::Done;
        self.input = BytesMut::new();
        io::Error::new(io::ErrorKind::InvalidData, reason.name())
    }

    /// Reads more of the client into `input`; 0 at its end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(READ);
        let mut buffer = ReadBuf::uninit(uninit(&mut self.input));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        // SAFETY: `poll_read` initialised that many bytes behind those which are there already.
        unsafe { self.input.set_len(self.input.len() + count) };
        Poll::Ready(Ok(count))
    }

    /// Makes progress until there is output, or the client must send more. `false` at the end.
    fn advance_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let State::Head(scan) = &mut self.state else { return Poll::Ready(Ok(true)) };
            if !self.input.is_empty() {
                {
                    let mut inner = self.lane.inner();
                    if !inner.arrivals.is_empty() {
                        inner.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
                match scan.advance(&self.input, &self.limits.head) {
                    Ok(Some(range)) => {
                        self.deadline.set(None);
                        let mut raw = self.input.split_to(range.end);
                        raw.advance(range.start);
                        match head::parse(raw.freeze()) {
                            Ok(head) if head.refusal.is_none() => self.admit(head),
                            other => self.refuse(other),
                        }
                        if self.input.is_empty() {
                            // An idle connection holds no buffer.
                            self.input = BytesMut::new();
                        }
                        return Poll::Ready(Ok(true));
                    }
                    Ok(None) => {}
                    Err(reason) => {
                        self.refuse(Err(reason));
                        return Poll::Ready(Ok(true));
                    }
                }
            }
            if !self.deadline.is_set() {
                // Not before the answer to the last request: only then is a connection idle. Of the next head some may
                // have come with the last one.
                let within = if self.input.is_empty() { self.limits.idle } else { self.limits.head_within };
                self.deadline.set(Some(Instant::now() + within));
            }
            if self.input.is_empty() && self.lane.inner().closing {
                // A client whose next request is on its way gets its answer, and with it the word that it was the last.
                let soon = Instant::now() + LAST_REQUEST;
                self.deadline.sooner(soon);
            }
            let began = self.input.is_empty();
            match self.fill(cx) {
                Poll::Ready(count) => {
                    if count? == 0 {
                        return Poll::Ready(Ok(false));
                    }
                    if began {
                        self.lane.inner().resting = false;
                        self.deadline.set(Some(Instant::now() + self.limits.head_within));
                    }
                }
                Poll::Pending => {
                    if self.input.is_empty() {
                        self.input = BytesMut::new();
                        let mut inner = self.lane.inner();
                        inner.waker = Some(cx.waker().clone());
                        // hyper asks for a head once its answer to the last request is written, if not taken.
                        inner.resting = !self.unwritten;
                    }
                    ready!(self.deadline.poll(cx));
                    if self.input.is_empty() {
                        return Poll::Ready(Ok(false));
                    }
                    self.refuse(Err(Reason::HeadTimeout));
                    return Poll::Ready(Ok(true));
                }
            }
        }
    }

    /// Turns what is there of a chunked body into canonical chunks, reading until there is some output.
    fn advance_chunks(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let State::Chunked(chunks) = &mut self.state else { return Poll::Ready(Ok(())) };
            let mut used = 0;
            let ended = loop {
                match chunks.advance(&self.input, used) {
                    Ok(Step::Data(data)) => {
                        used = data.end;
                        write_chunk(&mut self.output, &self.input[data]);
                    }
                    Ok(Step::More) => {
                        used = self.input.len();
                        break false;
                    }
                    Ok(Step::End(end)) => {
                        used = end;
                        break true;
                    }
                    Err(reason) => return Poll::Ready(Err(self.cut(reason))),
                }
            };
            self.input.advance(used);
            if ended {
                self.output.extend_from_slice(b"0\r\n\r\n");
                self.state = State::Head(Scan::default());
            }
            if !self.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

fn write_chunk(output: &mut BytesMut, data: &[u8]) {
    output.reserve(data.len() + 12);
    output.extend_from_slice(chunk::size_line(data.len() as u64).as_ref());
    output.extend_from_slice(data);
    output.extend_from_slice(b"\r\n");
}

/// Whether a comma-separated header holds this token, in any case.
fn has_token(head: &Head, name: &str, token: &[u8]) -> bool {
    let mut values = head.values(name).flat_map(|value| value.split(|byte| *byte == b','));
    values.any(|value| value.trim_ascii().eq_ignore_ascii_case(token))
}

fn uninit(buffer: &mut BytesMut) -> &mut [MaybeUninit<u8>] {
    buffer.spare_capacity_mut()
}

impl hyper::rt::Read for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.output.is_empty() {
                let count = this.output.len().min(buf.remaining());
                buf.put_slice(&this.output[..count]);
                this.output.advance(count);
                if this.output.is_empty() {
                    this.output = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match &mut this.state {
                State::Head(_) => ready!(this.poll_next(cx))?,
                State::Length(rest) => {
                    let room = usize::try_from(*rest).unwrap_or(usize::MAX).min(buf.remaining());
                    let count = if this.input.is_empty() {
                        // SAFETY: only bytes that were initialised are counted as filled below.
                        let mut space = ReadBuf::uninit(&mut unsafe { buf.as_mut() }[..room]);
                        ready!(Pin::new(&mut this.io).poll_read(cx, &mut space))?;
                        let count = space.filled().len();
                        // SAFETY: `poll_read` initialised that many bytes.
                        unsafe { buf.advance(count) };
                        count
                    } else {
                        let count = room.min(this.input.len());
                        buf.put_slice(&this.input[..count]);
                        this.input.advance(count);
                        count
                    };
                    *rest -= count as u64;
                    if *rest == 0 {
                        this.state = State::Head(Scan::default());
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Chunked(_) => ready!(this.advance_chunks(cx))?,
                State::Upgrade => {
                    let mut inner = this.lane.inner();
                    match inner.upgrade {
                        Upgrade::Asked => {
                            inner.waker = Some(cx.waker().clone());
                            return Poll::Pending;
                        }
                        Upgrade::Granted => {
                            drop(inner);
                            this.output = std::mem::take(&mut this.input);
                            this.state = State::Tunnel;
                        }
                        Upgrade::None => {
                            drop(inner);
                            this.state = State::Head(Scan::default());
                        }
                    }
                }
                State::Tunnel => {
                    // SAFETY: only bytes that were initialised are counted as filled below.
                    let mut space = ReadBuf::uninit(unsafe { buf.as_mut() });
                    ready!(Pin::new(&mut this.io).poll_read(cx, &mut space))?;
                    let count = space.filled().len();
                    // SAFETY: `poll_read` initialised that many bytes.
                    unsafe { buf.advance(count) };
                    return Poll::Ready(Ok(()));
                }
                // hyper takes no bytes for the end of the stream.
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl hyper::rt::Write for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unwritten = true;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        // hyper flushes after it has written all it has.
        this.unwritten = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unwritten = true;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }
}
