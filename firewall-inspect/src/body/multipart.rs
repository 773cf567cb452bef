//! Forms with files (multipart/form-data, RFC 7578), read as strictly as ModSecurity reads them: what two readers might read
//! in two ways is flagged ([`Flags`]), what cannot be read is an error.

use super::BodyError;

/// How much of it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub parts: usize,
    /// Bytes of a part's headers.
    pub headers: usize,
}

/// What a form says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form<'b> {
    pub parts: Vec<Part<'b>>,
    pub flags: Flags,
    /// A line that looks like a boundary and is none: MULTIPART_UNMATCHED_BOUNDARY.
    pub unmatched_boundary: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part<'b> {
    pub name: Vec<u8>,
    /// Of a file, as the client named it.
    pub filename: Option<Vec<u8>>,
    /// Header lines as sent, without the ends of lines.
    pub headers: Vec<Vec<u8>>,
    pub content: &'b [u8],
}

/// What is odd about a form. Any but `crlf_lf_lines` is a MULTIPART_STRICT_ERROR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub boundary_quoted: bool,
    pub boundary_whitespace: bool,
    pub data_before: bool,
    pub data_after: bool,
    pub header_folding: bool,
    pub lf_line: bool,
    /// Lines that end in CRLF, and lines that end in LF: MULTIPART_CRLF_LF_LINES.
    pub crlf_lf_lines: bool,
    pub missing_semicolon: bool,
    pub invalid_quoting: bool,
    pub invalid_part: bool,
    pub invalid_header_folding: bool,
    crlf_line: bool,
}

impl Flags {
    /// MULTIPART_STRICT_ERROR.
    pub fn is_strict_error(&self) -> bool {
        self.boundary_quoted
            || self.boundary_whitespace
            || self.data_before
            || self.data_after
            || self.header_folding
            || self.lf_line
            || self.missing_semicolon
            || self.invalid_quoting
            || self.invalid_part
            || self.invalid_header_folding
    }
}

/// Reads a body. The form is what could be read, with an error too.
pub fn read<'b>(content_type: &[u8], body: &'b [u8], limits: &Limits) -> (Form<'b>, Result<(), BodyError>) {
    let mut form = Form::default();
    let result = boundary(content_type, &mut form.flags).and_then(|boundary| parts(&boundary, body, limits, &mut form));
    form.flags.crlf_lf_lines = form.flags.crlf_line && form.flags.lf_line;
    (form, result)
}

fn malformed(message: &str) -> BodyError {
    BodyError::malformed(format!("Multipart: {message}"))
}

/// The boundary that a Content-Type names.
fn boundary(content_type: &[u8], flags: &mut Flags) -> Result<Vec<u8>, BodyError> {
    const TYPE: &[u8] = b"multipart/form-data";
    if content_type.len() > 1024 {
        return Err(malformed("the Content-Type is too long"));
    }
    if !content_type.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE)) {
        return Err(malformed("this is no multipart/form-data"));
    }
    let lower = content_type.to_ascii_lowercase();
    // The parameter, and not a value with the word in it.
    let is_parameter = |at: &usize| {
        let behind = lower[at + 8..].trim_ascii_start();
        matches!(lower[at - 1], b';' | b',' | b' ' | b'\t') && behind.starts_with(b"=")
    };
    let mut places = memchr::memmem::find_iter(&lower[..], b"boundary").filter(is_parameter);
    let at = places.next().ok_or_else(|| malformed("there is no boundary"))?;
    if places.next().is_some() {
        return Err(malformed("there is more than one boundary"));
    }
    flags.missing_semicolon |= !content_type[TYPE.len()..at].contains(&b';');
    let rest = &content_type[at + 8..];
    let equals = rest.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed("the boundary is malformed"))?;
    if !rest[..equals].iter().all(u8::is_ascii_whitespace) {
        return Err(malformed("the boundary is malformed"));
    }
    let value = &rest[equals + 1..];
    let trimmed = value.trim_ascii_start();
    flags.boundary_whitespace |= equals > 0 || trimmed.len() != value.len();
    let (boundary, behind) = match trimmed.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = quoted
                .iter()
                .position(|byte| *byte == b'"')
                .ok_or_else(|| malformed("the boundary's quote does not end"))?;
            flags.boundary_quoted = true;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => {
            let end = trimmed.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(trimmed.len());
            (&trimmed[..end], &trimmed[end..])
        }
    };
    let stripped = boundary.trim_ascii_end();
    flags.boundary_whitespace |= stripped.len() != boundary.len();
    let behind = behind.trim_ascii();
    if !(behind.is_empty() || behind.starts_with(b";") || behind.starts_with(b",")) {
        return Err(malformed("something is behind the boundary"));
    }
    // RFC 2046 section 5.1.1; ModSecurity takes no more.
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(byte);
    if stripped.is_empty() || stripped.len() > 70 || !stripped.iter().all(good) {
        return Err(malformed("the boundary is empty, too long, or has other than its characters"));
    }
    Ok(stripped.to_vec())
}

/// A line, and how long its end is.
fn line(body: &[u8]) -> (&[u8], usize) {
    match memchr::memchr(b'\n', body) {
        Some(at) if at > 0 && body[at - 1] == b'\r' => (&body[..at - 1], 2),
        Some(at) => (&body[..at], 1),
        None => (body, 0),
    }
}

/// A line of a boundary: whether it is the last one.
fn is_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

fn parts<'b>(boundary: &[u8], body: &'b [u8], limits: &Limits, form: &mut Form<'b>) -> Result<(), BodyError> {
    let mut at = 0;
    let mut headers = false;
    // Where the content of the part at hand begins.
    let mut content: Option<usize> = None;
    let mut part = Part::default();
    let (mut in_part, mut complete) = (false, false);
    let mut header_bytes = 0;
    while at < body.len() {
        let (text, end) = line(&body[at..]);
        let start = at;
        at += text.len() + end;
        if !headers && let Some(last) = is_boundary(text, boundary) {
            if complete {
                form.flags.data_after = true;
                return Err(malformed("a part is behind the last boundary"));
            }
            if in_part {
                let from = content.take().unwrap_or(start);
                // The end of the line before belongs to the boundary.
                let mut to = start.max(from);
                if to > from && body[to - 1] == b'\n' {
                    to -= 1;
                    if to > from && body[to - 1] == b'\r' {
                        to -= 1;
                    }
                }
                part.content = &body[from..to];
                finish(std::mem::take(&mut part), limits, form)?;
            }
            note(&mut form.flags, end);
            in_part = !last;
            complete = last;
            headers = !last;
            header_bytes = 0;
            continue;
        }
        if complete {
            form.flags.data_after |= !text.is_empty();
            continue;
        }
        if !in_part {
            form.flags.data_before |= !text.is_empty() || end == 0;
            form.unmatched_boundary |= looks_like_boundary(text);
            continue;
        }
        if !headers {
            form.unmatched_boundary |= looks_like_boundary(text);
            if end > 0 {
                // Of content, only a line's end before a boundary is the form's own.
                let next = &body[at..];
                if is_boundary(line(next).0, boundary).is_some() {
                    note(&mut form.flags, end);
                }
            }
            continue;
        }
        note(&mut form.flags, end);
        header_bytes += text.len();
        if header_bytes > limits.headers {
            return Err(BodyError::limit("Multipart: the headers of a part are too large"));
        }
        if text.is_empty() {
            headers = false;
            content = Some(at);
            describe(&mut part, &mut form.flags)?;
        } else if matches!(text[0], b' ' | b'\t') {
            form.flags.header_folding = true;
            let Some(last) = part.headers.last_mut() else {
                form.flags.invalid_header_folding = true;
                return Err(malformed("a part begins with a folded header"));
            };
            last.push(b' ');
            last.extend_from_slice(text.trim_ascii_start());
        } else {
            part.headers.push(text.to_vec());
        }
    }
    if !complete {
        return Err(malformed("the last boundary is missing"));
    }
    Ok(())
}

fn note(flags: &mut Flags, end: usize) {
    match end {
        1 => flags.lf_line = true,
        2 => flags.crlf_line = true,
        _ => {}
    }
}

/// Whether somebody else might take a line for a boundary.
fn looks_like_boundary(line: &[u8]) -> bool {
    let letters = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(byte);
    line.strip_prefix(b"--").is_some_and(|rest| rest.len() >= 2 && rest.iter().all(letters))
}

/// A part is over.
fn finish<'b>(part: Part<'b>, limits: &Limits, form: &mut Form<'b>) -> Result<(), BodyError> {
    if part.name.is_empty() && part.headers.is_empty() {
        form.flags.invalid_part = true;
        return Ok(());
    }
    if form.parts.len() == limits.parts {
        return Err(BodyError::limit("Multipart: too many parts"));
    }
    form.parts.push(part);
    Ok(())
}

/// Takes name and file name from a part's headers.
fn describe(part: &mut Part<'_>, flags: &mut Flags) -> Result<(), BodyError> {
    let mut disposition = None;
    for header in &part.headers {
        let colon = memchr::memchr(b':', header).ok_or_else(|| malformed("a header of a part has no colon"))?;
        if header[..colon].trim_ascii_end().eq_ignore_ascii_case(b"content-disposition")
            && disposition.replace(header[colon + 1..].trim_ascii().to_vec()).is_some()
        {
            return Err(malformed("a part has two Content-Dispositions"));
        }
    }
    let Some(disposition) = disposition else {
        flags.invalid_part = true;
        return Err(malformed("a part has no Content-Disposition"));
    };
    let Some(rest) = disposition.strip_prefix(b"form-data") else {
        return Err(malformed("a Content-Disposition is no form-data"));
    };
    let (mut rest, mut name, mut filename) = (rest, None, None);
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        rest = rest
            .strip_prefix(b";")
            .ok_or_else(|| malformed("a Content-Disposition has no semicolon where one must be"))?
            .trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let equals = rest.iter().position(|byte| *byte == b'=').ok_or_else(|| malformed("a parameter has no value"))?;
        let key = rest[..equals].trim_ascii().to_ascii_lowercase();
        let (value, behind) = parameter(rest[equals + 1..].trim_ascii_start(), flags)?;
        rest = behind;
        let slot = match &key[..] {
            b"name" => &mut name,
            b"filename" => &mut filename,
            // RFC 7578 section 4.2 forbids it, and readers differ.
            b"filename*" => return Err(malformed("filename* has no place in a form")),
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(malformed("a parameter of a Content-Disposition is there twice"));
        }
    }
    part.name = name.ok_or_else(|| malformed("a part has no name"))?;
    part.filename = filename;
    Ok(())
}

/// The value of a parameter, and what is behind it.
fn parameter<'p>(text: &'p [u8], flags: &mut Flags) -> Result<(Vec<u8>, &'p [u8]), BodyError> {
    let quote = text.first().copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let Some(quote) = quote else {
        let end = text.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(text.len());
        return Ok((text[..end].to_vec(), &text[end..]));
    };
    // Single quotes quote for some readers, and are part of the value for others.
    flags.invalid_quoting |= quote == b'\'';
    let (mut value, mut at) = (Vec::new(), 1);
    loop {
        match text.get(at..).unwrap_or_default() {
            [] => return Err(malformed("the quote of a parameter does not end")),
            [b'\\', next, ..] if *next == quote || *next == b'\\' => {
                value.push(*next);
                at += 2;
            }
            [byte, ..] if *byte == quote => return Ok((value, &text[at + 1..])),
            [byte, ..] => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { parts: 3, headers: 200 };
    const TYPE: &[u8] = b"multipart/form-data; boundary=AB";

    fn form(body: &str) -> (Form<'_>, Result<(), BodyError>) {
        read(TYPE, body.as_bytes(), &LIMITS)
    }

    #[test]
    fn fields_and_files() {
        let (form, result) = form(
            "--AB\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n2\r\n--AB\r\nContent-Disposition: form-data; \
             name=\"f\"; filename=\"x \\\"y.txt\"\r\nContent-Type: text/plain\r\n\r\n\r\n--AB--\r\n",
        );
        assert_eq!(result, Ok(()));
        assert_eq!(
            (&form.parts[0].name[..], form.parts[0].content, &form.parts[0].filename),
            (&b"a"[..], &b"1\r\n2"[..], &None)
        );
        assert_eq!((&form.parts[1].name[..], form.parts[1].content), (&b"f"[..], &b""[..]));
        assert_eq!(form.parts[1].filename.as_deref(), Some(&b"x \"y.txt"[..]));
        assert_eq!(form.parts[1].headers[1], b"Content-Type: text/plain");
        assert!(!form.flags.is_strict_error() && !form.unmatched_boundary, "{form:?}");
    }

    #[test]
    fn what_is_odd() {
        let field = "Content-Disposition: form-data; name=a\r\n\r\n1\r\n--AB--";
        let flagged = |body: &str, flag: fn(&Flags) -> bool| {
            let (form, _) = form(body);
            assert!(flag(&form.flags) && form.flags.is_strict_error(), "{body:?} {form:?}");
        };
        flagged(&format!("junk\r\n--AB\r\n{field}"), |flags| flags.data_before);
        flagged(&format!("--AB\r\n{field}\r\njunk"), |flags| flags.data_after);
        flagged(&format!("--AB\n{field}"), |flags| flags.lf_line && flags.crlf_lf_lines);
        flagged("--AB\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n1\r\n--AB--", |flags| flags.header_folding);
        flagged("--AB\r\nContent-Disposition: form-data; name='a'\r\n\r\n1\r\n--AB--", |flags| flags.invalid_quoting);
        flagged("--AB\r\nX: y\r\n\r\n1\r\n--AB--", |flags| flags.invalid_part);
        assert!(
            form(&format!("--AB\r\nContent-Disposition: form-data; name=b\r\n\r\n--AC\r\n--AB\r\n{field}"))
                .0
                .unmatched_boundary
        );
    }

    #[test]
    fn what_cannot_be_read() {
        let field = "--AB\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
        for body in [
            "",
            field,
            "--AB\r\nContent-Disposition: form-data\r\n\r\n1\r\n--AB--",
            "--AB\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n1\r\n--AB--",
            "--AB\r\nContent-Disposition: form-data; name=a; filename=x; filename*=y\r\n\r\n1\r\n--AB--",
            "--AB\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--AB--",
            "--AB\r\n no: header\r\n\r\n1\r\n--AB--",
            &format!("{field}--AB--\r\n{field}--AB--"),
        ] {
            assert!(form(body).1.is_err_and(|error| !error.limit), "{body:?}");
        }
        assert!(form(&format!("{}--AB--", field.repeat(4))).1.is_err_and(|error| error.limit));
        assert!(form(&format!("--AB\r\nX: {}\r\n\r\n--AB--", "y".repeat(200))).1.is_err_and(|error| error.limit));
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=a; boundary=a",
            "multipart/form-data; boundary=\"a",
        ] {
            assert!(read(content_type.as_bytes(), b"--a--", &LIMITS).1.is_err(), "{content_type}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(body in "(--AB|\r\n|\n|Content-Disposition: form-data; name=|\"|a|;|--| |:){0,30}") {
            let _ = read(TYPE, body.as_bytes(), &LIMITS);
        }
    }
}
