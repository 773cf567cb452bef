//! Heads as they come off the wire.

mod http2;
mod properties;
mod smuggling;

use std::ops::Range;

use bytes::Bytes;

use super::*;

const LIMITS: Limits = Limits { request_line: 200, headers: 400, header_count: 10 };

/// As the gateway does it, one byte at a time; answers where the head lies as well.
fn trickle(bytes: &[u8], limits: &Limits) -> Result<Option<(Range<usize>, Head)>, Reason> {
    let mut scan = Scan::default();
    for end in 0..=bytes.len() {
        if let Some(range) = scan.advance(&bytes[..end], limits)? {
            assert_eq!(range.end, end, "the end is seen as soon as it is there");
            return parse(Bytes::copy_from_slice(&bytes[range.clone()])).map(|head| Some((range, head)));
        }
    }
    Ok(None)
}

fn head(bytes: &[u8]) -> Result<Head, Reason> {
    let (_, head) = trickle(bytes, &LIMITS)?.expect("a whole head");
    Ok(head)
}

fn text(head: &Head, span: Span) -> &str {
    str::from_utf8(head.bytes(span)).unwrap()
}

#[test]
fn parts_are_ranges_of_what_was_sent() {
    let bytes = b"POST /a/b?c=d&e HTTP/1.1\r\nHOST: API.example:8080\r\nx-a:\t 1 \r\nX-A:2\r\nempty:\r\ncontent-length: 3\r\n\r\nabc";
    let (range, head) = trickle(bytes, &LIMITS).unwrap().unwrap();
    assert_eq!(range, 0..bytes.len() - 3);
    assert_eq!(head.raw, bytes[..bytes.len() - 3]);
    assert_eq!((head.version, head.method(), head.refusal), (Version::Http11, &b"POST"[..], None));
    assert_eq!(text(&head, head.raw_target), "/a/b?c=d&e");
    assert_eq!((head.target.form, head.target.authority, head.target.fragment), (TargetForm::Origin, None, None));
    assert_eq!((text(&head, head.target.path), text(&head, head.target.query.unwrap())), ("/a/b", "c=d&e"));
    assert_eq!((head.host.as_deref(), head.authority()), (Some("api.example"), Some(&b"API.example:8080"[..])));
    assert_eq!(head.framing, Framing::Length(3));
    let fields: Vec<_> = head.fields.iter().map(|field| (text(&head, field.name), text(&head, field.value))).collect();
    assert_eq!(
        fields,
        [("HOST", "API.example:8080"), ("x-a", "1"), ("X-A", "2"), ("empty", ""), ("content-length", "3")]
    );
    assert_eq!(head.values("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
}

#[test]
fn targets_have_forms() {
    use TargetForm::*;
    // Target, then form, authority, path, query, fragment, refusal.
    type Row = (
        &'static str,
        &'static str,
        TargetForm,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        Option<Reason>,
    );
    let malformed = Some(Reason::MalformedTarget);
    let rows: &[Row] = &[
        ("GET", "/", Origin, "-", "/", "-", "-", None),
        ("GET", "/?", Origin, "-", "/", "", "-", None),
        ("GET", "/a??b?", Origin, "-", "/a", "?b?", "-", None),
        ("GET", "/a?b#c?d", Origin, "-", "/a", "b", "c?d", malformed),
        ("GET", "/a#", Origin, "-", "/a", "-", "", malformed),
        ("GET", "/a#b?c", Origin, "-", "/a", "-", "b?c", malformed),
        ("GET", "//x/y", Origin, "-", "//x/y", "-", "-", None),
        ("GET", "/a?[x]={y}|^`\\", Origin, "-", "/a", "[x]={y}|^`\\", "-", None),
        ("GET", "/a?<b>", Origin, "-", "/a", "<b>", "-", malformed),
        ("GET", "/a\"b", Origin, "-", "/a\"b", "-", "-", malformed),
        ("GET", "a/b?c", Origin, "-", "a/b", "c", "-", malformed),
        ("GET", "ftp://h/", Origin, "-", "ftp://h/", "-", "-", malformed),
        ("GET", "http://h", Absolute, "h", "", "-", "-", None),
        ("GET", "HTTP://H:80/p?q", Absolute, "H:80", "/p", "q", "-", None),
        ("GET", "https://h:443?q", Absolute, "h:443", "", "q", "-", None),
        ("GET", "https://h:444/", Absolute, "h:444", "/", "-", "-", Some(Reason::HostMismatch)),
        ("GET", "http://u@h/", Absolute, "u@h", "/", "-", "-", malformed),
        ("GET", "http:///p", Absolute, "", "/p", "-", "-", Some(Reason::MalformedHost)),
        ("OPTIONS", "*", Asterisk, "-", "", "-", "-", None),
        ("GET", "*", Asterisk, "-", "", "-", "-", malformed),
        ("OPTIONS", "*/", Origin, "-", "*/", "-", "-", malformed),
        ("CONNECT", "h:443", Authority, "h:443", "", "-", "-", Some(Reason::Method)),
        ("CONNECT", "/", Authority, "/", "", "-", "-", malformed),
        ("CONNECT", "h", Authority, "h", "", "-", "-", malformed),
    ];
    for (method, target, form, authority, path, query, fragment, refusal) in rows {
        let head = head(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let part = |span: Option<Span>| span.map_or("-", |span| text(&head, span));
        let parts = &head.target;
        assert_eq!(text(&head, head.raw_target), *target);
        assert_eq!(
            (
                parts.form,
                part(parts.authority),
                part(Some(parts.path)),
                part(parts.query),
                part(parts.fragment),
                head.refusal
            ),
            (*form, *authority, *path, *query, *fragment, *refusal),
            "{method} {target}"
        );
    }
}

#[test]
fn hosts_are_strict() {
    let rows: &[(&str, Result<&str, Reason>)] = &[
        ("h", Ok("h")),
        ("H.Example.", Ok("h.example")),
        ("my_host:1", Ok("my_host")),
        ("192.0.2.1:65535", Ok("192.0.2.1")),
        ("[2001:DB8:0::1]:80", Ok("[2001:db8::1]")),
        ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
        ("", Err(Reason::HostMissing)),
        (":80", Err(Reason::MalformedHost)),
        (".", Err(Reason::MalformedHost)),
        (".h", Err(Reason::MalformedHost)),
        ("a..b", Err(Reason::MalformedHost)),
        ("h:", Err(Reason::MalformedHost)),
        ("h:0", Err(Reason::MalformedHost)),
        ("h:65536", Err(Reason::MalformedHost)),
        ("h:+80", Err(Reason::MalformedHost)),
        ("h:80:80", Err(Reason::MalformedHost)),
        ("h,g", Err(Reason::MalformedHost)),
        ("h g", Err(Reason::MalformedHost)),
        ("h/p", Err(Reason::MalformedHost)),
        ("u@h", Err(Reason::MalformedHost)),
        ("h%00", Err(Reason::MalformedHost)),
        ("hé", Err(Reason::MalformedHost)),
        ("::1", Err(Reason::MalformedHost)),
        ("[::1", Err(Reason::MalformedHost)),
        ("[::1]x", Err(Reason::MalformedHost)),
        ("[fe80::1%eth0]", Err(Reason::MalformedHost)),
        ("[192.0.2.1]", Err(Reason::MalformedHost)),
    ];
    for (host, expected) in rows {
        let head = head(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let found = head.refusal.map_or(Ok(head.host.as_deref().unwrap_or_default()), Err);
        assert_eq!(found, *expected, "{host}");
    }
    let long = format!("{}.{}", "a".repeat(200), "b".repeat(54));
    assert_eq!(Authority::parse(long.as_bytes()), None);
}

#[test]
fn nothing_grows_without_bounds() {
    let limits = Limits { request_line: 20, headers: 30, header_count: 3 };
    let rows: &[(&str, Option<Reason>)] = &[
        // 20 and 21 bytes.
        ("GET /1234567 HTTP/1.1\r\n", Some(Reason::RequestLineTooLong)),
        ("GET /123456 HTTP/1.1\r\nHost: h\r\n\r\n", None),
        ("GET /1234567890123456", None),
        ("GET /12345678901234567", Some(Reason::RequestLineTooLong)),
        // 30 and 31 bytes.
        ("GET / HTTP/1.1\r\nHost: h\r\na: 4567890123456789\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: h\r\na: 45678901234567890\r\n\r\n", Some(Reason::HeadersTooLarge)),
        ("GET / HTTP/1.1\r\na: 45678901234567890123456789012", Some(Reason::HeadersTooLarge)),
        ("GET / HTTP/1.1\r\nHost: h\r\na:\r\nb:\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: h\r\na:\r\nb:\r\nc:\r\n", Some(Reason::TooManyHeaders)),
    ];
    for (bytes, expected) in rows {
        let found = trickle(bytes.as_bytes(), &limits);
        assert_eq!(found.as_ref().err(), expected.as_ref(), "{bytes:?}");
        // All at once comes to the same.
        assert_eq!(Scan::default().advance(bytes.as_bytes(), &limits).err(), *expected, "{bytes:?}");
    }
    let endless = vec![b'a'; limits.buffer()];
    for start in ["", "GET / HTTP/1.1\r\n", "\r\n", "GET /123456 HTTP/1.1\r\n"] {
        let bytes = [start.as_bytes(), &endless].concat();
        assert!(Scan::default().advance(&bytes[..limits.buffer()], &limits).is_err(), "{start:?}");
    }
}

#[test]
fn one_empty_line_may_come_first() {
    let (range, head) = trickle(b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nnext", &LIMITS).unwrap().unwrap();
    assert_eq!((range.start, range.end), (2, 29));
    assert!(head.raw.starts_with(b"GET") && head.raw.ends_with(b"h\r\n\r\n"));
    for (bytes, reason) in [
        (&b"\r\n\r\n"[..], Reason::RequestLine),
        (b"\n", Reason::BareLineFeed),
        (b"\r\n\n", Reason::BareLineFeed),
        (b"\rGET", Reason::BareCarriageReturn),
        (b"\r\n\rG", Reason::BareCarriageReturn),
        // TLS to a port without it.
        (b"\x16\x03\x01\x02", Reason::TlsHandshake),
        (b"\0", Reason::RequestLine),
    ] {
        assert_eq!(trickle(bytes, &LIMITS).err(), Some(reason), "{bytes:?}");
    }
}

#[test]
fn only_one_whole_head_is_parsed() {
    for bytes in [
        &b""[..],
        b"\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nx",
    ] {
        assert!(parse(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
}

#[test]
fn connections_stay_or_close() {
    for (version, connection, stays) in [
        ("1.1", "", true),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = head(format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n").as_bytes()).unwrap();
        assert_eq!(head.keep_alive(), stays, "{version} {connection}");
    }
}
