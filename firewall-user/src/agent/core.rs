//! The agent's one piece of state: the policy in force and everything that carries it. Whoever holds it may change it, one
//! at a time.

mod reload;

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, RwLock},
    time::{Duration, Instant, SystemTime},
};

use firewall_common::policy;

use super::{bans, condemn::Condemner, error::CoreError, exempt::Exempt, offloads, rollback::Before};
use crate::{
    config::{self, Config, OnAgentExit, Overrides, XdpMode},
    control::api,
    dmz::{
        compile::{self, Compiled},
        instance::Instance,
        link::{Links, Mode},
        shared::{self, Shared},
    },
    events::{
        Sinks,
        kernel::{Names, RuleKind, RuleName},
    },
    gateway::Gateway,
    host::{
        addresses::{self, Guarded},
        interface::Interface,
    },
    paths::Paths,
};

/// What the event reader needs, replaced whole when a policy changes.
pub type SharedNames = Arc<RwLock<Arc<Names>>>;

pub struct Core {
    pub paths: Paths,
    config_path: PathBuf,
    overrides: Overrides,
    /// The files of the last attempt to read the configuration, and when it began.
    files: Vec<PathBuf>,
    pub read_at: SystemTime,
    trace: bool,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    pub config: Config,
    compiled: Compiled,
    pub instance: Instance,
    pub links: Links,
    pub shared: Shared,
    pub guarded: Guarded,
    pub names: SharedNames,
    pub sinks: Arc<Sinks>,
    /// Needs no core: whoever has a clone may use it while this one is busy.
    pub condemner: Condemner,
    pub gateway: Gateway,
    pub reloads: api::Reloads,
    pub started: Instant,
    /// Until when the policy must be confirmed, and what was there before.
    pub confirm: Option<(Instant, Before)>,
    /// By subject, so that one that is over goes.
    pub(super) warnings: BTreeMap<String, String>,
    /// What the agent bound when it started: a reload does not change it.
    bound: (Option<SocketAddr>, Option<String>),
    /// Events sampled, as last told. The number is derived from counters that are read one after the other, and must not
    /// go back for those who take its rate.
    pub sampled: u64,
    /// When certificates were last looked at.
    pub certificates_seen: Instant,
    /// Another agent is about to take over: what is in force must not change.
    pub lent: bool,
    /// Bans have changed since they were written.
    pub bans_dirty: bool,
    /// What the file of bans holds, if we wrote it.
    pub bans_saved: Option<u64>,
}

impl Core {
    /// Brings the policy of `config` into force, adopting what an agent before us left.
    pub fn start(
        paths: Paths,
        config_path: PathBuf,
        overrides: Overrides,
        config: Config,
        trace: bool,
        confirm: Option<Duration>,
        inherited: HashMap<SocketAddr, TcpListener>,
    ) -> Result<Self, CoreError> {
        let interfaces = find_interfaces(&config.interfaces, &[])?;
        let sinks = Arc::new(Sinks::open(&config.events)?);
        let adopted = shared::adopt(&paths.pins(), &config.dmz.tables)?;
        // Maps that do not exist have no slots; those that do are opened after the instance made what was missing.
        let slots = if adopted.existed { Shared::slots_at(&paths.pins())? } else { Default::default() };
        let generation = if adopted.existed { Shared::generation_at(&paths.pins())? } else { 0 };
        let mut compiled = compile::compile(&config, &slots)?;
        complete(&mut compiled, &interfaces, generation + 1, trace);
        let instance = Instance::load(&compiled, &paths.pins(), &config.dmz.tables, None)?;
        let mut shared = Shared::open(&paths.pins(), random_seed())?;
        shared.set_slots(&slots, &compiled.slots)?;
        let left_out = bans::carry_over(&mut shared, &adopted.bans);
        let condemner = Condemner::start(shared.ban_table()?, Arc::clone(&sinks)).map_err(CoreError::Thread)?;
        let before = Before::capture(&paths.pins());
        let mut core = Self {
            links: Links::new(&paths.pins()),
            names: Arc::default(),
            gateway: Gateway::new(&config, &paths.pins(), &sinks, &condemner, confirm.is_none(), inherited),
            sinks,
            condemner,
            reloads: api::Reloads::default(),
            started: Instant::now(),
            confirm: confirm.map(|within| (Instant::now() + within, Before::capture(&paths.pins()))),
            warnings: BTreeMap::new(),
            bound: (config.metrics, config.control_group.clone()),
            sampled: 0,
            lent: false,
            certificates_seen: Instant::now(),
            bans_dirty: false,
            bans_saved: None,
            guarded: Guarded::new(),
            paths,
            config_path,
            overrides: Overrides {
                file_is_optional: overrides.file_is_optional && config.files.is_empty(),
                ..overrides
            },
            files: config.files.clone(),
            read_at: config.read_at,
            trace,
            logger: None,
            config,
            compiled: compiled.clone(),
            shared,
            instance,
        };
        core.refresh_guarded()?;
        match bans::restore(&mut core.shared, &core.paths.bans(), &core.condemner) {
            Ok(0) => {}
            Ok(restored) => tracing::info!("{restored} bans restored from {}", core.paths.bans().display()),
            Err((path, error)) => core.warn("bans", Some(format!("{}: bans not restored: {error}", path.display()))),
        }
        core.lift_protected()?;
        core.publish_exempt()?;
        core.publish_names();
        core.warn_of_bans(left_out);
        if let Err(error) = core.attach_all(&interfaces) {
            // What was attached meanwhile goes, or goes back, as if we had never come.
            before.restore(&mut core.links);
            core.restore_offloads();
            return Err(error);
        }
        let generation = core.compiled.policy.generation;
        let prepared = core.gateway.prepare(&core.config, generation);
        let served = prepared.and_then(|prepared| core.gateway.commit(&core.config, prepared));
        if let Err(error) = served {
            core.gateway.withdraw();
            before.restore(&mut core.links);
            core.restore_offloads();
            return Err(error.into());
        }
        drop(before);
        adopted.keep();
        core.settle(compiled)?;
        core.gateway.forget_inherited();
        core.gateway.forget_others();
        let gateway = core.gateway.reputation();
        core.condemner.on_unban(move |prefix| gateway.forget(prefix));
        core.warn_of_apis();
        core.warn_of_certificates();
        Ok(core)
    }

    /// What follows once every link carries the policy: interfaces and slots that it does not use are given up.
    fn settle(&mut self, compiled: Compiled) -> Result<(), CoreError> {
        self.detach_unnamed();
        let slots = compiled.slots.only(compiled.names.iter().map(String::as_str));
        self.shared.set_slots(&compiled.slots, &slots)?;
        if compiled.slots.iter().any(|(name, _)| name.starts_with("rate/") && slots.get(name).is_none()) {
            // Bans of a rule that is gone must not be credited to the one that gets its slot next.
            bans::sweep(&mut self.shared)?;
        }
        let control = self.shared.control()?;
        self.shared.set_control(policy::Control { generation: compiled.policy.generation, ..control })?;
        self.compiled = Compiled { slots, ..compiled };
        self.publish_names();
        self.open_trace();
        Ok(())
    }

    /// Attaches the instance in force wherever it was before a policy that could not be attached everywhere.
    fn put_back(&mut self) -> Result<(), CoreError> {
        let mut result = Ok(());
        for name in self.config.interfaces.clone() {
            if let Ok(Some(interface)) = Interface::find(&name)
                && let Err(error) = self.attach_all(&[interface])
            {
                result = Err(error);
            }
        }
        self.detach_unnamed();
        result
    }

    /// Lets go of interfaces that the configuration does not name.
    fn detach_unnamed(&mut self) {
        let keep: Vec<u32> = self.config.interfaces.iter().filter_map(|name| self.links.index_of(name)).collect();
        self.links.detach_others(&keep);
        self.restore_offloads();
    }

    /// Switches on again what is off for our sake on interfaces where we no longer are.
    pub fn restore_offloads(&self) {
        for error in offloads::restore(&self.paths, &self.links.indices()) {
            tracing::warn!("{error}");
        }
    }

    fn warn_of_bans(&mut self, left_out: usize) {
        let text = format!("{left_out} bans did not fit into the new table and are lifted (`bans` under [dmz.tables])");
        self.warn("bans left out", (left_out > 0).then_some(text));
    }

    /// Attaches the instance in force to `interfaces`.
    fn attach_all(&mut self, interfaces: &[Interface]) -> Result<(), CoreError> {
        for interface in interfaces {
            self.shared.set_interface(interface.index, interface.mtu)?;
            self.attach(interface)?;
        }
        Ok(())
    }

    fn attach(&mut self, interface: &Interface) -> Result<(), CoreError> {
        // Unconfirmed, nothing may outlive us.
        let exit = match self.config.on_agent_exit {
            _ if self.confirm.is_some() => OnAgentExit::Detach,
            // The next agent finds a link by its pin.
            _ if self.lent => OnAgentExit::Keep,
            exit => exit,
        };
        let egress = self.compiled.needs_egress();
        if self.config.xdp_mode == XdpMode::Generic {
            offloads::no_merging(&self.paths, interface).map_err(CoreError::Merging)?;
        }
        let mode = self.links.attach(&mut self.instance, interface, self.config.xdp_mode, exit, egress)?;
        if mode == Mode::Generic && self.config.xdp_mode != XdpMode::Generic {
            if let Err(error) = offloads::no_merging(&self.paths, interface) {
                self.links.detach(interface);
                return Err(CoreError::Merging(error));
            }
            self.warn(
                &format!("mode {}", interface.name),
                Some(format!("{}: the driver has no native XDP, generic mode is slower", interface.name)),
            );
        }
        let stripped = offloads::no_vlan_stripping(&self.paths, interface).err().map(|error| {
            format!("{error}: the card takes VLAN tags out of frames, so what is tagged is judged as if it were not")
        });
        self.warn(&format!("vlan {}", interface.name), stripped);
        Ok(())
    }

    /// Steers where the network namespaces of APIs are now. With `again`, what could not be steered is tried once more.
    pub fn follow(&mut self, again: bool) {
        if again {
            let result = self.gateway.reclaim(true);
            self.warn("steering", result.err().map(|error| error.to_string()));
        }
        if self.gateway.has_moved(again) {
            let result = self.gateway.follow();
            self.warn("gateway", result.err().map(|error| error.to_string()));
            self.warn_of_apis();
        }
    }

    /// Looks again at interfaces, addresses, gateways and resolvers.
    pub fn refresh(&mut self) -> Result<(), CoreError> {
        self.refresh_guarded()?;
        let mut present = Vec::new();
        for name in self.config.interfaces.clone() {
            let found = Interface::find(&name).map_err(|source| CoreError::Interface { name: name.clone(), source })?;
            let absent = found.is_none().then(|| format!("{name} does not exist: nothing is filtered there"));
            self.warn(&format!("absent {name}"), absent);
            present.extend(found);
        }
        let mtu = smallest_mtu(&present);
        if !present.is_empty() && mtu != self.compiled.policy.mtu {
            // The program knows the smallest MTU as a constant.
            let mut compiled = self.compiled.clone();
            compiled.policy.mtu = mtu;
            compiled.policy.generation = compiled.policy.generation.wrapping_add(1);
            let config = self.config.clone();
            return self.swap(config, compiled, &present);
        }
        for interface in &present {
            self.shared.set_interface(interface.index, interface.mtu)?;
        }
        let moved: Vec<Interface> = present
            .into_iter()
            .filter(|interface| self.links.index_of(&interface.name) != Some(interface.index))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.publish_names();
        // One that cannot be guarded must not keep another from it.
        let results: Vec<_> = moved.iter().map(|interface| self.attach(interface)).collect();
        // Links of those that went stay behind as pins.
        self.detach_unnamed();
        results.into_iter().collect()
    }

    fn refresh_guarded(&mut self) -> Result<(), CoreError> {
        let (guarded, problems) = addresses::guarded();
        self.warn("addresses", (!problems.is_empty()).then(|| problems.join("; ")));
        if guarded == self.guarded {
            return Ok(());
        }
        let fit = self.shared.set_guarded(&guarded)?;
        let too_many =
            (fit < guarded.len()).then(|| format!("only {fit} of {} own addresses are protected", guarded.len()));
        self.warn("guarded", too_many);
        self.guarded = guarded;
        self.publish_exempt()?;
        self.lift_protected()
    }

    /// Tells the LAN layer whom not to ban, and lifts bans of its own that hit them.
    fn publish_exempt(&mut self) -> Result<(), CoreError> {
        let Config { apis, dmz, reputation, .. } = &self.config;
        let monitor = [dmz.mode, reputation.mode].contains(&config::Mode::Monitor);
        let proxies: Vec<_> = apis.iter().flat_map(|api| api.trusted_proxies.iter().copied()).collect();
        self.condemner.spare(Exempt::new(&self.guarded, &dmz.lists, &proxies, monitor));
        for prefix in bans::lift_exempt(&mut self.shared, &self.condemner.exempt())? {
            tracing::warn!("the ban of {prefix} is lifted: it would hit an address that is never banned");
            self.bans_dirty = true;
        }
        Ok(())
    }

    /// Lifts bans of addresses that must not be banned: they have become so since, or the file of bans is of another place.
    fn lift_protected(&mut self) -> Result<(), CoreError> {
        for prefix in bans::lift_protected(&mut self.shared, &self.guarded)? {
            tracing::warn!(
                "the ban of {prefix} is lifted: it would hit an address of this host, a gateway or a resolver"
            );
            self.bans_dirty = true;
        }
        Ok(())
    }

    /// Keeps the policy for good: from now on links are pinned.
    pub fn confirm(&mut self) -> Result<(), CoreError> {
        let Some(pending) = self.confirm.take() else { return Ok(()) };
        let result = find_interfaces(&self.config.interfaces, &self.config.interfaces)
            .and_then(|interfaces| self.attach_all(&interfaces))
            .and_then(|()| Ok(self.gateway.confirm()?));
        if result.is_err() {
            self.confirm = Some(pending);
        }
        result
    }

    /// Makes ready for another agent to take over links and ports; until [`Self::take_back`] this one changes nothing.
    pub fn lend(&mut self) -> Result<(), CoreError> {
        self.lent = true;
        let interfaces = find_interfaces(&self.config.interfaces, &self.config.interfaces);
        interfaces.and_then(|interfaces| self.attach_all(&interfaces))
    }

    /// The other agent did not take over: puts back in force what it may have changed.
    pub fn take_back(&mut self) -> Result<(), CoreError> {
        self.lent = false;
        let interfaces = find_interfaces(&self.config.interfaces, &self.config.interfaces)?;
        let attached = self.attach_all(&interfaces);
        self.gateway.reclaim(false)?;
        attached
    }

    /// Goes back to what was there before an unconfirmed start.
    pub fn roll_back(&mut self) {
        if let Some((_, before)) = self.confirm.take() {
            self.gateway.leave();
            before.restore(&mut self.links);
            self.restore_offloads();
        }
    }

    /// Passes on what the program traced.
    pub fn flush_trace(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Listens to the traces of the instance in force.
    fn open_trace(&mut self) {
        if self.trace {
            match aya_log::EbpfLogger::init(self.instance.ebpf()) {
                Ok(logger) => self.logger = Some(logger),
                Err(error) => self.warn("trace", Some(format!("no traces: {error}"))),
            }
        }
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub fn config_path(&self) -> &std::path::Path {
        &self.config_path
    }

    /// The files that a change of may lead to another policy. Where the defaults stand in for a configuration, its place.
    pub fn files(&self) -> Vec<PathBuf> {
        match &*self.files {
            [] => vec![std::path::absolute(&self.config_path).unwrap_or_else(|_| self.config_path.clone())],
            files => files.to_vec(),
        }
    }

    fn publish_names(&self) {
        let rule = |name: &str| {
            let (kind, name) = name.split_once('/')?;
            let kind = match kind {
                "list" => RuleKind::List,
                "rate" => RuleKind::Rate,
                "size" => RuleKind::Size,
                _ => return None,
            };
            Some(RuleName { kind, name: name.into() })
        };
        let rules = self.compiled.slots.iter().filter_map(|(name, slot)| Some((slot, rule(name)?))).collect();
        let interfaces = self
            .config
            .interfaces
            .iter()
            .filter_map(|name| Some((nix::net::if_::if_nametoindex(name.as_str()).ok()?, name.as_str().into())))
            .collect();
        let mut names = self.names.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *names = Arc::new(names.with(self.compiled.policy.generation, rules, interfaces));
    }
}

/// The interfaces of these names. Those that `may_be_absent` names are left out if they do not exist.
fn find_interfaces(names: &[String], may_be_absent: &[String]) -> Result<Vec<Interface>, CoreError> {
    names
        .iter()
        .filter_map(|name| match Interface::find(name) {
            Ok(Some(interface)) => Some(Ok(interface)),
            Ok(None) if may_be_absent.contains(name) => None,
            Ok(None) => Some(Err(CoreError::NoInterface { name: name.clone() })),
            Err(source) => Some(Err(CoreError::Interface { name: name.clone(), source })),
        })
        .collect()
}

fn smallest_mtu(interfaces: &[Interface]) -> u32 {
    interfaces.iter().map(|interface| interface.mtu).min().unwrap_or(0)
}

/// Fills in what only the agent knows.
fn complete(compiled: &mut Compiled, interfaces: &[Interface], generation: u32, trace: bool) {
    compiled.policy.generation = generation;
    compiled.policy.mtu = smallest_mtu(interfaces);
    if trace {
        compiled.policy.stages |= policy::stage::TRACE;
    }
}

/// A seed that nobody outside can know: the standard library's hasher keys come from the kernel's random numbers.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0u8)
}
