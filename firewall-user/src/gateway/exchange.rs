//! One request and its answer, as far as they came: what the record of the request and the reputation of its client are
//! made of. Shared by the service, the two bodies and, for HTTP/2, the watch over slow readers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use firewall_inspect::{
    reason::Reason,
    seclang::EngineMode,
    transaction::{self, About, Transaction},
};
use hyper::body::Incoming;

use super::{connection::Peer, policy::ApiPolicy, reputation::Conduct, worker::Worker};
use crate::events::request::{Content, RequestRecord, Verdict};

/// What is known of a request; told when the last who holds it lets go.
pub(super) struct Exchange {
    worker: Arc<Worker>,
    policy: Arc<ApiPolicy>,
    peer: Arc<Peer>,
    pub(super) id: u64,
    time: SystemTime,
    began: Instant,
    request: Request,
    verdict: AtomicU8,
    /// Of the reason, plus one.
    reason: AtomicU8,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Microseconds after `began`, plus one: when the upstream's head came.
    upstream: AtomicU64,
    /// Microseconds after `began`: when the client last sent or took some of a body.
    progress: AtomicU64,
    /// The answer waits for the upstream, not for the client.
    waiting: AtomicBool,
    /// Of a refusal, for the client's reputation.
    weight: AtomicU32,
    /// What is left of the request's body, to be let go of with the exchange.
    rest: Mutex<Option<Incoming>>,
    /// Before content rules, where the API has some.
    transaction: Mutex<Option<Box<Transaction>>>,
}

/// What the request said.
#[derive(Default)]
pub(super) struct Request {
    pub(super) client: Option<IpAddr>,
    pub(super) proxy: Option<IpAddr>,
    pub(super) method: Box<str>,
    pub(super) host: Option<Box<str>>,
    pub(super) path: Box<str>,
    pub(super) version: Option<&'static str>,
}

impl Exchange {
    pub(super) fn new(worker: &Arc<Worker>, policy: &Arc<ApiPolicy>, peer: &Arc<Peer>, request: Request) -> Arc<Self> {
        Arc::new(Self {
            worker: Arc::clone(worker),
            policy: Arc::clone(policy),
            peer: Arc::clone(peer),
            id: worker.next_id(),
            time: SystemTime::now(),
            began: Instant::now(),
            request,
            verdict: AtomicU8::new(0),
            reason: AtomicU8::new(0),
            status: AtomicU16::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            upstream: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            waiting: AtomicBool::new(true),
            weight: AtomicU32::new(0),
            rest: Mutex::default(),
            transaction: Mutex::default(),
        })
    }

    /// Content rules look at the request from now on; `client` is whom it is from.
    pub(super) fn inspect_from(&self, client: SocketAddr) {
        let Some(set) = &self.policy.config.rules else { return };
        let about = About { client, server: self.peer.local, time: self.time, id: self.id };
        let transaction = Transaction::new(Arc::clone(set.rules()), about, EngineMode::On);
        *self.transaction.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(transaction));
    }

    /// Runs content rules; `None` without any.
    pub(super) fn inspect<T>(&self, run: impl FnOnce(&mut Transaction, &mut transaction::Worker) -> T) -> Option<T> {
        let mut transaction = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        transaction.as_mut().map(|transaction| run(transaction, &mut self.worker.rules()))
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn policy(&self) -> &ApiPolicy {
        &self.policy
    }

    /// Microseconds since the head came.
    pub(super) fn age(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The first reason counts, but for one that was only noted.
    pub(super) fn fail(&self, verdict: Verdict, reason: Reason) {
        let noted = self.verdict.load(Relaxed) == Verdict::Monitor as u8 && verdict != Verdict::Monitor;
        if noted || self.reason.load(Relaxed) == 0 {
            self.reason.store(reason as u8 + 1, Relaxed);
            self.verdict.store(verdict as u8, Relaxed);
        }
    }

    /// What the refusal weighs against the client.
    pub(super) fn weighs(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        let number = self.reason.load(Relaxed).checked_sub(1)?;
        Reason::ALL.get(usize::from(number)).copied()
    }

    /// Why the client's body broke off, if it did.
    pub(super) fn cut(&self) -> Option<Reason> {
        self.reason().filter(|_| self.verdict.load(Relaxed) == Verdict::Refuse as u8)
    }

    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    pub(super) fn upstream_answered(&self) {
        self.upstream.store(self.age() + 1, Relaxed);
    }

    pub(super) fn took(&self, bytes: usize) -> u64 {
        self.progress.store(self.age(), Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed) + bytes as u64
    }

    pub(super) fn gave(&self, bytes: usize) {
        self.progress.store(self.age(), Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Keeps what is left of the request's body until the answer is over.
    pub(super) fn keep(&self, rest: Incoming) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    pub(super) fn waits(&self, waiting: bool) {
        self.waiting.store(waiting, Relaxed);
    }

    /// How long ago a body moved.
    pub(super) fn still_for(&self) -> Duration {
        Duration::from_micros(self.age().saturating_sub(self.progress.load(Relaxed)))
    }

    /// How long the client has taken none of an answer that is there.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        (!self.waiting.load(Relaxed)).then(|| self.still_for())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut reason = self.reason();
        let status = *self.status.get_mut();
        if reason.is_none() && status == 0 {
            reason = Some(Reason::ClientGone);
            *self.verdict.get_mut() = Verdict::Fail as u8;
        }
        let verdict = match *self.verdict.get_mut() {
            0 => Verdict::Pass,
            1 => Verdict::Refuse,
            2 => Verdict::Monitor,
            _ => Verdict::Fail,
        };
        let content = self.inspect(|transaction, worker| {
            transaction.finish(worker);
            Content::of(transaction)
        });
        let request = std::mem::take(&mut self.request);
        let client = request.client.unwrap_or(self.peer.address.ip());
        let duration = self.age();
        let upstream = self.upstream.get_mut().checked_sub(1);
        let metrics = &self.policy.metrics;
        metrics.request(request.method.as_bytes(), status, verdict, reason, duration, upstream);
        if let (Verdict::Fail, Some(reason)) = (verdict, reason) {
            metrics.upstream_error(reason);
        }
        let direct = request.proxy.is_none();
        let weight = *self.weight.get_mut();
        let conduct = Conduct { client, direct, verdict, reason, weight };
        self.worker.reputation().judge(&self.worker, &self.policy, &conduct);
        self.worker.record(RequestRecord {
            time: self.time,
            id: self.id,
            api: self.policy.name(),
            client,
            client_port: self.peer.address.port(),
            proxy: request.proxy,
            method: request.method,
            host: request.host,
            path: request.path,
            version: request.version,
            tls: self.peer.tls,
            verdict,
            reason,
            status,
            bytes_in: *self.bytes_in.get_mut(),
            bytes_out: *self.bytes_out.get_mut(),
            duration,
            upstream,
            generation: self.policy.generation,
            content: content.map(Box::new),
        });
    }
}
