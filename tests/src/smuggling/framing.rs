//! Content-Length and Transfer-Encoding, in all the ways to say them twice or wrongly; Expect, Connection, Upgrade.

use super::{Case, SMUGGLED, get, post};

const LENGTH: &[&str] = &["malformed-length"];
const LENGTHS: &[&str] = &["several-lengths"];
const BOTH: &[&str] = &["length-and-coding"];
const CODING: &[&str] = &["transfer-coding"];

/// A body that is empty as chunks, with a request behind it.
const EMPTY_CHUNKS: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both();
    cases.extend(lengths());
    cases.extend(codings());
    cases.extend(fields());
    cases
}

fn both() -> Vec<Case> {
    let case = |what, fields: &str, body: &str| Case::new(what, post(fields, body)).refused(BOTH);
    vec![
        case(
            "CL.TE: the length covers chunks and a request",
            "Content-Length: 47\r\nTransfer-Encoding: chunked\r\n",
            EMPTY_CHUNKS,
        ),
        case(
            "TE.CL: chunks that a length cuts",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "2a\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n\r\n0\r\n\r\n",
        ),
        case("both, and they agree", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        case("a length of 0 beside chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        case("a length beside `identity`", "Content-Length: 3\r\nTransfer-Encoding: identity\r\n", "abc"),
        case("a length beside an empty coding", "Content-Length: 3\r\nTransfer-Encoding:\r\n", "abc"),
        case("names in odd case", "cOnTeNt-LeNgTh: 5\r\ntRANSFER-eNCODING: chunked\r\n", "0\r\n\r\n"),
        Case::new(
            "a second request with both",
            format!(
                "{}{}",
                get("/first", ""),
                post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")
            ),
        )
        .sends("GET", "/first", "")
        .refused(BOTH),
    ]
}

fn lengths() -> Vec<Case> {
    let bad =
        |what, value: &str| Case::new(what, post(&format!("Content-Length: {value}\r\n"), "abcde")).refused(LENGTH);
    let several = |what, fields: &str| Case::new(what, post(fields, "abcde")).refused(LENGTHS);
    vec![
        several("two lengths that differ", "Content-Length: 5\r\nContent-Length: 0\r\n"),
        several("two lengths that agree", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        several("two lengths in different case", "Content-Length: 0\r\ncontent-length: 5\r\n"),
        several("a length and an empty one", "Content-Length: 5\r\nContent-Length:\r\n"),
        Case::new("lengths in a list that agree", post("Content-Length: 5, 5\r\n", "abcde"))
            .refused(&["malformed-length", "several-lengths"]),
        Case::new("lengths in a list that differ", post("Content-Length: 0, 5\r\n", "abcde"))
            .refused(&["malformed-length", "several-lengths"]),
        bad("a plus sign", "+5"),
        bad("a minus sign", "-1"),
        bad("minus nothing", "-0"),
        bad("hexadecimal", "0x5"),
        bad("hexadecimal digits", "5a"),
        bad("a fraction", "5.0"),
        bad("an exponent", "5e0"),
        bad("a space within", "5 0"),
        Case::new("a trailing comma", post("Content-Length: 5,\r\n", "abcde"))
            .refused(&["malformed-length", "several-lengths"]),
        bad("quotes", "\"5\""),
        bad("a parameter", "5;a"),
        bad("an underscore", "0_5"),
        bad("other digits of Unicode", "\u{0665}"),
        bad("2^63", "9223372036854775808"),
        bad("2^64 and 5: overflows to 5", "18446744073709551621"),
        bad("empty", ""),
        Case::new("leading zeros", post("Content-Length: 005\r\n", "abcde"))
            .refused(LENGTH)
            .or_sends("POST", "/x", "abcde"),
        Case::new("white space around a length", post("Content-Length: \t 5 \t\r\n", "abcde"))
            .sends("POST", "/x", "abcde"),
        Case::new("a vertical tab before a length", post("Content-Length: \x0b5\r\n", "abcde"))
            .refused(&["control-character", "malformed-length"]),
        Case::new("a twin with an underscore", post("Content_Length: 5\r\n", "abcde")).refused(LENGTH),
        Case::new("a twin beside the length", post("Content-Length: 5\r\nContent_Length: 0\r\n", "abcde"))
            .refused(LENGTH),
        Case::new("a body longer than it says", post("Content-Length: 3\r\n", &format!("abc---{SMUGGLED}")))
            .sends("POST", "/x", "abc")
            .refused(&["method"]),
        Case::new("a request as body", post("Content-Length: 42\r\n", SMUGGLED)).sends("POST", "/x", SMUGGLED),
        Case::new("a GET with a request as body", format!("{}{SMUGGLED}", get("/x", "Content-Length: 42\r\n")))
            .sends("GET", "/x", SMUGGLED),
        Case::new(
            "a HEAD with a body",
            format!("HEAD /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 42\r\n\r\n{SMUGGLED}"),
        )
        .sends("HEAD", "/x", SMUGGLED),
        Case::new(
            "a length of 0 before a request",
            format!("{}{}", post("Content-Length: 0\r\n", ""), get("/second", "")),
        )
        .sends("POST", "/x", "")
        .sends("GET", "/second", ""),
        Case::new(
            "TRACE with a body",
            format!("TRACE /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 42\r\n\r\n{SMUGGLED}"),
        )
        .refused(&["unexpected-body", "method"]),
        Case::new(
            "CONNECT with a body",
            format!("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nContent-Length: 42\r\n\r\n{SMUGGLED}"),
        )
        .refused(&["unexpected-body", "method"]),
    ]
}

fn codings() -> Vec<Case> {
    let bad = |what, value: &str| {
        Case::new(what, post(&format!("Transfer-Encoding: {value}\r\n"), EMPTY_CHUNKS)).refused(CODING)
    };
    let body = "3\r\nabc\r\n0\r\n\r\n";
    let good = |what, field: &str| Case::new(what, post(field, body)).sends("POST", "/x", "abc");
    vec![
        bad("xchunked", "xchunked"),
        bad("chunkedx", "chunkedx"),
        bad("chunked, identity", "chunked, identity"),
        bad("identity, chunked", "identity, chunked"),
        bad("identity", "identity"),
        bad("gzip, chunked", "gzip, chunked"),
        bad("chunked, chunked", "chunked, chunked"),
        bad("a comma behind chunked", "chunked,"),
        bad("a comma before chunked", ",chunked"),
        bad("chunked in double quotes", "\"chunked\""),
        bad("chunked in single quotes", "'chunked'"),
        bad("chunked with a parameter", "chunked;q=1"),
        bad("chunked with a letter of Unicode", "chun\u{212a}ed"),
        bad("chunked with a no-break space", "\u{a0}chunked"),
        bad("no coding", ""),
        Case::new(
            "two codings in two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", EMPTY_CHUNKS),
        )
        .refused(CODING),
        Case::new(
            "chunked twice in two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS),
        )
        .refused(CODING),
        Case::new("a vertical tab before chunked", post("Transfer-Encoding: \x0bchunked\r\n", EMPTY_CHUNKS))
            .refused(&["control-character", "transfer-coding"]),
        Case::new("a form feed behind chunked", post("Transfer-Encoding: chunked\x0c\r\n", EMPTY_CHUNKS))
            .refused(&["control-character", "transfer-coding"]),
        Case::new("a NUL behind chunked", post("Transfer-Encoding: chunked\0\r\n", EMPTY_CHUNKS))
            .refused(&["control-character"]),
        Case::new("chunked in a folded line", post("Transfer-Encoding:\r\n chunked\r\n", EMPTY_CHUNKS))
            .refused(&["folded-header"]),
        Case::new("a space before the coding's colon", post("Transfer-Encoding : chunked\r\n", EMPTY_CHUNKS))
            .refused(&["space-before-colon"]),
        Case::new(
            "a tab before the coding's colon",
            post("Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n", EMPTY_CHUNKS),
        )
        .refused(&["space-before-colon"]),
        Case::new("a coding hidden by a line feed", post("X: y\nTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS))
            .refused(&["bare-line-feed"]),
        Case::new("a coding hidden by a carriage return", post("X: y\rTransfer-Encoding: chunked\r\n", EMPTY_CHUNKS))
            .refused(&["bare-carriage-return"]),
        Case::new("a coding with an underscore", post("Transfer_Encoding: chunked\r\n", EMPTY_CHUNKS)).refused(CODING),
        Case::new(
            "a coding with an underscore beside a length",
            post("Content-Length: 47\r\nTransfer_Encoding: chunked\r\n", EMPTY_CHUNKS),
        )
        .refused(CODING),
        Case::new(
            "a coding in HTTP/1.0",
            format!("POST /x HTTP/1.0\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n{EMPTY_CHUNKS}"),
        )
        .refused(CODING),
        good("a tab before chunked", "Transfer-Encoding:\tchunked\r\n"),
        good("white space behind chunked", "Transfer-Encoding: chunked \t\r\n"),
        good("chunked in capital letters", "Transfer-Encoding: CHUNKED\r\n"),
        good("no space before chunked", "transfer-encoding:chunked\r\n"),
        Case::new("TE that asks for chunked", get("/x", "TE: chunked\r\n")).sends("GET", "/x", ""),
    ]
}

fn fields() -> Vec<Case> {
    let hidden = |what, fields: &str| Case::new(what, post(fields, "abcde")).refused(&["connection-header"]);
    vec![
        hidden("Connection names Content-Length", "Content-Length: 5\r\nConnection: Content-Length\r\n").or_sends("POST", "/x", "abcde"),
        hidden("Connection names Host", "Content-Length: 5\r\nConnection: host\r\n").or_sends("POST", "/x", "abcde"),
        Case::new("Connection names Transfer-Encoding", post("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", "3\r\nabc\r\n0\r\n\r\n")).refused(&["connection-header"]).or_sends("POST", "/x", "abc"),
        hidden("Connection names Authorization", "Content-Length: 5\r\nConnection: close, Authorization\r\nAuthorization: Basic YQ==\r\n").or_sends("POST", "/x", "abcde"),
        Case::new("Connection names another header", get("/x", "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n")).sends("GET", "/x", ""),
        Case::new("Proxy-Connection", get("/x", "Proxy-Connection: keep-alive\r\n")).sends("GET", "/x", ""),
        Case::new("Expect with a request as body", post("Expect: 100-continue\r\nContent-Length: 42\r\n", SMUGGLED)).sends("POST", "/x", SMUGGLED),
        Case::new("Expect in capital letters", post("EXPECT: 100-CONTINUE\r\nContent-Length: 5\r\n", "abcde")).refused(&["expectation"]).or_sends("POST", "/x", "abcde"),
        Case::new("Expect without a body", get("/x", "Expect: 100-continue\r\n")).sends("GET", "/x", ""),
        Case::new("Expect something else", post("Expect: 200-ok\r\nContent-Length: 42\r\n", SMUGGLED)).refused(&["expectation"]),
        Case::new("Expect two things", post("Expect: 100-continue, x=y\r\nContent-Length: 42\r\n", SMUGGLED)).refused(&["expectation"]),
        Case::new("Expect with a fold", post("Expect:\r\n 100-continue\r\nContent-Length: 42\r\n", SMUGGLED)).refused(&["folded-header"]),
        Case::new("Upgrade to h2c", format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get("/x", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"))).refused(&["upgrade"]),
        Case::new("Upgrade to h2c, in other words", get("/x", "Connection: upgrade\r\nUpgrade: foo, H2C\r\n")).refused(&["upgrade"]),
        Case::new("Upgrade to websocket with a request as body", post("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 42\r\n", SMUGGLED)).refused(&["upgrade"]),
    ]
}
