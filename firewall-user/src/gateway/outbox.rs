//! Bytes on their way out to either side: small pieces are gathered, a large one is written from where it lies.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use firewall_inspect::chunk;
use tokio::io::AsyncWrite;

/// Pieces no longer than this are gathered, up to so many bytes.
const SMALL: usize = 4 << 10;
const GATHER: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Outbox {
    gathered: BytesMut,
    /// Behind what is gathered.
    large: Bytes,
    /// Behind that.
    tail: &'static [u8],
    /// Written, but perhaps not sent.
    unflushed: bool,
}

impl Outbox {
    /// For heads, which go before what is pushed later.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        debug_assert!(self.large.is_empty() && self.tail.is_empty(), "a head goes in front");
        &mut self.gathered
    }

    /// Whether another piece may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty() && self.gathered.len() < GATHER
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= SMALL {
            self.gathered.extend_from_slice(&data);
        } else {
            self.large = data;
        }
    }

    /// As a chunk of its own (RFC 9112 section 7.1). No data would be the last chunk.
    pub(super) fn push_chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.gathered.extend_from_slice(chunk::size_line(data.len() as u64).as_ref());
        self.push(data);
        if self.large.is_empty() {
            self.gathered.extend_from_slice(b"\r\n");
        } else {
            self.tail = b"\r\n";
        }
    }

    /// The end of a chunked body.
    pub(super) fn push_last_chunk(&mut self) {
        self.gathered.extend_from_slice(b"0\r\n\r\n");
    }

    /// Holds no memory while there is nothing to write.
    pub(super) fn shrink(&mut self) {
        debug_assert!(self.is_empty(), "nothing is lost");
        self.gathered = BytesMut::new();
    }

    /// Ready once all is written and sent.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.large.is_empty() {
                // A tail is alone only behind a large piece that is written.
                let part = if self.gathered.is_empty() { self.tail } else { &self.gathered };
                ready!(io.as_mut().poll_write(cx, part))?
            } else {
                let parts = [&self.gathered[..], &self.large, self.tail].map(IoSlice::new);
                ready!(io.as_mut().poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(io.as_mut().poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let part = written.min(self.gathered.len());
        self.gathered.advance(part);
        written -= part;
        let part = written.min(self.large.len());
        self.large.advance(part);
        self.tail = &self.tail[written - part..];
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes this many bytes at a time, of all slices.
    struct Sink(Vec<u8>, usize);

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = data.len().min(self.1);
            self.0.extend_from_slice(&data[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn all_goes_out_in_order_however_little_is_taken_at_once() {
        let large = vec![b'l'; SMALL + 1];
        for step in [1, 2, 3, 7, SMALL, 1 << 20] {
            let (mut outbox, mut sink) = (Outbox::default(), Sink(Vec::new(), step));
            let mut send = |outbox: &mut Outbox| {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(outbox.poll_send(&mut cx, Pin::new(&mut sink)).is_ready());
                assert!(outbox.is_empty() && outbox.has_room());
            };
            outbox.head().extend_from_slice(b"head\r\n\r\n");
            outbox.push_chunk(Bytes::from_static(b"small"));
            outbox.push_chunk(Bytes::new());
            outbox.push_chunk(Bytes::from(large.clone()));
            assert!(!outbox.has_room());
            send(&mut outbox);
            outbox.push(Bytes::from(large.clone()));
            send(&mut outbox);
            outbox.push_last_chunk();
            send(&mut outbox);
            let expected = [b"head\r\n\r\n5\r\nsmall\r\n1001\r\n", &large[..], b"\r\n", &large, b"0\r\n\r\n"].concat();
            assert!(sink.0 == expected, "{step} at once");
        }
    }
}
