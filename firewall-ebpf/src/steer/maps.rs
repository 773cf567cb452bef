//! Every map of steering, with who writes and reads it.
//!
//! All are pinned by the agent, one set for each network namespace, and adopted by the next agent. All kinds are older than
//! the oldest kernel we support (6.1).

use core::cell::UnsafeCell;

use aya_ebpf::{
    bindings::{bpf_map_def, bpf_map_type::BPF_MAP_TYPE_SOCKMAP},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuHashMap},
};
use firewall_common::steer::{MAX_OWN, MAX_PORTS, OwnEntry, OwnKey, SteerControl, SteerCounts};

/// Lets user space map the values of an array into its memory (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Steered ports with their flags. The agent writes, entry by entry: a port that stays is never missing; lookups read. Full:
/// the agent refuses the configuration.
#[map]
pub(crate) static PORTS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PORTS, 0);

/// The listener that connections are handed to, at 0. The agent writes; the kernel itself empties the place when the socket
/// closes, whatever ends the agent; lookups read. A new listener replaces the old one at once. Empty: the agent is gone.
///
/// Values have 8 bytes, unlike those of aya's own type, so that the agent can read whose socket it is (Linux 5.8).
#[unsafe(link_section = "maps")]
#[unsafe(no_mangle)]
pub(crate) static LISTENER: Definition = Definition(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_SOCKMAP,
    key_size: 4,
    value_size: 8,
    max_entries: 1,
    map_flags: 0,
    id: 0,
    pinning: 0,
}));

/// A map without a type of aya's. Like theirs it is a cell: what is not writable would come to a second section of the same
/// name, and the kernel refuses the types of an object that has two.
#[repr(transparent)]
pub(crate) struct Definition(UnsafeCell<bpf_map_def>);

// SAFETY: nobody reads or writes it but the loader; its address is what stands for the map.
unsafe impl Sync for Definition {}

/// Heartbeat, and whose it is. The agent writes through a mapping, word by word; lookups read.
#[map]
pub(crate) static CONTROL: Array<SteerControl> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The agent's own connections from an address to itself. The agent writes and removes; lookups of such connections read,
/// and tell probes that they came. LRU, since an agent that dies leaves some: under pressure the oldest are forgotten (a
/// connection to the application would come back to the agent, which then has nobody to ask, and fails).
#[map]
pub(crate) static OWN: LruHashMap<OwnKey, OwnEntry> = LruHashMap::with_max_entries(MAX_OWN, 0);

/// Counts of each steered port, on each CPU its own: no contention. The agent makes and removes entries together with those
/// of [`PORTS`], and reads; lookups write. Nothing from outside makes an entry.
#[map]
pub(crate) static COUNTS: PerCpuHashMap<u32, SteerCounts> = PerCpuHashMap::with_max_entries(MAX_PORTS, 0);
