//! Fragments: ports are only where the transport header is.

use firewall_common::verdict::DropReason::{BadLength, Fragment, FragmentHeader, NotExposed};
use tests::frame::{ACK, Extension, Frame};

use crate::support::{Bench, FAMILIES, TCP, UDP, V4, V6};

const ONLY_80: &str = "dmz.expose = [\"80/tcp\", \"80/udp\"]";

/// Bytes of the header that makes a fragment of a packet.
fn extra(header: u32) -> u32 {
    if header == 40 { 8 } else { 0 }
}

#[test]
fn first_fragments_are_judged_by_their_ports() {
    let mut bench = Bench::new(ONLY_80);
    for family in FAMILIES {
        let extra = extra(family.header);
        for (what, protocol, length, frame) in
            [("TCP", TCP, 20, family.frame().tcp(40000, 22)), ("UDP", UDP, 8, family.frame().udp(40000, 22))]
        {
            let frame = frame.payload(64).fragment(3, 0, true);
            bench.drops(what, &frame, NotExposed, family.seen(protocol, (40000, 22), extra + length + 64));
        }
        bench.passes("TCP", &family.frame().tcp(40000, 80).payload(64).fragment(3, 0, true), &[]);
        // The length of the datagram is that of the whole.
        let udp = family.frame().udp(40000, 80).udp_length(4000).payload(64).fragment(3, 0, true);
        bench.passes("UDP", &udp, &[]);
        let udp = family.frame().udp(40000, 80).udp_length(7).payload(64).fragment(3, 0, true);
        bench.drops("UDP too short", &udp, BadLength, family.seen(UDP, (40000, 80), extra + 72));
    }
}

#[test]
fn defect_4_later_fragments_have_no_ports() {
    let mut bench = Bench::new(ONLY_80);
    for family in FAMILIES {
        // Bytes that would be ports 40000 and 22.
        let decoy = [156, 64, 0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (protocol, offset) in [(UDP, 1), (UDP, 2), (UDP, 8191), (TCP, 2), (TCP, 5), (TCP, 8191)] {
            for more in [false, true] {
                let frame = family.frame().protocol(protocol, decoy).fragment(3, offset, more);
                bench.passes(&format!("protocol {protocol} at {offset}"), &frame, &[]);
            }
        }
        for piece in &family.frame().udp(40000, 80).payload(3000).fragments(9, 1208) {
            bench.passes("a datagram properly cut", piece, &[]);
        }
        bench.passes("nothing in it", &family.frame().protocol(TCP, []).fragment(3, 9, false), &[]);
    }
}

#[test]
fn fragments_that_would_overwrite_tcp_flags_are_dropped() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        for more in [false, true] {
            let frame = family.frame().protocol(TCP, [0; 16]).fragment(3, 1, more);
            let seen = family.seen(TCP, (0, 0), extra(family.header) + 16);
            // An IPv4 packet's length is known by then, and an IPv6 packet's too.
            bench.drops("TCP at offset 1 (RFC 3128)", &frame, FragmentHeader, seen);
        }
    }
}

#[test]
fn first_fragments_without_the_whole_header_chain_are_dropped() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let extra = extra(family.header);
        for (protocol, whole) in [(TCP, 20), (UDP, 8), (family.icmp, 8)] {
            for length in 0..whole {
                let frame = family.frame().protocol(protocol, vec![0x11; length]).fragment(3, 0, true);
                let seen = family.seen(protocol, (0, 0), extra + length as u32);
                bench.drops(&format!("{length} bytes of {protocol}"), &frame, FragmentHeader, seen);
            }
        }
        let options = family.frame().tcp(40000, 80).data_offset(10).payload(8).fragment(3, 0, true);
        let seen = family.seen(TCP, (40000, 80), extra + 28);
        bench.drops("TCP options in the next fragment", &options, FragmentHeader, seen);
    }
    // The chain goes on behind the end of the fragment.
    let first = || V6.frame().fragment(3, 0, true);
    let chain = first().protocol(60, [6, 4, 1, 4, 0, 0, 0, 0]);
    bench.drops("an option header cut", &chain, FragmentHeader, V6.seen(TCP, (0, 0), 16));
    let nothing = first().protocol(60, []);
    bench.drops("an option header missing", &nothing, FragmentHeader, V6.seen(60, (0, 0), 8));
    let one = first().protocol(60, [6]);
    bench.drops("an option header of one byte", &one, FragmentHeader, V6.seen(60, (0, 0), 9));
}

#[test]
fn atomic_fragments_are_whole() {
    let mut bench = Bench::new(&format!("{ONLY_80}\ndmz.hygiene.fragments = true"));
    let atomic = || V6.frame().extension(Extension::Fragment { offset: 0, more: false, id: 1 });
    bench.passes("RFC 6946", &atomic().tcp(40000, 80), &[]);
    bench.drops("RFC 6946", &atomic().tcp(40000, 22), NotExposed, V6.seen(TCP, (40000, 22), 28));
    let reserved = V4.frame().tcp(40000, 80).fragment(7, 0, false);
    bench.passes("an IPv4 packet with an id and without the bit that forbids fragments", &reserved, &[]);
}

#[test]
fn a_packet_has_one_fragment_header() {
    let mut bench = Bench::new("");
    let fragment = |offset, more| Extension::Fragment { offset, more, id: 1 };
    let twice = |first, second| V6.frame().extension(first).extension(second).udp(40000, 80);
    let seen = V6.seen(44, (0, 0), 24);
    bench.drops("in the first", &twice(fragment(0, true), fragment(0, true)), FragmentHeader, seen);
    bench.drops("atomic in the first", &twice(fragment(0, true), fragment(0, false)), FragmentHeader, seen);
    // A later fragment's bytes are nobody's header.
    bench.passes("in a later one", &twice(fragment(4, true), fragment(0, true)), &[]);
}

#[test]
fn all_fragments_can_be_refused() {
    let mut bench = Bench::new("dmz.hygiene.fragments = true");
    for family in FAMILIES {
        let extra = extra(family.header);
        let check = |bench: &mut Bench, frame: Frame, ports, length| {
            bench.drops("a fragment", &frame, Fragment, family.seen(UDP, ports, extra + length));
        };
        check(&mut bench, family.frame().udp(40000, 80).payload(8).fragment(1, 0, true), (40000, 80), 16);
        check(&mut bench, family.frame().protocol(UDP, [0; 8]).fragment(1, 1, true), (0, 0), 8);
        check(&mut bench, family.frame().protocol(UDP, [0; 8]).fragment(1, 9, false), (0, 0), 8);
        bench.passes("a whole packet", &family.frame().tcp(40000, 80).flags(ACK), &[]);
    }
}
