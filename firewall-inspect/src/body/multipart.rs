//! Forms with files (multipart/form-data, RFC 7578), read as strictly as ModSecurity reads them: what two readers might read
//! in two ways is flagged ([`Flags`]) where ModSecurity has a flag for it, and an error otherwise.

use memchr::memmem::Finder;

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
    /// Header lines of a part that could not be read.
    pub unread: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part<'b> {
    pub name: Vec<u8>,
    /// As the client named it. An empty one makes no file: for most readers the part is a field then.
    pub filename: Option<Vec<u8>>,
    /// Header lines as sent, without the ends of lines.
    pub headers: Vec<Vec<u8>>,
    pub content: &'b [u8],
}

/// What is odd about a form. All but `crlf_lf_lines`, `unmatched_boundary` and `many_boundaries` are a MULTIPART_STRICT_ERROR.
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
    /// A line that looks like a boundary and is none, and no line of a boundary behind it.
    pub unmatched_boundary: bool,
    /// More than one line of a boundary.
    pub many_boundaries: bool,
    crlf_line: bool,
}

impl Part<'_> {
    pub fn is_file(&self) -> bool {
        self.filename.as_ref().is_some_and(|filename| !filename.is_empty())
    }
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

    /// MULTIPART_UNMATCHED_BOUNDARY, which libmodsecurity sets to 2 for most forms there are.
    pub fn unmatched(&self) -> u8 {
        if self.unmatched_boundary { 1 } else { 2 * u8::from(self.many_boundaries) }
    }

    fn note(&mut self, end: usize) {
        match end {
            1 => self.lf_line = true,
            2 => self.crlf_line = true,
            _ => {}
        }
    }
}

/// Reads a body. The form is what could be read, with an error too; of the part at which the reader stopped, the headers.
pub fn read<'b>(content_type: &[u8], body: &'b [u8], limits: &Limits) -> (Form<'b>, Result<(), BodyError>) {
    let (mut form, mut part) = (Form::default(), Part::default());
    let boundary = boundary(content_type, &mut form.flags);
    let result = boundary.and_then(|boundary| parts(&boundary, body, limits, &mut form, &mut part));
    form.flags.crlf_lf_lines = form.flags.crlf_line && form.flags.lf_line;
    form.unread = part.headers;
    (form, result)
}

fn malformed(message: &str) -> BodyError {
    BodyError::malformed(format!("Multipart: {message}"))
}

/// The boundary that a Content-Type names.
fn boundary(content_type: &[u8], flags: &mut Flags) -> Result<Vec<u8>, BodyError> {
    const TYPE: &[u8] = b"multipart/form-data";
    const BOUNDARY: &[u8] = b"boundary";
    if content_type.len() > 1024 {
        return Err(malformed("the Content-Type is too long"));
    }
    if !content_type.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE)) {
        return Err(malformed("this is no multipart/form-data"));
    }
    let lower = content_type.to_ascii_lowercase();
    // The parameter, also by the names that RFC 2231 has for it, and not a value with the word in it.
    let is_parameter = |at: &usize| {
        let behind = lower[at + BOUNDARY.len()..].iter();
        behind.copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'*' | b'0'..=b'9')) == Some(b'=')
    };
    let mut places = memchr::memmem::find_iter(&lower[..], BOUNDARY).filter(is_parameter);
    let at = places.next().ok_or_else(|| malformed("there is no boundary"))?;
    if places.next().is_some() {
        return Err(malformed("there is more than one boundary"));
    }
    let (before, rest) = (content_type[TYPE.len()..at].trim_ascii(), &content_type[at..]);
    match before {
        b";" => {}
        b"" if at > TYPE.len() => flags.missing_semicolon = true,
        _ => return Err(malformed("something is before the boundary")),
    }
    let rest = rest.strip_prefix(BOUNDARY).ok_or_else(|| malformed("`boundary` has letters in upper case"))?;
    let name_end = rest.trim_ascii_start();
    flags.boundary_whitespace |= name_end.len() != rest.len();
    let value = name_end.strip_prefix(b"=").ok_or_else(|| malformed("the boundary is malformed"))?;
    let boundary = match value.strip_prefix(b"\"") {
        Some(quoted) => {
            flags.boundary_quoted = true;
            quoted.strip_suffix(b"\"").ok_or_else(|| malformed("something is behind the boundary"))?
        }
        None => value.split(|byte| *byte == b';').next().unwrap_or_default(),
    };
    // RFC 2046 section 5.1.1, but for blanks and, unquoted, commas, at which some readers stop.
    let good = |byte: &u8| {
        byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(byte) || (*byte == b',' && flags.boundary_quoted)
    };
    if boundary.is_empty() || boundary.len() > 70 || !boundary.iter().all(good) {
        return Err(malformed("the boundary is empty, too long, or has other than its characters"));
    }
    Ok(boundary.to_vec())
}

/// A line, and how long its end is.
fn line(body: &[u8]) -> (&[u8], usize) {
    match memchr::memchr(b'\n', body) {
        Some(at) if at > 0 && body[at - 1] == b'\r' => (&body[..at - 1], 2),
        Some(at) => (&body[..at], 1),
        None => (body, 0),
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// What a line is to a form with this boundary.
enum Line {
    /// Whether it is the last one.
    Boundary(bool),
    LikeBoundary,
    Other,
}

fn kind(line: &[u8], end: usize, boundary: &[u8], flags: &Flags, finder: &Finder<'_>) -> Result<Line, BodyError> {
    let Some(rest) = line.strip_prefix(b"--") else {
        let within = line.len() > boundary.len() && finder.find(line).is_some();
        return Ok(if within { Line::LikeBoundary } else { Line::Other });
    };
    let Some(rest) = rest.strip_prefix(boundary) else {
        let quoted = flags.boundary_quoted && rest.strip_prefix(b"\"").is_some_and(|rest| rest.starts_with(boundary));
        let blanks = rest.iter().take_while(|byte| is_space(**byte)).count();
        if quoted || (blanks > 0 && rest[blanks..].starts_with(boundary)) {
            return Err(malformed("a boundary has blanks or a quote before it"));
        }
        return Ok(if line.len() + end > 3 { Line::LikeBoundary } else { Line::Other });
    };
    match rest {
        b"" if end > 0 => Ok(Line::Boundary(false)),
        b"--" => Ok(Line::Boundary(true)),
        _ => Err(malformed("something is behind a boundary")),
    }
}

/// Where the reader is.
enum Place {
    BeforeFirst,
    /// With the bytes of headers so far.
    Headers(usize),
    /// With where the content begins.
    Content(usize),
}

fn parts<'b>(
    boundary: &[u8],
    body: &'b [u8],
    limits: &Limits,
    form: &mut Form<'b>,
    part: &mut Part<'b>,
) -> Result<(), BodyError> {
    let delimiter = [b"--", boundary].concat();
    let finder = Finder::new(&delimiter);
    // `before`: how long the end of the line before is.
    let (mut at, mut before, mut place, mut boundaries) = (0, 0, Place::BeforeFirst, 0);
    while at < body.len() {
        let (text, end) = line(&body[at..]);
        let start = at;
        at += text.len() + end;
        let last = match kind(text, end, boundary, &form.flags, &finder)? {
            Line::Boundary(last) => Some(last),
            Line::LikeBoundary => {
                form.flags.unmatched_boundary = true;
                None
            }
            Line::Other => None,
        };
        match (&mut place, last) {
            (Place::BeforeFirst, None) => form.flags.data_before = true,
            (Place::BeforeFirst, Some(_)) => {}
            (Place::Headers(_), Some(_)) => {
                form.flags.invalid_part = true;
                return Err(malformed("a part ends within its headers"));
            }
            (Place::Headers(bytes), None) => {
                form.flags.note(end);
                *bytes += text.len() + end;
                if *bytes > limits.headers {
                    return Err(BodyError::limit("Multipart: the headers of a part are too large"));
                }
                if text.is_empty() {
                    describe(part, &mut form.flags)?;
                    place = Place::Content(at);
                } else {
                    header(text, part, &mut form.flags)?;
                }
            }
            (Place::Content(_), None) => {}
            (Place::Content(from), Some(_)) => {
                if *from == start {
                    return Err(malformed("a part has no empty line before its boundary"));
                }
                // The end of the line before belongs to the boundary.
                part.content = &body[*from..start - before];
                if form.parts.len() == limits.parts {
                    return Err(BodyError::limit("Multipart: too many parts"));
                }
                form.parts.push(std::mem::take(part));
            }
        }
        if let Some(last) = last {
            form.flags.note(before);
            form.flags.note(end);
            boundaries += 1;
            if end > 0 {
                form.flags.many_boundaries = boundaries > 1;
                form.flags.unmatched_boundary &= boundaries == 1;
            }
            if last {
                form.flags.data_after = at < body.len();
                // Some readers go on there.
                let more = finder.find(&body[at..]).is_some();
                return if more { Err(malformed("a boundary is behind the last one")) } else { Ok(()) };
            }
            place = Place::Headers(0);
        }
        before = end;
    }
    Err(malformed("the last boundary is missing"))
}

/// A line of a part's headers, which is not empty.
fn header(text: &[u8], part: &mut Part<'_>, flags: &mut Flags) -> Result<(), BodyError> {
    let folded = is_space(text[0]);
    if !folded {
        part.headers.push(text.to_vec());
    }
    if memchr::memchr2(0, b'\r', text).is_some() {
        return Err(malformed("a header of a part has a null or a bare CR"));
    }
    if !folded {
        let colon = memchr::memchr(b':', text).ok_or_else(|| malformed("a header of a part has no colon"))?;
        if colon == 0 || !text[..colon].iter().all(u8::is_ascii_graphic) {
            return Err(malformed("a header of a part has no name, or one of other than visible letters"));
        }
        return Ok(());
    }
    flags.header_folding = true;
    let blanks = text.iter().take_while(|byte| is_space(**byte)).count();
    flags.invalid_header_folding |= text[..blanks].iter().any(|byte| !matches!(byte, b' ' | b'\t'));
    let last = part.headers.last_mut().ok_or_else(|| malformed("a part begins with a folded header"))?;
    if blanks == text.len() {
        // Some readers take it for the end of the headers.
        return Err(malformed("a header of a part goes on in a blank line"));
    }
    last.push(b' ');
    last.extend_from_slice(&text[blanks..]);
    Ok(())
}

/// Takes name and file name from a part's headers.
fn describe(part: &mut Part<'_>, flags: &mut Flags) -> Result<(), BodyError> {
    let (mut names, mut disposition) = (Vec::with_capacity(part.headers.len()), None);
    for header in &part.headers {
        let colon = memchr::memchr(b':', header).unwrap_or(header.len() - 1);
        let name = header[..colon].to_ascii_lowercase();
        if name == b"content-disposition" {
            disposition = Some(header[colon + 1..].trim_ascii());
        }
        names.push(name);
    }
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Err(malformed("a header of a part is there twice"));
    }
    let parameters = disposition.ok_or_else(|| malformed("a part has no Content-Disposition"));
    let described = parameters.and_then(|parameters| name_and_filename(parameters, flags));
    (part.name, part.filename) = described.inspect_err(|_| flags.invalid_part = true)?;
    Ok(())
}

fn name_and_filename(disposition: &[u8], flags: &mut Flags) -> Result<(Vec<u8>, Option<Vec<u8>>), BodyError> {
    let mut rest =
        disposition.strip_prefix(b"form-data").ok_or_else(|| malformed("a Content-Disposition is no form-data"))?;
    let (mut name, mut filename) = (None, None);
    while !rest.trim_ascii_start().is_empty() {
        let parameter = rest.trim_ascii_start().strip_prefix(b";");
        let parameter =
            parameter.ok_or_else(|| malformed("a Content-Disposition has no semicolon where one must be"))?;
        let parameter = parameter.trim_ascii_start();
        if parameter.is_empty() {
            break;
        }
        // As they are written here: readers differ in what else they take. RFC 7578 section 4.2 forbids `filename*`.
        let (slot, text) = if let Some(text) = parameter.strip_prefix(b"name=") {
            (&mut name, text)
        } else if let Some(text) = parameter.strip_prefix(b"filename=") {
            (&mut filename, text)
        } else {
            return Err(malformed("a Content-Disposition has a parameter other than name and filename"));
        };
        let (text, behind) = value(text, flags)?;
        if slot.replace(text).is_some() {
            return Err(malformed("a parameter of a Content-Disposition is there twice"));
        }
        rest = behind;
    }
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| malformed("a part has no name"))?;
    Ok((name, filename))
}

/// The value of a parameter, and what is behind it.
fn value<'p>(text: &'p [u8], flags: &mut Flags) -> Result<(Vec<u8>, &'p [u8]), BodyError> {
    let quote = text.first().copied().filter(|byte| matches!(byte, b'"' | b'\''));
    let Some(quote) = quote else {
        // A token (RFC 2045 section 5.1).
        let token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
        let end = text.iter().position(|byte| !token(byte)).unwrap_or(text.len());
        if end == 0 {
            return Err(malformed("a parameter of a Content-Disposition has no value"));
        }
        flags.invalid_quoting |= text[..end].contains(&b'\'');
        return Ok((text[..end].to_vec(), &text[end..]));
    };
    // Single quotes quote for some readers, and are part of the value for others.
    flags.invalid_quoting |= quote == b'\'';
    let (mut value, mut at) = (Vec::new(), 1);
    loop {
        match text.get(at..).unwrap_or_default() {
            [] => {
                flags.invalid_quoting = true;
                return Err(malformed("the quote of a parameter does not end"));
            }
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
        assert!(!form.flags.is_strict_error() && form.flags.unmatched() == 2, "{form:?}");
    }

    #[test]
    fn what_is_odd() {
        let field = "Content-Disposition: form-data; name=a\r\n\r\n1\r\n--AB--";
        let flagged = |body: &str, flag: fn(&Flags) -> bool| {
            let (form, _) = form(body);
            assert!(flag(&form.flags) && form.flags.is_strict_error(), "{body:?} {form:?}");
        };
        flagged(&format!("junk\r\n--AB\r\n{field}"), |flags| flags.data_before);
        flagged(&format!("--AB\r\n{field}\r\n "), |flags| flags.data_after);
        flagged(&format!("--AB\n{field}"), |flags| flags.lf_line && flags.crlf_lf_lines);
        flagged("--AB\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n1\r\n--AB--", |flags| flags.header_folding);
        flagged("--AB\r\nContent-Disposition: form-data; name='a'\r\n\r\n1\r\n--AB--", |flags| flags.invalid_quoting);
        flagged("--AB\r\nX: y\r\n\r\n1\r\n--AB--", |flags| flags.invalid_part);
        // 2 for any form of some length; 1 only if nothing is behind the line.
        for (body, unmatched) in [("--AB--", 0), ("--AC\r\n--AB--", 1), ("--AC\r\n--AB--\r\n", 1)] {
            assert_eq!(form(body).0.flags.unmatched(), unmatched, "{body:?}");
        }
        assert_eq!(form(&format!("--AB\r\n{field}\r\n")).0.flags.unmatched(), 2);
        assert_eq!(form(&format!("--AB\r\n{field}").replace('1', "--AC")).0.flags.unmatched(), 1);
        assert_eq!(form(&format!("--AB\r\n{field}\r\n").replace('1', "--AC")).0.flags.unmatched(), 2);
    }

    #[test]
    fn what_cannot_be_read() {
        let field = "--AB\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
        for body in [field, &format!("{field}--AB--\r\n{field}--AB--")] {
            assert!(form(body).1.is_err_and(|error| !error.limit), "{body:?}");
        }
        assert!(form(&format!("{}--AB--", field.repeat(3))).1.is_ok());
        assert!(form(&format!("{}--AB--", field.repeat(4))).1.is_err_and(|error| error.limit));
        assert!(form(&format!("--AB\r\nX: {}\r\n\r\n--AB--", "y".repeat(200))).1.is_err_and(|error| error.limit));
        // What was there of the part is told.
        let body = format!("{field}--AB\r\nA: b\r\nC d\r\n\r\n1\r\n--AB--");
        let (form, result) = form(&body);
        assert!(result.is_err() && form.parts.len() == 1, "{form:?}");
        assert_eq!(form.unread, [&b"A: b"[..], b"C d"]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(body in "(--AB|\r\n|\n|Content-Disposition: form-data; name=|\"|a|;|--| |:){0,30}") {
            let _ = read(TYPE, body.as_bytes(), &LIMITS);
        }
    }
}
