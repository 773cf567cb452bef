//! What stands behind a request on the same connection: refusals, upgrades and expectations that end otherwise than one
//! of the two sides thinks.

use super::{Case, SMUGGLED, chunked, get, post};

const UPGRADE: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

pub(super) fn cases() -> Vec<Case> {
    let above = |fields: &str, rest: &str| format!("POST /../x HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n{rest}");
    let expects = "Expect: 100-continue\r\nContent-Length: 42\r\n";
    vec![
        Case::new("Expect, refused, and the request that comes in place of the body", above(expects, SMUGGLED))
            .refused(&["path-above-root"]),
        // The first takes the place of the body for whoever waits for one, the second does not.
        Case::new(
            "Expect, refused, and two requests that come in place of the body",
            above(expects, &format!("{SMUGGLED}{SMUGGLED}")),
        )
        .refused(&["path-above-root"]),
        Case::new(
            "Expect with chunks, refused, and a request",
            above("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
        )
        .refused(&["path-above-root"]),
        Case::new(
            "close and upgrade, and a request",
            format!("{}{SMUGGLED}", get("/x", &format!("Connection: close, upgrade\r\n{UPGRADE}"))),
        )
        .refused(&["upgrade"]),
        Case::new(
            "upgrade, not named by Connection",
            format!("{}{SMUGGLED}", get("/x", &format!("Connection: close\r\n{UPGRADE}"))),
        )
        .refused(&["upgrade"]),
        Case::new(
            "an upgrade in HTTP/1.0",
            format!("GET /x HTTP/1.0\r\nHost: api.test\r\nConnection: upgrade\r\n{UPGRADE}\r\n{SMUGGLED}"),
        )
        .refused(&["upgrade"]),
        Case::new("HEAD, then GET", format!("HEAD /a HTTP/1.1\r\nHost: api.test\r\n\r\n{}", get("/b", "")))
            .sends("HEAD", "/a", "")
            .sends("GET", "/b", ""),
        Case::new(
            "bodies of each kind, one behind the other",
            [
                &post("Content-Length: 5\r\n", "abcde")[..],
                &chunked("5\r\nabcde\r\n0\r\n\r\n"),
                &post("Content-Length: 0\r\n", ""),
                &get("/last-but-one", ""),
            ]
            .concat(),
        )
        .sends("POST", "/x", "abcde")
        .sends("POST", "/x", "abcde")
        .sends("POST", "/x", "")
        .sends("GET", "/last-but-one", ""),
        Case::new(
            "chunks with a trailer, then a request with a length that is too short",
            format!(
                "{}{}",
                chunked("5\r\nabcde\r\n0\r\nX: Content-Length: 42\r\n\r\n"),
                post("Content-Length: 3\r\n", &format!("abc{}", SMUGGLED.replace("GET", "GET GET")))
            ),
        )
        .sends("POST", "/x", "abcde")
        .sends("POST", "/x", "abc")
        .refused(&["request-line"]),
        Case::new("one CRLF between requests", format!("{}\r\n{}", get("/a", ""), get("/b", "")))
            .sends("GET", "/a", "")
            .sends("GET", "/b", ""),
        Case::new("two CRLF between requests", format!("{}\r\n\r\n{SMUGGLED}", get("/a", "")))
            .sends("GET", "/a", "")
            .refused(&["request-line"]),
        Case::new("LF behind a body", format!("{}\n{SMUGGLED}", post("Content-Length: 5\r\n", "abcde")))
            .sends("POST", "/x", "abcde")
            .refused(&["bare-line-feed"]),
        Case::new("NUL behind a body", format!("{}\0{SMUGGLED}", post("Content-Length: 5\r\n", "abcde")))
            .sends("POST", "/x", "abcde")
            .refused(&["request-line"]),
        Case::new(
            "HTTP/1.0 with keep-alive and a body, then HTTP/1.1",
            format!(
                "POST /x HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nabcde{}",
                get("/b", "")
            ),
        )
        .sends("POST", "/x", "abcde")
        .sends("GET", "/b", ""),
        Case::new(
            "HTTP/1.0 with keep-alive and close, then a request",
            format!("GET /x HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive, close\r\n\r\n{SMUGGLED}"),
        )
        .sends("GET", "/x", ""),
        Case::new(
            "close in capital letters in a second line, then a request",
            format!("{}{SMUGGLED}", get("/x", "Connection: keep-alive\r\nConnection: CLOSE\r\n")),
        )
        .sends("GET", "/x", ""),
        Case::new(
            "two good requests and a bad one",
            [get("/a", ""), get("/b", ""), get("/c", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")].concat(),
        )
        .sends("GET", "/a", "")
        .sends("GET", "/b", "")
        .refused(&["length-and-coding"]),
        Case::new(
            "names of clients in other spellings",
            get("/x", "X!Forwarded!For: 10.0.0.1\r\nX~Original~URL: /smuggled\r\nX+Rewrite+URL: /smuggled\r\n"),
        )
        .sends("GET", "/x", ""),
    ]
}
