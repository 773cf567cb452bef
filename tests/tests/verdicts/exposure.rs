//! Stage 7: what exists for the outside, and control traffic. Replies by flow are an end-to-end matter.

use std::{net::UdpSocket, time::Instant};

use firewall_common::verdict::DropReason::{NotExposed, PacketRate, Reflection};
use tests::frame::{ACK, FIN, Frame, PSH, RST, SYN};

use crate::support::{Bench, Connection, FAMILIES, Family, ON_LOOPBACK, Seen, TCP, UDP, V4, V6};

#[track_caller]
fn hidden(bench: &mut Bench, what: &str, frame: &Frame, seen: Seen) {
    bench.drops(what, frame, NotExposed, seen);
}

/// Packets to each kind of service, with what an event shows of them.
fn services(family: Family) -> [(&'static str, Frame, Seen); 9] {
    let (icmp, none) = (family.icmp, (0, 0));
    [
        ("443/tcp", family.frame().tcp(40000, 443), family.seen(TCP, (40000, 443), 20)),
        ("443/tcp", family.frame().tcp(40000, 443).flags(ACK), family.seen(TCP, (40000, 443), 20)),
        ("443/tcp", family.frame().tcp(40000, 443).flags(RST), family.seen(TCP, (40000, 443), 20)),
        ("53/udp", family.frame().udp(40000, 53), family.seen(UDP, (40000, 53), 8)),
        ("icmp-echo", family.frame().echo_request(1), family.seen(icmp, none, 40)),
        ("esp", family.frame().esp(1), family.seen(50, none, 12)),
        ("gre", family.frame().gre(), family.seen(47, none, 8)),
        ("proto/132", family.frame().protocol(132, [0; 12]), family.seen(132, none, 12)),
        ("proto/0", family.frame().protocol(0, [59, 0, 1, 4, 0, 0, 0, 0]), family.seen(0, none, 8)),
    ]
}

#[test]
fn each_service_is_hidden_unless_it_is_exposed() {
    let all = "dmz.expose = [\"443/tcp\", \"53/udp\", \"icmp-echo\", \"esp\", \"gre\", \"proto/132\", \"proto/0\", \"proto/59\"]";
    let mut exposed = Bench::new(all);
    let mut none = Bench::new("dmz.expose = []");
    let mut open = Bench::new("");
    for family in FAMILIES {
        for (what, frame, seen) in services(family) {
            exposed.passes(what, &frame, &[]);
            open.passes(what, &frame, &[]);
            // Number 0 is an extension header in IPv6.
            let protocol = if what == "proto/0" && family.header == 40 { 59 } else { seen.protocol };
            hidden(&mut none, what, &frame, Seen { protocol, ..seen });
        }
        for flags in [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK] {
            let seen = family.seen(TCP, (443, 40000), 20);
            hidden(&mut exposed, "no flow of ours", &family.frame().tcp(443, 40000).flags(flags), seen);
        }
        // The numbers of ports are TCP's or UDP's, not both's.
        let seen = family.seen(UDP, (40000, 443), 8);
        hidden(&mut exposed, "443/udp", &family.frame().udp(40000, 443), seen);
        let seen = family.seen(TCP, (40000, 53), 20);
        hidden(&mut exposed, "53/tcp", &family.frame().tcp(40000, 53), seen);
    }
}

#[test]
fn one_service_exposes_no_other() {
    for (index, family) in [(0, V4), (3, V6), (4, V4), (4, V6), (5, V4), (7, V6)] {
        let service = services(family)[index].0;
        let mut bench = Bench::new(&format!("dmz.expose = [\"{service}\"]"));
        for (what, frame, seen) in &services(family)[..8] {
            if *what == service {
                bench.passes(what, frame, &[]);
            } else {
                hidden(&mut bench, what, frame, *seen);
            }
        }
    }
}

#[test]
fn port_ranges_and_protocol_numbers() {
    let mut bench = Bench::new("dmz.expose = [\"8000-8010/tcp\", \"proto/1\", \"proto/58\"]");
    for family in FAMILIES {
        for (port, is_exposed) in [(7999, false), (8000, true), (8010, true), (8011, false)] {
            let frame = family.frame().tcp(40000, port);
            match is_exposed {
                true => bench.passes("in the range", &frame, &[]),
                false => hidden(&mut bench, "outside", &frame, family.seen(TCP, (40000, port), 20)),
            }
        }
        // A protocol by its number is all of it.
        bench.passes("echo", &family.frame().echo_request(1), &[]);
        bench.passes("an answer", &family.frame().echo_reply(1), &[]);
    }
}

#[test]
fn icmp_answers_that_nobody_asked_for() {
    let mut bench = Bench::new("dmz.expose = [\"icmp-echo\"]");
    for family in FAMILIES {
        let seen = family.seen(family.icmp, (0, 0), 40);
        hidden(&mut bench, "an echo reply", &family.frame().echo_reply(1), seen);
    }
    // Each family's ICMP means nothing in the other.
    let v6 = V4.frame().protocol(58, [128, 0, 0, 0, 0, 0, 0, 0]);
    hidden(&mut bench, "ICMPv6 in IPv4", &v6, V4.seen(58, (0, 0), 8));
    let v4 = V6.frame().protocol(1, [3, 0, 0, 0, 0, 0, 0, 0]);
    hidden(&mut bench, "ICMP in IPv6", &v4, V6.seen(1, (0, 0), 8));
}

#[test]
fn control_traffic_passes() {
    let mut bench = Bench::new("dmz.expose = []");
    for kind in 0..=255u8 {
        let frame = V4.frame().icmp(kind, 0).payload(28);
        match kind {
            3 | 11 | 12 => bench.passes(&format!("ICMP {kind}"), &frame, &["control"]),
            _ => hidden(&mut bench, &format!("ICMP {kind}"), &frame, V4.seen(1, (0, 0), 36)),
        }
        for hops in [255, 254, 64, 1, 2] {
            let what = format!("ICMPv6 {kind} of hop limit {hops}");
            let frame = V6.frame().icmp(kind, 0).payload(48).ttl(hops);
            match (kind, hops) {
                (1..=4, _) | (133..=137, 255) | (130..=132 | 143, 1) => bench.passes(&what, &frame, &["control"]),
                _ => hidden(&mut bench, &what, &frame, V6.seen(58, (0, 0), 56)),
            }
        }
    }
    for family in FAMILIES {
        bench.passes("an answer of DHCP", &family.frame().dhcp_answer(), &["control"]);
        for ports in [(68, 67), (67, 69), (546, 547), (547, 545)] {
            hidden(&mut bench, "no answer", &family.frame().udp(ports.0, ports.1), family.seen(UDP, ports, 8));
        }
        let fragment = family.frame().icmp(if family.header == 20 { 3 } else { 1 }, 0).payload(8).fragment(1, 0, true);
        let length = if family.header == 40 { 24 } else { 16 };
        hidden(&mut bench, "a fragment of an error", &fragment, family.seen(family.icmp, (0, 0), length));
    }
}

/// Beyond 1000 a second of each kind, control traffic is dropped.
#[test]
fn control_traffic_has_a_limit() {
    let mut bench = Bench::new("dmz.expose = []");
    let solicit = |source| V6.from(source).neighbour_solicitation(V6.host.parse().expect("an address"));
    let report = V6.from("fe80::9").mld_report("ff02::1:ff00:1".parse().expect("an address"));
    for (what, flood) in [
        ("ICMP errors", V4.frame().icmp(3, 1)),
        ("DHCP answers", V4.frame().dhcp_answer()),
        ("MLD", report.clone()),
        ("neighbours", solicit("fe80::2")),
    ] {
        bench.loaded.forget_events().expect("the sampler");
        let start = Instant::now();
        bench.loaded.forget_events().expect("the sampler can be reset");
        bench.loaded.run(&flood.build(), 5000).expect("the kernel runs the program");
        let elapsed = start.elapsed();
        let (counted, told) = bench.since();
        let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
        let passed = count("passed");
        let most = 1001 + elapsed.as_micros() as u64 / 1000;
        assert!((1000..=most).contains(&passed), "{what}: {passed} in {elapsed:?}");
        let dropped = 5000 - passed;
        let mut expected = vec![
            ("control".to_owned(), passed),
            ("dropped".to_owned(), dropped),
            ("dropped control-rate".to_owned(), dropped),
            ("event-sampled".to_owned(), dropped - told.len() as u64),
            ("event-sent".to_owned(), told.len() as u64),
            ("passed".to_owned(), passed),
        ];
        expected.retain(|(_, count)| *count != 0);
        assert_eq!(counted, expected, "{what}");
        assert!((1..=2).contains(&told.len()), "{what}: {told:?}");
    }
    // Each kind has its own, and each neighbour.
    bench.passes("another neighbour", &solicit("fe80::3"), &["control"]);
}

#[test]
fn packets_of_a_socket_are_replies() {
    let mut bench = Bench::new(&format!("dmz.expose = []\n{ON_LOOPBACK}"));
    for address in ["127.0.0.2", "::1"] {
        let connection = Connection::open(address);
        for flags in [ACK, PSH | ACK, FIN | ACK, RST] {
            bench.passes("a connection", &connection.tcp().flags(flags), &["reply-socket"]);
        }
        hidden(&mut bench, "a new connection", &connection.tcp().flags(SYN), connection.seen());
        let (client, server) = (connection.client, connection.server);
        let other = client.port() ^ 1;
        let stranger = Frame::ip(client.ip(), server.ip()).tcp(other, server.port()).flags(ACK);
        let seen = Seen { ports: (other, server.port()), ..connection.seen() };
        hidden(&mut bench, "the same server, another client", &stranger, seen);

        let socket = UdpSocket::bind((address, 0)).expect("the loopback interface is up");
        let to = socket.local_addr().expect("it is bound");
        let udp = |port| Frame::ip(to.ip(), to.ip()).udp(port, to.port());
        let seen = |port| {
            let ports = (port, to.port());
            Seen {
                source: to.ip(),
                destination: to.ip(),
                ports,
                protocol: UDP,
                length: if to.is_ipv4() { 28 } else { 48 },
                count: 1,
            }
        };
        hidden(&mut bench, "a socket that is not connected", &udp(53), seen(53));
        socket.connect((address, 53)).expect("UDP connects to anything");
        bench.passes("a connected socket's resolver", &udp(53), &["reply-socket"]);
        hidden(&mut bench, "another", &udp(54), seen(54));
    }
}

/// Ways to pass are counted for what passes.
#[test]
fn a_reply_over_the_rate_is_none_that_passed() {
    let rate = "[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"1/h\"";
    let mut bench = Bench::new(&format!("dmz.expose = []\n{ON_LOOPBACK}{rate}"));
    for address in ["127.0.0.2", "::1"] {
        let connection = Connection::open(address);
        bench.passes("within the rate", &connection.tcp(), &["reply-socket"]);
        bench.drops_by("over it", &connection.tcp(), (PacketRate, Some("rate/it")), &[], connection.seen());
    }
}

#[test]
fn reflection_yields_to_a_connected_socket() {
    let mut bench = Bench::new(ON_LOOPBACK);
    for address in ["127.0.0.2", "::1"] {
        let socket = UdpSocket::bind((address, 0)).expect("the loopback interface is up");
        let to = socket.local_addr().expect("it is bound");
        let frame = Frame::ip(to.ip(), to.ip()).udp(123, to.port());
        let length = if to.is_ipv4() { 28 } else { 48 };
        let (source, ports) = (to.ip(), (123, to.port()));
        let seen = Seen { source, destination: source, ports, protocol: UDP, length, count: 1 };
        bench.drops("nobody asked", &frame, Reflection, seen);
        socket.connect((address, 123)).expect("UDP connects to anything");
        bench.passes("asked", &frame, &["reply-socket"]);
    }
}
