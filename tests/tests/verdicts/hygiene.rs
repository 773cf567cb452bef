//! Stage 5: packets that no honest stack sends, their sources aside.

use firewall_common::verdict::DropReason::{Land, PortZero, Reflection, TcpFlags};
use tests::frame::{ACK, FIN, Frame, PSH, RST, SYN, URG};

use crate::support::{Bench, FAMILIES, TCP, UDP};

/// The rule of RFC 9293 as a person would say it.
fn is_legal(flags: u8) -> bool {
    let has = |flag| flags & flag != 0;
    match (has(SYN), has(RST), has(FIN)) {
        // Opens, and may push; urgent data needs the acknowledged side.
        (true, false, false) => has(ACK) || !has(URG),
        // Resets, with or without acknowledgement.
        (false, true, false) => has(ACK) || !has(URG),
        // Everything else in a connection acknowledges.
        (false, false, _) => has(ACK),
        _ => false,
    }
}

#[test]
fn all_flags_with_all_ecn_bits() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        for flags in 0..=255u8 {
            let frame = family.frame().tcp(40000, 80).flags(flags);
            let what = format!("flags {flags:#010b}");
            if is_legal(flags & 0x3f) {
                bench.passes(&what, &frame, &[]);
            } else {
                bench.drops(&what, &frame, TcpFlags, family.seen(TCP, (40000, 80), 20));
            }
        }
    }
    let legal = (0..64).filter(|flags| is_legal(*flags)).count();
    assert_eq!(legal, 20, "of 64 combinations");
}

#[test]
fn flags_are_nobodys_business_when_the_check_is_off() {
    let mut bench = Bench::new("dmz.hygiene.tcp_flags = false");
    for family in FAMILIES {
        for flags in [0, SYN | FIN, FIN | PSH | URG, 0xff] {
            bench.passes("unchecked", &family.frame().tcp(40000, 80).flags(flags), &[]);
        }
    }
}

#[test]
fn port_zero() {
    let mut bench = Bench::new("");
    let mut unchecked = Bench::new("dmz.hygiene.port_zero = false");
    for family in FAMILIES {
        for ports in [(0, 80), (40000, 0), (0, 0)] {
            let frame = family.frame().tcp(ports.0, ports.1);
            bench.drops("TCP", &frame, PortZero, family.seen(TCP, ports, 20));
            unchecked.passes("TCP", &frame, &[]);
        }
        for ports in [(40000, 0), (0, 0)] {
            let frame = family.frame().udp(ports.0, ports.1);
            bench.drops("UDP", &frame, PortZero, family.seen(UDP, ports, 8));
            unchecked.passes("UDP", &frame, &[]);
        }
        bench.passes("UDP from port 0 wants no reply (RFC 768)", &family.frame().udp(0, 5000), &[]);
        bench.passes("a later fragment has no ports", &family.frame().protocol(UDP, [0; 8]).fragment(1, 9, false), &[]);
    }
}

#[test]
fn land() {
    let mut bench = Bench::new("");
    let mut unchecked = Bench::new("dmz.hygiene.land = false");
    for family in FAMILIES {
        let own = family.host;
        let frames: [(Frame, u8, (u16, u16), u32); 3] = [
            (family.from(own).tcp(80, 80), TCP, (80, 80), 20),
            (family.from(own).udp(40000, 5000), UDP, (40000, 5000), 8),
            (family.from(own).echo_request(1), family.icmp, (0, 0), 40),
        ];
        for (frame, protocol, ports, length) in frames {
            bench.drops("land", &frame, Land, family.seen_from(own, protocol, ports, length));
            unchecked.passes("land", &frame, &[]);
        }
    }
}

const PORTS: [u16; 20] =
    [17, 19, 53, 69, 111, 123, 137, 161, 389, 427, 520, 1434, 1900, 3283, 3702, 5351, 5353, 5683, 10001, 11211];

/// Replies by a flow of the host's own are an end-to-end matter.
#[test]
fn reflection() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        for port in PORTS {
            for target in [40000, port, 53] {
                let frame = family.frame().udp(port, target).payload(100);
                let what = format!("from {port} to {target}");
                bench.drops(&what, &frame, Reflection, family.seen(UDP, (port, target), 108));
            }
            bench.passes("TCP from there", &family.frame().tcp(port, 40000).flags(SYN | ACK), &[]);
            bench.passes("UDP to there", &family.frame().udp(40000, port), &[]);
        }
        bench.passes("another port", &family.frame().udp(54, 40000), &[]);
    }
}

#[test]
fn servers_that_talk_port_to_port_are_named_in_expose() {
    let mut bench = Bench::new("dmz.expose = [\"123/udp\", \"5000/udp\"]");
    for family in FAMILIES {
        bench.passes("NTP peers", &family.frame().udp(123, 123), &[]);
        bench.passes("a client", &family.frame().udp(40000, 123), &[]);
        for ports in [(53, 123), (123, 5000)] {
            bench.drops("no peer", &family.frame().udp(ports.0, ports.1), Reflection, family.seen(UDP, ports, 8));
        }
    }
}

#[test]
fn reflection_ports_are_the_policys() {
    let mut bench = Bench::new("dmz.hygiene.reflection_ports = [7000, 67, 547]");
    let mut off = Bench::new("dmz.hygiene.reflection = false");
    for family in FAMILIES {
        bench.drops("its own", &family.frame().udp(7000, 9), Reflection, family.seen(UDP, (7000, 9), 8));
        bench.passes("not the defaults", &family.frame().udp(123, 9), &[]);
        bench.passes("a DHCP server's answer is control traffic", &family.frame().dhcp_answer(), &["control"]);
        off.passes("off", &family.frame().udp(123, 9), &[]);
        // A first fragment shows its ports, a later one passes, and is nothing without the first.
        let first = family.frame().udp(7000, 9).payload(8).fragment(1, 0, true);
        let length = if family.header == 40 { 24 } else { 16 };
        bench.drops("a first fragment", &first, Reflection, family.seen(UDP, (7000, 9), length));
    }
}
