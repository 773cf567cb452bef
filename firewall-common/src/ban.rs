//! Bans: a prefix and the time it ends.

use crate::{
    address::{Addr, V4_OFFSET},
    pod,
};

/// Key of the ban table. `address` has no bit set behind `length`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BanKey {
    pub address: Addr,
    /// Prefix length in the 128-bit space: `96 + n` for IPv4.
    pub length: u32,
}

pod!(BanKey: 20);

impl BanKey {
    #[inline(always)]
    pub const fn new(address: &Addr, length: u8) -> Self {
        Self { address: address.masked(length), length: length as u32 }
    }

    /// A single address.
    #[inline(always)]
    pub const fn host(address: Addr) -> Self {
        Self { address, length: HOST as u32 }
    }
}

/// Prefix length of a single address.
pub const HOST: u8 = 128;
/// Prefix length by which IPv6 sources are counted and banned: what one customer gets at least (RFC 6177).
pub const NETWORK_V6: u8 = 64;
/// Prefix lengths beside [`HOST`] and [`NETWORK_V6`] that may be in use at once: each costs every packet a lookup.
pub const MAX_LENGTHS: usize = 8;
/// Shortest prefixes that can be banned: longer mistakes belong into a block list.
pub const MIN_LENGTH_V4: u8 = V4_OFFSET + 8;
pub const MIN_LENGTH_V6: u8 = 32;

/// Who asked for a ban.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanOrigin {
    /// The command line.
    Operator = 0,
    /// A rate rule of the DMZ layer.
    Rate = 1,
    /// The gateway, for what a client was refused.
    Reputation = 2,
}

impl BanOrigin {
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Operator),
            1 => Some(Self::Rate),
            2 => Some(Self::Reputation),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Rate => "rate",
            Self::Reputation => "reputation",
        }
    }
}

/// Value of the ban table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub until: u64,
    pub since: u64,
    /// Packets dropped by it. Several CPUs write it without a lock, so it may miss some; the counters are exact.
    pub packets: u64,
    /// [`BanOrigin`].
    pub origin: u8,
    pub padding: u8,
    /// Counter slot of the rule that set it, [`crate::counter::NO_RULE`] if none.
    pub rule: u16,
    pub padding2: u32,
}

pod!(Ban: 32);

/// What the kernel must know of an address before it bans it: value of the table of guarded prefixes, whose key is a
/// [`BanKey`].
pub mod guard {
    use crate::address::Addr;

    /// The bit of [`crate::policy::Control::own_filter`] that stands for an address.
    #[inline(always)]
    pub const fn filter_bit(address: &Addr) -> u64 {
        let (high, low) = address.halves();
        // The multiplier of Fibonacci hashing: the top bits depend on all of them.
        1 << ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }

    /// Never banned: an address of this host, a gateway or a resolver.
    pub const PROTECTED: u32 = 1;
    /// A /64 on the host's own link, or with a protected address in it: its hosts are banned one by one.
    pub const ON_LINK: u32 = 2;
    /// An address of this host: never the source of a packet from outside.
    pub const OWN: u32 = 4;
}
