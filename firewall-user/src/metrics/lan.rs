//! The metrics of the LAN layer.

use std::collections::BTreeMap;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, counter::ConstCounter},
    registry::Unit,
};

use super::{Labels, Metrics, Samples, flag};
use crate::{
    control::api::{ApiStatus, Latency, Status},
    gateway::metrics::BOUNDS,
};

impl Metrics {
    pub(super) fn lan(&mut self, status: &Status) {
        let sentences = status.sentences.iter().map(|(outcome, count)| (outcome.as_str(), *count));
        self.counters("lan_ban_attempts", "Bans that the LAN layer asked for", "outcome", sentences);
        let apis = &status.apis;
        let protected = apis.iter().map(|api| {
            let labels = vec![("api", api.name.clone()), ("mode", api.mode.clone())];
            (labels, flag(api.protected))
        });
        self.gauges("lan_protected", "1 if requests to the API go through the gateway", protected);
        self.requests(apis);
        self.connections(apis);
        self.steering(apis);
    }

    fn requests(&mut self, apis: &[ApiStatus]) {
        let requests = apis.iter().flat_map(|api| {
            api.traffic.counts.iter().map(|count| {
                let labels = vec![
                    ("api", api.name.clone()),
                    ("method", count.method.clone()),
                    ("status", count.status.clone()),
                    ("verdict", count.verdict.clone()),
                    ("reason", count.reason.clone().unwrap_or_default()),
                ];
                (labels, ConstCounter::new(count.count))
            })
        });
        self.registry.register("lan_requests", "Requests", Samples(requests.collect()));
        let mut duration = |name: &str, help: &str, of: fn(&ApiStatus) -> &Latency| {
            let samples = apis.iter().map(|api| (vec![("api", api.name.clone())], ConstHistogram(of(api).clone())));
            self.registry.register_with_unit(name, help, Unit::Seconds, Samples(samples.collect()));
        };
        duration("lan_request_duration", "Time from a request's head to the end of its answer", |api| {
            &api.traffic.duration
        });
        duration("lan_gateway_duration", "The same, without the wait for the upstream's answer to begin", |api| {
            &api.traffic.gateway_duration
        });
        self.by_reason("lan_upstream_errors", "Faults of the upstream", apis, |api| &api.traffic.upstream_errors);
    }

    fn connections(&mut self, apis: &[ApiStatus]) {
        let open = apis.iter().map(|api| (vec![("api", api.name.clone())], api.traffic.connections.open));
        self.gauges("lan_connections_open", "Connections of clients", open);
        self.each("lan_connections_accepted", "Connections of clients so far", apis, |api| {
            api.traffic.connections.accepted
        });
        self.by_reason("lan_connections_refused", "Connections closed before they had a request", apis, |api| {
            &api.traffic.connections.refused
        });
        self.by_reason("lan_connections_cut", "Connections cut off by the gateway later", apis, |api| {
            &api.traffic.connections.cut
        });
        self.each("lan_connections_reset", "Connections older than the agent that were reset", apis, |api| {
            api.traffic.connections.reset
        });
        let handshakes = apis.iter().flat_map(|api| {
            let handshakes = api.traffic.handshakes;
            [("succeeded", handshakes.succeeded), ("failed", handshakes.failed)].map(|(result, count)| {
                let labels = vec![("api", api.name.clone()), ("result", result.to_owned())];
                (labels, ConstCounter::new(count))
            })
        });
        self.registry.register("lan_tls_handshakes", "TLS handshakes with clients", Samples(handshakes.collect()));
        let open = apis.iter().map(|api| (vec![("api", api.name.clone())], api.traffic.tunnels.open));
        self.gauges("lan_tunnels_open", "Connections that changed to another protocol", open);
        self.each("lan_tunnels", "The same, so far", apis, |api| api.traffic.tunnels.total);
    }

    fn steering(&mut self, apis: &[ApiStatus]) {
        let steering = apis.iter().filter_map(|api| api.steering.as_ref().map(|steering| (api, steering)));
        let samples = steering.flat_map(|(api, steering)| {
            let outcomes = [
                ("steered", steering.steered),
                ("exempt", steering.exempt),
                ("gone-open", steering.gone_open),
                ("gone-closed", steering.gone_closed),
            ];
            outcomes.map(|(outcome, count)| {
                let labels = vec![("api", api.name.clone()), ("outcome", outcome.to_owned())];
                (labels, ConstCounter::new(count))
            })
        });
        let help = "Connections to steered ports, by what the kernel did with them";
        self.registry.register("lan_steering", help, Samples(samples.collect()));
    }

    fn each(&mut self, name: &str, help: &str, apis: &[ApiStatus], of: fn(&ApiStatus) -> u64) {
        let samples = apis.iter().map(|api| (vec![("api", api.name.clone())], ConstCounter::new(of(api))));
        self.registry.register(name, help, Samples(samples.collect()));
    }

    fn by_reason(&mut self, name: &str, help: &str, apis: &[ApiStatus], of: fn(&ApiStatus) -> &BTreeMap<String, u64>) {
        let samples = apis.iter().flat_map(|api| {
            of(api).iter().map(|(reason, count)| {
                let labels: Labels = vec![("api", api.name.clone()), ("reason", reason.clone())];
                (labels, ConstCounter::new(*count))
            })
        });
        self.registry.register(name, help, Samples(samples.collect()));
    }
}

/// Latencies that were counted elsewhere.
#[derive(Debug)]
struct ConstHistogram(Latency);

impl TypedMetric for ConstHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for ConstHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        const MICROSECONDS: f64 = 1e6;
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / MICROSECONDS).chain([f64::INFINITY]);
        // A status of a peer may have fewer.
        let counts = self.0.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.0.sum_us as f64 / MICROSECONDS, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
