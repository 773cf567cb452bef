//! Lines to a pipe, a terminal or a socket: standard output.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    time::Duration,
};

use super::queue::{Entry, Failure, Output};

/// How long to wait for a reader, where standard output does not block by itself.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct StreamOutput<W> {
    writer: W,
    buffer: Vec<u8>,
    /// The last write broke off within a line.
    torn: bool,
}

impl StreamOutput<File> {
    pub(super) fn stdout() -> io::Result<Self> {
        // Not through `Stdout`: its buffer would hide how much was written.
        Ok(Self::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

impl<W: Write + Send + 'static> StreamOutput<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, buffer: Vec::new(), torn: false }
    }
}

impl<W: Write + Send + 'static> Output for StreamOutput<W> {
    fn write(&mut self, batch: &[Entry<'_>]) -> Result<(), Failure> {
        self.buffer.clear();
        let close = usize::from(self.torn);
        if self.torn {
            self.buffer.push(b'\n');
        }
        batch.iter().for_each(|entry| self.buffer.extend_from_slice(entry.line()));
        let (bytes, error) = write_until_error(&mut self.writer, &self.buffer);
        let Some(error) = error else {
            self.torn = false;
            return Ok(());
        };
        if bytes >= close {
            let (written, rest) = whole_lines(batch, bytes - close);
            self.torn = rest > 0;
            return Err(Failure { written, error });
        }
        Err(Failure { written: 0, error })
    }
}

/// Writes all of `bytes`, or as many as go before an error; how many did, and the error.
pub(super) fn write_until_error(writer: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// How many lines of `batch` the first `bytes` hold, and the bytes of the next one behind them.
pub(super) fn whole_lines(batch: &[Entry<'_>], mut bytes: usize) -> (usize, usize) {
    for (index, entry) in batch.iter().enumerate() {
        if bytes < entry.line().len() {
            return (index, bytes);
        }
        bytes -= entry.line().len();
    }
    (batch.len(), bytes)
}
