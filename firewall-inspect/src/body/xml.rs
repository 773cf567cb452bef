//! XML: its text and the values of its attributes.
//!
//! A document that declares a type (DOCTYPE) is refused: entities of its own are how XML is attacked. So is one that is not
//! well-formed, not UTF-8, or deeper or larger than the limits.

use quick_xml::{
    XmlVersion,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
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
    let mut reader = Reader::from_str(body);
    reader.config_mut().check_comments = true;
    reader.config_mut().allow_dangling_amp = false;
    let (mut document, mut depth, mut nodes, mut rooted) = (Document::default(), 0_usize, 0_usize, false);
    let malformed = |error: &dyn std::fmt::Display, at: u64| BodyError::malformed(format!("XML: {error} at byte {at}"));
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|error| malformed(&error, at))?;
        nodes += 1;
        if nodes > limits.nodes {
            return Err(BodyError::limit("XML: too many nodes"));
        }
        let outside = |what: &str| malformed(&format!("{what} outside of the root element"), at);
        match event {
            Event::Start(start) => {
                if depth == 0 && std::mem::replace(&mut rooted, true) {
                    return Err(outside("an element"));
                }
                depth += 1;
                if depth > limits.depth {
                    return Err(BodyError::limit("XML: too deep"));
                }
                nodes += attributes(&start, &mut document).map_err(|error| malformed(&error, at))?;
            }
            Event::Empty(start) => {
                if depth == 0 && std::mem::replace(&mut rooted, true) {
                    return Err(outside("an element"));
                }
                nodes += attributes(&start, &mut document).map_err(|error| malformed(&error, at))?;
            }
            Event::End(_) => depth -= 1,
            Event::Text(text) => {
                if depth > 0 {
                    document.text.extend_from_slice(text.as_bytes());
                } else if !text.trim_ascii().is_empty() {
                    return Err(outside("text"));
                }
            }
            Event::CData(data) => {
                if depth == 0 {
                    return Err(outside("CDATA"));
                }
                document.text.extend_from_slice(data.as_bytes());
            }
            Event::GeneralRef(reference) => {
                if depth == 0 {
                    return Err(outside("a reference"));
                }
                resolve(&reference, &mut document.text).map_err(|error| malformed(&error, at))?;
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|error| malformed(&error, at))?;
                if encoding.is_some_and(|encoding| {
                    !encoding.eq_ignore_ascii_case("utf-8") && !encoding.eq_ignore_ascii_case("us-ascii")
                }) {
                    return Err(malformed(&"an encoding other than UTF-8", at));
                }
            }
            Event::DocType(_) => return Err(malformed(&"a document type is not allowed", at)),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if depth > 0 || !rooted {
        return Err(malformed(&"the document ends too soon", body.len() as u64));
    }
    Ok(document)
}

fn attributes(start: &BytesStart<'_>, document: &mut Document) -> Result<usize, String> {
    let mut count = 0;
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let name = attribute.key.as_ref();
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        // Declarations of namespaces are no attributes.
        if name != "xmlns" && !name.starts_with("xmlns:") {
            document.attributes.push(value.as_bytes().to_vec());
        }
        count += 1;
    }
    Ok(count)
}

fn resolve(reference: &BytesRef<'_>, text: &mut Vec<u8>) -> Result<(), String> {
    if let Some(character) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        return Ok(());
    }
    let name: &str = reference.as_ref();
    let known = resolve_xml_entity(name).ok_or_else(|| format!("there is no entity `{name}`"))?;
    text.extend_from_slice(known.as_bytes());
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
        assert!(read(b"<a><a><a><a><a/></a></a></a></a>", &LIMITS).is_ok());
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
