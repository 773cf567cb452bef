//! Clients that take their time: what becomes of them is told, and others notice nothing.

use std::{
    io::Read as _,
    thread::sleep,
    time::{Duration, Instant},
};

use super::support::{Gateway, NO_BANS, assert_problem, wait_until};

const SHORT: &str = "[api.timeouts]\nhead = \"1s\"\nbody = \"1s\"\nidle = \"2s\"\n[api.limits]\nbody = \"1GB\"\n";

fn short() -> Gateway {
    Gateway::start(&format!("{SHORT}{NO_BANS}"))
}

#[test]
fn a_slow_head_is_cut() {
    let gateway = short();
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    let began = Instant::now();
    // Each byte comes in time; the head does not.
    for byte in b"GET / HTTP/1.1\r\nHost: api.test\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
        if client.send(&[*byte]).is_err() || began.elapsed() > Duration::from_secs(2) {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    assert_problem(&client.response(false).unwrap().unwrap(), 408);
    assert!(client.is_closed(Duration::from_secs(1)));
    gateway.refusal(mark, "head-timeout");
    assert!(gateway.answers(1));
}

#[test]
fn a_slow_body_is_cut() {
    let gateway = short();
    for fields in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mark = gateway.agent.mark();
        let mut client = gateway.client(0);
        client.send(format!("POST /upload HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n\r\n").as_bytes()).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let piece = if fields.starts_with('C') { &b"x"[..] } else { b"1\r\nx\r\n" };
            if client.send(piece).is_err() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        gateway.refusal(mark, "body-timeout");
        // The answer may have been lost to the reset that our last bytes met.
        if let Ok(Some(response)) = client.response(false) {
            assert_problem(&response, 408);
        }
        assert!(client.is_closed(Duration::from_secs(1)), "{fields}");
    }
    assert!(gateway.answers(1));
}

#[test]
fn a_steady_body_is_not_slow() {
    let gateway = short();
    let mut client = gateway.client(0);
    client.send(b"POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: 30000\r\n\r\n").unwrap();
    // Three seconds at 10,000 bytes a second.
    for _ in 0..30 {
        client.send(&[b'x'; 1000]).unwrap();
        sleep(Duration::from_millis(100));
    }
    assert_eq!(client.response(false).unwrap().unwrap().json().unwrap()["bytes"], 30_000);
}

#[test]
fn a_slow_reader_is_cut() {
    let gateway = short();
    let mark = gateway.agent.mark();
    let mut client = gateway.client(0);
    let length = 200_000_000_u64;
    client.send(format!("GET /bytes/{length} HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes()).unwrap();
    gateway.refusal(mark, "slow-reader");
    let mut got = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.stream().read(&mut buffer) {
        got += length as u64;
    }
    assert!(got < length, "it got everything");
    assert!(gateway.answers(1));
}

#[test]
fn an_idle_connection_is_closed() {
    let gateway = short();
    let mut client = gateway.client(0);
    assert_eq!(client.get("/").unwrap().status, 200);
    let began = Instant::now();
    assert!(client.is_closed(Duration::from_secs(5)));
    assert!(began.elapsed() >= Duration::from_millis(1500), "after {:?}", began.elapsed());
}

#[test]
fn an_upstream_that_does_not_answer_is_given_up() {
    let gateway = Gateway::start(&format!("[api.timeouts]\nupstream = \"1s\"\n{NO_BANS}"));
    let mark = gateway.agent.mark();
    assert_problem(&gateway.ask(0, b"GET /slow/5000 HTTP/1.1\r\nHost: api.test\r\n\r\n"), 504);
    assert_eq!(gateway.record(mark, "/slow/5000").reason, "upstream-timeout");
    // Event streams have their pauses.
    let events = gateway.ask(0, b"GET /sse/2/2000 HTTP/1.1\r\nHost: api.test\r\n\r\n").text();
    assert_eq!(events.matches("data: event").count(), 2);
}

#[test]
fn many_slow_clients_do_not_keep_others_out() {
    let gateway = short();
    let mut held = Vec::new();
    for n in 0..10 {
        for _ in 0..50 {
            let mut client = gateway.client(n);
            client.send(b"GET / HT").unwrap();
            held.push(client);
        }
    }
    let began = Instant::now();
    for _ in 0..50 {
        assert!(gateway.answers(20));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "50 answers took {:?}", began.elapsed());
    let mut last = held.pop().unwrap();
    assert_problem(&last.response(false).unwrap().unwrap(), 408);
    wait_until("rid of them", || held.iter_mut().all(|client| client.is_closed(Duration::from_millis(200))));
}
