//! The configuration: one TOML file and the list files it names, read into types that can only hold what is valid.
//!
//! Text → raw (a document in which every value knows its place) → typed. Every error names file, line and column, and all
//! of them come at once. Nothing here touches the kernel: whether an interface or a group exists is the agent's to find out.

pub mod api;
mod list;
mod lower;
mod prefix;
mod rate;
mod raw;
mod report;
mod services;
mod size;
mod syntax;
#[cfg(test)]
mod tests;
pub mod units;

use std::{
    fs::OpenOptions,
    io::Read as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use firewall_common::{address::Addr, packet::protocol, port::Service, token_bucket::Limit};
use ipnet::IpNet;
use toml::de::DeTable;

use report::Source;
pub use report::{Errors, Invalid, Problem};
use syntax::Syntax;

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// What the command line says instead of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Not empty: replaces [`Config::interfaces`].
    pub interfaces: Vec<String>,
    /// Without a file at the path, the defaults are the configuration. For an agent that never read one: a file that was
    /// removed does not stand for the defaults.
    pub file_is_optional: bool,
}

/// Reads the configuration at `path` and the list files it names.
///
/// # Errors
/// Everything that is wrong with any of these files, at once.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, Errors> {
    let read_at = SystemTime::now();
    let name = path.display().to_string();
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bytes = match read(path, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(_) if overrides.file_is_optional && !path.exists() => {
            return parse("the defaults", "", Path::new(""), Vec::new(), overrides);
        }
        Err(cause) => {
            let message = format!("cannot read the configuration: {cause}");
            return Err(Errors::new(vec![Problem::new(&Source::new(&*name, ""), 0..0, message)], vec![file]));
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let source = Source::new(&*name, &String::from_utf8_lossy(error.as_bytes()));
            let problem = Problem::new(&source, valid..valid + 1, "the configuration is not UTF-8 here");
            return Err(Errors::new(vec![problem], vec![file]));
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Config { read_at, ..parse(&name, text, folder, vec![file], overrides)? })
}

/// Reads `text`, which is the file `name`; its relative paths start at `folder`. `files` holds its own path.
fn parse(name: &str, text: &str, folder: &Path, files: Vec<PathBuf>, overrides: &Overrides) -> Result<Config, Errors> {
    let source = Source::new(name, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    let syntax = Syntax::new(&source, &document, &syntax);
    let context = raw::Context::new(source.clone(), !syntax.problems.is_empty());
    let config = lower::lower(raw::Table::root(document.get_ref(), &context), folder, files, overrides);
    let (mut problems, rest) = context.into_problems();
    problems.retain(|problem| !problem.is_in(&source) || syntax.trusts(problem));
    problems.extend(syntax.problems);
    if problems.is_empty() {
        return Ok(config);
    }
    // Those of list files stay behind, in the order they were read.
    problems.sort_by_key(|problem| if problem.is_in(&source) { (0, problem.offset()) } else { (1, 0) });
    problems.extend(rest);
    Err(Errors::new(problems, config.files))
}

/// The bytes of a regular file, unless there are more than `limit`; otherwise why not. Does not wait for anybody.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    // A pipe that nobody writes to must not hold up the agent; a file ignores this.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = open.map_err(|error| error.to_string())?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err(if about.is_dir() { "it is a directory" } else { "it is not a regular file" }.to_owned());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(limit)).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {}", units::format_size(limit)));
    }
    Ok(bytes)
}

/// The words for [`Mode`].
const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every file that was read, the configuration itself first, and those of certificates and keys, which are read later;
    /// none for the defaults.
    pub files: Vec<PathBuf>,
    /// When reading them began: what changed since then may not be in it.
    pub read_at: SystemTime,
    /// Network interfaces the DMZ layer guards; not empty, no duplicates.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
    pub on_agent_exit: OnAgentExit,
    pub dmz: Dmz,
    pub events: Events,
    /// Where Prometheus may scrape; loopback only. The control socket serves metrics always.
    pub metrics: Option<SocketAddr>,
    /// Group whose members may use the control socket beside root.
    pub control_group: Option<String>,
    pub apis: Vec<api::Api>,
    pub gateway: api::Gateway,
    pub reputation: api::Reputation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, or generic where the driver has no native mode.
    Auto,
    Native,
    Generic,
}

/// What the kernel does once its agent is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAgentExit {
    /// It goes on with the last policy.
    Keep,
    /// It passes everything.
    Detach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Enforce,
    /// Count and report, but drop nothing.
    Monitor,
}

#[derive(Clone, Debug)]
pub struct Dmz {
    pub mode: Mode,
    pub exposure: Option<Exposure>,
    pub quic: Quic,
    pub lists: Vec<List>,
    pub hygiene: Hygiene,
    pub size: Size,
    pub rates: Vec<Rate>,
    pub tables: Tables,
}

/// What becomes of UDP to ports where the gateway inspects TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quic {
    /// Dropped, replies excepted.
    Drop,
    /// Judged as any other: HTTP/3 goes around the gateway.
    Pass,
}

/// The ports and protocols that exist for the outside. Everything else is dropped, replies excepted.
#[derive(Clone, Debug)]
pub struct Exposure {
    pub mode: Mode,
    pub services: Vec<Services>,
}

/// Services named in one word: `443/tcp`, `8000-8100/udp`, `icmp-echo`, `esp`, `gre`, `proto/89`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Services {
    /// `first <= last`, `first > 0`.
    Tcp {
        first: u16,
        last: u16,
    },
    Udp {
        first: u16,
        last: u16,
    },
    Protocol(u8),
    Echo,
}

impl Services {
    /// Each service in turn.
    pub fn iter(self) -> Box<dyn Iterator<Item = Service>> {
        match self {
            Self::Tcp { first, last } => Box::new((first..=last).map(Service::Tcp)),
            Self::Udp { first, last } => Box::new((first..=last).map(Service::Udp)),
            Self::Protocol(number) => Box::new(std::iter::once(Service::Protocol(number))),
            Self::Echo => Box::new(std::iter::once(Service::Echo)),
        }
    }
}

impl std::fmt::Display for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Tcp { first, last } if first == last => write!(f, "{first}/tcp"),
            Self::Udp { first, last } if first == last => write!(f, "{first}/udp"),
            Self::Tcp { first, last } => write!(f, "{first}-{last}/tcp"),
            Self::Udp { first, last } => write!(f, "{first}-{last}/udp"),
            Self::Protocol(protocol::ESP) => f.write_str("esp"),
            Self::Protocol(protocol::GRE) => f.write_str("gre"),
            Self::Protocol(number) => write!(f, "proto/{number}"),
            Self::Echo => f.write_str("icmp-echo"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct List {
    /// 1 to 64 bytes of letters, digits, `-`, `_` and `.`; unique among lists.
    pub name: String,
    pub action: ListAction,
    /// Only block lists may monitor.
    pub mode: Mode,
    /// No host bits set. In order of the file; duplicates within a list are gone.
    pub prefixes: Arc<[IpNet]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListAction {
    Allow,
    Block,
}

/// Checks that drop when set.
#[derive(Clone, Debug)]
pub struct Hygiene {
    pub mode: Mode,
    pub tcp_flags: bool,
    pub port_zero: bool,
    pub land: bool,
    pub bogons: bool,
    pub own_source: bool,
    pub private_sources: bool,
    pub link_local_sources: bool,
    pub fragments: bool,
    pub reflection: bool,
    /// UDP source ports.
    pub reflection_ports: Vec<u16>,
}

/// Sizes in bytes, all bounds inclusive.
#[derive(Clone, Debug)]
pub struct Size {
    pub mode: Mode,
    /// Of every IP packet.
    pub min_packet: Option<u32>,
    pub max_packet: Option<u32>,
    /// No service has two rules.
    pub rules: Vec<SizeRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeRule {
    pub services: Services,
    pub mode: Mode,
    /// Of the IP packet.
    pub min: Option<u32>,
    pub max: Option<u32>,
    /// Of what follows the transport header.
    pub min_payload: Option<u32>,
    pub max_payload: Option<u32>,
}

/// At least one limit is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// As [`List::name`]; unique among rates.
    pub name: String,
    pub mode: Mode,
    pub per: Per,
    /// Empty: all traffic, later fragments included.
    pub services: Vec<Services>,
    pub packets: Option<Limit>,
    pub bytes: Option<Limit>,
    pub connections: Option<Limit>,
    /// How long to ban a source that exceeds the rate. Only with [`Per::Source`].
    pub ban: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// Prefix lengths by which sources are told apart, each in its own family (32 and 64 by default).
    Source { v4: u8, v6: u8 },
    /// Each service has a bucket for all of its sources.
    Service,
}

/// Entries that the tables of the kernel have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    pub bans: u32,
    /// Rate buckets; a power of two.
    pub buckets: u32,
    pub flows: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// JSON lines to standard output.
    pub stdout: bool,
    pub journald: bool,
    pub file: Option<EventFile>,
}

/// JSON lines to a file; when it would outgrow `max_size` it becomes `path.1`, that `path.2`, up to `keep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFile {
    pub path: PathBuf,
    pub max_size: u64,
    pub keep: u32,
}

/// The address, and the length in the 128-bit space, of a prefix.
pub fn prefix_key(prefix: &IpNet) -> (Addr, u8) {
    let offset = match prefix {
        IpNet::V4(_) => firewall_common::address::V4_OFFSET,
        IpNet::V6(_) => 0,
    };
    (Addr::from(prefix.network()), offset + prefix.prefix_len())
}
