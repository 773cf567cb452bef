//! Where each counter lives in the one table of counters.

use crate::{pod, verdict::DropReason};

/// A counter: one of these on every CPU. The program writes it, the agent sums it up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    /// Of the IP packets; of the frames where that could not be read.
    pub bytes: u64,
}

pod!(Counter: 16);

macro_rules! tallies {
    ($($(#[$doc:meta])* $variant:ident = $value:literal $name:literal,)*) => {
        /// Counters that are neither of a drop reason nor of a rule. The numbers are ABI.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Tally { $($(#[$doc])* $variant = $value,)* }

        impl Tally {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in `status` and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

tallies! {
    /// Packets passed, whatever the reason.
    Passed = 0 "passed",
    /// Packets dropped, whatever the reason. Derived: see [`derive()`].
    Dropped = 1 "dropped",
    /// Verdicts that monitor mode kept from dropping. A packet may have several. Derived.
    Monitored = 2 "monitored",
    /// Of those passed: not IP.
    NonIp = 3 "non-ip",
    /// Of those passed: by the allow list.
    Allowed = 4 "allowed",
    /// Of those passed: control traffic, see [`crate::hygiene::Control`].
    Control = 5 "control",
    /// Of those passed: to a port that is not exposed or refuses QUIC, or from one known for reflection, as reply in a flow of ours.
    Reply = 6 "reply",
    /// As [`Self::Reply`], but found by socket lookup.
    ReplySocket = 7 "reply-socket",
    /// Events handed to the ring buffer.
    EventSent = 8 "event-sent",
    /// Events merged into another one of the same source and reason, or over the budget of events. Derived.
    EventSampled = 9 "event-sampled",
    /// Events lost because the ring buffer was full.
    EventLost = 10 "event-lost",
    /// Bans set by rate rules.
    BanSet = 11 "ban-set",
    /// Bans refused because the table was full (fails open: the rate still holds).
    BanFull = 12 "ban-full",
    /// Bans refused because the source is protected.
    BanProtected = 13 "ban-protected",
    /// Bans refused because the source had no established connection, so it may be forged.
    BanUnproven = 14 "ban-unproven",
    /// Buckets taken from another live source because their set was full (fails closed: the debt comes along).
    BucketStolen = 15 "bucket-stolen",
    /// Packets passed uncounted because other CPUs changed a bucket again and again (fails open).
    BucketContended = 16 "bucket-contended",
    /// Flows not written because the table refused them (fails closed: the reply is dropped).
    FlowRefused = 17 "flow-refused",
}

/// First counter of packets dropped, by reason.
pub const DROPPED: u32 = 64;
/// First counter of packets that monitor mode kept from being dropped, by reason.
pub const MONITORED: u32 = 128;
/// First counter of rules.
pub const RULES: u32 = 192;
/// Rules and lists that can have a counter at once.
pub const MAX_RULES: u16 = 1024;
/// Slot of a verdict without a rule.
pub const NO_RULE: u16 = u16::MAX;
/// Counters in the table.
pub const TABLE_LEN: u32 = RULES + MAX_RULES as u32;

const _: () = assert!(Tally::ALL.len() <= DROPPED as usize);
const _: () = assert!(DropReason::ALL.len() <= (MONITORED - DROPPED) as usize);

/// Fills in the tallies that the program need not count, since others tell them: each drop has a reason, and each verdict
/// against a packet and each ban by a rate is an event that was sent, lost, or merged into another.
pub fn derive(counters: &mut [Counter; TABLE_LEN as usize]) {
    let sum = |from: u32| {
        counters[from as usize..][..DropReason::ALL.len()].iter().fold(Counter::default(), |sum, counter| Counter {
            packets: sum.packets + counter.packets,
            bytes: sum.bytes + counter.bytes,
        })
    };
    let (dropped, monitored) = (sum(DROPPED), sum(MONITORED));
    let of = |tally: Tally| counters[tally as usize].packets;
    let events = dropped.packets + monitored.packets + of(Tally::BanSet);
    let sampled = events.saturating_sub(of(Tally::EventSent) + of(Tally::EventLost));
    counters[Tally::Dropped as usize] = dropped;
    counters[Tally::Monitored as usize] = monitored;
    counters[Tally::EventSampled as usize] = Counter { packets: sampled, bytes: 0 };
}

/// Name of a rule's counter slot, kept in a pinned table so that a new agent finds its rules' counters again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotName {
    /// UTF-8, filled up with zeros. Empty: the slot is free.
    pub name: [u8; Self::LEN],
}

pod!(SlotName: 96);

impl SlotName {
    /// Bytes a name may have.
    pub const LEN: usize = 96;
    pub const FREE: Self = Self { name: [0; Self::LEN] };

    /// `None` if `name` is empty or too long.
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > Self::LEN {
            return None;
        }
        let mut bytes = [0; Self::LEN];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self { name: bytes })
    }

    /// The name; empty if the slot is free or holds no UTF-8.
    pub fn as_str(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(Self::LEN);
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }
}
