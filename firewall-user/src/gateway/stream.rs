//! A client's connection, in the clear or over TLS, with two bounds that no peer can stretch: how long we wait for it to
//! take what we write, and (for whoever asks) how long we wait for a byte.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::TlsStream;

/// The transport, of either side.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($self:ident, $io:ident => $do:expr) => {
        match $self.get_mut() {
            Transport::Plain($io) => {
                let $io = Pin::new($io);
                $do
            }
            Transport::Tls($io) => {
                let $io = Pin::new(&mut **$io);
                $do
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

/// A deadline that is cheap to move: the timer behind it is only touched when it fires too early.
pub(super) struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) const fn none() -> Self {
        Self { at: None, sleep: None }
    }

    pub(super) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// As [`Self::set`], unless it is earlier already.
    pub(super) fn sooner(&mut self, at: Instant) {
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Sets it if it is not set.
    pub(super) fn within(&mut self, time: Duration) {
        if self.at.is_none() {
            self.at = Some(Instant::now() + time);
        }
    }

    /// Ready once the deadline has passed; registers for it otherwise.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

/// A transport with what was read ahead of its protocol, and a bound on how long the peer may take none of our bytes.
pub(super) struct ClientStream {
    transport: Transport,
    /// Read before it was known which protocol the client speaks.
    ahead: Bytes,
    stalled: Deadline,
    patience: Duration,
    /// Set when the peer took none of our bytes for too long.
    slow: Arc<AtomicBool>,
}

impl ClientStream {
    /// Bytes that were read too far go before what comes next.
    pub(super) fn unread(&mut self, ahead: Bytes) {
        debug_assert!(self.ahead.is_empty(), "what was read ahead comes first");
        self.ahead = ahead;
    }

    /// `patience`: how long the peer may take none of our bytes.
    pub(super) fn new(transport: Transport, ahead: Bytes, patience: Duration, slow: Arc<AtomicBool>) -> Self {
        Self { transport, ahead, stalled: Deadline::none(), patience, slow }
    }

    fn bounded(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(done) => {
                self.stalled.set(None);
                Poll::Ready(done)
            }
            Poll::Pending => {
                self.stalled.within(self.patience);
                ready!(self.stalled.poll(cx));
                self.slow.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.bounded(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.bounded(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_flush(cx).map_ok(|()| 0);
        self.bounded(cx, result).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.transport).poll_shutdown(cx).map_ok(|()| 0);
        self.bounded(cx, result).map_ok(drop)
    }
}
