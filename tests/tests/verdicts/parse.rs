//! Stage 1: what can be read and what cannot.

use firewall_common::verdict::DropReason::{self, BadLength, ExtensionHeaders, NotExposed, Truncated, VlanDepth};
use tests::{
    frame::{ACK, Extension, Frame, QINQ, QINQ_OLD, SYN, VLAN},
    loaded::Verdict,
};

use crate::support::{Bench, FAMILIES, Seen, TCP, UDP, V4, V6};

/// A policy that tells by the verdict which port was read.
const ONLY_80: &str = "dmz.expose = [\"80/tcp\", \"80/udp\", \"icmp-echo\"]";

#[test]
fn vlan_tags_hide_nothing() {
    let mut bench = Bench::new(ONLY_80);
    let stacks: &[&[u16]] = &[
        &[],
        &[VLAN],
        &[QINQ],
        &[QINQ_OLD],
        &[VLAN, VLAN],
        &[QINQ, VLAN],
        &[QINQ_OLD, VLAN],
        &[QINQ, QINQ],
        &[VLAN, QINQ],
    ];
    for family in FAMILIES {
        for stack in stacks {
            let tagged = |frame: Frame| stack.iter().zip(100..).fold(frame, |frame, (kind, id)| frame.tag(*kind, id));
            let what = format!("{stack:x?}");
            bench.passes(&what, &tagged(family.frame().tcp(40000, 80)), &[]);
            let other = tagged(family.frame().tcp(40000, 81).payload(7));
            bench.drops(&what, &other, NotExposed, family.seen(TCP, (40000, 81), 27));
        }
        bench.passes("a priority tag", &family.frame().vlan(0xe000).udp(40000, 80), &[]);
        for kind in [VLAN, QINQ, QINQ_OLD] {
            let frame = family.frame().tcp(40000, 80).tag(kind, 1).tag(VLAN, 2).tag(kind, 3);
            let seen = Seen::nothing(14 + 12 + family.header + 20);
            bench.drops("three tags", &frame, VlanDepth, seen);
        }
    }
}

#[test]
fn what_is_not_ip_passes_counted() {
    let mut bench = Bench::new(
        "dmz.expose = []\n[[dmz.list]]\nname = \"all\"\naction = \"block\"\nprefixes = [\"128.0.0.0/1\", \"0.0.0.0/1\"]",
    );
    let arp = Frame::arp_request("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
    bench.passes("ARP", &arp, &["non-ip"]);
    bench.passes("ARP, tagged", &arp.clone().tag(QINQ, 1).vlan(2), &["non-ip"]);
    bench.passes("LLDP", &Frame::ethernet(0x88cc, [2, 7, 4]), &["non-ip"]);
    bench.passes("IEEE 802.3 with a length", &Frame::ethernet(38, [0x42; 38]), &["non-ip"]);
    bench.passes("an Ethernet header alone", &Frame::ethernet(0x0806, []), &["non-ip"]);
}

#[test]
fn defect_4_ipv4_options_do_not_shift_ports() {
    let mut bench = Bench::new(ONLY_80);
    for words in 0..=10u8 {
        // Behind a header of fixed length this would be a TCP header with port 80.
        let mut decoy = [156, 64, 0, 80].repeat(words.into());
        decoy.truncate(usize::from(words) * 4);
        let what = format!("{words} words of options");
        let base = V4.frame().options(decoy);
        let options = u32::from(words) * 4;
        bench.passes(&what, &base.clone().tcp(40000, 80), &[]);
        bench.passes(&what, &base.clone().udp(40000, 80).payload(9), &[]);
        bench.drops(&what, &base.clone().tcp(40000, 22), NotExposed, V4.seen(TCP, (40000, 22), 20 + options));
        bench.drops(&what, &base.udp(40000, 22), NotExposed, V4.seen(UDP, (40000, 22), 8 + options));
    }
}

#[test]
fn extension_headers_are_walked_up_to_six() {
    let mut bench = Bench::new(ONLY_80);
    let kinds = [
        (Extension::HopByHop, 8),
        (Extension::Destination, 8),
        (Extension::Routing, 8),
        (Extension::Authentication, 24),
        (Extension::Fragment { offset: 0, more: false, id: 5 }, 8),
        (Extension::Other { number: 135, body: vec![0; 20] }, 24),
        (Extension::Other { number: 139, body: vec![0; 38] }, 40),
        (Extension::Other { number: 140, body: vec![0; 6] }, 8),
    ];
    for (kind, length) in kinds {
        // Two fragment headers are a case of their own.
        let most = if matches!(kind, Extension::Fragment { .. }) { 1 } else { 7 };
        for depth in 0..=most {
            let what = format!("{depth} times {kind:?}");
            let base = (0..depth).fold(V6.frame(), |frame, _| frame.extension(kind.clone()));
            let before = depth * length;
            if depth < 7 {
                bench.passes(&what, &base.clone().tcp(40000, 80), &[]);
                bench.passes(&what, &base.clone().echo_request(1), &[]);
                let seen = V6.seen(UDP, (40000, 81), before + 8);
                bench.drops(&what, &base.udp(40000, 81), NotExposed, seen);
            } else {
                let number = if let Extension::Other { number, .. } = kind { number } else { base.build()[20] };
                let seen = V6.seen(number, (0, 0), before + 20);
                bench.drops(&what, &base.tcp(40000, 80), ExtensionHeaders, seen);
            }
        }
    }
    let mixed = V6.frame().extension(Extension::HopByHop).extension(Extension::Routing);
    let mixed = mixed.extension(Extension::Other { number: 60, body: vec![0; 2046] }).tcp(40000, 22).vlan(9);
    bench.drops("the longest header", &mixed, NotExposed, V6.seen(TCP, (40000, 22), 8 + 8 + 2048 + 20));
}

/// Frames that pass, with the bytes of all their headers.
fn shapes() -> Vec<(&'static str, Frame)> {
    let mut shapes = vec![
        ("IPv4 options", V4.frame().options([1; 12]).tcp(40000, 80).tcp_options([1; 8])),
        ("two tags", V4.frame().tag(QINQ, 1).vlan(2).udp(40000, 80).payload(3)),
        ("an IPv4 fragment", V4.frame().udp(40000, 80).payload(16).fragment(1, 0, true)),
        ("a later IPv4 fragment", V4.frame().protocol(17, [1; 16]).fragment(1, 5, false)),
        (
            "extension headers",
            V6.frame().extension(Extension::HopByHop).extension(Extension::Authentication).tcp(40000, 80),
        ),
        ("an IPv6 fragment", V6.frame().udp(40000, 80).payload(16).fragment(1, 0, true)),
        ("a later IPv6 fragment", V6.frame().protocol(17, [1; 16]).fragment(1, 5, false)),
    ];
    for family in FAMILIES {
        shapes.push(("TCP", family.frame().tcp(40000, 80).flags(SYN).tcp_options([1; 4])));
        shapes.push(("UDP", family.frame().udp(40000, 80).payload(5)));
        shapes.push(("echo", family.frame().echo_request(7)));
        shapes.push(("tagged", family.frame().vlan(1).tcp(40000, 80)));
    }
    shapes
}

fn is_parse_reason(name: &str) -> bool {
    let reasons = [Truncated, BadLength, VlanDepth, ExtensionHeaders, DropReason::FragmentHeader];
    reasons.iter().any(|reason| name == format!("dropped {}", reason.name()))
}

/// Defect 5: a parse error that means accept. Cut anywhere, the rest is dropped.
#[test]
fn defect_5_a_frame_cut_anywhere_is_dropped() {
    let mut bench = Bench::new(ONLY_80);
    for (what, frame) in shapes() {
        let bytes = frame.build();
        bench.passes(what, &bytes, &[]);
        for length in 14..bytes.len() {
            let cut = bytes[..length].to_vec();
            let (verdict, counted, told) = bench.run(&cut);
            let what = format!("{what} cut to {length} of {} bytes", bytes.len());
            assert_eq!(verdict, Verdict::Drop, "{what}");
            let [dropped, reason, sent] = &counted[..] else { panic!("{what}: {counted:?}") };
            assert_eq!((dropped, sent), (&("dropped".into(), 1), &("event-sent".into(), 1)), "{what}");
            assert!(is_parse_reason(&reason.0) && reason.1 == 1, "{what}: {reason:?}");
            assert_eq!(told.len(), 1, "{what}");
            assert_eq!(format!("dropped {}", told[0].reason.name()), reason.0, "{what}");
        }
    }
}

/// As above, but the length fields agree with the cut: only the header inside says that something is missing.
#[test]
fn defect_5_a_header_cut_in_agreement_with_all_lengths_is_dropped() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let header = family.header as usize;
        for (what, protocol, frame, transport) in [
            ("TCP", TCP, family.frame().tcp(40000, 80).tcp_options([1; 12]), 32),
            ("UDP", UDP, family.frame().udp(40000, 80).payload(4), 12),
            ("ICMP", family.icmp, family.frame().icmp(family.echo_request, 0), 8),
        ] {
            for length in 0..transport {
                let total = if header == 20 { header + length } else { length };
                let cut = frame.clone().ip_length(total as u16).truncate(14 + header + length);
                let read = match protocol {
                    TCP => length >= 20,
                    UDP => length >= 8,
                    _ => false,
                };
                let ports = if read { (40000, 80) } else { (0, 0) };
                let what = format!("{what} of {length} bytes");
                bench.drops(&what, &cut, BadLength, family.seen(protocol, ports, length as u32));
            }
        }
        for number in [47, 50, 132] {
            bench.passes("no header to read", &family.frame().protocol(number, []), &[]);
        }
    }
}

#[test]
fn impossible_lengths_of_ip() {
    let mut bench = Bench::new("");
    let tcp = V4.frame().tcp(40000, 80).flags(ACK).payload(10);
    let frame_length = 14 + 20 + 20 + 10;
    let unread = Seen { length: frame_length, ..V4.seen(TCP, (0, 0), 0) };
    for words in 0..5 {
        bench.drops(&format!("IHL {words}"), &tcp.clone().ihl(words), BadLength, unread);
    }
    bench.drops("IHL beyond the packet", &tcp.clone().ihl(15), BadLength, unread);
    for version in (0..16).filter(|version| *version != 4) {
        bench.drops(&format!("version {version}"), &tcp.clone().version(version), BadLength, unread);
    }
    for total in [0, 1, 19] {
        bench.drops(&format!("total length {total}"), &tcp.clone().ip_length(total), BadLength, unread);
    }
    for total in [51, 52, 1500, u16::MAX] {
        bench.drops(&format!("total length {total}"), &tcp.clone().ip_length(total), Truncated, unread);
    }
    bench.passes("padding behind the packet", &tcp.clone().padding(6), &[]);
    bench.passes("the longest padding", &tcp.padding(1400), &[]);

    let tcp = V6.frame().tcp(40000, 80).flags(ACK).payload(10);
    let unread = Seen { length: 14 + 40 + 20 + 10, ..V6.seen(TCP, (0, 0), 0) };
    for version in (0..16).filter(|version| *version != 6) {
        bench.drops(&format!("version {version}"), &tcp.clone().version(version), BadLength, unread);
    }
    for length in [31, 32, u16::MAX] {
        bench.drops(&format!("payload length {length}"), &tcp.clone().ip_length(length), Truncated, unread);
    }
    bench.drops("a jumbogram", &tcp.clone().ip_length(0), BadLength, V6.seen(TCP, (0, 0), 0));
    bench.passes("padding behind the packet", &tcp.padding(6), &[]);
    let beyond = V6.frame().next_protocol(60).protocol(60, [6, 200, 0, 0, 0, 0, 0, 0]);
    bench.drops("an extension longer than the packet", &beyond, BadLength, V6.seen(TCP, (0, 0), 8));
}

#[test]
fn impossible_lengths_of_udp_and_tcp() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let udp = family.frame().udp(40000, 80).payload(10);
        for length in (0..8).chain([19, 20, u16::MAX]) {
            let what = format!("UDP length {length}");
            bench.drops(&what, &udp.clone().udp_length(length), BadLength, family.seen(UDP, (40000, 80), 18));
        }
        for length in 8..=18 {
            bench.passes("UDP options (RFC 9868)", &udp.clone().udp_length(length), &[]);
        }
        let tcp = family.frame().tcp(40000, 80).flags(ACK).payload(12);
        for words in (0..5).chain(9..16) {
            let what = format!("data offset {words}");
            bench.drops(&what, &tcp.clone().data_offset(words), BadLength, family.seen(TCP, (40000, 80), 32));
        }
        for words in 5..9 {
            bench.passes("options that fill the segment", &tcp.clone().data_offset(words), &[]);
        }
        bench.passes("bad checksums are the stack's", &tcp.bad_checksum(), &[]);
    }
}

/// Only the first buffer of a frame can be read; a header chain that goes on behind it is cut short.
#[test]
fn headers_beyond_the_first_buffer_are_truncated() {
    let mut bench = Bench::new("");
    let large = V4.frame().tcp(40000, 80).payload(8000);
    bench.passes("a large packet", &large, &[]);
    let tagged = large.vlan(1).vlan(2).vlan(3);
    bench.drops("three tags before it", &tagged, VlanDepth, Seen::nothing(14 + 12 + 40 + 8000));
    let long = || Extension::Other { number: 60, body: vec![0; 2046] };
    let far = V6.frame().extension(long()).extension(long()).udp(40000, 80).payload(500);
    let (verdict, counted, _) = bench.run(&far);
    assert_eq!(verdict, Verdict::Drop);
    assert_eq!(counted, [("dropped".into(), 1), ("dropped truncated".into(), 1), ("event-sent".into(), 1)]);
}
