//! The text is whole, well-formed and safe whatever the names.

use std::collections::{BTreeMap, HashSet};

use firewall_common::verdict::DropReason;

use super::*;
use crate::control::api::{
    ApiStatus, ApiTraffic, Connections, EventCounts, Handshakes, Interface, Latency, Packets, Reason, Reloads,
    RequestCount, Requests, Rule, Steering, Table, Tunnels,
};

/// A number that no other field of the sample has.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn count(&mut self) -> Count {
        Count { packets: self.next(), bytes: self.next() }
    }
}

/// A status in which each counter has a value of its own, above 100000.
pub(crate) fn status() -> Status {
    let mut numbers = Numbers(100_000);
    let totals = [Tally::Passed, Tally::Dropped, Tally::Monitored, Tally::EventSampled, Tally::EventLost];
    let others = Tally::ALL.iter().filter(|tally| !totals.contains(tally));
    Status {
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_seconds: numbers.next(),
        config: "/etc/portcullis/portcullis.toml".to_owned(),
        generation: numbers.next() as u32,
        mode: "enforce".to_owned(),
        confirm_within_seconds: None,
        interfaces: vec![
            Interface { name: "eth0".to_owned(), mode: "native".to_owned(), attached: true, egress: true },
            Interface { name: "eth1".to_owned(), mode: "absent".to_owned(), attached: false, egress: false },
        ],
        packets: Packets {
            passed: numbers.count(),
            dropped: numbers.count(),
            monitored: numbers.count(),
            tallies: others.map(|tally| (tally.name().to_owned(), numbers.count())).collect(),
        },
        reasons: DropReason::ALL
            .iter()
            .map(|reason| Reason {
                reason: reason.name().to_owned(),
                dropped: numbers.count(),
                monitored: numbers.count(),
            })
            .collect(),
        rules: [("list", "drop-list"), ("rate", "per-client"), ("size", "53/udp")]
            .map(|(kind, name)| Rule {
                kind: kind.to_owned(),
                name: name.to_owned(),
                mode: "enforce".to_owned(),
                matched: numbers.count(),
            })
            .into(),
        tables: ["bans", "lists-v4", "lists-v6", "rules"]
            .map(|name| Table { name: name.to_owned(), entries: numbers.next(), capacity: numbers.next() })
            .into(),
        apis: vec![api(&mut numbers)],
        sentences: ["set", "overflow"].map(|outcome| (outcome.to_owned(), numbers.next())).into(),
        events: EventCounts {
            delivered: numbers.next(),
            sampled: numbers.next(),
            lost_kernel: numbers.next(),
            lost_sink: numbers.next(),
        },
        reloads: Reloads {
            succeeded: numbers.next(),
            failed: numbers.next(),
            last: Some("2023-11-14T22:13:20.000Z".to_owned()),
            last_error: None,
        },
        warnings: Vec::new(),
    }
}

fn api(numbers: &mut Numbers) -> ApiStatus {
    let mut reason = |name: &str| BTreeMap::from([(name.to_owned(), numbers.next())]);
    let (refused, cut, upstream_errors) = (reason("tls-handshake"), reason("slow-reader"), reason("upstream-tls"));
    let mut count = |verdict: &str, reason: Option<&str>| RequestCount {
        method: "GET".to_owned(),
        status: "4xx".to_owned(),
        verdict: verdict.to_owned(),
        reason: reason.map(str::to_owned),
        count: numbers.next(),
    };
    let counts = vec![count("pass", None), count("refuse", Some("path-above-root"))];
    ApiStatus {
        name: "shop".to_owned(),
        mode: "enforce".to_owned(),
        entry: "8080 steered".to_owned(),
        tls: true,
        protected: true,
        problem: None,
        rules: 629,
        rules_engine: Some("detect".to_owned()),
        steering: Some(Steering {
            steered: numbers.next(),
            exempt: numbers.next(),
            gone_open: numbers.next(),
            gone_closed: numbers.next(),
            probe: "seen".to_owned(),
        }),
        traffic: ApiTraffic {
            connections: Connections {
                open: numbers.next(),
                accepted: numbers.next(),
                refused,
                cut,
                reset: numbers.next(),
            },
            // These two follow from `counts`.
            requests: Requests { passed: 1, refused: 2, monitored: 3, failed: 4 },
            reasons: BTreeMap::from([("path-above-root".to_owned(), 5)]),
            upstream_errors,
            handshakes: Handshakes { succeeded: numbers.next(), failed: numbers.next() },
            tunnels: Tunnels { open: numbers.next(), total: numbers.next() },
            duration: Latency { buckets: [vec![3, 2], vec![0; 12], vec![1]].concat(), sum_us: 11_500_000 },
            gateway_duration: Latency { buckets: vec![6], sum_us: 600 },
            counts,
        },
    }
}

/// Every sample of `text`, by name and labels. Panics at a line that is not of the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut described = HashSet::new();
    let mut samples = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            assert!(described.insert((kind, name)), "twice: {line}");
            assert!(!rest.is_empty() && name.starts_with("portcullis_"), "{line}");
            if kind == "UNIT" {
                assert!(name.ends_with(&format!("_{rest}")), "{line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let suffixes = ["_total", "_info", "_bucket", "_sum", "_count"];
        let family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(described.contains(&("HELP", family)) && described.contains(&("TYPE", family)), "{line}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn every_counter_is_there() {
    let status = status();
    let text = render(&status);
    let samples = parse(&text);
    let values: HashSet<u64> = samples.values().map(|value| *value as u64).collect();
    // Bytes of tallies that count something else than packets are not told.
    let not_packets = ["event-", "ban-", "bucket-", "flow-"];
    let silent: HashSet<u64> = status
        .packets
        .tallies
        .iter()
        .filter(|(name, _)| not_packets.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(_, count)| count.bytes)
        .collect();
    let last = status.reloads.failed;
    for number in 100_001..=last {
        assert!(values.contains(&number) || silent.contains(&number), "{number} is missing:\n{text}");
    }
}

#[test]
fn names_follow_the_conventions() {
    let status = status();
    let samples = parse(&render(&status));
    for (series, value) in [
        (r#"portcullis_dmz_packets_total{verdict="dropped"}"#, status.packets.dropped.packets),
        (r#"portcullis_dmz_bytes_total{verdict="passed"}"#, status.packets.passed.bytes),
        (r#"portcullis_dmz_monitored_packets_total"#, status.packets.monitored.packets),
        (
            r#"portcullis_dmz_reason_packets_total{reason="truncated",verdict="dropped"}"#,
            status.reasons[0].dropped.packets,
        ),
        (
            r#"portcullis_dmz_rule_bytes_total{kind="list",name="drop-list",mode="enforce"}"#,
            status.rules[0].matched.bytes,
        ),
        (r#"portcullis_dmz_passed_packets_total{path="reply"}"#, status.packets.tallies["reply"].packets),
        (r#"portcullis_dmz_ban_attempts_total{outcome="full"}"#, status.packets.tallies["ban-full"].packets),
        (r#"portcullis_interface_attached{interface="eth0",mode="native"}"#, 1),
        (r#"portcullis_interface_attached{interface="eth1",mode="absent"}"#, 0),
        (r#"portcullis_events_total{outcome="lost-sink"}"#, status.events.lost_sink),
        (r#"portcullis_table_capacity{table="lists-v4"}"#, status.tables[1].capacity),
        (r#"portcullis_reloads_total{result="failed"}"#, status.reloads.failed),
        ("portcullis_bans", status.tables[0].entries),
        ("portcullis_last_reload_timestamp_seconds", 1_700_000_000),
        ("portcullis_last_reload_failed", 0),
        ("portcullis_policy_enforced", 1),
        (r#"portcullis_build_info{version="0.1.0"}"#, 1),
        (r#"portcullis_lan_ban_attempts_total{outcome="overflow"}"#, status.sentences["overflow"]),
        (
            r#"portcullis_lan_requests_total{api="shop",method="GET",status="4xx",verdict="refuse",reason="path-above-root"}"#,
            status.apis[0].traffic.counts[1].count,
        ),
        (r#"portcullis_lan_request_duration_seconds_bucket{le="0.0005",api="shop"}"#, 3),
        (r#"portcullis_lan_request_duration_seconds_bucket{le="10.0",api="shop"}"#, 5),
        (r#"portcullis_lan_request_duration_seconds_bucket{le="+Inf",api="shop"}"#, 6),
        (r#"portcullis_lan_request_duration_seconds_count{api="shop"}"#, 6),
        (r#"portcullis_lan_gateway_duration_seconds_count{api="shop"}"#, 6),
        (r#"portcullis_lan_protected{api="shop",mode="enforce"}"#, 1),
    ] {
        assert_eq!(samples.get(series), Some(&(value as f64)), "{series}\n{samples:#?}");
    }
}

#[test]
fn latencies_are_told_in_seconds() {
    let samples = parse(&render(&status()));
    assert_eq!(samples[r#"portcullis_lan_request_duration_seconds_sum{api="shop"}"#], 11.5);
}

#[test]
fn an_empty_status_and_strange_names_are_well_formed() {
    let mut status = status();
    status.interfaces[0].name = "a\"b\\c\nd".to_owned();
    let text = render(&status);
    parse(&text);
    assert!(text.contains(r#"interface="a\"b\\c\nd""#), "{text}");
    status.apis[0].name = "a\"b\\c\nd".to_owned();
    parse(&render(&status));
    status.apis[0].traffic = ApiTraffic::default();
    status.apis[0].steering = None;
    parse(&render(&status));
    status.apis.clear();
    status.sentences.clear();
    status.interfaces.clear();
    status.reasons.clear();
    status.rules.clear();
    status.tables.clear();
    status.packets.tallies.clear();
    status.reloads.last = Some("nonsense".to_owned());
    parse(&render(&status));
}

#[test]
fn listens_on_this_host_only() {
    assert!(bind("0.0.0.0:0".parse().unwrap()).is_err());
    assert!(bind("[::]:0".parse().unwrap()).is_err());
    assert!(bind("127.0.0.1:0".parse().unwrap()).is_ok());
}
