//! Upstreams that lie, break off or say too much: nobody but the one who asked is hit, and nobody takes a part for the
//! whole.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tests::{
    agent::Agent,
    http::{Server, raw::Client},
    netns::World,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{API, NO_BANS, PORT, SOON, assert_problem, at, host, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
/// Asks for a WebSocket at this path.
fn websocket(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n")
}

/// What the upstream says to a request for this path; then, whether the connection ends.
fn answer(path: &str) -> (String, bool) {
    let switch = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{fields}\r\n");
    let (text, ends) = match path {
        "/both" => {
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false)
        }
        "/lengths" => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false),
        "/differing" => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", false),
        "/list" => ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", false),
        "/signed" => ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false),
        "/coding" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false),
        "/identity" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", true),
        "/return" => ("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\nok", false),
        "/nul" => ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", false),
        "/folded" => ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", false),
        "/nonsense" => ("+OK POP3 ready\r\n", false),
        "/unasked" => return (switch("Upgrade: websocket\r\n") + POISON, false),
        "/ws-other" => return (switch("Upgrade: irc\r\n") + POISON, false),
        "/ws-two" => return (switch("Upgrade: websocket, irc\r\n") + POISON, false),
        "/ws-none" => return (switch("") + POISON, false),
        "/ws" => return (switch("Upgrade: WebSocket\r\n") + "welcome", false),
        "/after" | "/head" | "/304" | "/204" => {
            let status = match path {
                "/304" => "304 Not Modified",
                "/204" => "204 No Content",
                _ => return (format!("{OK}{POISON}"), false),
            };
            return (format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()), false);
        }
        "/many-hundreds" => return (["HTTP/1.1 100 Continue\r\n\r\n"; 5000].concat() + OK, false),
        "/short" => ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.", true),
        "/short-chunks" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nten bytes.\r\n", true),
        "/bad-chunks" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nten bytes.\r\nzz\r\n", false),
        "/short-head" => ("HTTP/1.1 200 OK\r\nContent-Le", true),
        "/once" => ("", true),
        _ => (OK, false),
    };
    (text.to_owned(), ends)
}

/// Request lines, each with the number of its connection.
type Asked = Arc<Mutex<Vec<(usize, String)>>>;

struct Bench {
    world: World,
    agent: Agent,
    asked: Asked,
    _server: Server,
}

impl Bench {
    fn start(more: &str) -> Self {
        let world = World::new().unwrap();
        let asked = Asked::default();
        let (told, connections) = (Arc::clone(&asked), Arc::new(Mutex::new(0)));
        let server = Server::start(&world.host, at("::", PORT), move |stream, _| {
            let mut count = connections.lock().unwrap();
            *count += 1;
            serve(stream, *count, Arc::clone(&told))
        });
        let agent = Agent::start(&world, &format!("{API}{more}{NO_BANS}")).unwrap();
        Self { world, agent, asked, _server: server.unwrap() }
    }

    fn client(&self) -> Client {
        Client::open(&self.world.client, host()).unwrap()
    }

    /// Connections over which requests for this path came.
    fn connections(&self, path: &str) -> Vec<usize> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, asked)| asked == path).map(|(number, _)| *number).collect()
    }

    #[track_caller]
    fn assert_failure(&self, mark: usize, path: &str) {
        let wanted = |event: &tests::agent::Event| event.text("path") == Some(path);
        let event = self.agent.wait_event_since(mark, wanted, SOON).unwrap();
        assert_eq!((&event.action[..], &event.reason[..]), ("fail", "upstream-protocol"), "{path}");
    }
}

async fn serve(mut stream: TcpStream, number: usize, asked: Asked) {
    let mut got = Vec::new();
    loop {
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(length @ 1..) => got.extend(&buffer[..length]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        got.drain(..end + 4);
        asked.lock().unwrap().push((number, path.clone()));
        if path == "/hundreds" {
            while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return;
        }
        let (text, ends) = answer(&path);
        if stream.write_all(text.as_bytes()).await.is_err() || ends {
            return;
        }
        if path == "/later" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if stream.write_all(POISON.as_bytes()).await.is_err() {
                return;
            }
        }
        if path == "/early" {
            // Takes the rest and never answers: who comes next must not be here.
            while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
            return;
        }
    }
}

#[test]
fn answers_that_readers_might_take_differently_are_not_passed_on() {
    let bench = Bench::start("");
    for path in [
        "/both",
        "/lengths",
        "/differing",
        "/list",
        "/signed",
        "/coding",
        "/identity",
        "/return",
        "/nul",
        "/folded",
        "/nonsense",
        "/unasked",
        "/short-head",
    ] {
        let mark = bench.agent.mark();
        let mut client = bench.client();
        client.send(get(path).as_bytes()).unwrap();
        let response = client.response(false).unwrap().expect(path);
        assert_eq!(response.status, 502, "{path}");
        assert_problem(&response, 502);
        bench.assert_failure(mark, path);
        // The client's connection goes on, over another to the upstream.
        assert_eq!(client.get("/").unwrap().text(), "ok", "{path}");
    }
}

#[test]
fn only_the_switch_that_was_asked_for_opens_a_tunnel() {
    let bench = Bench::start("");
    for path in ["/ws-other", "/ws-two", "/ws-none"] {
        let mark = bench.agent.mark();
        let mut client = bench.client();
        client.send(websocket(path).as_bytes()).unwrap();
        assert_problem(&client.response(false).unwrap().expect(path), 502);
        bench.assert_failure(mark, path);
        // It is HTTP still, and judged as such.
        assert_problem(&client.get("/../x").unwrap(), 400);
        assert_eq!(client.get("/").unwrap().text(), "ok", "{path}");
    }
    // An upstream that does not switch, and a client that takes it for granted: what it sent is no frame, but HTTP.
    let mut client = bench.client();
    client.send(format!("{}{}", websocket("/no"), get("/second")).as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(client.response(false).unwrap().unwrap().text(), "ok");
    }
    let mut client = bench.client();
    client.send(&[websocket("/no").as_bytes(), b"\x81\x85\0\0\0\0hello"].concat()).unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().text(), "ok");
    assert_problem(&client.response(false).unwrap().unwrap(), 400);
    // One that switches: what the client sent before is the tunnel's, and never HTTP.
    let mut client = bench.client();
    client.send(format!("{}{}", websocket("/ws"), get("/tunnelled")).as_bytes()).unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().header("upgrade"), Some("WebSocket"));
    wait_until("through", || !bench.connections("/tunnelled").is_empty());
    assert_eq!(bench.connections("/tunnelled"), bench.connections("/ws"));
    // `close` and `upgrade` contradict each other.
    let mut client = bench.client();
    let closing = websocket("/ws").replace("Connection: Upgrade", "Connection: close, upgrade");
    client.send(format!("{closing}{}", get("/smuggled")).as_bytes()).unwrap();
    assert_problem(&client.response(false).unwrap().unwrap(), 400);
    assert!(client.is_closed(SOON) && bench.connections("/smuggled").is_empty());
}

#[test]
fn an_upstream_connection_in_doubt_serves_nobody_else() {
    let bench = Bench::start("");
    for (path, bodiless) in [("/after", false), ("/later", false), ("/head", true), ("/304", false), ("/204", false)] {
        for _ in 0..5 {
            let method = if bodiless { "HEAD" } else { "GET" };
            let mut client = bench.client();
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes()).unwrap();
            assert!(client.response(bodiless).unwrap().unwrap().status < 400, "{path}");
            if path == "/later" {
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(client.get("/next").unwrap().text(), "ok", "{path}");
            assert_eq!(bench.client().get("/next").unwrap().text(), "ok", "{path}");
        }
        let asked = bench.asked.lock().unwrap();
        for (place, (number, _)) in asked.iter().enumerate().filter(|(_, (_, asked))| asked == path) {
            let after = asked[place + 1..].iter().find(|(other, _)| other == number);
            assert_eq!(after, None, "came over the same connection as {path}");
        }
    }
    // An answer that overtook its request.
    let mut client = bench.client();
    client.send(b"POST /early HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1000\r\n\r\nabc").unwrap();
    assert_eq!(client.response(false).unwrap().unwrap().text(), "ok");
    assert_eq!(bench.client().get("/").unwrap().text(), "ok");
    // A kept one is used again, so the above means something.
    let mut client = bench.client();
    for _ in 0..3 {
        assert_eq!(client.get("/kept").unwrap().text(), "ok");
    }
    let kept = bench.connections("/kept");
    assert!(kept.iter().all(|number| *number == kept[0]), "{kept:?}");
}

#[test]
fn a_request_is_never_sent_twice() {
    let bench = Bench::start("");
    for method in ["GET", "POST", "PUT", "DELETE"] {
        // So that there is a connection to be reused.
        let mut client = bench.client();
        assert_eq!(client.get("/").unwrap().text(), "ok");
        let before = bench.connections("/once").len();
        client.send(format!("{method} /once HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes()).unwrap();
        assert_problem(&client.response(false).unwrap().unwrap(), 502);
        assert_eq!(client.get("/").unwrap().text(), "ok");
        assert_eq!(bench.connections("/once").len(), before + 1, "{method}");
    }
}

#[test]
fn a_part_of_an_answer_is_not_passed_off_as_the_whole() {
    let bench = Bench::start("");
    for path in ["/short", "/short-chunks", "/bad-chunks"] {
        let mark = bench.agent.mark();
        let mut client = bench.client();
        client.send(get(path).as_bytes()).unwrap();
        let response = client.response(false);
        assert!(!matches!(response, Ok(Some(_))), "{path}: {response:?}");
        bench.assert_failure(mark, path);
    }
}

#[test]
fn interim_answers_have_an_end() {
    let bench = Bench::start("[api.timeouts]\nupstream = \"1s\"\n");
    assert_eq!(bench.client().get("/many-hundreds").unwrap().text(), "ok");
    let mut client = bench.client();
    assert_problem(&client.get("/hundreds").unwrap(), 504);
    assert_eq!(client.get("/").unwrap().text(), "ok");
}
