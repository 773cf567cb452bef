//! Targets: one path, many spellings.

use super::{Case, get};

const ENCODING: &[&str] = &["path-encoding"];
const DOUBLE: &[&str] = &["path-double-encoding"];
const SLASH: &[&str] = &["path-encoded-slash"];
const CONTROL: &[&str] = &["path-control-character"];
const NOT_UTF8: &[&str] = &["path-not-utf8"];
const ABOVE: &[&str] = &["path-above-root"];
const TARGET: &[&str] = &["malformed-target"];

pub(super) fn cases() -> Vec<Case> {
    let becomes = |what, target: &str, normal| Case::new(what, get(target, "")).sends("GET", normal, "");
    let refused = |what, target: &str, reasons| Case::new(what, get(target, "")).refused(reasons);
    vec![
        becomes("dot segments", "/a/./b/../c", "/a/c"),
        becomes("encoded dot segments", "/a/%2e/b/%2E%2e/c", "/a/c"),
        becomes("half encoded dot segments", "/a/.%2e/c", "/c"),
        becomes("double slashes", "//a///b", "/a/b"),
        becomes("dots at the end", "/a/b/..", "/a/"),
        becomes("needless encoding", "/%61%2Db%7e", "/a-b~"),
        becomes("encoding in small letters", "/a%c3%a9%20", "/a%C3%A9%20"),
        becomes("dots that are no segments", "/a.../..b/.c", "/a.../..b/.c"),
        becomes("a query stays as it is", "/a?b=%2f..//%00", "/a?b=%2f..//%00"),
        becomes("a question mark in a query", "/a?b?c", "/a?b?c"),
        becomes("an absolute URL", "http://api.test/a", "/a"),
        becomes("an absolute URL with its port", "HTTP://API.test:80/a?b", "/a?b"),
        becomes("an absolute URL without a path", "http://api.test", "/"),
        becomes("an absolute URL with a query alone", "http://api.test?a=b", "/?a=b"),
        Case::new("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: api.test\r\n\r\n").sends("OPTIONS", "*", ""),
        refused("an asterisk for GET", "*", TARGET),
        refused("an encoded slash", "/a%2fsmuggled", SLASH),
        refused("an encoded backslash", "/a%5csmuggled", SLASH),
        refused("a backslash", "/a\\..\\smuggled", &["path-encoded-slash", "malformed-target"]),
        refused("encoded dots and slash", "/a/..%2fsmuggled", SLASH),
        refused("an encoded slash above the root", "/..%2f..%2fsmuggled", &["path-encoded-slash", "path-above-root"]),
        refused("above the root", "/../smuggled", ABOVE),
        refused("above the root, later", "/a/../../smuggled", ABOVE),
        refused("above the root, encoded", "/a/%2e%2e/%2e%2e/smuggled", ABOVE),
        refused("dots with a parameter", "/a/..;/smuggled", &["path-*", "malformed-target"]),
        refused("dots with a parameter and a value", "/a/..;x=y/smuggled", &["path-*", "malformed-target"]),
        refused("dots with an encoded parameter", "/a/..%3b/smuggled", &["path-*", "malformed-target"]),
        refused("an encoded NUL", "/smuggled%00.html", CONTROL),
        refused("an encoded line end", "/a%0d%0aX:%20y", CONTROL),
        refused("an encoded DEL", "/a%7f", CONTROL),
        refused("an encoded C1 control", "/a%c2%85", &["path-control-character"]).or_sends("GET", "/a%C2%85", ""),
        refused("a slash encoded twice", "/a%252fsmuggled", DOUBLE),
        refused("a dot encoded twice", "/a/%252e%252e/smuggled", DOUBLE),
        refused("a percent sign encoded as two", "/a%25%32%66smuggled", DOUBLE),
        refused("a bare percent sign", "/a%", ENCODING),
        refused("a percent sign with one digit", "/a%2", ENCODING),
        refused("a percent sign with other letters", "/a%zz", ENCODING),
        refused("percent u", "/a%u002fsmuggled", ENCODING),
        refused("an overlong slash", "/a%c0%afsmuggled", NOT_UTF8),
        refused("an overlong dot", "/%c0%ae%c0%ae/smuggled", NOT_UTF8),
        refused("an overlong NUL", "/a%e0%80%80", NOT_UTF8),
        refused("a surrogate", "/a%ed%a0%80", NOT_UTF8),
        refused("a byte that is not UTF-8", "/a%ff", NOT_UTF8),
        refused("a cut character", "/a%c3", NOT_UTF8),
        refused("a fragment", "/a#/../smuggled", TARGET).or_sends("GET", "/a", ""),
        refused("a raw angle bracket", "/a?<script>", TARGET),
        refused("raw quotes", "/a?\"b\"", TARGET).or_sends("GET", "/a?%22b%22", ""),
        refused("no slash", "a", TARGET),
        refused("a host for a target", "api.test:80", TARGET),
        refused("another scheme", "file:///etc/smuggled", TARGET),
        refused("a URL without slashes", "http:/smuggled", TARGET),
        refused("a URL without a host", "http:///smuggled", &["malformed-target", "malformed-host", "host-mismatch"]),
        refused("a question mark alone", "?a", TARGET),
        Case::new("a letter that is not ASCII", [&b"GET /a\xe9 HTTP/1.1\r\nHost: api.test\r\n\r\n"[..]].concat())
            .refused(&["malformed-target", "path-not-utf8"]),
        Case::new("raw UTF-8", get("/a\u{e9}", ""))
            .refused(&["malformed-target", "path-*"])
            .or_sends("GET", "/a%C3%A9", ""),
        Case::new("NUL in the target", get("/a\0", "")).refused(&["control-character", "malformed-target"]),
        Case::new("CONNECT", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n").refused(&["method"]),
        Case::new(
            "X-Original-URL",
            get("/a", "X-Original-URL: /smuggled\r\nX-Rewrite-URL: /smuggled\r\nX-Forwarded-Host: other.test\r\n"),
        )
        .sends("GET", "/a", ""),
        Case::new("X-HTTP-Method-Override", get("/a", "X-HTTP-Method-Override: DELETE\r\n")).sends("GET", "/a", ""),
    ]
}
