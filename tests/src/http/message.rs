//! A parser of requests that takes one unambiguous form and nothing else: what the gateway may send to an upstream.
//!
//! It shares no code with the gateway. In: all bytes of a connection. Out: the requests, and what is left, judged by
//! RFC 9112 as its strictest reader would. A message that any two readers might delimit differently is a fault.

use anyhow::{Context as _, Result, bail, ensure};

/// A request as an upstream received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// What begins a connection's remaining bytes.
#[derive(Debug)]
pub enum Parsed {
    /// A whole request, and how many bytes it took.
    Whole(Message, usize),
    /// So far there is nothing wrong with it, but it is not all there; the message, once its head is.
    Partial(Option<Message>),
}

/// Names that concern one hop only, or could be read as framing by an application that maps `_` to `-`.
const FORBIDDEN: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "content_length",
    "transfer_encoding",
];

impl Message {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        std::str::from_utf8(value).ok()
    }

    /// All values of a header.
    pub fn headers<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m [u8]> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| &value[..])
    }
}

/// Reads what `bytes` begin with. An error is a request that should never have been sent.
pub fn parse(bytes: &[u8]) -> Result<Parsed> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // Of an unfinished head only the certain is judged.
        for line in bytes.split(|byte| *byte == b'\n').rev().skip(1) {
            ensure!(line.ends_with(b"\r"), "a bare line feed in {:?}", bytes.escape_ascii().to_string());
        }
        return Ok(Parsed::Partial(None));
    };
    let head = parse_head(&bytes[..end]).with_context(|| format!("in {}", bytes[..end].escape_ascii()))?;
    let (mut message, framing) = head;
    let body = &bytes[end + 4..];
    let taken = match framing {
        Framing::None => Some(0),
        Framing::Length(length) => (body.len() >= length).then(|| {
            message.body = body[..length].to_vec();
            length
        }),
        Framing::Chunked => parse_chunks(body, &mut message)
            .with_context(|| format!("in the chunks {}", body[..body.len().min(300)].escape_ascii()))?,
    };
    Ok(match taken {
        Some(taken) => Parsed::Whole(message, end + 4 + taken),
        None => Parsed::Partial(Some(message)),
    })
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn parse_head(head: &[u8]) -> Result<(Message, Framing)> {
    let mut lines = split_lines(head)?.into_iter();
    let line = lines.next().context("no request line")?;
    let line = std::str::from_utf8(line).context("a request line that is not ASCII")?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { bail!("request line {line:?}") };
    ensure!(is_token(method.as_bytes()), "method {method:?}");
    check_target(target, method)?;
    let fields = lines.map(parse_field).collect::<Result<Vec<_>>>()?;
    let message = Message {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    for (name, _) in &message.fields {
        ensure!(!FORBIDDEN.contains(&&name[..]), "the header {name}");
    }
    ensure!(message.headers("host").count() == 1, "not one Host");
    let lengths: Vec<&[u8]> = message.headers("content-length").collect();
    let codings: Vec<&[u8]> = message.headers("transfer-encoding").collect();
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::None,
        ([length], []) => {
            ensure!(!length.is_empty() && length.iter().all(u8::is_ascii_digit), "Content-Length {length:?}");
            Framing::Length(std::str::from_utf8(length)?.parse()?)
        }
        ([], [b"chunked"]) => Framing::Chunked,
        _ => bail!("ambiguous framing: Content-Length {lengths:?}, Transfer-Encoding {codings:?}"),
    };
    Ok((message, framing))
}

/// Lines that end in CRLF and hold neither control characters nor a bare CR or LF.
fn split_lines(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    for line in &lines {
        let control = line.iter().find(|byte| **byte != b'\t' && (**byte < 0x20 || **byte == 0x7f));
        ensure!(control.is_none(), "the control character {control:?}");
    }
    Ok(lines)
}

fn parse_field(line: &[u8]) -> Result<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':').context("a header without a colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    ensure!(is_token(name), "the header name {}", name.escape_ascii());
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()))
}

/// Origin form in normal form (RFC 3986 section 6.2.2, and none of what applications resolve in their own ways).
fn check_target(target: &str, method: &str) -> Result<()> {
    if target == "*" && method == "OPTIONS" {
        return Ok(());
    }
    ensure!(target.starts_with('/'), "a target that is no path: {target}");
    ensure!(target.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#'), "the target {target:?}");
    let path = target.split('?').next().unwrap_or(target);
    ensure!(!path.contains("//") && !path.contains('\\'), "not in normal form: {path}");
    ensure!(path.split('/').all(|segment| segment != "." && segment != ".."), "dot segments: {path}");
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits: Vec<u8> = bytes.by_ref().take(2).collect();
        ensure!(digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit), "a bare percent sign: {path}");
        ensure!(!digits.iter().any(u8::is_ascii_lowercase), "percent-encoding in lower case: {path}");
        let byte = u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?;
        ensure!(byte >= 0x20 && byte != 0x7f && !b"/\\".contains(&byte), "encoded %{byte:02X}: {path}");
        ensure!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "needlessly encoded %{byte:02X}: {path}");
        decoded.push(byte);
    }
    let decoded = String::from_utf8(decoded).context("a path that is not UTF-8")?;
    let double =
        decoded.as_bytes().windows(3).any(|window| window[0] == b'%' && window[1..].iter().all(u8::is_ascii_hexdigit));
    ensure!(!double, "encoded twice: {path}");
    Ok(())
}

/// How many bytes a chunked body took, or `None` if more must come.
fn parse_chunks(bytes: &[u8], message: &mut Message) -> Result<Option<usize>> {
    let mut position = 0;
    loop {
        let rest = &bytes[position..];
        let Some(line) = find(rest, b"\r\n") else {
            ensure!(rest.len() < 20 && !rest.contains(&b'\n'), "no size of a chunk");
            return Ok(None);
        };
        let digits = std::str::from_utf8(&rest[..line])?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(plain, "the size of a chunk is {digits:?}");
        let size = usize::from_str_radix(digits, 16)?;
        position += line + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(position..position + size + 2) else { return Ok(None) };
        ensure!(chunk.ends_with(b"\r\n"), "a chunk does not end where it says");
        message.body.extend(&chunk[..size]);
        position += size + 2;
    }
    loop {
        let rest = &bytes[position..];
        let Some(line) = find(rest, b"\r\n") else { return Ok(None) };
        position += line + 2;
        if line == 0 {
            return Ok(Some(position));
        }
        let (name, value) = parse_field(split_lines(&rest[..line])?[0])?;
        let framing = ["content-length", "transfer-encoding", "host", "trailer", "connection"];
        ensure!(!framing.contains(&&name[..]), "the trailer {name}");
        message.trailers.push((name, value));
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Message {
        match parse(bytes).unwrap() {
            Parsed::Whole(message, taken) => {
                assert_eq!(taken, bytes.len());
                message
            }
            Parsed::Partial(_) => panic!("not whole: {}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn takes_canonical_requests() {
        let message = whole(b"POST /a%20b?c=%2f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!((&message.target[..], &message.body[..]), ("/a%20b?c=%2f", &b"abc"[..]));
        let message = whole(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
        );
        assert_eq!((message.body.len(), message.trailers.len()), (10, 1));
        assert!(matches!(parse(b"GET / HTTP/1.1\r\nHo").unwrap(), Parsed::Partial(None)));
        let cut = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab";
        assert!(matches!(parse(cut).unwrap(), Parsed::Partial(Some(_))));
    }

    #[test]
    fn refuses_all_else() {
        for bad in [
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 4\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2Fa HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%61 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%252F HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%C0%AF HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
