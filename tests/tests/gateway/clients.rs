//! Who the client is: what the application learns, whom a trusted proxy speaks for, and what nobody may claim.

use std::net::IpAddr;

use super::support::{ATTACK, Gateway, NO_BANS, address, assert_problem};

/// The client's address that is a trusted proxy, `192.0.2.50`.
const PROXY: u8 = 48;
const TRUSTING: &str = "trusted_proxies = [\"192.0.2.50\"]\n";
const USERS: u8 = 11;

/// What a client might say of itself.
const SPOOFED: &str = "Forwarded: for=10.0.0.1;proto=https\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil.test\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Real-IP: 10.0.0.1\r\n";

#[test]
fn the_application_learns_the_client_and_no_lies() {
    let gateway = Gateway::start(NO_BANS);
    for fields in ["", SPOOFED] {
        let seen = gateway.seen(3, fields);
        assert_eq!(seen.values("x-forwarded-for"), ["192.0.2.5"]);
        assert_eq!(seen.values("x-forwarded-proto"), ["http"]);
        let forwarded = seen.values("forwarded");
        assert_eq!(forwarded.len(), 1);
        assert!(forwarded[0].contains("for=192.0.2.5") && forwarded[0].contains("proto=http"), "{forwarded:?}");
        for name in ["x-forwarded-host", "x-original-url", "x-rewrite-url"] {
            assert_eq!(seen.values(name), [""; 0], "{name}");
        }
        // The connection comes from the host's own address, not from 127.0.0.1, which applications trust.
        assert_eq!(seen.peer.ip().to_canonical(), IpAddr::from([192, 0, 2, 1]));
    }
}

#[test]
fn behind_a_trusted_proxy_the_client_is_whom_it_names() {
    let gateway = Gateway::start(&format!("{TRUSTING}{NO_BANS}"));
    for (fields, client) in [
        ("X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 10.9.9.9, 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        ("X-Forwarded-For: 198.51.100.7, 192.0.2.50\r\n", "198.51.100.7"),
        ("Forwarded: for=10.9.9.9, for=198.51.100.7\r\n", "198.51.100.7"),
        ("Forwarded: for=\"[2001:db8::7]:4711\"\r\n", "2001:db8::7"),
    ] {
        let mark = gateway.agent.mark();
        let seen = gateway.seen(PROXY, fields);
        let chain = seen.values("x-forwarded-for").join(", ");
        assert!(chain.contains(client) && !chain.contains("10.9.9.9"), "{fields}: {chain}");
        let event = gateway.record(mark, "/seen");
        assert_eq!(
            (address(&event).to_string(), event.text("proxy")),
            (client.to_owned(), Some("192.0.2.50")),
            "{fields}"
        );
    }
    // A proxy that names nobody might be anybody.
    for fields in ["", "X-Forwarded-For: unknown\r\n", "X-Forwarded-For:\r\n", "Forwarded: for=_hidden\r\n"] {
        let mark = gateway.agent.mark();
        let request = format!("GET / HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n");
        assert_problem(&gateway.ask(PROXY, request.as_bytes()), 400);
        gateway.refusal(mark, "forwarded-missing");
    }
    // Whoever is no proxy is himself.
    assert_eq!(gateway.seen(3, "X-Forwarded-For: 198.51.100.7\r\n").values("x-forwarded-for"), ["192.0.2.5"]);
}

#[test]
fn of_eleven_users_behind_one_proxy_a_bad_one_alone_is_shut_out() {
    let gateway = Gateway::start(TRUSTING);
    let ask = |user: u8, target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: 198.51.100.{user}\r\n\r\n");
        gateway.ask(PROXY, request.as_bytes())
    };
    for user in 1..=USERS {
        assert_eq!(ask(user, "/").status, 200);
    }
    // More than enough: the score forgets with time.
    for _ in 0..8 {
        let status = ask(USERS, "/../etc/passwd").status;
        assert!(status == 400 || status == 403, "status {status}");
    }
    let mark = gateway.agent.mark();
    assert_problem(&ask(USERS, "/"), 403);
    assert_eq!(address(&gateway.refusal(mark, "reputation")), IpAddr::from([198, 51, 100, USERS]));
    for _ in 0..3 {
        for user in 1..USERS {
            assert_eq!(ask(user, "/").status, 200, "user {user}");
        }
    }
    // Neither the proxy nor its user is banned where addresses are all that is known.
    assert_eq!(gateway.agent.counter("ban").unwrap(), 0);
    let bans = gateway.agent.bans().unwrap();
    assert!(bans.iter().all(|ban| ban.prefix.addr() != IpAddr::from([192, 0, 2, 50])), "{bans:?}");
}

#[test]
fn framing_faults_of_a_trusted_proxy_do_not_ban_it() {
    let gateway = Gateway::start(TRUSTING);
    for _ in 0..20 {
        assert_problem(&gateway.ask(PROXY, ATTACK), 400);
    }
    assert_eq!(gateway.seen(PROXY, "X-Forwarded-For: 198.51.100.7\r\n").method, "GET");
    assert_eq!(gateway.agent.counter("ban").unwrap(), 0);
}
