//! Which connections a steered port takes over: wherever the application listens, from whatever address outside, and none of
//! the host's own.

use std::time::Duration;

use tests::{
    agent::Agent,
    http::{
        app::{App, Seen},
        curl::{Http, curl},
        raw::Client,
    },
    netns::{HOST_V4, HOST_V6, Namespace, World, unique_name},
};

use super::support::{API, Gateway, NO_BANS, PORT, at, host, host_v6, wait_until};

/// What the application sees of a GET from a namespace.
fn seen(namespace: &Namespace, url: &str) -> Seen {
    let answer = curl(namespace, Http::One, None, &[url]).unwrap();
    serde_json::from_value(answer.response.json().unwrap()).unwrap()
}

fn is_inspected(seen: &Seen) -> bool {
    !seen.values("forwarded").is_empty()
}

#[test]
fn specific_binds_of_both_families_are_taken_over() {
    for (bind, reached) in
        [(HOST_V4, HOST_V4), (HOST_V6, HOST_V6), ("0.0.0.0", HOST_V4), ("::", HOST_V6), ("::", HOST_V4)]
    {
        let world = World::new().unwrap();
        let _app = App::start(&world.host, at(bind, PORT)).unwrap();
        let _agent = Agent::start(&world, &format!("{API}{NO_BANS}")).unwrap();
        let seen = seen(&world.client, &format!("http://{}/", at(reached, PORT)));
        assert!(is_inspected(&seen), "{bind}: {seen:?}");
        // From the address that the client asked for, so that the bind matches and no filter for loopback does.
        assert_eq!(seen.peer.ip().to_canonical(), reached.parse::<std::net::IpAddr>().unwrap(), "{bind}");
    }
}

#[test]
fn several_ports_of_several_apis_are_told_apart() {
    let world = World::new().unwrap();
    let _apps = [8080, 8081, 8082, 8083].map(|port| App::start(&world.host, at("::", port)).unwrap());
    let config = format!("{}[[api]]\nname = \"bills\"\nport = 8082\n{NO_BANS}", API.replace("8080", "[8080, 8081]"));
    let agent = Agent::start(&world, &config).unwrap();
    for (port, api) in [(8080, Some("orders")), (8081, Some("orders")), (8082, Some("bills")), (8083, None)] {
        let mark = agent.mark();
        let seen = seen(&world.client, &format!("http://{}/p{port}", at(HOST_V4, port)));
        assert_eq!(is_inspected(&seen), api.is_some(), "{port}");
        if let Some(api) = api {
            let path = format!("/p{port}");
            let wanted = |event: &tests::agent::Event| event.text("path") == Some(&path);
            let event = agent.wait_event_since(mark, wanted, Duration::from_secs(5)).expect("a record");
            assert_eq!(event.text("api"), Some(api));
        }
    }
}

#[test]
fn clients_on_the_host_are_left_alone_unless_asked_for() {
    for (more, inspected) in [("", false), ("local_clients = true\n", true)] {
        let gateway = Gateway::start(&format!("{more}{NO_BANS}"));
        for address in ["127.0.0.1", HOST_V4] {
            let seen = seen(&gateway.world.host, &format!("http://{address}:{PORT}/"));
            assert_eq!(is_inspected(&seen), inspected, "{address} with {more:?}");
        }
        assert!(is_inspected(&gateway.seen(0, "")));
    }
}

#[test]
fn keep_alives_older_than_the_agent_are_reset_or_kept() {
    for (existing, closed) in [("reset", true), ("keep", false)] {
        let world = World::new().unwrap();
        let _app = App::start(&world.host, at("::", PORT)).unwrap();
        let open = |server| Client::open(&world.client, server).unwrap();
        let mut old = [open(host()), open(host_v6())];
        for client in &mut old {
            assert_eq!(client.get("/").unwrap().status, 200);
        }
        let _other = App::start(&world.host, at("::", 9000)).unwrap();
        let mut other = open(at(HOST_V4, 9000));
        let _agent = Agent::start(&world, &format!("{API}existing = \"{existing}\"\n{NO_BANS}")).unwrap();
        for client in &mut old {
            if closed {
                assert!(client.is_closed(Duration::from_secs(2)), "{existing}");
            } else {
                assert_eq!(client.get("/").unwrap().status, 200, "{existing}");
            }
        }
        assert_eq!(other.get("/").unwrap().status, 200);
    }
}

/// A container: a namespace of its own behind the host.
#[test]
fn a_container_is_steered_in_its_own_namespace() {
    let world = World::new().unwrap();
    let inside = Namespace::create(&format!("{}-inside", unique_name())).unwrap();
    world.host.ip(&format!("link add veth0 type veth peer name eth0 netns {}", inside.name())).unwrap();
    world.host.ip("addr add 198.18.0.1/24 dev veth0").unwrap();
    world.host.ip("link set veth0 up").unwrap();
    inside.ip("addr add 198.18.0.2/24 dev eth0").unwrap();
    inside.ip("link set eth0 up").unwrap();
    inside.ip("route add default via 198.18.0.1").unwrap();
    world.host.sysctl("ipv4/ip_forward", "1").unwrap();
    world.client.ip(&format!("route add 198.18.0.0/24 via {HOST_V4}")).unwrap();
    let _app = App::start(&inside, at("0.0.0.0", PORT)).unwrap();
    let config = format!("{API}netns = \"{}\"\n{NO_BANS}", inside.name());
    let _agent = Agent::start(&world, &config).unwrap();
    let seen = seen(&world.client, &format!("http://198.18.0.2:{PORT}/"));
    assert!(is_inspected(&seen), "{seen:?}");
    assert_eq!(seen.values("x-forwarded-for"), ["192.0.2.2"]);
}

#[test]
fn a_port_behind_which_nothing_listens_is_told() {
    let world = World::new().unwrap();
    let agent = Agent::start(&world, &format!("{API}{NO_BANS}")).unwrap();
    let told = || {
        let status = agent.status().unwrap();
        // Requests would go through the gateway.
        assert!(status.apis[0].protected, "{status:#?}");
        status.warnings.iter().any(|warning| warning == "API `orders`: nothing listens behind port 8080")
    };
    wait_until("told", told);
    let config = agent.config();
    let check = || agent.run(&["check", "--config", config.to_str().unwrap()]).unwrap();
    assert!(check().contains("API `orders`: nothing listens behind port 8080 now"));
    let inside = App::start(&world.host, at("127.0.0.1", PORT)).unwrap();
    assert!(check().contains("listens on a loopback address only"), "{}", check());
    drop(inside);
    let _app = App::start(&world.host, at("::", PORT)).unwrap();
    assert!(!check().contains("listens"), "{}", check());
    let began = std::time::Instant::now();
    while told() {
        assert!(began.elapsed() < Duration::from_secs(25), "it is told still");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn quic_to_a_steered_tls_port_is_dropped() {
    use tests::{frame::Frame, http::tls::Authority, traffic::Wire};

    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let gateway = Gateway::start(&format!("{}{NO_BANS}", Authority::toml(&[&pair])));
    let wire = Wire::open(&gateway.world).unwrap();
    assert!(!wire.passes(&Frame::v4("192.0.2.2", HOST_V4).udp(40_000, PORT)).unwrap());
    assert!(wire.passes(&Frame::v4("192.0.2.2", HOST_V4).udp(40_000, PORT + 1)).unwrap());
}
