//! Clients that hold on to what they get, and hide behind what others may do: tunnels, windows, types of content.

use std::{
    io::{Read as _, Write as _},
    thread::sleep,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Request, body::Frame, header::HeaderValue};
use tests::http::{body::Stream, http2, raw::Client, within};

use super::support::{ATTACK, Gateway, NO_BANS, SOON, assert_problem, host, wait_until};

const SHORT: &str = "[api.timeouts]\nhead = \"1s\"\nbody = \"1s\"\nidle = \"3s\"\n";
const WEBSOCKET: &[u8] = b"GET /ws HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// A tunnel from the client's `n`th address.
fn tunnel(gateway: &Gateway, n: u8) -> Client {
    let mut client = gateway.client(n);
    client.send(WEBSOCKET).unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().status, 101);
    client
}

/// Whether a message comes back through a tunnel.
fn echoes(client: &Client) -> bool {
    // "hi", masked with zeros; what comes back is not masked.
    let mut stream = client.stream();
    let mut back = [0; 4];
    stream.write_all(b"\x81\x82\0\0\0\0hi").is_ok() && stream.read_exact(&mut back).is_ok() && back == *b"\x81\x02hi"
}

#[test]
fn tunnels_count_as_connections_and_end_with_a_ban() {
    let gateway = Gateway::start("[api.limits]\nconnections_per_client = 4\n");
    let mark = gateway.agent.mark();
    let held: Vec<_> = (0..4).map(|_| tunnel(&gateway, 0)).collect();
    assert!(held.iter().all(echoes));
    assert!(!gateway.answers(0));
    gateway.refusal(mark, "connections-per-client");
    drop(held);
    wait_until("let in again", || gateway.answers(0));
    let open = tunnel(&gateway, 0);
    let others = tunnel(&gateway, 1);
    for _ in 0..5 {
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    wait_until("banned", || !gateway.agent.bans().unwrap().is_empty());
    open.patience(Duration::from_secs(2)).unwrap();
    // Nothing reaches the client any more, a reset neither: what it says next does not come back.
    assert!(!echoes(&open), "a tunnel outlives the ban");
    assert!(echoes(&others));
}

#[test]
fn a_head_has_its_time_whatever_came_before() {
    let gateway = Gateway::start(&format!("{SHORT}{NO_BANS}"));
    let get = "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n";
    let post = "POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\nabc";
    // Its beginning came with the request before, or might still be HTTP/2.
    for before in [get, post] {
        let mark = gateway.agent.mark();
        let mut client = gateway.client(0);
        client.send(format!("{before}GET / HT").as_bytes()).unwrap();
        assert_eq!(client.response(false).unwrap().unwrap().status, 200);
        let began = Instant::now();
        assert_problem(&client.response(false).unwrap().unwrap(), 408);
        assert!(began.elapsed() < Duration::from_secs(2), "after {:?}", began.elapsed());
        gateway.refusal(mark, "head-timeout");
    }
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    client.send(b"PRI * HT").unwrap();
    assert!(client.is_closed(Duration::from_secs(2)));
    gateway.refusal(mark, "head-timeout");
}

#[test]
fn a_connection_is_idle_from_the_end_of_an_answer() {
    let gateway = Gateway::start(&format!("{SHORT}{NO_BANS}"));
    let mut client = gateway.client(0);
    assert_eq!(client.get("/slow/4000").unwrap().text(), "slow");
    sleep(Duration::from_secs(1));
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn unused_connections_weigh_nothing() {
    let gateway = Gateway::start(&format!("{SHORT}[reputation]\nthreshold = 1\n"));
    let mut idle: Vec<_> = (0..5).map(|_| gateway.client(0)).collect();
    let mut used = gateway.client(0);
    assert_eq!(used.get("/").unwrap().status, 200);
    idle.push(used);
    assert!(idle.iter_mut().all(|client| client.is_closed(Duration::from_secs(5))));
    let bans = gateway.agent.bans().unwrap();
    assert!(bans.is_empty(), "{bans:?} after {:?}", gateway.agent.events());
    assert!(gateway.answers(0));
    let mut slow = gateway.client(0);
    slow.send(b"G").unwrap();
    wait_until("banned", || !gateway.agent.bans().unwrap().is_empty());
}

#[test]
fn a_type_of_content_buys_no_time() {
    let gateway = Gateway::start(&format!("{SHORT}{NO_BANS}"));
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    let head =
        "POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/grpc\r\nContent-Length: 1000\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) && client.send(b"x").is_ok() {
        sleep(Duration::from_millis(100));
    }
    gateway.refusal(mark, "body-timeout");
}

#[test]
fn windows_that_stay_closed_are_told() {
    let gateway = Gateway::start(&format!("{SHORT}{NO_BANS}"));
    // SETTINGS_INITIAL_WINDOW_SIZE of 0, and GETs: of something large, and of what is refused.
    let settings = http2::frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let large = b"\x82\x86\x00\x05:path\x0e/bytes/3000000\x00\x0a:authority\x08api.test";
    let refused = b"\x82\x86\x00\x05:path\x05/../x\x00\x0a:authority\x08api.test";
    for block in [&large[..], refused] {
        let mark = gateway.agent.mark();
        let mut client = gateway.client(0);
        client.send(&http2::preface()).unwrap();
        client.send(&settings).unwrap();
        client.send(&http2::frame(1, 5, 1, block)).unwrap();
        let told = gateway.agent.wait_event_since(mark, |event| event.reason == "slow-reader", Duration::from_secs(10));
        assert!(told.is_some(), "{}", block.escape_ascii());
        assert!(client.is_closed(SOON));
    }
    assert!(gateway.answers(1));
}

#[test]
fn header_bombs_take_no_memory() {
    let gateway = Gateway::start(NO_BANS);
    assert!(gateway.answers(0));
    let before = gateway.resident();
    // One header of 3,900 bytes in the table, and references to it: 16,000 bytes that mean 60 MB.
    let value = [b'a'; 3900];
    let length = [&b"\x7f"[..], &[0xbd, 0x1d]].concat();
    let first = [&b"\x82\x86\x84\x40\x01x"[..], &length, &value].concat();
    let bomb = [&first[..], &vec![0xbe; 12_000]].concat();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.client(0);
        client.send(&http2::preface()).unwrap();
        for stream in 0..50 {
            if client.send(&http2::frame(1, 5, 1 + 2 * stream, &bomb)).is_err() {
                break;
            }
        }
        held.push(client);
    }
    assert!(gateway.answers(1));
    let growth = gateway.resident().saturating_sub(before) >> 20;
    assert!(growth < 60, "{growth} MiB");
}

#[test]
fn bodies_in_crumbs_take_little_memory() {
    let gateway = Gateway::start(NO_BANS);
    assert!(gateway.answers(0));
    // What starting took is given back by and by.
    sleep(Duration::from_secs(2));
    let before = gateway.resident();
    let (mut held, mut peak) = (Vec::new(), 0);
    for _ in 0..8 {
        // Over HTTP/1 in chunks of one byte, to an application that reads none of it.
        let mut client = gateway.client(0);
        client.patience(Duration::from_millis(500)).unwrap();
        client.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        client.send(b"POST /slow/20000 HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let crumbs = b"1\r\nx\r\n".repeat(10_000);
        while client.send(&crumbs).is_ok() {}
        held.push(client);
        peak = peak.max(gateway.resident());
        // Over HTTP/2 in frames of one byte.
        let mut client = gateway.client(0);
        client.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        client.send(&http2::preface()).unwrap();
        let block = b"\x83\x86\x00\x05:path\x0b/slow/20000\x00\x0a:authority\x08api.test";
        for stream in 0..4 {
            client.send(&http2::frame(1, 4, 1 + 2 * stream, block)).unwrap();
        }
        for stream in 0..4 {
            let crumbs = http2::frame(0, 0, 1 + 2 * stream, b"x").repeat(60_000);
            let _cut = client.send(&crumbs);
        }
        held.push(client);
    }
    peak = peak.max(gateway.resident());
    let growth = peak.saturating_sub(before) >> 20;
    assert!(growth < 60, "{growth} MiB");
    assert!(gateway.answers(1));
}

#[test]
fn trailers_are_held_to_what_headers_are() {
    let gateway = Gateway::start(NO_BANS);
    within(&gateway.world.client, async {
        let mut connection = http2::Connection::open(host()).await.unwrap();
        let (feeder, body) = Stream::new(None);
        let request = Request::post("http://api.test/seen").body(body).unwrap();
        feeder.send(Frame::data("abc".into())).await.unwrap();
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "x-forwarded-for", "authorization", "x-original-url"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        feeder.send(Frame::trailers(trailers)).await.unwrap();
        drop(feeder);
        let answer = connection.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let seen: tests::http::app::Seen = serde_json::from_slice(&answer).unwrap();
        assert_eq!((seen.version.as_str(), seen.body), ("HTTP/2.0", 3));
        assert_eq!(seen.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    });
}

#[test]
fn an_answer_may_overtake_its_request_over_http_2() {
    let gateway = Gateway::start(NO_BANS);
    within(&gateway.world.client, async {
        for round in 0..100 {
            let mut connection = http2::Connection::open(host()).await.unwrap();
            let request = Request::post("http://api.test/early").body(Stream::full("x")).unwrap();
            let answer = connection.send(request).await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
            assert_eq!(body.to_bytes(), "early", "round {round}");
        }
    });
}

#[test]
fn an_answer_may_overtake_its_request_over_http_1() {
    let gateway = Gateway::start(NO_BANS);
    let head = "POST /early HTTP/1.1\r\nHost: api.test\r\n";
    let body = "x".repeat(300_000);
    let mut client = gateway.client(0);
    for round in 0..100 {
        // What is left of the request is forgotten, and the connection goes on.
        let request = match round % 2 {
            0 => format!("{head}Content-Length: 300000\r\n\r\n{body}"),
            _ => format!("{head}Transfer-Encoding: chunked\r\n\r\n493e0\r\n{body}\r\n0\r\n\r\n"),
        };
        client.send(request.as_bytes()).unwrap();
        let answer = client.response(false).unwrap().unwrap_or_else(|| panic!("round {round}: closed"));
        assert_eq!((answer.status, answer.header("connection")), (200, None), "round {round}");
    }
    // As long as it soon comes to an end.
    client.send(format!("{head}Content-Length: 300000\r\n\r\nabc").as_bytes()).unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().status, 200);
    assert!(client.response(false).unwrap().is_none());
}

#[test]
fn what_would_be_too_large_passes_under_monitoring() {
    let gateway = Gateway::start(&format!("mode = \"monitor\"\n[api.limits]\nbody = \"1KB\"\n{NO_BANS}"));
    let body = "x".repeat(5000);
    for (fields, body) in
        [("Content-Length: 5000", body.clone()), ("Transfer-Encoding: chunked", format!("1388\r\n{body}\r\n0\r\n\r\n"))]
    {
        let mark = gateway.agent.mark();
        let request = format!("POST /upload HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n\r\n{body}");
        let answer = gateway.ask(0, request.as_bytes());
        assert_eq!((answer.status, &answer.json().unwrap()["bytes"]), (200, &5000.into()), "{fields}");
        let event = gateway.record(mark, "/upload");
        assert_eq!((&event.action[..], &event.reason[..]), ("monitor", "body-too-large"), "{fields}");
    }
}

#[test]
fn what_is_monitored_does_not_hide_what_is_refused() {
    let gateway = Gateway::start(&format!("mode = \"monitor\"\nmethods = [\"GET\"]\n{SHORT}{NO_BANS}"));
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    client.send(b"POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\nabc").unwrap();
    assert_problem(&client.response(false).unwrap().unwrap(), 408);
    gateway.refusal(mark, "body-timeout");
}
