//! Where a head ends, in a buffer that grows.
//!
//! The end is the first empty line by any reading of line ends, a bare line feed included: no reader can take the head for
//! shorter, and one that is not delimited strictly is refused by [`super::parse`]. Each byte is looked at once.

use std::ops::Range;

use memchr::memchr;

use super::parse::request_line;
use crate::reason::Reason;

/// How much of a head is collected; inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, without the line's end.
    pub request_line: u32,
    /// Bytes of all header lines with their ends, the empty line not counted.
    pub headers: u32,
    pub header_count: u32,
}

impl Limits {
    /// The most that [`Scan::advance`] wants to see in a buffer: with so much it has an answer.
    pub fn buffer(&self) -> usize {
        const ENDS: usize = b"\r\n".len() * 3;
        self.request_line as usize + self.headers as usize + ENDS
    }
}

/// How far a head was looked for; one for each head.
#[derive(Debug, Default)]
pub struct Scan {
    /// Where the request line starts: behind an empty line, if one came first.
    start: usize,
    /// Where the line that is not over yet starts.
    line: usize,
    /// What was searched for a line feed.
    searched: usize,
    /// Where the header lines start; 0 within the request line.
    headers: usize,
    count: u32,
}

impl Scan {
    /// Looks for the end in `buffer`, which starts where it did before and may have grown. Answers where the head lies: behind
    /// the one empty line that may come before it (RFC 9112 section 2.2), up to and with the empty line that ends it.
    ///
    /// # Errors
    ///
    /// A limit is exceeded, the request line has no version or is no request line: nothing can be told of this head.
    pub fn advance(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<Range<usize>>, Reason> {
        while let Some(length) = memchr(b'\n', &buffer[self.searched..]) {
            let feed = self.searched + length;
            let line = &buffer[self.line..feed];
            let strict = line.last() == Some(&b'\r');
            let line = if strict { &line[..line.len() - 1] } else { line };
            self.searched = feed + 1;
            if self.headers > 0 {
                if line.is_empty() {
                    return Ok(Some(self.start..self.searched));
                }
                self.count += 1;
                if self.count > limits.header_count {
                    return Err(Reason::TooManyHeaders);
                }
                if self.searched - self.headers > limits.headers as usize {
                    return Err(Reason::HeadersTooLarge);
                }
            } else if line.is_empty() {
                match (self.start, strict) {
                    (0, true) => self.start = self.searched,
                    (_, true) => return Err(Reason::RequestLine),
                    (_, false) => return Err(Reason::BareLineFeed),
                }
            } else {
                starts(&buffer[self.line..feed])?;
                if line.len() > limits.request_line as usize {
                    return Err(Reason::RequestLineTooLong);
                }
                request_line(line)?;
                self.headers = self.searched;
            }
            self.line = self.searched;
        }
        self.searched = buffer.len();
        // The carriage return of a line's end may be there already.
        if self.headers > 0 {
            if buffer.len() - self.headers > limits.headers as usize + 1 {
                return Err(Reason::HeadersTooLarge);
            }
        } else {
            starts(&buffer[self.line..])?;
            if buffer.len() - self.line > limits.request_line as usize + 1 {
                return Err(Reason::RequestLineTooLong);
            }
        }
        Ok(None)
    }
}

/// Tells at the first bytes what will be no request line, so its sender need not time out. TLS where there is none has a reason of
/// its own: any web page can make a browser do that.
fn starts(line: &[u8]) -> Result<(), Reason> {
    const TLS_HANDSHAKE: u8 = 22;
    match line {
        [b'\r'] | [] | [b' '..=b'~', ..] => Ok(()),
        [TLS_HANDSHAKE, ..] => Err(Reason::TlsHandshake),
        [b'\r', ..] => Err(Reason::BareCarriageReturn),
        _ => Err(Reason::RequestLine),
    }
}
