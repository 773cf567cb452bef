//! A [`Head`] from what HTTP/2 sends (RFC 9113 section 8.3.1).

use super::{Field, Head, Limits, Span, Version, field::control, parse::finish};
use crate::{
    class::{TOKEN, is_value},
    framing::Framing,
    reason::Reason,
};

/// The pseudo-headers, and what the frames say.
#[derive(Clone, Copy, Debug)]
pub struct Http2<'a> {
    pub method: &'a [u8],
    /// Absent with CONNECT only.
    pub scheme: Option<&'a [u8]>,
    pub authority: Option<&'a [u8]>,
    /// Path and query; empty with CONNECT only.
    pub path: &'a [u8],
    /// The HEADERS frame ends the stream: there is no body.
    pub end_of_stream: bool,
}

/// Rebuilds `METHOD path HTTP/2`, Host from `:authority`, and the fields in order; cookie crumbs are joined and come last
/// (section 8.2.3).
///
/// # Errors
///
/// A limit is exceeded, the request line and fields taken as they are rebuilt; or what the HTTP/2 layer should never have let
/// through: [`Reason::Http2`] for upper case or connection headers, [`Reason::ControlCharacter`] for controls anywhere. The rest is
/// in [`Head::refusal`], as with HTTP/1.
pub fn from_http2<'a>(
    request: Http2<'a>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
) -> Result<Head, Reason> {
    let connect = request.method == b"CONNECT";
    let target = if connect { request.authority.unwrap_or_default() } else { request.path };
    for part in [request.method, target, request.authority.unwrap_or_default()] {
        if let Some(byte) = part.iter().find(|byte| **byte <= b' ' || **byte == 0x7F) {
            return Err(if *byte == b' ' { Reason::RequestLine } else { Reason::ControlCharacter });
        }
    }
    if request.method.is_empty() || target.is_empty() || !TOKEN.all(request.method) {
        return Err(Reason::RequestLine);
    }
    let mut refusal = None;
    // The schemes we speak; an absolute URL has no place in `:path`.
    if !connect && (!request.scheme.is_some_and(known_scheme) || (target[0] != b'/' && target != b"*")) {
        refusal = Some(Reason::MalformedTarget);
    }

    let mut raw = Raw { bytes: Vec::with_capacity(512), fields: Vec::with_capacity(16) };
    let method = raw.push(request.method);
    raw.bytes.push(b' ');
    let target = raw.push(target);
    raw.bytes.extend_from_slice(b" HTTP/2\r\n");
    let start = raw.bytes.len();
    if start - b"\r\n".len() > limits.request_line as usize {
        return Err(Reason::RequestLineTooLong);
    }
    let mut left = limits.header_count;
    if let Some(authority) = request.authority {
        raw.field(b"host", authority);
    }
    let (mut cookies, mut cookie_bytes) = (Vec::new(), 0);
    for (name, value) in fields {
        check(name, value)?;
        left = left.checked_sub(1).ok_or(Reason::TooManyHeaders)?;
        if raw.bytes.len() + cookie_bytes - start > limits.headers as usize {
            return Err(Reason::HeadersTooLarge);
        }
        match name {
            b"host" => match request.authority {
                None => raw.field(name, value),
                Some(authority) if authority.eq_ignore_ascii_case(value) => {}
                Some(_) => {
                    refusal.get_or_insert(Reason::HostMismatch);
                    raw.field(name, value);
                }
            },
            b"cookie" => {
                cookie_bytes += value.len();
                cookies.push(value);
            }
            _ => raw.field(name, value),
        }
    }
    if !cookies.is_empty() {
        raw.field(b"cookie", &cookies.join(&b"; "[..]));
    }
    if raw.bytes.len() - start > limits.headers as usize {
        return Err(Reason::HeadersTooLarge);
    }
    raw.bytes.extend_from_slice(b"\r\n");
    if u32::try_from(raw.bytes.len()).is_err() {
        return Err(Reason::HeadersTooLarge);
    }

    let mut head = finish(raw.bytes.into(), Version::Http2, method, target, raw.fields, refusal);
    match (request.end_of_stream, head.framing) {
        // A length that the end of the stream contradicts (section 8.1.1).
        (true, Framing::Length(_)) => {
            head.framing = Framing::None;
            head.refusal.get_or_insert(Reason::MalformedLength);
        }
        (true, _) => head.framing = Framing::None,
        (false, Framing::Length(_)) => {}
        (false, _) if head.values("content-length").next().is_some() => {}
        (false, _) => {
            head.framing = Framing::Stream;
            if matches!(head.method(), b"TRACE" | b"CONNECT") {
                head.refusal.get_or_insert(Reason::UnexpectedBody);
            }
        }
    }
    Ok(head)
}

/// The head as it is written.
struct Raw {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl Raw {
    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let name = self.push(name);
        self.bytes.extend_from_slice(b": ");
        let value = self.push(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.fields.push(Field { name, value });
    }
}

fn known_scheme(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// Names are tokens in lower case; what is about a connection has no place on a stream (section 8.2.2).
fn check(name: &[u8], value: &[u8]) -> Result<(), Reason> {
    if let Some(reason) = control(name) {
        return Err(reason);
    }
    if name.is_empty() || !TOKEN.all(name) || name.iter().any(u8::is_ascii_uppercase) {
        return Err(Reason::Http2);
    }
    if !is_value(value) {
        return Err(control(value).unwrap_or(Reason::ControlCharacter));
    }
    let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => Err(Reason::Http2),
        b"te" if !value.eq_ignore_ascii_case(b"trailers") => Err(Reason::Http2),
        _ if edge(value.first()) || edge(value.last()) => Err(Reason::Http2),
        _ => Ok(()),
    }
}
