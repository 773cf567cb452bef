//! The head of a request, as it was received: one type for HTTP/1 and HTTP/2.
//!
//! In: the bytes up to and with the empty line, or the pseudo-headers and fields of HTTP/2. Out: a [`Head`] whose parts are
//! ranges of those bytes: order, case and duplicates are as sent, nothing is copied or normalised.

use std::ops::Range;

use bytes::Bytes;

use crate::{framing::Framing, reason::Reason};

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

/// The parts of the target; what is absent is an empty span or `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub form: TargetForm,
    /// Of the absolute and the authority form, user information included.
    pub authority: Option<Span>,
    /// Starts with `/`, except for an absolute URL without a path, where it is empty.
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
    /// What is wrong with it, where it could be delimited all the same: it is judged, but never forwarded.
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

    /// The values of a header, by name in any case, in order.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.fields
            .iter()
            .filter(|field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.bytes(field.value))
    }
}
