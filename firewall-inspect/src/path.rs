//! The one normal form of a path: policy and routes judge it, and it is what goes upstream.
//!
//! Percent-encoding is decoded once, dot segments are resolved, slashes merged; then letters, digits and what else a path may
//! hold (RFC 3986 section 3.3) stand for themselves, and all other bytes as `%XX` in upper case. An encoded delimiter such as
//! `%3B` becomes plain by that: an upstream that tells the two apart sees the plain one. Cases and names are not touched.

use std::borrow::Cow;

use crate::{
    class::{PATH, TARGET},
    reason::Reason,
};

/// Brings a path, without its query, into normal form. One that has it already is not copied. An empty path is the root.
///
/// With `encoded_slashes`, slashes and backslashes that are part of a name stay encoded, as `%2F` and `%5C`: they never separate.
///
/// # Errors
///
/// [`Reason::PathEncoding`], [`Reason::PathDoubleEncoding`], [`Reason::PathEncodedSlash`], [`Reason::PathControlCharacter`],
/// [`Reason::PathNotUtf8`], [`Reason::PathAboveRoot`]; [`Reason::MalformedTarget`] for what no target may hold.
pub fn normalise(path: &[u8], encoded_slashes: bool) -> Result<Cow<'_, [u8]>, Reason> {
    match path {
        [] => Ok(Cow::Borrowed(b"/")),
        [b'/', rest @ ..] => {
            if is_normal(path) {
                return Ok(Cow::Borrowed(path));
            }
            rebuild(rest, encoded_slashes).map(Cow::Owned)
        }
        _ => Err(Reason::MalformedTarget),
    }
}

/// Sufficient, not necessary: no segment starts with a dot, nothing is encoded.
fn is_normal(path: &[u8]) -> bool {
    let mut last = 0;
    path.iter().all(|byte| {
        let plain = PATH.has(*byte) && !(last == b'/' && matches!(byte, b'/' | b'.'));
        last = *byte;
        plain
    })
}

/// `path` comes without its first slash.
fn rebuild(path: &[u8], encoded_slashes: bool) -> Result<Vec<u8>, Reason> {
    let mut normal = Vec::with_capacity(path.len() + 1);
    let mut segment = Vec::new();
    // A last segment that goes away leaves its slash.
    let mut trailing = false;
    for raw in path.split(|byte| *byte == b'/') {
        segment.clear();
        decode(raw, &mut segment)?;
        check(&segment, encoded_slashes)?;
        trailing = matches!(&segment[..], b"" | b"." | b"..");
        if segment == b".." {
            let up = memchr::memrchr(b'/', &normal).ok_or(Reason::PathAboveRoot)?;
            normal.truncate(up);
        } else if !trailing {
            normal.push(b'/');
            encode(&segment, &mut normal);
        }
    }
    if trailing || normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

fn decode(raw: &[u8], into: &mut Vec<u8>) -> Result<(), Reason> {
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(Reason::PathEncoding) };
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(Reason::PathEncoding) };
                into.push(high << 4 | low);
                rest = tail;
            }
            _ if byte.is_ascii_control() => return Err(Reason::PathControlCharacter),
            b'?' => return Err(Reason::MalformedTarget),
            _ if TARGET.has(*byte) => into.push(*byte),
            _ => return Err(Reason::MalformedTarget),
        }
    }
    Ok(())
}

/// A decoded segment.
fn check(segment: &[u8], encoded_slashes: bool) -> Result<(), Reason> {
    let text = str::from_utf8(segment).map_err(|_| Reason::PathNotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(Reason::PathControlCharacter);
    }
    if segment.windows(3).any(|three| three[0] == b'%' && digit(three[1]).and(digit(three[2])).is_some()) {
        return Err(Reason::PathDoubleEncoding);
    }
    if text.contains(['/', '\\']) {
        // Dots beside an encoded slash would lead elsewhere, did the upstream decode it.
        if !encoded_slashes || text.split(['/', '\\']).any(is_dots) {
            return Err(Reason::PathEncodedSlash);
        }
    } else if text.contains(';') && is_dots(text) {
        return Err(Reason::PathAboveRoot);
    }
    Ok(())
}

/// A dot segment, parameters (`..;x`), which some servers strip first, not counted.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

fn encode(segment: &[u8], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in segment {
        if PATH.has(*byte) && *byte != b'/' {
            into.push(*byte);
        } else {
            into.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str, encoded_slashes: bool) -> Result<String, Reason> {
        normalise(path.as_bytes(), encoded_slashes).map(|path| String::from_utf8(path.into_owned()).unwrap())
    }

    #[test]
    fn paths_have_one_form() {
        let rows: &[(&str, Result<&str, Reason>)] = &[
            ("", Ok("/")),
            ("/", Ok("/")),
            ("/a/b.c;d=e,f/", Ok("/a/b.c;d=e,f/")),
            ("//", Ok("/")),
            ("//a///b//", Ok("/a/b/")),
            ("/.", Ok("/")),
            ("/./a/.", Ok("/a/")),
            ("/a/..", Ok("/")),
            ("/a/../b/./c/../d", Ok("/b/d")),
            ("/a/b/..", Ok("/a/")),
            ("/a//../b", Ok("/b")),
            ("/a/%2e%2E/b", Ok("/b")),
            ("/a/.%2e/b", Ok("/b")),
            ("/.well-known/x", Ok("/.well-known/x")),
            ("/...", Ok("/...")),
            ("/a..b/..c", Ok("/a..b/..c")),
            ("/%61%7e%2D", Ok("/a~-")),
            ("/a%20b", Ok("/a%20b")),
            ("/a%3f%23%5b", Ok("/a%3F%23%5B")),
            ("/a%3Bb%2c", Ok("/a;b,")),
            ("/[a]{b}|^`", Ok("/%5Ba%5D%7Bb%7D%7C%5E%60")),
            ("/%c3%a4", Ok("/%C3%A4")),
            ("/100%25", Ok("/100%25")),
            ("/%25zz%25", Ok("/%25zz%25")),
            ("/..", Err(Reason::PathAboveRoot)),
            ("/a/../../b", Err(Reason::PathAboveRoot)),
            ("//../a", Err(Reason::PathAboveRoot)),
            ("/%2e%2e/a", Err(Reason::PathAboveRoot)),
            ("/a/..;/b", Err(Reason::PathAboveRoot)),
            ("/a/..;x=y/b", Err(Reason::PathAboveRoot)),
            ("/a/%2e%2e%3bx/b", Err(Reason::PathAboveRoot)),
            ("/a/.;/b", Err(Reason::PathAboveRoot)),
            ("/%", Err(Reason::PathEncoding)),
            ("/%4", Err(Reason::PathEncoding)),
            ("/%zz", Err(Reason::PathEncoding)),
            ("/%u0041", Err(Reason::PathEncoding)),
            ("/%2/%35", Err(Reason::PathEncoding)),
            ("/%+1", Err(Reason::PathEncoding)),
            ("/%2541", Err(Reason::PathDoubleEncoding)),
            ("/%252e%252e/", Err(Reason::PathDoubleEncoding)),
            ("/%25%34%31", Err(Reason::PathDoubleEncoding)),
            ("/a%2fb", Err(Reason::PathEncodedSlash)),
            ("/a%5Cb", Err(Reason::PathEncodedSlash)),
            ("/a\\b", Err(Reason::PathEncodedSlash)),
            ("/a%00", Err(Reason::PathControlCharacter)),
            ("/a%0d%0a", Err(Reason::PathControlCharacter)),
            ("/a%7f", Err(Reason::PathControlCharacter)),
            ("/a%c2%85", Err(Reason::PathControlCharacter)),
            ("/a\tb", Err(Reason::PathControlCharacter)),
            ("/%c0%af", Err(Reason::PathNotUtf8)),
            ("/%c0%ae%c0%ae/", Err(Reason::PathNotUtf8)),
            ("/%e0%80%af", Err(Reason::PathNotUtf8)),
            ("/%ed%a0%80", Err(Reason::PathNotUtf8)),
            ("/%ff", Err(Reason::PathNotUtf8)),
            ("/%c3/%a4", Err(Reason::PathNotUtf8)),
            ("/a b", Err(Reason::MalformedTarget)),
            ("/a<b", Err(Reason::MalformedTarget)),
            ("/ä", Err(Reason::MalformedTarget)),
            ("/a?b", Err(Reason::MalformedTarget)),
            ("a", Err(Reason::MalformedTarget)),
            ("*", Err(Reason::MalformedTarget)),
        ];
        for (path, expected) in rows {
            assert_eq!(normal(path, false), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn encoded_slashes_never_separate() {
        let rows: &[(&str, Result<&str, Reason>)] = &[
            ("/a%2fb%5cc\\d/e", Ok("/a%2Fb%5Cc%5Cd/e")),
            ("/a%2f%2fb/..", Ok("/")),
            ("/a%2f..%2fb", Err(Reason::PathEncodedSlash)),
            ("/..%2fb", Err(Reason::PathEncodedSlash)),
            ("/..\\b", Err(Reason::PathEncodedSlash)),
            ("/a%5C..;x", Err(Reason::PathEncodedSlash)),
            ("/a%252f", Err(Reason::PathDoubleEncoding)),
        ];
        for (path, expected) in rows {
            assert_eq!(normal(path, true), expected.map(str::to_owned), "{path}");
        }
    }

    /// The plain reference: split a decoded path, resolve it on a stack.
    fn reference(path: &str) -> Option<Vec<String>> {
        let mut stack = Vec::new();
        let last = path.split('/').next_back()?;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            match segment {
                "." => {}
                ".." => drop(stack.pop()?),
                _ => stack.push(segment.to_owned()),
            }
        }
        if matches!(last, "" | "." | "..") {
            stack.push(String::new());
        }
        Some(stack)
    }

    proptest! {
        #[test]
        fn the_normal_form_is_final(path in "/([a.;/%]|%2[eEfF5]|%5[cC]|%[0-9a-f]{2}|[\\\\|\\[]){0,12}", slashes: bool) {
            let Ok(normal) = normalise(path.as_bytes(), slashes) else { return Ok(()) };
            prop_assert_eq!(normalise(&normal, slashes), Ok(Cow::Borrowed(&normal[..])));
            let text = str::from_utf8(&normal).unwrap();
            prop_assert!(text.starts_with('/') && !text.contains("//"));
            prop_assert!(text.split('/').all(|segment| !is_dots(segment)));
            prop_assert!(slashes || !text.contains("%2F") && !text.contains("%5C"));
        }

        #[test]
        fn segments_resolve_like_a_stack(segments in prop::collection::vec("|[.]{1,3}|[ab]", 0..8), encoded: bool) {
            let path = format!("/{}", segments.join("/"));
            let sent = if encoded { path.replace('.', "%2e").replace('a', "%61") } else { path.clone() };
            let expected = reference(&path).map(|stack| format!("/{}", stack.join("/")));
            prop_assert_eq!(normal(&sent, false).ok(), expected);
        }

        #[test]
        fn no_bytes_panic(path in prop::collection::vec(any::<u8>(), 0..40), slashes: bool) {
            let _ = normalise(&path, slashes);
        }
    }

    #[test]
    fn what_is_normal_is_not_copied() {
        assert!(matches!(normalise(b"/v1/orders/17", false), Ok(Cow::Borrowed(_))));
    }
}
