//! The edge back: what the gateway condemns, the kernel drops from then on.
//!
//! In: [`Sentence`]s from any thread, which never waits. Out: entries of the kernel's table of bans, events, and for
//! `portcullis bans` the cause of each. A thread of its own carries them out with its own handle on the table: a reload may
//! hold the core for a second, and a ban must not wait for it. While a reload moves from one table to another, both are
//! written.
//!
//! It bans nobody whom [`Exempt`] spares, shortens no ban, and touches none that an operator set. What it cannot carry out is
//! counted, and the client goes on being refused by the gateway: it fails open only below.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use aya::maps::MapError;
use firewall_common::{
    ban::{Ban, BanKey, BanOrigin},
    counter::NO_RULE,
};
use firewall_inspect::reason::Reason;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    bans::{self, LONGEST, prefix_of},
    exempt::Exempt,
};
use crate::{
    dmz::shared::BanTable,
    events::{BanOutcome, BanRecord, Sinks},
};

/// Sentences that may wait. One takes a few microseconds.
const QUEUE: usize = 4096;
/// Bans whose causes are kept.
const CAUSES: usize = 1 << 16;

/// A client whose reputation is spent.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// The peer of a connection, so proven by its handshake; never one that a proxy named.
    pub address: IpAddr,
    /// Taken as 1 second to 365 days.
    pub lasts: Duration,
    pub score: u32,
    /// Sentences of this client within a day, this one included.
    pub offences: u32,
    /// The one whose requests made it too much.
    pub api: Arc<str>,
    /// Of the last refusal.
    pub reason: Reason,
}

/// What the kernel does not keep of a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub api: Arc<str>,
    /// [`Reason::name`] of the last refusal.
    pub reason: Arc<str>,
    pub score: u32,
    pub offences: u32,
}

/// What became of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Set,
    /// A longer ban, or one of the operator, was there.
    Kept,
    /// The address is never banned.
    Spared,
    Monitored,
    /// The table is full, or would not take it.
    Failed,
    /// Too many sentences at once.
    Overflow,
}

impl Outcome {
    pub const ALL: [Self; 6] = [Self::Set, Self::Kept, Self::Spared, Self::Monitored, Self::Failed, Self::Overflow];

    /// The name in `status` and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Kept => "kept",
            Self::Spared => "protected",
            Self::Monitored => "monitored",
            Self::Failed => "failed",
            Self::Overflow => "overflow",
        }
    }
}

/// A handle; all clones are of the same. The thread ends with the last of them.
#[derive(Clone)]
pub struct Condemner {
    queue: SyncSender<Order>,
    bench: Arc<Bench>,
}

enum Order {
    Sentence(Sentence),
    /// Answer once all before is done.
    Tell(SyncSender<()>),
}

type Forget = Box<dyn Fn(IpNet) + Send + Sync>;

struct Bench {
    /// Two while a reload moves from the first to the last. Held for microseconds, by the thread, and by those who must
    /// not be interrupted by it.
    tables: Mutex<Vec<BanTable>>,
    exempt: ArcSwap<Exempt>,
    /// With the end of each ban.
    causes: Mutex<HashMap<BanKey, (u64, Cause)>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    changed: Arc<AtomicBool>,
    forget: OnceLock<Forget>,
    sinks: Arc<Sinks>,
}

impl Condemner {
    /// Bans nobody until it was told whom not to ban.
    pub fn start(table: BanTable, sinks: Arc<Sinks>) -> io::Result<Self> {
        let (queue, orders) = sync_channel(QUEUE);
        let bench = Arc::new(Bench {
            tables: Mutex::new(vec![table]),
            exempt: ArcSwap::from_pointee(Exempt::default()),
            causes: Mutex::default(),
            outcomes: Default::default(),
            changed: Arc::default(),
            forget: OnceLock::new(),
            sinks,
        });
        let thread = Arc::clone(&bench);
        std::thread::Builder::new().name("condemn".to_owned()).spawn(move || work(&thread, &orders))?;
        Ok(Self { queue, bench })
    }

    // For the gateway.

    /// Has the kernel drop this client from now on. Never waits.
    pub fn condemn(&self, sentence: Sentence) {
        if self.queue.try_send(Order::Sentence(sentence)).is_err() {
            self.bench.count(Outcome::Overflow);
        }
    }

    /// Whether this address is never banned: one of the host, its gateways and resolvers, of an allow list, or a trusted
    /// proxy of any API.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.bench.exempt.load().spares(address)
    }

    /// What a ban of this address hits.
    pub fn prefix(&self, address: IpAddr) -> IpNet {
        prefix_of(&self.bench.exempt.load().key(address))
    }

    /// Whether bans are only told of.
    pub fn only_tells(&self) -> bool {
        self.bench.exempt.load().monitor
    }

    /// `forget` is called with each prefix whose ban an operator lifts, before it is lifted. Only the first call counts.
    pub fn on_unban(&self, forget: impl Fn(IpNet) + Send + Sync + 'static) {
        let _already = self.bench.forget.set(Box::new(forget));
    }

    // For the agent.

    /// Replaces what is known of who is never banned.
    pub(super) fn spare(&self, exempt: Exempt) {
        // Not while a sentence is judged by the one before: once this returns, no ban comes by that any more.
        let _pause = self.pause();
        self.bench.exempt.store(Arc::new(exempt));
    }

    /// What is known of who is never banned.
    pub(super) fn exempt(&self) -> Arc<Exempt> {
        self.bench.exempt.load_full()
    }

    /// Keeps the thread from writing to the table, for microseconds.
    pub(super) fn pause(&self) -> MutexGuard<'_, Vec<BanTable>> {
        lock(&self.bench.tables)
    }

    /// Writes to `table` as well from now on.
    pub(super) fn add_table(&self, table: BanTable) {
        self.pause().push(table);
    }

    /// Ends what [`Self::add_table`] began: the last table is the one in use.
    pub(super) fn keep_last_table(&self) {
        let mut tables = self.pause();
        let last = tables.len() - 1;
        tables.drain(..last);
    }

    /// The same, but the first table stays in use.
    pub(super) fn keep_first_table(&self) {
        self.pause().truncate(1);
    }

    /// Makes the gateway forget clients of this prefix.
    pub(super) fn forget(&self, prefix: IpNet) {
        if let Some(forget) = self.bench.forget.get() {
            forget(prefix);
        }
    }

    /// Set whenever a ban was.
    pub(super) fn changed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.bench.changed)
    }

    pub(super) fn cause(&self, key: &BanKey) -> Option<Cause> {
        lock(&self.bench.causes).get(key).map(|(_, cause)| cause.clone())
    }

    /// Takes over what a file says of a ban that is in the table.
    pub(super) fn remember(&self, key: BanKey, until: u64, cause: Cause) {
        let mut causes = lock(&self.bench.causes);
        if causes.len() < CAUSES {
            causes.insert(key, (until, cause));
        }
    }

    /// Forgets causes of bans that are over.
    pub(super) fn sweep(&self, now: u64) {
        lock(&self.bench.causes).retain(|_, (until, _)| *until > now);
    }

    /// Sentences so far, by what became of them.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let count = |outcome: Outcome| self.bench.outcomes[outcome as usize].load(Ordering::Relaxed);
        Outcome::ALL.into_iter().map(move |outcome| (outcome.name(), count(outcome)))
    }

    /// Waits, `within` this time, until every sentence so far is carried out.
    pub fn settle(&self, within: Duration) {
        let (done, answer) = sync_channel(1);
        if self.queue.try_send(Order::Tell(done)).is_ok() {
            let _late = answer.recv_timeout(within);
        }
    }
}

/// A panic of another holder leaves each of these as it was before or after one entry.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(bench: &Bench, orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Sentence(sentence) => bench.carry_out(sentence),
            // Whoever asked may have given up.
            Order::Tell(done) => drop(done.try_send(())),
        }
    }
}

impl Bench {
    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn carry_out(&self, sentence: Sentence) {
        let source = sentence.address.to_canonical();
        let lasts = sentence.lasts.clamp(Duration::from_secs(1), LONGEST);
        let (key, outcome) = self.judge(source, lasts, &sentence);
        self.count(outcome);
        let told = match outcome {
            Outcome::Set => BanOutcome::Ban,
            Outcome::Monitored => BanOutcome::Monitor,
            Outcome::Failed => BanOutcome::Fail,
            Outcome::Kept | Outcome::Spared | Outcome::Overflow => return,
        };
        let Sentence { score, offences, api, reason, .. } = sentence;
        let prefix = prefix_of(&key);
        let time = SystemTime::now();
        self.sinks.send(BanRecord { time, outcome: told, api, source, prefix, cause: reason, score, offences, lasts });
    }

    fn judge(&self, source: IpAddr, lasts: Duration, sentence: &Sentence) -> (BanKey, Outcome) {
        let mut tables = lock(&self.tables);
        let exempt = self.exempt.load();
        let key = exempt.key(source);
        if exempt.spares(source) {
            return (key, Outcome::Spared);
        }
        if exempt.monitor {
            return (key, Outcome::Monitored);
        }
        let since = bans::now();
        let until = since.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
        let origin = BanOrigin::Reputation as u8;
        let ban = Ban { until, since, packets: 0, origin, padding: 0, rule: NO_RULE, padding2: 0 };
        let outcomes: Vec<_> = tables.iter_mut().map(|table| set(table, &key, ban)).collect();
        let outcome = [Outcome::Set, Outcome::Failed].into_iter().find(|outcome| outcomes.contains(outcome));
        let outcome = outcome.unwrap_or(Outcome::Kept);
        if outcome == Outcome::Set {
            let Sentence { score, offences, .. } = *sentence;
            let cause =
                Cause { api: Arc::clone(&sentence.api), reason: sentence.reason.name().into(), score, offences };
            let mut causes = lock(&self.causes);
            if causes.len() < CAUSES || causes.contains_key(&key) {
                causes.insert(key, (until, cause));
            }
            self.changed.store(true, Ordering::Relaxed);
        }
        (key, outcome)
    }
}

/// Puts `ban` into the table, unless a better one is there.
fn set(table: &mut BanTable, key: &BanKey, ban: Ban) -> Outcome {
    const ANY: u64 = 0;
    const NO_EXIST: u64 = 1;
    // The kernel may set one between two of our steps: then look again.
    for _ in 0..4 {
        let flags = match table.get(key, 0) {
            Ok(found) if found.until > ban.since && is_better(&found, &ban) => return Outcome::Kept,
            Ok(_) => ANY,
            Err(MapError::KeyNotFound) => NO_EXIST,
            Err(_) => return Outcome::Failed,
        };
        match table.insert(key, ban, flags) {
            Ok(()) => return Outcome::Set,
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(_) => return Outcome::Failed,
        }
    }
    Outcome::Failed
}

fn is_better(found: &Ban, ban: &Ban) -> bool {
    found.origin == BanOrigin::Operator as u8 || found.until >= ban.until
}
