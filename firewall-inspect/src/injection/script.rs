//! Whether a value, in a page, runs as script or brings in what does.

use std::sync::LazyLock;

use memchr::memchr2_iter;

use super::html::{Part, Parts, Start, is_white};

/// What an attribute's value may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    /// Whatever it is, it is too much.
    Any,
    /// It is an address.
    Url,
    /// It names another attribute.
    Name,
}

pub(super) fn judge(value: &[u8]) -> bool {
    [Start::Text, Start::Tag, Start::Quoted(b'\''), Start::Quoted(b'"'), Start::Quoted(b'`')]
        .into_iter()
        .any(|start| runs(Parts::new(value, start)))
}

/// Whether a value opens a tag, or has an attribute that does anything.
pub(super) fn possible(value: &[u8]) -> bool {
    memchr2_iter(b'<', b'=', value).any(|at| match value[at] {
        b'<' => matches!(value.get(at + 1), Some(b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'/' | b'?' | b'%' | 0)),
        _ => {
            let before = &value[..at];
            let end = before.iter().rposition(|byte| !is_white(*byte)).map_or(0, |last| last + 1);
            let ends = |byte: &u8| is_white(*byte) || matches!(byte, b'/' | b'=' | b'>');
            let name = &before[before[..end].iter().rposition(ends).map_or(0, |delimiter| delimiter + 1)..end];
            // Within quotes or not: a name starts behind any of them.
            let quotes = name.iter().enumerate().filter(|(_, byte)| matches!(byte, b'\'' | b'"' | b'`'));
            quotes.map(|(quote, _)| quote + 1).chain([0]).any(|start| effect(&name[start..]) != Effect::None)
        }
    })
}

fn runs(parts: Parts<'_>) -> bool {
    let mut attribute = Effect::None;
    for part in parts {
        let before = std::mem::replace(&mut attribute, Effect::None);
        let runs = match part {
            Part::Doctype => true,
            Part::TagName(name) => is_tag(name),
            Part::AttributeName(name) => {
                attribute = effect(name);
                false
            }
            Part::AttributeValue(value) => match before {
                Effect::None => false,
                Effect::Any => true,
                Effect::Url => is_url(value),
                Effect::Name => effect(value) != Effect::None,
            },
            Part::Comment(comment) => is_comment(comment),
            Part::Other => false,
        };
        if runs {
            return true;
        }
    }
    false
}

fn is_tag(name: &[u8]) -> bool {
    starts_with(name, b"svg") || starts_with(name, b"xsl") || name.len() >= 3 && Name::new(name).is_in(&TAGS)
}

/// A comment that old browsers take for more: conditions, imports, entities, and all that a backtick ends.
fn is_comment(comment: &[u8]) -> bool {
    comment.contains(&b'`')
        || comment.len() > 3 && (starts_with(comment, b"[if") || starts_with(comment, b"xml"))
        || starts_with(comment, b"import")
        || starts_with(comment, b"entity")
}

fn effect(name: &[u8]) -> Effect {
    if name.len() < 2 {
        return Effect::None;
    }
    if name.len() >= 5
        && (starts_with(name, b"on") && is_event(&name[2..])
            || starts_with(name, b"xmlns")
            || starts_with(name, b"xlink"))
    {
        return Effect::Any;
    }
    let name = Name::new(name);
    if name.is_in(&URLS) {
        Effect::Url
    } else if name.is_in(&["DATAFORMATAS", "DATASRC", "FILTER", "STYLE"]) {
        Effect::Any
    } else if name.is_in(&["ATTRIBUTENAME"]) {
        Effect::Name
    } else {
        Effect::None
    }
}

/// Whether a name starts with that of an event: none of the table is the start of another.
fn is_event(name: &[u8]) -> bool {
    let upper = || name.iter().map(u8::to_ascii_uppercase);
    let behind = EVENTS.partition_point(|event| event.bytes().le(upper()));
    behind.checked_sub(1).is_some_and(|event| starts_with(name, EVENTS[event].as_bytes()))
}

/// Whether an address is one that runs, or shows what may.
fn is_url(url: &[u8]) -> bool {
    let start = url.iter().position(|byte| matches!(byte, b'!'..=b'~')).unwrap_or(url.len());
    ["DATA", "VIEW-SOURCE", "JAVA", "VBSCRIPT"].iter().any(|scheme| has_scheme(&url[start..], scheme.as_bytes()))
}

/// Whether an address starts so, with its entities decoded, without nulls, ends of lines, and what is white before it.
fn has_scheme(mut url: &[u8], scheme: &[u8]) -> bool {
    let mut expected = scheme.iter();
    let mut first = true;
    while !url.is_empty() && !expected.as_slice().is_empty() {
        let (code, length) = character(url);
        url = &url[length..];
        if first && code <= 32 || matches!(code, 0 | 10) {
            continue;
        }
        first = false;
        // As libinjection, which makes a byte of whatever it is.
        let byte = if code < 128 { (code as u8).to_ascii_uppercase() } else { code as u8 };
        if expected.next() != Some(&byte) {
            return false;
        }
    }
    expected.as_slice().is_empty()
}

/// The first character, and its length: a byte or a numeric entity. What is no such entity is an ampersand.
fn character(text: &[u8]) -> (u32, usize) {
    let (radix, start) = match text {
        [b'&', b'#', b'x' | b'X', ..] => (16, 3),
        [b'&', b'#', ..] => (10, 2),
        _ => return (u32::from(text[0]), 1),
    };
    let mut code = 0;
    let mut length = start;
    while let Some(digit) = text.get(length).and_then(|byte| char::from(*byte).to_digit(radix)) {
        code = code * radix + digit;
        length += 1;
        if code > 0x10_00ff {
            return (u32::from(b'&'), 1);
        }
    }
    match text.get(length) {
        _ if length == start => (u32::from(b'&'), 1),
        Some(b';') => (code, length + 1),
        _ => (code, length),
    }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A name in capitals and without nulls, as far as any is long that we look for.
struct Name {
    letters: [u8; Self::LONGEST + 1],
    length: usize,
}

impl Name {
    const LONGEST: usize = 13;

    fn new(name: &[u8]) -> Self {
        let mut letters = [0; Self::LONGEST + 1];
        let mut length = 0;
        for (to, from) in letters.iter_mut().zip(name.iter().filter(|byte| **byte != 0)) {
            *to = from.to_ascii_uppercase();
            length += 1;
        }
        Self { letters, length }
    }

    fn is_in(&self, names: &[&str]) -> bool {
        names.iter().any(|name| name.as_bytes() == &self.letters[..self.length])
    }
}

// The names are libinjection's: `libinjection/LICENSE`.

/// What events are called behind their `on`.
static EVENTS: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("libinjection/events.txt").lines().collect());

const TAGS: [&str; 20] = [
    "APPLET", "BASE", "COMMENT", "EMBED", "FRAME", "FRAMESET", "HANDLER", "IFRAME", "IMPORT", "ISINDEX", "LINK",
    "LISTENER", "META", "NOSCRIPT", "OBJECT", "SCRIPT", "STYLE", "VMLFRAME", "XML", "XSS",
];

const URLS: [&str; 15] = [
    "ACTION",
    "BACKGROUND",
    "BY",
    "DYNSRC",
    "FOLDER",
    "FORMACTION",
    "FROM",
    "HANDLER",
    "HREF",
    "LOWSRC",
    "POSTER",
    "SRC",
    "TO",
    "VALUES",
    "XLINK:HREF",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_is_the_start_of_another() {
        assert!(
            EVENTS.len() == 362 && EVENTS.windows(2).all(|pair| pair[0] < pair[1] && !pair[1].starts_with(pair[0]))
        );
        assert!(is_event(b"click") && is_event(b"CLICKS") && is_event(b"zoom") && is_event(b"abort"));
        assert!(!is_event(b"clic") && !is_event(b"") && !is_event(b"a") && !is_event(b"zz"));
    }
}
