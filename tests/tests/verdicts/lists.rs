//! Stages 2 and 3: allow and block lists.

use std::fmt::Write as _;

use firewall_common::{
    event::EventAction,
    verdict::DropReason::{BadLength, Ban, BlockList, NotExposed, PacketRate, PacketTooLarge, TcpFlags},
};
use tests::{
    frame::{Extension, FIN, Frame, SYN},
    loaded::Verdict,
};

use crate::support::{Bench, FAMILIES, Family, TCP, Told, UDP, V4, V6, counted};

/// `[[dmz.list]]`s of name, action, further keys, and prefixes.
fn lists(lists: &[(&str, &str, &str, &[&str])]) -> String {
    let mut policy = String::new();
    for (name, action, further, prefixes) in lists {
        let text = "[[dmz.list]]\nname = \"{}\"";
        let _infallible = writeln!(policy, "{}", text.replace("{}", name));
        let _infallible = writeln!(policy, "action = \"{action}\"\nprefixes = {prefixes:?}\n{further}");
    }
    policy
}

fn tcp(family: Family, source: &str) -> Frame {
    family.from(source).tcp(40000, 80)
}

#[track_caller]
fn blocked(bench: &mut Bench, family: Family, source: &str, list: &str) {
    let seen = family.seen_from(source, TCP, (40000, 80), 20);
    bench.drops_by(source, &tcp(family, source), (BlockList, Some(list)), &[], seen);
}

#[track_caller]
fn allowed(bench: &mut Bench, family: Family, source: &str, list: &str) {
    bench.passes(source, &tcp(family, source), &["allowed", list]);
}

#[test]
fn blocks_hold_from_the_first_address_to_the_last() {
    let mut bench = Bench::new(&lists(&[(
        "bad",
        "block",
        "",
        &["203.0.112.0/20", "198.51.100.9", "2001:db8:40::/42", "2001:db8::9"],
    )]));
    for (family, inside, outside) in [
        (V4, ["203.0.112.0", "203.0.127.255"], ["203.0.111.255", "203.0.128.0"]),
        (V4, ["198.51.100.9", "198.51.100.9"], ["198.51.100.8", "198.51.100.10"]),
        (V6, ["2001:db8:40::", "2001:db8:7f:ffff:ffff:ffff:ffff:ffff"], ["2001:db8:3f:ffff::1", "2001:db8:80::"]),
        (V6, ["2001:db8::9", "2001:db8::9"], ["2001:db8::8", "2001:db8::a"]),
    ] {
        inside.iter().for_each(|source| blocked(&mut bench, family, source, "list/bad"));
        outside.iter().for_each(|source| bench.passes(source, &tcp(family, source), &[]));
    }
}

#[test]
fn one_family_alone() {
    let mut bench = Bench::new(&lists(&[("bad", "block", "", &["128.0.0.0/1", "1.0.0.0/8"])]));
    blocked(&mut bench, V4, "198.51.100.7", "list/bad");
    bench.passes("no IPv6 list", &tcp(V6, V6.client), &[]);
    let mut bench = Bench::new(&lists(&[("bad", "block", "", &["2000::/3"])]));
    blocked(&mut bench, V6, V6.client, "list/bad");
    bench.passes("no IPv4 list", &tcp(V4, V4.client), &[]);
}

#[test]
fn allow_beats_block_whatever_the_lengths_and_the_order() {
    let mut bench = Bench::new(&lists(&[
        ("bad", "block", "", &["198.51.0.0/16", "203.0.113.5", "2001:db8:1::/48", "2001:db8:5:6::/64"]),
        ("good", "allow", "", &["198.51.100.0/24", "203.0.113.0/24", "2001:db8:1::7", "2001:db8:5::/48"]),
        ("worse", "block", "", &["198.51.100.7", "2001:db8:1::/64"]),
    ]));
    for (family, sources) in [
        (V4, ["198.51.100.7", "198.51.100.0", "203.0.113.5", "203.0.113.6"]),
        (V6, ["2001:db8:1::7", "2001:db8:5::1", "2001:db8:5:6::1", "2001:db8:5:ffff::1"]),
    ] {
        sources.iter().for_each(|source| allowed(&mut bench, family, source, "list/good"));
    }
    blocked(&mut bench, V4, "198.51.101.1", "list/bad");
    blocked(&mut bench, V6, "2001:db8:1:1::1", "list/bad");
    blocked(&mut bench, V6, "2001:db8:1::8", "list/worse");
}

#[test]
fn the_longest_prefix_names_the_list() {
    let mut bench = Bench::new(&lists(&[
        ("wide", "block", "", &["198.0.0.0/8", "2001:d00::/24"]),
        ("narrow", "block", "", &["198.51.100.0/24", "2001:db8:1::/48"]),
        ("host", "block", "", &["198.51.100.7", "2001:db8:1::7"]),
    ]));
    for (family, sources) in [
        (V4, ["198.52.0.1", "198.51.100.8", "198.51.100.7"]),
        (V6, ["2001:db8:2::1", "2001:db8:1::8", "2001:db8:1::7"]),
    ] {
        for (source, list) in sources.iter().zip(["list/wide", "list/narrow", "list/host"]) {
            blocked(&mut bench, family, source, list);
        }
    }
}

#[test]
fn a_monitored_list_inside_an_enforced_network_weakens_nothing() {
    let mut bench = Bench::new(&lists(&[
        ("network", "block", "", &["198.51.0.0/16", "2001:db8:1::/48"]),
        (
            "watched",
            "block",
            "mode = \"monitor\"",
            &["198.51.100.0/24", "2001:db8:1::/64", "203.0.113.0/24", "2001:db8:9::/48"],
        ),
    ]));
    for (family, both, only) in [(V4, V4.client, "203.0.113.1"), (V6, V6.client, "2001:db8:9::1")] {
        let seen = |source| family.seen_from(source, TCP, (40000, 80), 20);
        let mut counters = counted("dropped", &["dropped block-list", "monitored", "monitored block-list"]);
        counters.extend(counted("list/network", &["list/watched"]));
        counters.push(("event-sent".into(), 2));
        let told = [(EventAction::Monitor, "list/watched"), (EventAction::Drop, "list/network")];
        let told = told.map(|(action, list)| Told::new(action, BlockList, Some(list), seen(both)));
        bench.check("in both", &tcp(family, both), Verdict::Drop, &counters, &told);
        bench.monitors("watched", &tcp(family, only), &[(BlockList, Some("list/watched"))], &[], seen(only));
    }
}

/// Operators cannot lock themselves out.
#[test]
fn allow_skips_lists_bans_exposure_and_rates_by_source() {
    let office = ("office", "allow", "", &["198.51.100.0/24", "2001:db8:1::/48"][..]);
    let rate = "[[dmz.rate]]\nname = \"each\"\nper = \"source\"\npackets = \"1/h\"\n";
    let mut bench = Bench::new(&format!("dmz.expose = []\n{}{rate}", lists(&[office])));
    for (family, others) in [(V4, "203.0.113.1"), (V6, "2001:db8:9::1")] {
        bench.ban(family.client);
        for _ in 0..3 {
            allowed(&mut bench, family, family.client, "list/office");
        }
        let seen = family.seen_from(others, TCP, (40000, 80), 20);
        bench.drops("others", &tcp(family, others), NotExposed, seen);
    }
}

#[test]
fn allow_skips_neither_parsing_nor_hygiene_nor_size_nor_rates_by_service() {
    let office = ("office", "allow", "", &["198.51.100.0/24", "2001:db8:1::/48"][..]);
    let rate = "[[dmz.rate]]\nname = \"all\"\nper = \"service\"\nports = [\"80/tcp\"]\npackets = \"1/h\"\n";
    let mut bench = Bench::new(&format!("dmz.size.max_packet = \"1000B\"\n{}{rate}", lists(&[office])));
    // Of the list's packets, those that pass are counted as such.
    let by_list = ["list/office"];
    for family in FAMILIES {
        let flags = family.frame().tcp(40000, 81).flags(SYN | FIN);
        bench.drops_by("hygiene", &flags, (TcpFlags, None), &by_list, family.seen(TCP, (40000, 81), 20));
        let large = family.frame().udp(40000, 81).payload(1000);
        bench.drops_by("size", &large, (PacketTooLarge, None), &by_list, family.seen(UDP, (40000, 81), 1008));
        let broken = family.frame().udp(40000, 81).udp_length(7);
        bench.drops("parsing", &broken, BadLength, family.seen(UDP, (40000, 81), 8));
    }
    allowed(&mut bench, V4, V4.client, "list/office");
    let seen = V6.seen(TCP, (40000, 80), 20);
    bench.drops_by("one bucket for all", &tcp(V6, V6.client), (PacketRate, Some("rate/all")), &by_list, seen);
}

/// Defect 1: lists hold for every protocol and every shape of packet, not for TCP and UDP alone.
#[test]
fn defect_1_no_early_pass_before_the_lists_and_the_ban() {
    let prefixes = &["198.51.100.7", "2001:db8:1::7"][..];
    let mut bench = Bench::new(&lists(&[("bad", "block", "", prefixes)]));
    let mut banned = Bench::new("");
    FAMILIES.iter().for_each(|family| banned.ban(family.client));
    for (what, family, protocol, ports, length, frame) in shapes() {
        let seen = family.seen(protocol, ports, length);
        bench.drops_by(what, &frame, (BlockList, Some("list/bad")), &[], seen);
        banned.drops_by(what, &frame, (Ban, None), &[], seen);
    }
}

/// A packet, and what an event shows of it: its name, family, protocol, ports and length come before it.
type Shape = (&'static str, Family, u8, (u16, u16), u32, Frame);

/// Packets of every kind, with what an event shows of them.
fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for family in FAMILIES {
        let (icmp, none) = (family.icmp, (0, 0));
        let fragment = if family.header == 40 { 8 } else { 0 };
        let mut shape = |what, protocol, ports, length, frame: Frame| {
            shapes.push((what, family, protocol, ports, length, frame.clone()));
            shapes.push((what, family, protocol, ports, length, frame.clone().vlan(5)));
            shapes.push((what, family, protocol, ports, length, frame.tag(0x88a8, 5).vlan(6)));
        };
        shape("TCP", TCP, (40000, 80), 20, family.frame().tcp(40000, 80));
        shape("an answer of TCP", TCP, (80, 40000), 20, family.frame().tcp(80, 40000).flags(0x12));
        shape("UDP", UDP, (40000, 5000), 8, family.frame().udp(40000, 5000));
        shape("DNS answers", UDP, (53, 40000), 8, family.frame().udp(53, 40000));
        shape("DNS queries", UDP, (40000, 53), 8, family.frame().udp(40000, 53));
        let dhcp = if family.header == 20 { ((67, 68), 252) } else { ((547, 546), 68) };
        shape("DHCP answers", UDP, dhcp.0, dhcp.1, family.frame().dhcp_answer());
        shape("echo", icmp, none, 40, family.frame().echo_request(1));
        shape("an ICMP error", icmp, none, 8, family.frame().icmp(if family.header == 20 { 3 } else { 1 }, 0));
        shape("GRE", 47, none, 8, family.frame().gre());
        shape("ESP", 50, none, 12, family.frame().esp(7));
        shape("SCTP", 132, none, 12, family.frame().protocol(132, [0; 12]));
        shape("OSPF", 89, none, 24, family.frame().protocol(89, [0; 24]));
        let first = family.frame().udp(40000, 80).payload(8).fragment(1, 0, true);
        shape("a first fragment", UDP, (40000, 80), 16 + fragment, first);
        let later = family.frame().protocol(UDP, [0; 8]).fragment(1, 9, false);
        shape("a later fragment", UDP, none, 8 + fragment, later);
        if family.header == 20 {
            shape("options", TCP, (40000, 80), 60, family.frame().options([1; 40]).tcp(40000, 80));
        } else {
            let hops = family.frame().extension(Extension::HopByHop).extension(Extension::Destination);
            shape("extension headers", TCP, (40000, 80), 36, hops.tcp(40000, 80));
            let target = family.host.parse().expect("an address");
            let far = family.frame().neighbour_solicitation(target).ttl(254);
            shape("neighbour discovery from afar", icmp, none, 32, far);
            let mld = family.frame().mld_report("ff02::1:ff00:1".parse().expect("an address"));
            shape("MLD", icmp, none, 36, mld);
        }
    }
    shapes
}
