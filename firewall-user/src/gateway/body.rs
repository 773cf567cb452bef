//! The two bodies of an exchange on their way through: bounded, timed and counted, never held.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use firewall_inspect::{fields, reason::Reason};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{exchange::Exchange, gate::Lane, upstream::Lease};
use crate::events::request::Verdict;

/// Bytes for which a client gets one second more.
const BYTES_PER_SECOND: u64 = 500;

/// Why a body broke off. hyper passes it on; the reason is in the exchange.
#[derive(Debug)]
pub(super) struct BrokenOff(pub(super) Reason);

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl std::error::Error for BrokenOff {}

/// The body of a request, towards the upstream: no larger than allowed, no slower than allowed, without its trailers over
/// HTTP/1.
pub(super) struct RequestBody {
    /// There until this is dropped.
    inner: Option<Incoming>,
    exchange: Arc<Exchange>,
    /// Of HTTP/1, whose gate knows why a body broke off.
    lane: Option<Arc<Lane>>,
    limit: u64,
    /// Time that the client may still let us wait, beyond what its bytes earn. `None`: as long as it likes.
    patience: Option<Duration>,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    trailers: bool,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(
        inner: Incoming,
        exchange: Arc<Exchange>,
        lane: Option<Arc<Lane>>,
        endless: bool,
        trailers: bool,
    ) -> Self {
        let config = &exchange.policy().config;
        let (limit, patience) = (config.limits.body, (!endless).then_some(config.timeouts.body));
        let ended = inner.is_end_stream();
        if ended {
            exchange.received.store(true, Relaxed);
        }
        Self { inner: Some(inner), exchange, lane, limit, patience, waiting: None, trailers, ended }
    }

    fn end(&mut self) {
        self.ended = true;
        self.exchange.took(0);
        self.exchange.received.store(true, Relaxed);
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
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match Pin::new(inner).poll_frame(cx) {
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
            Some(Err(_)) => {
                let reason = self.lane.as_ref().and_then(|lane| lane.cut()).unwrap_or(Reason::BodyBrokenOff);
                self.break_off(reason)
            }
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
                    if self.inner.as_ref().is_none_or(Body::is_end_stream) {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                self.end();
                let some = self.trailers && frame.trailers_mut().is_some_and(keep_trailers);
                Poll::Ready(some.then_some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // HTTP/2 would reset the stream, and with it an answer that is on its way.
        if self.lane.is_none()
            && let Some(inner) = self.inner.take()
        {
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
    inner: Incoming,
    exchange: Arc<Exchange>,
    /// The upstream connection, given back at the end of the body.
    lease: Option<Lease>,
    /// The longest wait for the next part. `None`: as long as it takes.
    patience: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    pub(super) fn own(body: Bytes, exchange: Arc<Exchange>) -> Self {
        Self::Own { body: (!body.is_empty()).then_some(body), exchange }
    }

    pub(super) fn upstream(inner: Incoming, exchange: Arc<Exchange>, lease: Lease, endless: bool) -> Self {
        let patience = (!endless).then_some(exchange.policy().config.timeouts.upstream);
        let mut body = Upstream { inner, exchange, lease: Some(lease), patience, waiting: None };
        if body.inner.is_end_stream() {
            body.end();
        }
        Self::Upstream(body)
    }
}

impl Upstream {
    fn end(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.exchange.received.load(Relaxed)
        {
            // An answer that overtook its request leaves a connection in a state that nobody should rely on.
            lease.give_back();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                self.exchange.waits(true);
                let Some(patience) = self.patience else { return Poll::Pending };
                ready!(self.waiting.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
                self.exchange.fail(Verdict::Fail, Reason::UpstreamTimeout);
                return Poll::Ready(Some(Err(BrokenOff(Reason::UpstreamTimeout))));
            }
        };
        self.waiting = None;
        self.exchange.waits(false);
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(_)) => {
                self.exchange.fail(Verdict::Fail, Reason::UpstreamProtocol);
                Poll::Ready(Some(Err(BrokenOff(Reason::UpstreamProtocol))))
            }
            Some(Ok(frame)) => {
                self.exchange.gave(frame.data_ref().map_or(0, Bytes::len));
                if self.inner.is_end_stream() {
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
            Self::Upstream(upstream) => upstream.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { body, .. } => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Upstream(upstream) => upstream.inner.size_hint(),
        }
    }
}
