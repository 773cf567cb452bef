//! Chunked bodies: sizes, ends, extensions and trailers.

use super::{Case, SMUGGLED, chunked, get, post};

const CHUNK: &[&str] = &["malformed-chunk"];
const FEED: &[&str] = &["bare-line-feed", "malformed-chunk"];
const RETURN: &[&str] = &["bare-carriage-return", "malformed-chunk"];

pub(super) fn cases() -> Vec<Case> {
    // What a reader that takes the size for 0 would see next.
    let bad = |what, size: &str| {
        Case::new(what, chunked(&format!("{size}\r\nabcde\r\n0\r\n\r\n{SMUGGLED}"))).refused(CHUNK).cut()
    };
    let raw = |what, chunks: &str, reasons| Case::new(what, chunked(chunks)).refused(reasons).cut();
    let good = |what, chunks: &str| Case::new(what, chunked(chunks)).sends("POST", "/x", "abcde");
    let trailer = |what, line: &str| {
        Case::new(what, chunked(&format!("5\r\nabcde\r\n0\r\n{line}\r\n\r\n"))).refused(&["forbidden-trailer"]).cut()
    };
    vec![
        bad("a size with 0x", "0x5"),
        bad("a size with a plus sign", "+5"),
        bad("a size with a minus sign", "-5"),
        bad("a space before a size", " 5"),
        bad("a space behind a size", "5 "),
        bad("a tab behind a size", "5\t"),
        bad("an empty size", ""),
        bad("a size that is no number", "g"),
        bad("a size of 2^64 and 5", "10000000000000005"),
        bad("a size of 17 digits", "00000000000000005"),
        bad("a size with an underscore", "0_5"),
        bad("a size with a NUL", "5\0"),
        bad("a size with a vertical tab", "5\x0b"),
        raw(
            "a size of 2^64 - 1",
            "ffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
            &["malformed-chunk", "body-too-large", "body-timeout"],
        ),
        raw("a size that ends in LF", "5\nabcde\r\n0\r\n\r\n", FEED),
        raw("a size that ends in CR", "5\rabcde\r\n0\r\n\r\n", RETURN),
        raw("a size that ends in CR CR LF", "5\r\r\nabcde\r\n0\r\n\r\n", RETURN),
        raw("data that ends in LF", "5\r\nabcde\n0\r\n\r\n", FEED),
        raw("data without an end", "5\r\nabcde0\r\n\r\n", CHUNK),
        raw("data longer than its size", "3\r\nabcde\r\n0\r\n\r\n", CHUNK),
        raw("data that ends in any two bytes", "5\r\nabcdeXX0\r\n\r\n", CHUNK),
        raw("data that ends in CR and something", "5\r\nabcde\rX0\r\n\r\n", RETURN),
        raw("a last chunk that ends in LF", "5\r\nabcde\r\n0\n\n", FEED),
        raw("a body that ends in LF", "5\r\nabcde\r\n0\r\n\n", FEED),
        raw("an extension that ends in LF", "5;a=b\nabcde\r\n0\r\n\r\n", FEED),
        raw("an extension with a bare CR", "5;a\rb\r\nabcde\r\n0\r\n\r\n", RETURN),
        raw("an extension with a NUL", "5;a=\0\r\nabcde\r\n0\r\n\r\n", CHUNK),
        raw("an extension with a request in it", "5;\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n", FEED),
        raw("an extension without a semicolon", "5 a=b\r\nabcde\r\n0\r\n\r\n", CHUNK),
        good("a size with zeros", "0005\r\nabcde\r\n000\r\n\r\n"),
        good("an extension", "5;name=value\r\nabcde\r\n0;last\r\n\r\n"),
        good("an extension in quotes", "5;a=\"; 9\"\r\nabcde\r\n0\r\n\r\n"),
        good("several chunks", "1\r\na\r\n4\r\nbcde\r\n0\r\n\r\n"),
        good("a trailer", "5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"),
        Case::new("a size in capital letters", chunked("A\r\n0123456789\r\n0\r\n\r\n")).sends(
            "POST",
            "/x",
            "0123456789",
        ),
        Case::new("a request in a chunk", chunked(&format!("2a\r\n{SMUGGLED}\r\n0\r\n\r\n")))
            .sends("POST", "/x", SMUGGLED),
        Case::new("chunks, then a request", format!("{}{}", chunked("5\r\nabcde\r\n0\r\n\r\n"), get("/second", "")))
            .sends("POST", "/x", "abcde")
            .sends("GET", "/second", ""),
        Case::new("a GET in chunks", format!("{}3\r\nabc\r\n0\r\n\r\n", get("/x", "Transfer-Encoding: chunked\r\n")))
            .sends("GET", "/x", "abc"),
        trailer("a trailer Content-Length", "Content-Length: 42"),
        trailer("a trailer Transfer-Encoding", "Transfer-Encoding: chunked"),
        trailer("a trailer Host", "Host: other.test"),
        trailer("a trailer Content_Length", "Content_Length: 42"),
        raw("a folded trailer", "5\r\nabcde\r\n0\r\nX: y\r\n z\r\n\r\n", &["folded-header"]),
        raw("a trailer without a colon", "5\r\nabcde\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n", &["header-name"]),
        raw("a trailer with a space before its colon", "5\r\nabcde\r\n0\r\nX : y\r\n\r\n", &["space-before-colon"]),
        raw("a trailer that ends in LF", "5\r\nabcde\r\n0\r\nX: y\n\r\n", FEED),
        Case::new("chunks of no size, with a length behind", post("Transfer-Encoding: chunked\r\n", "0\r\n\r\nabc"))
            .sends("POST", "/x", "")
            .refused(&["request-line", "http-0.9", "head-timeout"]),
    ]
}
