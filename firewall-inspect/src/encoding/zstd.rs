//! Zstandard (RFC 8878).

use std::io::Read;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Output, Problem};

/// Bytes; what senders of HTTP keep to (RFC 9659).
const WINDOW: u64 = 8 << 20;
/// Bytes that a block decodes to, at most, where the window is as large.
const BLOCK: u64 = 128 << 10;
/// Bits of a frame's descriptor.
const RESERVED: u8 = 1 << 3;
const SINGLE_SEGMENT: u8 = 1 << 5;

/// Decodes one frame without a dictionary; a second one, of any kind, counts as trailing bytes.
pub(super) fn decode(body: &[u8], output: &mut Output) -> Result<(), Problem> {
    let (mut start, mut rest) =
        body.split_first_chunk::<6>().map(|(start, rest)| (*start, rest)).ok_or(Problem::Malformed)?;
    if start[4] & RESERVED != 0 {
        return Err(Problem::Malformed);
    }
    if start[4] & SINGLE_SEGMENT == 0 {
        start[5] = narrowed(start[5], output.most).ok_or(Problem::Malformed)?;
    }
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW);
    decoder.init((&start[..]).chain(&mut rest)).map_err(|_| Problem::Malformed)?;
    let size = decoder.content_size();
    if size > output.most as u64 {
        return Err(output.over);
    }
    while !decoder.is_finished() {
        decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1)).map_err(|_| Problem::Malformed)?;
        if let Some(piece) = decoder.collect() {
            output.push(&piece)?;
        }
    }
    let checksum = decoder.get_checksum_from_data();
    // 0: it does not say.
    if (size > 0 && size != output.bytes.len() as u64)
        || (checksum.is_some() && checksum != decoder.get_calculated_checksum())
    {
        return Err(Problem::Malformed);
    }
    if rest.is_empty() { Ok(()) } else { Err(Problem::TrailingBytes) }
}

/// A window's descriptor with a window that is as large as the output may be, for the reason in `brotli.rs`; `None` if it is
/// too large.
fn narrowed(descriptor: u8, most: usize) -> Option<u8> {
    let size = |descriptor: u8| (8 + u64::from(descriptor & 7)) << (7 + (descriptor >> 3));
    if size(descriptor) > WINDOW {
        return None;
    }
    Some((0..descriptor).find(|smaller| size(*smaller) >= (most as u64).max(BLOCK)).unwrap_or(descriptor))
}
