//! Bans that rates set: only on sources that are proven, never on protected ones, and never by pushing out another.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use firewall_common::{
    address::Addr,
    ban::{BanKey, BanOrigin, HOST, guard},
    counter::Tally,
    event::EventAction,
    verdict::DropReason::{Ban, PacketRate},
};
use tests::{
    frame::{Frame, ToIp as _},
    loaded::Verdict,
};

use crate::support::{Bench, Connection, FAMILIES, ON_LOOPBACK, Seen, Told, UDP, counted};

const RULE: &str = "rate/it";

fn bench(further: &str) -> Bench {
    let rate = "[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"2/h\"\nban = \"60s\"";
    Bench::new(&format!("{ON_LOOPBACK}{further}\n{rate}"))
}

/// A packet over the rate, whose source is not banned for it.
#[track_caller]
fn not_banned(bench: &mut Bench, frame: &Frame, tally: Tally, seen: Seen) {
    bench.drops_by("over the rate", frame, (PacketRate, Some(RULE)), &[tally.name()], seen);
}

/// A packet over the rate, whose source is banned for it.
#[track_caller]
fn bans(bench: &mut Bench, frame: &Frame, seen: Seen) {
    let mut counters = counted("dropped", &["dropped packet-rate", "ban-set", RULE]);
    counters.push(("event-sent".into(), 2));
    let ban = Told::new(EventAction::Ban, Ban, Some(RULE), seen);
    let drop = Told::new(EventAction::Drop, PacketRate, Some(RULE), seen);
    bench.check("banned", frame, Verdict::Drop, &counters, &[ban, drop]);
}

#[track_caller]
fn is_banned(bench: &mut Bench, frame: &Frame, seen: Seen) {
    bench.drops_by("banned", frame, (Ban, Some(RULE)), &[], seen);
}

#[test]
fn a_forged_source_is_never_banned() {
    let mut bench = bench("");
    for family in FAMILIES {
        let udp = family.frame().udp(40000, 5000);
        (0..2).for_each(|_| bench.passes("within the rate", &udp, &[]));
        for frame in [udp.clone(), udp.clone().vlan(1)] {
            not_banned(&mut bench, &frame, Tally::BanUnproven, family.seen(UDP, (40000, 5000), 8));
        }
        let tcp = family.frame().tcp(40000, 80).flags(16);
        not_banned(&mut bench, &tcp, Tally::BanUnproven, family.seen(6, (40000, 80), 20));
    }
    assert!(bench.loaded.shared.all_bans().unwrap().is_empty());
}

#[test]
fn a_proven_source_is_banned() {
    for (address, banned) in [("127.0.0.2", 128), ("::1", 64)] {
        let mut bench = bench("");
        let connection = Connection::open(address);
        let (tcp, seen) = (connection.tcp(), connection.seen());
        (0..2).for_each(|_| bench.passes("within the rate", &tcp, &[]));
        bans(&mut bench, &tcp, seen);
        (0..2).for_each(|_| is_banned(&mut bench, &tcp, seen));
        let all = bench.loaded.shared.all_bans().unwrap();
        let [(key, ban)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(*key, BanKey::new(&Addr::from(connection.client.ip()), banned));
        assert_eq!((ban.until - ban.since, ban.packets), (60_000_000_000, 2));
        assert_eq!((ban.origin, ban.rule), (BanOrigin::Rate as u8, bench.loaded.slot(RULE).expect("the rule")));
    }
}

/// A forged SYN leaves as much.
#[test]
fn a_half_open_connection_proves_nothing() {
    let mut bench = bench("");
    for address in ["127.0.0.2", "::1"] {
        let listener = TcpListener::bind((address, 0)).expect("the loopback interface is up");
        // For the server, the handshake ends with the first data now.
        let (seconds, size) = (30 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the value is an integer of the size given, and lives through the call.
        let done = unsafe {
            let value = (&raw const seconds).cast();
            libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, size)
        };
        assert_eq!(done, 0);
        let server = listener.local_addr().expect("it is bound");
        let near = TcpStream::connect(server).expect("it listens");
        let client = near.local_addr().expect("it is bound");
        let tcp = Frame::ip(client.ip(), server.ip()).tcp(client.port(), server.port()).flags(16);
        (0..2).for_each(|_| bench.passes("within the rate", &tcp, &[]));
        let ports = (client.port(), server.port());
        let length = if server.is_ipv4() { 40 } else { 60 };
        let seen = Seen { source: client.ip(), destination: server.ip(), ports, protocol: 6, length, count: 1 };
        not_banned(&mut bench, &tcp, Tally::BanUnproven, seen);
    }
}

/// What proves a source is any packet of an established connection, not the one that is too many.
#[test]
fn proof_is_remembered() {
    let mut bench = bench("");
    let connection = Connection::open("127.0.0.2");
    bench.passes("of the connection", &connection.tcp(), &[]);
    let client = connection.client.ip();
    let udp = Frame::ip(client, connection.server.ip()).udp(40000, 5000);
    bench.passes("within the rate", &udp, &[]);
    let seen = Seen { ports: (40000, 5000), protocol: UDP, length: 28, ..connection.seen() };
    bans(&mut bench, &udp, seen);
}

#[test]
fn an_ipv6_ban_is_of_the_network_but_on_the_link_of_the_host() {
    for (guarded, neighbour_banned) in [(None, true), (Some(guard::ON_LINK), false)] {
        let mut bench = bench("");
        if let Some(bits) = guarded {
            bench.guard(&[("::", 64, bits)]);
        }
        let connection = Connection::open("::1");
        (0..2).for_each(|_| bench.passes("within the rate", &connection.tcp(), &[]));
        bans(&mut bench, &connection.tcp(), connection.seen());
        is_banned(&mut bench, &connection.tcp(), connection.seen());
        let neighbour = Frame::v6("::2", "2001:db8::1").udp(40000, 5000);
        let seen = Seen {
            source: "::2".to_ip(),
            destination: "2001:db8::1".to_ip(),
            ports: (40000, 5000),
            protocol: UDP,
            length: 48,
            count: 1,
        };
        match neighbour_banned {
            true => is_banned(&mut bench, &neighbour, seen),
            // The bucket is that of the /64 all the same; but a neighbour's proof is his alone.
            false => not_banned(&mut bench, &neighbour, Tally::BanUnproven, seen),
        }
    }
}

#[test]
fn a_protected_source_is_never_banned() {
    let mut bench = bench("");
    for address in ["127.0.0.2", "::1"] {
        let connection = Connection::open(address);
        bench.guard(&[(&connection.client.ip().to_string(), HOST, guard::PROTECTED)]);
        (0..2).for_each(|_| bench.passes("within the rate", &connection.tcp(), &[]));
        (0..2).for_each(|_| not_banned(&mut bench, &connection.tcp(), Tally::BanProtected, connection.seen()));
    }
    assert!(bench.loaded.shared.all_bans().unwrap().is_empty());
}

/// Defect 6: bans evicted under a flood. A full table refuses, and the rate still holds.
#[test]
fn defect_6_a_full_table_refuses_and_evicts_nothing() {
    let mut bench = bench("dmz.tables.bans = 1");
    bench.ban("203.0.113.1");
    for address in ["127.0.0.2", "::1"] {
        let connection = Connection::open(address);
        (0..2).for_each(|_| bench.passes("within the rate", &connection.tcp(), &[]));
        (0..2).for_each(|_| not_banned(&mut bench, &connection.tcp(), Tally::BanFull, connection.seen()));
    }
    let all = bench.loaded.shared.all_bans().unwrap();
    assert_eq!(all.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [BanKey::host(Addr::from("203.0.113.1".to_ip()))]);
}

#[test]
fn a_monitored_rate_bans_nobody() {
    for whole_layer in [false, true] {
        let rate = "[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"2/h\"\nban = \"60s\"";
        let policy = match whole_layer {
            true => format!("dmz.mode = \"monitor\"\n{ON_LOOPBACK}{rate}"),
            false => format!("{ON_LOOPBACK}{rate}\nmode = \"monitor\""),
        };
        let mut bench = Bench::new(&policy);
        let connection = Connection::open("127.0.0.2");
        (0..2).for_each(|_| bench.passes("within the rate", &connection.tcp(), &[]));
        for _ in 0..2 {
            bench.monitors("over", &connection.tcp(), &[(PacketRate, Some(RULE))], &[], connection.seen());
        }
        assert!(bench.loaded.shared.all_bans().unwrap().is_empty());
    }
}
