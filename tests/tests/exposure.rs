//! Default-deny: only one port exists for the outside, and yet everything the host does itself works.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::{self, JoinHandle},
    time::Duration,
};

use tests::{
    agent::Agent,
    frame::{ACK, Frame, RST, SYN},
    netns::{CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, INTERFACE, Namespace, World, unique_name},
    servers::{Echo, HttpServer, Session, ask_udp, connect},
    traffic::Wire,
};

const POLICY: &str = "interfaces = [\"eth0\"]\n[dmz]\nexpose = [\"22/tcp\"]\n";
const SECOND: Duration = Duration::from_secs(1);
/// Pairs of host and client.
const FAMILIES: [[&str; 2]; 2] = [[HOST_V4, CLIENT_V4], [HOST_V6, CLIENT_V6]];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// A server that answers from the very address it was asked at, once.
fn answer_one(namespace: &Namespace, address: SocketAddr) -> JoinHandle<io::Result<()>> {
    let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(SECOND)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let (length, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], peer).map(drop)
    })
}

fn tally(agent: &Agent, name: &str) -> u64 {
    agent.status().unwrap().packets.tallies[name].packets
}

/// Defect 8: default-deny in native mode that drops ARP and the operator's own SSH.
#[test]
fn defect_8_sessions_from_before_the_start_live_on() {
    let world = World::new().unwrap();
    let _servers = [22, 2222].map(|port| Echo::tcp(&world.host, port).unwrap());
    let _outside = Echo::tcp(&world.client, 443).unwrap();
    let open = |from: &Namespace, source: &str, server: SocketAddr| {
        Session::open(from, at(source, 0), server, SECOND).unwrap()
    };
    let mut sessions: Vec<(&str, Session)> = FAMILIES
        .iter()
        .flat_map(|[host, client]| {
            [
                ("inward, exposed", open(&world.client, client, at(host, 22))),
                ("inward, hidden now", open(&world.client, client, at(host, 2222))),
                ("outward", open(&world.host, host, at(client, 443))),
            ]
        })
        .collect();
    let connected = world.host.enter(|| {
        let socket = UdpSocket::bind(at(HOST_V4, 0)).unwrap();
        socket.connect(at(CLIENT_V4, 123)).unwrap();
        socket
    });
    let agent = Agent::start(&world, POLICY).unwrap();
    let before = tally(&agent, "reply-socket");
    // The outside speaks first, when nothing has left the host since: only a socket can tell. NTP's port reflects.
    let wire = Wire::open(&world).unwrap();
    let port = connected.local_addr().unwrap().port();
    assert!(wire.passes(&Frame::v4(CLIENT_V4, HOST_V4).udp(123, port).payload(9)).unwrap());
    assert_eq!(tally(&agent, "reply-socket"), before + 1);
    assert!(!wire.passes(&Frame::v4(CLIENT_V4, HOST_V4).udp(123, port + 1).payload(9)).unwrap());
    for (what, session) in &mut sessions {
        for words in ["one", "two"] {
            session.say(words).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
    }
    for [host, client] in FAMILIES {
        let refused = world.client.enter(|| connect(at(client, 0), at(host, 2222), Duration::from_millis(300)));
        assert!(refused.is_err(), "a new connection to a hidden port");
        open(&world.client, client, at(host, 22)).say("new").unwrap();
    }
    assert!(agent.counter("not-exposed").unwrap() > 0);
}

#[test]
fn a_socket_is_enough_for_a_reply_without_a_flow() {
    let world = World::new().unwrap();
    let server = world.client.enter(|| std::net::TcpListener::bind(at(CLIENT_V4, 443)).unwrap());
    let _host_side = world.host.enter(|| std::net::TcpStream::connect(at(CLIENT_V4, 443)).unwrap());
    let (mut accepted, _peer) = server.accept().unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    io::Write::write_all(&mut accepted, b"first word after the start").unwrap();
    let began = std::time::Instant::now();
    while tally(&agent, "reply-socket") == 0 {
        assert!(began.elapsed() < SECOND * 2, "no reply was found by its socket");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(agent.counter("not-exposed").unwrap(), 0);
}

#[test]
fn what_the_host_asks_is_answered() {
    let world = World::new().unwrap();
    let _web = HttpServer::start(&world.client, 8080).unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    assert!(agent.status().unwrap().interfaces[0].egress);
    for [host, client] in FAMILIES {
        let page = world.host.run("curl", &["-sS", "-m2", &format!("http://{}/", at(client, 8080))]).unwrap();
        assert_eq!(page, "portcullis demo\n");
        world.host.run("ping", &["-c2", "-i0.1", "-W1", client]).unwrap();
        for port in [53, 5300] {
            let server = answer_one(&world.client, at(client, port));
            // Not connected, as resolvers are.
            let answer = world.host.enter(|| ask_udp(at(host, 0), at(client, port), b"who?", SECOND));
            assert_eq!(answer.unwrap(), b"who?", "port {port}");
            server.join().unwrap().unwrap();
        }
    }
    assert!(tally(&agent, "reply") >= 8);
    assert_eq!(agent.counter("not-exposed").unwrap() + agent.counter("reflection").unwrap(), 0);
}

#[test]
fn the_outside_sees_one_port_only() {
    let world = World::new().unwrap();
    let _http = HttpServer::start(&world.host, 8080).unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    let wire = Wire::open(&world).unwrap();
    for (host, [source, stranger]) in [(HOST_V4, [CLIENT_V4, "198.51.100.7"]), (HOST_V6, [CLIENT_V6, "2001:db8:5::7"])]
    {
        let from = Frame::ip(source, host);
        assert!(wire.passes(&from.clone().tcp(40_000, 22)).unwrap());
        for (what, hidden) in [
            ("SYN", from.clone().tcp(40_000, 8080)),
            ("ACK", from.clone().tcp(40_000, 8080).flags(ACK)),
            ("SYN-ACK", from.clone().tcp(443, 50_000).flags(SYN | ACK)),
            ("RST", from.clone().tcp(443, 50_000).flags(RST)),
            ("UDP", from.clone().udp(40_000, 22)),
            ("ping", from.clone().echo_request(7)),
            ("echo reply", from.clone().echo_reply(7)),
            ("GRE", from.clone().gre()),
            ("a stranger", Frame::ip(stranger, host).tcp(40_000, 3306)),
        ] {
            assert!(!wire.passes(&hidden).unwrap(), "{what} from {source}");
        }
        let url = format!("http://{}/", at(host, 8080));
        assert!(world.client.run("curl", &["-sS", "-m1", &url]).is_err());
    }
    assert!(agent.counter("not-exposed").unwrap() >= 18);
}

#[test]
fn icmp_errors_arrive() {
    let world = World::new().unwrap();
    let _agent = Agent::start(&world, POLICY).unwrap();
    let wire = Wire::open(&world).unwrap();
    let router4 = Frame::v4("198.51.100.1", HOST_V4);
    let router6 = Frame::v6("2001:db8:9::1", HOST_V6);
    for (what, error) in [
        ("fragmentation needed", router4.clone().icmp(3, 4).payload(28)),
        ("port unreachable", router4.clone().icmp(3, 3).payload(28)),
        ("time exceeded", router4.icmp(11, 0).payload(28)),
        ("packet too big", router6.clone().icmp(2, 0).payload(48)),
        ("unreachable", router6.clone().icmp(1, 4).payload(48)),
        ("time exceeded, IPv6", router6.icmp(3, 0).payload(48)),
    ] {
        assert!(wire.passes(&error).unwrap(), "{what}");
    }
    // A route learns a smaller MTU from such an error.
    let inner = Frame::v4(HOST_V4, "203.0.113.80").echo_reply(9).build();
    world.host.ip(&format!("route add 203.0.113.80 via {CLIENT_V4}")).unwrap();
    let too_big = Frame::v4(CLIENT_V4, HOST_V4).icmp_with(3, 4, [0, 0, 5, 0]).payload_bytes(&inner[14..]);
    wire.sender.send(&too_big.build()).unwrap();
    thread::sleep(Duration::from_millis(50));
    let route = world.host.run("ip", &["route", "get", "203.0.113.80"]).unwrap();
    assert!(route.contains("mtu 1280"), "{route}");
}

/// Defect 8: a native-mode deny that drops everything, ARP and the operator's own SSH included.
#[test]
fn defect_8_default_deny_leaves_arp_neighbour_discovery_and_ssh() {
    let world = World::new().unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    assert_eq!(agent.status().unwrap().interfaces[0].mode, "native");
    // From nothing: who has that address?
    for side in [&world.host, &world.client] {
        side.ip(&format!("neigh flush dev {INTERFACE}")).unwrap();
    }
    for [_, client] in FAMILIES {
        world.host.run("ping", &["-c1", "-W2", client]).unwrap();
    }
    world.client.ip(&format!("neigh flush dev {INTERFACE}")).unwrap();
    let server = Echo::tcp(&world.host, 22).unwrap();
    for [host, client] in FAMILIES {
        Session::open(&world.client, at(client, 0), at(host, 22), SECOND).unwrap().say("found").unwrap();
    }
    drop(server);
}

#[test]
fn answers_to_forged_packets_open_no_way_in() {
    let world = World::new().unwrap();
    let _ssh = Echo::tcp(&world.host, 22).unwrap();
    let monitor = POLICY.replace("expose =", "expose_mode = \"monitor\"\nexpose =");
    let agent = Agent::start(&world, &monitor).unwrap();
    let wire = Wire::open(&world).unwrap();
    // In monitor mode these reach the stack: it answers with RST, SYN-ACK, echo reply and port unreachable.
    for [host, client] in FAMILIES {
        let from = Frame::ip(client, host);
        let provoking = [
            from.clone().tcp(40_001, 3306),
            from.clone().tcp(40_001, 22),
            from.clone().echo_request(77),
            from.udp(40_001, 4000).payload(8),
        ];
        for frame in &provoking {
            assert!(wire.passes(frame).unwrap());
        }
    }
    thread::sleep(Duration::from_millis(100));
    let before = agent.status().unwrap();
    agent.edit_config(POLICY).unwrap();
    assert_eq!(agent.wait_reload(&before).unwrap().reloads.last_error, None);
    for [host, client] in FAMILIES {
        let from = Frame::ip(client, host);
        for (what, frame) in [
            ("tcp", from.clone().tcp(40_001, 3306).flags(ACK)),
            ("echo reply", from.clone().echo_reply(77)),
            ("udp", from.clone().udp(40_001, 4000).payload(8)),
        ] {
            assert!(!wire.passes(&frame).unwrap(), "{what} from {client} counts as a reply");
        }
    }
}

#[test]
fn a_router_with_masquerade_gets_its_replies() {
    let world = World::new().unwrap();
    let inside = Namespace::create(&format!("{}-inside", unique_name())).unwrap();
    world.host.ip(&format!("link add lan0 type veth peer name {INTERFACE} netns {}", inside.name())).unwrap();
    world.host.ip("addr add 10.7.0.1/24 dev lan0").unwrap();
    world.host.ip("link set lan0 up").unwrap();
    inside.ip(&format!("addr add 10.7.0.2/24 dev {INTERFACE}")).unwrap();
    inside.ip(&format!("link set {INTERFACE} up")).unwrap();
    inside.ip("route add default via 10.7.0.1").unwrap();
    world.host.sysctl("ipv4/ip_forward", "1").unwrap();
    let masquerade = "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; \
                      add rule ip nat post oifname eth0 masquerade";
    world.host.run("nft", &[masquerade]).unwrap();
    let _web = HttpServer::start(&world.client, 8080).unwrap();
    let _dns = Echo::udp(&world.client, 53).unwrap();
    let agent = Agent::start(&world, POLICY).unwrap();
    let page = inside.run("curl", &["-sS", "-m2", &format!("http://{}/", at(CLIENT_V4, 8080))]).unwrap();
    assert_eq!(page, "portcullis demo\n");
    inside.run("ping", &["-c1", "-W1", CLIENT_V4]).unwrap();
    let answer = inside.enter(|| ask_udp(at("10.7.0.2", 0), at(CLIENT_V4, 53), b"who?", SECOND));
    assert_eq!(answer.unwrap(), b"who?");
    assert_eq!(agent.counter("not-exposed").unwrap(), 0);
    // Nobody asked for these.
    let wire = Wire::open(&world).unwrap();
    let lan: IpAddr = "10.7.0.2".parse().unwrap();
    for unsolicited in [
        Frame::ip(CLIENT_V4, lan).tcp(40_000, 80),
        Frame::ip(CLIENT_V4, lan).tcp(8080, 50_000).flags(ACK),
        Frame::ip(CLIENT_V4, HOST_V4).udp(53, 50_000).payload(20),
    ] {
        assert!(!wire.passes(&unsolicited).unwrap());
    }
    assert_eq!(agent.counter("not-exposed").unwrap(), 3);
}
