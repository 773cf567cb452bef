//! Line ends, control characters, names, versions, several Hosts, and what follows what on a connection.

use super::{Case, SMUGGLED, get};

const FEED: &[&str] = &["bare-line-feed"];
const RETURN: &[&str] = &["bare-carriage-return"];
const CONTROL: &[&str] = &["control-character"];
const LINE: &[&str] = &["request-line"];
const VERSION: &[&str] = &["http-version"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = ends();
    cases.extend(names());
    cases.extend(versions());
    cases.extend(hosts());
    cases.extend(pipelines());
    cases
}

fn ends() -> Vec<Case> {
    let case = |what, bytes: &str, reasons| Case::new(what, bytes).refused(reasons);
    vec![
        case("LF behind the request line", "GET /x HTTP/1.1\nHost: api.test\r\n\r\n", FEED),
        case("LF behind a header", "GET /x HTTP/1.1\r\nHost: api.test\nX: y\r\n\r\n", FEED),
        case("LF behind the last header", "GET /x HTTP/1.1\r\nHost: api.test\n\r\n", FEED),
        case("LF as the empty line", "GET /x HTTP/1.1\r\nHost: api.test\r\n\n", FEED),
        case("LF everywhere", "GET /x HTTP/1.1\nHost: api.test\n\n", FEED),
        case("LF twice within a header, before a request", &get("/x", "X: a\n\nGET /smuggled HTTP/1.1\r\n"), FEED),
        case("LF first", "\nGET /x HTTP/1.1\r\nHost: api.test\r\n\r\n", &["bare-line-feed", "request-line"]),
        case(
            "CR behind the request line",
            "GET /x HTTP/1.1\rHost: api.test\r\n\r\n",
            &["bare-carriage-return", "request-line"],
        ),
        case("CR within a header", "GET /x HTTP/1.1\r\nHost: api.test\r\nX: a\rb\r\n\r\n", RETURN),
        case(
            "CR CR LF behind a header",
            "GET /x HTTP/1.1\r\nHost: api.test\r\r\n\r\n",
            &["bare-carriage-return", "malformed-host"],
        ),
        case(
            "CR CR LF as the empty line",
            "GET /x HTTP/1.1\r\nHost: api.test\r\n\r\r\n\r\n",
            &["bare-carriage-return", "header-name"],
        ),
        case("LF CR", "GET /x HTTP/1.1\n\rHost: api.test\n\r\n\r", &["bare-line-feed", "bare-carriage-return"]),
        case("CR first", "\rGET /x HTTP/1.1\r\nHost: api.test\r\n\r\n", &["bare-carriage-return", "request-line"]),
        case(
            "CR within the target",
            "GET /x\rHTTP/1.1 HTTP/1.1\r\nHost: api.test\r\n\r\n",
            &["bare-carriage-return", "request-line", "malformed-target"],
        ),
        Case::new("CRLF first", format!("\r\n{}", get("/x", ""))).refused(LINE).or_sends("GET", "/x", ""),
    ]
}

fn names() -> Vec<Case> {
    let case = |what, field: &str, reasons| Case::new(what, get("/x", field)).refused(reasons);
    vec![
        case("NUL in a value", "X: a\0b\r\n", CONTROL),
        case("NUL in a name", "X\0: a\r\n", &["control-character", "header-name"]),
        case("escape in a value", "X: \x1b[31m\r\n", CONTROL),
        case("DEL in a value", "X: \x7f\r\n", CONTROL),
        case("a folded line with a space", "X: a\r\n b\r\n", &["folded-header"]),
        case("a folded line with a tab", "X: a\r\n\tContent-Length: 42\r\n", &["folded-header"]),
        case("a fold without content", "X: a\r\n \r\n", &["folded-header"]),
        case("a space before a colon", "X : a\r\n", &["space-before-colon"]),
        case("a line without a colon", "X\r\n", &["header-name"]),
        case("a name of no letters", ": a\r\n", &["header-name"]),
        case("a space within a name", "X Y: a\r\n", &["header-name"]),
        case("a name in brackets", "(X): a\r\n", &["header-name"]),
        case("a name that is not ASCII", "Content-L\u{e9}ngth: 42\r\n", &["header-name"]),
        Case::new(
            "a first header that begins with a space",
            "GET /x HTTP/1.1\r\n Host: api.test\r\nHost: api.test\r\n\r\n",
        )
        .refused(&["folded-header"]),
        Case::new(
            "a value that is not ASCII",
            [b"GET /x HTTP/1.1\r\nHost: api.test\r\nX: \xff\xe9\r\n\r\n".to_vec()].concat(),
        )
        .sends("GET", "/x", ""),
        Case::new("a value with tabs", get("/x", "X:\ta\tb\t\r\n")).sends("GET", "/x", ""),
    ]
}

fn versions() -> Vec<Case> {
    let line =
        |what, line: &str, reasons| Case::new(what, format!("{line}\r\nHost: api.test\r\n\r\n")).refused(reasons);
    vec![
        Case::new("HTTP/0.9", "GET /x\r\n\r\n").refused(&["http-0.9"]),
        Case::new("HTTP/0.9 with a request behind", format!("GET /x\r\n{SMUGGLED}")).refused(&["http-0.9"]),
        line("HTTP/2.0", "GET /x HTTP/2.0", VERSION),
        line("HTTP/3.0", "GET /x HTTP/3.0", VERSION),
        line("HTTP/1.2", "GET /x HTTP/1.2", VERSION),
        line("HTTP/0.9 by name", "GET /x HTTP/0.9", LINE),
        line("HTTP/1.10", "GET /x HTTP/1.10", LINE),
        line("HTTP/01.1", "GET /x HTTP/01.1", LINE),
        line("HTTP/1,1", "GET /x HTTP/1,1", LINE),
        line("http/1.1", "GET /x http/1.1", LINE),
        line("ICE/1.1", "GET /x ICE/1.1", LINE),
        line("two spaces before the target", "GET  /x HTTP/1.1", LINE),
        line("two spaces before the version", "GET /x  HTTP/1.1", LINE),
        line("a space behind the version", "GET /x HTTP/1.1 ", &["request-line", "http-0.9"]),
        line("a tab for a space", "GET\t/x\tHTTP/1.1", &["request-line", "control-character", "http-0.9"]),
        line("a space first", " GET /x HTTP/1.1", LINE),
        line("two versions", "GET /smuggled HTTP/1.1 HTTP/1.1", LINE),
        line("a method that is no token", "G(T /x HTTP/1.1", LINE),
        line("a method in small letters", "get /x HTTP/1.1", &["method"]),
        line("NUL in the method", "GE\0T /x HTTP/1.1", CONTROL),
        Case::new("HTTP/1.0", "GET /x HTTP/1.0\r\nHost: api.test\r\n\r\n").sends("GET", "/x", ""),
        Case::new("HTTP/1.0 with keep-alive", "GET /x HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive\r\n\r\n")
            .sends("GET", "/x", ""),
        Case::new("HTTP/1.0 without Host", "GET /x HTTP/1.0\r\n\r\n")
            .refused(&["host-missing"])
            .or_sends("GET", "/x", ""),
        Case::new("HTTP/1.0 with a length", "POST /x HTTP/1.0\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nabcde")
            .sends("POST", "/x", "abcde"),
        Case::new("HTTP/1.0, then another request", format!("GET /x HTTP/1.0\r\nHost: api.test\r\n\r\n{SMUGGLED}"))
            .sends("GET", "/x", ""),
        Case::new(
            "the preface of HTTP/2 as a second request",
            format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get("/x", "")),
        )
        .sends("GET", "/x", "")
        .refused(VERSION),
        Case::new("the preface of HTTP/2 before HTTP/1", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"))
            .refused(&["http2", "http-version"]),
        Case::new("a broken preface of HTTP/2", format!("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n{SMUGGLED}"))
            .refused(&["http2", "http-version"]),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |what, host: &str| {
        Case::new(what, format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).refused(&["malformed-host"])
    };
    let mismatch = |what, bytes: &str| Case::new(what, bytes).refused(&["host-mismatch"]);
    vec![
        Case::new("no Host", "GET /x HTTP/1.1\r\n\r\n").refused(&["host-missing"]),
        Case::new("an empty Host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n").refused(&["host-missing"]),
        mismatch("two Hosts that differ", "GET /x HTTP/1.1\r\nHost: api.test\r\nHost: other.test\r\n\r\n"),
        mismatch("two Hosts that agree", "GET /x HTTP/1.1\r\nHost: api.test\r\nhost: api.test\r\n\r\n"),
        mismatch("an absolute URL of another host", "GET http://other.test/x HTTP/1.1\r\nHost: api.test\r\n\r\n"),
        mismatch("an absolute URL with another port", "GET http://api.test:81/x HTTP/1.1\r\nHost: api.test\r\n\r\n"),
        host("user information in Host", "user@api.test"),
        host("a space in Host", "api.test other.test"),
        host("a list of hosts", "api.test, other.test"),
        host("a port that is no number", "api.test:http"),
        host("a port that is too large", "api.test:65536"),
        host("two ports", "api.test:80:81"),
        host("an empty port", "api.test:"),
        host("a path in Host", "api.test/smuggled"),
        host("a query in Host", "api.test?x"),
        host("a fragment in Host", "api.test#x"),
        host("a backslash in Host", "api.test\\other.test"),
        host("percent-encoding in Host", "api%2etest"),
        host("an open bracket in Host", "[::1"),
        host("an empty label in Host", "api..test"),
        Case::new(
            "an absolute URL with user information",
            "GET http://api.test@other.test/x HTTP/1.1\r\nHost: other.test\r\n\r\n",
        )
        .refused(&["malformed-target", "malformed-host"]),
        Case::new("a Host with a port", "GET /x HTTP/1.1\r\nHost: api.test:8080\r\n\r\n").sends("GET", "/x", ""),
        Case::new("a Host in capital letters with a dot", "GET /x HTTP/1.1\r\nHost: API.test.\r\n\r\n")
            .sends("GET", "/x", ""),
        Case::new("an IPv6 address as Host", "GET /x HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n")
            .sends("GET", "/x", ""),
    ]
}

fn pipelines() -> Vec<Case> {
    vec![
        Case::new("three good requests", [get("/a", ""), get("/b", ""), get("/c", "")].concat())
            .sends("GET", "/a", "")
            .sends("GET", "/b", "")
            .sends("GET", "/c", ""),
        Case::new("a good request, then a bad one", format!("{}{}", get("/a", ""), get("/b", "X : y\r\n")))
            .sends("GET", "/a", "")
            .refused(&["space-before-colon"]),
        Case::new(
            "a bad request, then one that must not be looked at",
            format!("{}{SMUGGLED}", get("/a", "X : y\r\n")),
        )
        .refused(&["space-before-colon"]),
        Case::new(
            "Connection: close, then another request",
            format!("{}{SMUGGLED}", get("/a", "Connection: close\r\n")),
        )
        .sends("GET", "/a", ""),
        Case::new(
            "a refused method with a request as body",
            format!("PROPFIND /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 42\r\n\r\n{SMUGGLED}"),
        )
        .refused(&["method"]),
        Case::new(
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n".to_vec(),
        )
        .refused(&["tls-handshake", "control-character", "request-line"]),
    ]
}
