//! Stage 8: rates, as single packets tell them apart. How exactly a rate holds over time is measured in the test `rates`.

use firewall_common::verdict::DropReason::{self, ByteRate, ConnectionRate, PacketRate};
use firewall_user::agent::bans::now;
use tests::frame::{ACK, Frame, SYN};

use crate::support::{Bench, FAMILIES, Family, TCP, UDP, V4, V6};

/// A policy with one rate. Its tokens come back so slowly that none does while the test runs.
fn rate(keys: &str) -> Bench {
    Bench::new(&format!("[[dmz.rate]]\nname = \"it\"\n{keys}"))
}

/// Exactly `room` of these pass.
#[track_caller]
fn exhaust(bench: &mut Bench, what: &str, frame: &Frame, room: u32) {
    for _ in 0..room {
        bench.passes(what, frame, &[]);
    }
}

#[track_caller]
fn over(bench: &mut Bench, frame: &Frame, reason: DropReason, seen: crate::support::Seen) {
    bench.drops_by("over the rate", frame, (reason, Some("rate/it")), &[], seen);
}

fn udp(family: Family, source: &str) -> (Frame, crate::support::Seen) {
    (family.from(source).udp(40000, 5000).payload(2), family.seen_from(source, UDP, (40000, 5000), 10))
}

#[test]
fn packets_of_each_source_to_the_last_token() {
    let mut bench = rate("per = \"source\"\npackets = \"7/h\"");
    for family in FAMILIES {
        let (frame, seen) = udp(family, family.client);
        exhaust(&mut bench, "within the burst", &frame, 7);
        for _ in 0..3 {
            over(&mut bench, &frame, PacketRate, seen);
        }
        // Whatever it sends next.
        let tcp = family.frame().tcp(40000, 80);
        over(&mut bench, &tcp, PacketRate, family.seen(TCP, (40000, 80), 20));
        let later = family.frame().protocol(UDP, [0; 8]).fragment(1, 9, false);
        let length = if family.header == 40 { 16 } else { 8 };
        over(&mut bench, &later, PacketRate, family.seen(UDP, (0, 0), length));
    }
    for source in ["198.51.100.6", "198.51.100.8"] {
        exhaust(&mut bench, "a neighbour", &udp(V4, source).0, 7);
    }
    // IPv6 sources are counted by /64.
    let (frame, seen) = udp(V6, "2001:db8:1:0:ffff::1");
    over(&mut bench, &frame, PacketRate, seen);
    exhaust(&mut bench, "the next /64", &udp(V6, "2001:db8:1:1::7").0, 7);
}

#[test]
fn bursts_are_exact() {
    for (burst, room) in [("0.5", 5), ("1.0", 10), ("1.25", 12), ("3.0", 30)] {
        let mut bench = rate(&format!("per = \"source\"\npackets = \"10/h\"\nburst = {burst}"));
        let (frame, seen) = udp(V4, V4.client);
        exhaust(&mut bench, burst, &frame, room);
        over(&mut bench, &frame, PacketRate, seen);
    }
}

#[test]
fn bytes_are_those_of_the_ip_packet() {
    let mut bench = rate("per = \"source\"\nbytes = \"2000B/h\"");
    for family in FAMILIES {
        let sized = |total: u32| {
            let payload = total - family.header - 8;
            let frame = family.frame().udp(40000, 5000).payload(payload as usize).padding(20);
            (frame, family.seen(UDP, (40000, 5000), payload + 8))
        };
        exhaust(&mut bench, "a thousand", &sized(1000).0, 1);
        let (frame, seen) = sized(1001);
        over(&mut bench, &frame, ByteRate, seen);
        // What was refused took nothing.
        exhaust(&mut bench, "nine hundred", &sized(900).0, 1);
        exhaust(&mut bench, "the last hundred", &sized(100).0, 1);
        let (frame, seen) = sized(70);
        over(&mut bench, &frame, ByteRate, seen);
    }
}

#[test]
fn connections_are_syns() {
    let mut bench = rate("per = \"source\"\nconnections = \"3/h\"");
    for family in FAMILIES {
        let syn = family.frame().tcp(40000, 80);
        exhaust(&mut bench, "an opening", &syn, 3);
        over(&mut bench, &syn, ConnectionRate, family.seen(TCP, (40000, 80), 20));
        let other = family.frame().tcp(40001, 81).flags(SYN | 0xc0);
        over(&mut bench, &other, ConnectionRate, family.seen(TCP, (40001, 81), 20));
        exhaust(&mut bench, "no opening", &family.frame().tcp(40000, 80).flags(ACK), 5);
        exhaust(&mut bench, "an answer", &family.frame().tcp(40000, 80).flags(SYN | ACK), 5);
        exhaust(&mut bench, "UDP", &udp(family, family.client).0, 5);
    }
}

#[test]
fn a_prefix_shares() {
    let mut bench = rate("per = \"source-prefix\"\nprefix_v4 = 24\nprefix_v6 = 48\npackets = \"4/h\"");
    for (family, inside, outside) in [
        (V4, ["198.51.100.0", "198.51.100.255"], "198.51.101.0"),
        (V6, ["2001:db8:1::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff"], "2001:db8:2::"),
    ] {
        inside.iter().for_each(|source| exhaust(&mut bench, "two each", &udp(family, source).0, 2));
        for source in inside {
            let (frame, seen) = udp(family, source);
            over(&mut bench, &frame, PacketRate, seen);
        }
        exhaust(&mut bench, "the next prefix", &udp(family, outside).0, 4);
    }
}

#[test]
fn a_service_shares_among_all() {
    let mut bench =
        rate("per = \"service\"\nports = [\"5000-5001/udp\", \"80/tcp\", \"icmp-echo\"]\npackets = \"4/h\"");
    exhaust(&mut bench, "one", &udp(V4, V4.client).0, 2);
    exhaust(&mut bench, "another", &udp(V4, "203.0.113.1").0, 1);
    exhaust(&mut bench, "of the other family", &udp(V6, V6.client).0, 1);
    for family in FAMILIES {
        let (frame, seen) = udp(family, family.client);
        over(&mut bench, &frame, PacketRate, seen);
    }
    exhaust(&mut bench, "its neighbour in the range", &V4.frame().udp(40000, 5001), 4);
    exhaust(&mut bench, "TCP", &V6.frame().tcp(40000, 80), 4);
    exhaust(&mut bench, "echo", &V4.frame().echo_request(1), 4);
    over(&mut bench, &V6.frame().echo_request(1), PacketRate, V6.seen(58, (0, 0), 40));
    exhaust(&mut bench, "another port", &V4.frame().udp(40000, 5002), 9);
}

#[test]
fn every_rate_that_matches_must_have_room() {
    let mut bench = Bench::new(
        "[[dmz.rate]]\nname = \"each\"\nper = \"source\"\npackets = \"2/h\"\n\
         [[dmz.rate]]\nname = \"watched\"\nmode = \"monitor\"\nper = \"source\"\npackets = \"1/h\"\n\
         [[dmz.rate]]\nname = \"all\"\nper = \"service\"\npackets = \"3/h\"\n",
    );
    let (frame, seen) = udp(V4, V4.client);
    bench.passes("room everywhere", &frame, &[]);
    bench.monitors("the second is watched", &frame, &[(PacketRate, Some("rate/watched"))], &[], seen);
    bench.drops_by("the third is too many", &frame, (PacketRate, Some("rate/each")), &[], seen);
    let (other, seen) = udp(V6, V6.client);
    bench.passes("the service has one left", &other, &[]);
    let also = ["monitored", "monitored packet-rate", "rate/watched"];
    let (verdict, counted, told) = bench.run(&other);
    assert_eq!(verdict, tests::loaded::Verdict::Drop);
    for name in ["dropped", "dropped packet-rate", "rate/all"].iter().chain(&also) {
        assert!(counted.contains(&((*name).to_owned(), 1)), "{name} in {counted:?}");
    }
    assert_eq!(counted.len(), 7, "{counted:?}");
    let rules: Vec<_> = told.iter().map(|told| (told.rule.as_deref(), told.seen)).collect();
    assert_eq!(rules, [(Some("rate/watched"), seen), (Some("rate/all"), seen)]);
}

#[test]
fn three_limits_of_one_rule() {
    let mut bench = rate("per = \"source\"\npackets = \"5/h\"\nbytes = \"1600B/h\"\nconnections = \"2/h\"");
    for family in FAMILIES {
        let syn = family.frame().tcp(40000, 80);
        exhaust(&mut bench, "connections", &syn, 2);
        over(&mut bench, &syn, ConnectionRate, family.seen(TCP, (40000, 80), 20));
        let ack = |length| family.frame().tcp(40000, 80).flags(ACK).payload(length);
        exhaust(&mut bench, "packets", &ack(0), 1);
        over(&mut bench, &ack(1500), ByteRate, family.seen(TCP, (40000, 80), 1520));
        exhaust(&mut bench, "the fifth packet, since the fourth counted", &ack(0), 1);
        over(&mut bench, &ack(0), PacketRate, family.seen(TCP, (40000, 80), 20));
    }
}

/// In generic mode the stack may have merged packets before the program sees them.
#[test]
fn merged_packets_count_as_what_the_wire_carried() {
    let mut bench = Bench::new(
        "dmz.size.max_packet = \"1500B\"\n\
         [[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"7/h\"",
    );
    // Test runs take place on the loopback interface.
    bench.loaded.shared.set_interface(1, 1500).expect("room for an interface");
    for family in FAMILIES {
        let room = 1500 - family.header - 20;
        let merged = |bytes: u32| family.frame().tcp(40000, 80).flags(ACK).payload(bytes as usize);
        exhaust(&mut bench, "three and a part", &merged(3 * room + 1), 1);
        let seen = family.seen(TCP, (40000, 80), 20 + 4 * room);
        over(&mut bench, &merged(4 * room), PacketRate, seen);
        exhaust(&mut bench, "three", &merged(3 * room), 1);
        over(&mut bench, &merged(0), PacketRate, family.seen(TCP, (40000, 80), 20));
    }
}

/// A flood of sources gains nothing from a full table: who comes late takes a place together with its debt.
#[test]
fn a_full_table_of_buckets_forgives_no_debt() {
    let mut bench =
        Bench::new("dmz.tables.buckets = 1024\n[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"2/h\"");
    for number in 0..4000 {
        let source = std::net::Ipv4Addr::from(0x0100_0000 + number);
        bench.loaded.run(&Frame::v4(source, V4.host).udp(40000, 5000).build(), 1).expect("the kernel runs the program");
    }
    let (counted, _) = bench.since();
    let count = |name: &str| counted.iter().find(|(counter, _)| counter == name).map_or(0, |(_, count)| *count);
    assert!((1024..=2048).contains(&count("passed")), "{counted:?}");
    assert_eq!(count("passed") + count("dropped packet-rate"), 4000);
    assert!((2976..4000).contains(&count("bucket-stolen")), "{counted:?}");
    assert_eq!(bench.loaded.shared.buckets_in_use(now()).expect("the table can be read"), 1024);
}

#[test]
fn dropped_before_costs_no_token() {
    let mut bench =
        Bench::new("dmz.expose = [\"80/tcp\"]\n[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"2/h\"");
    let hidden = V4.frame().tcp(40000, 81);
    for _ in 0..5 {
        bench.drops("hidden", &hidden, DropReason::NotExposed, V4.seen(TCP, (40000, 81), 20));
    }
    exhaust(&mut bench, "exposed", &V4.frame().tcp(40000, 80), 2);
}
