//! The chunked coding, strictly (RFC 9112 section 7.1): where the data lies in bytes that come in any pieces.
//!
//! In: bytes as they arrive. Out: ranges of data, and at the end the trailers, for rules to look at. Extensions that are well formed
//! are dropped; trailers never go upstream, since the gateway sends its own chunks. White space beside a size, a bare line feed,
//! a size of more than 16 digits: refused.

use std::ops::Range;

use crate::{
    class::TOKEN,
    framing::Spelling,
    head::{Field, split_field},
    reason::Reason,
};

/// Digits of a size, leading zeros included.
const MAX_DIGITS: u8 = 16;
/// Bytes of the extensions of one chunk.
const MAX_EXTENSION: u16 = 256;

/// How much trailer is collected; inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all trailer lines with their ends.
    pub trailers: u32,
    pub trailer_count: u32,
}

/// What [`Chunks::advance`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All input is used up, and there was no data in what was left of it.
    More,
    /// Data of a chunk, as a range of the input; not empty. The input is used up to its end.
    Data(Range<usize>),
    /// The body is over. The input is used up to here; what follows is the next request.
    End(usize),
}

/// Reads one body.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    limits: Limits,
    trailers: Trailers,
}

/// The trailers of a body.
#[derive(Debug, Default)]
pub struct Trailers {
    raw: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        length: u16,
        part: Part,
    },
    /// The carriage return of a size line was there.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataFeed,
    /// In a line that starts here in the trailers.
    Trailer {
        line: usize,
    },
    End,
}

/// Parts of a chunk extension: `; name [ = token | quoted-string ]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
}

impl Chunks {
    pub fn new(limits: Limits) -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, limits, trailers: Trailers::default() }
    }

    /// Looks at `input[from..]`, which follows what the last call used up. After [`Step::Data`] call again with `from` at its end.
    ///
    /// # Errors
    ///
    /// [`Reason::MalformedChunk`], [`Reason::BareLineFeed`], the reasons of header lines for trailers,
    /// [`Reason::ForbiddenTrailer`], [`Reason::TrailersTooLarge`]. Where the body ends is unknown from then on.
    pub fn advance(&mut self, input: &[u8], from: usize) -> Result<Step, Reason> {
        let mut at = from;
        while let Some(byte) = input.get(at) {
            match self.state {
                State::Data { left } => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                    return Ok(Step::Data(at..at + length));
                }
                State::Trailer { line } => {
                    at += self.trailer(line, &input[at..])?;
                    if self.state == State::End {
                        return Ok(Step::End(at));
                    }
                }
                State::End => return Ok(Step::End(at)),
                state => {
                    self.state = state.next(*byte)?;
                    at += 1;
                }
            }
        }
        if self.state == State::End { Ok(Step::End(at)) } else { Ok(Step::More) }
    }

    /// Complete once [`Step::End`] came.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Takes input up to and with a line feed. Answers how much.
    fn trailer(&mut self, line: usize, input: &[u8]) -> Result<usize, Reason> {
        let feed = memchr::memchr(b'\n', input);
        let taken = feed.map_or(input.len(), |feed| feed + 1);
        let raw = &mut self.trailers.raw;
        // The last line's end, which is no trailer, may lie beyond the limit.
        if raw.len() + taken > self.limits.trailers as usize + b"\r\n".len() {
            return Err(Reason::TrailersTooLarge);
        }
        raw.extend_from_slice(&input[..taken]);
        if feed.is_none() {
            return Ok(taken);
        }
        let Some(end) = raw[line..].strip_suffix(b"\r\n").map(|text| line + text.len()) else {
            return Err(Reason::BareLineFeed);
        };
        if end == line {
            raw.truncate(line);
            self.state = State::End;
            return Ok(taken);
        }
        if raw.len() > self.limits.trailers as usize || self.trailers.fields.len() >= self.limits.trailer_count as usize
        {
            return Err(Reason::TrailersTooLarge);
        }
        if matches!(raw[line], b' ' | b'\t') {
            return Err(Reason::FoldedHeader);
        }
        let (field, fault) = split_field(raw, line, end);
        if let Some(reason) = fault {
            return Err(reason);
        }
        let name = &raw[field.name.range()];
        if Spelling::of(name) != Spelling::Other || name.eq_ignore_ascii_case(b"host") {
            return Err(Reason::ForbiddenTrailer);
        }
        self.state = State::Trailer { line: raw.len() };
        self.trailers.fields.push(field);
        Ok(taken)
    }
}

impl Trailers {
    /// Names and values as sent, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (&self.raw[field.name.range()], &self.raw[field.value.range()]))
    }
}

impl State {
    /// One byte outside data and trailers.
    fn next(self, byte: u8) -> Result<Self, Reason> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < MAX_DIGITS => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension { size, length: 1, part: Part::NameStart },
            (Self::Extension { size, part: Part::Name | Part::Value | Part::QuotedEnd, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (Self::Extension { size, length, part }, _) if length < MAX_EXTENSION => {
                Self::Extension { size, length: length + 1, part: part.next(byte).ok_or(refused(byte))? }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { line: 0 },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataReturn, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::SizeEnd { .. } | Self::DataFeed, _) => return Err(Reason::BareCarriageReturn),
            _ => return Err(refused(byte)),
        })
    }
}

impl Part {
    fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::NameStart | Self::Name, _) if TOKEN.has(byte) => Some(Self::Name),
            (Self::ValueStart | Self::Value, _) if TOKEN.has(byte) => Some(Self::Value),
            (Self::Name | Self::Value | Self::QuotedEnd, b';') => Some(Self::NameStart),
            (Self::Name, b'=') => Some(Self::ValueStart),
            (Self::ValueStart, b'"') => Some(Self::Quoted),
            (Self::Quoted, b'"') => Some(Self::QuotedEnd),
            (Self::Quoted, b'\\') => Some(Self::QuotedPair),
            (Self::Quoted | Self::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Some(Self::Quoted),
            _ => None,
        }
    }
}

fn refused(byte: u8) -> Reason {
    if byte == b'\n' { Reason::BareLineFeed } else { Reason::MalformedChunk }
}

/// The size line of a chunk of ours: `size` in hexadecimal and CRLF. The data and another CRLF follow; after a size of 0, only
/// the CRLF.
pub fn size_line(size: u64) -> SizeLine {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (16 - size.leading_zeros() as usize / 4).max(1);
    let mut bytes = [0; 18];
    for (at, byte) in bytes[..digits].iter_mut().enumerate() {
        *byte = HEX[(size >> (4 * (digits - 1 - at)) & 15) as usize];
    }
    bytes[digits..digits + 2].copy_from_slice(b"\r\n");
    SizeLine { bytes, length: digits + 2 }
}

/// See [`size_line`].
#[derive(Clone, Copy, Debug)]
pub struct SizeLine {
    bytes: [u8; 18],
    length: usize,
}

impl AsRef<[u8]> for SizeLine {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests;
