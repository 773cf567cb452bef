//! Packets that no honest stack sends, judged by their headers alone.

use crate::{
    packet::{Fragment, Headers, protocol},
    verdict::DropReason,
};

/// Which checks are on: bits of [`crate::policy::Policy::hygiene`].
pub mod check {
    pub const TCP_FLAGS: u32 = 1;
    pub const PORT_ZERO: u32 = 1 << 1;
    pub const LAND: u32 = 1 << 2;
    pub const BOGONS: u32 = 1 << 3;
    /// Own addresses as source. The table is the pipeline's; see `OWN` in `firewall-ebpf`.
    pub const OWN_SOURCE: u32 = 1 << 4;
    pub const PRIVATE_SOURCES: u32 = 1 << 5;
    pub const LINK_LOCAL_SOURCES: u32 = 1 << 6;
    pub const FRAGMENTS: u32 = 1 << 7;
    /// Reflection source ports. The table is the pipeline's; see [`crate::port::PortPolicy`].
    pub const REFLECTION: u32 = 1 << 8;
}

/// TCP flags (RFC 9293, 3.1).
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
}

/// Judges `headers` by the checks set in `checks`. The first that condemns wins.
#[inline(always)]
pub fn judge(headers: &Headers, checks: u32) -> Result<(), DropReason> {
    if checks & check::FRAGMENTS != 0 && headers.fragment != Fragment::Whole {
        return Err(DropReason::Fragment);
    }
    if headers.fragment != Fragment::Later {
        if headers.protocol == protocol::TCP {
            if checks & check::TCP_FLAGS != 0 && impossible_flags(headers.tcp_flags) {
                return Err(DropReason::TcpFlags);
            }
            if checks & check::PORT_ZERO != 0 && (headers.source_port == 0 || headers.destination_port == 0) {
                return Err(DropReason::PortZero);
            }
        }
        // A UDP source port of 0 says "no reply wanted" (RFC 768).
        if headers.protocol == protocol::UDP && checks & check::PORT_ZERO != 0 && headers.destination_port == 0 {
            return Err(DropReason::PortZero);
        }
    }
    if checks & check::LAND != 0 && headers.source == headers.destination {
        return Err(DropReason::Land);
    }
    if headers.v4 { source_v4(headers, checks) } else { source_v6(headers, checks) }
}

/// Flag combinations that no TCP sends. ECN bits say nothing here, and neither does data on a SYN (RFC 7413).
#[inline(always)]
const fn impossible_flags(flags: u8) -> bool {
    let syn = flags & flag::SYN != 0;
    let fin = flags & flag::FIN != 0;
    let rst = flags & flag::RST != 0;
    let ack = flags & flag::ACK != 0;
    (syn && (fin || rst))
        || (fin && rst)
        || (fin && !ack)
        || !(syn || rst || ack)
        || (!ack && flags & flag::URG != 0)
        || (!ack && !syn && !rst && flags & flag::PSH != 0)
}

#[inline(always)]
fn source_v4(headers: &Headers, checks: u32) -> Result<(), DropReason> {
    let source = u32::from_be(headers.source.v4_word());
    let first = source >> 24;
    if checks & check::BOGONS != 0 {
        // 0.0.0.0 asks for an address (DHCP) or queries groups from a snooping switch (IGMP, RFC 4541).
        let unspecified = source == 0
            && (headers.protocol == protocol::IGMP
                || (headers.protocol == protocol::UDP && headers.source_port == 68 && headers.destination_port == 67));
        if (first == 0 && !unspecified) || first == 127 || first >= 224 {
            return Err(DropReason::Bogon);
        }
    }
    let private = first == 10
        || source >> 20 == (172 << 4 | 16 >> 4)
        || source >> 16 == (192 << 8 | 168)
        || source >> 22 == (100 << 2 | 64 >> 6);
    local_scope(headers, checks, private, source >> 16 == (169 << 8 | 254))
}

#[inline(always)]
fn source_v6(headers: &Headers, checks: u32) -> Result<(), DropReason> {
    let (high, low) = headers.source.halves();
    if checks & check::BOGONS != 0 {
        // The unspecified address speaks for a host that has none yet: duplicate address detection (135) and the
        // MLD reports that go with it (131, 143).
        let unspecified = headers.protocol == protocol::ICMPV6 && matches!(headers.icmp_type, 131 | 133 | 135 | 143);
        if high >> 56 == 0xff
            || (high == 0 && low == 0 && !unspecified)
            || (high == 0 && low == 1)
            || headers.source.is_v4()
        {
            return Err(DropReason::Bogon);
        }
    }
    local_scope(headers, checks, high >> 57 == 0xfc >> 1, high >> 54 == 0xfe80 >> 6)
}

/// Judges a source that is private or link-local. Neighbours, routers on the way and DHCP servers have such addresses:
/// their control traffic passes.
#[inline(always)]
fn local_scope(headers: &Headers, checks: u32, private: bool, link_local: bool) -> Result<(), DropReason> {
    let private = private && checks & check::PRIVATE_SOURCES != 0;
    let link_local = link_local && checks & check::LINK_LOCAL_SOURCES != 0;
    if !(private || link_local) || control(headers).is_some() {
        Ok(())
    } else if private {
        Err(DropReason::PrivateSource)
    } else {
        Err(DropReason::LinkLocalSource)
    }
}

/// Traffic without which a host loses its network: it passes the exposure stage always, under a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// ICMPv6 133–137 with hop limit 255, so from the link itself (RFC 4861). Passes lists and bans, too.
    NeighbourDiscovery,
    /// ICMP 3, 11, 12 and ICMPv6 1–4.
    Error,
    /// ICMPv6 130–132 and 143 with hop limit 1 (RFC 3810).
    Mld,
    /// Answers to a DHCP or DHCPv6 client.
    Dhcp,
}

impl Control {
    /// Packets a second that pass of each kind: from each source for neighbour discovery (its sources are on the link), in
    /// all for the others (theirs can be forged).
    pub const LIMIT_PER_SECOND: u64 = 1000;
}

#[inline(always)]
pub fn control(headers: &Headers) -> Option<Control> {
    if headers.fragment != Fragment::Whole {
        return None;
    }
    match (headers.protocol, headers.v4) {
        (protocol::ICMP, true) => matches!(headers.icmp_type, 3 | 11 | 12).then_some(Control::Error),
        (protocol::ICMPV6, false) => match headers.icmp_type {
            1..=4 => Some(Control::Error),
            130..=132 | 143 if headers.hop_limit == 1 => Some(Control::Mld),
            133..=137 if headers.hop_limit == 255 => Some(Control::NeighbourDiscovery),
            _ => None,
        },
        (protocol::UDP, true) => (headers.source_port == 67 && headers.destination_port == 68).then_some(Control::Dhcp),
        (protocol::UDP, false) => {
            (headers.source_port == 547 && headers.destination_port == 546).then_some(Control::Dhcp)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Addr;
    use flag::*;

    #[test]
    fn flags_that_stacks_send_pass() {
        let ecn = 0xc0;
        for legal in [
            SYN,
            SYN | ecn,
            SYN | PSH,
            SYN | ACK,
            ACK,
            ACK | PSH,
            ACK | URG,
            FIN | ACK,
            FIN | PSH | ACK,
            RST,
            RST | ACK,
        ] {
            assert!(!impossible_flags(legal), "{legal:#x}");
        }
        for impossible in [
            0,
            ecn,
            FIN,
            SYN | FIN,
            SYN | RST,
            SYN | FIN | ACK,
            FIN | RST,
            FIN | PSH | URG,
            URG,
            PSH,
            SYN | URG,
            RST | FIN | ACK,
        ] {
            assert!(impossible_flags(impossible), "{impossible:#x}");
        }
    }

    fn from_v4(source: [u8; 4], checks: u32) -> Result<(), DropReason> {
        let source = Addr::v4(u32::from_ne_bytes(source));
        let destination = Addr::v4(u32::from_ne_bytes([192, 0, 2, 1]));
        judge(&Headers { v4: true, source, destination, protocol: protocol::GRE, ..Headers::EMPTY }, checks)
    }

    #[test]
    fn ranges_end_where_the_rfcs_say() {
        for (inside, outside) in [
            ([0, 0, 0, 1], [1, 0, 0, 0]),
            ([127, 255, 255, 255], [128, 0, 0, 0]),
            ([224, 0, 0, 0], [223, 255, 255, 255]),
            ([240, 0, 0, 1], [126, 0, 0, 1]),
        ] {
            assert_eq!(from_v4(inside, check::BOGONS), Err(DropReason::Bogon));
            assert_eq!(from_v4(outside, check::BOGONS), Ok(()));
            assert_eq!(from_v4(inside, 0), Ok(()));
        }
        for (inside, outside) in [
            ([10, 0, 0, 0], [11, 0, 0, 0]),
            ([172, 31, 255, 255], [172, 32, 0, 0]),
            ([172, 16, 0, 0], [172, 15, 255, 255]),
            ([192, 168, 0, 1], [192, 169, 0, 0]),
            ([100, 127, 255, 255], [100, 128, 0, 0]),
        ] {
            assert_eq!(from_v4(inside, check::PRIVATE_SOURCES), Err(DropReason::PrivateSource));
            assert_eq!(from_v4(outside, check::PRIVATE_SOURCES), Ok(()));
        }
        assert_eq!(from_v4([169, 254, 1, 1], check::LINK_LOCAL_SOURCES), Err(DropReason::LinkLocalSource));
        assert_eq!(from_v4([169, 253, 1, 1], check::LINK_LOCAL_SOURCES), Ok(()));
    }
}
