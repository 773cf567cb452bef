//! Containers behind a bridge, destination NAT, and the probe that tells whether connections come to the agent.

use firewall_user::steering::Probe;
use tests::netns::{HOST_V4, HOST_V6, INTERFACE, Namespace, unique_name};

use crate::support::{Agent, CLOSED, LOCAL, OPEN, Place, Server, ask, refused};

const CONTAINER_V4: &str = "172.31.0.2";
const CONTAINER_V6: &str = "2001:db8:c::2";

/// Another namespace behind a bridge on the host, which forwards.
fn container(place: &Place) -> Namespace {
    let (host, client) = (&place.world.host, &place.world.client);
    let container = Namespace::create(&format!("{}-container", unique_name())).unwrap();
    for words in [
        "link add br0 type bridge".to_owned(),
        "link set br0 up".to_owned(),
        format!("link add veth0 type veth peer name eth0 netns {}", container.name()),
        "link set veth0 master br0".to_owned(),
        "link set veth0 up".to_owned(),
        "addr add 172.31.0.1/24 dev br0".to_owned(),
        "addr add 2001:db8:c::1/64 dev br0 nodad".to_owned(),
    ] {
        host.ip(&words).unwrap();
    }
    for words in [
        format!("addr add {CONTAINER_V4}/24 dev eth0"),
        format!("addr add {CONTAINER_V6}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
        "route add default via 172.31.0.1".to_owned(),
        "-6 route add default via 2001:db8:c::1".to_owned(),
    ] {
        container.ip(&words).unwrap();
    }
    host.sysctl("ipv4/ip_forward", "1").unwrap();
    host.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    client.ip(&format!("route add 172.31.0.0/24 via {HOST_V4} dev {INTERFACE}")).unwrap();
    client.ip(&format!("-6 route add 2001:db8:c::/64 via {HOST_V6} dev {INTERFACE}")).unwrap();
    container
}

#[test]
fn a_container_is_steered_in_its_own_namespace() {
    let place = Place::new();
    let container = container(&place);
    let _app = Server::app(&container, ("::", 8080));
    let reached = |address: &str| place.ask((address, 8080)).map(|answer| answer.name);
    crate::support::wait("the bridge forwards", 10 * crate::support::SECOND, || {
        [CONTAINER_V4, CONTAINER_V6].iter().all(|address| reached(address).is_ok())
    });
    // What the host steers is not what the container gets.
    let on_host = Agent::start(place.open(), &[(8080, CLOSED)]);
    for address in [CONTAINER_V4, CONTAINER_V6] {
        assert_eq!(reached(address).unwrap(), "app");
    }
    let agent = Agent::proxy(place.open_in(&container), &[(8080, CLOSED)]);
    for address in [CONTAINER_V4, CONTAINER_V6] {
        // The host is outside of the container.
        for from in [&place.world.client, &place.world.host] {
            let answer = ask(from, (address, 8080)).unwrap();
            let behind = answer.behind.expect("it asked the application");
            assert_eq!((&*answer.name, &*behind.name), ("agent", "app"));
            assert_eq!((answer.local.ip(), behind.peer.ip()), (address.parse().unwrap(), address.parse().unwrap()));
        }
        assert_eq!(ask(&container, (address, 8080)).unwrap().name, "app");
    }
    assert!(matches!(agent.steering.probe(8080).unwrap(), Probe::Intercepted));
    drop(agent);
    refused(place.ask((CONTAINER_V4, 8080)));
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "agent");
    assert_eq!(on_host.server.accepted(), 1);
}

#[test]
fn a_probe_proves_interception() {
    let place = Place::new();
    let app = Server::app(&place.world.host, ("::", 8080));
    let agent = Agent::proxy(place.open(), &[(8080, OPEN), (8081, LOCAL)]);
    for port in [8080, 8081] {
        let result = agent.steering.probe(port).unwrap();
        assert!(matches!(result, Probe::Intercepted), "{result:?}");
        // One for each address.
        let counts = agent.counts(port);
        assert_eq!((counts.probed, counts.steered, counts.exempt), (2, 0, 0));
    }
    // The agent knows them, so the application is left alone.
    crate::support::wait("they are accepted", crate::support::SECOND, || agent.server.accepted() == 4);
    assert_eq!(app.accepted(), 0);
    assert!(!agent.steering.is_probe("192.0.2.2:40000".parse().unwrap()));
    // Nobody outside is a probe.
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "agent");
    assert_eq!(agent.counts(8080).steered, 1);
    let (steering, listener) = agent.hang();
    steering.withdraw().unwrap();
    assert!(matches!(steering.probe(8080).unwrap(), Probe::NotInForce));
    drop(listener);
    // A port that is not steered.
    steering.set_ports(&[]).unwrap();
    assert!(matches!(steering.probe(8080).unwrap(), Probe::Diverted { .. }));
    let empty = Namespace::create(&format!("{}-empty", unique_name())).unwrap();
    assert!(matches!(place.open_in(&empty).probe(80).unwrap(), Probe::NoAddress));
}

#[test]
fn a_probe_finds_published_ports() {
    let place = Place::new();
    let container = container(&place);
    let _app = Server::app(&container, ("::", 80));
    let agent = Agent::start(place.open(), &[(8080, OPEN), (8081, OPEN)]);
    // As container engines publish a port: for packets from outside, and for the host's own.
    let rules = "table ip publish {
        chain pre { type nat hook prerouting priority dstnat; ip daddr 192.0.2.1 tcp dport 8080 dnat to 172.31.0.2:80; }
        chain out { type nat hook output priority -100; ip daddr 192.0.2.1 tcp dport 8080 dnat to 172.31.0.2:80; }
        chain post { type nat hook postrouting priority srcnat; ip daddr 172.31.0.2 masquerade; }
    }";
    place.world.host.run("nft", &[rules]).unwrap();
    crate::support::wait("it is published", 10 * crate::support::SECOND, || {
        place.ask((HOST_V4, 8080)).is_ok_and(|answer| answer.name == "app")
    });
    let result = agent.steering.probe(8080).unwrap();
    assert!(matches!(result, Probe::Diverted { address } if address.to_string() == HOST_V4), "{result:?}");
    assert!(matches!(agent.steering.probe(8081).unwrap(), Probe::Intercepted));
    // Steered where the container is, nothing of it gets by.
    let inside = Agent::start(place.open_in(&container), &[(80, OPEN)]);
    assert_eq!(place.ask((HOST_V4, 8080)).unwrap().name, "agent");
    assert!(matches!(inside.steering.probe(80).unwrap(), Probe::Intercepted));
    // Nobody answers there at all.
    drop(container);
    let result = agent.steering.probe(8080).unwrap();
    assert!(matches!(result, Probe::Diverted { .. }), "{result:?}");
}
