//! What the kernel tells the agent of a verdict.

use crate::{address::Addr, pod};

/// A record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    pub source: Addr,
    pub destination: Addr,
    /// Packets this record stands for: its own and those of the same source and reason since the last record.
    pub count: u32,
    pub interface: u32,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// Bytes of the IP packet.
    pub length: u32,
    /// Host byte order.
    pub source_port: u16,
    pub destination_port: u16,
    /// Counter slot of the rule, [`crate::counter::NO_RULE`] if none.
    pub rule: u16,
    /// [`crate::verdict::DropReason`].
    pub reason: u8,
    /// [`EventAction`].
    pub action: u8,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub padding: [u8; 4],
}

pod!(Event: 72);

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventAction {
    /// The packet was dropped.
    Drop = 0,
    /// The packet would have been dropped, but the rule or the layer is in monitor mode.
    Monitor = 1,
    /// A rate rule banned the source. The packet was dropped.
    Ban = 2,
}

impl EventAction {
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Drop),
            1 => Some(Self::Monitor),
            2 => Some(Self::Ban),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Monitor => "monitor",
            Self::Ban => "ban",
        }
    }
}

/// Slot of the sampler: the last (source, reason) that was reported from it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleSlot {
    /// Hash of source, reason and action.
    pub tag: u64,
    /// Jiffies of the last record.
    pub last: u64,
    /// Packets since then.
    pub merged: u64,
}

pod!(SampleSlot: 24);

/// Slots of the sampler, a power of two.
pub const SAMPLE_SLOTS: u32 = 1 << 14;
/// Jiffies between two records of the same source and reason: 0.26 s to 2.6 s by the kernel's HZ (1000 to 100).
pub const SAMPLE_JIFFIES: u64 = 256;
/// Records that each CPU may send within [`SAMPLE_JIFFIES`]; verdicts beyond are counted as sampled.
pub const SAMPLE_BUDGET: u64 = 2048;

/// Each CPU's budget of records.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleBudget {
    /// Jiffies at which the current window began.
    pub since: u64,
    /// Records sent in it.
    pub sent: u64,
}

pod!(SampleBudget: 16);
