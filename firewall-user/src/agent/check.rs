//! `portcullis check`: says what is wrong with a configuration, what it would do, and what it needs. Touches nothing.

mod apis;

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use firewall_common::address::V4_OFFSET;
use serde::Serialize;

use super::lockout;
use crate::{
    cli::{BAD_INPUT, CheckArgs, show},
    config::{self, Config, ListAction, Overrides, XdpMode, prefix_key},
    dmz::{compile::compile, shared, slots::Slots},
    host::{interface::Interface, session},
    paths::Paths,
};

/// What a configuration amounts to.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub ok: bool,
    pub errors: Vec<config::Problem>,
    pub warnings: Vec<String>,
    /// Bytes of kernel memory the policy takes, roughly.
    pub kernel_memory: Option<u64>,
    pub interfaces: Vec<String>,
    pub prefixes: usize,
    pub rates: usize,
    /// What becomes of each API, in one line.
    pub apis: Vec<String>,
}

pub fn check(_paths: &Paths, args: CheckArgs) -> Result<ExitCode> {
    let (checked, report) = judge(&args.source.config(), &args.source.overrides());
    if !checked.ok && !args.output.json {
        eprint!("{report}");
    } else {
        show(args.output.json, &checked, print)?;
    }
    Ok(if checked.ok { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) })
}

fn print(out: &mut dyn Write, checked: &Checked) -> io::Result<()> {
    for warning in &checked.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for api in &checked.apis {
        writeln!(out, "{api}")?;
    }
    let memory = checked.kernel_memory.unwrap_or(0).div_ceil(1 << 20);
    writeln!(
        out,
        "the configuration is good: {} prefixes, {} rates, on {}; it takes about {memory} MiB of kernel memory",
        checked.prefixes,
        checked.rates,
        checked.interfaces.join(", ")
    )
}

/// The result, and the report of errors for a person to read.
fn judge(path: &Path, overrides: &Overrides) -> (Checked, String) {
    match config::load(path, overrides) {
        Ok(config) => (accepted(&config), String::new()),
        Err(errors) => {
            let report = errors.to_string();
            let checked = Checked {
                ok: false,
                errors: errors.problems().to_vec(),
                warnings: Vec::new(),
                kernel_memory: None,
                interfaces: Vec::new(),
                prefixes: 0,
                rates: 0,
                apis: Vec::new(),
            };
            (checked, report)
        }
    }
}

fn accepted(config: &Config) -> Checked {
    let mut warnings: Vec<String> = config.interfaces.iter().filter_map(|name| about_interface(config, name)).collect();
    warnings.extend(config.control_group.as_deref().and_then(about_group));
    if let Some(session) = session::current() {
        warnings.extend(lockout::would_drop(config, &session));
    }
    warnings.extend(shadowed(config));
    warnings.extend(apis::warnings(config));
    warnings.extend(apis::silent(config));
    Checked {
        ok: true,
        errors: Vec::new(),
        warnings,
        kernel_memory: Some(memory(config)),
        interfaces: config.interfaces.clone(),
        prefixes: config.dmz.lists.iter().map(|list| list.prefixes.len()).sum(),
        rates: config.dmz.rates.len(),
        apis: config.apis.iter().map(apis::summary).collect(),
    }
}

fn about_interface(config: &Config, name: &str) -> Option<String> {
    match Interface::find(name) {
        Err(error) => Some(format!("interface `{name}` cannot be asked: {error}")),
        Ok(None) => Some(format!("there is no interface `{name}` now")),
        Ok(Some(interface)) if !interface.is_ethernet() => {
            Some(format!("{name} is no Ethernet interface (hardware type {}): `run` refuses it", interface.hardware))
        }
        Ok(Some(_)) if config.xdp_mode == XdpMode::Generic => {
            Some(format!("{name}: in generic mode GRO and LRO are switched off while Portcullis runs"))
        }
        Ok(Some(_)) => None,
    }
}

fn about_group(name: &str) -> Option<String> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("there is no group `{name}`, which [control] names: `run` refuses it")),
        Err(error) => Some(format!("group `{name}` cannot be asked for: {error}")),
    }
}

/// Block lists with entries that are allowed anyway.
fn shadowed(config: &Config) -> Vec<String> {
    let mut allowed = HashMap::new();
    for list in config.dmz.lists.iter().filter(|list| list.action == ListAction::Allow) {
        allowed.extend(list.prefixes.iter().map(|prefix| (prefix_key(prefix), &list.name)));
    }
    let lengths: BTreeSet<u8> = allowed.keys().map(|(_, length)| *length).collect();
    let covered = |prefix: &ipnet::IpNet| {
        let (address, length) = prefix_key(prefix);
        let shortest = if address.is_v4() { V4_OFFSET } else { 0 };
        lengths.range(shortest..=length).find_map(|outer| allowed.get(&(address.masked(*outer), *outer)))
    };
    config
        .dmz
        .lists
        .iter()
        .filter(|list| list.action == ListAction::Block)
        .filter_map(|list| {
            let (prefix, by) = list.prefixes.iter().find_map(|prefix| Some((prefix, covered(prefix)?)))?;
            Some(format!("block list `{}`: {prefix} never matches, the allow list `{by}` covers it", list.name))
        })
        .collect()
}

fn memory(config: &Config) -> u64 {
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    let lists = compile(config, &Slots::default()).map_or(0, |compiled| {
        // A node of the kernel's trie: header, prefix, value, and the inner nodes between.
        let (v4, v6) = (compiled.lists_v4.len() as u64, compiled.lists_v6.len() as u64);
        2 * (v4 * 64 + v6 * 96)
    });
    let ports = u64::from(firewall_common::port::TABLE_LEN) * 8;
    shared::memory(&config.dmz.tables, cpus) + lists + ports
}
