//! The LAN layer's gateway: takes connections for the protected APIs, judges every request, and forwards what may go on.
//!
//! `policy` is what a reload swaps; `worker` the threads and where they accept; `connection` a client from accept to end;
//! `gate` the one parser of HTTP/1 under hyper; `service` a request on its way; `upstream` the connections behind;
//! `reputation` what clients earn. Judgement itself is in `firewall-inspect`.

mod body;
mod connection;
mod exchange;
mod gate;
pub mod metrics;
mod network;
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
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use self::{
    metrics::Metrics,
    network::Network,
    policy::ApiPolicy,
    registry::Registry,
    worker::{ApiSlot, Entrance, Routing, Shared, Thread},
};
pub use self::{reputation::Reputation, status::Probes};
use crate::{
    agent::condemn::Condemner,
    config::{
        Config,
        api::{Api, Entry},
    },
    events::Sinks,
    steering::SteerError,
};

/// How often the kernel is told that the gateway lives. It takes 2 seconds of silence for death.
const BEAT: Duration = Duration::from_millis(250);
/// A worker that said nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(1);

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
    proxies: HashMap<SocketAddr, Arc<Entrance>>,
    keeper: Option<Keeper>,
    findings: Arc<status::Findings>,
    /// The policy is in force for good. Until then no port is closed by our end.
    confirmed: bool,
}

/// A policy that can be served, before it is.
pub struct Prepared {
    policies: Vec<ApiPolicy>,
    networks: HashMap<Option<PathBuf>, Arc<Network>>,
    listeners: HashMap<SocketAddr, std::net::TcpListener>,
    config: (crate::config::api::Gateway, crate::config::api::Reputation),
}

impl Gateway {
    pub fn new(config: &Config, pins: &Path, sinks: &Arc<Sinks>, condemner: &Condemner, confirmed: bool) -> Self {
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::default()),
            reputation: Arc::new(Reputation::new(config.reputation, condemner)),
            limits: ArcSwap::from_pointee(config.gateway),
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
            proxies: HashMap::new(),
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
    pub fn prepare(&self, config: &Config, generation: u32) -> Result<Prepared, GatewayError> {
        let mut networks = HashMap::new();
        let mut listeners = HashMap::new();
        let mut policies = Vec::new();
        let nowhere = Network::none();
        for api in &config.apis {
            let network = match &api.entry {
                Entry::Steered(steered) => {
                    let place = &steered.netns;
                    let known = self.networks.get(place).map(|(network, _)| network).or_else(|| networks.get(place));
                    let network = match known {
                        Some(network) => Arc::clone(network),
                        None => {
                            let opened = Network::open(&self.pins, place.as_deref());
                            Arc::new(opened.map_err(|source| steer(&api.name, source))?)
                        }
                    };
                    networks.insert(place.clone(), Arc::clone(&network));
                    network
                }
                Entry::Proxy { listen, .. } => {
                    for address in listen.iter().filter(|address| !self.proxies.contains_key(address)) {
                        let fail =
                            |source| GatewayError::Listen { api: api.name.to_string(), address: *address, source };
                        listeners.insert(*address, network::listen(*address).map_err(fail)?);
                    }
                    Arc::clone(&nowhere)
                }
            };
            let before = self.apis.get(&api.name).and_then(|(_, slot)| slot.policy());
            let metrics = self.metrics.api(&api.name);
            policies.push(ApiPolicy::new(api, generation, &network, metrics, before.as_deref())?);
        }
        Ok(Prepared { policies, networks, listeners, config: (config.gateway, config.reputation) })
    }

    /// Serves what was prepared, and no longer what it does not name. Requests under way end under the policy they met.
    pub fn commit(&mut self, prepared: Prepared) -> Result<(), GatewayError> {
        let Prepared { policies, networks, listeners, config: (gateway, reputation) } = prepared;
        self.shared.limits.store(Arc::new(gateway));
        self.shared.reputation.configure(reputation);
        if !policies.is_empty() && self.threads.is_empty() {
            for number in 0..gateway.workers {
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
        self.open_networks(networks, routes)?;
        for (name, (_, slot)) in before {
            slot.set(None);
            self.shared.registry.drain(Some(&name));
        }
        Ok(())
    }

    fn open_proxies(
        &mut self,
        listen: HashMap<SocketAddr, Arc<ApiSlot>>,
        mut listeners: HashMap<SocketAddr, std::net::TcpListener>,
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

    fn open_networks(
        &mut self,
        networks: HashMap<Option<PathBuf>, Arc<Network>>,
        mut routes: HashMap<Option<PathBuf>, HashMap<u16, Arc<ApiSlot>>>,
    ) -> Result<(), GatewayError> {
        let mut before = std::mem::take(&mut self.networks);
        let mut result = Ok(());
        for (place, network) in networks {
            let steered = self.apis.values().filter_map(|(api, _)| match &api.entry {
                Entry::Steered(steered) if steered.netns == place => Some((&api.name, steered)),
                _ => None,
            });
            let steered: Vec<_> = steered.collect();
            let fail = |source| steer(steered.first().map_or("", |(name, _)| name), source);
            let entrance = match (before.remove(&place), network.take_listener()) {
                (Some((_, entrance)), _) => entrance,
                (None, Some(listener)) => {
                    // Whoever had the ports before us hands them over here.
                    if let Err(source) = network.serve(&listener) {
                        result = Err(fail(source));
                    }
                    let entrance = Entrance::new(listener, Routing::Steered(Arc::clone(&network)));
                    self.threads.iter().for_each(|thread| thread.enter(&entrance));
                    entrance
                }
                // A network is opened with its listener.
                (None, None) => continue,
            };
            let slots = routes.remove(&place).unwrap_or_default();
            if let Err(source) = network.route(slots, steered.iter().map(|(_, entry)| *entry), self.confirmed) {
                result = Err(fail(source));
            }
            self.networks.insert(place, (network, entrance));
        }
        for (network, entrance) in before.into_values() {
            if let Err(error) = network.leave() {
                tracing::error!("ports are still steered: {error}");
            }
            entrance.close();
        }
        let networks = self.networks.values().map(|(network, _)| Arc::clone(network)).collect();
        match &self.keeper {
            Some(keeper) => keeper.networks.store(Arc::new(networks)),
            None if !self.networks.is_empty() => {
                let workers = self.threads.iter().map(|thread| Arc::clone(&thread.worker)).collect();
                self.keeper = Some(Keeper::spawn(networks, workers).map_err(GatewayError::Thread)?);
            }
            None => {}
        }
        result
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

    /// What [`Gateway::drain`] waits for.
    pub fn drainage(&self) -> Drainage {
        Drainage { shared: Arc::clone(&self.shared), within: self.shared.limits.load().drain }
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
}

impl Drainage {
    /// Waits until no connection is left, or as long as the configuration allows; how many are left.
    pub async fn wait(self) -> u32 {
        let until = Instant::now() + self.within;
        // Some may still be in the listener's queue: a moment without any is not the end.
        let mut quiet = 0;
        while Instant::now() < until && quiet < 5 {
            // Again and again: a connection that was on its way is accepted and answered all the same.
            self.shared.registry.drain(None);
            quiet = if self.shared.registry.total() == 0 { quiet + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.shared.registry.total()
    }
}

/// Tells the kernel, for each network, that the gateway lives, as long as a worker does.
struct Keeper {
    networks: Arc<ArcSwap<Vec<Arc<Network>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn spawn(networks: Vec<Arc<Network>>, workers: Vec<Arc<worker::Worker>>) -> io::Result<Self> {
        let networks = Arc::new(ArcSwap::from_pointee(networks));
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, stopped) = (Arc::clone(&networks), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("gateway-keeper".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if workers.iter().any(|worker| worker.silent_for() < SILENCE) {
                    for network in watched.load().iter() {
                        network.beat();
                    }
                }
                std::thread::park_timeout(BEAT);
            }
        })?;
        Ok(Self { networks, stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _panicked = thread.join();
        }
    }
}
