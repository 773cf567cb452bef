//! Numbers and durations: `[api.limits]`, `[api.timeouts]`, `[gateway]` and `[reputation]`.

use std::{ops::RangeInclusive, time::Duration};

use super::{Gateway, Limits, Reputation, Timeouts};
use crate::config::{
    MODES, Mode,
    raw::Table,
    size,
    units::{format_duration, parse_duration},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn limits(table: Table<'_>) -> Limits {
    let size = |key, range, default| {
        let value = size::bytes(&table, key, range).and_then(|(size, _)| u32::try_from(size).ok());
        value.unwrap_or(default)
    };
    let limits = Limits {
        request_line: size("request_line", 64..=64 << 10, 8000),
        headers: size("headers", 256..=1 << 20, 32_000),
        header_count: table.integer("header_count", 1..=1000, 100),
        body: size::bytes(&table, "body", 0..=1_000_000_000_000).map_or(10_000_000, |(size, _)| size),
        trailers: size("trailers", 0..=1 << 20, 4000),
        streams: table.integer("streams", 1..=1000, 100),
        connections_per_client: table.integer("connections_per_client", 1..=1_000_000, 1000),
    };
    table.finish();
    limits
}

pub(super) fn timeouts(table: Table<'_>) -> Timeouts {
    let time = |key, longest, default| duration(&table, key, SECOND..=longest, Duration::from_secs(default));
    let hour = Duration::from_secs(3600);
    let timeouts = Timeouts {
        head: time("head", hour, 10),
        body: time("body", DAY, 30),
        idle: time("idle", DAY, 75),
        connect: time("connect", hour, 5),
        upstream: time("upstream", DAY, 60),
    };
    table.finish();
    timeouts
}

pub(in crate::config) fn gateway(table: Table<'_>) -> Gateway {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
    let gateway = Gateway {
        workers: table.integer("workers", 1..=1024, cpus.min(1024)),
        connections: table.integer("connections", 1..=1_000_000, 20_000),
        drain: duration(&table, "drain", Duration::ZERO..=Duration::from_secs(3600), Duration::from_secs(10)),
    };
    table.finish();
    gateway
}

pub(in crate::config) fn reputation(table: Table<'_>) -> Reputation {
    let year = 365 * DAY;
    let mode = table.choice("mode", MODES, Mode::Enforce);
    let threshold = table.integer("threshold", 1..=1_000_000, 90);
    let half_life = duration(&table, "half_life", SECOND..=DAY, Duration::from_secs(60));
    let ban = duration(&table, "ban", SECOND..=year, Duration::from_secs(60));
    let max_ban = duration(&table, "max_ban", SECOND..=year, DAY.max(ban));
    if let (true, Some(value)) = (max_ban < ban, table.get("max_ban")) {
        let help = format!("`ban` is {}: write that, or more", format_duration(ban));
        value.problem("`max_ban` is shorter than the first ban", help);
    }
    table.finish();
    Reputation { mode, threshold, half_life, ban, max_ban }
}

fn duration(table: &Table<'_>, key: &'static str, range: RangeInclusive<Duration>, default: Duration) -> Duration {
    let Some(value) = table.get(key) else { return default };
    let Some(time) = value.parsed(parse_duration) else { return default };
    if !range.contains(&time) {
        let help = format!("from {} to {}", format_duration(*range.start()), format_duration(*range.end()));
        value.problem(format!("`{key}` is out of range"), help);
        return default;
    }
    time
}
