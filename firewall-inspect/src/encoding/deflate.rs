//! Deflate (RFC 1951) in its two wrappers, gzip (RFC 1952) and zlib (RFC 1950), and without one.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{BLOCK, Output, Problem};

/// Flags of a gzip header.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Decodes one member; a second one counts as trailing bytes.
pub(super) fn gzip(body: &[u8], output: &mut Output) -> Result<(), Problem> {
    let start = gzip_header(body).ok_or(Problem::Malformed)?;
    let rest = &body[start..];
    let rest = &rest[inflate(rest, false, output)?..];
    let (trailer, behind) = rest.split_first_chunk::<8>().ok_or(Problem::Malformed)?;
    let mut crc = Crc::new();
    crc.update(&output.bytes);
    let [expected, size] =
        [[0, 1, 2, 3], [4, 5, 6, 7]].map(|four| u32::from_le_bytes(four.map(|at: usize| trailer[at])));
    // The size is told modulo 2³².
    if expected != crc.sum() || size != crc.amount() {
        return Err(Problem::Malformed);
    }
    if behind.is_empty() { Ok(()) } else { Err(Problem::TrailingBytes) }
}

/// How long the header is.
fn gzip_header(body: &[u8]) -> Option<usize> {
    let [0x1f, 0x8b, 8, flags, ..] = *body else {
        return None;
    };
    if flags & RESERVED != 0 {
        return None;
    }
    let mut at = 10;
    if flags & EXTRA != 0 {
        let length = body.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            at += memchr::memchr(0, body.get(at..)?)? + 1;
        }
    }
    if flags & HEADER_CRC != 0 {
        let mut crc = Crc::new();
        crc.update(body.get(..at)?);
        let expected = body.get(at..at + 2)?;
        if crc.sum() as u16 != u16::from_le_bytes([expected[0], expected[1]]) {
            return None;
        }
        at += 2;
    }
    (at <= body.len()).then_some(at)
}

/// Decodes `deflate`, which is zlib by its specification and has no wrapper from some senders.
pub(super) fn deflate(body: &[u8], output: &mut Output) -> Result<(), Problem> {
    let zlib = is_zlib(body);
    let used = inflate(body, zlib, output)?;
    if used < body.len() {
        return Err(Problem::TrailingBytes);
    }
    // A body that is one with the wrapper and one without says two things, and nobody knows which the upstream reads.
    if zlib {
        let mut other = Output { bytes: Vec::new(), ..*output };
        if inflate(body, false, &mut other).is_ok() {
            return Err(Problem::Malformed);
        }
    }
    Ok(())
}

/// Whether a zlib header is there: deflate, a window of at most 32 KiB, its check.
fn is_zlib(body: &[u8]) -> bool {
    body.first_chunk::<2>().is_some_and(|[method, flags]| {
        method & 15 == 8 && method >> 4 <= 7 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
    })
}

/// Decodes up to the end of the stream; how many bytes that took.
fn inflate(body: &[u8], zlib: bool, output: &mut Output) -> Result<usize, Problem> {
    let mut decoder = Decompress::new(zlib);
    let mut block = [0; BLOCK];
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        // Neither is beyond what is in memory.
        let status = decoder.decompress(&body[read as usize..], &mut block, FlushDecompress::None);
        output.push(&block[..(decoder.total_out() - written) as usize])?;
        match status {
            Ok(Status::StreamEnd) => return Ok(decoder.total_in() as usize),
            // All of it is there already.
            Ok(_) if (decoder.total_in(), decoder.total_out()) == (read, written) => return Err(Problem::Malformed),
            Ok(_) => {}
            Err(_) => return Err(Problem::Malformed),
        }
    }
}
