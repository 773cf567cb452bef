//! From the bytes of an HTTP/1 head to a [`Head`].

use bytes::Bytes;
use memchr::{memchr, memrchr};

use super::{
    Field, Head, Span, Version,
    field::{control, split, trim},
    host, target,
};
use crate::{
    class::TOKEN,
    framing::{self, Framing},
    reason::Reason,
};

/// Most requests have fewer headers, so their list is allocated once.
const USUAL_FIELDS: usize = 16;

/// Splits a head that [`super::Scan`] delimited.
///
/// # Errors
///
/// The request line cannot be split, or `raw` is not exactly one head.
pub fn parse(raw: Bytes) -> Result<Head, Reason> {
    if u32::try_from(raw.len()).is_err() {
        return Err(Reason::HeadersTooLarge);
    }
    let mut lines = Lines { raw: &raw, at: 0, strict: true };
    let (_, end) = lines.next().ok_or(Reason::FramingMismatch)?;
    let line = request_line(&raw[..end])?;
    let mut refusal = if lines.strict { None } else { Some(Reason::BareLineFeed) };
    refusal = refusal.or_else(|| line.fault(&raw[..end]));
    let mut fields: Vec<Field> = Vec::with_capacity(USUAL_FIELDS);
    let mut whole = false;
    while let Some((start, end)) = lines.next() {
        if !lines.strict {
            refusal.get_or_insert(Reason::BareLineFeed);
        }
        if start == end {
            whole = lines.at == raw.len();
            break;
        }
        if matches!(raw[start], b' ' | b'\t') {
            refusal.get_or_insert(Reason::FoldedHeader);
            if let Some(folded) = fields.last_mut() {
                folded.value = trim(&raw, folded.value.range().start, end);
                continue;
            }
        }
        let (field, fault) = split(&raw, start, end);
        refusal = refusal.or(fault);
        fields.push(field);
    }
    if !whole {
        return Err(Reason::FramingMismatch);
    }
    let RequestLine { method, target, version } = line;
    let version = version.unwrap_or(Version::Http11);
    Ok(finish(raw, version, method, target, fields, refusal))
}

/// What HTTP/1 and HTTP/2 have in common: framing, target and host are decided. The first fault stands.
pub(super) fn finish(
    raw: Bytes,
    version: Version,
    method: Span,
    raw_target: Span,
    fields: Vec<Field>,
    refusal: Option<Reason>,
) -> Head {
    let (framing, misframed) = match framing::decide(&raw, version, method, &fields) {
        Ok(framing) => (framing, None),
        Err(reason) => (Framing::None, Some(reason)),
    };
    let (target, malformed) = target::split(&raw, method, raw_target);
    let (host, misplaced) = match host::decide(&raw, version, raw_target, &target, &fields) {
        Ok(host) => (host, None),
        Err(reason) => (None, Some(reason)),
    };
    let refusal = refusal.or(misframed).or(malformed).or(misplaced);
    Head { raw, version, method, raw_target, target, fields, framing, host, refusal }
}

/// The parts of a request line.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    method: Span,
    target: Span,
    /// One that we speak.
    version: Option<Version>,
}

/// Splits at the first space and, if a version follows, the last one. One word more than the method is HTTP/0.9.
pub(super) fn request_line(line: &[u8]) -> Result<RequestLine, Reason> {
    let (Some(first), Some(last)) = (memchr(b' ', line), memrchr(b' ', line)) else { return Err(Reason::RequestLine) };
    let version = &line[last + 1..];
    let versioned = version.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/"));
    if first == last {
        return Err(if versioned { Reason::RequestLine } else { Reason::Http09 });
    }
    let version = match version {
        b"HTTP/1.1" => Some(Version::Http11),
        b"HTTP/1.0" => Some(Version::Http10),
        _ => None,
    };
    let target_end = if versioned || line[last + 1..].is_empty() { last } else { line.len() };
    Ok(RequestLine { method: Span::new(0, first), target: Span::new(first + 1, target_end), version })
}

impl RequestLine {
    fn fault(&self, line: &[u8]) -> Option<Reason> {
        let (method, target) = (&line[self.method.range()], &line[self.target.range()]);
        if method.is_empty()
            || target.is_empty()
            || !TOKEN.all(method)
            || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7F)
        {
            return Some(control(line).unwrap_or(Reason::RequestLine));
        }
        if self.version.is_some() {
            return None;
        }
        let version = line.get(self.target.range().end + 1..).unwrap_or_default();
        Some(match version {
            // A space, and no version behind it.
            [] if line.ends_with(b" ") => Reason::Http09,
            // There are no versions in requests before 1.0.
            [b'H', b'T', b'T', b'P', b'/', b'0', ..] => Reason::RequestLine,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                Reason::HttpVersion
            }
            _ => control(version).unwrap_or(Reason::RequestLine),
        })
    }
}

/// Lines as start and end, the end of the line not included.
struct Lines<'r> {
    raw: &'r [u8],
    at: usize,
    /// The last line ended in CRLF.
    strict: bool,
}

impl Iterator for Lines<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let start = self.at;
        let feed = start + memchr(b'\n', &self.raw[start..])?;
        self.at = feed + 1;
        self.strict = feed > start && self.raw[feed - 1] == b'\r';
        Some((start, if self.strict { feed - 1 } else { feed }))
    }
}
