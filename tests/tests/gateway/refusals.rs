//! What the policy of an API refuses: the answer, the record, and that the application hears nothing of it.

use std::time::Duration;

use tests::http::{http2, within};

use super::support::{ATTACK, Gateway, NO_BANS, assert_problem, host, wait_until};

const POLICY: &str = r#"
methods = ["GET", "POST"]
hosts = ["api.test", "*.example.test"]
content_types = ["application/json"]
[api.limits]
request_line = 200
headers = 1000
header_count = 10
body = "10KB"
[reputation]
threshold = 1000000
"#;

/// A request for `target` with these lines.
fn request(method: &str, target: &str, host: &str, fields: &str, body: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}")
}

#[test]
fn each_kind_of_bad_request_has_its_reason() {
    let gateway = Gateway::start(POLICY);
    let long = "a".repeat(300);
    let many: String = (0..11).map(|number| format!("X-{number}: y\r\n")).collect();
    let large: String = (0..5).map(|number| format!("X-{number}: {}\r\n", "y".repeat(300))).collect();
    let body = "a".repeat(10_001);
    let json = "Content-Type: application/json\r\n";
    for (what, bytes, reason, status) in [
        ("a method", request("DELETE", "/", "api.test", "", ""), "method", 405),
        ("a host", request("GET", "/", "other.test", "", ""), "host-not-served", 421),
        ("a domain itself", request("GET", "/", "example.test", "", ""), "host-not-served", 421),
        (
            "a content type",
            request("POST", "/", "api.test", "Content-Type: text/xml\r\nContent-Length: 2\r\n", "ab"),
            "content-type",
            415,
        ),
        (
            "two content types",
            request("POST", "/", "api.test", &format!("{json}{json}Content-Length: 2\r\n"), "ab"),
            "content-type",
            415,
        ),
        ("a request line", request("GET", &format!("/{long}"), "api.test", "", ""), "request-line-too-long", 414),
        ("headers", request("GET", "/", "api.test", &large, ""), "headers-too-large", 431),
        ("many headers", request("GET", "/", "api.test", &many, ""), "too-many-headers", 431),
        (
            "a length",
            request("POST", "/", "api.test", &format!("{json}Content-Length: 10001\r\n"), ""),
            "body-too-large",
            413,
        ),
        (
            "a body in chunks",
            request(
                "POST",
                "/upload",
                "api.test",
                &format!("{json}Transfer-Encoding: chunked\r\n"),
                &format!("2711\r\n{body}\r\n0\r\n\r\n"),
            ),
            "body-too-large",
            413,
        ),
        ("a path", request("GET", "/../etc/passwd", "api.test", "", ""), "path-above-root", 400),
        ("framing", String::from_utf8_lossy(ATTACK).into_owned(), "space-before-colon", 400),
        (
            "an expectation",
            request("POST", "/", "api.test", &format!("{json}Expect: a miracle\r\nContent-Length: 2\r\n"), "ab"),
            "expectation",
            417,
        ),
        ("an upgrade", request("GET", "/", "api.test", "Connection: upgrade\r\nUpgrade: irc\r\n", ""), "upgrade", 400),
    ] {
        let mark = gateway.agent.mark();
        let before = gateway.app.requests();
        let response = gateway.ask(0, bytes.as_bytes());
        assert_problem(&response, status);
        let event = gateway.refusal(mark, reason);
        assert_eq!(event.status(), Some(u64::from(status)), "{what}");
        assert_eq!(event.text("api"), Some("orders"), "{what}");
        // Whoever complains has the number to find the record by.
        let id = event.text("id").expect("an id");
        assert!(response.text().contains(id), "{what}: {} does not name {id}", response.text());
        // Of a body in chunks the beginning has been forwarded before it was too large.
        assert!(gateway.app.requests() == before || what == "a body in chunks", "{what} reached the application");
    }
    assert!(gateway.answers(0));
    let good = request("POST", "/", "a.example.test", &format!("{json}Content-Length: 2\r\n"), "ab");
    assert_eq!(gateway.ask(0, good.as_bytes()).status, 200);
}

#[test]
fn monitor_mode_tells_but_does_not_refuse_except_framing() {
    let gateway = Gateway::start(&format!("mode = \"monitor\"\n{POLICY}"));
    let mark = gateway.agent.mark();
    assert_eq!(gateway.ask(0, request("DELETE", "/monitored", "api.test", "", "").as_bytes()).status, 200);
    let event = gateway.record(mark, "/monitored");
    assert_eq!((&event.action[..], &event.reason[..]), ("monitor", "method"));
    assert_problem(&gateway.ask(0, ATTACK), 400);
    gateway.refusal(mark, "space-before-colon");
}

#[test]
fn http_2_is_held_to_the_same_policy() {
    let gateway = Gateway::start(POLICY);
    within(&gateway.world.client, async {
        let mut connection = http2::Connection::open(host()).await.unwrap();
        let mark = gateway.agent.mark();
        let response = connection.get("/a/%2e%2e/%2e%2e/etc").await.unwrap();
        assert_eq!(response.status, 400);
        gateway.refusal(mark, "path-above-root");
        // A stream is refused, not its neighbours.
        assert_eq!(connection.get("/").await.unwrap().status, 200);
    });
}

#[test]
fn floods_of_http_2_end_their_connection_alone() {
    let gateway = Gateway::start(NO_BANS);
    // Header bombs: 1,000 CONTINUATION frames without an end; SETTINGS and PING that want answers nobody reads.
    let headers = http2::frame(1, 0, 1, b"\x82\x84\x86");
    let continuation = http2::frame(9, 0, 1, &[b"\x00\x01a\x7f\x81\x01", &[b'a'; 256][..]].concat());
    let settings = http2::frame(4, 0, 0, &[]);
    let ping = http2::frame(6, 0, 0, &[0; 8]);
    for (what, first, then) in
        [("CONTINUATION", &headers[..], &continuation), ("SETTINGS", &b""[..], &settings), ("PING", &b""[..], &ping)]
    {
        let mut client = gateway.client(0);
        client.stream().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send(&http2::preface()).unwrap();
        client.send(first).unwrap();
        let flood: Vec<u8> = then.repeat(100);
        // It refuses to take more: the connection is reset, or nothing is read any longer.
        let refused = (0..100_000).any(|_| client.send(&flood).is_err());
        assert!(refused, "{what}: all of it was taken");
        drop(client);
        assert!(gateway.answers(1), "{what}");
    }
}

#[test]
fn rapid_resets_end_their_connection_alone() {
    let gateway = Gateway::start(NO_BANS);
    let mark = gateway.agent.mark();
    let opened = within(&gateway.world.client, http2::rapid_reset(host(), 100_000)).unwrap();
    assert!(opened < 20_000, "{opened} streams were taken");
    gateway.refusal(mark, "http2");
    assert!(gateway.answers(1));
    wait_until("idle", || gateway.app.requests() < 20_000);
}

#[test]
fn connections_of_one_client_are_limited() {
    let gateway = Gateway::start(&format!("[api.limits]\nconnections_per_client = 5\n{NO_BANS}"));
    let mut held: Vec<_> = (0..5).map(|_| gateway.client(0)).collect();
    for client in &mut held {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    let mark = gateway.agent.mark();
    assert!(!gateway.answers(0));
    gateway.refusal(mark, "connections-per-client");
    assert!(gateway.answers(1));
    held.pop();
    wait_until("let in again", || gateway.answers(0));
}
