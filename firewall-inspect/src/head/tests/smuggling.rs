//! Requests that two servers could read in two ways, as raw bytes: each is refused, or has one form.

use Reason::*;

use super::*;
use crate::chunk::{self, Chunks, Step};

/// What is known of a request that goes on: method, target, host, and its body as we delimit it.
struct Form(&'static str, &'static str, &'static str, &'static [u8]);

const GET: Form = Form("GET", "/", "h", b"");
const POST: fn(&'static [u8]) -> Form = |body| Form("POST", "/", "h", body);

/// A head and its body; what follows the body must be `GET /next`.
fn judge(bytes: &[u8]) -> Result<(Head, Vec<u8>), Reason> {
    let (range, head) = trickle(bytes, &LIMITS)?.expect("a whole head");
    if let Some(reason) = head.refusal {
        return Err(reason);
    }
    let rest = &bytes[range.end..];
    let (body, end) = match head.framing {
        Framing::None => (Vec::new(), 0),
        Framing::Length(length) => (rest[..length as usize].to_vec(), length as usize),
        Framing::Chunked => {
            let mut chunks = Chunks::new(chunk::Limits { trailers: 100, trailer_count: 3 });
            let (mut body, mut at) = (Vec::new(), 0);
            loop {
                match chunks.advance(rest, at)? {
                    Step::Data(range) => {
                        at = range.end;
                        body.extend_from_slice(&rest[range]);
                    }
                    Step::End(end) => break (body, end),
                    Step::More => panic!("an unfinished body: {}", rest.escape_ascii()),
                }
            }
        }
        Framing::Stream => unreachable!("not in HTTP/1"),
    };
    let rest = &rest[end..];
    assert!(rest.is_empty() || rest.starts_with(b"GET /next "), "{}", rest.escape_ascii());
    Ok((head, body))
}

#[test]
fn every_request_has_one_meaning_or_none() {
    type Row = (&'static [u8], Result<Form, Reason>);
    let rows: &[Row] = &[
        // Content-Length and Transfer-Encoding.
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Err(LengthAndCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
        (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer_Encoding: chunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent_Length: 4\r\n\r\n", Err(MalformedLength)),
        // Several lengths.
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", Err(SeveralLengths)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\ncontent-length: 4\r\n\r\n", Err(SeveralLengths)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4, 4\r\n\r\n", Err(SeveralLengths)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4,\r\n\r\n", Err(SeveralLengths)),
        // Malformed lengths.
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x4\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4 4\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4.0\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \"4\"\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4;x\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \xc2\xb24\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551620\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent.Length: 4\r\n\r\n", Err(MalformedLength)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length\x0b: 4\r\n\r\n", Err(ControlCharacter)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \x0c4\r\n\r\n", Err(ControlCharacter)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\n", Err(SpaceBeforeColon)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length\t: 4\r\n\r\n", Err(SpaceBeforeColon)),
        (b"POST / HTTP/1.1\r\nHost: h\r\n Content-Length: 4\r\n\r\n", Err(FoldedHeader)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n 4\r\n\r\n", Err(FoldedHeader)),
        (b"POST / HTTP/1.1\r\n Host: h\r\n\r\n", Err(FoldedHeader)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\r\n\t\r\n\r\n", Err(FoldedHeader)),
        // Lengths that are fine.
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nGET /next HTTP/1.1\r\n", Ok(POST(b""))),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:004 \r\n\r\nabcdGET /next HTTP/1.1\r\n", Ok(POST(b"abcd"))),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcdGET /next HTTP/1.1\r\n", Ok(Form("GET", "/", "h", b"abcd"))),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\n", Ok(POST(b""))),
        // Transfer codings.
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked,\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \xffchunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Err(ControlCharacter)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n", Err(SpaceBeforeColon)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\r\n : chunked\r\n\r\n", Err(HeaderName)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", Err(FoldedHeader)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", Err(BareLineFeed)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", Err(BareCarriageReturn)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX\rTransfer-Encoding: chunked\r\n\r\n", Err(BareCarriageReturn)),
        (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferCoding)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\n", Ok(POST(b"abc"))),
        // Ends of lines and of heads.
        (b"GET / HTTP/1.1\nHost: h\n\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\r\nHost: h\n\r\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\nGET /next HTTP/1.1\r\n", Err(BareLineFeed)),
        (b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", Err(BareCarriageReturn)),
        (b"GET / HTTP/1.1\r\n\rHost: h\r\n\r\n", Err(BareCarriageReturn)),
        (b"GET / HTTP/1.1\rHost: h\r\n\r\n", Err(BareCarriageReturn)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n", Err(ControlCharacter)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\0: y\r\n\r\n", Err(ControlCharacter)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: \x7f\r\n\r\n", Err(ControlCharacter)),
        // Header names.
        (b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", Err(HeaderName)),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", Err(HeaderName)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX Y: z\r\n\r\n", Err(HeaderName)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX(: z\r\n\r\n", Err(HeaderName)),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\xc3\xa4: z\r\n\r\n", Err(HeaderName)),
        // Request lines.
        (b"GET /\r\n", Err(Http09)),
        (b"GET\r\n", Err(RequestLine)),
        (b"GET HTTP/1.1\r\n", Err(RequestLine)),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET /\t HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/1.1\x0b\r\nHost: h\r\n\r\n", Err(ControlCharacter)),
        (b"GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", Err(ControlCharacter)),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/01.1\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/1.1/HTTP/1.0\r\nHost: h\r\n\r\n", Err(RequestLine)),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", Err(HttpVersion)),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", Err(HttpVersion)),
        (b"PRI * HTTP/2.0\r\n\r\n", Err(HttpVersion)),
        (b"GET /?<x> HTTP/1.1\r\nHost: h\r\n\r\n", Err(MalformedTarget)),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", Err(MalformedTarget)),
        (b"GET @evil HTTP/1.1\r\nHost: h\r\n\r\n", Err(MalformedTarget)),
        // Hosts.
        (b"GET / HTTP/1.1\r\n\r\n", Err(HostMissing)),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Err(HostMissing)),
        (b"GET / HTTP/1.0\r\nHost: \r\n\r\n", Err(HostMissing)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Err(HostMismatch)),
        (b"GET / HTTP/1.1\r\nHost: h\r\nhOST: evil\r\n\r\n", Err(HostMismatch)),
        (b"GET http://evil/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(HostMismatch)),
        (b"GET http://h:8080/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(HostMismatch)),
        (b"GET http://h@evil/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(MalformedTarget)),
        (b"GET http://h\\@evil/ HTTP/1.1\r\nHost: h\r\n\r\n", Err(MalformedTarget)),
        (b"GET http://h:80/ HTTP/1.1\r\nHost: H\r\n\r\n", Ok(Form("GET", "http://h:80/", "h", b""))),
        (b"GET / HTTP/1.0\r\n\r\n", Ok(Form("GET", "/", "", b""))),
        (b"GET / HTTP/1.1\r\nHost: h, evil\r\n\r\n", Err(MalformedHost)),
        (b"GET / HTTP/1.1\r\nHost: h#@evil\r\n\r\n", Err(MalformedHost)),
        // Bodies where there are none.
        (b"TRACE / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n", Err(UnexpectedBody)),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", Err(UnexpectedBody)),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", Err(Method)),
        (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\n", Ok(GET)),
    ];
    for (bytes, expected) in rows {
        check(bytes, expected);
    }
    assert!(rows.len() >= 90);
}

#[test]
fn chunks_have_one_meaning_or_none() {
    let rows: &[(&'static [u8], Result<Form, Reason>)] = &[
        (b"3\r\nabc\r\n0\r\n\r\nGET /next HTTP/1.1\r\n", Ok(POST(b"abc"))),
        (b"000a\r\n0123456789\r\n00\r\n\r\nGET /next HTTP/1.1\r\n", Ok(POST(b"0123456789"))),
        (b"3;a;b=c;d=\"e \\\" ;\"\r\nabc\r\n1\r\nd\r\n0;x\r\nX-T: y\r\n\r\n", Ok(POST(b"abcd"))),
        (b"3\nabc\r\n0\r\n\r\n", Err(BareLineFeed)),
        (b"3\rXabc\r\n0\r\n\r\n", Err(BareCarriageReturn)),
        (b"3\r\nabc\n0\r\n\r\n", Err(BareLineFeed)),
        (b"3\r\nabc\rx0\r\n\r\n", Err(BareCarriageReturn)),
        (b"3\r\nabcd\r\n0\r\n\r\n", Err(MalformedChunk)),
        (b"3\r\nabc0\r\n\r\n", Err(MalformedChunk)),
        (b"\r\n", Err(MalformedChunk)),
        (b";a\r\n", Err(MalformedChunk)),
        (b"0x3\r\nabc\r\n0\r\n\r\n", Err(MalformedChunk)),
        (b"+3\r\nabc\r\n", Err(MalformedChunk)),
        (b"-1\r\n", Err(MalformedChunk)),
        (b" 3\r\nabc\r\n", Err(MalformedChunk)),
        (b"3 \r\nabc\r\n", Err(MalformedChunk)),
        (b"3 ;a\r\nabc\r\n", Err(MalformedChunk)),
        (b"3_0\r\n", Err(MalformedChunk)),
        (b"g\r\n", Err(MalformedChunk)),
        (b"00000000000000003\r\nabc\r\n", Err(MalformedChunk)),
        (b"10000000000000000\r\n", Err(MalformedChunk)),
        (b"3;a\nabc\r\n0\r\n\r\n", Err(BareLineFeed)),
        (b"3;a=\"\n\"\r\nabc\r\n", Err(BareLineFeed)),
        (b"3;a=\"\r\n\"\r\nabc\r\n", Err(MalformedChunk)),
        (b"3;\r\nabc\r\n", Err(MalformedChunk)),
        (b"3;a=\r\nabc\r\n", Err(MalformedChunk)),
        (b"3;a b\r\nabc\r\n", Err(MalformedChunk)),
        (b"3;\0\r\nabc\r\n", Err(MalformedChunk)),
        (b"0\r\n\n", Err(BareLineFeed)),
        (b"0\r\nX: y\n\r\n", Err(BareLineFeed)),
        (b"0\r\nX: y\rz\r\n\r\n", Err(BareCarriageReturn)),
        (b"0\r\n\rX: y\r\n\r\n", Err(BareCarriageReturn)),
        (b"0\r\nGET /next HTTP/1.1\r\n", Err(HeaderName)),
        (b"0\r\nX : y\r\n\r\n", Err(SpaceBeforeColon)),
        (b"0\r\nX: y\r\n z\r\n\r\n", Err(FoldedHeader)),
        (b"0\r\nContent-Length: 5\r\n\r\n", Err(ForbiddenTrailer)),
        (b"0\r\ntransfer_encoding: chunked\r\n\r\n", Err(ForbiddenTrailer)),
        (b"0\r\nHost: evil\r\n\r\n", Err(ForbiddenTrailer)),
    ];
    for (body, expected) in rows {
        let head = &b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        check(&[head, body].concat(), expected);
    }
}

fn check(bytes: &[u8], expected: &Result<Form, Reason>) {
    let found = judge(bytes);
    match (&found, expected) {
        (Ok((head, body)), Ok(Form(method, target, host, expected))) => {
            assert_eq!(
                (
                    text(head, head.method),
                    text(head, head.raw_target),
                    head.host.as_deref().unwrap_or_default(),
                    &body[..]
                ),
                (*method, *target, *host, *expected),
                "{}",
                bytes.escape_ascii()
            );
        }
        (Err(found), Err(expected)) if found == expected => {}
        _ => panic!("{}: {:?}", bytes.escape_ascii(), found.map(|(head, _)| head.framing)),
    }
}
