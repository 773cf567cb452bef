//! What the agent answers over its control socket.

use std::{
    net::IpAddr,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use firewall_common::{
    counter::{Counter, DROPPED, MONITORED, RULES, Tally},
    verdict::DropReason,
};
use ipnet::IpNet;

use super::{bans, core::Core};
use crate::{
    config::{self, ListAction, Mode, prefix_key},
    control::api::{self, Count, Refusal},
    dmz::{compile, shared::SharedError, slots::Slots},
    events::kernel::WallClock,
};

/// The core, shared with everybody who asks.
pub(super) struct Service {
    core: Mutex<Core>,
}

impl Service {
    pub(super) fn new(core: Core) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(core) })
    }

    /// The core. A panic of another holder leaves it as consistent as an error would: every step says what it leaves.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core, to change something: not while another agent takes over.
    fn own_core(&self) -> Result<MutexGuard<'_, Core>, Refusal> {
        let core = self.core();
        if core.lent { Err(refuse("another agent is taking over: ask again in a moment")) } else { Ok(core) }
    }
}

fn refuse(error: impl std::fmt::Display) -> Refusal {
    Refusal { message: error.to_string() }
}

fn count(counter: &Counter) -> Count {
    Count { packets: counter.packets, bytes: counter.bytes }
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
    .to_owned()
}

impl api::Agent for Service {
    fn status(&self) -> api::Status {
        status(&mut self.core())
    }

    fn reload(&self) -> Result<api::Reloaded, Refusal> {
        let mut core = self.own_core()?;
        let reloaded = core.reload().map_err(refuse)?;
        tracing::info!(
            "policy {} in force after {} ms{}",
            reloaded.generation,
            reloaded.milliseconds,
            if reloaded.unchanged { ", unchanged" } else { "" }
        );
        Ok(reloaded)
    }

    fn ban(&self, request: api::BanRequest) -> Result<api::Ban, Refusal> {
        let mut core = self.own_core()?;
        let core = &mut *core;
        let limits = bans::Limits {
            guarded: &core.guarded,
            lists: &core.config.dmz.lists,
            capacity: core.config.dmz.tables.bans,
        };
        let lasts = Duration::from_secs(request.seconds);
        let _pause = core.condemner.pause();
        let ban = bans::set(&mut core.shared, &limits, request.prefix, lasts).map_err(refuse)?;
        core.bans_dirty = true;
        describe(core, request.prefix, &ban)
    }

    fn unban(&self, prefix: IpNet) -> Result<api::Ban, Refusal> {
        let mut core = self.own_core()?;
        let condemner = core.condemner.clone();
        // Before it is lifted: the next request must not be the one too many.
        condemner.forget(prefix);
        condemner.settle(Duration::from_millis(100));
        let pause = condemner.pause();
        let ban = bans::lift(&mut core.shared, prefix).map_err(refuse)?;
        drop(pause);
        core.bans_dirty = true;
        describe(&core, prefix, &ban)
    }

    fn bans(&self) -> Result<Vec<api::Ban>, Refusal> {
        let core = self.core();
        let slots = core.shared.slots().map_err(refuse)?;
        let (clock, now) = (WallClock::sample(), bans::now());
        let mut bans: Vec<api::Ban> = core
            .shared
            .all_bans()
            .map_err(refuse)?
            .iter()
            .filter(|(_, ban)| ban.until > now)
            .map(|(key, ban)| bans::describe(key, ban, &slots, clock, &core.condemner))
            .collect();
        bans.sort_by_key(|ban| ban.prefix);
        Ok(bans)
    }

    fn lists(&self, lookup: Option<IpAddr>) -> Result<Vec<api::List>, Refusal> {
        let core = self.core();
        let counters = core.shared.counters().map_err(refuse)?;
        let lists = core.config.dmz.lists.iter().map(|list| {
            let matched = rule_count(&counters, &core.compiled().slots, &compile::list_name(list));
            api::List {
                name: list.name.clone(),
                action: match list.action {
                    ListAction::Allow => "allow",
                    ListAction::Block => "block",
                }
                .to_owned(),
                mode: mode(list.mode),
                prefixes: list.prefixes.len() as u64,
                packets: matched.packets,
                bytes: matched.bytes,
                matched: lookup.and_then(|address| longest(list, address.to_canonical())),
            }
        });
        Ok(lists.collect())
    }

    fn rules(&self) -> Result<Vec<api::ContentRule>, Refusal> {
        let core = self.core();
        let sets = core.config.apis.iter().filter_map(|api| Some((&api.name, api.rules.as_ref()?)));
        let rules = sets.flat_map(|(name, set)| {
            set.rules().list().map(|rule| api::ContentRule {
                api: name.to_string(),
                id: rule.id,
                phase: rule.phase as u8,
                severity: rule.severity.map(|severity| severity.name().to_owned()),
                message: rule.message,
                tags: rule.tags,
                file: rule.file.to_string(),
                line: rule.line,
            })
        });
        Ok(rules.collect())
    }

    fn confirm(&self) -> Result<(), Refusal> {
        let mut core = self.core();
        if core.confirm.is_none() {
            return Err(refuse("there is nothing to confirm: the policy is in force for good"));
        }
        core.confirm().map_err(refuse)
    }
}

fn longest(list: &config::List, address: IpAddr) -> Option<IpNet> {
    list.prefixes.iter().filter(|prefix| prefix.contains(&address)).max_by_key(|prefix| prefix.prefix_len()).copied()
}

fn describe(core: &Core, prefix: IpNet, ban: &firewall_common::ban::Ban) -> Result<api::Ban, Refusal> {
    let (address, length) = prefix_key(&prefix);
    let key = firewall_common::ban::BanKey::new(&address, length);
    let slots = core.shared.slots().map_err(refuse)?;
    Ok(bans::describe(&key, ban, &slots, WallClock::sample(), &core.condemner))
}

fn rule_count(counters: &[Counter], slots: &Slots, name: &str) -> Count {
    slots.get(name).and_then(|slot| counters.get(RULES as usize + usize::from(slot))).map(count).unwrap_or_default()
}

fn status(core: &mut Core) -> api::Status {
    let counters = match core.shared.counters() {
        Ok(mut counters) => {
            core.warn("counters", None);
            let sampled = &mut counters[Tally::EventSampled as usize].packets;
            core.sampled = core.sampled.max(*sampled);
            *sampled = core.sampled;
            counters
        }
        Err(error) => {
            core.warn("counters", Some(format!("counters cannot be read: {error}")));
            Vec::new()
        }
    };
    let at = |index: u32| counters.get(index as usize).map(count).unwrap_or_default();
    let program = core.instance.program_id().unwrap_or(0);
    let tallies = Tally::ALL
        .iter()
        .filter(|tally| !matches!(tally, Tally::Passed | Tally::Dropped | Tally::Monitored))
        .map(|tally| (tally.name().to_owned(), at(*tally as u32)))
        .collect();
    let reasons = DropReason::ALL.iter().map(|reason| api::Reason {
        reason: reason.name().to_owned(),
        dropped: at(DROPPED + *reason as u32),
        monitored: at(MONITORED + *reason as u32),
    });
    let sinks = core.sinks.counts();
    api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process::id(),
        uptime_seconds: core.started.elapsed().as_secs(),
        config: core.config_path().display().to_string(),
        generation: core.compiled().policy.generation,
        mode: mode(core.config.dmz.mode),
        confirm_within_seconds: core
            .confirm
            .as_ref()
            .map(|(until, _)| api::ceil_seconds(until.saturating_duration_since(Instant::now()))),
        interfaces: core.config.interfaces.iter().map(|name| interface(core, name, program)).collect(),
        packets: api::Packets {
            passed: at(Tally::Passed as u32),
            dropped: at(Tally::Dropped as u32),
            monitored: at(Tally::Monitored as u32),
            tallies,
        },
        reasons: reasons.collect(),
        rules: rules(core, &counters),
        tables: tables(core),
        apis: core.gateway.status(),
        sentences: core.condemner.outcomes().map(|(outcome, count)| (outcome.to_owned(), count)).collect(),
        events: api::EventCounts {
            delivered: sinks.delivered,
            sampled: at(Tally::EventSampled as u32).packets,
            lost_kernel: at(Tally::EventLost as u32).packets,
            lost_sink: sinks.lost,
        },
        reloads: core.reloads.clone(),
        warnings: core.warnings(),
    }
}

fn interface(core: &Core, name: &str, program: u32) -> api::Interface {
    let state = core.links.state(name, program);
    let present = nix::net::if_::if_nametoindex(name).is_ok();
    api::Interface {
        name: name.to_owned(),
        mode: match state {
            Some((mode, ..)) if present => mode.name(),
            _ => "absent",
        }
        .to_owned(),
        attached: present && state.is_some_and(|(_, attached, _)| attached),
        egress: present && state.is_some_and(|(.., egress)| egress),
    }
}

fn rules(core: &Core, counters: &[Counter]) -> Vec<api::Rule> {
    let slots = &core.compiled().slots;
    let dmz = &core.config.dmz;
    let rule = |kind: &str, name: String, slot: String, rule_mode: Mode| api::Rule {
        kind: kind.to_owned(),
        name,
        mode: mode(rule_mode),
        matched: rule_count(counters, slots, &slot),
    };
    let lists = dmz.lists.iter().map(|list| rule("list", list.name.clone(), compile::list_name(list), list.mode));
    let sizes =
        dmz.size.rules.iter().map(|size| rule("size", size.services.to_string(), compile::size_name(size), size.mode));
    let rates = dmz.rates.iter().map(|rate| rule("rate", rate.name.clone(), compile::rate_name(rate), rate.mode));
    lists.chain(sizes).chain(rates).collect()
}

fn tables(core: &mut Core) -> Vec<api::Table> {
    let table = |name: &str, entries: usize, capacity: u64| api::Table {
        name: name.to_owned(),
        entries: entries as u64,
        capacity,
    };
    let (v4, v6) = core.instance.list_entries();
    let limits = core.config.dmz.tables;
    let now = bans::now();
    let mut unread = None;
    let mut entries = |read: Result<usize, SharedError>| {
        read.unwrap_or_else(|error| {
            unread = Some(format!("tables cannot be read: {error}"));
            0
        })
    };
    let bans = entries(core.shared.bans_in_force(now));
    let buckets = entries(core.shared.buckets_in_use(now));
    let flows = entries(core.shared.flows());
    core.warn("tables", unread);
    vec![
        table("bans", bans, u64::from(limits.bans)),
        table("buckets", buckets, u64::from(limits.buckets)),
        table("flows", flows, u64::from(limits.flows)),
        table("lists-v4", v4, 0),
        table("lists-v6", v6, 0),
        table("rules", core.compiled().slots.iter().count(), u64::from(firewall_common::counter::MAX_RULES)),
    ]
}
