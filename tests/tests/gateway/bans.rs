//! The edge back: who is refused too often is dropped in the kernel, and who must not be, is not.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tests::{
    http::raw::Client,
    netns::{client_v4, client_v6},
};

use super::support::{ATTACK, Gateway, assert_problem, host, host_v6, wait_until};

/// From the answer to the condemning request to the first packet that is dropped.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A SYN that is not dropped is answered long before.
const SYN_ANSWER: Duration = Duration::from_millis(40);

/// Time until connections from the client's `n`th address are dropped.
fn dropped_after(gateway: &Gateway, n: u8) -> Duration {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        if Client::try_open(&gateway.world.client, client_v4(n), host(), SYN_ANSWER).is_err() {
            return asked;
        }
        assert!(asked < Duration::from_secs(5), "it is not banned");
    }
}

#[test]
fn five_refusals_ban_in_the_kernel_at_once() {
    let gateway = Gateway::start("");
    let mut idle = gateway.client(0);
    assert_eq!(idle.get("/").unwrap().status, 200);
    let mut others = gateway.client(1);
    for number in 0..5 {
        assert!(gateway.agent.bans().unwrap().is_empty(), "banned after {number} refusals");
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    let took = dropped_after(&gateway, 0);
    assert!(took <= AT_ONCE, "banned after {took:?}");
    assert!(gateway.agent.counter("ban").unwrap() >= 1);
    // What it had open is closed, and nobody else's.
    assert!(idle.is_closed(Duration::from_secs(2)), "an open connection outlives the ban");
    assert_eq!(others.get("/").unwrap().status, 200);
    let bans = gateway.agent.bans().unwrap();
    let ban = bans.iter().find(|ban| ban.prefix.addr() == client_v4(0)).expect("a ban");
    assert_eq!((bans.len(), ban.prefix.prefix_len()), (1, 32));
    assert!((1..=60).contains(&ban.remaining_seconds), "{ban:?}");
    assert_ne!(ban.origin, "operator");
    gateway.agent.unban(&client_v4(0).to_string()).unwrap();
    assert!(gateway.answers(0));
}

#[test]
fn neighbours_on_the_link_are_told_apart() {
    // All clients of the world are in one /64, the host's own.
    let gateway = Gateway::start("");
    let open = |n| Client::try_open(&gateway.world.client, client_v6(n), host_v6(), Duration::from_millis(300));
    let offend = |n| {
        let mut client = open(n).unwrap();
        client.send(ATTACK).unwrap();
        assert_problem(&client.response(false).unwrap().unwrap(), 400);
    };
    for n in 1..=4 {
        offend(0);
        offend(n);
    }
    let mut neighbour = open(1).unwrap();
    assert_eq!(neighbour.get("/").unwrap().status, 200);
    assert!(gateway.agent.bans().unwrap().is_empty());
    offend(0);
    wait_until("banned", || !gateway.agent.bans().unwrap().is_empty());
    let bans = gateway.agent.bans().unwrap();
    assert_eq!(bans.iter().map(|ban| ban.prefix).collect::<Vec<_>>(), [IpNet::from(client_v6(0))]);
    wait_until("dropped", || open(0).is_err());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(neighbour.get("/").unwrap().status, 200, "the ban closed a neighbour's connection");
}

#[test]
fn ipv6_from_elsewhere_counts_by_its_network() {
    let gateway = Gateway::start("trusted_proxies = [\"192.0.2.2\"]\n");
    let ask = |host: u32, target: &str| {
        let fields = format!("X-Forwarded-For: 2001:db8:77::{host:x}");
        gateway.ask(0, format!("GET {target} HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n\r\n").as_bytes()).status
    };
    for host in 1..=5 {
        assert_eq!(ask(host, "/../x"), 400);
    }
    assert_eq!(ask(99, "/"), 403);
    // An operator may name any address of it.
    let _none_below = gateway.agent.unban("2001:db8:77::42");
    wait_until("forgiven", || ask(99, "/") == 200);
}

#[test]
fn a_layer_that_only_monitors_closes_nothing() {
    let gateway = Gateway::start("[dmz]\nmode = \"monitor\"\n");
    let mut open = gateway.client(0);
    assert_eq!(open.get("/").unwrap().status, 200);
    let mark = gateway.agent.mark();
    for _ in 0..5 {
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    let told = |event: &tests::agent::Event| event.action == "monitor";
    assert!(gateway.agent.wait_event_since(mark, told, Duration::from_secs(5)).is_some());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(open.get("/").unwrap().status, 200);
    assert!(gateway.answers(0));
}

#[test]
fn a_second_ban_is_longer() {
    let gateway = Gateway::start("[reputation]\nban = \"2s\"\n");
    let mut lasted = Vec::new();
    for _ in 0..2 {
        for _ in 0..5 {
            assert_problem(&gateway.ask(0, ATTACK), 400);
        }
        wait_until("banned", || !gateway.agent.bans().unwrap().is_empty());
        let began = Instant::now();
        wait_until("let in again", || {
            Client::try_open(&gateway.world.client, client_v4(0), host(), SYN_ANSWER).is_ok()
        });
        lasted.push(began.elapsed());
    }
    assert!(lasted[1] > lasted[0] + Duration::from_secs(1), "{lasted:?}");
}

#[test]
fn good_requests_make_up_for_bad_ones() {
    let gateway = Gateway::start("");
    for _ in 0..5 {
        let mut client = gateway.client(0);
        for _ in 0..40 {
            assert_eq!(client.get("/").unwrap().status, 200);
        }
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    assert!(gateway.answers(0) && gateway.agent.bans().unwrap().is_empty());
}

#[test]
fn a_hostile_page_cannot_ban_its_visitors() {
    let gateway = Gateway::start("");
    for fields in ["Sec-Fetch-Site: cross-site\r\n", "Origin: https://evil.test\r\n"] {
        for _ in 0..20 {
            let request = format!("GET /a/%2e%2e/%2e%2e/b HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n");
            assert_problem(&gateway.ask(0, request.as_bytes()), 400);
        }
    }
    assert!(gateway.answers(0) && gateway.agent.bans().unwrap().is_empty());
}

#[test]
fn allow_listed_clients_are_never_banned() {
    let gateway =
        Gateway::start("[[dmz.list]]\nname = \"office\"\naction = \"allow\"\nprefixes = [\"192.0.2.2/32\"]\n");
    for _ in 0..20 {
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    assert!(gateway.answers(0) && gateway.agent.bans().unwrap().is_empty());
}

#[test]
fn monitor_mode_bans_nobody() {
    let gateway = Gateway::start("[reputation]\nmode = \"monitor\"\n");
    for _ in 0..20 {
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    assert!(gateway.answers(0) && gateway.agent.bans().unwrap().is_empty());
    let monitored = |event: &tests::agent::Event| event.action == "monitor";
    assert!(
        gateway.agent.wait_event(monitored, Duration::from_secs(5)).is_some(),
        "it does not say what it would have done"
    );
}

#[test]
fn a_ban_holds_while_the_agent_is_away() {
    let mut gateway = Gateway::start("");
    for _ in 0..5 {
        assert_problem(&gateway.ask(0, ATTACK), 400);
    }
    dropped_after(&gateway, 0);
    gateway.agent.kill9().unwrap();
    let refused =
        |n| Client::try_open(&gateway.world.client, client_v4(n), host(), Duration::from_millis(300)).is_err();
    assert!(refused(0) && !refused(1));
    gateway.agent.launch(&[]).unwrap();
    assert!(!gateway.answers(0) && gateway.answers(1));
    let bans = gateway.agent.bans().unwrap();
    assert_eq!(bans[0].prefix.addr(), IpAddr::from([192, 0, 2, 2]));
}
