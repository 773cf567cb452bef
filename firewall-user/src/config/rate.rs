//! `[[dmz.rate]]`: how much may come, from each source or to each service.

use std::{ops::Range, time::Duration};

use firewall_common::{address::V4_OFFSET, ban, port::MAX_RATE_RULES, token_bucket::Limit};

use super::{
    MODES, Mode, Per, Rate, Services,
    lower::{Names, services},
    raw::{Table, Value},
    report::{Invalid, quoted},
    units::{self, RateWord},
};

/// A full Ethernet frame in bytes: a byte bucket that cannot hold one would never pass a full-size packet.
const FULL_FRAME: f64 = 1514.0;
const BURST: std::ops::RangeInclusive<f64> = 0.001..=60.0;
const BAN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
/// Sources are told apart by address in IPv4, and in IPv6 by what one customer gets at least.
const SOURCE: Per = Per::Source { v4: 32, v6: ban::NETWORK_V6 };

pub(super) fn lower(dmz: &Table<'_>) -> Vec<Rate> {
    let mut names = Names::new("rate");
    let mut rates = Vec::new();
    for (index, table) in dmz.tables("rate").into_iter().enumerate() {
        if index == MAX_RATE_RULES as usize {
            let help = "a rate can name several ports, and limit packets, bytes and connections".to_owned();
            table.problem(format!("more than {MAX_RATE_RULES} rates"), help);
        }
        rates.extend(rate(table, &mut names));
    }
    rates
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Source,
    Prefix,
    Service,
}

fn rate(table: Table<'_>, names: &mut Names) -> Option<Rate> {
    let name = names.take(&table);
    let mode = table.choice("mode", MODES, Mode::Enforce);
    let word = table.require("per", "`per = \"source\"`, `\"source-prefix\"` or `\"service\"`").and_then(|value| {
        value.choice(&[("source", Word::Source), ("source-prefix", Word::Prefix), ("service", Word::Service)])
    });
    let per = per(&table, word);
    let services = table.get("ports").map_or_else(Vec::new, |value| ports(&value));

    let burst_value = table.get("burst");
    let burst = match &burst_value {
        Some(value) => value.number().filter(|burst| in_range(value, *burst)),
        None => Some(1.0),
    };
    let burst_span = burst_value.map(|value| value.span);
    let limit = |key, parse: fn(&str) -> Result<RateWord, Invalid>, least| {
        let value = table.get(key)?;
        let word = value.parsed(parse)?;
        bucket(&value, word, burst?, burst_span.clone(), least)
    };
    let packets = limit("packets", units::parse_rate, 1.0);
    let bytes = limit("bytes", units::parse_byte_rate, FULL_FRAME);
    let connections = limit("connections", units::parse_rate, 1.0);
    if ["packets", "bytes", "connections"].iter().all(|key| table.get(key).is_none()) && !table.context.broken {
        let help = "set one of `packets = \"2000/s\"`, `bytes = \"10MB/s\"`, `connections = \"50/s\"`".to_owned();
        table.problem("the rate limits nothing", help);
    }
    let ban = table.get("ban").and_then(|value| ban_time(&table, &value, word, per));
    table.finish();
    Some(Rate { name: name?, mode, per: per?, services, packets, bytes, connections, ban })
}

fn per(table: &Table<'_>, word: Option<Word>) -> Option<Per> {
    let length = |key, longest, example: &str| match (word, table.get(key)) {
        (Some(Word::Prefix) | None, Some(value)) => {
            value.integer(1..=longest).and_then(|length| u8::try_from(length).ok())
        }
        (Some(Word::Prefix), None) => {
            table.require(key, &format!("`per = \"source-prefix\"` needs it, such as `{key} = {example}`"));
            None
        }
        (Some(Word::Source | Word::Service), Some(value)) => {
            let help = "remove it, or set `per = \"source-prefix\"`".to_owned();
            value.problem(format!("`{key}` means nothing here"), help);
            None
        }
        (_, None) => None,
    };
    let (v4, v6) = (length("prefix_v4", 32, "24"), length("prefix_v6", 128, "48"));
    match word? {
        Word::Source => Some(SOURCE),
        Word::Prefix => Some(Per::Source { v4: v4?, v6: v6? }),
        Word::Service => Some(Per::Service),
    }
}

fn ports(value: &Value<'_>) -> Vec<Services> {
    let items = value.clone().items();
    if items.as_ref().is_some_and(Vec::is_empty) {
        value.problem("`ports` is empty: the rate would apply to nothing", "leave it out for all traffic".to_owned());
    }
    services(items.unwrap_or_default())
}

fn in_range(value: &Value<'_>, burst: f64) -> bool {
    let fits = BURST.contains(&burst);
    if !fits {
        let help =
            format!("a number from {} to {}: periods of the rate that fit the bucket", BURST.start(), BURST.end());
        value.problem("`burst` is out of range", help);
    }
    fits
}

/// A bucket that holds `burst` periods of `word`, but at least `least` tokens.
fn bucket(
    value: &Value<'_>,
    word: RateWord,
    burst: f64,
    burst_span: Option<Range<usize>>,
    least: f64,
) -> Option<Limit> {
    let depth = word.tokens as f64 * burst;
    let text = quoted(value.text().unwrap_or_default());
    if depth < least {
        let (fits, what) = match least {
            FULL_FRAME => (format!("{} bytes", depth.floor()), "a packet of full size (1514 bytes)"),
            _ => (format!("{depth:.3} of one"), "anything"),
        };
        let message =
            format!("impossible rate: {text} with `burst = {burst}` has room for {fits}, so it never passes {what}");
        let enough = (least / word.tokens as f64 * 1000.0).ceil() / 1000.0;
        let help = if enough <= *BURST.end() {
            format!("write `burst = {enough}` or more, or a longer period")
        } else {
            "write a greater rate, or a longer period".to_owned()
        };
        match burst_span {
            Some(span) => value.clash(message, span, "leaves too little room", &help),
            None => value.problem(message, help),
        }
        return None;
    }
    let limit = Limit::new(word.tokens, word.period.as_nanos() as u64, depth);
    if limit.is_none() {
        let help = "more than 65 thousand tokens a nanosecond is no limit; leave it out".to_owned();
        value.problem(format!("{text} is too large"), help);
    }
    limit
}

fn ban_time(table: &Table<'_>, value: &Value<'_>, word: Option<Word>, per: Option<Per>) -> Option<Duration> {
    let ban = value.parsed(units::parse_duration)?;
    if !BAN.contains(&ban) {
        value.problem("`ban` is out of range", "from 1s to 365d".to_owned());
        return None;
    }
    match (word, per) {
        (Some(Word::Service), _) => {
            let help = "remove it, or set `per = \"source\"`".to_owned();
            value.problem("`ban` needs a source, but this rate counts per service", help);
            None
        }
        (Some(Word::Prefix), Some(Per::Source { v4, v6 })) => {
            let least = [("prefix_v4", v4, ban::MIN_LENGTH_V4 - V4_OFFSET), ("prefix_v6", v6, ban::MIN_LENGTH_V6)];
            for (key, length, shortest) in least {
                if let (true, Some(value)) = (length < shortest, table.get(key)) {
                    let help = format!("{shortest} or more, or no `ban`");
                    value.problem(format!("`{key} = {length}` is too short a prefix for `ban`"), help);
                }
            }
            Some(ban)
        }
        _ => Some(ban),
    }
}
