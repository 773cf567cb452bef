//! One header or trailer line: split it, and say what is wrong with it.

use super::{Field, Span};
use crate::{
    class::{TOKEN, is_value},
    reason::Reason,
};

/// Splits `raw[start..end]`, a line without its end. The field is the best that can be told where a reason stands beside it.
pub(crate) fn split(raw: &[u8], start: usize, end: usize) -> (Field, Option<Reason>) {
    let line = &raw[start..end];
    let token = line.iter().position(|byte| !TOKEN.has(*byte)).unwrap_or(line.len());
    let (name, value, mut fault) = match line.get(token) {
        Some(b':') if token > 0 => (token, token + 1, None),
        _ => {
            let (name, value, reason) = odd_name(line);
            (name, value, Some(reason))
        }
    };
    let value = trim(raw, start + value, end);
    if fault.is_none() && !is_value(&raw[value.range()]) {
        fault = control(&raw[value.range()]);
    }
    (Field { name: Span::new(start, start + name), value }, fault)
}

/// Spaces and tabs off both ends.
pub(super) fn trim(raw: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && matches!(raw[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(raw[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Span::new(start, end)
}

/// The first control character other than a tab.
pub(super) fn control(bytes: &[u8]) -> Option<Reason> {
    bytes.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t').map(|byte| match byte {
        b'\r' => Reason::BareCarriageReturn,
        _ => Reason::ControlCharacter,
    })
}

/// Lengths of name, and of name with colon, of a line that does not start with a token and a colon.
fn odd_name(line: &[u8]) -> (usize, usize, Reason) {
    let colon = memchr::memchr(b':', line);
    let name = trim(line, 0, colon.unwrap_or(line.len())).range().end;
    let reason = match control(&line[..name]) {
        Some(reason) => reason,
        None if name > 0 && colon.is_some() && TOKEN.all(&line[..name]) => Reason::SpaceBeforeColon,
        None => Reason::HeaderName,
    };
    (name, colon.map_or(line.len(), |colon| colon + 1), reason)
}
