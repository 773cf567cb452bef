//! Addresses as the maps hold them: IPv4 and IPv6 in one 128-bit space.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::pod;

/// An IP address in network byte order. IPv4 is held as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), so one key type
/// serves both families.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addr(pub [u32; 4]);

pod!(Addr: 16);

/// Bits before an IPv4 address in the 128-bit space.
pub const V4_OFFSET: u8 = 96;

impl Addr {
    /// An IPv4 address from its four bytes as one word in network byte order.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The IPv4 address as a word in network byte order. Meaningful only if [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be()
    }

    /// The upper and lower half as integers: the first bit of the address is the highest bit of the first half.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        let [a, b, c, d] = self.0;
        (
            ((u32::from_be(a) as u64) << 32) | u32::from_be(b) as u64,
            ((u32::from_be(c) as u64) << 32) | u32::from_be(d) as u64,
        )
    }

    #[inline(always)]
    pub const fn from_halves(high: u64, low: u64) -> Self {
        Self([((high >> 32) as u32).to_be(), (high as u32).to_be(), ((low >> 32) as u32).to_be(), (low as u32).to_be()])
    }

    /// The address with all but its first `length` bits cleared, `0 <= length <= 128`. An IPv4 prefix of length `n` has
    /// length `96 + n` here.
    #[inline(always)]
    pub const fn masked(&self, length: u8) -> Self {
        let (high, low) = self.halves();
        if length >= 64 {
            Self::from_halves(high, low & high_bits(length - 64))
        } else {
            Self::from_halves(high & high_bits(length), 0)
        }
    }
}

/// A word whose first `length` bits are set, `0 <= length`; 64 and more set all.
#[inline(always)]
const fn high_bits(length: u8) -> u64 {
    if length == 0 {
        0
    } else if length >= 64 {
        u64::MAX
    } else {
        u64::MAX << (64 - length)
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let bits = u128::from_be_bytes(octets);
        Self::from_halves((bits >> 64) as u64, bits as u64)
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            return Self::V4(Ipv4Addr::from(u32::from_be(address.v4_word())));
        }
        let (high, low) = address.halves();
        Self::V6(Ipv6Addr::from((u128::from(high) << 64) | u128::from(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn survives_a_round_trip(bits: u128, word: u32) {
            let v6 = IpAddr::V6(Ipv6Addr::from(bits));
            // An IPv4-mapped address is the IPv4 address, by definition of the space.
            prop_assert_eq!(IpAddr::from(Addr::from(v6)), v6.to_canonical());
            let v4 = IpAddr::V4(Ipv4Addr::from(word));
            prop_assert_eq!(IpAddr::from(Addr::from(v4)), v4);
            prop_assert_eq!(Addr::from(v4), Addr::v4(word.to_be()));
        }

        #[test]
        fn masks_like_integer_arithmetic(bits: u128, length in 0u8..=128) {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let expected = bits & mask;
            let (high, low) = Addr::from_halves((bits >> 64) as u64, bits as u64).masked(length).halves();
            prop_assert_eq!((u128::from(high) << 64) | u128::from(low), expected);
        }
    }
}
