//! Bodies that are made while they are sent, and a pattern to tell them by.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// A body fed through a channel; it ends when the feeder is dropped.
#[derive(Debug)]
pub struct Stream {
    frames: mpsc::Receiver<Frame<Bytes>>,
    length: Option<u64>,
}

/// The other end of a [`Stream`].
pub type Feeder = mpsc::Sender<Frame<Bytes>>;

impl Stream {
    /// With `length`, if it shall be announced; the feeder must then send exactly so much.
    pub fn new(length: Option<u64>) -> (Feeder, Self) {
        let (feeder, frames) = mpsc::channel(4);
        (feeder, Self { frames, length })
    }

    /// A body that is whole already.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let (feeder, stream) = Self::new(Some(bytes.len() as u64));
        if !bytes.is_empty() {
            // A new channel has room for one frame.
            let _ = feeder.try_send(Frame::data(bytes));
        }
        stream
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames.poll_recv(context).map(|frame| frame.map(Ok))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.length.map_or_else(hyper::body::SizeHint::default, hyper::body::SizeHint::with_exact)
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }
}

/// Bytes `from..to` of an endless pattern, in which no two places nearby look alike.
pub fn pattern(from: u64, to: u64) -> Bytes {
    (from..to).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Feeds bytes `from..to` of the pattern; stops when nobody takes them.
pub async fn feed(feeder: Feeder, from: u64, to: u64) {
    /// The pattern repeats itself after so much.
    const PERIOD: u64 = 1 << 24;
    const PIECE: u64 = 1 << 16;
    let pieces: Vec<Bytes> = if to - from > PERIOD {
        (0..PERIOD / PIECE).map(|piece| pattern(piece * PIECE, (piece + 1) * PIECE)).collect()
    } else {
        Vec::new()
    };
    let mut at = from;
    while at < to {
        let end = to.min((at / PIECE + 1) * PIECE);
        let bytes = match pieces.get((at % PERIOD / PIECE) as usize) {
            Some(piece) => piece.slice((at % PIECE) as usize..(end - 1 - at / PIECE * PIECE) as usize + 1),
            None => pattern(at, end),
        };
        if feeder.send(Frame::data(bytes)).await.is_err() {
            return;
        }
        at = end;
    }
}

/// Counts bytes and takes a hash of them (FNV-1a, 64 bits), in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub bytes: u64,
    pub hash: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { bytes: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Digest {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash = bytes.iter().fold(self.hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }

    /// Of the first `length` bytes of the pattern.
    pub fn of_pattern(length: u64) -> Self {
        let mut digest = Self::default();
        let mut at = 0;
        while at < length {
            let end = length.min(at + (1 << 16));
            digest.add(&pattern(at, end));
            at = end;
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feeder_sends_the_pattern_from_anywhere() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (from, to) in [(0, 1), (5, 70_000), (65_535, 65_537), (16_777_210, 33_554_500)] {
            let (feeder, mut stream) = Stream::new(Some(to - from));
            let mut digest = Digest::default();
            runtime.block_on(async {
                let feeding = tokio::spawn(feed(feeder, from, to));
                while let Some(frame) = stream.frames.recv().await {
                    digest.add(frame.data_ref().unwrap());
                }
                feeding.await.unwrap();
            });
            let mut expected = Digest::default();
            expected.add(&pattern(from, to));
            assert_eq!(digest, expected, "{from}..{to}");
        }
    }
}
