//! Flows that the host, or somebody behind it, opened: written by the egress program, read where a packet from outside
//! goes to a port that is not exposed.

use crate::{
    address::Addr,
    hygiene::flag,
    packet::{Fragment, Headers, protocol},
    pod,
};

/// One flow, as seen from this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub local: Addr,
    pub remote: Addr,
    /// Host byte order. For ICMP echo, the identifier.
    pub local_port: u16,
    /// Host byte order. For ICMP echo, 0.
    pub remote_port: u16,
    pub protocol: u32,
}

pod!(FlowKey: 40);

const ECHO_REQUEST: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

impl FlowKey {
    /// The flow a packet that leaves opens or keeps open, or `None` if it opens none: an answer (SYN-ACK, RST, echo reply,
    /// ICMP error) must not, or a forged packet could make the host write entries.
    #[inline(always)]
    pub fn of_leaving(headers: &Headers) -> Option<Self> {
        let key = Self {
            local: headers.source,
            remote: headers.destination,
            local_port: headers.source_port,
            remote_port: headers.destination_port,
            protocol: u32::from(headers.protocol),
        };
        if headers.fragment == Fragment::Later {
            return None;
        }
        match headers.protocol {
            protocol::TCP => {
                let flags = headers.tcp_flags & (flag::SYN | flag::ACK | flag::RST);
                let answers = flags & flag::RST != 0 || flags == flag::SYN | flag::ACK;
                (!answers).then_some(key)
            }
            protocol::ICMP | protocol::ICMPV6 => ECHO_REQUEST.contains(&headers.icmp_type).then_some(Self {
                local_port: headers.icmp_id,
                remote_port: 0,
                ..key
            }),
            _ => Some(key),
        }
    }

    /// The flow a packet from outside would belong to, if it is a reply.
    #[inline(always)]
    pub fn of_arriving(headers: &Headers) -> Option<Self> {
        let key = Self {
            local: headers.destination,
            remote: headers.source,
            local_port: headers.destination_port,
            remote_port: headers.source_port,
            protocol: u32::from(headers.protocol),
        };
        match headers.protocol {
            protocol::ICMP | protocol::ICMPV6 => ECHO_REPLY.contains(&headers.icmp_type).then_some(Self {
                local_port: headers.icmp_id,
                remote_port: 0,
                ..key
            }),
            _ => Some(key),
        }
    }

    /// Nanoseconds without a leaving packet after which the flow is over: RFC 5382 (TCP, 2 h 4 min), RFC 5508 (ICMP, 60 s),
    /// RFC 4787 (UDP, 5 min; others alike).
    #[inline(always)]
    pub const fn lifetime(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match self.protocol as u8 {
            protocol::TCP => (2 * 60 + 4) * 60 * SECOND,
            protocol::ICMP | protocol::ICMPV6 => 60 * SECOND,
            _ => 300 * SECOND,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What leaves and what answers it name the same flow, and no other.
        #[test]
        fn an_answer_is_the_packet_turned_around(local: [u32; 4], remote: [u32; 4], ports: (u16, u16), udp: bool) {
            let (protocol, tcp_flags) = if udp { (protocol::UDP, 0) } else { (protocol::TCP, flag::ACK) };
            let leaves = Headers {
                source: Addr(local),
                destination: Addr(remote),
                source_port: ports.0,
                destination_port: ports.1,
                protocol,
                tcp_flags,
                ..Headers::EMPTY
            };
            let answers = Headers {
                source: leaves.destination,
                destination: leaves.source,
                source_port: ports.1,
                destination_port: ports.0,
                ..leaves
            };
            prop_assert_eq!(FlowKey::of_leaving(&leaves), FlowKey::of_arriving(&answers));
            let other = Headers { destination_port: ports.0 ^ 1, ..answers };
            prop_assert_ne!(FlowKey::of_leaving(&leaves), FlowKey::of_arriving(&other));
        }
    }

    #[test]
    fn lifetimes_are_those_of_the_rfcs() {
        let seconds = |protocol| {
            let headers = Headers { protocol, icmp_type: 8, tcp_flags: flag::ACK, v4: true, ..Headers::EMPTY };
            FlowKey::of_leaving(&headers).unwrap().lifetime() / 1_000_000_000
        };
        assert_eq!([protocol::TCP, protocol::UDP, protocol::ICMP, protocol::GRE].map(seconds), [7440, 300, 60, 300]);
    }
}
