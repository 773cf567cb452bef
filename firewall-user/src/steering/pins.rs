//! What of steering is pinned, and so outlives the agent: a directory `steer-INODE` for each network namespace, with the
//! maps and the link.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    EbpfLoader,
    maps::{MapData, MapInfo, MapType},
    programs::{SkLookup, links::FdLink},
};
use firewall_common::{
    ABI_VERSION,
    steer::{MAX_OWN, MAX_PORTS, OwnEntry, OwnKey, SteerControl, SteerCounts},
};

use super::{SteerError, control::Control, netns::Netns};
use crate::dmz::syscall::{detach_pinned, place_of_pinned, update_pinned};

/// The program, as built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis-steer"));

const LINK: &str = "link";
const PREFIX: &str = "steer-";

/// What a map must look like.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: u32,
    value: u32,
    entries: u32,
}

const fn shape<K, V>(name: &'static str, kind: MapType, entries: u32) -> Shape {
    Shape { name, kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries }
}

const SHAPES: [Shape; 5] = [
    shape::<u32, u32>("PORTS", MapType::Hash, MAX_PORTS),
    shape::<u32, u64>("LISTENER", MapType::SockMap, 1),
    shape::<u32, SteerControl>("CONTROL", MapType::Array, 1),
    shape::<OwnKey, OwnEntry>("OWN", MapType::LruHash, MAX_OWN),
    shape::<u32, SteerCounts>("COUNTS", MapType::PerCpuHash, MAX_PORTS),
];

/// Kernel memory that steering takes for each namespace, in bytes, roughly.
pub fn memory(cpus: u64) -> u64 {
    let hash_overhead = 64;
    let entry = |shape: &Shape| u64::from(shape.key + shape.value) + hash_overhead;
    let whole = |shape: &Shape| match shape.kind {
        MapType::PerCpuHash => u64::from(shape.entries) * (u64::from(shape.value) * cpus + hash_overhead),
        _ => u64::from(shape.entries) * entry(shape),
    };
    SHAPES.iter().map(whole).sum()
}

/// The maps of one namespace.
pub(super) struct Maps {
    pub(super) ports: MapData,
    pub(super) listener: MapData,
    pub(super) own: MapData,
    pub(super) counts: MapData,
    pub(super) control: Control,
}

/// Puts the program of this agent in force in `netns`, with the maps that are pinned, made where there are none. Gives the
/// directory with them. A link that is there changes its program, and lets no connection go by meanwhile.
pub(super) fn open(pins: &Path, netns: &Netns) -> Result<(PathBuf, Maps), SteerError> {
    sweep(pins);
    let directory = directory(pins, netns.inode());
    fs::create_dir_all(&directory).map_err(|source| SteerError::Pin { path: directory.clone(), source })?;
    check(&directory)?;

    let mut loader = EbpfLoader::new();
    let paths: Vec<(&str, PathBuf)> = SHAPES.iter().map(|shape| (shape.name, directory.join(shape.name))).collect();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader.load(OBJECT).map_err(SteerError::Load)?;
    let program: &mut SkLookup = ebpf
        .program_mut("portcullis_steer")
        .and_then(|program| program.try_into().ok())
        .expect("the object we built holds this program");
    program.load().map_err(SteerError::Program)?;
    let map = |name: &'static str| pinned(&directory, name);
    let control = map("CONTROL")?;
    let control = Control::of(&control).map_err(|source| SteerError::Map { name: "CONTROL", source })?;
    control.stamp();
    let maps =
        Maps { ports: map("PORTS")?, listener: map("LISTENER")?, own: map("OWN")?, counts: map("COUNTS")?, control };
    attach(&directory.join(LINK), program, netns)?;
    Ok((directory, maps))
}

/// Whether what is pinned in `directory` is of this version and ours.
fn check(directory: &Path) -> Result<(), SteerError> {
    for shape in &SHAPES {
        let path = directory.join(shape.name);
        if !path.exists() {
            continue;
        }
        let Ok(info) = MapInfo::from_pin(&path) else { return Err(SteerError::Foreign { path }) };
        // The version comes first: another one may have other shapes.
        if shape.name != "CONTROL" && directory.join("CONTROL").exists() {
            let found = Control::of(&pinned(directory, "CONTROL")?).map(|control| control.abi()).unwrap_or(0);
            // An agent that died between making the maps and stamping them left a zero: nothing ran with them yet.
            if found != ABI_VERSION && found != 0 {
                return Err(SteerError::Abi { found });
            }
        }
        if info.map_type().ok() != Some(shape.kind)
            || info.key_size() != shape.key
            || info.value_size() != shape.value
            || info.max_entries() != shape.entries
        {
            return Err(SteerError::Foreign { path });
        }
    }
    Ok(())
}

fn pinned(directory: &Path, name: &str) -> Result<MapData, SteerError> {
    let path = directory.join(name);
    MapData::from_pin(&path).map_err(|_| SteerError::Foreign { path })
}

fn attach(path: &Path, program: &mut SkLookup, netns: &Netns) -> Result<(), SteerError> {
    let update = |source| SteerError::Update { path: path.to_owned(), source };
    if place_of_pinned(path).is_some_and(|place| place.interface == netns.inode()) {
        let program = program.fd().map_err(SteerError::Program)?;
        return update_pinned(path, program.as_fd()).map_err(update);
    }
    // What is left of a namespace before, which had this number.
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(update(source)),
        _ => {}
    }
    let link = program.attach(netns).and_then(|id| program.take_link(id)).map_err(SteerError::Program)?;
    let pin = |error| SteerError::Pin { path: path.to_owned(), source: io::Error::other(error) };
    // Its last descriptor may go: the pin holds it.
    FdLink::from(link).pin(path).map(drop).map_err(pin)
}

/// Ends steering in the namespace that these pins are of.
pub(super) fn remove_one(directory: &Path) -> io::Result<()> {
    // The link goes first: from then on applications answer. One whose namespace is gone is detached already.
    let link = directory.join(LINK);
    let _gone = detach_pinned(&link);
    for path in [link].into_iter().chain(SHAPES.iter().map(|shape| directory.join(shape.name))) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(directory) {
        // What else is in it is not ours.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Err(error),
        _ => Ok(()),
    }
}

/// Ends steering in every namespace whose pins are in `pins`, the directory of an instance. Gives how many there were.
pub fn remove_all(pins: &Path) -> io::Result<usize> {
    let directories = directories(pins);
    for directory in &directories {
        remove_one(directory)?;
    }
    Ok(directories.len())
}

/// Ends steering in every namespace whose pins are in `pins` but these, told by their inodes.
pub fn remove_others(pins: &Path, keep: &[u32]) -> io::Result<()> {
    let kept: Vec<PathBuf> = keep.iter().map(|inode| directory(pins, *inode)).collect();
    directories(pins)
        .iter()
        .filter(|directory| !kept.contains(directory))
        .try_for_each(|directory| remove_one(directory))
}

/// Where the pins of a namespace are.
fn directory(pins: &Path, inode: u32) -> PathBuf {
    pins.join(format!("{PREFIX}{inode}"))
}

/// Removes what is left of namespaces that are gone.
fn sweep(pins: &Path) {
    for directory in directories(pins) {
        if place_of_pinned(&directory.join(LINK)).is_some_and(|place| place.interface == 0)
            && let Err(error) = remove_one(&directory)
        {
            tracing::warn!("{}: {error}", directory.display());
        }
    }
}

fn directories(pins: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(pins) else { return Vec::new() };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(PREFIX)).is_some_and(|inode| inode.parse::<u32>().is_ok())
    };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_ours).collect()
}
