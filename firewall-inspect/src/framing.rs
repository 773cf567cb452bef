//! How a request's body is delimited.

use crate::{
    head::{Field, Span, Version},
    reason::Reason,
};

/// Decided once for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes, more than 0 and below 2^63.
    Length(u64),
    /// Chunks of HTTP/1.1.
    Chunked,
    /// Ended by the stream of HTTP/2.
    Stream,
}

/// By the rules of RFC 9112 section 6.3, without any of its leniency: what two readers could take in two ways has no framing.
/// [`Framing::Stream`] is for the caller to set.
pub(crate) fn decide(raw: &[u8], version: Version, method: Span, fields: &[Field]) -> Result<Framing, Reason> {
    let (mut lengths, mut codings) = (Values::None, Values::None);
    let (mut odd_length, mut odd_coding) = (false, false);
    for field in fields {
        let name = &raw[field.name.range()];
        match Spelling::of(name) {
            Spelling::Other => {}
            Spelling::Length => lengths.add(field.value),
            Spelling::Coding => codings.add(field.value),
            Spelling::LengthTwin => odd_length = true,
            Spelling::CodingTwin => odd_coding = true,
        }
    }
    let framing = match (lengths, codings) {
        (Values::None, Values::None) => Framing::None,
        (Values::One(_) | Values::Several, Values::One(_) | Values::Several) => return Err(Reason::LengthAndCoding),
        (Values::Several, _) => return Err(Reason::SeveralLengths),
        (Values::One(value), _) => match length(&raw[value.range()])? {
            0 => Framing::None,
            length => Framing::Length(length),
        },
        (_, Values::One(value))
            if raw[value.range()].eq_ignore_ascii_case(b"chunked") && version == Version::Http11 =>
        {
            Framing::Chunked
        }
        (_, Values::One(_) | Values::Several) => return Err(Reason::TransferCoding),
    };
    match framing {
        _ if odd_length => Err(Reason::MalformedLength),
        _ if odd_coding => Err(Reason::TransferCoding),
        Framing::Length(_) | Framing::Chunked if matches!(&raw[method.range()], b"TRACE" | b"CONNECT") => {
            Err(Reason::UnexpectedBody)
        }
        _ => Ok(framing),
    }
}

/// The values of a header that must come once.
enum Values {
    None,
    One(Span),
    Several,
}

impl Values {
    fn add(&mut self, value: Span) {
        *self = if matches!(self, Self::None) { Self::One(value) } else { Self::Several };
    }
}

/// Names that mean framing to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    Other,
    Length,
    Coding,
    /// As CGI and its heirs would take for Content-Length: another character in place of the hyphen.
    LengthTwin,
    CodingTwin,
}

impl Spelling {
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |first: &[u8], second: &[u8]| {
            name[..first.len()].eq_ignore_ascii_case(first) && name[first.len() + 1..].eq_ignore_ascii_case(second)
        };
        match name.len() {
            14 if is(b"content", b"length") => match name[7] {
                b'-' => Self::Length,
                byte if byte.is_ascii_alphanumeric() => Self::Other,
                _ => Self::LengthTwin,
            },
            17 if is(b"transfer", b"encoding") => match name[8] {
                b'-' => Self::Coding,
                byte if byte.is_ascii_alphanumeric() => Self::Other,
                _ => Self::CodingTwin,
            },
            _ => Self::Other,
        }
    }
}

/// Plain digits below 2^63.
fn length(value: &[u8]) -> Result<u64, Reason> {
    const MOST_DIGITS: usize = 19;
    if value.contains(&b',') {
        return Err(Reason::SeveralLengths);
    }
    if value.is_empty() || value.len() > MOST_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reason::MalformedLength);
    }
    let length = value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
    if length < 1 << 63 { Ok(length) } else { Err(Reason::MalformedLength) }
}
