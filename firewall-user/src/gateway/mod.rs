//! The LAN layer's gateway: takes connections for the protected APIs, judges every request, and forwards what may go on.
//!
//! `policy` is what a reload swaps; `worker` the threads and where they accept; `connection` a client from accept to end;
//! `gate` the one parser of HTTP/1, `http1` what answers behind it; `service` a request on its way; `upstream` the connections
//! behind; `inspection` content rules; `reputation` what clients earn. Judgement itself is in `firewall-inspect`.

mod body;
mod connection;
mod exchange;
mod gate;
mod held;
mod http1;
mod inspection;
mod keeper;
pub mod metrics;
mod network;
mod outbox;
mod outgoing;
mod places;
mod policy;
mod registry;
mod reputation;
mod service;
mod status;
mod stream;
pub mod tls;
mod upstream;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use self::{
    held::Held,
    keeper::Keeper,
    metrics::Metrics,
    network::Network,
    places::{Absent, Places},
    policy::ApiPolicy,
    registry::Registry,
    worker::{ApiSlot, Entrance, Routing, Shared, Thread},
};
pub use self::{
    reputation::Reputation,
    status::{Probes, silence},
};
use crate::{
    agent::condemn::Condemner,
    config::{
        Config,
        api::{Api, Entry},
    },
    events::Sinks,
    steering::SteerError,
};

/// Round trips take less, nearly always: within this a handshake ends that had begun.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// A connection that had no request by then is idle.
const YOUNG: Duration = Duration::from_millis(300);

/// Why a policy cannot be served.
#[derive(Debug)]
pub enum GatewayError {
    Tls { api: String, source: tls::TlsError },
    Listen { api: String, address: SocketAddr, source: io::Error },
    Steer { api: String, source: Box<SteerError> },
    Thread(io::Error),
}

impl std::fmt::Display for GatewayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls { api, source } => write!(f, "API `{api}`: {source}"),
            Self::Listen { api, address, source } => write!(f, "API `{api}`: cannot listen at {address}: {source}"),
            Self::Steer { api, source } => write!(f, "API `{api}`: {source}"),
            Self::Thread(source) => write!(f, "the gateway's threads could not be started: {source}"),
        }
    }
}

impl std::error::Error for GatewayError {}

/// The gateway of an agent.
pub struct Gateway {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    sinks: Arc<Sinks>,
    /// Where the kernel's side of steering is pinned.
    pins: PathBuf,
    threads: Vec<Thread>,
    apis: BTreeMap<Arc<str>, (Api, Arc<ApiSlot>)>,
    networks: HashMap<Option<PathBuf>, (Arc<Network>, Arc<Entrance>)>,
    /// Where nothing is steered, though it should be.
    absent: HashMap<PathBuf, Absent>,
    proxies: HashMap<SocketAddr, Arc<Entrance>>,
    /// What the agent before us listens on.
    inherited: HashMap<SocketAddr, TcpListener>,
    keeper: Option<Keeper>,
    findings: Arc<status::Findings>,
    /// The policy is in force for good. Until then no port is closed by our end.
    confirmed: bool,
}

/// A policy that can be served, before it is.
pub struct Prepared {
    policies: Vec<Arc<ApiPolicy>>,
    places: Places,
    listeners: HashMap<SocketAddr, TcpListener>,
}

impl Gateway {
    pub fn new(
        config: &Config,
        pins: &Path,
        sinks: &Arc<Sinks>,
        condemner: &Condemner,
        confirmed: bool,
        inherited: HashMap<SocketAddr, TcpListener>,
    ) -> Self {
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::default()),
            reputation: Arc::new(Reputation::new(config.reputation, condemner)),
            limits: ArcSwap::from_pointee(config.gateway),
            held: Held::default(),
            began: Instant::now(),
        });
        Self {
            shared,
            metrics: Arc::default(),
            sinks: Arc::clone(sinks),
            pins: pins.to_owned(),
            threads: Vec::new(),
            apis: BTreeMap::new(),
            networks: HashMap::new(),
            absent: HashMap::new(),
            proxies: HashMap::new(),
            inherited,
            keeper: None,
            findings: Arc::default(),
            confirmed,
        }
    }

    /// What the API's clients have earned.
    pub fn reputation(&self) -> Arc<Reputation> {
        Arc::clone(&self.shared.reputation)
    }

    /// The policy is in force for good: ports follow what the configuration says of the agent's end.
    pub fn confirm(&mut self) -> Result<(), GatewayError> {
        self.confirmed = true;
        self.networks.values().try_for_each(|(network, _)| network.confirm()).map_err(|source| steer("", source))
    }

    /// Does all of `config` that can fail: reads certificates, binds, loads. Nothing changes for clients yet.
    ///
    /// A network namespace that is not there is no error: a container may come up later, and [`Gateway::follow`] then finds
    /// it. Nor is one that was served already and is something else now.
    pub fn prepare(&self, config: &Config, generation: u32) -> Result<Prepared, GatewayError> {
        let mut places = Places::default();
        let mut listeners = HashMap::new();
        let mut policies = Vec::new();
        let nowhere = Network::none();
        for api in &config.apis {
            let network = match &api.entry {
                Entry::Steered(steered) => {
                    let known = steered.netns.as_ref().is_some_and(|path| {
                        self.absent.contains_key(path) || self.networks.contains_key(&steered.netns)
                    });
                    let found = self.look_up(&mut places, &steered.netns, known);
                    found.map_err(|source| steer(&api.name, source))?.unwrap_or_else(|| Arc::clone(&nowhere))
                }
                Entry::Proxy { listen, .. } => {
                    for address in listen.iter().filter(|address| !self.proxies.contains_key(address)) {
                        let fail =
                            |source| GatewayError::Listen { api: api.name.to_string(), address: *address, source };
                        let listener = match self.inherited.get(address) {
                            Some(listener) => listener.try_clone(),
                            None => network::listen(*address),
                        };
                        listeners.insert(*address, listener.map_err(fail)?);
                    }
                    Arc::clone(&nowhere)
                }
            };
            let before = self.apis.get(&api.name).and_then(|(_, slot)| slot.policy());
            let metrics = self.metrics.api(&api.name);
            policies.push(Arc::new(ApiPolicy::new(api, generation, &network, metrics, before.as_deref())?));
        }
        Ok(Prepared { policies, places, listeners })
    }

    /// Serves what was prepared, and no longer what it does not name. Requests under way end under the policy they met.
    pub fn commit(&mut self, config: &Config, prepared: Prepared) -> Result<(), GatewayError> {
        self.shared.limits.store(Arc::new(config.gateway));
        self.shared.reputation.configure(config.reputation);
        self.put_in_force(prepared)
    }

    fn put_in_force(&mut self, prepared: Prepared) -> Result<(), GatewayError> {
        let Prepared { policies, places, listeners } = prepared;
        if !policies.is_empty() && self.threads.is_empty() {
            for number in 0..self.shared.limits.load().workers {
                let thread = Thread::spawn(&self.shared, &self.sinks, number).map_err(GatewayError::Thread)?;
                self.threads.push(thread);
            }
        }
        let mut before = std::mem::take(&mut self.apis);
        let mut routes: HashMap<Option<PathBuf>, HashMap<u16, Arc<ApiSlot>>> = HashMap::new();
        let mut listen: HashMap<SocketAddr, Arc<ApiSlot>> = HashMap::new();
        for policy in policies {
            let api = policy.config.clone();
            // An API that comes in by another way is another one to its connections.
            let same = before.remove(&api.name).filter(|(earlier, _)| same_entrance(&earlier.entry, &api.entry));
            let slot = same.map_or_else(ApiSlot::new, |(_, slot)| slot);
            slot.set(Some(policy));
            match &api.entry {
                Entry::Steered(steered) => routes
                    .entry(steered.netns.clone())
                    .or_default()
                    .extend(steered.ports.iter().map(|port| (*port, Arc::clone(&slot)))),
                Entry::Proxy { listen: addresses, .. } => {
                    listen.extend(addresses.iter().map(|address| (*address, Arc::clone(&slot))));
                }
            }
            self.apis.insert(Arc::clone(&api.name), (api, slot));
        }
        self.open_proxies(listen, listeners);
        let result = self.open_networks(places, routes);
        for (name, (_, slot)) in before {
            slot.set(None);
            self.shared.registry.drain(&name);
        }
        self.metrics.retain(|name| self.apis.contains_key(name));
        result
    }

    fn open_proxies(
        &mut self,
        listen: HashMap<SocketAddr, Arc<ApiSlot>>,
        mut listeners: HashMap<SocketAddr, TcpListener>,
    ) {
        let mut before = std::mem::take(&mut self.proxies);
        for (address, slot) in listen {
            let entrance = match (listeners.remove(&address), before.remove(&address)) {
                (Some(listener), _) => {
                    let entrance = Entrance::new(listener, Routing::Fixed(slot));
                    self.threads.iter().for_each(|thread| thread.enter(&entrance));
                    entrance
                }
                (None, Some(entrance)) => {
                    entrance.route(Routing::Fixed(slot));
                    entrance
                }
                // `prepare` bound what was not there.
                (None, None) => continue,
            };
            self.proxies.insert(address, entrance);
        }
        before.into_values().for_each(|entrance| entrance.close());
    }

    /// New connections are no longer ours: those that are steered go where `on_agent_exit` says.
    pub fn withdraw(&mut self) {
        // The keeper must not tell the kernel that we live once we do not.
        self.keeper = None;
        for (network, _) in self.networks.values() {
            if let Err(error) = network.withdraw() {
                tracing::error!("steering could not be withdrawn: {error}");
            }
        }
        self.proxies.values().for_each(|entrance| entrance.close());
    }

    /// The sockets of reverse proxies, for the next agent to accept from.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.proxies.values().map(|entrance| entrance.listener().try_clone()).collect()
    }

    /// Closes what the agent before us listened on and we do not.
    pub fn forget_inherited(&mut self) {
        self.inherited.clear();
    }

    /// Takes steered ports back from an agent that took them, and is no more; with `vacant`, where nobody has them now.
    pub fn reclaim(&self, vacant: bool) -> Result<(), GatewayError> {
        for (network, entrance) in self.networks.values() {
            network.reclaim(entrance.listener(), self.confirmed, vacant).map_err(|source| steer("", source))?;
        }
        Ok(())
    }

    /// What is waited for, for connections to end.
    pub fn drainage(&self) -> Drainage {
        Drainage {
            shared: Arc::clone(&self.shared),
            within: self.shared.limits.load().drain,
            handshakes: !self.networks.is_empty(),
        }
    }

    /// Ends all threads, and with them what is left of connections.
    pub fn stop(&mut self) {
        self.keeper = None;
        self.networks.values().for_each(|(_, entrance)| entrance.close());
        self.threads.drain(..).for_each(Thread::join);
    }
}

fn steer(api: &str, source: SteerError) -> GatewayError {
    GatewayError::Steer { api: api.to_owned(), source: Box::new(source) }
}

fn same_entrance(before: &Entry, now: &Entry) -> bool {
    match (before, now) {
        (Entry::Steered(before), Entry::Steered(now)) => before.netns == now.netns,
        (Entry::Proxy { .. }, Entry::Proxy { .. }) => true,
        _ => false,
    }
}

/// Connections on their way out.
pub struct Drainage {
    shared: Arc<Shared>,
    within: Duration,
    /// Handshakes may be under way, of connections that will be ours.
    handshakes: bool,
}

impl Drainage {
    /// Waits until no connection is left, or as long as the configuration allows; how many are left.
    pub async fn wait(self) -> u32 {
        let began = Instant::now();
        // Who began a handshake with us ends it with us, and nobody further begins one.
        let at_least = if self.handshakes { HANDSHAKE.min(self.within) } else { Duration::ZERO };
        while began.elapsed() < self.within && (began.elapsed() < at_least || self.shared.registry.total() > 0) {
            // Again and again: a connection that was on its way is accepted and answered all the same.
            self.shared.registry.drain_older(YOUNG);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.registry.total()
    }
}
