//! Content codings of bodies (RFC 9110 section 8.4.1): gzip, deflate, brotli and zstd, decoded for inspection.
//!
//! In: the Content-Encoding lines and a whole body. Out: the bytes that they stand for, or why there are none. All of the body has
//! to be one stream that ends with it: what stands behind the end of a stream, one reader skips and the next one reads.
//!
//! An upstream that does not look at Content-Encoding reads other bytes than these, and a sender can choose both. So whoever
//! calls this sends on what was decoded, or knows that the upstream decodes.

mod brotli;
mod deflate;
#[cfg(test)]
mod tests;
mod zstd;

/// Bytes that any body may decode to, whatever its ratio.
const FREE_OF_RATIO: usize = 64 << 10;
/// Bytes decoded at a time, where the decoder leaves it to us.
const BLOCK: usize = 16 << 10;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// With the zlib wrapper (RFC 1950), or as browsers take it too: without (RFC 1951).
    Deflate,
    /// RFC 7932, without large windows.
    Brotli,
    /// RFC 8878, with windows of at most 8 MiB (RFC 9659).
    Zstd,
}

/// How much a body may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes decoded. Beside them a decoder holds its window, which is at most twice as large, and 16 MiB.
    pub size: u64,
    /// Bytes decoded for each that is encoded. Counts beyond the first 64 KiB that are decoded.
    pub ratio: u32,
}

/// Why a body is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A coding that is none of [`Coding`].
    Unknown,
    /// More than one coding.
    Several,
    /// The body is no stream of its coding, or ends before the stream does.
    Malformed,
    /// Something is behind the end of the stream; with gzip and zstd, it may be another one.
    TrailingBytes,
    /// [`Limits::size`].
    TooLarge,
    /// [`Limits::ratio`].
    Ratio,
}

impl Problem {
    /// For the limits.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TooLarge | Self::Ratio)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the content coding is unknown",
            Self::Several => "there is more than one content coding",
            Self::Malformed => "the body is not what its content coding says",
            Self::TrailingBytes => "something is behind the end of the encoded body",
            Self::TooLarge => "the decoded body is too large",
            Self::Ratio => "the body decodes to too many times its size",
        })
    }
}

impl std::error::Error for Problem {}

impl Coding {
    /// Of the values of all Content-Encoding lines; `None`: the body is as it is.
    ///
    /// # Errors
    ///
    /// [`Problem::Unknown`], [`Problem::Several`].
    pub fn of<'v>(values: impl Iterator<Item = &'v [u8]>) -> Result<Option<Self>, Problem> {
        let names = values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let mut names = names.filter(|name| !name.is_empty());
        let Some(name) = names.next() else {
            return Ok(None);
        };
        if names.next().is_some() {
            return Err(Problem::Several);
        }
        Ok(Some(match &name.to_ascii_lowercase()[..] {
            b"identity" => return Ok(None),
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"br" => Self::Brotli,
            b"zstd" => Self::Zstd,
            _ => return Err(Problem::Unknown),
        }))
    }
}

/// Decodes a body.
///
/// # Errors
///
/// All but those of [`Coding::of`]. Nothing that was decoded up to there comes out.
pub fn decode(coding: Coding, body: &[u8], limits: Limits) -> Result<Vec<u8>, Problem> {
    let mut output = Output::new(body.len(), limits);
    match coding {
        Coding::Gzip => deflate::gzip(body, &mut output)?,
        Coding::Deflate => deflate::deflate(body, &mut output)?,
        Coding::Brotli => brotli::decode(body, &mut output)?,
        Coding::Zstd => zstd::decode(body, &mut output)?,
    }
    Ok(output.bytes)
}

/// What was decoded so far. Grows with what is there, never with what a stream says of itself.
struct Output {
    bytes: Vec<u8>,
    /// Bytes, at most.
    most: usize,
    /// What it is called when there are more.
    over: Problem,
}

impl Output {
    fn new(encoded: usize, limits: Limits) -> Self {
        let size = usize::try_from(limits.size).unwrap_or(usize::MAX);
        let by_ratio = encoded.saturating_mul(limits.ratio as usize).max(FREE_OF_RATIO);
        let over = if size <= by_ratio { Problem::TooLarge } else { Problem::Ratio };
        Self { bytes: Vec::new(), most: size.min(by_ratio), over }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let length = self.bytes.len() + piece.len();
        if length > self.most {
            return Err(self.over);
        }
        if length > self.bytes.capacity() {
            // Twice as much as there is, for the cost of copying, but not beyond the limit.
            let capacity = (2 * self.bytes.len()).clamp(length, self.most);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}
