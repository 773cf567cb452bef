//! Which host a request is for.

use std::net::Ipv6Addr;

use super::{Field, Span, Target, TargetForm, Version, target::scheme};
use crate::{class::HOST, reason::Reason};

/// The longest name of the DNS, a final dot included.
const MAX_NAME: usize = 254;

/// `host [ ":" port ]`, without user information (RFC 9110 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name or an IPv4 address as sent but for a final dot, or an IPv6 address in brackets. Not empty.
    pub host: &'a [u8],
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Letters, digits, `-`, `.` and `_` make up a name; what else RFC 3986 allows there is in use nowhere and refused.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (host, rest) = if bytes.first() == Some(&b'[') {
            let end = memchr::memchr(b']', bytes)?;
            str::from_utf8(&bytes[1..end]).ok()?.parse::<Ipv6Addr>().ok()?;
            bytes.split_at(end + 1)
        } else {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            let (name, rest) = bytes.split_at(end);
            let fits = name.len() <= MAX_NAME && HOST.all(name) && !name.windows(2).any(|pair| pair == b"..");
            let bare = name.strip_suffix(b".").unwrap_or(name);
            if !fits || bare.is_empty() || bare[0] == b'.' {
                return None;
            }
            (bare, rest)
        };
        let port = match rest {
            [] => None,
            [b':', digits @ ..] if matches!(digits.len(), 1..=5) && digits.iter().all(u8::is_ascii_digit) => {
                Some(str::from_utf8(digits).ok()?.parse().ok().filter(|port| *port > 0)?)
            }
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// In lower case; an IPv6 address in its canonical form, in brackets.
    pub fn name(&self) -> Box<str> {
        let host = String::from_utf8_lossy(self.host);
        match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(address) if self.host[0] == b'[' => format!("[{address}]").into(),
            _ => host.to_ascii_lowercase().into(),
        }
    }

    /// Whether both are the same place, given what no port means.
    pub(crate) fn same(&self, other: &Self, default_port: u16) -> bool {
        self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
            && (self.host.eq_ignore_ascii_case(other.host) || self.name() == other.name())
    }
}

/// HTTP/1.1 needs exactly one Host, HTTP/1.0 at most one, and an absolute target must agree with it.
pub(super) fn decide(
    raw: &[u8],
    version: Version,
    raw_target: Span,
    target: &Target,
    fields: &[Field],
) -> Result<Option<Box<str>>, Reason> {
    let mut hosts = fields.iter().filter(|field| raw[field.name.range()].eq_ignore_ascii_case(b"host"));
    let sent = match hosts.next() {
        Some(_) if hosts.next().is_some() => return Err(Reason::HostMismatch),
        Some(field) if field.value.range().is_empty() => return Err(Reason::HostMissing),
        Some(field) => Some(Authority::parse(&raw[field.value.range()]).ok_or(Reason::MalformedHost)?),
        None if version == Version::Http10 => None,
        None => return Err(Reason::HostMissing),
    };
    let asked = match (target.form, target.authority) {
        (TargetForm::Absolute, Some(span)) => Some(Authority::parse(&raw[span.range()]).ok_or(Reason::MalformedHost)?),
        _ => None,
    };
    if let (Some(sent), Some(asked)) = (&sent, &asked) {
        let port = scheme(&raw[raw_target.range()]).map_or(80, |(port, _)| port);
        if !sent.same(asked, port) {
            return Err(Reason::HostMismatch);
        }
    }
    Ok(sent.or(asked).map(|authority| authority.name()))
}
