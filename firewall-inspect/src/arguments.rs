//! Arguments: what a request says in its query, its cookies and its body, as pairs of a name and a value.
//!
//! Names and values are those that libmodsecurity 3.0 gives, since rules are written for them; duplicates stay, in their order.
//! Over a limit there are no arguments but an error: the first so many would be a place to hide the next.

mod json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use self::json::json;
use crate::seclang::Transformation;

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<'b> {
    pub name: Cow<'b, [u8]>,
    pub value: Cow<'b, [u8]>,
}

/// How much of it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pairs.
    pub count: usize,
    /// Objects and arrays within one another.
    pub depth: usize,
}

/// Why there are no arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    TooMany,
    TooDeep,
    /// Names that are put together of many, as those in JSON are, become too long altogether.
    LongNames,
    /// It is not what it should be; what the parser says, and at which byte.
    Malformed(String, u64),
}

impl ArgumentError {
    /// For the limits, as a refusal names them.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::TooMany | Self::TooDeep | Self::LongNames)
    }
}

impl std::fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMany => f.write_str("too many arguments"),
            Self::TooDeep => f.write_str("too deep"),
            Self::LongNames => f.write_str("the names of arguments are too long"),
            Self::Malformed(message, offset) => write!(f, "{message} at byte {offset}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

/// The arguments of a query or a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlEncoded<'b> {
    pub pairs: Vec<Pair<'b>>,
    /// A `%` is not followed by two digits: URLENCODED_ERROR.
    pub malformed: bool,
}

/// Reads `a=1&b=2`. Nothing between two separators is an argument without a name; nothing behind the last is none.
///
/// # Errors
///
/// [`ArgumentError::TooMany`].
pub fn url_encoded<'b>(input: &'b [u8], separator: u8, limits: &Limits) -> Result<UrlEncoded<'b>, ArgumentError> {
    let mut found = UrlEncoded::default();
    if input.is_empty() {
        return Ok(found);
    }
    let input = input.strip_suffix(&[separator]).unwrap_or(input);
    for part in input.split(|byte| *byte == separator) {
        if found.pairs.len() == limits.count {
            return Err(ArgumentError::TooMany);
        }
        let (name, value) = match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        };
        let (name, value) = (decoded(name, &mut found.malformed), decoded(value, &mut found.malformed));
        found.pairs.push(Pair { name, value });
    }
    Ok(found)
}

fn decoded<'b>(input: &'b [u8], malformed: &mut bool) -> Cow<'b, [u8]> {
    if memchr::memchr2(b'%', b'+', input).is_none() {
        return Cow::Borrowed(input);
    }
    let digits = |at: usize| input.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    *malformed |= memchr::memchr_iter(b'%', input).any(|at| !digits(at));
    let mut output = Vec::with_capacity(input.len());
    if Transformation::UrlDecode.apply(input, &mut output) { Cow::Owned(output) } else { Cow::Borrowed(input) }
}

/// Reads the value of a Cookie header: `a=1; b=2`. Without a name it is none; values are as they stand.
///
/// # Errors
///
/// [`ArgumentError::TooMany`].
pub fn cookies<'b>(input: &'b [u8], limits: &Limits) -> Result<Vec<Pair<'b>>, ArgumentError> {
    let mut pairs = Vec::new();
    for part in input.split(|byte| *byte == b';') {
        let part = part.trim_ascii_start();
        let (name, value) = match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        };
        if name.is_empty() {
            continue;
        }
        if pairs.len() == limits.count {
            return Err(ArgumentError::TooMany);
        }
        pairs.push(Pair { name: Cow::Borrowed(name), value: Cow::Borrowed(value) });
    }
    Ok(pairs)
}
