//! Every map and global, with who writes and reads it.
//!
//! *Shared* maps are pinned by the agent and reused by every instance of the program; the others belong to one instance
//! and go with it. Capacities here are placeholders: the agent sets them from the policy before it loads.
//! All kinds are older than the oldest kernel we support (6.1).

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use firewall_common::{
    address::Addr,
    ban::{Ban, BanKey},
    counter::{self, Counter, SlotName},
    event::{SAMPLE_SLOTS, SampleBudget, SampleSlot},
    flow::FlowKey,
    policy::{Control, Interface, Policy},
    port::{self, MAX_RATE_RULES, MAX_SIZE_RULES, PortPolicy},
    prefix::ListEntry,
    rate::{BucketSet, RateRule},
    size::SizeRule,
};

/// Read-only globals of this instance. Written by the agent before it loads the program, frozen from then on.
#[unsafe(no_mangle)]
pub(crate) static POLICY: Policy =
    Policy { generation: 0, stages: 0, hygiene: 0, min_packet: 0, max_packet: 0, mtu: 0, monitor: 0, bucket_mask: 0 };

/// A field of the policy, read so that the compiler cannot take the placeholder above for its value.
macro_rules! policy {
    ($field:ident) => {
        // SAFETY: a plain read of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::POLICY.$field) }
    };
}
pub(crate) use policy;

#[inline(always)]
pub(crate) fn has_stage(bits: u32) -> bool {
    policy!(stages) & bits != 0
}

/// Whether these stages, or the layer as a whole, only count and report.
#[inline(always)]
pub(crate) fn monitored(bits: u32) -> bool {
    policy!(monitor) & (bits | firewall_common::policy::stage::LAYER) != 0
}

/// Allow and block lists, IPv4. Agent writes before the instance goes live; packets read. Longest match.
#[map]
pub(crate) static LISTS_V4: LpmTrie<u32, ListEntry> = LpmTrie::with_max_entries(1, 0);

/// Allow and block lists, IPv6. As [`LISTS_V4`].
#[map]
pub(crate) static LISTS_V6: LpmTrie<Addr, ListEntry> = LpmTrie::with_max_entries(1, 0);

/// What the policy says of each port and protocol. Agent writes before the instance goes live; packets read.
#[map]
pub(crate) static PORTS: Array<PortPolicy> = Array::with_max_entries(port::TABLE_LEN, 0);

/// Size rules, by the index in [`PORTS`]. Agent writes before the instance goes live; packets read.
#[map]
pub(crate) static SIZES: Array<SizeRule> = Array::with_max_entries(MAX_SIZE_RULES, 0);

/// Rate rules, by their bit in [`PORTS`]. Agent writes before the instance goes live; packets read.
#[map]
pub(crate) static RATES: Array<RateRule> = Array::with_max_entries(MAX_RATE_RULES, 0);

/// Shared. Bans: the agent writes, rate rules insert, packets read. Preallocated and without eviction, so no flood of
/// sources can push a ban out. Full: insertion is refused and counted (open: the rate itself still holds).
#[map]
pub(crate) static BANS: HashMap<BanKey, Ban> = HashMap::with_max_entries(1, 0);

/// Shared. Prefixes with a meaning of their own: the host's addresses, gateways, resolvers, on-link networks. The agent
/// writes; packets read. Full: the agent reports it.
#[map]
pub(crate) static GUARDED: HashMap<BanKey, u32> = HashMap::with_max_entries(4096, 0);

/// Shared. Rate buckets, an open hash of our own: see [`BucketSet`]. Packets read and write, by compare-and-swap.
#[map]
pub(crate) static BUCKETS: Array<BucketSet> = Array::with_max_entries(1, 0);

/// Shared. Flows that the host opened, with the time of their last leaving packet. The egress program writes, packets
/// read. LRU: under pressure the oldest flows are forgotten, and their replies need the socket lookup.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(1, 0);

/// Shared. Every counter, on each CPU its own: no contention. Packets write, the agent reads.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(counter::TABLE_LEN, 0);

/// Shared. Names of the rules that own counter slots. Only the agent uses it; it is here so that every instance and
/// every agent finds the same one.
#[map]
pub(crate) static SLOT_NAMES: Array<SlotName> = Array::with_max_entries(counter::MAX_RULES as u32, 0);

/// Shared. Events. Packets write, the agent drains it by the clock (`BPF_RB_NO_WAKEUP`). Full: the event is lost and
/// counted; its packet's counters are exact all the same.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Shared. What was reported last, by hash of source and reason. Packets write; a lost race costs or adds one event.
#[map]
pub(crate) static SAMPLES: Array<SampleSlot> = Array::with_max_entries(SAMPLE_SLOTS, 0);

/// Shared. Each CPU's budget of events.
#[map]
pub(crate) static SAMPLE_BUDGETS: PerCpuArray<SampleBudget> = PerCpuArray::with_max_entries(1, 0);

/// Shared. The seed, ABI version and ban lengths. The agent writes; packets read.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Shared. The interfaces we run on. The agent writes; packets above the smallest MTU read.
#[map]
pub(crate) static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(256, 0);

/// Seed of the hashes, drawn by the agent.
#[inline(always)]
pub(crate) fn seed() -> u64 {
    CONTROL.get(0).map_or(0, |control| control.seed)
}
