//! Stage 5: sources that cannot be, or are not wanted.

use firewall_common::{
    ban::{HOST, guard},
    verdict::DropReason::{self, Bogon, LinkLocalSource, OwnSource, PrivateSource},
};
use tests::frame::{Frame, ToIp as _};

use crate::support::{Bench, FAMILIES, Family, UDP, V4, V6};

fn udp(family: Family, source: &str) -> Frame {
    family.from(source).udp(40000, 5000)
}

#[track_caller]
fn check(bench: &mut Bench, family: Family, reason: DropReason, inside: &[&str], outside: &[&str]) {
    for source in inside {
        bench.drops(source, &udp(family, source), reason, family.seen_from(source, UDP, (40000, 5000), 8));
    }
    for source in outside {
        bench.passes(source, &udp(family, source), &[]);
    }
}

const BOGONS_V4: &[&str] = &[
    "0.0.0.0",
    "0.255.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
];
const BOGONS_V6: &[&str] = &["::", "::1", "ff00::", "ff02::1", "ffff::1", "::ffff:198.51.100.7", "::ffff:0:0"];
const NEIGHBOURS_V4: &[&str] = &["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255"];
const NEIGHBOURS_V6: &[&str] = &["::2", "feff::1", "::fffe:198.51.100.7", "::1:0:0:1", "64:ff9b::c633:6407"];

#[test]
fn bogons() {
    let mut bench = Bench::new("");
    check(&mut bench, V4, Bogon, BOGONS_V4, NEIGHBOURS_V4);
    check(&mut bench, V6, Bogon, BOGONS_V6, NEIGHBOURS_V6);
    let mut unchecked = Bench::new("dmz.hygiene.bogons = false");
    check(&mut unchecked, V4, Bogon, &[], BOGONS_V4);
    check(&mut unchecked, V6, Bogon, &[], BOGONS_V6);
}

#[test]
fn hosts_without_an_address_yet_may_ask_for_one() {
    let mut bench = Bench::new("");
    let v4 = || Frame::v4("0.0.0.0", "255.255.255.255");
    bench.passes("DHCP discovery", &v4().udp(68, 67).payload(300), &[]);
    bench.passes("IGMP from a switch (RFC 4541)", &v4().protocol(2, [0x11, 0, 0, 0, 0, 0, 0, 0]), &[]);
    let seen = |protocol, ports, length| crate::support::Seen {
        destination: "255.255.255.255".to_ip(),
        ..V4.seen_from("0.0.0.0", protocol, ports, length)
    };
    for ports in [(67, 67), (68, 68), (67, 68), (68, 53)] {
        let frame = v4().udp(ports.0, ports.1);
        // Port 67 to 68 is a DHCP server's answer: no server lacks an address.
        bench.drops("another UDP port", &frame, Bogon, seen(UDP, ports, 8));
    }
    bench.drops("TCP", &v4().tcp(68, 67), Bogon, seen(6, (68, 67), 20));
    bench.drops("ping", &v4().echo_request(1), Bogon, seen(1, (0, 0), 40));
    let other = Frame::v4("0.0.0.1", "255.255.255.255").udp(68, 67);
    let near = crate::support::Seen { source: "0.0.0.1".to_ip(), ..seen(UDP, (68, 67), 8) };
    bench.drops("0.0.0.1", &other, Bogon, near);

    let v6 = || V6.from("::");
    let target = V6.host.parse().expect("an address");
    bench.passes("duplicate address detection", &v6().neighbour_solicitation(target), &["control"]);
    bench.passes("router solicitation", &v6().icmp(133, 0).ttl(255), &["control"]);
    bench.passes("MLDv2 report", &v6().mld_report(target), &["control"]);
    bench.passes("MLD report", &v6().icmp(131, 0).payload(16).ttl(1), &["control"]);
    for kind in [128, 134, 136, 130, 1] {
        let seen = V6.seen_from("::", 58, (0, 0), 8);
        bench.drops(&format!("ICMPv6 {kind}"), &v6().icmp(kind, 0).ttl(255), Bogon, seen);
    }
}

#[test]
fn own_addresses_come_from_nowhere_else() {
    let mut bench = Bench::new("");
    let mut unchecked = Bench::new("dmz.hygiene.own_source = false");
    for (family, own, protected) in [(V4, "203.0.113.80", "203.0.113.81"), (V6, "2001:db8:80::80", "2001:db8:80::81")] {
        for bench in [&mut bench, &mut unchecked] {
            bench.guard(&[(own, HOST, guard::OWN | guard::PROTECTED), (protected, HOST, guard::PROTECTED)]);
        }
        check(&mut bench, family, OwnSource, &[own], &[protected, family.client]);
        check(&mut unchecked, family, OwnSource, &[], &[own, protected]);
    }
}

const PRIVATE_V4: &[&str] = &[
    "10.0.0.0",
    "10.255.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.168.0.0",
    "192.168.255.255",
    "100.64.0.0",
    "100.127.255.255",
];
const PRIVATE_V6: &[&str] = &["fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
const PUBLIC_V4: &[&str] = &[
    "9.255.255.255",
    "11.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "169.254.1.1",
];
const PUBLIC_V6: &[&str] = &["fbff::1", "fe00::1", "fe80::1", "2001:db8::9"];

#[test]
fn private_sources_are_refused_where_asked_for() {
    let mut bench = Bench::new("dmz.hygiene.private_sources = true");
    check(&mut bench, V4, PrivateSource, PRIVATE_V4, PUBLIC_V4);
    check(&mut bench, V6, PrivateSource, PRIVATE_V6, PUBLIC_V6);
    let mut unasked = Bench::new("");
    check(&mut unasked, V4, PrivateSource, &[], PRIVATE_V4);
    check(&mut unasked, V6, PrivateSource, &[], PRIVATE_V6);
}

#[test]
fn link_local_sources_are_refused_where_asked_for() {
    let mut bench = Bench::new("dmz.hygiene.link_local_sources = true");
    let (v4, v6) = (["169.254.0.0", "169.254.255.255"], ["fe80::1", "febf:ffff::1"]);
    check(&mut bench, V4, LinkLocalSource, &v4, &["169.253.255.255", "169.255.0.0", "10.0.0.1"]);
    check(&mut bench, V6, LinkLocalSource, &v6, &["fe7f::1", "fec0::1", "fc00::1"]);
    let link = || V6.from("fe80::2");
    bench.passes("but neighbour discovery", &link().icmp(136, 0).ttl(255), &["control"]);
    bench.passes("and MLD", &link().icmp(131, 0).ttl(1), &["control"]);
    bench.passes("and DHCPv6", &link().dhcp_answer(), &["control"]);
    let far = V6.seen_from("fe80::2", 58, (0, 0), 8);
    bench.drops("a router out of nowhere", &link().icmp(134, 0).ttl(254), LinkLocalSource, far);
    let mut unasked = Bench::new("");
    check(&mut unasked, V4, LinkLocalSource, &[], &v4);
    check(&mut unasked, V6, LinkLocalSource, &[], &v6);
}

/// Routers on the way and DHCP servers have such addresses: without them the host loses its network.
#[test]
fn control_traffic_may_come_from_private_and_link_local_sources() {
    let mut bench = Bench::new("dmz.hygiene = { private_sources = true, link_local_sources = true }");
    for source in ["10.0.0.1", "100.64.0.1", "169.254.169.254"] {
        bench.passes("a DHCP server", &V4.from(source).dhcp_answer(), &["control"]);
        bench.passes("a router", &V4.from(source).icmp(3, 4).payload(28), &["control"]);
    }
    for source in ["fd00::1", "fe80::1"] {
        bench.passes("a DHCPv6 server", &V6.from(source).dhcp_answer(), &["control"]);
        bench.passes("a router", &V6.from(source).icmp(2, 0).payload(48), &["control"]);
        bench.passes("a neighbour", &V6.from(source).icmp(136, 0).ttl(255), &["control"]);
    }
}

/// Every check off: a source is as good as any other.
#[test]
fn hygiene_can_be_off() {
    let mut bench = Bench::new(
        "[dmz.hygiene]\ntcp_flags = false\nport_zero = false\nland = false\nbogons = false\nown_source = false\n\
         reflection = false",
    );
    for family in FAMILIES {
        bench.passes("land, flags and port 0 at once", &family.from(family.host).tcp(0, 0).flags(0), &[]);
        bench.passes("reflection", &family.frame().udp(53, 9), &[]);
    }
}
