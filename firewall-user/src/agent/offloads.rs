//! Offloads that hide packets from the DMZ layer: switched off where it runs, and back on where it was taken away.

use std::{collections::BTreeMap, fs, os::unix::fs::DirBuilderExt as _};

use crate::{
    host::interface::{Interface, Offload, OffloadError},
    paths::Paths,
};

/// Which offloads were on before us: interface name → names of offloads.
type Found = BTreeMap<String, Vec<String>>;

/// Switches off what merges packets before a generic-mode program sees them. On a link whose other end is a virtual one,
/// merged packets may still come: the program counts those as the segments they were on the wire.
pub(super) fn no_merging(paths: &Paths, interface: &Interface) -> Result<(), OffloadError> {
    switch_off(paths, interface, Offload::GenericReceive)?;
    // Cards without it refuse to be asked.
    let _none = switch_off(paths, interface, Offload::LargeReceive);
    Ok(())
}

/// Switches off what takes VLAN tags out of frames.
pub(super) fn no_vlan_stripping(paths: &Paths, interface: &Interface) -> Result<(), OffloadError> {
    switch_off(paths, interface, Offload::VlanStripping)
}

fn switch_off(paths: &Paths, interface: &Interface, offload: Offload) -> Result<(), OffloadError> {
    if interface.set_offload(offload, false)? {
        let mut found = read(paths);
        let offloads = found.entry(interface.name.clone()).or_default();
        if !offloads.iter().any(|name| name == offload.name()) {
            offloads.push(offload.name().to_owned());
        }
        write(paths, &found);
    }
    Ok(())
}

/// Switches on again what was on before us, except on the interfaces with these indices, where we still are.
pub(super) fn restore(paths: &Paths, guarded: &[u32]) -> Vec<OffloadError> {
    let mut errors = Vec::new();
    let mut kept = Found::new();
    for (name, offloads) in read(paths) {
        let Ok(Some(interface)) = Interface::find(&name) else { continue };
        if guarded.contains(&interface.index) {
            kept.insert(name, offloads);
            continue;
        }
        let known = [Offload::GenericReceive, Offload::LargeReceive, Offload::VlanStripping];
        for offload in known.into_iter().filter(|offload| offloads.iter().any(|name| name == offload.name())) {
            errors.extend(interface.set_offload(offload, true).err());
        }
    }
    write(paths, &kept);
    errors
}

fn read(paths: &Paths) -> Found {
    fs::read(paths.offloads()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Not written, the offloads stay off for good: slower, not less safe.
fn write(paths: &Paths, found: &Found) {
    if found.is_empty() {
        let _none = fs::remove_file(paths.offloads());
    } else if let Ok(text) = serde_json::to_vec(found) {
        let partial = paths.offloads().with_extension("partial");
        let _written = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(paths.state())
            .and_then(|()| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, paths.offloads()));
    }
}
