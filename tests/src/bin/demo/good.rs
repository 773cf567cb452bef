//! Traffic that must pass: real clients of every service, odd but honest packets, replies, and what keeps a network alive.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use tests::{
    frame::{ACK, Extension, Frame, PSH, QINQ},
    netns::{CLIENT_V4, CLIENT_V6, HOST_V4},
    servers::{Session, ask_udp},
};

use crate::probe::{Expect, Family, Step};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn steps(family: &Family) -> Vec<Step> {
    let mut steps = clients(family);
    steps.extend(shapes(family));
    steps.extend(replies(family));
    steps.extend(control(family));
    steps
}

/// Real clients, real servers.
fn clients(family: &Family) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.push(family.curl("expose", "curl gets a page, port 80", Expect::Passes, family.near()).into());
    let (source, server) = (SocketAddr::new(family.near(), 0), family.server(22));
    let what = "a login session, port 22: two exchanges";
    steps.push(
        family
            .client("expose", what, Expect::Passes, move |bench| {
                let mut session = Session::open(&bench.world.client, source, server, SECOND)?;
                session.say("who")?;
                session.say("whoami")?;
                Ok("two echoes".into())
            })
            .into(),
    );
    let (source, server) = (SocketAddr::new(family.near(), 0), family.server(5000));
    let what = "a datagram of exactly the 512 bytes allowed, port 5000";
    steps.push(
        family
            .client("size", what, Expect::Passes, move |bench| {
                let words = [7; 512];
                let answer = bench.world.client.enter(|| ask_udp(source, server, &words, SECOND))?;
                ensure!(answer == words, "another echo");
                Ok("the same 512 bytes back".into())
            })
            .into(),
    );
    let (source, host) = (family.near(), family.host);
    steps.push(family.client("expose", "ping", Expect::Passes, move |bench| bench.ping(source, host, 56)).into());
    let (source, host) = (family.near(), family.host);
    let what = "ping with 4000 bytes, in fragments";
    steps.push(family.client("parse", what, Expect::Passes, move |bench| bench.ping(source, host, 4000)).into());
    let source = family.pick("198.51.100.7", "2001:db8:1::7");
    let server = family.server(22);
    let what = "the operator logs in from the office";
    steps.push(
        family
            .client("allow list", what, Expect::Passes, move |bench| {
                let mut session = Session::open(&bench.world.client, SocketAddr::new(source, 0), server, SECOND)?;
                session.say("hello")?;
                bench.sessions.push(session);
                Ok("echo".into())
            })
            .by("office")
            .tally("allowed")
            .into(),
    );
    steps
}

/// Packets that are unusual, but nothing is wrong with them.
fn shapes(family: &Family) -> Vec<Step> {
    let frame = || family.from(family.far()).tcp(40000, 80);
    let mut steps: Vec<Step> = vec![
        family.passes("parse", "SYN with a VLAN tag", frame().vlan(100)).into(),
        family.passes("parse", "SYN with two tags (QinQ)", frame().tag(QINQ, 7).vlan(100)).into(),
        family.passes("parse", "a short frame, padded by its driver", frame().padding(6)).into(),
        family
            .passes("size", "a packet of exactly 1500 bytes", {
                let header = if family.is_v4() { 40 } else { 60 };
                frame().flags(PSH | ACK).numbers(9, 9).payload(1500 - header)
            })
            .into(),
        family
            .passes("parse", "a later fragment whose bytes look like port 3306", {
                family.from(family.far()).protocol(6, 3306u16.to_be_bytes().repeat(20)).fragment(77, 40, false)
            })
            .into(),
        family
            .passes("hygiene", "UDP port 0 as source: no reply wanted", family.from(family.far()).udp(0, 5000))
            .into(),
    ];
    if family.is_v4() {
        steps.push(family.passes("parse", "SYN behind 40 bytes of IP options", frame().options([1; 40])).into());
    } else {
        let frame = frame()
            .extension(Extension::HopByHop)
            .extension(Extension::Destination)
            .extension(Extension::Routing)
            .extension(Extension::Authentication)
            .extension(Extension::Destination)
            .extension(Extension::Destination);
        steps.push(family.passes("parse", "SYN behind six extension headers", frame).into());
    }
    steps
}

/// The host is a client, too: answers come to ports that are not exposed.
fn replies(family: &Family) -> Vec<Step> {
    let client = family.pick(CLIENT_V4, CLIENT_V6);
    let source = SocketAddr::new(family.host, 0);
    vec![
        family
            .client("expose", "the host asks a DNS server, and gets its answer", Expect::Passes, move |bench| {
                let server = SocketAddr::new(client, 53);
                bench.world.host.enter(|| ask_udp(source, server, b"example.org?", SECOND))?;
                Ok("the answer".into())
            })
            .tally("reply")
            .into(),
        family
            .client("expose", "the host calls a server elsewhere over TCP", Expect::Passes, move |bench| {
                let server = SocketAddr::new(client, 443);
                let mut session = Session::open(&bench.world.host, source, server, SECOND)?;
                session.say("hello")?;
                Ok("echo".into())
            })
            .tally("reply")
            .into(),
        family
            .client("expose", "the host pings", Expect::Passes, move |bench| {
                bench.world.host.run("ping", &["-c1", "-W1", &client.to_string()])?;
                Ok("pong".into())
            })
            .tally("reply")
            .into(),
    ]
}

/// Without these a host loses its network.
fn control(family: &Family) -> Vec<Step> {
    let passes = |what, frame: Frame| -> Step { family.passes("control", what, frame).tally("control").into() };
    // An ICMP error quotes the packet it is about.
    let quoted = Frame::ip(family.host, family.far()).tcp(50000, 443).build()[14..].to_vec();
    let error = if family.is_v4() { (3, 4) } else { (2, 0) };
    let mut steps = vec![passes(
        "\"packet too big\", without which large transfers hang",
        family.from(family.far()).icmp(error.0, error.1).payload_bytes(quoted),
    )];
    if family.is_v4() {
        let arp = Frame::arp_request("192.0.2.99".parse().expect("an address"), HOST_V4.parse().expect("an address"));
        steps.push(family.passes("control", "ARP", arp).tally("non-ip").into());
        steps.push(passes("a DHCP server's answer", family.from(family.far()).dhcp_answer()));
    } else {
        let link_local = "fe80::aa";
        let target = std::net::Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0001);
        let multicast = |address| Frame::v6(link_local, address);
        steps.push(passes("neighbour solicitation", multicast("ff02::1:ff00:1").neighbour_solicitation(target)));
        steps.push(passes(
            "neighbour advertisement",
            multicast("2001:db8::1").neighbour_advertisement("fe80::aa".parse().expect("an address")),
        ));
        steps.push(passes(
            "MLD report",
            multicast("ff02::16").mld_report("ff02::1:ff00:77".parse().expect("an address")),
        ));
        steps.push(passes("a DHCPv6 server's answer", multicast("2001:db8::1").dhcp_answer()));
    }
    steps
}
