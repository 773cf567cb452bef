use proptest::prelude::*;

use super::*;
use crate::head::{Http2, Limits, from_http2, parse};

fn rules() -> Rules {
    let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
    Rules {
        methods: list(&["GET", "POST", "OPTIONS", "CONNECT"]),
        hosts: list(&["h", "*.example.com", "[2001:db8::1]"]),
        content_types: list(&["application/json", "text/*"]),
        upgrades: list(&["websocket", "h2c"]),
        encoded_slashes: false,
        body: 100,
    }
}

fn head(line: &str, fields: &str) -> Head {
    parse(Bytes::from(format!("{line} HTTP/1.1\r\n{fields}\r\n"))).unwrap()
}

const WEBSOCKET: &str = "Host: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Version: 13\r\n";

#[test]
fn requests_are_judged() {
    use Reason::*;
    let json = "Host: h\r\nContent-Type: application/json\r\n";
    // Request line, headers, then what goes upstream.
    let rows: &[(&str, &str, Result<&str, Reason>)] = &[
        ("GET /", "Host: h\r\n", Ok("/")),
        ("GET /a/../b?c=%2f..", "Host: h\r\n", Ok("/b?c=%2f..")),
        ("GET /b?c", "Host: h\r\n", Ok("/b?c")),
        ("GET http://h", "Host: h\r\n", Ok("/")),
        ("GET http://h?q", "Host: h\r\n", Ok("/?q")),
        ("GET http://h/a//b", "Host: h\r\n", Ok("/a/b")),
        ("OPTIONS *", "Host: h\r\n", Ok("*")),
        ("OPTIONS http://h", "Host: h\r\n", Ok("*")),
        ("OPTIONS /", "Host: h\r\n", Ok("/")),
        // What the head says stands first.
        ("DELETE /", "", Err(HostMissing)),
        ("GET /?<", "Host: x\r\n", Err(MalformedTarget)),
        ("CONNECT h:80", "Host: h:80\r\n", Err(Method)),
        ("GET /", "Host: h\r\nConnection: host\r\n", Err(ConnectionHeader)),
        ("DELETE /", "Host: h\r\n", Err(Method)),
        ("get /", "Host: h\r\n", Err(Method)),
        ("GETX /", "Host: h\r\n", Err(Method)),
        // Hosts.
        ("GET /", "Host: H.:8080\r\n", Ok("/")),
        ("GET /", "Host: a.Example.com\r\n", Ok("/")),
        ("GET /", "Host: a.b.example.com\r\n", Ok("/")),
        ("GET /", "Host: [2001:DB8:0:0::1]\r\n", Ok("/")),
        ("GET /", "Host: example.com\r\n", Err(HostNotServed)),
        ("GET /", "Host: badexample.com\r\n", Err(HostNotServed)),
        ("GET /", "Host: h.evil\r\n", Err(HostNotServed)),
        // Paths.
        ("GET /%2e%2e/a", "Host: h\r\n", Err(PathAboveRoot)),
        ("GET /a%2fb", "Host: h\r\n", Err(PathEncodedSlash)),
        // Content.
        ("POST /", "Host: h\r\nContent-Length: 1\r\n", Err(ContentType)),
        ("POST /", "Host: h\r\n", Ok("/")),
        ("POST /", "Host: h\r\nContent-Type: a/b\r\n", Ok("/")),
        ("POST /", &format!("{json}Content-Length: 100\r\n"), Ok("/")),
        ("POST /", &format!("{json}Content-Length: 101\r\n"), Err(BodyTooLarge)),
        ("POST /", &format!("{json}Content-Type: application/json\r\n"), Err(ContentType)),
        ("POST /", "Host: h\r\nContent-Length: 1\r\nContent-Type: Application/JSON ; charset=x\r\n", Ok("/")),
        ("POST /", "Host: h\r\nContent-Length: 1\r\nContent-Type: TEXT/x\r\n", Ok("/")),
        ("POST /", "Host: h\r\nContent-Length: 1\r\nContent-Type: text/\r\n", Err(ContentType)),
        ("POST /", "Host: h\r\nContent-Length: 1\r\nContent-Type: application/jsonx\r\n", Err(ContentType)),
        ("POST /", "Host: h\r\nContent-Length: 1\r\nContent-Type: application/json, text/x\r\n", Err(ContentType)),
        ("POST /", "Host: h\r\nTransfer-Encoding: chunked\r\nContent-Type: a/b\r\n", Err(ContentType)),
        // Expectations.
        ("POST /", &format!("{json}Content-Length: 1\r\nExpect: 100-Continue\r\n"), Ok("/")),
        ("GET /", "Host: h\r\nExpect: 200-ok\r\n", Err(Expectation)),
        ("GET /", "Host: h\r\nExpect: 100-continue, x\r\n", Err(Expectation)),
        ("GET /", "Host: h\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n", Err(Expectation)),
        ("GET /", "Host: h\r\nExpect:\r\n", Err(Expectation)),
        // Upgrades.
        ("GET /", WEBSOCKET, Ok("/")),
        ("POST /", WEBSOCKET, Err(Upgrade)),
        ("GET /", &format!("{WEBSOCKET}Content-Length: 1\r\nContent-Type: text/x\r\n"), Err(Upgrade)),
        ("GET /", &WEBSOCKET.replace("Connection", "X"), Err(Upgrade)),
        ("GET /", &WEBSOCKET.replace("13", "8"), Err(Upgrade)),
        ("GET /", &WEBSOCKET.replace("dGhl", ""), Err(Upgrade)),
        ("GET /", &WEBSOCKET.replace("WebSocket\r\nSec", "websocket, websocket\r\nSec"), Err(Upgrade)),
        ("GET /", &format!("{WEBSOCKET}Upgrade: h2c\r\n"), Err(Upgrade)),
        ("GET /", &format!("{WEBSOCKET}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), Err(Upgrade)),
        (
            "GET /",
            "Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            Err(Upgrade),
        ),
        ("GET /", "Host: h\r\nUpgrade: h2c\r\n", Err(Upgrade)),
        ("GET /", "Host: h\r\nConnection: Upgrade\r\nUpgrade: other\r\n", Err(Upgrade)),
        ("GET /", "Host: h\r\nConnection: Upgrade\r\nUpgrade:\r\n", Err(Upgrade)),
    ];
    let policy = Policy::new(&rules());
    for (line, fields, expected) in rows {
        let head = head(line, fields);
        let found = policy.judge(&head, None, false);
        let target = found.as_ref().map(|judged| str::from_utf8(&judged.target).unwrap()).map_err(|reason| *reason);
        assert_eq!(target, *expected, "{line} {fields}");

        // Monitoring lets pass what may, with the same reason, and nothing else.
        let watched = policy.judge(&head, None, true);
        match found {
            Err(reason) if head.refusal.is_none() && reason.may_monitor() => {
                assert_eq!(watched.unwrap().monitored, Some(reason), "{line} {fields}");
            }
            found => assert_eq!(watched, found, "{line} {fields}"),
        }
    }
}

#[test]
fn what_is_judged_is_told() {
    let policy = Policy::new(&rules());
    let judged = policy.judge(&head("GET /", WEBSOCKET), None, false).unwrap();
    assert_eq!((judged.upgrade.as_deref(), judged.expect_continue), (Some(&b"websocket"[..]), false));
    let expects = "Host: h\r\nContent-Type: text/x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n";
    let judged = policy.judge(&head("POST /", expects), None, false).unwrap();
    assert_eq!((judged.upgrade, judged.expect_continue), (None, true));
    let old = parse(Bytes::from(format!("POST / HTTP/1.0\r\n{expects}\r\n"))).unwrap();
    assert!(!policy.judge(&old, None, false).unwrap().expect_continue);

    // Nothing that is not allowed is left under monitoring.
    let judged = policy
        .judge(&head("DELETE /a%2f..%2fb?c", "Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"), None, true)
        .unwrap();
    assert_eq!(
        (&judged.target[..], judged.upgrade, judged.monitored),
        (&b"/a%2f..%2fb?c"[..], None, Some(Reason::Method))
    );
}

#[test]
fn the_tls_name_is_the_host() {
    let policy = Policy::new(&Rules { hosts: vec![], ..rules() });
    for (name, host, serves) in [
        (None, "anything", true),
        (Some("a.example"), "A.example:443", true),
        (Some("A.example."), "a.example", true),
        (Some("a.example"), "b.example", false),
        (Some("a.example"), "192.0.2.1", false),
    ] {
        let found = policy.judge(&head("GET /", &format!("Host: {host}\r\n")), name, false);
        assert_eq!(found.is_ok(), serves, "{name:?} {host}");
    }
    let anonymous = parse(Bytes::from("GET / HTTP/1.0\r\n\r\n")).unwrap();
    assert!(policy.judge(&anonymous, Some("a.example"), false).is_ok());
    assert_eq!(Policy::new(&rules()).judge(&anonymous, None, false), Err(Reason::HostNotServed));
}

#[test]
fn what_is_normal_shares_memory() {
    let head = head("GET /a?b", "Host: h\r\n");
    let judged = Policy::new(&rules()).judge(&head, None, false).unwrap();
    assert_eq!((judged.path.as_ptr(), judged.target.as_ptr()), (head.raw[4..].as_ptr(), head.raw[4..].as_ptr()));
}

#[test]
fn http2_has_no_upgrades() {
    let limits = Limits { request_line: 100, headers: 100, header_count: 10 };
    let request =
        Http2 { method: b"GET", scheme: Some(b"https"), authority: Some(b"h"), path: b"/a/./b?c", end_of_stream: true };
    let head = from_http2(request, std::iter::empty(), &limits).unwrap();
    let judged = Policy::new(&rules()).judge(&head, Some("h"), false).unwrap();
    assert_eq!((&judged.target[..], judged.upgrade), (&b"/a/b?c"[..], None));
}

proptest! {
    /// Whatever the target, what goes upstream starts with a slash and keeps the query to the letter.
    #[test]
    fn targets_stay_targets(target in "(http://h)?/([a./;?%]|%2[eEf]|%[0-9a-f]{2}|\\?){0,10}", monitor: bool) {
        let head = head(&format!("GET {target}"), "Host: h\r\n");
        if let Ok(judged) = Policy::new(&rules()).judge(&head, None, monitor) {
            prop_assert_eq!(judged.target.first(), Some(&b'/'));
            let query = target.split_once('?').map(|(_, query)| query.as_bytes());
            let sent = judged.target.iter().position(|byte| *byte == b'?').map(|at| &judged.target[at + 1..]);
            prop_assert_eq!(sent, query);
            prop_assert!(judged.target.starts_with(&judged.path));
        }
    }
}
