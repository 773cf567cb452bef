//! Rate rules and the table of their buckets.

use crate::{address::Addr, packet::Headers, pod, token_bucket::Limit};

/// A rate rule, compiled. It applies where [`crate::port::PortPolicy::rates`] says so.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Names the rule's buckets: a hash of everything that shapes them, so an unchanged rule keeps its buckets over a reload
    /// and a changed one starts with full ones.
    pub id: u64,
    pub packets: Limit,
    pub bytes: Limit,
    pub connections: Limit,
    /// Nanoseconds a source is banned for on excess; 0: not at all.
    pub ban: u64,
    /// Counter slot.
    pub slot: u16,
    /// [`Key`].
    pub key: u8,
    /// Not 0: count and report only.
    pub monitor: u8,
    /// Prefix lengths in the 128-bit space by which sources are counted, for [`Key::Source`].
    pub length_v4: u8,
    pub length_v6: u8,
    pub padding: u16,
}

pod!(RateRule: 72);

/// Whose packets share a bucket.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Those of one source, or source prefix.
    Source = 0,
    /// Those to one service: a protocol and port.
    Service = 1,
}

/// What a bucket counts. Each has a bucket of its own.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Packets = 0,
    Bytes = 1,
    Connections = 2,
}

impl RateRule {
    /// What distinguishes this packet's bucket from others of the rule.
    #[inline(always)]
    pub fn subject(&self, headers: &Headers, service: u32) -> Addr {
        if self.key == Key::Service as u8 {
            Addr([0, 0, 0, service])
        } else {
            let length = if headers.v4 { self.length_v4 } else { self.length_v6 };
            headers.source.masked(length)
        }
    }
}

/// Buckets in a set.
pub const SET_LEN: usize = 8;

/// A set of buckets: two cache lines of a table that is indexed by hash. A bucket with `tat <= now` is full, which is the
/// same as absent, so its place may be taken without loss; under a flood of forged sources there is nothing to evict
/// but debts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketSet {
    /// Hashes of rule, dimension and subject. 0: never used.
    pub tags: [u64; SET_LEN],
    /// Theoretical arrival times: nanoseconds of CLOCK_MONOTONIC.
    pub tats: [u64; SET_LEN],
}

pod!(BucketSet: 128);

/// A hash of `id` and `subject` under `seed`, never 0. Multiplied with secrets, ids and halves of addresses differ in ways
/// that nobody outside can make up for by a choice of the others. The mixing is that of SplitMix64 (Steele, Lea, Flood 2014).
#[inline(always)]
pub const fn hash(seed: u64, id: u64, subject: &Addr) -> u64 {
    let [a, b, c, d] = subject.0;
    let high = ((a as u64) << 32) | b as u64;
    let low = ((c as u64) << 32) | d as u64;
    let secret = seed | 1;
    mix(id.wrapping_mul(secret) ^ low.wrapping_mul(secret.rotate_left(32) | 1) ^ high) | 1
}

#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Sources that share a set under one seed do not under another, for both families.
        #[test]
        fn collisions_are_the_seeds(one: u64, other: u64, id: u64, v4: bool) {
            prop_assume!(one | 1 != other | 1);
            let source = |number: u32| match v4 {
                true => Addr::v4(number.to_be()),
                false => Addr::from_halves(0x2001_0db8 << 32 | u64::from(number), 0),
            };
            let set = |seed, number| (hash(seed, id, &source(number)) >> 32) & 0xff;
            let collides = |seed, number: &u32| set(seed, *number) == set(seed, 0);
            let colliding = (1..4000).filter(|number| collides(one, number)).count();
            let again = (1..4000).filter(|number| collides(one, number) && collides(other, number)).count();
            prop_assert!(colliding < 100 && again < 10, "{colliding} and {again}");
        }
    }
}
