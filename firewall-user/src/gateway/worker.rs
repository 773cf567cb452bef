//! The gateway's threads: each has a runtime, its share of the connections, and its own connections to the upstreams.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use firewall_inspect::{reason::Reason, transaction};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    connection,
    held::Held,
    network::Network,
    policy::ApiPolicy,
    registry::Registry,
    reputation::{Conduct, Reputation},
    upstream::Pool,
};
use crate::{
    config::api,
    events::{Event, Recorder, Sinks, request::Verdict},
};

/// How often records are handed on, and with every fifth time the worker says that it lives.
const TICK: Duration = Duration::from_millis(50);
const BEAT_EVERY: u32 = 5;
/// How often connections that nobody used are let go.
const SWEEP_EVERY: u32 = 20;
/// After an accept that failed for want of something: a descriptor, memory.
const BREATHE: Duration = Duration::from_millis(20);

/// What all workers share.
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) reputation: Arc<Reputation>,
    pub(super) limits: ArcSwap<api::Gateway>,
    /// Bodies that wait for content rules.
    pub(super) held: Held,
    /// When the agent started: what [`Worker::beaten`] counts from.
    pub(super) began: Instant,
}

/// An API by its name; its policy is swapped by reloads, and taken away when the API is.
pub(super) struct ApiSlot {
    policy: ArcSwapOption<ApiPolicy>,
}

impl ApiSlot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { policy: ArcSwapOption::empty() })
    }

    pub(super) fn policy(&self) -> Option<Arc<ApiPolicy>> {
        self.policy.load_full()
    }

    pub(super) fn set(&self, policy: Option<Arc<ApiPolicy>>) {
        self.policy.store(policy);
    }
}

/// Where connections come in.
pub(super) struct Entrance {
    listener: std::net::TcpListener,
    routing: ArcSwap<Routing>,
    closed: watch::Sender<bool>,
}

pub(super) enum Routing {
    /// By the port the client wanted.
    Steered(Arc<Network>),
    Fixed(Arc<ApiSlot>),
}

impl Entrance {
    pub(super) fn new(listener: std::net::TcpListener, routing: Routing) -> Arc<Self> {
        Arc::new(Self { listener, routing: ArcSwap::from_pointee(routing), closed: watch::Sender::new(false) })
    }

    /// No further connection is accepted.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(super) fn listener(&self) -> &std::net::TcpListener {
        &self.listener
    }

    /// Connections from now on lead there.
    pub(super) fn route(&self, routing: Routing) {
        self.routing.store(Arc::new(routing));
    }

    /// Where a connection leads; `None` if nowhere, as with a probe, or a port that is not ours any more.
    fn slot(&self, peer: SocketAddr, local: SocketAddr) -> Option<Arc<ApiSlot>> {
        match &**self.routing.load() {
            Routing::Steered(network) if network.is_probe(peer) => None,
            Routing::Steered(network) => network.slot(local.port()),
            Routing::Fixed(slot) => Some(Arc::clone(slot)),
        }
    }
}

/// A worker, as its connections see it.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pool: Pool,
    recorder: Mutex<Recorder>,
    /// What running content rules needs.
    rules: Mutex<transaction::Worker>,
    seed: u64,
    ids: AtomicU64,
    /// Milliseconds after the start.
    beaten: AtomicU64,
}

impl Worker {
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Nobody waits: a worker is one thread, and rules run without a pause.
    pub(super) fn rules(&self) -> MutexGuard<'_, transaction::Worker> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reputation(&self) -> &Reputation {
        &self.shared.reputation
    }

    /// A number for a request: no two alike within a worker, and hardly ever elsewhere (splitmix64 of a counter).
    pub(super) fn next_id(&self) -> u64 {
        let count = self.ids.fetch_add(1, Relaxed);
        let mut id = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id ^ (id >> 31)
    }

    pub(super) fn record(&self, record: impl Into<Event>) {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    /// Counts the end of a connection against its client.
    pub(super) fn judge_connection(&self, policy: &ApiPolicy, client: IpAddr, reason: Reason) {
        let weight = firewall_inspect::reputation::weight(reason, None);
        let conduct = Conduct { client, direct: true, verdict: Verdict::Refuse, reason: Some(reason), weight };
        self.reputation().judge(self, policy, &conduct);
    }

    /// Milliseconds since it last said that it lives.
    pub(super) fn silent_for(&self) -> Duration {
        self.shared.began.elapsed().saturating_sub(Duration::from_millis(self.beaten.load(Relaxed)))
    }

    fn beat(&self) {
        self.beaten.store(u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// A worker's thread, for whoever commands it.
pub(super) struct Thread {
    pub(super) worker: Arc<Worker>,
    entrances: mpsc::UnboundedSender<Arc<Entrance>>,
    handle: JoinHandle<()>,
}

impl Thread {
    pub(super) fn spawn(shared: &Arc<Shared>, sinks: &Arc<Sinks>, number: u32) -> io::Result<Self> {
        let seed = RandomState::new().hash_one(number);
        let worker = Arc::new(Worker {
            shared: Arc::clone(shared),
            pool: Pool::default(),
            recorder: Mutex::new(Recorder::new(Arc::clone(sinks))),
            rules: Mutex::default(),
            seed,
            ids: AtomicU64::new(0),
            beaten: AtomicU64::new(0),
        });
        worker.beat();
        let (entrances, commands) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let own = Arc::clone(&worker);
        let handle = std::thread::Builder::new()
            .name(format!("gateway-{number}"))
            .spawn(move || runtime.block_on(work(own, commands)))?;
        Ok(Self { worker, entrances, handle })
    }

    /// Has it accept here, too.
    pub(super) fn enter(&self, entrance: &Arc<Entrance>) {
        let _gone = self.entrances.send(Arc::clone(entrance));
    }

    /// Ends it; what it recorded is handed on first.
    pub(super) fn join(self) {
        drop(self.entrances);
        let _panicked = self.handle.join();
    }
}

/// Ends when its thread's handle is dropped.
async fn work(worker: Arc<Worker>, mut entrances: mpsc::UnboundedReceiver<Arc<Entrance>>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            entrance = entrances.recv() => {
                let Some(entrance) = entrance else { break };
                tokio::spawn(accept(Arc::clone(&worker), entrance));
            }
            _ = tick.tick() => {
                ticks = ticks.wrapping_add(1);
                worker.recorder.lock().unwrap_or_else(PoisonError::into_inner).flush();
                if ticks.is_multiple_of(BEAT_EVERY) {
                    worker.beat();
                }
                if ticks.is_multiple_of(SWEEP_EVERY) {
                    worker.pool.sweep();
                }
            }
        }
    }
    worker.recorder.lock().unwrap_or_else(PoisonError::into_inner).flush();
}

/// Accepts until the entrance closes.
async fn accept(worker: Arc<Worker>, entrance: Arc<Entrance>) {
    let listener = entrance.listener.try_clone().and_then(TcpListener::from_std);
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("a worker cannot accept connections: {error}"),
    };
    let mut closed = entrance.closed.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok((stream, peer)) => receive(&worker, &entrance, stream, peer),
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(BREATHE).await;
            }
        }
    }
}

fn receive(worker: &Arc<Worker>, entrance: &Entrance, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let (peer, local) = (canonical(peer), canonical(local));
    let Some(slot) = entrance.slot(peer, local) else { return };
    tokio::spawn(connection::serve(Arc::clone(worker), slot, stream, peer, local));
}

/// An IPv4 address in IPv6 notation, as a dual-stack listener gives it, as the IPv4 address it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
