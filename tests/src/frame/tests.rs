//! Frames parsed back by etherparse, which knows nothing of how they were made.

use std::net::Ipv6Addr;

use etherparse::{LinkExtSlice, NetHeaders, NetSlice, PacketHeaders, SlicedPacket, TransportHeader, TransportSlice};

use super::*;

const V4: (&str, &str) = ("198.51.100.7", "192.0.2.1");
const V6: (&str, &str) = ("2001:db8:1::7", "2001:db8::1");

/// Asserts that every checksum of the frame is the one etherparse calculates.
fn assert_checksums(frame: &[u8]) {
    let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = parsed.payload.slice();
    let transport = parsed.transport.expect("a transport header");
    let mut expected = transport.clone();
    match parsed.net {
        Some(NetHeaders::Ipv4(header, _)) => {
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            expected.update_checksum_ipv4(&header, payload).unwrap();
        }
        Some(NetHeaders::Ipv6(header, _)) => expected.update_checksum_ipv6(&header, payload).unwrap(),
        other => panic!("not IP: {other:?}"),
    }
    assert_eq!(transport, expected);
}

#[test]
fn honest_packets_have_right_lengths_and_checksums() {
    for (source, destination) in [V4, V6] {
        for length in [0, 1, 2, 511, 1400] {
            let base = Frame::ip(source, destination);
            assert_checksums(&base.clone().tcp(40000, 80).flags(PSH | ACK).numbers(7, 9).payload(length).build());
            assert_checksums(&base.clone().tcp(40000, 80).tcp_options([2, 4, 5, 180, 1]).payload(length).build());
            assert_checksums(&base.clone().udp(40000, 5000).payload(length).build());
            assert_checksums(&base.clone().echo_request(77).payload(length).build());
        }
    }
}

#[test]
fn tcp_fields_are_where_they_belong() {
    let frame = Frame::v4(V4.0, V4.1).tcp(40000, 80).flags(FIN | PSH | URG).numbers(7, 9).ttl(3).payload(5).build();
    let parsed = PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let ethernet = parsed.link.unwrap().ethernet2().unwrap();
    assert_eq!((ethernet.source, ethernet.destination), (CLIENT_MAC, HOST_MAC));
    let net = parsed.net.unwrap();
    let (ip, _) = net.ipv4_ref().unwrap();
    assert_eq!((ip.source, ip.destination, ip.time_to_live), ([198, 51, 100, 7], [192, 0, 2, 1], 3));
    let Some(TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
    assert_eq!((tcp.source_port, tcp.destination_port), (40000, 80));
    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (7, 9));
    assert!(tcp.fin && tcp.psh && tcp.urg && !tcp.syn && !tcp.ack && !tcp.rst);
    assert_eq!(parsed.payload.slice(), [0, 1, 2, 3, 4]);
}

#[test]
fn tags_options_and_extensions_nest() {
    let frame = Frame::v4(V4.0, V4.1).tag(QINQ, 7).vlan(100).options([1, 1, 1, 1, 1]).udp(1, 2).payload(3).build();
    let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
    let ids: Vec<u16> = parsed
        .link_exts
        .iter()
        .map(|tag| match tag {
            LinkExtSlice::Vlan(vlan) => vlan.vlan_identifier().value(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [7, 100]);
    let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("no IPv4") };
    assert_eq!(ip.header().options(), [1, 1, 1, 1, 1, 0, 0, 0]);
    assert_eq!(without_ethernet(&frame).len(), 20 + 8 + 8 + 3);

    let frame = Frame::v6(V6.0, V6.1)
        .extension(Extension::HopByHop)
        .extension(Extension::Destination)
        .extension(Extension::Routing)
        .extension(Extension::Authentication)
        .udp(1, 2)
        .payload(3)
        .build();
    let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &parsed.net else { panic!("no IPv6") };
    assert_eq!(ip.extensions().slice().len(), 8 + 8 + 8 + 24);
    let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!("no UDP") };
    assert_eq!((udp.destination_port(), udp.payload()), (2, &[0, 1, 2][..]));
}

#[test]
fn fragments_are_the_whole_again_when_joined() {
    for (source, destination) in [V4, V6] {
        let whole = Frame::ip(source, destination).udp(40000, 5000).payload(1000);
        let pieces = whole.fragments(9, 400);
        assert_eq!(pieces.len(), 3);
        let mut joined: Vec<u8> = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let parsed = SlicedPacket::from_ethernet(piece).unwrap();
            assert!(parsed.is_ip_payload_fragmented());
            let payload = parsed.ip_payload().unwrap();
            assert_eq!(payload.payload.len(), if index < 2 { 400 } else { 208 });
            joined.extend(payload.payload);
        }
        let bytes = whole.build();
        let header = if source == V4.0 { 34 } else { 54 };
        assert_eq!(joined, bytes[header..]);
    }
}

#[test]
fn neighbour_discovery_and_mld_are_what_they_say() {
    let target: Ipv6Addr = V6.1.parse().unwrap();
    let base = Frame::v6("fe80::2", V6.1);
    for (frame, kind, hops) in [
        (base.clone().neighbour_solicitation(target), 135, 255),
        (base.clone().neighbour_advertisement(target), 136, 255),
        (base.clone().mld_report("ff02::1:ff00:1".parse().unwrap()), 143, 1),
    ] {
        let frame = frame.build();
        assert_checksums(&frame);
        let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = parsed.net else { panic!("no IPv6") };
        assert_eq!(ip.header().hop_limit(), hops);
        let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else { panic!("no ICMPv6") };
        assert_eq!(icmp.type_u8(), kind);
    }
}

#[test]
fn arp_asks() {
    let frame = Frame::arp_request("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap()).build();
    let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("no ARP") };
    assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
    assert_eq!(arp.target_protocol_addr(), [192, 0, 2, 1]);
}

#[test]
fn lies_are_told_where_they_were_asked_for() {
    let honest = Frame::v4(V4.0, V4.1).udp(1, 2).payload(10);
    assert_eq!(honest.clone().ihl(4).build()[14], 0x44);
    assert_eq!(honest.clone().version(5).build()[14], 0x55);
    assert_eq!(honest.clone().ip_length(999).build()[16..18], 999u16.to_be_bytes());
    assert_eq!(honest.clone().udp_length(7).build()[38..40], [0, 7]);
    assert_eq!(honest.clone().truncate(20).build().len(), 20);
    assert_eq!(honest.clone().padding(6).build().len(), honest.build().len() + 6);
    assert_ne!(honest.clone().bad_checksum().build()[40..42], honest.build()[40..42]);
    let tcp = Frame::v6(V6.0, V6.1).tcp(1, 2).data_offset(4).build();
    assert_eq!(tcp[54 + 12] >> 4, 4);
    let first = Frame::v4(V4.0, V4.1).tcp(1, 2).fragment(5, 1, true).build();
    assert_eq!(first[18..22], [0, 5, 0x20, 1]);
}
