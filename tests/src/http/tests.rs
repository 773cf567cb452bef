//! Clients and upstreams with nothing between them.

use std::{net::SocketAddr, time::Duration};

use super::{
    app::{App, Seen},
    body::{Digest, pattern},
    curl::{Http, curl},
    grpc::Call,
    http2,
    load::{Load, Use},
    raw::Client,
    recorder::Recorder,
    tls::{Authority, serve_page, shown},
    websocket::Socket,
    within,
};
use crate::netns::{HOST_V4, HOST_V6, World};

const PORT: u16 = 8080;

fn any() -> SocketAddr {
    format!("[::]:{PORT}").parse().unwrap()
}

fn host() -> SocketAddr {
    format!("{HOST_V4}:{PORT}").parse().unwrap()
}

#[test]
fn http_1_and_2_are_served_on_one_port() {
    let world = World::new().unwrap();
    let app = App::start(&world.host, any()).unwrap();
    for (server, http, version) in [
        (format!("http://{HOST_V4}:{PORT}"), Http::One, "HTTP/1.1"),
        (format!("http://[{HOST_V6}]:{PORT}"), Http::One, "HTTP/1.1"),
        (format!("http://{HOST_V4}:{PORT}"), Http::TwoByPriorKnowledge, "HTTP/2.0"),
    ] {
        let url = format!("{server}/a?b=c");
        let answer = curl(&world.client, http, None, &["-H", "X-Test: yes", "-d", "12345", &url]).unwrap();
        let seen: Seen = serde_json::from_value(answer.response.json().unwrap()).unwrap();
        assert_eq!((&seen.method[..], &seen.version[..], seen.body), ("POST", version, 5));
        assert!(seen.target.ends_with("/a?b=c"), "{}", seen.target);
        assert_eq!(seen.values("x-test"), ["yes"]);
        let answer = curl(&world.client, http, None, &["-r", "10-70000", &format!("{server}/bytes/100000")]).unwrap();
        assert_eq!((answer.response.status, answer.response.body), (206, pattern(10, 70_001).to_vec()));
        let digest = Digest::of_pattern(300_000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pattern(0, 300_000)).unwrap();
        let upload =
            curl(&world.client, http, None, &["-T", &file.path().display().to_string(), &format!("{server}/upload")]);
        let json = upload.unwrap().response.json().unwrap();
        assert_eq!(json, serde_json::json!({ "bytes": digest.bytes, "hash": digest.hash.to_string() }));
        assert!(curl(&world.client, http, None, &[&format!("{server}/drop")]).is_err());
        assert!(curl(&world.client, http, None, &[&format!("{server}/half")]).is_err());
        assert_eq!(curl(&world.client, http, None, &[&format!("{server}/status/418")]).unwrap().response.status, 418);
        let events = curl(&world.client, http, None, &[&format!("{server}/sse/3/10")]).unwrap().response.text();
        assert_eq!(events.matches("data: event").count(), 3, "{events}");
    }
    assert!(app.requests() >= app.connections());
    let mut client = Client::open(&world.client, host()).unwrap();
    assert_eq!(client.get("/chunked").unwrap().text(), "one two three");
    client.send(b"HEAD /bytes/10 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response(true).unwrap().unwrap().header("content-length"), Some("10"));
    client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert_eq!(client.any_response(false).unwrap().unwrap().status, 100);
    client.send(b"x").unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().status, 200);
    client.send(b"\x01\r\n\r\n").unwrap();
    assert!(client.is_closed(Duration::from_secs(2)));
}

#[test]
fn websocket_and_grpc_go_both_ways() {
    let world = World::new().unwrap();
    let _app = App::start(&world.host, any()).unwrap();
    within(&world.client, async {
        let mut socket = Socket::open(host()).await.unwrap();
        for words in ["one", "two"] {
            assert_eq!(socket.say(words).await.unwrap(), words);
        }
        let mut connection = http2::Connection::open(host()).await.unwrap();
        let mut call = Call::start(&mut connection, "Chat").await.unwrap();
        for message in [&b"one"[..], b"", &[7; 100_000]] {
            call.say(message).await.unwrap();
            assert_eq!(call.next().await.unwrap().unwrap(), message);
        }
        call.finish();
        assert_eq!((call.next().await.unwrap(), call.status()), (None, Some("0")));
        let failed = Call::start(&mut connection, "Fail").await.unwrap();
        assert_eq!(failed.status(), Some("5"));
    });
}

#[test]
fn a_recorder_keeps_bytes_and_tells_faults() {
    let world = World::new().unwrap();
    let recorder = Recorder::start(&world.host, any()).unwrap();
    let mut client = Client::open(&world.client, host()).unwrap();
    let good = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    client.send(good.as_bytes()).unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().text(), "ok");
    let received = recorder.take();
    assert_eq!((received.messages.len(), received.faults.len(), received.partial), (1, 0, 0));
    client.send(&good.as_bytes()[..good.len() - 1]).unwrap();
    client.finish().unwrap();
    assert!(client.is_closed(Duration::from_secs(2)) && recorder.settle(Duration::from_secs(2)));
    assert_eq!(recorder.take().partial, 1);
    assert_eq!(recorder.bytes(), [[good, &good[..good.len() - 1]].concat().into_bytes()]);
    let mut client = Client::open(&world.client, host()).unwrap();
    client.send(b"GET /a HTTP/1.1\nHost: a\r\n\r\n").unwrap();
    assert!(client.is_closed(Duration::from_secs(2)));
    assert_eq!(recorder.take().faults.len(), 1);
}

#[test]
fn certificates_are_told_apart() {
    let world = World::new().unwrap();
    let authority = Authority::new().unwrap();
    let [first, second] = ["api.test", "other.test"].map(|name| authority.issue(name, &[name]).unwrap());
    assert_ne!(first.certificate(), second.certificate());
    let toml = Authority::toml(&[&first, &second]);
    assert!(toml.contains("{ chain = \"") && toml.matches(".key\" }").count() == 2, "{toml}");
    let server = serve_page(&world.host, 8443, &first).unwrap();
    let address = format!("{HOST_V4}:8443").parse().unwrap();
    let client = authority.client(&[], None).unwrap();
    let certificate = shown(&within(&world.client, client.connect(None, address, "api.test")).unwrap());
    assert_eq!(certificate.as_ref(), Some(first.certificate()));
    assert!(within(&world.client, client.connect(None, address, "other.test")).is_err());
    drop(server);
}

#[test]
fn load_counts_what_failed() {
    let world = World::new().unwrap();
    let app = App::start(&world.host, any()).unwrap();
    let [kept, fresh] = [Use::Kept, Use::Fresh].map(|kind| Load::start(&world.client, 2, host(), kind));
    assert!(kept.wait_for(50, Duration::from_secs(5)) && fresh.wait_for(50, Duration::from_secs(5)));
    drop(app);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while kept.failures().is_empty() || fresh.failures().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(kept.stop().0 >= 50 && !fresh.stop().1.is_empty());
}
