//! Stage 6: sizes, their bounds included.

use firewall_common::verdict::DropReason::{
    self, PacketTooLarge, PacketTooSmall, PayloadTooLarge, PayloadTooSmall, SizedFragment,
};
use tests::frame::{ACK, Extension};

use crate::support::{Bench, FAMILIES, Family, TCP, UDP, V4, V6};

/// A UDP packet of `total` bytes to `port`: dropped for the reason and by the rule, or passed.
#[track_caller]
fn udp(bench: &mut Bench, family: Family, port: u16, total: u32, why: Option<(DropReason, Option<&str>)>) {
    let payload = total - family.header - 8;
    let frame = family.frame().udp(40000, port).payload(payload as usize);
    let what = format!("{total} bytes to {port}");
    match why {
        Some(why) => bench.drops_by(&what, &frame, why, &[], family.seen(UDP, (40000, port), payload + 8)),
        None => bench.passes(&what, &frame, &[]),
    }
}

#[test]
fn of_every_packet() {
    let mut bench = Bench::new("dmz.size = { min_packet = \"100B\", max_packet = \"1400B\" }");
    for family in FAMILIES {
        for (total, reason) in [
            (99, Some(PacketTooSmall)),
            (100, None),
            (101, None),
            (1399, None),
            (1400, None),
            (1401, Some(PacketTooLarge)),
            (9000, Some(PacketTooLarge)),
        ] {
            udp(&mut bench, family, 5000, total, reason.map(|reason| (reason, None)));
        }
        // Padding is no part of the packet.
        let small = family.frame().tcp(40000, 80).padding(60);
        bench.drops("a short packet in a long frame", &small, PacketTooSmall, family.seen(TCP, (40000, 80), 20));
        let later = family.frame().protocol(UDP, [0; 20]).fragment(1, 9, false);
        let length = if family.header == 40 { 28 } else { 20 };
        bench.drops("a later fragment", &later, PacketTooSmall, family.seen(UDP, (0, 0), length));
        let gre = family.frame().protocol(47, vec![0; 1400]);
        bench.drops("GRE", &gre, PacketTooLarge, family.seen(47, (0, 0), 1400));
    }
}

const RULES: &str = "dmz.size.rules = [\n\
    { port = \"53/udp\", min = 60, max = \"512B\" },\n\
    { port = \"5000-5010/udp\", min_payload = \"12B\", max_payload = \"100B\" },\n\
    { port = \"80/tcp\", max_payload = \"0B\" },\n\
    { port = \"icmp-echo\", max = 100 },\n\
    { port = \"gre\", max = 100 },\n]";

#[test]
fn of_packets_to_a_port() {
    let mut bench = Bench::new(RULES);
    let rule = Some("size/53/udp");
    for (family, smallest) in [(V4, 59), (V6, 59)] {
        udp(&mut bench, family, 53, smallest, Some((PacketTooSmall, rule)));
        udp(&mut bench, family, 53, 60, None);
        udp(&mut bench, family, 53, 512, None);
        udp(&mut bench, family, 53, 513, Some((PacketTooLarge, rule)));
        udp(&mut bench, family, 54, 513, None);
        udp(&mut bench, family, 54, 59, None);
    }
}

#[test]
fn of_payloads() {
    let mut bench = Bench::new(RULES);
    let rule = Some("size/5000-5010/udp");
    for family in FAMILIES {
        for port in [5000, 5005, 5010] {
            for (payload, reason) in [
                (0, Some(PayloadTooSmall)),
                (11, Some(PayloadTooSmall)),
                (12, None),
                (100, None),
                (101, Some(PayloadTooLarge)),
            ] {
                let total = family.header + 8 + payload;
                udp(&mut bench, family, port, total, reason.map(|reason| (reason, rule)));
            }
        }
        // What lies behind the length that UDP itself gives is cut off before a program sees it.
        let cut = |payload, read: u16| family.frame().udp(40000, 5000).payload(payload).udp_length(8 + read);
        let seen = family.seen(UDP, (40000, 5000), 58);
        bench.drops_by("UDP options", &cut(50, 11), (PayloadTooSmall, rule), &[], seen);
        bench.passes("UDP options", &cut(50, 12), &[]);
        bench.passes("UDP options", &cut(150, 100), &[]);
        udp(&mut bench, family, 4999, family.header + 8, None);
        udp(&mut bench, family, 5011, family.header + 8 + 200, None);
        // TCP options are no payload.
        let tcp = family.frame().tcp(40000, 80).tcp_options([1; 40]).flags(ACK);
        bench.passes("a TCP header alone", &tcp, &[]);
        let seen = family.seen(TCP, (40000, 80), 61);
        bench.drops_by("a byte", &tcp.payload(1), (PayloadTooLarge, Some("size/80/tcp")), &[], seen);
    }
    // Nor are options and extension headers.
    let options = V4.frame().options([1; 40]).udp(40000, 5000).payload(100);
    bench.passes("IPv4 options", &options, &[]);
    let extension = Extension::Other { number: 60, body: vec![0; 200] };
    bench.passes("extension headers", &V6.frame().extension(extension).udp(40000, 5000).payload(100), &[]);
}

#[test]
fn of_protocols_without_ports() {
    let mut bench = Bench::new(RULES);
    for family in FAMILIES {
        let room = 100 - family.header as usize;
        bench.passes("echo", &family.frame().echo_request(1).payload(room - 8), &[]);
        let echo = family.frame().echo_request(1).payload(room - 7);
        let seen = family.seen(family.icmp, (0, 0), room as u32 + 1);
        bench.drops_by("echo", &echo, (PacketTooLarge, Some("size/icmp-echo")), &[], seen);
        bench.passes("an answer", &family.frame().echo_reply(1).payload(500), &[]);
        let gre = family.frame().protocol(47, vec![0; room + 1]);
        let seen = family.seen(47, (0, 0), room as u32 + 1);
        bench.drops_by("GRE", &gre, (PacketTooLarge, Some("size/gre")), &[], seen);
    }
}

#[test]
fn fragments_to_a_port_with_a_rule() {
    let mut bench = Bench::new(RULES);
    for family in FAMILIES {
        let first = family.frame().udp(40000, 53).payload(64).fragment(1, 0, true);
        let length = if family.header == 40 { 80 } else { 72 };
        let seen = family.seen(UDP, (40000, 53), length);
        bench.drops_by("the first", &first, (SizedFragment, Some("size/53/udp")), &[], seen);
        let other = family.frame().udp(40000, 54).payload(64).fragment(1, 0, true);
        bench.passes("to another port", &other, &[]);
        let later = family.frame().protocol(UDP, [0; 64]).fragment(1, 9, false);
        bench.passes("later ones are nothing without the first", &later, &[]);
    }
    let atomic = V6.frame().extension(Extension::Fragment { offset: 0, more: false, id: 1 });
    bench.passes("an atomic fragment is whole", &atomic.udp(40000, 53).payload(64), &[]);
}

#[test]
fn both_bounds_apply() {
    let mut bench =
        Bench::new("dmz.size = { max_packet = \"1000B\", rules = [{ port = \"53/udp\", max = \"512B\" }] }");
    for family in FAMILIES {
        udp(&mut bench, family, 53, 1001, Some((PacketTooLarge, None)));
        udp(&mut bench, family, 53, 1000, Some((PacketTooLarge, Some("size/53/udp"))));
        udp(&mut bench, family, 54, 1000, None);
    }
}
