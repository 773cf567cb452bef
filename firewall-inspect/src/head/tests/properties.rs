//! Whatever bytes come: nothing panics, nothing reads differently for how it was cut, and what we take httparse takes as well.

use proptest::prelude::*;

use super::*;

const VALID: &[&[u8]] = &[
    b"GET /a/b?c=d HTTP/1.1\r\nHost: api.example\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: h:80\r\nContent-Length: 10\r\nContent-Type: a/b\r\n\r\n",
    b"PUT http://h/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\r\nOPTIONS * HTTP/1.0\r\nX: y\r\n\r\n",
];

/// A valid head with pieces put in that matter to parsers.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"\r\n"[..],
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\r\n ",
        b"\r\n\r\n",
        b"\x7f",
        b"\xff",
        b"#",
        b"?",
        b"<",
        b"%",
        b"@",
        b"Content-Length: 1\r\n",
        b"\r\nTransfer-Encoding: chunked\r\n",
        b"Host: g\r\n",
        b"HTTP/",
        b"[::1]",
        b",",
        b"/../",
        b"*",
    ]);
    let change = (any::<prop::sample::Index>(), 0usize..4, pieces);
    (prop::sample::select(VALID.to_vec()), prop::collection::vec(change, 0..4)).prop_map(|(valid, changes)| {
        let mut bytes = valid.to_vec();
        for (at, cut, piece) in changes {
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece.iter().copied());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn cuts_make_no_difference(bytes in mutated()) {
        let whole = Scan::default().advance(&bytes, &LIMITS);
        let pieces = trickle(&bytes, &LIMITS);
        match (whole, pieces) {
            (Ok(Some(range)), Ok(Some((found, head)))) => {
                prop_assert_eq!(&range, &found);
                prop_assert_eq!(&bytes[range], &head.raw[..]);
            }
            (Ok(None), Ok(None)) => {}
            (Err(whole), Err(pieces)) => prop_assert_eq!(whole, pieces),
            (whole, pieces) => prop_assert!(false, "{whole:?} {pieces:?}"),
        }
    }

    /// Every span lies within the head, and fields are in order.
    #[test]
    fn spans_are_sound(bytes in mutated()) {
        let Ok(Some((_, head))) = trickle(&bytes, &LIMITS) else { return Ok(()) };
        let target = &head.target;
        let spans = [Some(head.method), Some(head.raw_target), Some(target.path), target.authority, target.query, target.fragment];
        let mut last = 0;
        for field in &head.fields {
            prop_assert!(last <= field.name.start && field.name.end <= field.value.start);
            last = field.value.end;
        }
        let fields = head.fields.iter().flat_map(|field| [Some(field.name), Some(field.value)]);
        for span in spans.into_iter().chain(fields).flatten() {
            prop_assert!(span.start <= span.end && span.end as usize <= head.raw.len());
        }
    }

    /// The plain reference: what we let through, httparse splits in the same way, and there is no doubt about framing.
    #[test]
    fn nothing_passes_that_httparse_reads_otherwise(bytes in mutated()) {
        let Ok(Some((_, head))) = trickle(&bytes, &LIMITS) else { return Ok(()) };
        if head.refusal.is_some() {
            return Ok(());
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        prop_assert_eq!(request.parse(&head.raw), Ok(httparse::Status::Complete(head.raw.len())));
        prop_assert_eq!(request.method, Some(text(&head, head.method)));
        prop_assert_eq!(request.path, Some(text(&head, head.raw_target)));
        let version = if head.version == Version::Http11 { 1 } else { 0 };
        prop_assert_eq!(request.version, Some(version));
        let ours: Vec<_> = head.fields.iter().map(|field| (text(&head, field.name), head.bytes(field.value))).collect();
        let theirs: Vec<_> = request.headers.iter().map(|field| (field.name, field.value)).collect();
        prop_assert_eq!(ours, theirs);
        let count = |name: &str| head.values(name).count();
        prop_assert!(count("host") <= 1 && count("content-length") + count("transfer-encoding") <= 1);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Scan::default().advance(&bytes, &LIMITS);
        let _ = parse(Bytes::from(bytes));
    }

    #[test]
    fn no_pseudo_headers_panic(
        method in "[A-Z \r]{0,3}",
        path in "[/a?#*\u{e4}\n ]{0,5}",
        authority in prop::option::of("[a:@\\[\\] ]{0,4}"),
        fields in prop::collection::vec(("[a-z-]{0,3}|host|cookie|content-length", "[ -~\t\r]{0,4}"), 0..5),
        end_of_stream: bool,
    ) {
        let request = Http2 {
            method: method.as_bytes(), scheme: Some(b"http"), authority: authority.as_deref().map(str::as_bytes),
            path: path.as_bytes(), end_of_stream,
        };
        let rebuilt = from_http2(request, fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), &LIMITS);
        if let Ok(head) = rebuilt {
            // No value breaks out of its line.
            let lines = head.raw.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
            prop_assert_eq!(lines, (head.fields.len() + 2) * 2);
        }
    }
}
