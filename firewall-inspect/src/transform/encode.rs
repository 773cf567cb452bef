//! What is an encoding, or a digest.

use md5::{Digest as _, Md5};
use sha1::Sha1;

pub(super) fn hex(input: &[u8], output: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    output.extend(input.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

pub(super) fn base64(input: &[u8], output: &mut Vec<u8>) {
    const SEXTETS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for part in input.chunks(3) {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or(0));
        let value = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            output.push(if at <= part.len() { SEXTETS[(value >> (18 - 6 * at) & 63) as usize] } else { b'=' });
        }
    }
}

/// All but letters, digits and `*`; a space is `+`.
pub(super) fn url(input: &[u8], output: &mut Vec<u8>) {
    for byte in input {
        match byte {
            b' ' => output.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => output.push(*byte),
            _ => {
                output.push(b'%');
                hex(&[*byte], output);
            }
        }
    }
}

pub(super) fn md5(input: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(&Md5::digest(input));
}

pub(super) fn sha1(input: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(&Sha1::digest(input));
}
