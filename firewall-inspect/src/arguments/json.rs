//! The arguments in a JSON document: `{"items":[{"sku":"x"}]}` is `json.items.array_0.sku=x`.

use std::{borrow::Cow, fmt::Write as _};

use json_event_parser::{JsonEvent, SliceJsonParser};

use super::{ArgumentError, Limits, Pair};

/// What the document's names begin with, and what stands for a key without letters.
const ROOT: &str = "json";
const EMPTY_KEY: &str = "empty-key";

/// Bytes that all names may take, for each of the document: a long key over many values would be there as often. Lists of short
/// numbers within a few keys come to 20.
const NAMES: usize = 32;
/// And bytes that they may take in any document.
const FREE_NAMES: usize = 64 << 10;

/// An array or object that is not closed, and how long the name of its own is.
struct Open {
    /// The index of the next value, of arrays.
    next: Option<usize>,
    name: usize,
}

/// Reads a document. Keys that occur twice are two arguments; numbers are as they stand, `null` is nothing.
///
/// # Errors
///
/// It is no JSON, no UTF-8, too deep, holds too many values, or too long keys over many of them.
pub fn json<'b>(input: &'b [u8], limits: &Limits) -> Result<Vec<Pair<'b>>, ArgumentError> {
    // Which the parser would take for a part of the text that may be missing.
    if let Err(error) = std::str::from_utf8(input) {
        return Err(ArgumentError::Malformed("invalid UTF-8".into(), error.valid_up_to() as u64));
    }
    // Some readers take it for nothing, others for no JSON (RFC 8259 section 8.1).
    if input.starts_with("\u{feff}".as_bytes()) {
        return Err(ArgumentError::Malformed("a byte order mark".into(), 0));
    }
    let mut parser = SliceJsonParser::new(input);
    let (mut pairs, mut open, mut name) = (Vec::new(), Vec::<Open>::new(), ROOT.to_owned());
    let mut names_left = FREE_NAMES + NAMES * input.len();
    loop {
        let event = parser
            .parse_next()
            .map_err(|error| ArgumentError::Malformed(error.message().to_owned(), error.location().start.offset))?;
        // The name of a value: behind a key it is there already, in an array it is the next.
        if let Some(Open { next: Some(next), name: length }) = open.last_mut()
            && !matches!(event, JsonEvent::EndArray | JsonEvent::ObjectKey(_))
        {
            name.truncate(*length);
            // Into memory, which takes it.
            let _ = write!(name, ".array_{next}");
            *next += 1;
        }
        let value = match event {
            JsonEvent::StartObject | JsonEvent::StartArray => {
                if open.len() == limits.depth {
                    return Err(ArgumentError::TooDeep);
                }
                open.push(Open { next: matches!(event, JsonEvent::StartArray).then_some(0), name: name.len() });
                continue;
            }
            JsonEvent::EndObject | JsonEvent::EndArray => {
                if let Some(ended) = open.pop() {
                    name.truncate(ended.name);
                }
                continue;
            }
            JsonEvent::ObjectKey(key) => {
                if let Some(object) = open.last() {
                    name.truncate(object.name);
                }
                name.push('.');
                name.push_str(if key.is_empty() { EMPTY_KEY } else { &key });
                continue;
            }
            JsonEvent::Eof => return Ok(pairs),
            JsonEvent::String(text) | JsonEvent::Number(text) => bytes(text),
            JsonEvent::Boolean(value) => Cow::Borrowed(if value { &b"true"[..] } else { b"false" }),
            JsonEvent::Null => Cow::Borrowed(&b""[..]),
        };
        if pairs.len() == limits.count {
            return Err(ArgumentError::TooMany);
        }
        names_left = names_left.checked_sub(name.len()).ok_or(ArgumentError::LongNames)?;
        pairs.push(Pair { name: Cow::Owned(name.clone().into_bytes()), value });
    }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
