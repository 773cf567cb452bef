//! The bytes of a [`Frame`]: headers written field by field, so that every one of them can lie.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Extension, Frame, Ip, Network, Transport, padded};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

pub(super) fn ethernet(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(frame.destination_mac);
    bytes.extend(frame.source_mac);
    for (ethertype, id) in &frame.tags {
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    let (ethertype, body) = match &frame.network {
        Network::Other { ethertype, body } => (*ethertype, body.clone()),
        Network::Ip(packet) => match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (0x0800, ipv4(packet, source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (0x86dd, ipv6(packet, source, destination)),
            _ => unreachable!("Frame::ip takes two addresses of one family"),
        },
    };
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn ipv4(ip: &Ip, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let (protocol, body) = transport(ip);
    let header_length = 20 + ip.options.len();
    let version = ip.version.unwrap_or(4);
    let words = ip.ihl.unwrap_or(u8::try_from(header_length / 4).expect("at most 40 bytes of options"));
    let total = ip.length.unwrap_or(length(header_length + body.len()));
    let (id, fragment) = match ip.fragment {
        None => (0, 0x4000),
        Some(fragment) => (fragment.id, fragment.offset | if fragment.more { 0x2000 } else { 0 }),
    };
    let mut bytes = vec![version << 4 | words, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([ip.ttl, ip.protocol.unwrap_or(protocol), 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(&ip.options);
    let sum = checksum(&[&bytes]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn ipv6(ip: &Ip, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let (protocol, body) = transport(ip);
    // Each header names the next one, so they are written from the last to the first.
    let mut next = protocol;
    let mut behind = body;
    for extension in ip.extensions.iter().rev() {
        let (number, mut bytes) = self::extension(extension, next);
        bytes.extend(behind);
        (next, behind) = (number, bytes);
    }
    let payload_length = ip.length.unwrap_or(length(behind.len()));
    let mut bytes = vec![ip.version.unwrap_or(6) << 4, 0, 0, 0];
    bytes.extend(payload_length.to_be_bytes());
    bytes.extend([ip.protocol.unwrap_or(next), ip.ttl]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(behind);
    bytes
}

/// Its number and bytes.
fn extension(extension: &Extension, next: u8) -> (u8, Vec<u8>) {
    match extension {
        Extension::HopByHop => (0, vec![next, 0, 1, 4, 0, 0, 0, 0]),
        Extension::Destination => (60, vec![next, 0, 1, 4, 0, 0, 0, 0]),
        Extension::Routing => (43, vec![next, 0, 4, 0, 0, 0, 0, 0]),
        Extension::Authentication => {
            let mut bytes = vec![next, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
            bytes.extend([0xab; 12]);
            (51, bytes)
        }
        Extension::Fragment { offset, more, id } => {
            let mut bytes = vec![next, 0];
            bytes.extend((offset << 3 | u16::from(*more)).to_be_bytes());
            bytes.extend(id.to_be_bytes());
            (44, bytes)
        }
        Extension::Other { number, body } => {
            let mut bytes = vec![next, 0];
            bytes.extend(body);
            let mut bytes = padded(bytes, 8);
            bytes[1] = u8::try_from(bytes.len() / 8 - 1).expect("at most 2048 bytes");
            (*number, bytes)
        }
    }
}

/// The protocol number, and everything behind the IP headers.
pub(super) fn transport(ip: &Ip) -> (u8, Vec<u8>) {
    match &ip.transport {
        Transport::None(protocol) => (*protocol, ip.payload.clone()),
        Transport::Tcp { ports, flags, sequence, acknowledgement, options, data_offset } => {
            let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes of options");
            let mut bytes = with_ports(*ports);
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(acknowledgement.to_be_bytes());
            bytes.extend([data_offset.unwrap_or(words) << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
            bytes.extend(options);
            bytes.extend(&ip.payload);
            (TCP, summed(ip, TCP, bytes, 16))
        }
        Transport::Udp { ports, length: lie } => {
            let mut bytes = with_ports(*ports);
            bytes.extend(lie.unwrap_or(length(8 + ip.payload.len())).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(&ip.payload);
            (UDP, summed(ip, UDP, bytes, 6))
        }
        Transport::Icmp { kind, code, rest } => {
            let protocol = if ip.source.is_ipv4() { ICMP } else { ICMPV6 };
            let mut bytes = vec![*kind, *code, 0, 0];
            bytes.extend(rest);
            bytes.extend(&ip.payload);
            (protocol, summed(ip, protocol, bytes, 2))
        }
    }
}

fn with_ports([source, destination]: [u16; 2]) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// `bytes` with their checksum written at `at`, over the pseudo header where the protocol has one.
fn summed(ip: &Ip, protocol: u8, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let mut pseudo = Vec::new();
    if protocol != ICMP {
        for address in [ip.source, ip.destination] {
            match address {
                IpAddr::V4(v4) => pseudo.extend(v4.octets()),
                IpAddr::V6(v6) => pseudo.extend(v6.octets()),
            }
        }
        pseudo.extend([0, protocol]);
        pseudo.extend(length(bytes.len()).to_be_bytes());
    }
    let mut sum = checksum(&[&pseudo, &bytes]);
    if protocol == UDP && sum == 0 {
        sum = 0xffff;
    }
    if ip.bad_checksum {
        sum ^= 0x5555;
    }
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// RFC 1071. All parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("an IP packet of 64 KB at most")
}
