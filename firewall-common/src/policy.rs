//! What the agent hands to an instance of the program: its read-only globals, and the one record that all instances share.

use crate::{ban::MAX_LENGTHS, pod};

/// Read-only globals of one instance: the verifier knows them, and removes the stages that are off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Counts policies up; events carry it.
    pub generation: u32,
    /// Bits of [`stage`].
    pub stages: u32,
    /// Bits of [`crate::hygiene::check`].
    pub hygiene: u32,
    /// Bounds of every IP packet, in bytes.
    pub min_packet: u32,
    pub max_packet: u32,
    /// Smallest MTU of the interfaces: packets up to here need no look at their interface's own.
    pub mtu: u32,
    /// Bits of [`stage`]: of these, the ones that only count and report.
    pub monitor: u32,
    /// Index mask of the table of bucket sets: its length, a power of two, less one.
    pub bucket_mask: u32,
}

pod!(Policy: 32);

pub mod stage {
    /// There are IPv4 list entries.
    pub const LISTS_V4: u32 = 1;
    /// There are IPv6 list entries.
    pub const LISTS_V6: u32 = 1 << 1;
    pub const HYGIENE: u32 = 1 << 2;
    /// Bounds of every packet.
    pub const SIZE: u32 = 1 << 3;
    /// Rules by port.
    pub const SIZE_RULES: u32 = 1 << 4;
    pub const EXPOSURE: u32 = 1 << 5;
    pub const RATES: u32 = 1 << 6;
    /// Some rate rule bans.
    pub const RATE_BANS: u32 = 1 << 7;
    /// As a bit of `monitor`: the layer as a whole, parsing, bans and control traffic included.
    pub const LAYER: u32 = 1 << 8;
    /// Debug traces through aya-log.
    pub const TRACE: u32 = 1 << 9;
    /// Some port refuses QUIC.
    pub const QUIC: u32 = 1 << 10;
}

/// The one record that all instances share and the agent writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// [`crate::ABI_VERSION`] of the agent that made the pinned maps.
    pub abi: u32,
    /// Of the last policy that went live: a new agent counts on from here.
    pub generation: u32,
    /// Random, drawn when the maps were made: hashes of the bucket table and the sampler cannot be foreseen.
    pub seed: u64,
    /// Prefix lengths of bans in use beside /32, /64 and /128, in the 128-bit space; 0 ends each list.
    pub ban_lengths_v4: [u8; MAX_LENGTHS],
    pub ban_lengths_v6: [u8; MAX_LENGTHS],
    /// Bits of [`crate::ban::guard::filter_bit`] of the host's own addresses: most sources need no further look.
    pub own_filter: u64,
}

pod!(Control: 40);

/// An interface the program runs on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Largest IP packet on the wire, in bytes.
    pub mtu: u32,
    pub padding: u32,
}

pod!(Interface: 8);
