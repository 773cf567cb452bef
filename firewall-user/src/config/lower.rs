//! From the document to [`Config`]: the top level, and those parts of `[dmz]` that have no file of their own.
//!
//! In: the document's root table. Out: a configuration. What is wrong is written down on the way and replaced by a
//! default, so the configuration counts only if nothing was written down.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    Config, Dmz, EventFile, Events, Exposure, Hygiene, MODES, Mode, OnAgentExit, Overrides, Quic, Services, Tables,
    XdpMode, api, list, rate,
    raw::{Table, Value},
    report::{Invalid, Problem, Source, quoted},
    size,
};

/// UDP source ports of reflection and amplification attacks: those of CISA alert TA14-017A with a fixed port below the
/// range that clients take their own from, and some found since.
const REFLECTION_PORTS: &[u16] = &[
    17,     // quote of the day
    19,     // character generator
    53,     // DNS
    69,     // TFTP
    111,    // portmapper
    123,    // NTP
    137,    // NetBIOS name service
    161,    // SNMP
    389,    // connectionless LDAP
    427,    // service location (SLP)
    520,    // RIP version 1
    1434,   // Microsoft SQL resolution
    1900,   // SSDP
    3283,   // Apple remote desktop
    3702,   // WS-Discovery
    5351,   // NAT port mapping
    5353,   // multicast DNS
    5683,   // CoAP
    10_001, // Ubiquiti discovery
    11_211, // memcached
];

/// `files` holds the configuration's own path and gets those of all files it names.
pub(super) fn lower(root: Table<'_>, folder: &Path, mut files: Vec<PathBuf>, overrides: &Overrides) -> Config {
    let interfaces = interfaces(&root, overrides);
    let xdp_mode = root.choice(
        "xdp_mode",
        &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
        XdpMode::Auto,
    );
    let on_agent_exit = root.choice(
        "on_agent_exit",
        &[("keep", OnAgentExit::Keep), ("detach", OnAgentExit::Detach)],
        OnAgentExit::Keep,
    );
    let dmz = dmz(root.table("dmz"), folder, &mut files);
    let metrics = metrics(root.table("metrics"));
    let apis = api::lower(&root, folder, &mut files, metrics.as_ref());
    let gateway = api::gateway(root.table("gateway"));
    let reputation = api::reputation(root.table("reputation"));
    let events = events(root.table("events"), folder, &files);
    let control_group = control_group(root.table("control"));
    root.finish();
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    let read_at = std::time::SystemTime::now();
    let metrics = metrics.map(|(address, _)| address);
    Config {
        files,
        read_at,
        interfaces,
        xdp_mode,
        on_agent_exit,
        dmz,
        events,
        metrics,
        control_group,
        apis,
        gateway,
        reputation,
    }
}

/// Names of one kind of thing, each unique.
pub(super) struct Names {
    kind: &'static str,
    seen: HashMap<String, Range<usize>>,
}

impl Names {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, seen: HashMap::new() }
    }

    /// The name of the thing that `table` describes.
    pub(super) fn take(&mut self, table: &Table<'_>) -> Option<String> {
        let kind = self.kind;
        let value = table.require("name", &format!("counters and events call the {kind} by its name"))?;
        let name = value.parsed(|text| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
                return Ok(text.to_owned());
            }
            let help = "1 to 64 letters, digits, `-`, `_` and `.`";
            Err(Invalid::new(format!("{} cannot be a name", quoted(text))).help(help))
        })?;
        if let Some(earlier) = self.seen.get(&name) {
            let message = format!("two {kind}s have the name `{name}`");
            value.clash(message, earlier.clone(), "the first", "give one of them another name");
        } else {
            self.seen.insert(name.clone(), value.span);
        }
        Some(name)
    }
}

/// Services by their words, each once.
pub(super) fn services(items: Vec<Value<'_>>) -> Vec<Services> {
    let mut seen = HashSet::new();
    items.into_iter().filter_map(|item| item.parsed(str::parse)).filter(|word| seen.insert(*word)).collect()
}

/// A path; a relative one starts at `folder`.
pub(super) fn folder_path(value: &Value<'_>, folder: &Path) -> Option<PathBuf> {
    let text = value.text()?;
    if text.is_empty() || text.contains('\0') {
        value.problem("this is no path", None);
        return None;
    }
    Some(folder.join(text))
}

fn interfaces(root: &Table<'_>, overrides: &Overrides) -> Vec<String> {
    let value = if overrides.interfaces.is_empty() {
        root.require("interfaces", "name the network interfaces to guard: `interfaces = [\"eth0\"]`")
    } else {
        root.get("interfaces")
    };
    let mut written: Vec<String> = Vec::new();
    let mut places: HashMap<String, Range<usize>> = HashMap::new();
    let items = value.as_ref().and_then(|value| value.clone().items());
    if let (Some(value), Some([])) = (&value, items.as_deref()) {
        value.problem("`interfaces` is empty", "name at least one, such as `\"eth0\"`".to_owned());
    }
    for item in items.unwrap_or_default() {
        let Some(name) = item.parsed(interface) else { continue };
        match places.get(&name) {
            Some(place) => {
                item.clash(format!("`{name}` is named twice"), place.clone(), "here already", "remove one of the two");
            }
            None => {
                places.insert(name.clone(), item.span);
                written.push(name);
            }
        }
    }
    if overrides.interfaces.is_empty() {
        return written;
    }
    let mut interfaces: Vec<String> = Vec::new();
    for name in &overrides.interfaces {
        let checked = interface(name).and_then(|name| match interfaces.contains(&name) {
            true => Err(Invalid::new(format!("`{name}` is named twice"))),
            false => Ok(name),
        });
        match checked {
            Ok(name) => interfaces.push(name),
            Err(invalid) => {
                let source = Source::new("--interface", name);
                root.context.push(|| Problem::from_invalid(&source, 0..name.len(), invalid));
            }
        }
    }
    interfaces
}

/// The kernel's own rule, `dev_valid_name`.
fn interface(name: &str) -> Result<String, Invalid> {
    let odd = |char: char| char == '/' || char == ':' || char == '\0' || char.is_whitespace();
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd) {
        return Ok(name.to_owned());
    }
    let help = "1 to 15 bytes without `/`, `:` or white space; `ip link` shows the names";
    Err(Invalid::new(format!("{} cannot be a network interface", quoted(name))).help(help))
}

fn dmz(table: Table<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Dmz {
    let mode = table.choice("mode", MODES, Mode::Enforce);
    let expose_mode_value = table.get("expose_mode");
    let expose_mode = expose_mode_value.as_ref().and_then(|value| value.choice(MODES)).unwrap_or(Mode::Enforce);
    let expose = table.get("expose");
    if let (None, Some(value)) = (&expose, expose_mode_value) {
        value.problem("`expose_mode` without `expose` means nothing", "add `expose`, or remove it".to_owned());
    }
    let exposure =
        expose.map(|value| Exposure { mode: expose_mode, services: services(value.items().unwrap_or_default()) });
    let quic = table.choice("quic", &[("drop", Quic::Drop), ("pass", Quic::Pass)], Quic::Drop);
    let lists = list::lower(&table, folder, files);
    let hygiene = hygiene(table.table("hygiene"));
    let size = size::lower(&table);
    let rates = rate::lower(&table);
    let tables = tables(table.table("tables"));
    table.finish();
    Dmz { mode, exposure, quic, lists, hygiene, size, rates, tables }
}

fn hygiene(table: Table<'_>) -> Hygiene {
    let reflection_ports = match table.get("reflection_ports") {
        None => REFLECTION_PORTS.to_vec(),
        Some(value) => {
            let items = value.items().unwrap_or_default();
            let numbers = items.iter().filter_map(|item| u16::try_from(item.integer(1..=65_535)?).ok());
            let mut ports: Vec<u16> = numbers.collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        }
    };
    let hygiene = Hygiene {
        mode: table.choice("mode", MODES, Mode::Enforce),
        tcp_flags: table.switch("tcp_flags", true),
        port_zero: table.switch("port_zero", true),
        land: table.switch("land", true),
        bogons: table.switch("bogons", true),
        own_source: table.switch("own_source", true),
        private_sources: table.switch("private_sources", false),
        link_local_sources: table.switch("link_local_sources", false),
        fragments: table.switch("fragments", false),
        reflection: table.switch("reflection", true),
        reflection_ports,
    };
    table.finish();
    hygiene
}

fn tables(table: Table<'_>) -> Tables {
    const MOST: i64 = 1 << 24;
    let buckets = table.get("buckets");
    let number =
        buckets.as_ref().and_then(|value| value.integer(1024..=MOST)).and_then(|number| u32::try_from(number).ok());
    if let (Some(value), Some(number)) = (buckets, number)
        && !number.is_power_of_two()
    {
        let (above, below) = (number.next_power_of_two(), number.next_power_of_two() / 2);
        value.problem("`buckets` must be a power of two", format!("{below} or {above}"));
    }
    let tables = Tables {
        bans: table.integer("bans", 1..=MOST, 65_536),
        buckets: number.unwrap_or(131_072),
        flows: table.integer("flows", 1..=MOST, 131_072),
    };
    table.finish();
    tables
}

/// `files` are those that the configuration is read from.
fn events(table: Table<'_>, folder: &Path, files: &[PathBuf]) -> Events {
    let (stdout, journald) = (table.switch("stdout", true), table.switch("journald", false));
    let place = table.get("file");
    let file = place.clone().and_then(|value| event_file(value, folder));
    if let (Some(place), Some(file)) = (place, &file)
        && std::path::absolute(&file.path).is_ok_and(|path| files.contains(&path))
    {
        place.problem(
            "events would be written into a file that is read here",
            "give them a file of their own".to_owned(),
        );
    }
    table.finish();
    Events { stdout, journald, file }
}

/// A path alone, or a table with a path.
fn event_file(value: Value<'_>, folder: &Path) -> Option<EventFile> {
    const MAX_SIZE: u64 = 64 << 20;
    const KEEP: u32 = 5;
    if !value.is_table() {
        return Some(EventFile { path: folder_path(&value, folder)?, max_size: MAX_SIZE, keep: KEEP });
    }
    let table = value.table()?;
    let path = table.require("path", "`path = \"events.jsonl\"`").and_then(|value| folder_path(&value, folder));
    let max_size = size::bytes(&table, "max_size", 4096..=1 << 40).map_or(MAX_SIZE, |(size, _)| size);
    let keep = table.integer("keep", 0..=100, KEEP);
    table.finish();
    Some(EventFile { path: path?, max_size, keep })
}

/// The address, and its place.
fn metrics(table: Table<'_>) -> Option<(SocketAddr, Range<usize>)> {
    let listen = table.get("listen").and_then(|value| {
        let address = value.parsed(|text| {
            let quoted = quoted(text);
            let address: SocketAddr = text.parse().map_err(|_| {
                Invalid::new(format!("{quoted} is no address with a port")).help("`127.0.0.1:9477` or `[::1]:9477`")
            })?;
            if !address.ip().is_loopback() {
                let help = "metrics tell who attacks whom, and are served without a login: use `127.0.0.1` or `[::1]` \
                            with a proxy before it, or the control socket";
                return Err(Invalid::new(format!("{quoted} is not a loopback address")).help(help));
            }
            if address.port() == 0 {
                return Err(Invalid::new(format!("{quoted} has no port to find it by")).help("`127.0.0.1:9477`"));
            }
            Ok(address)
        })?;
        Some((address, value.span))
    });
    table.finish();
    listen
}

fn control_group(table: Table<'_>) -> Option<String> {
    let group = table.get("group").and_then(|value| {
        value.parsed(|text| match text.trim().is_empty() {
            true => {
                Err(Invalid::new("`group` is empty").help("leave it out, and only root may use the control socket"))
            }
            false => Ok(text.to_owned()),
        })
    });
    table.finish();
    group
}
