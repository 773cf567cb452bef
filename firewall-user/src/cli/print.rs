//! How answers read for a person.

use std::{
    io::{self, Write},
    net::IpAddr,
};

use serde::Serialize;

use super::table::{Table, bytes, seconds};
use crate::{
    config::Problem,
    control::api::{ApiStatus, Ban, Cause, ContentRule, Count, Interface, List, Reloaded, Requests, Status, Steering},
};

/// Reasons, and rules, that `status` shows.
const TOP: usize = 10;

pub(super) fn reloaded(out: &mut dyn Write, reloaded: &Reloaded) -> io::Result<()> {
    let Reloaded { generation, unchanged, milliseconds } = reloaded;
    if *unchanged {
        writeln!(out, "nothing has changed: generation {generation} stays in force")
    } else {
        writeln!(out, "generation {generation} is in force, after {milliseconds} ms")
    }
}

pub(super) fn status(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    headline(out, status)?;
    writeln!(out)?;
    let mut interfaces = Table::new(["INTERFACE", "STATE", "XDP", "FLOWS"]);
    for interface in &status.interfaces {
        let state = if interface.attached { "filtering" } else { "NOT FILTERING" };
        let flows = if interface.egress { "tracked" } else { "-" };
        interfaces.row([printable(&interface.name), state.into(), interface.mode.clone(), flows.into()]);
    }
    interfaces.print(out, "")?;

    writeln!(out)?;
    let mut packets = Table::new(["PACKETS", ">COUNT", ">BYTES"]);
    let counts = [("passed", status.packets.passed), ("dropped", status.packets.dropped)];
    for (name, count) in counts {
        packets.row([name.into(), count.packets.to_string(), bytes(count.bytes)]);
    }
    if status.packets.monitored != Count::default() {
        let count = status.packets.monitored;
        packets.row(["monitored".into(), count.packets.to_string(), bytes(count.bytes)]);
    }
    for (name, count) in status.packets.tallies.iter().filter(|(name, count)| count.packets > 0 && !is_event(name)) {
        packets.row([format!("  {name}"), count.packets.to_string(), bytes(count.bytes)]);
    }
    packets.print(out, "")?;
    reasons(out, status)?;
    rules(out, status)?;
    apis(out, status)?;
    footer(out, status)
}

/// Tallies that `status` shows as events.
fn is_event(tally: &str) -> bool {
    tally.starts_with("event-")
}

/// Whether the host is protected, and whatever stands against that.
fn headline(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let missing: Vec<&Interface> = status.interfaces.iter().filter(|interface| !interface.attached).collect();
    let monitor = status.mode != "enforce";
    match (status.interfaces.len(), missing.len()) {
        (all, none) if all == none => writeln!(out, "NOT FILTERING: no interface is attached")?,
        (_, 0) if monitor => writeln!(out, "MONITORING ONLY: nothing is dropped")?,
        (_, 0) => writeln!(out, "filtering")?,
        (_, _) => {
            let names: Vec<_> = missing.iter().map(|interface| printable(&interface.name)).collect();
            writeln!(out, "PARTLY FILTERING: not on {}", names.join(", "))?;
        }
    }
    if monitor && missing.len() < status.interfaces.len() && !missing.is_empty() {
        writeln!(out, "MONITORING ONLY: nothing is dropped")?;
    }
    for api in status.apis.iter().filter(|api| !api.protected) {
        let problem = api.problem.as_deref().unwrap_or("nobody knows why");
        writeln!(out, "NOT PROTECTED: {}: {}", printable(&api.name), printable(problem))?;
    }
    if let Some(left) = status.confirm_within_seconds {
        writeln!(out, "NOT CONFIRMED: the policy is taken back in {} without `portcullis confirm`", seconds(left))?;
    }
    if status.reloads.last_error.is_some() {
        writeln!(out, "LAST RELOAD FAILED: an older policy is in force, see below")?;
    }
    // What stands above need not be said again.
    let is_said = |warning: &&String| {
        let said = |api: &ApiStatus| warning.starts_with(&format!("API `{}` is not protected: ", api.name));
        status.apis.iter().any(|api| !api.protected && said(api))
    };
    for warning in status.warnings.iter().filter(|warning| !is_said(warning)) {
        writeln!(out, "warning: {}", printable(warning))?;
    }
    writeln!(out)?;
    writeln!(out, "version     {} (pid {}, up {})", status.version, status.pid, seconds(status.uptime_seconds))?;
    writeln!(out, "policy      generation {}, mode {}", status.generation, status.mode)?;
    writeln!(out, "config      {}", printable(&status.config))
}

fn reasons(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let mut reasons: Vec<_> =
        status.reasons.iter().filter(|reason| reason.dropped.packets > 0 || reason.monitored.packets > 0).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.dropped.packets.saturating_add(reason.monitored.packets)));
    let mut table = Table::new(["REASON", ">DROPPED", ">BYTES", ">MONITORED"]);
    for reason in reasons.iter().take(TOP) {
        table.row([
            reason.reason.clone(),
            reason.dropped.packets.to_string(),
            bytes(reason.dropped.bytes),
            reason.monitored.packets.to_string(),
        ]);
    }
    section(out, &table, reasons.len())
}

fn rules(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let mut rules: Vec<_> = status.rules.iter().filter(|rule| rule.matched.packets > 0).collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.matched.packets));
    let mut table = Table::new(["RULE", "KIND", "MODE", ">MATCHED", ">BYTES"]);
    for rule in rules.iter().take(TOP) {
        table.row([
            printable(&rule.name),
            rule.kind.clone(),
            rule.mode.clone(),
            rule.matched.packets.to_string(),
            bytes(rule.matched.bytes),
        ]);
    }
    section(out, &table, rules.len())
}

/// What the LAN layer protects, what it refused there, and how connections came to it.
fn apis(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let mut apis = Table::new([
        "API",
        "ENTRY",
        "TLS",
        "MODE",
        "RULES",
        "STATE",
        ">OPEN",
        ">PASSED",
        ">REFUSED",
        ">MONITORED",
        ">FAILED",
    ]);
    let mut reasons = Vec::new();
    let mut steering = Table::new(["STEERED", ">CONNECTIONS", ">EXEMPT", ">GONE, OPEN", ">GONE, CLOSED", "PROBE"]);
    for api in &status.apis {
        let name = printable(&api.name);
        let Requests { passed, refused, monitored, failed } = api.traffic.requests;
        apis.row([
            name.clone(),
            printable(&api.entry),
            if api.tls { "yes" } else { "no" }.to_owned(),
            api.mode.clone(),
            match api.rules_engine.as_deref() {
                None => "-".to_owned(),
                Some("enforce") => api.rules.to_string(),
                Some(other) => format!("{} {other}", api.rules),
            },
            if api.protected { "protected" } else { "NOT PROTECTED" }.to_owned(),
            api.traffic.connections.open.to_string(),
            passed.to_string(),
            refused.to_string(),
            monitored.to_string(),
            failed.to_string(),
        ]);
        reasons.extend(api.traffic.reasons.iter().map(|(reason, count)| (*count, reason.clone(), name.clone())));
        if let Some(Steering { steered, exempt, gone_open, gone_closed, probe }) = &api.steering {
            let counts = [steered, exempt, gone_open, gone_closed].map(u64::to_string);
            let [steered, exempt, gone_open, gone_closed] = counts;
            steering.row([name, steered, exempt, gone_open, gone_closed, printable(probe)]);
        }
    }
    section(out, &apis, 0)?;
    reasons.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
    let mut table = Table::new(["REQUESTS AGAINST", "API", ">COUNT"]);
    for (count, reason, api) in reasons.iter().take(TOP) {
        table.row([reason.clone(), api.clone(), count.to_string()]);
    }
    section(out, &table, reasons.len())?;
    section(out, &steering, 0)
}

/// `table` below a blank line, unless it is empty; `all` is how many rows there would be.
fn section<const COLUMNS: usize>(out: &mut dyn Write, table: &Table<COLUMNS>, all: usize) -> io::Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table.print(out, "")?;
    if all > TOP {
        writeln!(out, "and {} more: see --json", all - TOP)?;
    }
    Ok(())
}

fn footer(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let mut tables = Table::new(["TABLE", ">ENTRIES", ">CAPACITY", ""]);
    for table in &status.tables {
        let full = if table.entries >= table.capacity && table.capacity > 0 { "FULL" } else { "" };
        let capacity = if table.capacity == 0 { "fits".to_owned() } else { table.capacity.to_string() };
        tables.row([table.name.clone(), table.entries.to_string(), capacity, full.into()]);
    }
    section(out, &tables, 0)?;

    writeln!(out)?;
    let events = &status.events;
    writeln!(out, "events      {} written, {} merged into others", events.delivered, events.sampled)?;
    if events.lost_kernel > 0 || events.lost_sink > 0 {
        writeln!(out, "EVENTS LOST {} in the kernel, {} at a sink", events.lost_kernel, events.lost_sink)?;
    }
    let sentences: Vec<_> = status.sentences.iter().filter(|(_, count)| **count > 0).collect();
    if !sentences.is_empty() {
        let sentences: Vec<_> = sentences.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        writeln!(out, "reputation  bans asked for: {}", sentences.join(", "))?;
    }
    let reloads = &status.reloads;
    write!(out, "reloads     {} done, {} failed", reloads.succeeded, reloads.failed)?;
    match &reloads.last {
        Some(last) => writeln!(out, ", the last at {last}")?,
        None => writeln!(out)?,
    }
    if let Some(error) = &reloads.last_error {
        writeln!(out, "\nThe last reload failed:")?;
        for line in error.lines() {
            writeln!(out, "  {}", printable(line))?;
        }
    }
    Ok(())
}

pub(super) fn banned(out: &mut dyn Write, ban: &Ban) -> io::Result<()> {
    writeln!(out, "banned {} until {} ({})", ban.prefix, ban.until, seconds(ban.remaining_seconds))
}

pub(super) fn unbanned(out: &mut dyn Write, ban: &Ban) -> io::Result<()> {
    writeln!(out, "lifted the ban of {}, which dropped {} packets", ban.prefix, ban.packets)
}

pub(super) fn bans(out: &mut dyn Write, bans: &[Ban]) -> io::Result<()> {
    if bans.is_empty() {
        return writeln!(out, "no bans");
    }
    let mut table = Table::new(["PREFIX", "BY", "WHY", "SINCE", ">LEFT", ">PACKETS"]);
    for ban in bans {
        let why = match (&ban.rule, &ban.cause) {
            (_, Some(Cause { api, reason, score, .. })) => {
                format!("{} {}, score {score} at {}", ban.origin, printable(reason), printable(api))
            }
            (Some(rule), None) => format!("{} {}", ban.origin, printable(rule)),
            (None, None) if ban.layer == ban.origin => "-".to_owned(),
            (None, None) => ban.origin.clone(),
        };
        let left = seconds(ban.remaining_seconds);
        let (prefix, packets) = (ban.prefix.to_string(), ban.packets.to_string());
        table.row([prefix, ban.layer.clone(), why, ban.since.clone(), left, packets]);
    }
    table.print(out, "")
}

/// What `rules check` found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub(super) rules: usize,
    pub(super) errors: Vec<Problem>,
}

pub(super) fn checked(out: &mut dyn Write, checked: &Checked) -> io::Result<()> {
    writeln!(out, "{} rules, no errors", checked.rules)
}

/// Whether a search for `text` finds the rule.
pub(super) fn has_text(rule: &ContentRule, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let id = rule.id.to_string();
    let mut places = [&id, &rule.message, &rule.file].into_iter().chain(&rule.tags);
    places.any(|place| place.to_ascii_lowercase().contains(&text))
}

pub(super) fn content_rules(out: &mut dyn Write, rules: &[ContentRule]) -> io::Result<()> {
    if rules.is_empty() {
        return writeln!(out, "no rules");
    }
    let mut table = Table::new(["API", ">ID", ">PHASE", "SEVERITY", "MESSAGE", "FILE"]);
    for rule in rules {
        table.row([
            printable(&rule.api),
            rule.id.to_string(),
            rule.phase.to_string(),
            rule.severity.clone().unwrap_or_default(),
            printable(&rule.message),
            printable(&format!("{}:{}", rule.file, rule.line)),
        ]);
    }
    table.print(out, "")
}

pub(super) fn lists(out: &mut dyn Write, lists: &[List], lookup: Option<IpAddr>) -> io::Result<()> {
    if lists.is_empty() {
        return writeln!(out, "no lists");
    }
    if let Some(address) = lookup {
        let holding = lists.iter().filter(|list| list.matched.is_some()).count();
        writeln!(out, "{address} is in {holding} of {} lists", lists.len())?;
        if holding == 0 {
            return Ok(());
        }
        writeln!(out)?;
        let mut table = Table::new(["LIST", "ACTION", "MODE", "BY"]);
        for list in lists {
            if let Some(matched) = list.matched {
                table.row([printable(&list.name), list.action.clone(), list.mode.clone(), matched.to_string()]);
            }
        }
        return table.print(out, "");
    }
    let mut table = Table::new(["LIST", "ACTION", "MODE", ">PREFIXES", ">PACKETS", ">BYTES"]);
    for list in lists {
        table.row([
            printable(&list.name),
            list.action.clone(),
            list.mode.clone(),
            list.prefixes.to_string(),
            list.packets.to_string(),
            bytes(list.bytes),
        ]);
    }
    table.print(out, "")
}

/// What this program is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Version {
    version: &'static str,
    /// Of what is pinned: an agent adopts only what has its own number.
    abi: u32,
}

impl Version {
    pub(super) fn current() -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), abi: firewall_common::ABI_VERSION }
    }
}

pub(super) fn version(out: &mut dyn Write, version: &Version) -> io::Result<()> {
    writeln!(out, "portcullis {} (ABI {})", version.version, version.abi)
}

/// `text` without characters that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::status as sample;

    fn text(status: &Status) -> String {
        let mut out = Vec::new();
        super::status(&mut out, status).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_plainly_what_is_not_filtered() {
        let mut status = sample();
        assert!(text(&status).starts_with("PARTLY FILTERING: not on eth1\n"), "{}", text(&status));
        assert!(text(&status).contains("eth1       NOT FILTERING  absent"), "{}", text(&status));
        status.interfaces[1].attached = true;
        assert!(text(&status).starts_with("filtering\n"));
        status.mode = "monitor".to_owned();
        assert!(text(&status).starts_with("MONITORING ONLY"));
        status.interfaces[0].attached = false;
        assert!(text(&status).starts_with("PARTLY FILTERING: not on eth0\nMONITORING ONLY"));
        status.interfaces[1].attached = false;
        assert!(text(&status).starts_with("NOT FILTERING"));
        status.interfaces.clear();
        assert!(text(&status).starts_with("NOT FILTERING"));
    }

    #[test]
    fn shows_what_an_operator_must_know() {
        let mut status = sample();
        status.confirm_within_seconds = Some(61);
        status.warnings.push("the list drop-list is empty".to_owned());
        status.reloads.last_error = Some("portcullis.toml:3:1\n  \u{1b}[31munknown key".to_owned());
        status.tables[0].entries = status.tables[0].capacity;
        let text = text(&status);
        for expected in [
            "NOT CONFIRMED: the policy is taken back in 1m 1s",
            "LAST RELOAD FAILED",
            "warning: the list drop-list is empty",
            "The last reload failed:\n  portcullis.toml:3:1\n    \u{fffd}[31munknown key\n",
            "EVENTS LOST",
            "FULL",
            &format!("and {} more: see --json", status.reasons.len() - TOP),
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        // The reason with the highest count comes first.
        let highest = &status.reasons.last().unwrap().reason;
        assert!(text.contains(&format!("MONITORED\n{highest}")), "{text}");
    }

    #[test]
    fn shows_apis_and_those_that_are_not_protected() {
        let mut status = sample();
        let whole = text(&status);
        assert!(!whole.contains("NOT PROTECTED"), "{whole}");
        for expected in [
            "API   ENTRY         TLS  MODE     RULES       STATE",
            "shop  8080 steered  yes  enforce  629 detect  protected  100",
            "REQUESTS AGAINST  API   COUNT\npath-above-root   shop      5\n",
            "STEERED  CONNECTIONS",
            "reputation  bans asked for: ",
        ] {
            assert!(whole.contains(expected), "{expected}\n{whole}");
        }
        status.apis[0].protected = false;
        status.apis[0].problem = Some("nothing is steered\u{1b}".to_owned());
        let whole = text(&status);
        assert!(whole.contains("\nNOT PROTECTED: shop: nothing is steered\u{fffd}\n"), "{whole}");
        assert!(whole.contains("shop  8080 steered  yes  enforce  629 detect  NOT PROTECTED"), "{whole}");
    }

    #[test]
    fn leaves_out_what_never_happened() {
        let mut status = sample();
        status.apis.clear();
        status.sentences.clear();
        status.reasons.iter_mut().for_each(|reason| {
            reason.dropped = Count::default();
            reason.monitored = Count::default();
        });
        status.rules.clear();
        status.events.lost_kernel = 0;
        status.events.lost_sink = 0;
        let text = text(&status);
        for absent in [
            "API",
            "STEERED",
            "AGAINST",
            "reputation",
            "REASON",
            "RULE",
            "EVENTS LOST",
            "NOT CONFIRMED",
            "LAST RELOAD FAILED",
        ] {
            assert!(!text.contains(absent), "{absent}\n{text}");
        }
    }

    #[test]
    fn shows_and_finds_rules() {
        let rule = ContentRule::sample();
        for (text, found) in [("9421", true), ("sql INJ", true), ("attack-", true), ("A.conf", true), ("xss", false)] {
            assert_eq!(has_text(&rule, text), found, "{text}");
        }
        let mut out = Vec::new();
        content_rules(&mut out, &[]).unwrap();
        content_rules(&mut out, &[rule]).unwrap();
        checked(&mut out, &Checked { rules: 3, errors: Vec::new() }).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "no rules\n\
             API       ID  PHASE  SEVERITY  MESSAGE        FILE\n\
             shop  942100      2  CRITICAL  SQL injection  rules/a.conf:7\n\
             3 rules, no errors\n"
        );
    }

    #[test]
    fn shows_bans_and_lists() {
        let mut out = Vec::new();
        bans(&mut out, &[]).unwrap();
        let ban = Ban {
            prefix: "2001:db8::/64".parse().unwrap(),
            layer: "dmz".to_owned(),
            origin: "rate".to_owned(),
            rule: Some("per-client".to_owned()),
            since: "2023-11-14T22:13:20.000Z".to_owned(),
            until: "2023-11-14T22:14:20.000Z".to_owned(),
            remaining_seconds: 42,
            packets: 7,
            cause: None,
        };
        bans(&mut out, std::slice::from_ref(&ban)).unwrap();
        let cause = Cause { api: "shop".to_owned(), reason: "path-above-root".to_owned(), score: 104, offences: 2 };
        let of = |layer: &str, origin: &str, cause| Ban {
            layer: layer.to_owned(),
            origin: origin.to_owned(),
            rule: None,
            cause,
            ..ban.clone()
        };
        let others = [
            of("lan", "reputation", Some(cause)),
            of("lan", "reputation", None),
            of("dmz", "rate", None),
            of("operator", "operator", None),
        ];
        bans(&mut out, &others).unwrap();
        let list = List {
            name: "drop-list".to_owned(),
            action: "block".to_owned(),
            mode: "enforce".to_owned(),
            prefixes: 3,
            packets: 5,
            bytes: 300,
            matched: None,
        };
        lists(&mut out, std::slice::from_ref(&list), None).unwrap();
        let address = "203.0.113.7".parse().unwrap();
        lists(&mut out, std::slice::from_ref(&list), Some(address)).unwrap();
        let matching = List { matched: Some("203.0.113.0/24".parse().unwrap()), ..list };
        lists(&mut out, &[matching], Some(address)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "no bans\n\
             PREFIX         BY   WHY              SINCE                     LEFT  PACKETS\n\
             2001:db8::/64  dmz  rate per-client  2023-11-14T22:13:20.000Z   42s        7\n\
             PREFIX         BY        WHY                                            SINCE                     LEFT  PACKETS\n\
             2001:db8::/64  lan       reputation path-above-root, score 104 at shop  2023-11-14T22:13:20.000Z   42s        7\n\
             2001:db8::/64  lan       reputation                                     2023-11-14T22:13:20.000Z   42s        7\n\
             2001:db8::/64  dmz       rate                                           2023-11-14T22:13:20.000Z   42s        7\n\
             2001:db8::/64  operator  -                                              2023-11-14T22:13:20.000Z   42s        7\n\
             LIST       ACTION  MODE     PREFIXES  PACKETS  BYTES\n\
             drop-list  block   enforce         3        5  300 B\n\
             203.0.113.7 is in 0 of 1 lists\n\
             203.0.113.7 is in 1 of 1 lists\n\n\
             LIST       ACTION  MODE     BY\n\
             drop-list  block   enforce  203.0.113.0/24\n"
        );
    }
}
