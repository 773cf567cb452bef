//! A builder of Ethernet frames, honest ones and impossible ones.
//!
//! In flow addresses and what to put between them, out come bytes. Lengths and checksums are right unless a field is set by
//! hand. Where a call fits both families, it does what the family of the addresses asks for.
//!
//! ```
//! use tests::frame::{Frame, SYN};
//! let syn = Frame::v4("198.51.100.7", "192.0.2.1").tcp(40000, 80).flags(SYN).vlan(100).build();
//! assert_eq!(syn.len(), 14 + 4 + 20 + 20);
//! ```

mod encode;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::{CLIENT_MAC, HOST_MAC};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;
pub const QINQ_OLD: u16 = 0x9100;

/// An address, or its text.
pub trait ToIp {
    fn to_ip(&self) -> IpAddr;
}

impl ToIp for IpAddr {
    fn to_ip(&self) -> IpAddr {
        *self
    }
}

impl ToIp for Ipv4Addr {
    fn to_ip(&self) -> IpAddr {
        IpAddr::V4(*self)
    }
}

impl ToIp for Ipv6Addr {
    fn to_ip(&self) -> IpAddr {
        IpAddr::V6(*self)
    }
}

impl ToIp for &str {
    fn to_ip(&self) -> IpAddr {
        self.parse().unwrap_or_else(|error| panic!("{self}: {error}"))
    }
}

impl ToIp for String {
    fn to_ip(&self) -> IpAddr {
        self.as_str().to_ip()
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Eight bytes, padding only.
    HopByHop,
    /// Eight bytes, padding only.
    Destination,
    /// Eight bytes, no segments left.
    Routing,
    /// An authentication header of 24 bytes.
    Authentication,
    /// `offset` in units of 8 bytes.
    Fragment { offset: u16, more: bool, id: u32 },
    /// Any header with the common start: `body` is padded to a multiple of 8 bytes.
    Other { number: u8, body: Vec<u8> },
}

/// A frame in the making. From the client to the host, unless [`Frame::macs`] says otherwise.
#[derive(Clone, Debug)]
pub struct Frame {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    network: Network,
    /// Cuts the finished frame to this many bytes.
    truncate: Option<usize>,
    /// Bytes behind the IP packet.
    padding: usize,
}

#[derive(Clone, Debug)]
enum Network {
    Ip(Box<Ip>),
    Other { ethertype: u16, body: Vec<u8> },
}

#[derive(Clone, Debug)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    transport: Transport,
    payload: Vec<u8>,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    fragment: Option<Fragment>,
    version: Option<u8>,
    ihl: Option<u8>,
    length: Option<u16>,
    protocol: Option<u8>,
    bad_checksum: bool,
}

/// Of an IPv4 header.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    offset: u16,
    more: bool,
    id: u16,
}

#[derive(Clone, Debug)]
enum Transport {
    /// The payload follows the IP header at once.
    None(u8),
    Tcp {
        ports: [u16; 2],
        flags: u8,
        sequence: u32,
        acknowledgement: u32,
        options: Vec<u8>,
        data_offset: Option<u8>,
    },
    Udp {
        ports: [u16; 2],
        length: Option<u16>,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
}

impl Frame {
    /// An IP packet between two addresses of one family.
    pub fn ip(source: impl ToIp, destination: impl ToIp) -> Self {
        let (source, destination) = (source.to_ip(), destination.to_ip());
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} are of two families");
        Self::around(Network::Ip(Box::new(Ip {
            source,
            destination,
            ttl: 64,
            transport: Transport::None(if source.is_ipv4() { 253 } else { 59 }),
            payload: Vec::new(),
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            version: None,
            ihl: None,
            length: None,
            protocol: None,
            bad_checksum: false,
        })))
    }

    pub fn v4(source: impl ToIp, destination: impl ToIp) -> Self {
        assert!(source.to_ip().is_ipv4());
        Self::ip(source, destination)
    }

    pub fn v6(source: impl ToIp, destination: impl ToIp) -> Self {
        assert!(source.to_ip().is_ipv6());
        Self::ip(source, destination)
    }

    /// Anything that is not IP.
    pub fn ethernet(ethertype: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::around(Network::Other { ethertype, body: body.into() })
    }

    /// Who has `target`? Tell `sender`.
    pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
        body.extend(CLIENT_MAC);
        body.extend(sender.octets());
        body.extend([0; 6]);
        body.extend(target.octets());
        Self { destination_mac: [0xff; 6], ..Self::ethernet(0x0806, body) }
    }

    fn around(network: Network) -> Self {
        Self {
            destination_mac: HOST_MAC,
            source_mac: CLIENT_MAC,
            tags: Vec::new(),
            network,
            truncate: None,
            padding: 0,
        }
    }

    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// One more 802.1Q tag, inside those there are.
    pub fn vlan(self, id: u16) -> Self {
        self.tag(VLAN, id)
    }

    /// One more tag of any type, inside those there are.
    pub fn tag(mut self, ethertype: u16, id: u16) -> Self {
        self.tags.push((ethertype, id));
        self
    }

    // Transport.

    pub fn tcp(self, source: u16, destination: u16) -> Self {
        self.transport(Transport::Tcp {
            ports: [source, destination],
            flags: SYN,
            sequence: 1,
            acknowledgement: 0,
            options: Vec::new(),
            data_offset: None,
        })
    }

    pub fn udp(self, source: u16, destination: u16) -> Self {
        self.transport(Transport::Udp { ports: [source, destination], length: None })
    }

    /// ICMP or ICMPv6, by the family.
    pub fn icmp(self, kind: u8, code: u8) -> Self {
        self.transport(Transport::Icmp { kind, code, rest: [0; 4] })
    }

    /// As [`Frame::icmp`], with the four bytes that follow the checksum.
    pub fn icmp_with(self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport(Transport::Icmp { kind, code, rest })
    }

    pub fn echo_request(self, id: u16) -> Self {
        let kind = if self.is_v4() { 8 } else { 128 };
        self.transport(Transport::Icmp { kind, code: 0, rest: rest_of_echo(id) }).payload(32)
    }

    pub fn echo_reply(self, id: u16) -> Self {
        let kind = if self.is_v4() { 0 } else { 129 };
        self.transport(Transport::Icmp { kind, code: 0, rest: rest_of_echo(id) }).payload(32)
    }

    pub fn neighbour_solicitation(self, target: Ipv6Addr) -> Self {
        let mut body = target.octets().to_vec();
        body.extend([1, 1]);
        body.extend(CLIENT_MAC);
        self.icmp(135, 0).payload_bytes(body).ttl(255)
    }

    pub fn neighbour_advertisement(self, target: Ipv6Addr) -> Self {
        let mut body = target.octets().to_vec();
        body.extend([2, 1]);
        body.extend(CLIENT_MAC);
        self.transport(Transport::Icmp { kind: 136, code: 0, rest: [0x60, 0, 0, 0] }).payload_bytes(body).ttl(255)
    }

    /// An MLDv2 report on one group (RFC 3810), with the router alert it must carry.
    pub fn mld_report(self, group: Ipv6Addr) -> Self {
        let mut body = vec![4, 0, 0, 0];
        body.extend(group.octets());
        self.extension(Extension::Other { number: 0, body: vec![5, 2, 0, 0, 1, 0] })
            .transport(Transport::Icmp { kind: 143, code: 0, rest: [0, 0, 0, 1] })
            .payload_bytes(body)
            .ttl(1)
    }

    /// A DHCP or DHCPv6 server's answer to a client, by the family.
    pub fn dhcp_answer(self) -> Self {
        if self.is_v4() { self.udp(67, 68).payload(244) } else { self.udp(547, 546).payload(60) }
    }

    pub fn esp(self, spi: u32) -> Self {
        let mut body = spi.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd]);
        self.protocol(50, body)
    }

    pub fn gre(self) -> Self {
        self.protocol(47, [0, 0, 8, 0, 0, 0, 0, 0])
    }

    /// Any protocol, with everything behind the IP header.
    pub fn protocol(self, number: u8, body: impl Into<Vec<u8>>) -> Self {
        self.transport(Transport::None(number)).payload_bytes(body)
    }

    /// `length` bytes of payload that differ from each other.
    pub fn payload(self, length: usize) -> Self {
        self.payload_bytes((0..length).map(|index| (index % 251) as u8).collect::<Vec<u8>>())
    }

    pub fn payload_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.ip_mut().payload = bytes.into();
        self
    }

    // TCP and UDP fields.

    pub fn flags(mut self, bits: u8) -> Self {
        let Transport::Tcp { flags, .. } = &mut self.ip_mut().transport else { panic!("flags are TCP's") };
        *flags = bits;
        self
    }

    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        let Transport::Tcp { sequence, acknowledgement, .. } = &mut self.ip_mut().transport else {
            panic!("sequence numbers are TCP's")
        };
        (*sequence, *acknowledgement) = (seq, ack);
        self
    }

    /// TCP options, padded to a multiple of four bytes.
    pub fn tcp_options(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        let Transport::Tcp { options, .. } = &mut self.ip_mut().transport else { panic!("TCP options are TCP's") };
        *options = padded(bytes.into(), 4);
        self
    }

    /// Lies about the length of the TCP header, in units of four bytes.
    pub fn data_offset(mut self, words: u8) -> Self {
        let Transport::Tcp { data_offset, .. } = &mut self.ip_mut().transport else { panic!("data offset is TCP's") };
        *data_offset = Some(words);
        self
    }

    /// Lies about the length of the datagram.
    pub fn udp_length(mut self, bytes: u16) -> Self {
        let Transport::Udp { length, .. } = &mut self.ip_mut().transport else { panic!("not UDP") };
        *length = Some(bytes);
        self
    }

    // IP fields.

    /// TTL or hop limit.
    pub fn ttl(mut self, hops: u8) -> Self {
        self.ip_mut().ttl = hops;
        self
    }

    /// IPv4 options, padded to a multiple of four bytes.
    pub fn options(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        assert!(self.is_v4(), "options are IPv4's");
        self.ip_mut().options = padded(bytes.into(), 4);
        self
    }

    /// One more IPv6 extension header, behind those there are.
    pub fn extension(mut self, extension: Extension) -> Self {
        assert!(!self.is_v4(), "extension headers are IPv6's");
        self.ip_mut().extensions.push(extension);
        self
    }

    /// Makes it a fragment: `offset` in units of 8 bytes. The payload stays what it was; see [`Frame::fragments`] for a
    /// datagram properly cut in pieces.
    pub fn fragment(mut self, id: u16, offset: u16, more: bool) -> Self {
        if self.is_v4() {
            self.ip_mut().fragment = Some(Fragment { offset, more, id });
            self
        } else {
            self.extension(Extension::Fragment { offset, more, id: id.into() })
        }
    }

    /// Lies about the IP version.
    pub fn version(mut self, version: u8) -> Self {
        self.ip_mut().version = Some(version);
        self
    }

    /// Lies about the length of the IPv4 header, in units of four bytes.
    pub fn ihl(mut self, words: u8) -> Self {
        assert!(self.is_v4(), "the header length is IPv4's");
        self.ip_mut().ihl = Some(words);
        self
    }

    /// Lies about the total length (IPv4) or the payload length (IPv6).
    pub fn ip_length(mut self, bytes: u16) -> Self {
        self.ip_mut().length = Some(bytes);
        self
    }

    /// Lies about the protocol that follows the IP header.
    pub fn next_protocol(mut self, number: u8) -> Self {
        self.ip_mut().protocol = Some(number);
        self
    }

    /// Spoils the transport checksum.
    pub fn bad_checksum(mut self) -> Self {
        self.ip_mut().bad_checksum = true;
        self
    }

    // The frame as a whole.

    /// Cuts the finished frame to `length` bytes.
    pub fn truncate(mut self, length: usize) -> Self {
        self.truncate = Some(length);
        self
    }

    /// Bytes behind the IP packet, as short frames have.
    pub fn padding(mut self, length: usize) -> Self {
        self.padding = length;
        self
    }

    /// The bytes of the frame.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = encode::ethernet(self);
        bytes.resize(bytes.len() + self.padding, 0);
        bytes.truncate(self.truncate.unwrap_or(usize::MAX));
        bytes
    }

    /// The packet cut into fragments of at most `size` bytes (a multiple of 8) behind the IP header.
    pub fn fragments(&self, id: u16, size: usize) -> Vec<Vec<u8>> {
        assert!(size > 0 && size.is_multiple_of(8));
        let ip = self.ip_ref();
        assert!(ip.fragment.is_none() && ip.extensions.is_empty(), "cut it before anything else");
        let (protocol, body) = encode::transport(ip);
        let pieces = body.chunks(size).count();
        body.chunks(size)
            .enumerate()
            .map(|(index, piece)| {
                let offset = u16::try_from(index * size / 8).expect("a datagram of 64 KB at most");
                self.clone().protocol(protocol, piece).fragment(id, offset, index + 1 < pieces).build()
            })
            .collect()
    }

    fn transport(mut self, transport: Transport) -> Self {
        self.ip_mut().transport = transport;
        self
    }

    fn is_v4(&self) -> bool {
        self.ip_ref().source.is_ipv4()
    }

    fn ip_ref(&self) -> &Ip {
        match &self.network {
            Network::Ip(ip) => ip,
            Network::Other { .. } => panic!("not an IP packet"),
        }
    }

    fn ip_mut(&mut self) -> &mut Ip {
        match &mut self.network {
            Network::Ip(ip) => ip,
            Network::Other { .. } => panic!("not an IP packet"),
        }
    }
}

/// The part of a frame behind its Ethernet header and VLAN tags: what a receiver sees, whose kernel takes off the outer tag.
pub fn without_ethernet(frame: &[u8]) -> &[u8] {
    let mut at = 12;
    while let Some(bytes) = frame.get(at..at + 2) {
        at += 2;
        if ![VLAN, QINQ, QINQ_OLD].contains(&u16::from_be_bytes([bytes[0], bytes[1]])) {
            break;
        }
        at += 2;
    }
    frame.get(at..).unwrap_or_default()
}

fn rest_of_echo(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [high, low, 0, 1]
}

fn padded(mut bytes: Vec<u8>, multiple: usize) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
    bytes
}
