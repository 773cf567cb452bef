//! The head of a request, as it was received: one type for HTTP/1 and HTTP/2.
//!
//! In: the bytes up to and with the empty line, or the pseudo-headers and fields of HTTP/2. Out: a [`Head`] whose parts are
//! ranges of those bytes: order, case and duplicates are as sent, nothing is copied or normalised.
//!
//! This is the only parser that hostile heads meet. A head whose end is certain yields a [`Head`] however odd it is, with
//! [`Head::refusal`] set: rules may look at it, it never goes on, and the connection closes. Without a request line that
//! could be split, or over a limit, there is only a [`Reason`].

mod field;
mod host;
mod http2;
mod parse;
mod scan;
mod target;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;

pub(crate) use self::field::split as split_field;
pub use self::{
    host::Authority,
    http2::{Http2, from_http2},
    parse::parse,
    scan::{Limits, Scan},
};
use crate::{fields::elements, framing::Framing, reason::Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// A range of [`Head::raw`], `0 <= start <= end <= raw.len()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Of a head no longer than `u32::MAX`, which whoever makes spans has seen to.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A header line: its name as sent, its value without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Span,
    pub value: Span,
}

/// The forms of a target (RFC 9112 section 3.2). CONNECT's authority form has no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    Origin,
    Absolute,
    Asterisk,
    Authority,
}

/// The parts of the target; what is absent is an empty span or `None`. With [`Head::refusal`] set, as far as they could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub form: TargetForm,
    /// Of the absolute and the authority form, user information included.
    pub authority: Option<Span>,
    /// Starts with `/`. Empty in an absolute URL without a path, and in the asterisk and the authority form.
    pub path: Span,
    /// Behind the `?`.
    pub query: Option<Span>,
    /// Behind the `#`, which no client should send.
    pub fragment: Option<Span>,
}

/// A request's head.
#[derive(Clone, Debug)]
pub struct Head {
    /// Request line and fields as sent, the empty line included. Rebuilt for HTTP/2.
    pub raw: Bytes,
    pub version: Version,
    pub method: Span,
    /// The target as sent.
    pub raw_target: Span,
    pub target: Target,
    pub fields: Vec<Field>,
    /// How the body is delimited; decided once, here.
    pub framing: Framing,
    /// The host this request is for, without the port, in lower case; from Host or `:authority`.
    pub host: Option<Box<str>>,
    /// What is wrong with it, where it could be delimited all the same: rules see it, but it is never forwarded, in no mode.
    pub refusal: Option<Reason>,
}

impl Head {
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.raw[span.range()]
    }

    /// A value that shares the head's memory.
    pub fn shared(&self, span: Span) -> Bytes {
        self.raw.slice(span.range())
    }

    pub fn method(&self) -> &[u8] {
        self.bytes(self.method)
    }

    /// Host and port as sent: the value of Host, of an absolute target without one, or `:authority`.
    pub fn authority(&self) -> Option<&[u8]> {
        self.values("host").next().or_else(|| self.target.authority.map(|span| self.bytes(span)))
    }

    /// Whether the client means to send another request on this connection (RFC 9112 section 9.3).
    pub fn keep_alive(&self) -> bool {
        let says = |option: &[u8]| {
            self.values("connection").flat_map(elements).any(|element| element.eq_ignore_ascii_case(option))
        };
        match self.version {
            Version::Http10 => says(b"keep-alive") && !says(b"close"),
            Version::Http11 => !says(b"close"),
            Version::Http2 => true,
        }
    }

    /// The values of a header, by name in any case, in order.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.fields
            .iter()
            .filter(|field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.bytes(field.value))
    }
}
