//! `[dmz.size]`: bounds of every packet, and rules by service.

use std::ops::RangeInclusive;

use firewall_common::port::MAX_SIZE_RULES;

use super::{
    MODES, Mode, Services, Size, SizeRule,
    raw::{Table, Value},
    units::{format_size, parse_size},
};

/// Sizes an IP packet can have: an IPv4 header alone; an IPv6 header with 65535 bytes behind it.
const PACKET: RangeInclusive<u64> = 20..=65_575;
const PAYLOAD: RangeInclusive<u64> = 0..=65_535;

pub(super) fn lower(dmz: &Table<'_>) -> Size {
    let table = dmz.table("size");
    let mode = table.choice("mode", MODES, Mode::Enforce);
    let min = bytes(&table, "min_packet", PACKET);
    let max = bytes(&table, "max_packet", PACKET);
    in_order(min.as_ref(), max.as_ref(), "no packet");
    let rules = rules(&table, mode);
    table.finish();
    Size { mode, min_packet: number(min), max_packet: number(max), rules }
}

fn rules(table: &Table<'_>, default_mode: Mode) -> Vec<SizeRule> {
    let mut rules: Vec<SizeRule> = Vec::new();
    let mut places = Vec::new();
    for (index, entry) in table.tables("rules").into_iter().enumerate() {
        if index == MAX_SIZE_RULES as usize {
            entry.problem(format!("more than {MAX_SIZE_RULES} size rules"), "use ranges of ports".to_owned());
        }
        let port = entry.require("port", "the service the rule is for, such as `port = \"53/udp\"`");
        let services = port.as_ref().and_then(|value| value.parsed(str::parse::<Services>));
        let rule = rule(entry, services, default_mode);
        let (Some(port), Some(services), Some(rule)) = (port, services, rule) else { continue };
        if let Some(earlier) = rules.iter().position(|rule| rule.services.overlaps(&services)) {
            let message = format!("`{services}` has a size rule already");
            let place: &std::ops::Range<usize> = &places[earlier];
            port.clash(message, place.clone(), "overlaps this one", "a service can have one size rule");
        }
        if index < MAX_SIZE_RULES as usize {
            rules.push(rule);
            places.push(port.span);
        }
    }
    rules
}

fn rule(entry: Table<'_>, services: Option<Services>, default_mode: Mode) -> Option<SizeRule> {
    let mode = entry.choice("mode", MODES, default_mode);
    let keys = ["min", "max", "min_payload", "max_payload"];
    let [min, max] = ["min", "max"].map(|key| bytes(&entry, key, PACKET));
    let [min_payload, max_payload] = ["min_payload", "max_payload"].map(|key| bytes(&entry, key, PAYLOAD));
    in_order(min.as_ref(), max.as_ref(), "no packet");
    in_order(min_payload.as_ref(), max_payload.as_ref(), "no payload");
    in_order(min_payload.as_ref(), max.as_ref(), "no payload within a packet");
    if keys.iter().all(|key| entry.get(key).is_none()) && !entry.context.broken {
        let help = "set one of `min`, `max`, `min_payload`, `max_payload`".to_owned();
        entry.problem("the size rule has no bound", help);
    }
    entry.finish();
    Some(SizeRule {
        services: services?,
        mode,
        min: number(min),
        max: number(max),
        min_payload: number(min_payload),
        max_payload: number(max_payload),
    })
}

/// A size in bytes, as a word or a plain number, and its value.
pub(super) fn bytes<'d>(table: &Table<'d>, key: &'static str, range: RangeInclusive<u64>) -> Option<(u64, Value<'d>)> {
    let value = table.get(key)?;
    let size = if value.is_integer() {
        u64::try_from(value.integer(0..=i64::MAX)?).ok()?
    } else {
        value.parsed(parse_size)?
    };
    if !range.contains(&size) {
        let help = format!("from {} to {}", format_size(*range.start()), format_size(*range.end()));
        value.problem(format!("`{key}` is out of range"), help);
        return None;
    }
    Some((size, value))
}

fn in_order(min: Option<&(u64, Value<'_>)>, max: Option<&(u64, Value<'_>)>, what: &str) {
    if let (Some((min, at_min)), Some((max, at_max))) = (min, max)
        && min > max
    {
        let message = format!("the minimum is greater than the maximum: {what} fits");
        at_min.clash(
            message,
            at_max.span.clone(),
            "the maximum",
            "raise the maximum, lower the minimum, or leave one out",
        );
    }
}

fn number(size: Option<(u64, Value<'_>)>) -> Option<u32> {
    size.and_then(|(size, _)| u32::try_from(size).ok())
}
