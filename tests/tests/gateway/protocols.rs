//! Good requests of every protocol, through a steered port and through a reverse proxy.

use std::{net::SocketAddr, time::Duration};

use tests::{
    agent::Agent,
    http::{
        app::App,
        body::{Digest, pattern},
        curl::{Http, curl},
        grpc::Call,
        http2,
        raw::Client,
        tls::Authority,
        websocket::Socket,
        within,
    },
    netns::{HOST_V4, World},
};

use super::support::{Gateway, NO_BANS, PORT, SOON, at, host, host_v6};

/// What each kind of client gets of an API at this URL.
#[track_caller]
fn assert_works(world: &World, url: &str, kinds: &[Http]) {
    for &http in kinds {
        let ask = |more: &[&str], path: &str| {
            let url = format!("{url}{path}");
            curl(&world.client, http, None, &[more, &[&url]].concat())
                .unwrap_or_else(|error| panic!("{http:?} {url}: {error:#}"))
        };
        let answer = ask(&[], "/a/../b?c=d");
        assert_eq!(answer.response.status, 200);
        assert_eq!(answer.http, if http == Http::One { "1.1" } else { "2" });
        let seen = answer.response.json().unwrap();
        assert!(seen["target"].as_str().unwrap().ends_with("/b?c=d"), "{seen}");
        assert_eq!(ask(&["-X", "POST", "-d", "12345"], "/").response.json().unwrap()["body"], 5);
        assert_eq!(ask(&["-I"], "/bytes/1000").response.header("content-length"), Some("1000"));
        assert_eq!(ask(&["-r", "10-19"], "/bytes/1000").response.body, pattern(10, 20));
        assert_eq!(ask(&[], "/bytes/3000000").response.body, pattern(0, 3_000_000));
        assert_eq!(ask(&[], "/chunked").response.text(), "one two three");
        assert_eq!(ask(&[], "/status/204").response.status, 204);
        assert_eq!(ask(&[], "/status/503").response.status, 503);
        assert_eq!(ask(&[], "/sse/3/20").response.text().matches("data: event").count(), 3);
        if http == Http::One {
            // Over HTTP/2 the stream may end before curl has sent its body, which curl 7.88 takes for an error.
            assert_eq!(ask(&["-d", "x"], "/early").response.text(), "early");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        // Over HTTP/2, curl 7.88 sends bytes twice when its socket is full: more than the length it gave.
        let length = if http == Http::One { 3_000_000 } else { 10_000 };
        std::fs::write(file.path(), pattern(0, length)).unwrap();
        let path = file.path().display().to_string();
        let digest = Digest::of_pattern(length);
        for more in [
            &["-T", &path][..],
            &["-T", &path, "-H", "Expect: 100-continue"],
            &["-T", &path, "-H", "Transfer-Encoding: chunked"],
        ] {
            // HTTP/2 has no chunks; curl leaves the header out there.
            assert_eq!(ask(more, "/upload").response.json().unwrap()["hash"], digest.hash.to_string(), "{more:?}");
        }
    }
}

#[test]
fn a_steered_port_serves_http_1_and_2() {
    let gateway = Gateway::start(NO_BANS);
    assert_works(&gateway.world, &format!("http://{HOST_V4}:{PORT}"), &[Http::One, Http::TwoByPriorKnowledge]);
    let mark = gateway.agent.mark();
    let mut client = Client::open(&gateway.world.client, host_v6()).unwrap();
    assert_eq!(client.get("/six?secret=1").unwrap().status, 200);
    let event = gateway.record(mark, "/six");
    assert_eq!((&event.action[..], event.status(), event.text("api")), ("pass", Some(200), Some("orders")));
    assert_eq!(
        (event.text("method"), event.text("version"), event.text("host")),
        (Some("GET"), Some("HTTP/1.1"), Some("api.test"))
    );
    assert_eq!(event.source, Some(client.stream().local_addr().unwrap().ip()));
    assert!(!format!("{event:?}").contains("secret"), "{event:?}");
    assert_eq!(gateway.agent.strange_lines(), Vec::<String>::new());
}

#[test]
fn a_reverse_proxy_serves_http_1_and_2_over_tls() {
    let world = World::new().unwrap();
    let app = App::start(&world.host, at("127.0.0.1", 9000)).unwrap();
    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test", HOST_V4]).unwrap();
    let config = format!(
        "interfaces = [\"eth0\"]\n[[api]]\nname = \"orders\"\nlisten = \"{HOST_V4}:8443\"\nupstream = \"http://{}\"\n{}{NO_BANS}",
        app.address(),
        Authority::toml(&[&pair])
    );
    let _agent = Agent::start(&world, &config).unwrap();
    assert_works(&world, &format!("https://{HOST_V4}:8443"), &[Http::One, Http::Two]);
    let server: SocketAddr = at(HOST_V4, 8443);
    let client = authority.client(&["h2"], None).unwrap();
    within(&world.client, async {
        let stream = client.connect(None, server, "api.test").await.unwrap();
        let mut connection = http2::Connection::over(stream, "https").await.unwrap();
        assert_echoes(&mut connection).await;
        let client = authority.client(&["http/1.1"], None).unwrap();
        let mut socket = Socket::over(client.connect(None, server, "api.test").await.unwrap()).await.unwrap();
        assert_eq!(socket.say("over TLS").await.unwrap(), "over TLS");
    });
}

async fn assert_echoes(connection: &mut http2::Connection) {
    let mut call = Call::start(connection, "Unary").await.unwrap();
    call.say(b"one").await.unwrap();
    call.finish();
    assert_eq!(call.next().await.unwrap().unwrap(), &b"one"[..]);
    assert_eq!((call.next().await.unwrap(), call.status()), (None, Some("0")));
    // Each message comes back before the next is sent: nobody waits for the end.
    let mut call = Call::start(connection, "Chat").await.unwrap();
    for message in [&b"one"[..], b"", &[7; 100_000], b"last"] {
        call.say(message).await.unwrap();
        assert_eq!(call.next().await.unwrap().unwrap(), message);
    }
    call.finish();
    assert_eq!((call.next().await.unwrap(), call.status()), (None, Some("0")));
    let failed = Call::start(connection, "Fail").await.unwrap();
    assert_eq!(failed.status(), Some("5"));
}

#[test]
fn grpc_and_websocket_go_both_ways() {
    let gateway = Gateway::start(NO_BANS);
    let mark = gateway.agent.mark();
    within(&gateway.world.client, async {
        let mut connection = http2::Connection::open(host()).await.unwrap();
        assert_echoes(&mut connection).await;
        let mut socket = Socket::open(host()).await.unwrap();
        for words in ["one", "two", &"long ".repeat(50_000)] {
            assert_eq!(socket.say(words).await.unwrap(), words);
        }
    });
    assert_eq!(gateway.record(mark, "/ws").status(), Some(101));
    assert_eq!(gateway.record(mark, "/test.Echo/Chat").text("version"), Some("HTTP/2"));
}

#[test]
fn events_and_chunks_are_not_held_back() {
    let gateway = Gateway::start(NO_BANS);
    let mut client = gateway.client(0);
    client.send(b"GET /sse/1000/50 HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    client.patience(Duration::from_secs(2)).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&got).contains("data: event 5") {
        let length = std::io::Read::read(&mut client.stream(), &mut buffer).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&got));
        got.extend(&buffer[..length]);
    }
    // Six of 1,000 events are here: the answer is far from its end.
    assert!(!String::from_utf8_lossy(&got).contains("data: event 20"));
}

#[test]
fn a_long_poll_waits_for_its_answer() {
    let gateway = Gateway::start(NO_BANS);
    let mut waiting = gateway.client(0);
    waiting.send(b"GET /poll HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    super::support::wait_until("waiting", || gateway.app.requests() == 1);
    assert_eq!(gateway.client(1).get("/poke").unwrap().text(), "done");
    assert_eq!(waiting.response(false).unwrap().unwrap().text(), "poked");
}

#[test]
fn a_hundred_is_answered_when_the_upstream_wants_the_body() {
    let gateway = Gateway::start(NO_BANS);
    let mut client = gateway.client(0);
    client.patience(SOON).unwrap();
    client
        .send(b"POST /upload HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(client.any_response(false).unwrap().unwrap().status, 100);
    client.send(b"abcde").unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().json().unwrap()["bytes"], 5);
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn faults_of_the_upstream_are_told_and_blamed_on_nobody() {
    let gateway = Gateway::start("[reputation]\nthreshold = 1\n");
    for _ in 0..10 {
        let mark = gateway.agent.mark();
        let response = gateway.ask(0, b"GET /drop HTTP/1.1\r\nHost: api.test\r\n\r\n");
        super::support::assert_problem(&response, 502);
        assert_eq!(gateway.record(mark, "/drop").reason, "upstream-protocol");
    }
    let mut client = gateway.client(0);
    client.send(b"GET /half HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    let half = client.response(false);
    assert!(half.is_err(), "half an answer was passed off as a whole one: {half:?}");
    assert!(gateway.answers(0));
}
