//! What the policy says of a port or protocol, in one table: a lookup answers exposure, size and rates at once.

use crate::{
    packet::{Fragment, Headers, protocol},
    pod,
};

/// An entry. All zero: not exposed, no size rule, no rate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortPolicy {
    /// Bits of [`flag`].
    pub flags: u8,
    /// Index of the size rule plus one; 0 is none.
    pub size: u8,
    pub padding: u16,
    /// Bit `n`: rate rule `n` applies.
    pub rates: u32,
}

pod!(PortPolicy: 8);

pub mod flag {
    /// The port exists for the outside.
    pub const EXPOSED: u8 = 1;
    /// As a UDP source port: known for reflection.
    pub const REFLECTS: u8 = 2;
    /// The port was named in `expose`, so it serves there on purpose.
    pub const SERVED: u8 = 4;
    /// As a UDP port: the gateway inspects TLS on the TCP port of this number, and nobody shall go around it by QUIC.
    pub const NO_QUIC: u8 = 8;
}

const UDP: u32 = 1 << 16;
const PROTOCOL: u32 = 2 << 16;
const ECHO: u32 = PROTOCOL + 256;
/// Entries in the table: TCP ports, UDP ports, IP protocols, ICMP echo requests.
pub const TABLE_LEN: u32 = ECHO + 1;
/// Rate rules there can be: bits in [`PortPolicy::rates`].
pub const MAX_RATE_RULES: u32 = 32;
/// Size rules there can be: indices in [`PortPolicy::size`].
pub const MAX_SIZE_RULES: u32 = 255;

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Tcp(u16),
    Udp(u16),
    /// A protocol other than TCP and UDP; for these two, their later fragments, which have no ports.
    Protocol(u8),
    /// ICMP and ICMPv6 echo requests.
    Echo,
}

impl Service {
    /// Index in the table, `< TABLE_LEN`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Tcp(port) => port as u32,
            Self::Udp(port) => UDP + port as u32,
            Self::Protocol(number) => PROTOCOL + number as u32,
            Self::Echo => ECHO,
        }
    }

    /// The service a packet from outside asks for.
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        if matches!(headers.fragment, Fragment::Later) {
            return Self::Protocol(headers.protocol);
        }
        match headers.protocol {
            protocol::TCP => Self::Tcp(headers.destination_port),
            protocol::UDP => Self::Udp(headers.destination_port),
            protocol::ICMP if headers.v4 && headers.icmp_type == 8 => Self::Echo,
            protocol::ICMPV6 if !headers.v4 && headers.icmp_type == 128 => Self::Echo,
            other => Self::Protocol(other),
        }
    }
}
