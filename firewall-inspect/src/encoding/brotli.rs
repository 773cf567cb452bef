//! Brotli (RFC 7932).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{BLOCK, Output, Problem};

pub(super) fn decode(body: &[u8], output: &mut Output) -> Result<(), Problem> {
    let (first, rest) = body.split_first().ok_or(Problem::Malformed)?;
    let first = [narrowed(*first, output.most)];
    let alloc = StandardAlloc::default;
    // Strict: without the windows beyond 16 MiB, which the RFC does not know.
    let mut state = BrotliState::new_strict(alloc(), alloc(), alloc());
    let (mut input, mut left, mut at) = (&first[..], 1, 0);
    let mut block = [0; BLOCK];
    loop {
        let (mut room, mut end) = (block.len(), 0);
        let result =
            BrotliDecompressStream(&mut left, &mut at, input, &mut room, &mut end, &mut block, &mut 0, &mut state);
        output.push(&block[..end])?;
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput if input.as_ptr() == first.as_ptr() => {
                (input, left, at) = (rest, rest.len(), 0);
            }
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return Err(Problem::Malformed),
            // `left` is of the input at hand.
            BrotliResult::ResultSuccess => {
                let behind = if input.as_ptr() == first.as_ptr() { left + rest.len() } else { left };
                return if behind == 0 { Ok(()) } else { Err(Problem::TrailingBytes) };
            }
        }
    }
}

/// The first byte of a stream, which says how large its window is, with a window that is as large as the output may be. The
/// decoder fills a window before it gives any of it away; a smaller one makes no difference to less output than that.
fn narrowed(first: u8, most: usize) -> u8 {
    // Windows of 18 to 24 bits are 0b0011 to 0b1111, and lack 16 bytes.
    let [bits, low] = [u32::from(first >> 1 & 7) + 17, u32::from(first & 15)];
    if low & 1 == 0 || bits < 18 {
        return first;
    }
    let enough = (18..bits).find(|bits| (1 << bits) - 16 >= most).unwrap_or(bits);
    first & 0xf0 | ((enough - 17) << 1) as u8 | 1
}
