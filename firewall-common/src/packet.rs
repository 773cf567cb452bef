//! Reads a frame into [`Headers`]: Ethernet, VLAN and QinQ, IPv4 with options, IPv6 with extension headers, fragments, TCP,
//! UDP, ICMP and ICMPv6. It judges only what makes a packet unreadable; everything else is the pipeline's.

use crate::{address::Addr, verdict::DropReason};

/// The bytes of a frame, from its Ethernet header on.
pub trait Frame {
    /// Bytes on the wire, fragments of a multi-buffer frame included.
    fn length(&self) -> u32;

    /// Bytes that are there without asking for fragments: `readable <= length`.
    #[inline(always)]
    fn readable(&self) -> u32 {
        self.length()
    }

    /// The header at `offset`, or `None` if it does not lie within the readable bytes.
    fn load<T: Header>(&self, offset: usize) -> Option<T>;
}

/// Plain header layouts: `repr(C)`, integers in network byte order, valid for every bit pattern, no padding.
///
/// # Safety
/// The type must have those properties.
pub unsafe trait Header: Copy {}

macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy)]
            struct $name { $($field: $ty,)* }
            const _: () = assert!(core::mem::size_of::<$name>() == $size);
            // SAFETY: `repr(C)` over integers; the size assertion excludes padding.
            unsafe impl Header for $name {}
        )*
    };
}

headers! {
    /// IEEE 802.3
    Ethernet: 14 { _destination: [u8; 6], _source: [u8; 6], ethertype: u16, }
    /// IEEE 802.1Q
    Vlan: 4 { _control: u16, ethertype: u16, }
    /// RFC 791
    Ipv4: 20 {
        version_length: u8, _service: u8, total_length: u16, _identification: u16, fragment: u16,
        ttl: u8, protocol: u8, _checksum: u16, source: u32, destination: u32,
    }
    /// RFC 8200
    Ipv6: 40 {
        version_flow: u32, payload_length: u16, next: u8, hop_limit: u8, source: [u32; 4], destination: [u32; 4],
    }
    /// RFC 8200, 4.3 and following: the common start of extension headers
    Extension: 2 { next: u8, length: u8, }
    /// RFC 8200, 4.5
    FragmentExtension: 8 { next: u8, _reserved: u8, fragment: u16, _identification: u32, }
    /// RFC 9293
    Tcp: 20 {
        source: u16, destination: u16, _sequence: u32, _acknowledgement: u32, data_offset: u8, flags: u8, _window: u16,
        _checksum: u16, _urgent: u16,
    }
    /// RFC 768
    Udp: 8 { source: u16, destination: u16, length: u16, _checksum: u16, }
    /// RFC 792, RFC 4443; the identifier is that of echo messages
    Icmp: 8 { kind: u8, code: u8, _checksum: u16, identifier: u16, _sequence: u16, }
}

pub mod protocol {
    //! IP protocol numbers (IANA).
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
}

mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const QINQ: u16 = 0x88a8;
    /// Pre-standard QinQ of several switch makers.
    pub(super) const QINQ_OLD: u16 = 0x9100;
}

mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// VLAN tags a frame may carry.
pub const MAX_VLAN_TAGS: usize = 2;
/// Extension headers an IPv6 packet may carry.
pub const MAX_EXTENSION_HEADERS: usize = 6;

const MORE_FRAGMENTS_V4: u16 = 0x2000;
const FRAGMENT_OFFSET_V4: u16 = 0x1fff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// The first of several: carries the transport header, but not the whole payload.
    First,
    /// Not the first: carries no transport header.
    Later,
}

/// What the pipeline knows of a packet. Where [`parse`] fails, what was read before the failure is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub source: Addr,
    pub destination: Addr,
    /// Length of the IP packet in bytes, Ethernet header, tags and padding excluded; while that is unknown, of the frame.
    pub length: u32,
    /// Bytes after the transport header, up to the end that UDP itself gives.
    pub payload: u32,
    /// Host byte order. 0 where there are no ports.
    pub source_port: u16,
    /// Host byte order. 0 where there are no ports.
    pub destination_port: u16,
    /// Identifier of ICMP messages, host byte order.
    pub icmp_id: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    pub v4: bool,
    pub fragment: Fragment,
}

impl Headers {
    pub const EMPTY: Self = Self {
        source: Addr([0; 4]),
        destination: Addr([0; 4]),
        length: 0,
        payload: 0,
        source_port: 0,
        destination_port: 0,
        icmp_id: 0,
        protocol: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        hop_limit: 0,
        v4: false,
        fragment: Fragment::Whole,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Ip,
    /// ARP, LLDP and whatever else is not IP.
    Other,
}

/// Reads `frame` into `headers`.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, headers: &mut Headers) -> Result<Network, DropReason> {
    let network = ethernet(frame, headers);
    if headers.length == 0 {
        headers.length = frame.length();
    }
    network
}

#[inline(always)]
fn ethernet<F: Frame>(frame: &F, headers: &mut Headers) -> Result<Network, DropReason> {
    let ethernet: Ethernet = frame.load(0).ok_or(DropReason::Truncated)?;
    let mut ethertype = u16::from_be(ethernet.ethertype);
    let mut offset = size_of::<Ethernet>();
    for tags in 0..=MAX_VLAN_TAGS {
        if !matches!(ethertype, ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD) {
            break;
        }
        if tags == MAX_VLAN_TAGS {
            return Err(DropReason::VlanDepth);
        }
        let tag: Vlan = frame.load(offset).ok_or(DropReason::Truncated)?;
        ethertype = u16::from_be(tag.ethertype);
        offset += size_of::<Vlan>();
    }
    match ethertype {
        ethertype::IPV4 => ipv4(frame, offset, headers)?,
        ethertype::IPV6 => ipv6(frame, offset, headers)?,
        _ => return Ok(Network::Other),
    }
    Ok(Network::Ip)
}

/// Whether `length` bytes lie in the frame from `offset` on. Most frames have no fragments to ask for.
#[inline(always)]
fn holds<F: Frame>(frame: &F, offset: usize, length: u32) -> bool {
    let end = offset as u32 + length;
    end <= frame.readable() || end <= frame.length()
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: usize, headers: &mut Headers) -> Result<(), DropReason> {
    let ip: Ipv4 = frame.load(offset).ok_or(DropReason::Truncated)?;
    headers.v4 = true;
    headers.source = Addr::v4(ip.source);
    headers.destination = Addr::v4(ip.destination);
    headers.hop_limit = ip.ttl;
    headers.protocol = ip.protocol;
    let header_length = (ip.version_length as usize & 0xf) * 4;
    let total_length = u32::from(u16::from_be(ip.total_length));
    if ip.version_length >> 4 != 4 || header_length < size_of::<Ipv4>() || total_length < header_length as u32 {
        return Err(DropReason::BadLength);
    }
    if !holds(frame, offset, total_length) {
        return Err(DropReason::Truncated);
    }
    headers.length = total_length;
    let fragment = u16::from_be(ip.fragment);
    headers.fragment = fragment_of(fragment & FRAGMENT_OFFSET_V4, fragment & MORE_FRAGMENTS_V4 != 0, ip.protocol)?;
    transport(frame, offset + header_length, total_length - header_length as u32, headers)
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: usize, headers: &mut Headers) -> Result<(), DropReason> {
    let ip: Ipv6 = frame.load(offset).ok_or(DropReason::Truncated)?;
    headers.source = Addr(ip.source);
    headers.destination = Addr(ip.destination);
    headers.hop_limit = ip.hop_limit;
    let payload_length = u32::from(u16::from_be(ip.payload_length));
    let mut next = ip.next;
    headers.protocol = next;
    if u32::from_be(ip.version_flow) >> 28 != 6 {
        return Err(DropReason::BadLength);
    }
    let start = offset + size_of::<Ipv6>();
    if !holds(frame, start, payload_length) {
        return Err(DropReason::Truncated);
    }
    headers.length = payload_length + size_of::<Ipv6>() as u32;

    // Offset of the next header behind the fixed one: at most six headers of 2048 bytes each.
    let mut read: usize = 0;
    for depth in 0..=MAX_EXTENSION_HEADERS {
        let is_extension = matches!(
            next,
            extension::HOP_BY_HOP
                | extension::ROUTING
                | extension::FRAGMENT
                | extension::DESTINATION
                | extension::MOBILITY
                | extension::HIP
                | extension::SHIM6
                | protocol::AH
        );
        if !is_extension {
            break;
        }
        if depth == MAX_EXTENSION_HEADERS {
            return Err(DropReason::ExtensionHeaders);
        }
        let cut = match headers.fragment {
            Fragment::First => DropReason::FragmentHeader,
            Fragment::Whole | Fragment::Later => DropReason::Truncated,
        };
        if next == extension::FRAGMENT {
            let header: FragmentExtension = frame.load(start + read).ok_or(cut)?;
            // A second fragment header is no packet that a host sends.
            if headers.fragment != Fragment::Whole {
                return Err(DropReason::FragmentHeader);
            }
            let fragment = u16::from_be(header.fragment);
            next = header.next;
            read += size_of::<FragmentExtension>();
            headers.protocol = next;
            headers.fragment = fragment_of(fragment >> 3, fragment & 1 != 0, next)?;
            if headers.fragment == Fragment::Later {
                break;
            }
        } else {
            let header: Extension = frame.load(start + read).ok_or(cut)?;
            let length = header.length as usize;
            read += if next == protocol::AH { (length + 2) * 4 } else { (length + 1) * 8 };
            next = header.next;
            headers.protocol = next;
        }
        if read as u32 > payload_length {
            return Err(match headers.fragment {
                Fragment::First => DropReason::FragmentHeader,
                Fragment::Whole | Fragment::Later => DropReason::BadLength,
            });
        }
    }
    // For a later fragment the loop ended before its own check.
    let rest = payload_length.checked_sub(read as u32).ok_or(DropReason::BadLength)?;
    transport(frame, start + read, rest, headers)
}

/// `offset` in units of 8 bytes.
#[inline(always)]
fn fragment_of(offset: u16, more: bool, protocol: u8) -> Result<Fragment, DropReason> {
    match (offset, more) {
        // An IPv6 atomic fragment (RFC 6946) is whole, too.
        (0, false) => Ok(Fragment::Whole),
        (0, true) => Ok(Fragment::First),
        // It would overwrite the flags of the first fragment's TCP header (RFC 3128).
        (1, _) if protocol == protocol::TCP => Err(DropReason::FragmentHeader),
        _ => Ok(Fragment::Later),
    }
}

/// The transport header at `offset`; `length` bytes of the IP packet lie from there on.
#[inline(always)]
fn transport<F: Frame>(frame: &F, offset: usize, length: u32, headers: &mut Headers) -> Result<(), DropReason> {
    headers.payload = length;
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let first = headers.fragment == Fragment::First;
    let short = if first { DropReason::FragmentHeader } else { DropReason::BadLength };
    let cut = if first { DropReason::FragmentHeader } else { DropReason::Truncated };
    match headers.protocol {
        protocol::TCP => {
            if length < size_of::<Tcp>() as u32 {
                return Err(short);
            }
            let tcp: Tcp = frame.load(offset).ok_or(cut)?;
            headers.source_port = u16::from_be(tcp.source);
            headers.destination_port = u16::from_be(tcp.destination);
            headers.tcp_flags = tcp.flags;
            let header_length = u32::from(tcp.data_offset >> 4) * 4;
            if header_length < size_of::<Tcp>() as u32 {
                return Err(DropReason::BadLength);
            }
            headers.payload = length.checked_sub(header_length).ok_or(short)?;
        }
        protocol::UDP => {
            if length < size_of::<Udp>() as u32 {
                return Err(short);
            }
            let udp: Udp = frame.load(offset).ok_or(cut)?;
            headers.source_port = u16::from_be(udp.source);
            headers.destination_port = u16::from_be(udp.destination);
            let datagram = u32::from(u16::from_be(udp.length));
            // Bytes beyond the UDP length are legal (RFC 9868, UDP options), and no payload: the stack cuts them off.
            if datagram < size_of::<Udp>() as u32 || (datagram > length && !first) {
                return Err(DropReason::BadLength);
            }
            headers.payload = datagram.min(length) - size_of::<Udp>() as u32;
        }
        // Each only in its own family; elsewhere the number has no meaning and is judged as a protocol without ports.
        protocol::ICMP if headers.v4 => icmp(frame, offset, length, short, cut, headers)?,
        protocol::ICMPV6 if !headers.v4 => icmp(frame, offset, length, short, cut, headers)?,
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn icmp<F: Frame>(
    frame: &F,
    offset: usize,
    length: u32,
    short: DropReason,
    cut: DropReason,
    headers: &mut Headers,
) -> Result<(), DropReason> {
    if length < size_of::<Icmp>() as u32 {
        return Err(short);
    }
    let icmp: Icmp = frame.load(offset).ok_or(cut)?;
    headers.icmp_type = icmp.kind;
    headers.icmp_code = icmp.code;
    headers.icmp_id = u16::from_be(icmp.identifier);
    headers.payload = length - size_of::<Icmp>() as u32;
    Ok(())
}
