//! What the gateway counts, for each API, from several threads.
//!
//! In: one call for whatever happened. Out: [`ApiTraffic`], which `status` and the metrics show. Labels come from closed
//! sets, so what a client sends makes no new series. Counters live as long as the API's name does, reloads included.

use std::{
    array,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use firewall_inspect::reason::Reason;

use crate::{
    control::api::{ApiTraffic, Connections, Handshakes, Latency, RequestCount, Requests, Tunnels},
    events::request::Verdict,
};

/// Upper bounds of the latency buckets, inclusive, in microseconds; one more is for what is above.
pub const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// Methods with a series of their own; all others share the last.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "other"];
/// Status classes; the first is of requests without an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Reasons, and a place for none before them.
const REASONS: usize = Reason::ALL.len() + 1;
/// Counters of good requests are apart for so many threads, so that these do not wait for each other's cache lines.
const SHARDS: usize = 8;

/// The counters of all APIs.
#[derive(Debug, Default)]
pub struct Metrics {
    apis: Mutex<BTreeMap<Box<str>, Arc<ApiMetrics>>>,
}

impl Metrics {
    /// The counters of this API; new ones if there are none yet.
    pub fn api(&self, name: &str) -> Arc<ApiMetrics> {
        let mut apis = self.apis.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(apis.entry(name.into()).or_default())
    }

    /// Forgets the counters of APIs that `keep` does not accept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.apis.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| keep(name));
    }
}

/// The counters of an API. Every call is a handful of atomic additions.
#[derive(Debug)]
pub struct ApiMetrics {
    shards: [Shard; SHARDS],
    /// Requests that did not just pass: by [`index`].
    others: Box<[AtomicU64]>,
    accepted: AtomicU64,
    open: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    cut: [AtomicU64; Reason::ALL.len()],
    upstream: [AtomicU64; Reason::ALL.len()],
    handshakes: [AtomicU64; 2],
    tunnels: AtomicU64,
    tunnels_open: AtomicU64,
    reset: AtomicU64,
}

/// On cache lines of its own, and of those that the processor reads ahead.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    passed: [AtomicU64; METHODS.len() * CLASSES.len()],
    total: Histogram,
    gateway: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

impl Histogram {
    fn observe(&self, micros: u64) {
        add(&self.buckets[BOUNDS.partition_point(|bound| *bound < micros)]);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Default for ApiMetrics {
    fn default() -> Self {
        let counters = || array::from_fn(|_| AtomicU64::new(0));
        Self {
            shards: array::from_fn(|_| Shard {
                passed: array::from_fn(|_| AtomicU64::new(0)),
                total: Histogram::default(),
                gateway: Histogram::default(),
            }),
            others: (0..METHODS.len() * CLASSES.len() * Verdict::ALL.len() * REASONS)
                .map(|_| AtomicU64::new(0))
                .collect(),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            refused: counters(),
            cut: counters(),
            upstream: counters(),
            handshakes: Default::default(),
            tunnels: AtomicU64::new(0),
            tunnels_open: AtomicU64::new(0),
            reset: AtomicU64::new(0),
        }
    }
}

impl ApiMetrics {
    /// Counts a request once it is over. `status` is what the client got, 0 if nothing. Times are microseconds: all, and
    /// of these, those spent waiting for the upstream's head.
    pub fn request(
        &self,
        method: &[u8],
        status: u16,
        verdict: Verdict,
        reason: Option<Reason>,
        total: u64,
        upstream: Option<u64>,
    ) {
        let shard = &self.shards[shard()];
        let kind = kind(method, status);
        match (verdict, reason) {
            (Verdict::Pass, None) => add(&shard.passed[kind]),
            _ => add(&self.others[index(kind, verdict, reason)]),
        }
        shard.total.observe(total);
        shard.gateway.observe(total.saturating_sub(upstream.unwrap_or(0)));
    }

    /// Counts a connection that was accepted, as open until the result is dropped.
    pub fn connection(self: &Arc<Self>) -> Open {
        add(&self.accepted);
        Open::new(self, |metrics| &metrics.open)
    }

    /// Counts a connection that was closed before it had a request.
    pub fn connection_refused(&self, reason: Reason) {
        add(&self.refused[reason as usize]);
    }

    /// Counts a connection that was cut off by us after that: a slow reader, a flood.
    pub fn cut(&self, reason: Reason) {
        add(&self.cut[reason as usize]);
    }

    /// Counts a TLS handshake, when it is over.
    pub fn handshake(&self, succeeded: bool) {
        add(&self.handshakes[usize::from(!succeeded)]);
    }

    /// Counts a fault of the upstream.
    pub fn upstream_error(&self, reason: Reason) {
        add(&self.upstream[reason as usize]);
    }

    /// Counts a tunnel, as open until the result is dropped.
    pub fn tunnel(self: &Arc<Self>) -> Open {
        add(&self.tunnels);
        Open::new(self, |metrics| &metrics.tunnels_open)
    }

    /// Counts connections that were there before the agent, and were reset.
    pub fn reset(&self, connections: u64) {
        self.reset.fetch_add(connections, Ordering::Relaxed);
    }

    /// All of it, at about this moment.
    pub fn traffic(&self) -> ApiTraffic {
        let counts = self.counts();
        let of = |verdict: Verdict| {
            let of = counts.iter().filter(|count| count.verdict == verdict.name());
            of.map(|count| count.count).sum()
        };
        let mut reasons = by_reason(&self.refused);
        for count in &counts {
            if let Some(reason) = &count.reason {
                *reasons.entry(reason.clone()).or_default() += count.count;
            }
        }
        ApiTraffic {
            connections: Connections {
                open: get(&self.open),
                accepted: get(&self.accepted),
                refused: by_reason(&self.refused),
                cut: by_reason(&self.cut),
                reset: get(&self.reset),
            },
            requests: Requests {
                passed: of(Verdict::Pass),
                refused: of(Verdict::Refuse),
                monitored: of(Verdict::Monitor),
                failed: of(Verdict::Fail),
            },
            reasons,
            upstream_errors: by_reason(&self.upstream),
            handshakes: Handshakes { succeeded: get(&self.handshakes[0]), failed: get(&self.handshakes[1]) },
            tunnels: Tunnels { open: get(&self.tunnels_open), total: get(&self.tunnels) },
            duration: self.latency(|shard| &shard.total),
            gateway_duration: self.latency(|shard| &shard.gateway),
            counts,
        }
    }

    /// Each combination that there was.
    fn counts(&self) -> Vec<RequestCount> {
        let mut counts = Vec::new();
        for (kind, (method, class)) in kinds().enumerate() {
            let passed: u64 = self.shards.iter().map(|shard| get(&shard.passed[kind])).sum();
            for verdict in Verdict::ALL {
                for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
                    let plain = if (verdict, reason) == (Verdict::Pass, None) { passed } else { 0 };
                    let count = get(&self.others[index(kind, verdict, reason)]) + plain;
                    if count > 0 {
                        counts.push(RequestCount {
                            method: method.to_owned(),
                            status: class.to_owned(),
                            verdict: verdict.name().to_owned(),
                            reason: reason.map(|reason| reason.name().to_owned()),
                            count,
                        });
                    }
                }
            }
        }
        counts
    }

    fn latency(&self, of: impl Fn(&Shard) -> &Histogram) -> Latency {
        let sum = |counter: &dyn Fn(&Histogram) -> u64| self.shards.iter().map(|shard| counter(of(shard))).sum();
        Latency {
            buckets: (0..=BOUNDS.len()).map(|bucket| sum(&|histogram| get(&histogram.buckets[bucket]))).collect(),
            sum_us: sum(&|histogram| get(&histogram.sum)),
        }
    }
}

/// Something that is open until this is dropped.
#[derive(Debug)]
pub struct Open {
    metrics: Arc<ApiMetrics>,
    counter: fn(&ApiMetrics) -> &AtomicU64,
}

impl Open {
    fn new(metrics: &Arc<ApiMetrics>, counter: fn(&ApiMetrics) -> &AtomicU64) -> Self {
        add(counter(metrics));
        Self { metrics: Arc::clone(metrics), counter }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.counter)(&self.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn by_reason(counters: &[AtomicU64; Reason::ALL.len()]) -> BTreeMap<String, u64> {
    let counted = Reason::ALL.iter().map(|reason| (reason.name().to_owned(), get(&counters[*reason as usize])));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// The shard of the calling thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    SHARD.with(|shard| *shard)
}

/// Number of a method and a status class, in the order of [`kinds`].
fn kind(method: &[u8], status: u16) -> usize {
    let other = METHODS.len() - 1;
    let method = METHODS[..other].iter().position(|known| known.as_bytes() == method).unwrap_or(other);
    let class = usize::from(status / 100);
    method * CLASSES.len() + if class < CLASSES.len() { class } else { 0 }
}

fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    METHODS.into_iter().flat_map(|method| CLASSES.into_iter().map(move |class| (method, class)))
}

fn index(kind: usize, verdict: Verdict, reason: Option<Reason>) -> usize {
    let reason = reason.map_or(0, |reason| reason as usize + 1);
    (kind * Verdict::ALL.len() + verdict as usize) * REASONS + reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_a_place_of_its_own() {
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        assert!(Verdict::ALL.iter().enumerate().all(|(index, verdict)| *verdict as usize == index));
        let metrics = ApiMetrics::default();
        let statuses = [0, 101, 204, 301, 404, 503];
        for method in METHODS {
            for status in statuses {
                for verdict in Verdict::ALL {
                    for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
                        metrics.request(method.as_bytes(), status, verdict, reason, 1, None);
                    }
                }
            }
        }
        let counts = metrics.counts();
        assert_eq!(counts.len(), METHODS.len() * CLASSES.len() * Verdict::ALL.len() * REASONS);
        assert!(counts.iter().all(|count| count.count == 1));
    }

    #[test]
    fn strange_methods_and_statuses_make_no_new_series() {
        let metrics = ApiMetrics::default();
        for method in [&b"get"[..], b"", b"GETX", b"\xff\n", b"PROPFIND"] {
            metrics.request(method, 999, Verdict::Refuse, Some(Reason::Method), 1, None);
        }
        let [count] = &metrics.counts()[..] else { panic!("{:?}", metrics.counts()) };
        assert_eq!((count.method.as_str(), count.status.as_str(), count.count), ("other", "none", 5));
    }

    #[test]
    fn counts_what_it_is_told_from_many_threads() {
        let metrics = Metrics::default();
        let api = metrics.api("shop");
        std::thread::scope(|scope| {
            for _ in 0..SHARDS * 2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        api.request(b"GET", 200, Verdict::Pass, None, 700, Some(300));
                        api.request(b"GET", 400, Verdict::Refuse, Some(Reason::PathAboveRoot), 500, None);
                    }
                });
            }
        });
        let total = SHARDS as u64 * 2 * 1000;
        // By name it goes on.
        let traffic = metrics.api("shop").traffic();
        let Requests { passed, refused, monitored, failed } = traffic.requests;
        assert_eq!((passed, refused, monitored, failed), (total, total, 0, 0));
        assert_eq!(traffic.reasons, BTreeMap::from([("path-above-root".to_owned(), total)]));
        assert_eq!(traffic.duration.buckets[..3], [total, total, 0]);
        assert_eq!(traffic.duration.sum_us, total * 1200);
        assert_eq!(traffic.gateway_duration.buckets[..2], [total * 2, 0]);
        assert_eq!(traffic.gateway_duration.sum_us, total * 900);
        metrics.retain(|name| name != "shop");
        assert_eq!(metrics.api("shop").traffic(), ApiTraffic { ..ApiMetrics::default().traffic() });
    }

    #[test]
    fn bounds_are_inclusive_and_nothing_falls_out() {
        let metrics = ApiMetrics::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001, u64::MAX / 2] {
            metrics.request(b"GET", 200, Verdict::Pass, None, micros, None);
        }
        let buckets = metrics.traffic().duration.buckets;
        assert_eq!((buckets[0], buckets[1], buckets[13], buckets[14]), (2, 1, 1, 2));
        assert_eq!(buckets.len(), 15);
    }

    #[test]
    fn what_is_open_is_open_until_dropped() {
        let metrics = Arc::new(ApiMetrics::default());
        let (connection, tunnel) = (metrics.connection(), metrics.tunnel());
        metrics.connection_refused(Reason::ConnectionsPerClient);
        metrics.cut(Reason::SlowReader);
        metrics.handshake(true);
        metrics.handshake(false);
        metrics.upstream_error(Reason::UpstreamTimeout);
        metrics.reset(3);
        let traffic = metrics.traffic();
        assert_eq!((traffic.connections.open, traffic.tunnels.open), (1, 1));
        drop((connection, tunnel));
        let traffic = metrics.traffic();
        let one = |name: &str| BTreeMap::from([(name.to_owned(), 1)]);
        let expected = Connections {
            open: 0,
            accepted: 1,
            refused: one("connections-per-client"),
            cut: one("slow-reader"),
            reset: 3,
        };
        assert_eq!(traffic.connections, expected);
        assert_eq!(traffic.tunnels, Tunnels { open: 0, total: 1 });
        assert_eq!(traffic.handshakes, Handshakes { succeeded: 1, failed: 1 });
        assert_eq!(traffic.upstream_errors, one("upstream-timeout"));
    }
}
