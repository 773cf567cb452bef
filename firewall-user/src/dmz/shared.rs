//! The maps that every instance of the program shares and that outlive the agent: pinned in a directory of bpffs.
//!
//! They are made by the first instance that is loaded, and adopted by all later ones, after a check that they are ours:
//! same ABI version, same shapes. A table whose configured size changed is made anew; bans are carried over, buckets and
//! flows are not (buckets start full, replies of flows before are found by socket lookup).

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuValues, RingBuf};
use firewall_common::{
    ABI_VERSION,
    ban::{Ban, BanKey, guard},
    counter::{self, Counter, SlotName},
    event::{Event, SAMPLE_SLOTS, SampleBudget, SampleSlot},
    flow::FlowKey,
    policy::{Control, Interface},
    rate::BucketSet,
};

use super::{compile::bucket_sets, slots::Slots, syscall};
use crate::{
    config::Tables,
    host::addresses::{self, Guarded},
};

/// Bytes of the ring of events.
const EVENT_BYTES: u32 = 1 << 20;
/// Prefixes with a meaning of their own that fit.
const GUARDED_MAX: u32 = 4096;
/// Interfaces that fit.
const INTERFACES_MAX: u32 = 256;

/// What a shared map must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    name: &'static str,
    key: u32,
    value: u32,
    entries: u32,
}

const fn shape<K, V>(name: &'static str, entries: u32) -> Shape {
    Shape { name, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries }
}

fn shapes(tables: &Tables) -> [Shape; 11] {
    [
        shape::<BanKey, Ban>("BANS", tables.bans),
        shape::<BanKey, u32>("GUARDED", GUARDED_MAX),
        shape::<u32, BucketSet>("BUCKETS", bucket_sets(tables)),
        shape::<FlowKey, u64>("FLOWS", tables.flows),
        shape::<u32, Counter>("COUNTERS", counter::TABLE_LEN),
        shape::<u32, SlotName>("SLOT_NAMES", counter::MAX_RULES as u32),
        Shape { name: "EVENTS", key: 0, value: 0, entries: EVENT_BYTES },
        shape::<u32, SampleSlot>("SAMPLES", SAMPLE_SLOTS),
        shape::<u32, SampleBudget>("SAMPLE_BUDGETS", 1),
        shape::<u32, Control>("CONTROL", 1),
        shape::<u32, Interface>("INTERFACES", INTERFACES_MAX),
    ]
}

/// Kernel memory that the shared maps of this size take, in bytes, roughly: entries, and what the kernel keeps beside them.
pub fn memory(tables: &Tables, cpus: u64) -> u64 {
    let hash_overhead = 64;
    let per_entry = |entries: u32, size: usize| u64::from(entries) * (size as u64 + hash_overhead);
    per_entry(tables.bans, size_of::<BanKey>() + size_of::<Ban>())
        + per_entry(GUARDED_MAX, size_of::<BanKey>() + 8)
        + per_entry(tables.flows, size_of::<FlowKey>() + 8)
        + u64::from(bucket_sets(tables)) * size_of::<BucketSet>() as u64
        + u64::from(counter::TABLE_LEN) * size_of::<Counter>() as u64 * cpus
        + u64::from(counter::MAX_RULES) * SlotName::LEN as u64
        + u64::from(EVENT_BYTES)
        + u64::from(SAMPLE_SLOTS) * size_of::<SampleSlot>() as u64
}

#[derive(Debug)]
pub enum SharedError {
    /// The pins are of an agent of another version.
    Abi {
        found: u32,
    },
    /// A pin under our name that is not ours.
    Foreign {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        source: io::Error,
    },
    Map {
        name: &'static str,
        source: aya::maps::MapError,
    },
    Read {
        name: &'static str,
        source: io::Error,
    },
}

impl std::fmt::Display for SharedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Abi { found } => write!(
                f,
                "the kernel holds maps of another version of Portcullis (ABI {found}, this one has {ABI_VERSION}); \
                 `portcullis detach` of either version removes them"
            ),
            Self::Foreign { path } => {
                write!(f, "{} is not a map of ours; `portcullis detach` removes what is", path.display())
            }
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Map { name, source } => write!(f, "map {name}: {source}"),
            Self::Read { name, source } => write!(f, "map {name}: {source}"),
        }
    }
}

impl std::error::Error for SharedError {}

/// What adoption found. Dropped before [`Adopted::keep`], it leaves the pins as they were.
#[derive(Debug)]
pub struct Adopted {
    directory: PathBuf,
    /// There were maps of ours: filtering may be going on, and counters continue.
    pub existed: bool,
    /// Bans of a table that had to be made anew.
    pub bans: Vec<(BanKey, Ban)>,
    /// Tables that must be made anew because their configured size changed, held open until their successors are in use.
    resized: Vec<(PathBuf, MapData)>,
    /// Whatever is pinned was made since.
    fresh: bool,
    kept: bool,
}

impl Adopted {
    /// Whether a table must be made anew.
    pub fn resized(&self) -> bool {
        !self.resized.is_empty()
    }

    /// What was adopted is in use: there is no way back.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Pins the tables again that were to be made anew: the policy before stays in force, and it is theirs.
    fn undo(&self) -> Result<(), SharedError> {
        for (path, map) in &self.resized {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SharedError::Io { path: path.clone(), source });
                }
                _ => {}
            }
            let failed =
                |error: aya::pin::PinError| SharedError::Io { path: path.clone(), source: io::Error::other(error) };
            map.pin(path).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if self.fresh {
            let _gone = remove_pins(&self.directory);
        } else if let Err(error) = self.undo() {
            tracing::error!("the tables before could not be put back: {error}");
        }
    }
}

/// Checks the pins in `directory` against `tables`, and takes away those that must be made anew, and those that an agent
/// left which died at a reload.
pub fn adopt(directory: &Path, tables: &Tables) -> Result<Adopted, SharedError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SharedError::Io { path, source }
    };
    fs::create_dir_all(directory).map_err(io(directory))?;
    for path in super::instance::handed_on(directory) {
        let _absent = fs::remove_file(path);
    }
    let control = directory.join("CONTROL");
    let mut adopted = Adopted {
        directory: directory.to_owned(),
        existed: control.exists(),
        bans: Vec::new(),
        resized: Vec::new(),
        fresh: false,
        kept: false,
    };
    if adopted.existed {
        let found =
            open::<Control>(&control)?.get(&0, 0).map_err(|source| SharedError::Map { name: "CONTROL", source })?;
        // An agent that died between making the maps and stamping them left a zero: nothing ran with them yet.
        if found.abi != ABI_VERSION && found.abi != 0 {
            return Err(SharedError::Abi { found: found.abi });
        }
    }
    for shape in shapes(tables) {
        let path = directory.join(shape.name);
        if !path.exists() {
            continue;
        }
        let info = MapInfo::from_pin(&path).map_err(|_| SharedError::Foreign { path: path.clone() })?;
        if info.key_size() != shape.key || info.value_size() != shape.value {
            return Err(SharedError::Foreign { path });
        }
        if info.max_entries() != shape.entries {
            let map = MapData::from_pin(&path).map_err(|_| SharedError::Foreign { path: path.clone() })?;
            if shape.name == "BANS" {
                adopted.bans = bans_of(&map)?;
            }
            fs::remove_file(&path).map_err(io(&path))?;
            adopted.resized.push((path, map));
        }
    }
    adopted.fresh = !adopted.existed;
    Ok(adopted)
}

fn open<V: aya::Pod>(path: &Path) -> Result<Array<MapData, V>, SharedError> {
    let foreign = || SharedError::Foreign { path: path.to_owned() };
    let data = MapData::from_pin(path).map_err(|_| foreign())?;
    Array::try_from(Map::from_map_data(data).map_err(|_| foreign())?).map_err(|_| foreign())
}

/// Removes our maps from `directory`, and the directory if nothing else is in it. Gives how many there were.
pub fn remove_pins(directory: &Path) -> io::Result<usize> {
    let maps = shapes(&Tables { bans: 1, buckets: 1, flows: 1 }).map(|shape| directory.join(shape.name));
    let mut removed = 0;
    for path in maps.into_iter().chain(super::instance::handed_on(directory)) {
        match fs::remove_file(path) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match fs::remove_dir(directory) {
        // What else is in it is not ours.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Err(error),
        _ => Ok(removed),
    }
}

/// Pin paths and sizes, for the loader.
pub fn pins(directory: &Path, tables: &Tables) -> Vec<(&'static str, PathBuf, u32)> {
    shapes(tables).iter().map(|shape| (shape.name, directory.join(shape.name), shape.entries)).collect()
}

/// The table of bans.
pub type BanTable = HashMap<MapData, BanKey, Ban>;

/// Handles on the shared maps.
pub struct Shared {
    pub bans: BanTable,
    /// The same table once more, and two that only the program writes, to be read whole.
    whole: [MapData; 3],
    guarded: HashMap<MapData, BanKey, u32>,
    interfaces: HashMap<MapData, u32, Interface>,
    control: Array<MapData, Control>,
    counters: PerCpuArray<MapData, Counter>,
    slot_names: Array<MapData, SlotName>,
    directory: PathBuf,
}

macro_rules! typed {
    ($directory:expr, $name:literal) => {{
        let path = $directory.join($name);
        let map = MapData::from_pin(&path).and_then(Map::from_map_data).and_then(TryInto::try_into);
        map.map_err(|source| SharedError::Map { name: $name, source })?
    }};
}

impl Shared {
    /// Opens the pins in `directory`, which the first instance made, and stamps them as ours. `seed` counts only if they are
    /// new.
    pub fn open(directory: &Path, seed: u64) -> Result<Self, SharedError> {
        let pinned = |name: &'static str| {
            MapData::from_pin(directory.join(name)).map_err(|source| SharedError::Map { name, source })
        };
        let mut shared = Self {
            bans: typed!(directory, "BANS"),
            whole: [pinned("BANS")?, pinned("BUCKETS")?, pinned("FLOWS")?],
            guarded: typed!(directory, "GUARDED"),
            interfaces: typed!(directory, "INTERFACES"),
            control: typed!(directory, "CONTROL"),
            counters: typed!(directory, "COUNTERS"),
            slot_names: typed!(directory, "SLOT_NAMES"),
            directory: directory.to_owned(),
        };
        let control = shared.control()?;
        if control.abi != ABI_VERSION {
            shared.set_control(Control { abi: ABI_VERSION, seed, ..control })?;
        }
        Ok(shared)
    }

    pub fn control(&self) -> Result<Control, SharedError> {
        self.control.get(&0, 0).map_err(|source| SharedError::Map { name: "CONTROL", source })
    }

    pub fn set_control(&mut self, control: Control) -> Result<(), SharedError> {
        self.control.set(0, control, 0).map_err(|source| SharedError::Map { name: "CONTROL", source })
    }

    /// The ring of events. Only one reader may exist.
    pub fn events(&self) -> Result<RingBuf<MapData>, SharedError> {
        Ok(typed!(self.directory, "EVENTS"))
    }

    /// Another handle on the table of bans, for a thread of its own.
    pub fn ban_table(&self) -> Result<BanTable, SharedError> {
        let [bans, ..] = &self.whole;
        let failed = |source| SharedError::Map { name: "BANS", source };
        // By descriptor, not by path: this very table, whatever is pinned now.
        let descriptor = bans.fd().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|source| SharedError::Read { name: "BANS", source })?;
        let map = MapData::from_fd(descriptor).and_then(Map::from_map_data).map_err(failed)?;
        map.try_into().map_err(failed)
    }

    /// Every counter, summed over CPUs, those included that follow from others.
    pub fn counters(&self) -> Result<Vec<Counter>, SharedError> {
        let mut sums = [Counter::default(); counter::TABLE_LEN as usize];
        for (index, sum) in (0..).zip(&mut sums) {
            let values =
                self.counters.get(&index, 0).map_err(|source| SharedError::Map { name: "COUNTERS", source })?;
            for value in values.iter() {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
        }
        counter::derive(&mut sums);
        Ok(sums.to_vec())
    }

    /// Writes down an interface. Those that are gone make room for it: some come anew under another number all the time.
    pub fn set_interface(&mut self, index: u32, mtu: u32) -> Result<(), SharedError> {
        let known: Vec<u32> = self.interfaces.keys().filter_map(Result::ok).collect();
        for gone in known.into_iter().filter(|index| nix::net::if_::if_indextoname(*index).is_err()) {
            let _gone = self.interfaces.remove(&gone);
        }
        self.interfaces
            .insert(index, Interface { mtu, padding: 0 }, 0)
            .map_err(|source| SharedError::Map { name: "INTERFACES", source })
    }

    /// Replaces the prefixes with a meaning of their own. Gives how many of them fit.
    pub fn set_guarded(&mut self, guarded: &Guarded) -> Result<usize, SharedError> {
        let failed = |source| SharedError::Map { name: "GUARDED", source };
        let entries: BTreeMap<_, _> = guarded.iter().take(GUARDED_MAX as usize).collect();
        // New ones first, so that no moment lacks one that stays; their filter before them.
        let own = guarded.iter().filter(|(_, bits)| **bits & guard::OWN != 0);
        let filter = own.fold(0, |filter, ((address, _), _)| filter | guard::filter_bit(&(*address).into()));
        let control = self.control()?;
        self.set_control(Control { own_filter: control.own_filter | filter, ..control })?;
        let stale: Vec<BanKey> = self.guarded.keys().filter_map(Result::ok).collect();
        for (prefix, bits) in &entries {
            self.guarded.insert(addresses::key(prefix), *bits, 0).map_err(failed)?;
        }
        let current: Vec<BanKey> = entries.keys().map(|prefix| addresses::key(prefix)).collect();
        for key in stale.iter().filter(|key| !current.contains(key)) {
            self.guarded.remove(key).map_err(failed)?;
        }
        self.set_control(Control { own_filter: filter, ..control })?;
        Ok(entries.len())
    }

    pub fn slots(&self) -> Result<Slots, SharedError> {
        read_slots(&self.slot_names)
    }

    /// Writes the names that changed from `before` to `after`; a slot that changes hands starts at zero.
    pub fn set_slots(&mut self, before: &Slots, after: &Slots) -> Result<(), SharedError> {
        let zero = vec![
            Counter::default();
            aya::util::nr_cpus().map_err(|(path, source)| SharedError::Io { path: path.into(), source })?
        ];
        for (name, slot) in after.iter().filter(|(name, slot)| before.get(name) != Some(*slot)) {
            let values = PerCpuValues::try_from(zero.clone())
                .map_err(|source| SharedError::Io { path: self.directory.join("COUNTERS"), source })?;
            self.counters
                .set(counter::RULES + u32::from(slot), values, 0)
                .map_err(|source| SharedError::Map { name: "COUNTERS", source })?;
            self.set_slot_name(slot, SlotName::new(name).unwrap_or(SlotName::FREE))?;
        }
        for (_, slot) in before.iter().filter(|(name, slot)| after.get(name) != Some(*slot)) {
            if after.name_of(slot).is_none() {
                self.set_slot_name(slot, SlotName::FREE)?;
            }
        }
        Ok(())
    }

    fn set_slot_name(&mut self, slot: u16, name: SlotName) -> Result<(), SharedError> {
        self.slot_names.set(u32::from(slot), name, 0).map_err(|source| SharedError::Map { name: "SLOT_NAMES", source })
    }

    /// The slots in the pins of `directory`. None if an agent died before it had made their table.
    pub fn slots_at(directory: &Path) -> Result<Slots, SharedError> {
        if !directory.join("SLOT_NAMES").exists() {
            return Ok(Slots::default());
        }
        read_slots(&typed!(directory, "SLOT_NAMES"))
    }

    /// The last generation that went live with the pins of `directory`.
    pub fn generation_at(directory: &Path) -> Result<u32, SharedError> {
        let control: Array<MapData, Control> = typed!(directory, "CONTROL");
        Ok(control.get(&0, 0).map_err(|source| SharedError::Map { name: "CONTROL", source })?.generation)
    }

    /// Every ban, expired ones included. A ban set meanwhile may or may not be among them.
    pub fn all_bans(&self) -> Result<Vec<(BanKey, Ban)>, SharedError> {
        let [bans, ..] = &self.whole;
        bans_of(bans)
    }

    /// Bans that are not over yet at `now`.
    pub fn bans_in_force(&self, now: u64) -> Result<usize, SharedError> {
        let [bans, ..] = &self.whole;
        let mut in_force = 0;
        read_whole("BANS", bans, |_: &[BanKey], bans: &[Ban]| {
            in_force += bans.iter().filter(|ban| ban.until > now).count();
        })?;
        Ok(in_force)
    }

    /// Rate buckets that are not full again yet at `now`, memories of proven sources among them.
    pub fn buckets_in_use(&self, now: u64) -> Result<usize, SharedError> {
        let [_, buckets, _] = &self.whole;
        let mut in_use = 0;
        read_whole("BUCKETS", buckets, |_: &[u32], sets: &[BucketSet]| {
            in_use += sets.iter().flat_map(|set| set.tats).filter(|tat| *tat > now).count();
        })?;
        Ok(in_use)
    }

    /// Flows in the table, those that are over included.
    pub fn flows(&self) -> Result<usize, SharedError> {
        let [.., flows] = &self.whole;
        let mut entries = 0;
        read_whole("FLOWS", flows, |keys: &[FlowKey], _: &[u64]| entries += keys.len())?;
        Ok(entries)
    }
}

fn bans_of(map: &MapData) -> Result<Vec<(BanKey, Ban)>, SharedError> {
    let mut bans = Vec::new();
    read_whole("BANS", map, |keys: &[BanKey], values: &[Ban]| {
        bans.extend(keys.iter().copied().zip(values.iter().copied()));
    })?;
    Ok(bans)
}

fn read_whole<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    map: &MapData,
    visit: impl FnMut(&[K], &[V]),
) -> Result<(), SharedError> {
    syscall::lookup_batch(map.fd().as_fd(), visit).map_err(|source| SharedError::Read { name, source })
}

fn read_slots(map: &Array<MapData, SlotName>) -> Result<Slots, SharedError> {
    let names: Vec<SlotName> = (0..u32::from(counter::MAX_RULES))
        .map(|slot| map.get(&slot, 0))
        .collect::<Result<_, _>>()
        .map_err(|source| SharedError::Map { name: "SLOT_NAMES", source })?;
    Ok(Slots::from_names(names.iter().map(SlotName::as_str)))
}

/// Writes entries of a longest-prefix-match table, array and the like at once.
pub(super) fn fill<K: aya::Pod, V: aya::Pod>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    syscall::update_batch(map.fd().as_fd(), keys, values)
}

/// Size of an event record, for those who read the ring.
pub const EVENT_SIZE: usize = size_of::<Event>();
