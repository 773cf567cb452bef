//! One loaded instance of the program: one policy. Its tables are filled before anything points to it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Map, MapData},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use firewall_common::{
    address::{Addr, V4_OFFSET},
    prefix::ListEntry,
};

use super::{compile::Compiled, prefixes::Entry, shared};
use crate::config::Tables;

/// The program, as built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portcullis-ebpf"));

/// A loaded instance. Dropping it unloads it, unless a link holds it.
#[derive(Debug)]
pub struct Instance {
    ebpf: Ebpf,
    /// What its list tables were made of.
    lists_v4: Vec<Entry>,
    lists_v6: Vec<Entry>,
}

#[derive(Debug)]
pub enum InstanceError {
    /// The kernel refused the object.
    Load(aya::EbpfError),
    /// The verifier refused a program, or the kernel has no such program type.
    Program { name: &'static str, source: ProgramError },
    /// A table could not be filled.
    Fill { name: &'static str, source: io::Error },
}

impl std::fmt::Display for InstanceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Load(source) => write!(f, "the kernel did not take the program's maps: {}", chain(source)),
            Self::Program { name, source } => write!(f, "the kernel refused program {name}: {}", chain(source)),
            Self::Fill { name, source } => write!(f, "table {name} could not be filled: {source}"),
        }
    }
}

/// An error with its causes, which aya keeps apart.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

impl std::error::Error for InstanceError {}

/// Key of an IPv4 table: prefix length, address in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
struct KeyV4(u32, u32);
// SAFETY: two words, no padding.
unsafe impl Pod for KeyV4 {}

#[repr(C)]
#[derive(Clone, Copy)]
struct KeyV6(u32, Addr);
// SAFETY: five words, no padding.
unsafe impl Pod for KeyV6 {}

impl Instance {
    /// Loads an instance with this policy. `previous` hands its list tables on if the lists are the same.
    pub fn load(
        compiled: &Compiled,
        directory: &Path,
        tables: &Tables,
        previous: Option<&Self>,
    ) -> Result<Self, InstanceError> {
        let handed_on = HandedOn::new(directory, compiled, previous);
        let pins = shared::pins(directory, tables);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("POLICY", &compiled.policy, true)
            .map_max_entries("LISTS_V4", (compiled.lists_v4.len() as u32).max(1))
            .map_max_entries("LISTS_V6", (compiled.lists_v6.len() as u32).max(1));
        for (name, path, entries) in &pins {
            loader.map_max_entries(name, *entries).map_pin_path(name, path.as_path());
        }
        for (name, path) in &handed_on.pins {
            loader.map_pin_path(name, path.as_path());
        }
        let ebpf = loader.load(OBJECT).map_err(InstanceError::Load)?;
        let mut instance = Self { ebpf, lists_v4: compiled.lists_v4.clone(), lists_v6: compiled.lists_v6.clone() };
        instance.fill(compiled, &handed_on)?;
        drop(handed_on);
        let refused = |name| move |source| InstanceError::Program { name, source };
        instance.xdp().load().map_err(refused("portcullis_dmz"))?;
        instance.egress().load().map_err(refused("portcullis_egress"))?;
        Ok(instance)
    }

    pub fn xdp(&mut self) -> &mut Xdp {
        self.ebpf
            .program_mut("portcullis_dmz")
            .and_then(|program| program.try_into().ok())
            .expect("the object we built holds this program")
    }

    pub fn egress(&mut self) -> &mut SchedClassifier {
        self.ebpf
            .program_mut("portcullis_egress")
            .and_then(|program| program.try_into().ok())
            .expect("the object we built holds this program")
    }

    /// Id of the loaded XDP program.
    pub fn program_id(&mut self) -> Option<u32> {
        self.xdp().info().ok().map(|info| info.id())
    }

    /// Entries in the list tables, IPv4 and IPv6.
    pub fn list_entries(&self) -> (usize, usize) {
        (self.lists_v4.len(), self.lists_v6.len())
    }

    /// The object, for traces of aya-log.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn fill(&mut self, compiled: &Compiled, handed_on: &HandedOn) -> Result<(), InstanceError> {
        if !handed_on.has("LISTS_V4") {
            let keys: Vec<KeyV4> = compiled
                .lists_v4
                .iter()
                .map(|(address, length, _)| KeyV4(u32::from(length - V4_OFFSET), address.v4_word()))
                .collect();
            self.fill_one("LISTS_V4", &keys, &says(&compiled.lists_v4))?;
        }
        if !handed_on.has("LISTS_V6") {
            let keys: Vec<KeyV6> =
                compiled.lists_v6.iter().map(|(address, length, _)| KeyV6(u32::from(*length), *address)).collect();
            self.fill_one("LISTS_V6", &keys, &says(&compiled.lists_v6))?;
        }
        self.fill_array("PORTS", &compiled.ports)?;
        self.fill_array("SIZES", &compiled.sizes)?;
        self.fill_array("RATES", &compiled.rates)
    }

    fn fill_array<V: Pod>(&self, name: &'static str, values: &[V]) -> Result<(), InstanceError> {
        let keys: Vec<u32> = (0..values.len() as u32).collect();
        self.fill_one(name, &keys, values)
    }

    fn fill_one<K: Pod, V: Pod>(&self, name: &'static str, keys: &[K], values: &[V]) -> Result<(), InstanceError> {
        let missing = || InstanceError::Fill { name, source: io::ErrorKind::NotFound.into() };
        let data = self.ebpf.map(name).and_then(data).ok_or_else(missing)?;
        shared::fill(data, keys, values).map_err(|source| InstanceError::Fill { name, source })
    }
}

fn says(entries: &[Entry]) -> Vec<ListEntry> {
    entries.iter().map(|(_, _, says)| *says).collect()
}

/// The map behind the kinds that an instance owns.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::LpmTrie(data) => Some(data),
        _ => None,
    }
}

/// Where list tables are pinned while they are handed on.
pub(super) fn handed_on(directory: &Path) -> [PathBuf; 2] {
    ["LISTS_V4", "LISTS_V6"].map(|name| handed_on_path(directory, name))
}

fn handed_on_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("handed_on_{name}"))
}

/// List tables of the outgoing instance, pinned for the moment that the loader takes to find them.
struct HandedOn {
    pins: Vec<(&'static str, PathBuf)>,
}

impl HandedOn {
    fn new(directory: &Path, compiled: &Compiled, previous: Option<&Instance>) -> Self {
        let mut pins = Vec::new();
        if let Some(previous) = previous {
            let same = [
                ("LISTS_V4", previous.lists_v4 == compiled.lists_v4),
                ("LISTS_V6", previous.lists_v6 == compiled.lists_v6),
            ];
            for (name, _) in same.into_iter().filter(|(_, same)| *same) {
                let path = handed_on_path(directory, name);
                // Without the pin the table is filled anew: slower, not wrong.
                if previous.ebpf.map(name).and_then(data).is_some_and(|data| data.pin(&path).is_ok()) {
                    pins.push((name, path));
                }
            }
        }
        Self { pins }
    }

    fn has(&self, name: &str) -> bool {
        self.pins.iter().any(|(pinned, _)| *pinned == name)
    }
}

impl Drop for HandedOn {
    fn drop(&mut self) {
        for (_, path) in &self.pins {
            let _gone = fs::remove_file(path);
        }
    }
}
