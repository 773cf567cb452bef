//! Traffic that must not pass, stage by stage, in the order of the pipeline.

use std::net::IpAddr;

use tests::frame::{ACK, Extension, FIN, Frame, PSH, RST, SYN, URG};

use crate::probe::{Expect, Family, Step};

pub(crate) fn steps(family: &Family) -> Vec<Step> {
    let mut steps = parse(family);
    steps.extend(lists(family));
    steps.extend(hygiene(family));
    steps.extend(sources(family));
    steps.extend(size(family));
    steps.extend(exposure(family));
    steps.extend(rates(family));
    steps
}

/// Drops of a frame from an address of its own.
struct Dropper<'a> {
    family: &'a Family,
    stage: &'static str,
    steps: Vec<Step>,
}

impl Dropper<'_> {
    fn add(&mut self, what: &str, reason: &'static str, frame: impl FnOnce(Frame) -> Frame) {
        let source = self.family.far();
        let frame = frame(self.family.from(source));
        self.steps.push(self.family.drops(self.stage, what, source, reason, frame).into());
    }
}

/// What cannot be read, or contradicts itself.
fn parse(family: &Family) -> Vec<Step> {
    let mut drops = Dropper { family, stage: "parse", steps: Vec::new() };
    drops.add("a packet that claims to be longer than its frame", "truncated", |frame| {
        frame.tcp(40000, 80).payload(20).ip_length(200)
    });
    drops.add("a TCP header cut short", "bad-length", |frame| frame.protocol(6, [0, 80, 0, 80, 0, 0, 0, 0]));
    drops.add("a TCP header of 16 bytes", "bad-length", |frame| frame.tcp(40000, 80).data_offset(4));
    drops
        .add("UDP that lies about its length", "bad-length", |frame| frame.udp(40000, 5000).payload(8).udp_length(500));
    if family.is_v4() {
        drops.add("an IP header of 16 bytes", "bad-length", |frame| frame.tcp(40000, 80).ihl(4));
        drops.add("a TCP fragment at offset 1 (RFC 3128)", "fragment-header", |frame| {
            frame.protocol(6, [0; 32]).fragment(5, 1, true)
        });
    } else {
        drops.add("seven extension headers", "extension-headers", |frame| {
            (0..7).fold(frame, |frame, _| frame.extension(Extension::Destination)).tcp(40000, 80)
        });
        drops.add("a first fragment without the whole header chain (RFC 7112)", "fragment-header", |frame| {
            frame.fragment(5, 0, true).protocol(6, [0; 8])
        });
    }
    let source = family.far();
    let frame = family.from(source).tcp(40000, 80).vlan(1).vlan(2).vlan(3);
    let what = "three VLAN tags: nobody knows what is inside";
    drops.steps.push(family.drops("parse", what, source, "vlan-depth", frame).sourceless().into());
    drops.steps
}

/// Block lists, and ways around them that others left open.
fn lists(family: &Family) -> Vec<Step> {
    let stage = "block list";
    let blocked = |n: u8| family.pick(&format!("203.0.113.{n}"), &format!("2001:db8:bad::{n}"));
    let dropped = |what: &str, source: IpAddr, frame: Frame| -> Step {
        family.drops(stage, what, source, "block-list", frame).by("drop-list").into()
    };
    let from = |n| family.from(blocked(n));
    let source = blocked(9);
    let expect = Expect::Drops { reason: "block-list", source: Some(source) };
    let mut steps = vec![
        family.curl(stage, "curl from a blocked network", expect, source).by("drop-list").into(),
        dropped("… inside a VLAN tag", blocked(20), from(20).tcp(40000, 80).vlan(100)),
        dropped("… as UDP from port 53", blocked(21), from(21).udp(53, 5000)),
        dropped("… as a protocol without ports (GRE)", blocked(22), from(22).gre()),
        dropped("… as a later fragment", blocked(23), from(23).protocol(17, [0; 64]).fragment(9, 20, false)),
        dropped("… as an ICMP error", blocked(24), from(24).icmp(if family.is_v4() { 3 } else { 1 }, 1).payload(28)),
    ];
    if family.is_v4() {
        steps.push(dropped("… behind IP options", blocked(25), from(25).tcp(40000, 80).options([1; 12])));
    } else {
        let frame = from(25).tcp(40000, 80).extension(Extension::HopByHop).extension(Extension::Destination);
        steps.push(dropped("… behind extension headers", blocked(25), frame));
    }
    let [first, last, behind] = [
        ("198.18.16.0", "2001:db8:f100::"),
        ("198.18.31.255", "2001:db8:f10f:ffff:ffff:ffff:ffff:ffff"),
        ("198.18.32.0", "2001:db8:f110::"),
    ]
    .map(|(v4, v6)| family.pick(v4, v6));
    let length = if family.is_v4() { "/20" } else { "/44" };
    steps.push(dropped(&format!("the first address of a {length}"), first, family.from(first).tcp(40000, 80)));
    steps.push(dropped(&format!("the last address of a {length}"), last, family.from(last).tcp(40000, 80)));
    let what = format!("the first address behind the {length}");
    steps.push(family.passes(stage, what, family.from(behind).tcp(40000, 80)).into());

    let allowed = family.pick("198.51.100.66", "2001:db8:1::66");
    let what = if family.is_v4() { "allowed and blocked at once: the allow list wins" } else { "curl from the office" };
    steps.push(family.curl("allow list", what, Expect::Passes, allowed).by("office").tally("allowed").into());
    let office = family.pick("198.51.100.8", "2001:db8:1::8");
    steps.push(
        family
            .passes("allow list", "from the office to a hidden port", family.from(office).tcp(40000, 3306))
            .by("office")
            .tally("allowed")
            .into(),
    );
    steps.push(
        family
            .drops("allow list", "from the office, but with impossible flags", office, "tcp-flags", {
                family.from(office).tcp(40000, 80).flags(FIN | PSH | URG)
            })
            .into(),
    );
    let watched = family.pick("198.19.7.7", "2001:db8:7::7");
    let expect = Expect::Monitors { reason: "block-list", source: watched };
    steps.push(family.curl("monitor", "curl from a network on trial", expect, watched).by("watch-list").into());
    steps
}

/// Packets that no honest stack sends.
fn hygiene(family: &Family) -> Vec<Step> {
    let mut drops = Dropper { family, stage: "hygiene", steps: Vec::new() };
    for (what, flags) in [
        ("no TCP flags at all (null scan)", 0),
        ("FIN, PSH and URG (Xmas scan)", FIN | PSH | URG),
        ("SYN and FIN", SYN | FIN),
        ("SYN and RST", SYN | RST),
        ("a lone FIN", FIN),
    ] {
        drops.add(what, "tcp-flags", |frame| frame.tcp(40000, 80).flags(flags));
    }
    drops.add("TCP from port 0", "port-zero", |frame| frame.tcp(0, 80));
    drops.add("UDP to port 0", "port-zero", |frame| frame.udp(40000, 0).payload(8));
    drops.add("UDP from port 53 that nobody asked for", "reflection", |frame| frame.udp(53, 5000).payload(400));
    drops.add("UDP from port 11211 (memcached)", "reflection", |frame| frame.udp(11211, 5000).payload(400));
    drops.steps
}

/// Source addresses that cannot be.
fn sources(family: &Family) -> Vec<Step> {
    let source = |what, source: &'static str, v6: &'static str, reason| -> Step {
        let source = family.pick(source, v6);
        family.drops("hygiene", what, source, reason, family.from(source).tcp(40000, 80)).into()
    };
    let host = family.host;
    let all = family.pick("192.0.2.255", "ff02::1");
    let own = Frame::ip(host, all).udp(40000, 5000).payload(4);
    vec![
        family.drops("hygiene", "from the host to itself (land)", host, "land", family.from(host).tcp(80, 80)).into(),
        family.drops("hygiene", "from the host's own address", host, "own-source", own).into(),
        source("from the loopback address", "127.0.0.1", "::1", "bogon"),
        source("from a multicast address", "224.0.0.5", "ff02::5", "bogon"),
        source("from a private address", "10.1.2.3", "fd00::3", "private-source"),
        source("from a link-local address", "169.254.7.7", "fe80::77", "link-local-source"),
    ]
}

fn size(family: &Family) -> Vec<Step> {
    let mut drops = Dropper { family, stage: "size", steps: Vec::new() };
    let header = if family.is_v4() { 28 } else { 48 };
    drops.add("a packet of 1501 bytes", "packet-too-large", |frame| {
        frame.icmp(if family.is_v4() { 8 } else { 128 }, 0).payload(1501 - header)
    });
    let mut steps = drops.steps;
    let ruled = |what, reason, frame: fn(Frame) -> Frame| -> Step {
        let source = family.far();
        family.drops("size", what, source, reason, frame(family.from(source))).by("5000/udp").into()
    };
    steps.push(ruled("513 bytes where 512 are allowed", "payload-too-large", |frame| {
        frame.udp(40000, 5000).payload(513)
    }));
    steps.push(ruled("a first fragment where size is limited", "sized-fragment", |frame| {
        frame.udp(40000, 5000).payload(64).fragment(3, 0, true)
    }));
    steps
}

/// Ports and protocols that do not exist for the outside.
fn exposure(family: &Family) -> Vec<Step> {
    let mut drops = Dropper { family, stage: "expose", steps: Vec::new() };
    let reason = "not-exposed";
    drops.add("SYN to port 3306", reason, |frame| frame.tcp(40000, 3306));
    drops.add("SYN-ACK from port 443 that answers nothing", reason, |frame| frame.tcp(443, 50001).flags(SYN | ACK));
    drops.add("ACK to port 3306 out of nowhere", reason, |frame| frame.tcp(40000, 3306).flags(ACK).numbers(5, 5));
    drops.add("UDP to port 161", reason, |frame| frame.udp(40000, 161).payload(40));
    drops.add("GRE", reason, Frame::gre);
    drops.add("ESP", reason, |frame| frame.esp(7));
    drops.add("an echo reply that answers nothing", reason, |frame| frame.echo_reply(4711));
    if family.is_v4() {
        drops.add("ICMP timestamp request", reason, |frame| frame.icmp(13, 0).payload(12));
        drops.add("SYN to port 3306 behind 40 bytes of IP options", reason, |frame| {
            frame.tcp(80, 3306).options([1; 40])
        });
    } else {
        drops.add("neighbour solicitation from beyond the link", reason, |frame| frame.icmp(135, 0).payload(16));
        drops.add("SYN to port 3306 behind extension headers", reason, |frame| {
            frame.tcp(80, 3306).extension(Extension::Destination).extension(Extension::Routing)
        });
    }
    drops.steps
}

fn rates(family: &Family) -> Vec<Step> {
    let mut steps = Vec::new();
    let source = family.far();
    let pings = (0..30).map(|id| family.from(source).echo_request(id).build()).collect();
    let expect = Expect::Limits { reason: "packet-rate", source, least: 5, most: 7 };
    steps.push(
        family.frames("rate", "30 pings at once, where 5 a second are allowed", expect, pings).by("pings").into(),
    );

    let source = family.far();
    let forged = (0..60).map(|port| family.from(source).tcp(10_000 + port, 80).build()).collect();
    let expect = Expect::Limits { reason: "connection-rate", source, least: 20, most: 24 };
    let what = "60 SYNs from an address that may be forged: limited, not banned";
    steps.push(family.frames("rate", what, expect, forged).by("per-client").tally("ban-unproven").into());

    let (flooder, other) = (family.pick("198.19.1.1", "2001:db8:a::1"), family.pick("198.19.1.2", "2001:db8:b::1"));
    let server = family.server(80);
    let expect = Expect::Drops { reason: "connection-rate", source: Some(flooder) };
    let what = "60 connections from a real client: limited and banned";
    steps.push(
        family
            .client("rate", what, expect, move |bench| bench.flood(flooder, server, 60))
            .by("per-client")
            .tally("ban-set")
            .also(&["ban"])
            .into(),
    );
    let expect = Expect::Drops { reason: "ban", source: Some(flooder) };
    let what = "the same client, a moment later, to another port";
    let frame = family.from(flooder).tcp(40000, 22).build();
    steps.push(family.frames("ban", what, expect, vec![frame]).by("per-client").into());
    steps.push(family.curl("rate", "another client meanwhile", Expect::Passes, other).into());
    steps
}
