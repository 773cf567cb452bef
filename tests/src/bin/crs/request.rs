//! Requests as go-ftw builds them, byte for byte: `ftwhttp/request.go` and `test/data.go` of github.com/coreruleset/go-ftw.
//!
//! Nothing is repaired on the way: what a stage says is what goes out.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// As the suite has it.
    Raw(Vec<u8>),
    Built(Message),
}

impl Request {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Raw(bytes) => bytes.clone(),
            Self::Built(message) => message.bytes(),
        }
    }

    /// Whether it asks for an answer without a body.
    pub(crate) fn is_head(&self) -> bool {
        self.bytes().starts_with(b"HEAD ")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What go-ftw adds to a message that lacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complete {
    Nothing,
    /// As in the days of CRS 3: the length of data alone.
    DataLength,
    /// The length of nothing as well, for methods that have a body.
    Length,
}

const FORM: &str = "application/x-www-form-urlencoded";

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push((name.into(), value.into()));
    }

    /// With the headers that it lacks, and a form's data encoded.
    pub(crate) fn finished(mut self, complete: Complete) -> Self {
        if complete != Complete::Nothing && !self.body.is_empty() {
            if self.header("Content-Type").is_none() {
                self.add("Content-Type", FORM);
            }
            let is_form = self.header("Content-Type").is_some_and(|value| value.eq_ignore_ascii_case(FORM));
            // Data that decoding changes is taken to be encoded already.
            if is_form && decoded(&self.body).as_ref() == Some(&self.body) {
                self.body = encoded_form(&self.body);
            }
        }
        let media = self.header("Content-Type").unwrap_or_default().to_ascii_lowercase();
        if media.contains("multipart/form-data;") {
            // Of CRS 3, some lines end like this already.
            let line = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            self.body = self.body.split(|byte| *byte == b'\n').map(line).collect::<Vec<_>>().join(&b"\r\n"[..]);
        }
        if complete != Complete::Nothing {
            if self.header("Connection").is_none() {
                self.add("Connection", "close");
            }
            // go-ftw looks for `^POST|PUT|PATCH|DELETE$`.
            let Self { method, .. } = &self;
            let has_body = complete == Complete::Length
                && (method.starts_with("POST")
                    || method.contains("PUT")
                    || method.contains("PATCH")
                    || method.ends_with("DELETE"));
            if self.header("Content-Length").is_none() && (has_body || !self.body.is_empty()) {
                self.add("Content-Length", self.body.len().to_string());
            }
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// A form's data as the client of a form would send it; names and values are encoded, what separates them is not.
fn encoded_form(data: &[u8]) -> Vec<u8> {
    let mut data = data;
    if let Some(rest) = data.strip_suffix(b"&") {
        data = rest;
    }
    let pair = |pair: &[u8]| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => [&escaped(&pair[..at])[..], b"=", &escaped(&pair[at + 1..])].concat(),
        None => escaped(pair),
    };
    data.split(|byte| *byte == b'&').map(pair).collect::<Vec<_>>().join(&b'&')
}

/// As Go's `url.QueryEscape`.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(*byte),
            b' ' => escaped.push(b'+'),
            _ => escaped.extend(format!("%{byte:02X}").bytes()),
        }
    }
    escaped
}

/// As Go's `url.QueryUnescape`; `None` where that is an error.
fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            _ => *byte,
        });
    }
    Some(decoded)
}

/// Data with its templates filled in. Of Go's templates the suite has one: `{{ "1" | repeat 64200 }}`.
pub(crate) fn expand(text: &str) -> Result<Vec<u8>> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (template, after) = after.split_once("}}").context("a template without an end")?;
        let words: Vec<&str> = template.split_whitespace().collect();
        let [text, "|", "repeat", times] = words[..] else {
            anyhow::bail!("the template {{{{{template}}}}} is not known");
        };
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).context("no text to repeat")?;
        ensure!(!text.contains('\\'), "{text} holds an escape");
        expanded += before;
        expanded += &text.repeat(times.parse()?);
        rest = after;
    }
    Ok((expanded + rest).into_bytes())
}

/// Base64 over several lines.
pub(crate) fn base64(text: &str) -> Result<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    Ok(STANDARD.decode(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(method: &str, fields: &[(&str, &str)], data: &str, complete: Complete) -> String {
        let message = Message {
            method: method.into(),
            target: "/x".into(),
            version: "HTTP/1.1".into(),
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: data.into(),
        };
        let bytes = message.finished(complete).bytes();
        String::from_utf8(bytes).unwrap().replace("\r\n", "|")
    }

    /// Read off go-ftw's source.
    #[test]
    fn headers_are_completed_as_go_ftw_does() {
        let form = "Content-Type: application/x-www-form-urlencoded|Connection: close|";
        for (method, fields, data, expected) in [
            ("GET", &[][..], "", "GET /x HTTP/1.1|Connection: close||".to_owned()),
            ("POST", &[], "", "POST /x HTTP/1.1|Connection: close|Content-Length: 0||".into()),
            ("XPUTX", &[], "", "XPUTX /x HTTP/1.1|Connection: close|Content-Length: 0||".into()),
            ("PATCH", &[("connection", "x")], "", "PATCH /x HTTP/1.1|connection: x|Content-Length: 0||".into()),
            ("GET", &[], "a=b", format!("GET /x HTTP/1.1|{form}Content-Length: 3||a=b")),
            ("GET", &[("content-length", "9")], "a", format!("GET /x HTTP/1.1|content-length: 9|{form}|a")),
            (
                "GET",
                &[("Content-Type", "text/plain")],
                "a b",
                "GET /x HTTP/1.1|Content-Type: text/plain|Connection: close|Content-Length: 3||a b".into(),
            ),
        ] {
            assert_eq!(built(method, fields, data, Complete::Length), expected);
        }
        assert_eq!(built("POST", &[], "a=b c", Complete::Nothing), "POST /x HTTP/1.1||a=b c");
        assert_eq!(built("POST", &[], "", Complete::DataLength), "POST /x HTTP/1.1|Connection: close||");
    }

    #[test]
    fn forms_are_encoded_once() {
        for (data, expected) in [
            ("a=<b> c", "a=%3Cb%3E+c"),
            ("a=b=c&d&=e", "a=b%3Dc&d&=e"),
            ("a&&b&", "a&&b"),
            ("a=é/?", "a=%C3%A9%2F%3F"),
            // Encoded already, or looking like it.
            ("a=%3Cb>", "a=%3Cb>"),
            ("a+b=<", "a+b=<"),
            ("a=100%", "a=100%"),
        ] {
            let request =
                built("POST", &[("Content-Type", "Application/X-WWW-form-urlencoded")], data, Complete::Length);
            let (_, body) = request.split_once("||").unwrap();
            assert_eq!(body, expected, "{data}");
        }
        let request = built(
            "POST",
            &[("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")],
            "a=<",
            Complete::Length,
        );
        assert!(request.ends_with("||a=<"), "{request}");
    }

    #[test]
    fn lines_of_parts_end_in_two_characters() {
        let fields = [("Content-Type", "Multipart/Form-Data; boundary=b")];
        let request = built("POST", &fields, "--b\r\nA: b\n\nc\n--b--\n", Complete::Length);
        assert!(request.ends_with("Content-Length: 23||--b|A: b||c|--b--|"), "{request}");
        assert!(built("POST", &fields, "a\nb", Complete::Nothing).ends_with("||a|b"));
    }

    #[test]
    fn templates() {
        assert_eq!(expand("a{{ \"1\" | repeat 3 }}b{{ \"xy\" | repeat 2 }}").unwrap(), b"a111bxyxy");
        assert_eq!(expand("{a}} %{b}").unwrap(), b"{a}} %{b}");
        assert!(expand("{{ 7*7 }}").is_err());
    }
}
