//! The agent's counters in the text format of OpenMetrics, which Prometheus scrapes.
//!
//! In: a [`Status`], and nothing else. Out: text. The labels are names from the configuration and the program's own
//! vocabulary, so their number is bounded by the configuration; no address is ever a label.

mod lan;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::UNIX_EPOCH,
};

use axum::{Router, routing::get};
use firewall_common::counter::Tally;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, text::encode},
    metrics::{MetricType, TypedMetric, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    control::{
        api::{Agent, Count, Status},
        server::scrape,
    },
    http,
};

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens at `address`, which must be of this host alone: there is no authentication.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not a loopback address")));
    }
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves `GET /metrics` until dropped; within a runtime of tokio.
pub async fn serve(listener: TcpListener, agent: Arc<dyn Agent>) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = Router::new().route("/metrics", get(scrape)).with_state(agent);
    Ok(http::serve(listener, |_| routes.clone()).await)
}

/// What a label says of a metric.
type Labels = Vec<(&'static str, String)>;

/// `status` as metrics.
pub fn render(status: &Status) -> String {
    let mut metrics = Metrics { registry: Registry::with_prefix("portcullis") };
    metrics.agent(status);
    metrics.interfaces(status);
    metrics.packets(status);
    metrics.tallies(status);
    metrics.events(status);
    metrics.tables(status);
    metrics.lan(status);
    let mut text = String::new();
    // A string takes every write.
    encode(&mut text, &metrics.registry).expect("metrics have a text form");
    text
}

struct Metrics {
    registry: Registry,
}

impl Metrics {
    fn agent(&mut self, status: &Status) {
        let build = Info::new(vec![("version", status.version.clone())]);
        self.registry.register("build", "The agent", build);
        self.gauge("policy_generation", "Generation of the policy in force", status.generation.into());
        self.gauge(
            "policy_enforced",
            "1 if the DMZ layer drops, 0 if it only monitors",
            flag(status.mode == "enforce"),
        );
        let confirm = status.confirm_within_seconds;
        self.gauge("policy_unconfirmed", "1 while the policy waits to be confirmed", flag(confirm.is_some()));
        self.gauge("warnings", "Warnings in the agent's status", status.warnings.len() as u64);
        self.seconds("uptime", "Time since the agent started", status.uptime_seconds);

        let reloads = &status.reloads;
        let results = [("succeeded", reloads.succeeded), ("failed", reloads.failed)];
        self.counters("reloads", "Reloads of the configuration", "result", results);
        let failed = flag(reloads.last_error.is_some());
        self.gauge("last_reload_failed", "1 if the last reload failed, so that an older policy is in force", failed);
        let last = reloads.last.as_deref().and_then(|time| humantime::parse_rfc3339(time).ok());
        if let Some(since) = last.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            self.seconds("last_reload_timestamp", "Time of the last reload, since 1970", since.as_secs());
        }
    }

    fn interfaces(&mut self, status: &Status) {
        let labels = |interface: &crate::control::api::Interface| {
            vec![("interface", interface.name.clone()), ("mode", interface.mode.clone())]
        };
        let attached = status.interfaces.iter().map(|interface| (labels(interface), flag(interface.attached)));
        self.gauges("interface_attached", "1 if the interface's packets are judged", attached);
        let egress = status.interfaces.iter().map(|interface| (labels(interface), flag(interface.egress)));
        self.gauges("interface_egress_attached", "1 if flows out of the interface are tracked", egress);
    }

    fn packets(&mut self, status: &Status) {
        let packets = &status.packets;
        let verdicts = [("passed", packets.passed), ("dropped", packets.dropped)];
        let verdicts = verdicts.map(|(verdict, count)| (vec![("verdict", verdict.to_owned())], count));
        self.traffic("dmz", "judged by the DMZ layer", verdicts);
        // No verdict beside the two, or their sum would count a packet twice.
        let of = "that monitor mode kept from being dropped, once for each verdict";
        let Count { packets, bytes } = packets.monitored;
        self.registry.register("dmz_monitored_packets", format!("Packets {of}"), ConstCounter::new(packets));
        let help = format!("Bytes of IP packets {of}");
        self.registry.register_with_unit("dmz_monitored", help, Unit::Bytes, ConstCounter::new(bytes));

        let reasons = status.reasons.iter().flat_map(|reason| {
            [("dropped", reason.dropped), ("monitored", reason.monitored)].map(|(verdict, count)| {
                (vec![("reason", reason.reason.clone()), ("verdict", verdict.to_owned())], count)
            })
        });
        self.traffic("dmz_reason", "condemned for a reason, and dropped or monitored", reasons);
        let rules = status.rules.iter().map(|rule| {
            let labels = vec![("kind", rule.kind.clone()), ("name", rule.name.clone()), ("mode", rule.mode.clone())];
            (labels, rule.matched)
        });
        self.traffic("dmz_rule", "matched by a rule or list", rules);
    }

    fn tallies(&mut self, status: &Status) {
        let (mut passed, mut bans, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for tally in Tally::ALL {
            let name = tally.name();
            let Some(count) = status.packets.tallies.get(name).copied() else { continue };
            match tally {
                // The totals and the events have fields of their own in the status.
                Tally::Passed | Tally::Dropped | Tally::Monitored | Tally::EventSampled | Tally::EventLost => {}
                Tally::EventSent => {
                    let help = "Events handed over by the kernel";
                    self.registry.register("dmz_events_sent", help, ConstCounter::new(count.packets));
                }
                Tally::NonIp | Tally::Allowed | Tally::Control | Tally::Reply | Tally::ReplySocket => {
                    passed.push((vec![("path", name.to_owned())], count));
                }
                Tally::BanSet | Tally::BanFull | Tally::BanProtected | Tally::BanUnproven => {
                    bans.push((name.trim_start_matches("ban-"), count.packets));
                }
                Tally::BucketStolen | Tally::BucketContended | Tally::FlowRefused => {
                    limits.push((name, count.packets));
                }
            }
        }
        self.traffic("dmz_passed", "that passed on a way of their own", passed);
        self.counters("dmz_ban_attempts", "Bans that rate rules asked for", "outcome", bans);
        self.counters(
            "dmz_table_conflicts",
            "Packets that met a table without room or in contention",
            "conflict",
            limits,
        );
    }

    fn events(&mut self, status: &Status) {
        let events = &status.events;
        let outcomes = [
            ("delivered", events.delivered),
            ("sampled", events.sampled),
            ("lost-kernel", events.lost_kernel),
            ("lost-sink", events.lost_sink),
        ];
        let help = "Events written to every sink, merged into another one by the kernel, or lost there or at a sink";
        self.counters("events", help, "outcome", outcomes);
    }

    fn tables(&mut self, status: &Status) {
        let tables = |value: fn(&crate::control::api::Table) -> u64| {
            status.tables.iter().map(move |table| (vec![("table", table.name.clone())], value(table)))
        };
        self.gauges("table_entries", "Entries of a table of the kernel", tables(|table| table.entries));
        self.gauges(
            "table_capacity",
            "Entries that a table of the kernel has room for",
            tables(|table| table.capacity),
        );
        if let Some(bans) = status.tables.iter().find(|table| table.name == "bans") {
            self.gauge("bans", "Bans in force", bans.entries);
        }
    }

    /// `NAME_packets_total` and `NAME_bytes_total`.
    fn traffic(&mut self, name: &str, of: &str, counts: impl IntoIterator<Item = (Labels, Count)>) {
        let (mut packets, mut bytes) = (Vec::new(), Vec::new());
        for (labels, count) in counts {
            packets.push((labels.clone(), ConstCounter::new(count.packets)));
            bytes.push((labels, ConstCounter::new(count.bytes)));
        }
        self.registry.register(format!("{name}_packets"), format!("Packets {of}"), Samples(packets));
        self.registry.register_with_unit(name, format!("Bytes of IP packets {of}"), Unit::Bytes, Samples(bytes));
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let counts =
            counts.into_iter().map(|(value, count)| (vec![(label, value.to_owned())], ConstCounter::new(count)));
        self.registry.register(name, help, Samples(counts.collect()));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.registry.register(name, help, ConstGauge::new(value));
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let values = values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.registry.register(name, help, Samples(values.collect()));
    }

    fn seconds(&mut self, name: &str, help: &str, value: u64) {
        self.registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(value));
    }
}

/// The samples of one metric, in order. (A `Family` would shuffle them and have room for live counters.)
#[derive(Debug)]
struct Samples<M>(Vec<(Labels, M)>);

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Samples<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        for (labels, metric) in &self.0 {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn flag(value: bool) -> u64 {
    value.into()
}

#[cfg(test)]
pub(crate) mod tests;
