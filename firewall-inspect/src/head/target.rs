//! The target's form and parts (RFC 9112 section 3.2).

use memchr::{memchr, memchr2};

use super::{Authority, Span, Target, TargetForm};
use crate::{class::TARGET, reason::Reason};

/// Splits the target, and says what is wrong with it. CONNECT to a host and port gives [`Reason::Method`]: we are no forward proxy,
/// whatever a policy says.
pub(super) fn split(raw: &[u8], method: Span, target: Span) -> (Target, Option<Reason>) {
    let Span { start, end } = target;
    let bytes = &raw[target.range()];
    let method = &raw[method.range()];
    let empty = Span { start: end, end };
    let whole = |form, authority| Target { form, authority, path: empty, query: None, fragment: None };
    if method == b"CONNECT" {
        let complete = Authority::parse(bytes).is_some_and(|authority| authority.port.is_some());
        let fault = if complete { Reason::Method } else { Reason::MalformedTarget };
        return (whole(TargetForm::Authority, Some(target)), Some(fault));
    }
    if bytes == b"*" {
        let fault = if method == b"OPTIONS" { None } else { Some(Reason::MalformedTarget) };
        return (whole(TargetForm::Asterisk, None), fault);
    }
    let mut fault = None;
    let (form, authority, path) = match scheme(bytes) {
        Some((_, length)) => {
            let rest = &bytes[length..];
            let from = start + length as u32;
            let slash = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            let authority = Span { start: from, end: from + slash as u32 };
            if memchr(b'@', &rest[..slash]).is_some() {
                fault = Some(Reason::MalformedTarget);
            }
            (TargetForm::Absolute, Some(authority), authority.end)
        }
        None => (TargetForm::Origin, None, start),
    };
    let rest = &raw[path as usize..end as usize];
    if (form == TargetForm::Origin && rest.first() != Some(&b'/')) || !TARGET.all(rest) {
        fault = Some(Reason::MalformedTarget);
    }
    let hash = memchr(b'#', rest).map_or(end, |at| path + at as u32);
    let path_end = memchr2(b'?', b'#', rest).map_or(end, |at| path + at as u32);
    let target = Target {
        form,
        authority,
        path: Span { start: path, end: path_end },
        query: (path_end < hash).then(|| Span { start: path_end + 1, end: hash }),
        fragment: (hash < end).then(|| Span { start: hash + 1, end }),
    };
    (target, fault)
}

/// The default port of the scheme that an absolute target starts with, and how long it is with its slashes.
pub(super) fn scheme(target: &[u8]) -> Option<(u16, usize)> {
    [(&b"http://"[..], 80), (b"https://", 443)]
        .into_iter()
        .find(|(scheme, _)| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|(scheme, port)| (port, scheme.len()))
}
