//! The two bodies of an exchange on their way through: bounded, timed and counted; held only for who must see them whole.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use firewall_inspect::{fields, framing::Framing, reason::Reason};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{
    exchange::Exchange,
    gate::SharedGate,
    held::Share,
    upstream::{AnswerBody, Lease},
};
use crate::events::request::Verdict;

/// Bytes for which a client gets one second more.
const BYTES_PER_SECOND: u64 = 500;

/// A piece shorter than this costs more to keep than what is in it. So many of one body may wait to be sent.
const SMALL: usize = 1 << 10;
const SMALL_AT_ONCE: usize = 256;

/// The small pieces of a body that were handed on and are not sent yet. HTTP/2 keeps each as a frame of its own, as many as
/// the upstream's window has bytes.
#[derive(Default)]
struct Backlog {
    pieces: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

/// One of them.
struct Piece {
    data: Bytes,
    backlog: Arc<Backlog>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.backlog.pieces.fetch_sub(1, Ordering::AcqRel) == SMALL_AT_ONCE
            && let Some(waker) = self.backlog.waker().take()
        {
            waker.wake();
        }
    }
}

impl Backlog {
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready while another piece may be handed on.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let full = || self.pieces.load(Ordering::Acquire) >= SMALL_AT_ONCE;
        if !full() {
            return Poll::Ready(());
        }
        *self.waker() = Some(cx.waker().clone());
        // One may have gone before there was somebody to wake.
        if full() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn keep(self: &Arc<Self>, data: Bytes) -> Bytes {
        if data.len() >= SMALL {
            return data;
        }
        self.pieces.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Piece { data, backlog: Arc::clone(self) })
    }
}

/// Why a body broke off.
#[derive(Debug)]
pub(super) struct BrokenOff(pub(super) Reason);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl std::error::Error for BrokenOff {}

/// Where the body of a request comes from.
pub(super) enum Source {
    Http1(SharedGate, Framing),
    Http2(Incoming),
    /// Kept by the exchange.
    Gone,
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(_, framing) => matches!(framing, Framing::None | Framing::Stream | Framing::Length(0)),
            Self::Http2(inner) => inner.is_end_stream(),
            Self::Gone => true,
        }
    }

    /// Its end is known with its last byte.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        match self {
            Self::Http1(gate, framing) => {
                let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
                let data = ready!(gate.poll_body(cx));
                if gate.is_between() {
                    *framing = Framing::None;
                }
                Poll::Ready(data.map(|data| data.map(Frame::data)))
            }
            Self::Http2(inner) => {
                let frame = ready!(Pin::new(inner).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Reason::BodyBrokenOff)))
            }
            Self::Gone => Poll::Ready(None),
        }
    }
}

/// The body of a request, towards the upstream: no larger than allowed, no slower than allowed, without its trailers over
/// HTTP/1, or where content rules do not see them.
pub(super) struct RequestBody {
    source: Source,
    exchange: Arc<Exchange>,
    limit: u64,
    /// Time that the client may still let us wait, beyond what its bytes earn. `None`: as long as it likes.
    patience: Option<Duration>,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// From the second piece on: most bodies have one.
    backlog: Option<Arc<Backlog>>,
    /// What came already, to be handed on first.
    held: Held,
    ended: bool,
}

/// The start of a body, and its trailers if that is all of it.
#[derive(Default)]
struct Held {
    data: Bytes,
    /// Hardly any body has some.
    trailers: Option<Box<Frame<Bytes>>>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn take(&mut self) -> Option<Frame<Bytes>> {
        if !self.data.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.data)));
        }
        self.trailers.take().map(|trailers| *trailers)
    }
}

/// What is about to be held, in one piece.
struct Gathered {
    /// Most bodies are this.
    first: Bytes,
    all: BytesMut,
    trailers: Option<Box<Frame<Bytes>>>,
    share: Share,
}

impl Gathered {
    fn new(exchange: &Exchange) -> Self {
        let share = exchange.worker().shared.held.share();
        Self { first: Bytes::new(), all: BytesMut::new(), trailers: None, share }
    }

    /// # Errors
    ///
    /// There is no memory for it.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Reason> {
        match frame.into_data() {
            Ok(data) => {
                self.share.grow(data.len())?;
                self.push(data);
            }
            Err(trailers) => self.trailers = Some(Box::new(trailers)),
        }
        Ok(())
    }

    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    /// The data, and what is handed on.
    ///
    /// # Errors
    ///
    /// Another body has its memory.
    fn done(self) -> Result<(Bytes, Held), Reason> {
        let data = if self.all.is_empty() { self.first } else { self.all.freeze() };
        Ok((data.clone(), Held { data: self.share.keep(data)?, trailers: self.trailers }))
    }
}

impl RequestBody {
    pub(super) fn new(source: Source, exchange: Arc<Exchange>, endless: bool) -> Self {
        let config = &exchange.policy().config;
        let (limit, patience) = (config.limits.body, (!endless).then_some(config.timeouts.body));
        let ended = source.is_end_stream();
        Self { source, exchange, limit, patience, waiting: None, backlog: None, held: Held::default(), ended }
    }

    /// Waits for the body until there are more than `limit` bytes, or all. They are handed on afterwards as if they came only
    /// then.
    ///
    /// # Errors
    ///
    /// It broke off, or there is no memory for it.
    pub(super) async fn hold(&mut self, limit: usize) -> Result<Bytes, Reason> {
        let mut gathered = Gathered::new(&self.exchange);
        while gathered.len() <= limit {
            let frame = tokio::select! {
                biased;
                frame = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)) => frame,
                reason = gathered.share.evicted() => return Err(reason),
            };
            match frame {
                None => break,
                Some(Err(BrokenOff(reason))) => return Err(reason),
                Some(Ok(frame)) => gathered.take(frame)?,
            }
        }
        let (data, held) = gathered.done()?;
        self.held = held;
        Ok(data)
    }

    /// Hands on this in the place of all that is held.
    ///
    /// # Errors
    ///
    /// There is no memory for it.
    pub(super) fn replace(&mut self, data: Bytes) -> Result<Bytes, Reason> {
        let share = self.exchange.worker().shared.held.share();
        share.grow(data.len())?;
        self.held.data = share.keep(data.clone())?;
        Ok(data)
    }

    /// Nothing of it is to come.
    pub(super) fn is_over(&self) -> bool {
        self.ended || self.source.is_end_stream()
    }

    fn end(&mut self) {
        self.ended = true;
        self.exchange.took(0);
    }

    fn break_off(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.ended = true;
        self.exchange.fail(Verdict::Refuse, reason);
        Poll::Ready(Some(Err(BrokenOff(reason))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(frame) = self.held.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(backlog) = &self.backlog {
            ready!(backlog.poll_room(cx));
        }
        let frame = match self.source.poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(patience) = self.patience else { return Poll::Pending };
                let (_, sleep) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
                ready!(sleep.as_mut().poll(cx));
                return self.break_off(Reason::BodyTimeout);
            }
        };
        if let Some((since, _)) = self.waiting.take() {
            self.patience = self.patience.map(|patience| patience.saturating_sub(since.elapsed()));
        }
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(reason)) => self.break_off(reason),
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    let length = data.len();
                    if self.exchange.took(length) > self.limit {
                        if !self.exchange.policy().monitors() {
                            return self.break_off(Reason::BodyTooLarge);
                        }
                        self.exchange.fail(Verdict::Monitor, Reason::BodyTooLarge);
                    }
                    let earned = Duration::from_millis(length as u64 * 1000 / BYTES_PER_SECOND);
                    let most = self.exchange.policy().config.timeouts.body;
                    self.patience = self.patience.map(|patience| (patience + earned).min(most));
                    if self.source.is_end_stream() {
                        self.end();
                    } else if let Some(backlog) = &self.backlog {
                        frame = frame.map_data(|data| backlog.keep(data));
                    } else {
                        self.backlog = Some(Arc::default());
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                self.end();
                let seen = self.exchange.policy().config.rules.is_none();
                let some = seen && frame.trailers_mut().is_some_and(keep_trailers);
                Poll::Ready(some.then_some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(self.held.data.len() as u64);
        }
        match &self.source {
            Source::Http1(_, Framing::Length(length)) => SizeHint::with_exact(*length),
            Source::Http1(_, Framing::Chunked) => SizeHint::default(),
            Source::Http1(_, Framing::None | Framing::Stream) | Source::Gone => SizeHint::with_exact(0),
            Source::Http2(inner) => {
                let rest = inner.size_hint().exact();
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + self.held.data.len() as u64))
            }
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // HTTP/2 would reset the stream, and with it an answer that is on its way.
        if let Source::Http2(inner) = std::mem::replace(&mut self.source, Source::Gone) {
            self.exchange.keep(inner);
        }
    }
}

/// Removes what must not come behind a body; whether something is left.
fn keep_trailers(trailers: &mut HeaderMap) -> bool {
    let forbidden = |name: &&HeaderName| !fields::may_trail(name.as_str().as_bytes());
    let removed: Vec<HeaderName> = trailers.keys().filter(forbidden).cloned().collect();
    for name in removed {
        trailers.remove(name);
    }
    !trailers.is_empty()
}

/// The body of an answer: the upstream's, or one of ours.
pub(super) enum ResponseBody {
    Own { body: Option<Bytes>, exchange: Arc<Exchange> },
    Upstream(Upstream),
}

pub(super) struct Upstream {
    /// There until it is given back at the end of the body.
    inner: Option<AnswerBody>,
    exchange: Arc<Exchange>,
    /// The longest wait for the next part. `None`: as long as it takes.
    patience: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
    held: Held,
}

impl ResponseBody {
    pub(super) fn own(body: Bytes, exchange: Arc<Exchange>) -> Self {
        Self::Own { body: (!body.is_empty()).then_some(body), exchange }
    }

    pub(super) fn upstream(inner: AnswerBody, exchange: Arc<Exchange>, endless: bool) -> Self {
        let patience = (!endless).then_some(exchange.policy().config.timeouts.upstream);
        let mut body = Upstream { inner: Some(inner), exchange, patience, waiting: None, held: Held::default() };
        if body.is_end_stream() {
            body.end();
        }
        Self::Upstream(body)
    }

    /// As [`RequestBody::hold`], for no longer than `within`.
    ///
    /// # Errors
    ///
    /// The upstream failed, or there is no memory for it.
    pub(super) async fn hold(&mut self, limit: usize, within: Duration) -> Result<Bytes, Reason> {
        match self {
            Self::Own { body, .. } => Ok(body.clone().unwrap_or_default()),
            Self::Upstream(upstream) => upstream.hold(limit, within).await,
        }
    }
}

impl Upstream {
    async fn hold(&mut self, limit: usize, within: Duration) -> Result<Bytes, Reason> {
        let mut gathered = Gathered::new(&self.exchange);
        let gather = async {
            while gathered.len() <= limit {
                let frame = tokio::select! {
                    biased;
                    frame = poll_fn(|cx| self.poll_inner(cx)) => frame,
                    reason = gathered.share.evicted() => return Err(reason),
                };
                match frame {
                    None => break,
                    Some(frame) => gathered.take(frame?)?,
                }
                if self.is_inner_over() {
                    break;
                }
            }
            Ok(())
        };
        match timeout(within, gather).await {
            Ok(gathered) => gathered?,
            Err(_out_of_time) => {}
        }
        let (data, held) = gathered.done()?;
        self.held = held;
        if self.is_inner_over() {
            self.end();
        }
        Ok(data)
    }

    fn end(&mut self) {
        if let Some(AnswerBody::Http1(lease)) = self.inner.take() {
            lease.give_back();
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.is_inner_over()
    }

    fn is_inner_over(&self) -> bool {
        match &self.inner {
            Some(AnswerBody::Http1(Lease { link, .. })) => link.is_end_stream(),
            Some(AnswerBody::Http2(inner)) => inner.is_end_stream(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.inner {
            Some(AnswerBody::Http1(Lease { link, .. })) => link.length(),
            Some(AnswerBody::Http2(inner)) => inner.size_hint().exact(),
            None => Some(0),
        };
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + self.held.data.len() as u64))
    }

    /// The next frame, or that the upstream waited for too long.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        match &mut self.inner {
            None => Poll::Ready(None),
            Some(AnswerBody::Http1(Lease { link, .. })) => {
                if let Poll::Ready(frame) = link.poll_frame(cx) {
                    link.moved();
                    return Poll::Ready(frame);
                }
                self.exchange.waits(true);
                let Some(patience) = self.patience else { return Poll::Pending };
                ready!(link.poll_stalled(cx, patience));
                Poll::Ready(Some(Err(Reason::UpstreamTimeout)))
            }
            Some(AnswerBody::Http2(inner)) => {
                if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
                    self.waiting = None;
                    return Poll::Ready(frame.map(|frame| frame.map_err(|_| Reason::UpstreamProtocol)));
                }
                self.exchange.waits(true);
                let Some(patience) = self.patience else { return Poll::Pending };
                ready!(self.waiting.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
                Poll::Ready(Some(Err(Reason::UpstreamTimeout)))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let held = self.held.take();
        let frame = match held {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_inner(cx)),
        };
        self.exchange.waits(false);
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(reason)) => {
                // A request that broke off is told already, and is the client's doing.
                self.exchange.fail(Verdict::Fail, reason);
                Poll::Ready(Some(Err(BrokenOff(reason))))
            }
            Some(Ok(frame)) => {
                self.exchange.gave(frame.data_ref().map_or(0, Bytes::len));
                if self.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Own { body, exchange } => {
                let body = body.take();
                exchange.waits(false);
                exchange.gave(body.as_ref().map_or(0, Bytes::len));
                Poll::Ready(body.map(|body| Ok(Frame::data(body))))
            }
            Self::Upstream(upstream) => upstream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { body, .. } => body.is_none(),
            Self::Upstream(upstream) => upstream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { body, .. } => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Upstream(upstream) => upstream.size_hint(),
        }
    }
}
