//! XML 1.0: its text and the values of its attributes.
//!
//! A document that declares a type (DOCTYPE) is refused: entities of its own are how XML is attacked. So is one that is not
//! well-formed, not UTF-8, or deeper or larger than the limits. Namespaces are not looked at.

use quick_xml::{
    escape::resolve_xml_entity,
    events::{BytesDecl, BytesRef, Event},
    reader::Reader,
};

use super::BodyError;

/// How much of it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements within one another.
    pub depth: usize,
    /// Elements, attributes and pieces of text.
    pub nodes: usize,
}

/// What a document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// All text, one piece after another: `XML:/*`.
    pub text: Vec<u8>,
    /// `XML://@*`.
    pub attributes: Vec<Vec<u8>>,
}

/// Reads a document.
///
/// # Errors
///
/// It is none, or beyond a limit.
pub fn read(body: &[u8], limits: &Limits) -> Result<Document, BodyError> {
    let body = std::str::from_utf8(body).map_err(|error| BodyError::malformed(format!("XML: {error}")))?;
    let malformed = |error: &str, at: u64| BodyError::malformed(format!("XML: {error} at byte {at}"));
    if let Some((at, _)) = body.char_indices().find(|(_, character)| !is_char(*character)) {
        return Err(malformed("a character that XML does not have", at as u64));
    }
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let mut reader = Reader::from_str(body);
    reader.config_mut().check_comments = true;
    reader.config_mut().allow_dangling_amp = false;
    let (mut document, mut depth, mut nodes, mut rooted) = (Document::default(), 0_usize, 0_usize, false);
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|error| malformed(&error.to_string(), at))?;
        nodes += 1;
        if nodes > limits.nodes {
            return Err(BodyError::limit("XML: too many nodes"));
        }
        let outside = |what: &str| malformed(&format!("{what} outside of the root element"), at);
        match event {
            Event::Start(ref start) | Event::Empty(ref start) => {
                if depth == 0 && std::mem::replace(&mut rooted, true) {
                    return Err(outside("an element"));
                }
                if depth == limits.depth {
                    return Err(BodyError::limit("XML: too deep"));
                }
                depth += usize::from(matches!(event, Event::Start(_)));
                // What quick-xml takes for a name ends at a blank, like names do.
                let name = start.name();
                let name: &str = name.as_ref();
                if !is_name(name) {
                    return Err(malformed("this is no name of an element", at));
                }
                let found = attributes(&start[name.len()..]).map_err(|error| malformed(error, at))?;
                nodes += found.len();
                // Declarations of namespaces are no attributes.
                let is_attribute = |name: &str| name != "xmlns" && !name.starts_with("xmlns:");
                document
                    .attributes
                    .extend(found.into_iter().filter(|(name, _)| is_attribute(name)).map(|(_, value)| value));
            }
            Event::End(_) => depth -= 1,
            Event::Text(text) => {
                if depth == 0 && !text.trim_ascii().is_empty() {
                    return Err(outside("text"));
                }
                if text.contains("]]>") {
                    return Err(malformed("`]]>` in text", at));
                }
                if depth > 0 {
                    lines(&text, &mut document.text);
                }
            }
            Event::CData(data) => {
                if depth == 0 {
                    return Err(outside("CDATA"));
                }
                lines(&data, &mut document.text);
            }
            Event::GeneralRef(reference) => {
                if depth == 0 {
                    return Err(outside("a reference"));
                }
                resolve(&reference, &mut document.text).map_err(|error| malformed(error, at))?;
            }
            Event::Decl(declaration) => {
                if at > 0 {
                    return Err(malformed("an XML declaration that is not at the beginning", at));
                }
                declared(&declaration, body).map_err(|error| malformed(error, at))?;
            }
            Event::DocType(_) => return Err(malformed("a document type is not allowed", at)),
            Event::PI(instruction) => {
                let target = instruction.target();
                if !is_name(target) || target.eq_ignore_ascii_case("xml") {
                    return Err(malformed("this is no name of a processing instruction", at));
                }
            }
            Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    if depth > 0 || !rooted {
        return Err(malformed("the document ends too soon", body.len() as u64));
    }
    Ok(document)
}

/// `Char` of XML 1.0.
fn is_char(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// `Name` of XML 1.0.
fn is_name(text: &str) -> bool {
    let starts = |character: char| {
        matches!(character, ':' | '_' | 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
            | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}' | '\u{200d}'
            | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}'
            | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |character: char| {
        starts(character)
            || matches!(character, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}' | '\u{2040}')
    };
    text.starts_with(starts) && text.chars().all(goes_on)
}

/// The attributes in what is behind a name, in their order: names, and values with what they stand for.
fn attributes(text: &str) -> Result<Vec<(&str, Vec<u8>)>, &'static str> {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        let attribute = rest.trim_ascii_start();
        if attribute.is_empty() {
            break;
        }
        if attribute.len() == rest.len() {
            return Err("no blank before an attribute");
        }
        let (name, value) = attribute.split_once('=').ok_or("an attribute has no value")?;
        let (name, value) = (name.trim_ascii_end(), value.trim_ascii_start());
        if !is_name(name) {
            return Err("this is no name of an attribute");
        }
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\'')).ok_or("a value has no quotes")?;
        let (value, behind) = value[1..].split_once(quote).ok_or("the quote of a value does not end")?;
        found.push((name, normalized(value)?));
        rest = behind;
    }
    let mut names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Err("an attribute is there twice");
    }
    Ok(found)
}

/// The value of an attribute: references resolved, ends of lines and tabs as spaces.
fn normalized(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.contains('<') {
        return Err("`<` in the value of an attribute");
    }
    let (mut value, mut pieces) = (Vec::with_capacity(text.len()), text.split('&'));
    let plain = |text: &str, value: &mut Vec<u8>| {
        let start = value.len();
        lines(text, value);
        value[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\t')).for_each(|byte| *byte = b' ');
    };
    plain(pieces.next().unwrap_or_default(), &mut value);
    for piece in pieces {
        let (reference, text) = piece.split_once(';').ok_or("a reference does not end")?;
        resolve(&BytesRef::new(reference), &mut value)?;
        plain(text, &mut value);
    }
    Ok(value)
}

/// Adds text, every end of a line as LF.
fn lines(text: &str, to: &mut Vec<u8>) {
    for (number, line) in text.split('\r').enumerate() {
        if number > 0 && !line.starts_with('\n') {
            to.push(b'\n');
        }
        to.extend_from_slice(line.as_bytes());
    }
}

/// Adds what a reference stands for. There are no entities but the five that XML has itself.
fn resolve(reference: &BytesRef<'_>, text: &mut Vec<u8>) -> Result<(), &'static str> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) if is_char(character) => {
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(Some(_)) | Err(_) => return Err("a reference to a character that XML does not have"),
        Ok(None) => {
            text.extend_from_slice(resolve_xml_entity(reference).ok_or("an entity that XML does not have")?.as_bytes());
        }
    }
    Ok(())
}

/// Judges `xml version="1.0" encoding="utf-8" standalone="no"`, of which all but the version may be missing.
fn declared(declaration: &BytesDecl<'_>, body: &str) -> Result<(), &'static str> {
    let text = declaration.strip_prefix("xml").unwrap_or(declaration);
    let mut parts = attributes(text)?.into_iter().peekable();
    let mut part =
        |wanted: &str| parts.next_if(|(name, _)| *name == wanted).map(|(_, value)| value.to_ascii_lowercase());
    if part("version").is_none_or(|version| version != b"1.0") {
        return Err("a version other than 1.0");
    }
    match part("encoding").as_deref() {
        None | Some(b"utf-8") => {}
        Some(b"us-ascii") if body.is_ascii() => {}
        Some(_) => return Err("an encoding other than UTF-8"),
    }
    if part("standalone").is_some_and(|value| !matches!(&value[..], b"yes" | b"no")) || parts.next().is_some() {
        return Err("this is no XML declaration");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 4, nodes: 40 };

    #[test]
    fn text_and_attributes() {
        let document = read(
            b"<?xml version='1.0'?><a x='1&lt;'><b xmlns:q='u'>t&amp;&#65;</b><![CDATA[<c>]]><d y=\"z\"/></a>\n",
            &LIMITS,
        );
        let document = document.unwrap();
        assert_eq!(document.text.escape_ascii().to_string(), "t&A<c>");
        assert_eq!(document.attributes, [&b"1<"[..], b"z"]);
    }

    #[test]
    fn what_is_refused() {
        for body in [
            &b""[..],
            b"text",
            b"<a>",
            b"<a></b>",
            b"<a/><b/>",
            b"<a/>text",
            b"<!DOCTYPE a><a/>",
            b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
            b"<a>&x;</a>",
            b"<a x=1/>",
            b"<a x='1' x='2'/>",
            b"<?xml version='1.0' encoding='utf-16'?><a/>",
            b"<a>\xff</a>",
        ] {
            assert!(read(body, &LIMITS).is_err_and(|error| !error.limit), "{}", body.escape_ascii());
        }
        assert!(read(b"<a><a><a><a/></a></a></a>", &LIMITS).is_ok());
        assert!(read(b"<a><a><a><a><a/></a></a></a></a>", &LIMITS).is_err_and(|error| error.limit));
        assert!(read(&b"<a>".repeat(5), &LIMITS).is_err_and(|error| error.limit));
        assert!(read(&[&b"<a>"[..], &b"<b/>".repeat(50), b"</a>"].concat(), &LIMITS).is_err_and(|error| error.limit));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(body in "[<>/a='\"&;#!\\[\\]\\-x ?]{0,40}") {
            let _ = read(body.as_bytes(), &LIMITS);
        }
    }
}
