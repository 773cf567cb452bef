//! Clients from outside: what is steered, and what the agent and the application see of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use tests::netns::{CLIENT_ADDRESSES, HOST_V4, HOST_V6, INTERFACE, World, client_v4, client_v6};

use crate::support::{Agent, CLOSED, Client, OPEN, Place, Server, ToAddress as _, refused};

/// Applications bound in every way, with an address at which each is reached.
const BINDS: [(&str, u16, &str); 6] = [
    ("::", 8080, HOST_V4),
    ("::", 8080, HOST_V6),
    ("0.0.0.0", 8081, HOST_V4),
    (HOST_V4, 8082, HOST_V4),
    (HOST_V6, 8083, HOST_V6),
    ("::", 8084, HOST_V6),
];

fn apps(place: &Place) -> Vec<Server> {
    let mut binds: Vec<(&str, u16)> = BINDS.iter().map(|(bind, port, _)| (*bind, *port)).collect();
    binds.dedup();
    binds.into_iter().map(|bind| Server::app(&place.world.host, bind)).collect()
}

fn ports() -> Vec<u16> {
    let mut ports: Vec<u16> = BINDS.iter().map(|(_, port, _)| *port).collect();
    ports.dedup();
    ports
}

#[test]
fn however_the_application_is_bound() {
    let place = Place::new();
    let apps = apps(&place);
    for (_, port, address) in BINDS {
        let answer = place.ask((address, port)).unwrap();
        assert_eq!((&*answer.name, answer.local), ("app", (address, port).to_address()), "before");
    }
    let before: usize = apps.iter().map(Server::accepted).sum();
    let ports: Vec<_> = ports().into_iter().map(|port| (port, if port % 2 == 0 { OPEN } else { CLOSED })).collect();
    let agent = Agent::proxy(place.open(), &ports);
    for (_, port, address) in BINDS {
        let answer = place.ask((address, port)).unwrap();
        // The agent sees the client, and where it wanted to go.
        assert_eq!(answer.name, "agent", "{address} {port}");
        let is_client = |n| [client_v4(n), client_v6(n)].contains(&answer.peer.ip());
        assert!((0..CLIENT_ADDRESSES).any(is_client), "{}", answer.peer);
        assert_eq!(answer.peer.is_ipv4(), address == HOST_V4);
        assert_eq!(answer.local, (address, port).to_address());
        // The application sees a client on its own host, and nobody becomes 127.0.0.1.
        let behind = answer.behind.expect("it asked the application");
        assert_eq!((&*behind.name, behind.peer.ip(), behind.local), ("app", answer.local.ip(), answer.local));
    }
    let after: usize = apps.iter().map(Server::accepted).sum();
    assert_eq!((after - before, agent.server.accepted()), (BINDS.len(), BINDS.len()));
    for (port, counts) in agent.steering.counts().unwrap() {
        let connections = BINDS.iter().filter(|(_, bound, _)| *bound == port).count() as u64;
        assert_eq!((counts.steered, counts.exempt), (connections, connections), "{port}");
        assert_eq!((counts.probed, counts.gone_open, counts.gone_closed, counts.redirect_failed), (0, 0, 0, 0));
    }
    // A port that nobody named is as it was, UDP or not.
    let other = Server::app(&place.world.host, ("::", 8090));
    assert_eq!(place.ask((HOST_V4, 8090)).unwrap().name, "app");
    refused(place.ask((HOST_V6, 8091)));
    assert_eq!(other.accepted(), 1);
}

/// The address on [`INTERFACE`], with its scope as `from` sees it.
fn link_local(world: &World) -> SocketAddrV6 {
    let find = || {
        let addresses = nix::ifaddrs::getifaddrs().unwrap().filter(|entry| entry.interface_name == INTERFACE);
        let v6 = |entry: nix::ifaddrs::InterfaceAddress| Some(entry.address?.as_sockaddr_in6()?.ip());
        addresses.filter_map(v6).find(Ipv6Addr::is_unicast_link_local).unwrap()
    };
    let scope = world.client.interface_index(INTERFACE).unwrap();
    SocketAddrV6::new(world.host.enter(find), 8080, 0, scope)
}

#[test]
fn link_local_addresses_keep_their_scope() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8080));
    let _agent = Agent::proxy(place.open(), &[(8080, OPEN)]);
    let address = link_local(&place.world);
    let answer = place.ask(SocketAddr::from(address)).unwrap();
    let SocketAddr::V6(local) = answer.local else { panic!("{answer:?}") };
    let scope = place.world.host.interface_index(INTERFACE).unwrap();
    assert_eq!((&*answer.name, *local.ip(), local.scope_id()), ("agent", *address.ip(), scope));
    let behind = answer.behind.unwrap();
    assert_eq!((&*behind.name, behind.peer.ip(), behind.local.ip()), ("app", answer.local.ip(), answer.local.ip()));
}

#[test]
fn nobody_reaches_the_listener_but_by_a_steered_port() {
    let place = Place::new();
    let _app = Server::app(&place.world.host, ("::", 8080));
    let agent = Agent::start(place.open(), &[(8080, OPEN)]);
    for address in [HOST_V4, HOST_V6] {
        refused(place.ask((address, agent.port)));
        refused(crate::support::ask(&place.world.host, (address, agent.port)));
        assert_eq!(place.ask((address, 8080)).unwrap().name, "agent");
    }
    refused(crate::support::ask(&place.world.host, ("127.0.0.1", agent.port)));
    assert_eq!(agent.server.accepted(), 2);
    // Nor once it hangs.
    let (port, hung) = (agent.port, agent.hang());
    refused(place.ask((HOST_V4, port)));
    drop(hung);
}

#[test]
fn nothing_need_listen_behind_a_port() {
    let place = Place::new();
    let agent = Agent::start(place.open(), &[(8080, OPEN)]);
    let mut kept = [HOST_V4, HOST_V6].map(|address| Client::connect(&place.world.client, (address, 8080)).unwrap());
    assert!(kept.iter_mut().all(|client| client.answer.name == "agent" && client.is_alive()));
    let listening = |port| firewall_user::steering::existing::listening(agent.steering.netns(), port).unwrap();
    assert!(listening(8080).is_empty());
    // It may come later, or again, while the agent has connections to its port.
    let _any = Server::app(&place.world.host, ("::", 8080));
    let _one = Server::app(&place.world.host, (HOST_V4, 8081));
    let _loopback = Server::app(&place.world.host, ("127.0.0.1", 8082));
    for (port, address) in [(8080, "::"), (8081, HOST_V4), (8082, "127.0.0.1")] {
        assert_eq!(listening(port), [address.parse::<IpAddr>().unwrap()]);
    }
    assert!(kept.iter_mut().all(Client::is_alive));
}

#[test]
fn ports_come_and_go_and_those_that_stay_are_never_missing() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new();
    let _apps: Vec<Server> = [8080, 8081].map(|port| Server::app(&place.world.host, ("::", port))).into();
    let agent = Agent::start(place.open(), &[(8080, CLOSED)]);
    assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, "app");
    let (done, names) = (AtomicBool::new(false), crate::support::Names::default());
    std::thread::scope(|scope| {
        for address in [HOST_V4, HOST_V6] {
            let (names, done, place) = (names.clone(), &done, &place);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    names.add(place.ask((address, 8080)).map_or_else(|error| error.to_string(), |answer| answer.name));
                }
            });
        }
        for round in 0.. {
            if round > 200 && names.all().len() > 100 {
                break;
            }
            let second: &[_] = if round % 2 == 0 { &[(8081, OPEN)] } else { &[] };
            agent.steering.set_ports(&[&[(8080, CLOSED)], second].concat()).unwrap();
            let expected = if round % 2 == 0 { "agent" } else { "app" };
            if round % 20 < 2 {
                assert_eq!(place.ask((HOST_V4, 8081)).unwrap().name, expected);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    agent.steering.set_ports(&[(8080, CLOSED)]).unwrap();
    let names = names.all();
    assert!(names.len() > 100 && names.iter().all(|name| name == "agent"), "{names:?}");
    // A SYN that is sent once more is looked up once more.
    let (steered, asked) = (agent.counts(8080).steered, names.len() as u64);
    assert!((asked..asked + asked / 10).contains(&steered), "counts do not go on: {steered} of {asked}");
    assert_eq!(agent.steering.counts().unwrap().len(), 1);
    // More than fit are refused whole.
    let many: Vec<_> = (1..=3000).map(|port| (port, OPEN)).collect();
    let error = agent.steering.set_ports(&many).unwrap_err().to_string();
    assert!(error.contains("3000 ports"), "{error}");
    assert_eq!(agent.steering.counts().unwrap().keys().copied().collect::<Vec<_>>(), [8080]);
}
