//! Heads from HTTP/2.

use super::*;

const REQUEST: Http2<'static> =
    Http2 { method: b"GET", scheme: Some(b"https"), authority: Some(b"h"), path: b"/", end_of_stream: true };

fn map(request: Http2<'static>, fields: &[(&'static str, &'static str)]) -> Result<Head, Reason> {
    from_http2(request, fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &LIMITS)
}

#[test]
fn a_stream_becomes_a_head() {
    let request = Http2 { method: b"POST", path: b"/a?b", authority: Some(b"H:443"), end_of_stream: false, ..REQUEST };
    let head = map(request, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")]).unwrap();
    assert_eq!(head.raw, &b"POST /a?b HTTP/2\r\nhost: H:443\r\nx: y\r\nte: trailers\r\ncookie: a=1; b=2\r\n\r\n"[..]);
    assert_eq!((head.version, head.refusal, head.framing), (Version::Http2, None, Framing::Stream));
    assert_eq!((head.host.as_deref(), text(&head, head.raw_target)), (Some("h"), "/a?b"));
    assert_eq!(text(&head, head.target.query.unwrap()), "b");
    assert_eq!(head.values("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
}

#[test]
fn streams_are_refused_for_what_heads_are() {
    type Row = (Http2<'static>, &'static [(&'static str, &'static str)], Result<Framing, Reason>);
    let open = Http2 { end_of_stream: false, ..REQUEST };
    let rows: &[Row] = &[
        (REQUEST, &[], Ok(Framing::None)),
        (open, &[], Ok(Framing::Stream)),
        (open, &[("content-length", "5")], Ok(Framing::Length(5))),
        (open, &[("content-length", "0")], Ok(Framing::None)),
        (REQUEST, &[("content-length", "0")], Ok(Framing::None)),
        (REQUEST, &[("content-length", "5")], Err(Reason::MalformedLength)),
        (open, &[("content-length", "+5")], Err(Reason::MalformedLength)),
        (open, &[("content-length", "5"), ("content-length", "5")], Err(Reason::SeveralLengths)),
        (open, &[("content_length", "5")], Err(Reason::MalformedLength)),
        (open, &[("transfer-encoding", "chunked")], Err(Reason::Http2)),
        (open, &[("transfer_encoding", "chunked")], Err(Reason::TransferCoding)),
        (REQUEST, &[("connection", "close")], Err(Reason::Http2)),
        (REQUEST, &[("upgrade", "websocket")], Err(Reason::Http2)),
        (REQUEST, &[("te", "gzip")], Err(Reason::Http2)),
        (REQUEST, &[("X", "y")], Err(Reason::Http2)),
        (REQUEST, &[("", "y")], Err(Reason::Http2)),
        (REQUEST, &[(":path", "/evil")], Err(Reason::Http2)),
        (REQUEST, &[("x", " y")], Err(Reason::Http2)),
        (REQUEST, &[("x", "y\r\nhost: evil")], Err(Reason::BareCarriageReturn)),
        (REQUEST, &[("x\n", "y")], Err(Reason::ControlCharacter)),
        (REQUEST, &[("host", "h")], Ok(Framing::None)),
        (REQUEST, &[("host", "evil")], Err(Reason::HostMismatch)),
        (Http2 { authority: None, ..REQUEST }, &[("host", "h")], Ok(Framing::None)),
        (Http2 { authority: None, ..REQUEST }, &[("host", "h"), ("host", "h")], Err(Reason::HostMismatch)),
        (Http2 { authority: None, ..REQUEST }, &[], Err(Reason::HostMissing)),
        (Http2 { authority: Some(b"u@h"), ..REQUEST }, &[], Err(Reason::MalformedHost)),
        (Http2 { scheme: None, ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (Http2 { scheme: Some(b"ftp"), ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (Http2 { path: b"a", ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (Http2 { path: b"http://h/", ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (Http2 { path: b"*", ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (Http2 { path: b"*", method: b"OPTIONS", ..REQUEST }, &[], Ok(Framing::None)),
        (Http2 { path: b"", ..REQUEST }, &[], Err(Reason::RequestLine)),
        (Http2 { path: b"/ HTTP/1.1", ..REQUEST }, &[], Err(Reason::RequestLine)),
        (Http2 { path: b"/\r\n", ..REQUEST }, &[], Err(Reason::ControlCharacter)),
        (Http2 { method: b"GET ", ..REQUEST }, &[], Err(Reason::RequestLine)),
        (Http2 { method: b"CONNECT", path: b"", scheme: None, ..REQUEST }, &[], Err(Reason::MalformedTarget)),
        (
            Http2 { method: b"CONNECT", path: b"", scheme: None, authority: Some(b"h:443"), ..REQUEST },
            &[],
            Err(Reason::Method),
        ),
        (Http2 { method: b"TRACE", ..open }, &[], Err(Reason::UnexpectedBody)),
    ];
    for (request, fields, expected) in rows {
        let found = map(*request, fields).and_then(|head| head.refusal.map_or(Ok(head.framing), Err));
        assert_eq!(found, *expected, "{request:?} {fields:?}");
    }
}

#[test]
fn limits_hold_for_streams() {
    // As rebuilt: `GET / HTTP/2`, then `host: h` and what is in the table, with line ends.
    let limits = Limits { request_line: 12, headers: 30, header_count: 3 };
    type Row = (&'static [u8], &'static [(&'static str, &'static str)], Option<Reason>);
    let rows: &[Row] = &[
        (b"/", &[], None),
        (b"/a", &[], Some(Reason::RequestLineTooLong)),
        (b"/", &[("a", "4567890123456789")], None),
        (b"/", &[("a", "45678901234567890")], Some(Reason::HeadersTooLarge)),
        (b"/", &[("cookie", "a"), ("cookie", "b"), ("cookie", "c")], None),
        (b"/", &[("cookie", "a"), ("cookie", "b"), ("cookie", "c45678")], Some(Reason::HeadersTooLarge)),
        (b"/", &[("a", ""), ("b", ""), ("c", ""), ("d", "")], Some(Reason::TooManyHeaders)),
    ];
    for (path, fields, expected) in rows {
        let sent = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let found = from_http2(Http2 { path, ..REQUEST }, sent, &limits);
        assert_eq!(found.err(), *expected, "{} {fields:?}", path.escape_ascii());
    }
}
