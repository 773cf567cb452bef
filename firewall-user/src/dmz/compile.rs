//! Configuration → what one instance of the program reads. Pure: no kernel, no clock.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use firewall_common::{
    address::V4_OFFSET,
    counter::NO_RULE,
    hygiene::check,
    packet::protocol,
    policy::{Policy, stage},
    port::{PortPolicy, Service, TABLE_LEN, flag},
    prefix::ListEntry,
    rate::{Key, RateRule},
    size::SizeRule,
    token_bucket::Limit,
};

use super::{
    prefixes::{self, Entry, Member},
    slots::{Exhausted, Slots},
};
use crate::config::{
    self, Config, Dmz, ListAction, Mode, Per, Quic, Rate, Services,
    api::{Api, Entry as ApiEntry},
    prefix_key,
};

/// All that an instance reads, ready to be written into its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// `generation` and `mtu` are the agent's to fill in.
    pub policy: Policy,
    /// Indexed by [`Service::index`].
    pub ports: Vec<PortPolicy>,
    pub sizes: Vec<SizeRule>,
    pub rates: Vec<RateRule>,
    pub lists_v4: Vec<Entry>,
    pub lists_v6: Vec<Entry>,
    /// Slots of this policy's rules, and of those before it.
    pub slots: Slots,
    /// Names of this policy's rules.
    pub names: Vec<String>,
}

impl Compiled {
    /// Whether the policy asks about flows, so that the egress program must run.
    pub fn needs_egress(&self) -> bool {
        self.policy.stages & (stage::EXPOSURE | stage::QUIC) != 0
            || (self.policy.stages & stage::HYGIENE != 0 && self.policy.hygiene & check::REFLECTION != 0)
    }
}

/// Names of rules in the slot table.
pub fn list_name(list: &config::List) -> String {
    format!("list/{}", list.name)
}
pub fn rate_name(rate: &Rate) -> String {
    format!("rate/{}", rate.name)
}
pub fn size_name(rule: &config::SizeRule) -> String {
    format!("size/{}", rule.services)
}

/// Compiles `config`, with the slots of the policy before it.
pub fn compile(config: &Config, slots: &Slots) -> Result<Compiled, Exhausted> {
    let dmz = &config.dmz;
    let names: Vec<String> = dmz
        .lists
        .iter()
        .map(list_name)
        .chain(dmz.size.rules.iter().map(size_name))
        .chain(dmz.rates.iter().map(rate_name))
        .collect();
    let slots = slots.with(names.iter().map(String::as_str))?;
    let slot = |name: String| slots.get(&name).unwrap_or(NO_RULE);

    let (lists_v4, lists_v6) = lists(dmz, &slot);
    let sizes: Vec<SizeRule> = dmz.size.rules.iter().map(|rule| size(rule, slot(size_name(rule)))).collect();
    let rates: Vec<RateRule> = dmz.rates.iter().map(|rule| rate(rule, slot(rate_name(rule)))).collect();
    let no_quic = no_quic(config);
    let policy = policy(dmz, &lists_v4, &lists_v6, !no_quic.is_empty());
    Ok(Compiled { policy, ports: ports(dmz, &no_quic), sizes, rates, lists_v4, lists_v6, slots, names })
}

fn lists(dmz: &Dmz, slot: &impl Fn(String) -> u16) -> (Vec<Entry>, Vec<Entry>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for list in &dmz.lists {
        let slot = slot(list_name(list));
        let says = match (list.action, list.mode) {
            (ListAction::Allow, _) => ListEntry { allow: slot, ..ListEntry::NONE },
            (ListAction::Block, Mode::Enforce) => ListEntry { block: slot, ..ListEntry::NONE },
            (ListAction::Block, Mode::Monitor) => ListEntry { monitor: slot, ..ListEntry::NONE },
        };
        for prefix in list.prefixes.iter() {
            let (address, length) = prefix_key(prefix);
            let family = if address.is_v4() && length >= V4_OFFSET { &mut v4 } else { &mut v6 };
            family.push(Member { address, length, says });
        }
    }
    (prefixes::compile(v4), prefixes::compile(v6))
}

/// Ports where the gateway inspects TLS, and QUIC would go around it. Those steered in another network namespace are among
/// them: what goes there by way of this host's interfaces has the same number.
fn no_quic(config: &Config) -> BTreeSet<u16> {
    if config.dmz.quic == Quic::Pass {
        return BTreeSet::new();
    }
    let ports = |api: &Api| -> Vec<u16> {
        match &api.entry {
            ApiEntry::Steered(steered) if api.tls.is_some() || steered.upstream_tls.is_some() => steered.ports.clone(),
            ApiEntry::Proxy { listen, .. } if api.tls.is_some() => {
                listen.iter().map(std::net::SocketAddr::port).collect()
            }
            ApiEntry::Steered(_) | ApiEntry::Proxy { .. } => Vec::new(),
        }
    };
    config.apis.iter().flat_map(ports).collect()
}

fn policy(dmz: &Dmz, lists_v4: &[Entry], lists_v6: &[Entry], no_quic: bool) -> Policy {
    let hygiene = &dmz.hygiene;
    let checks = [
        (hygiene.tcp_flags, check::TCP_FLAGS),
        (hygiene.port_zero, check::PORT_ZERO),
        (hygiene.land, check::LAND),
        (hygiene.bogons, check::BOGONS),
        (hygiene.own_source, check::OWN_SOURCE),
        (hygiene.private_sources, check::PRIVATE_SOURCES),
        (hygiene.link_local_sources, check::LINK_LOCAL_SOURCES),
        (hygiene.fragments, check::FRAGMENTS),
        (hygiene.reflection, check::REFLECTION),
    ];
    let checks = bits(&checks);
    let bounded = dmz.size.min_packet.is_some() || dmz.size.max_packet.is_some();
    let stages = [
        (!lists_v4.is_empty(), stage::LISTS_V4),
        (!lists_v6.is_empty(), stage::LISTS_V6),
        (checks != 0, stage::HYGIENE),
        (bounded, stage::SIZE),
        (!dmz.size.rules.is_empty(), stage::SIZE_RULES),
        (dmz.exposure.is_some(), stage::EXPOSURE),
        (!dmz.rates.is_empty(), stage::RATES),
        (dmz.rates.iter().any(|rate| rate.ban.is_some()), stage::RATE_BANS),
        (no_quic, stage::QUIC),
    ];
    let monitor = [
        (dmz.mode == Mode::Monitor, stage::LAYER),
        (hygiene.mode == Mode::Monitor, stage::HYGIENE),
        (dmz.size.mode == Mode::Monitor, stage::SIZE),
        (dmz.exposure.as_ref().is_some_and(|exposure| exposure.mode == Mode::Monitor), stage::EXPOSURE),
    ];
    Policy {
        generation: 0,
        stages: bits(&stages),
        hygiene: checks,
        min_packet: dmz.size.min_packet.unwrap_or(0),
        max_packet: dmz.size.max_packet.unwrap_or(u32::MAX),
        mtu: 0,
        monitor: bits(&monitor),
        bucket_mask: bucket_sets(&dmz.tables) - 1,
    }
}

fn bits(switches: &[(bool, u32)]) -> u32 {
    switches.iter().filter(|(on, _)| *on).fold(0, |bits, (_, bit)| bits | bit)
}

/// Sets in the table of buckets.
pub fn bucket_sets(tables: &config::Tables) -> u32 {
    (tables.buckets / firewall_common::rate::SET_LEN as u32).next_power_of_two()
}

fn ports(dmz: &Dmz, no_quic: &BTreeSet<u16>) -> Vec<PortPolicy> {
    let mut ports = vec![PortPolicy::default(); TABLE_LEN as usize];
    for services in dmz.exposure.iter().flat_map(|exposure| &exposure.services) {
        each(&mut ports, *services, |port| port.flags |= flag::EXPOSED | flag::SERVED);
    }
    for (index, rule) in (1..=u8::MAX).zip(&dmz.size.rules) {
        each(&mut ports, rule.services, |port| port.size = index);
    }
    for (index, rate) in dmz.rates.iter().enumerate() {
        let bit = 1 << index;
        for services in &rate.services {
            each(&mut ports, *services, |port| port.rates |= bit);
        }
        if rate.services.is_empty() {
            ports.iter_mut().for_each(|port| port.rates |= bit);
        }
    }
    if dmz.hygiene.reflection {
        for port in &dmz.hygiene.reflection_ports {
            ports[Service::Udp(*port).index() as usize].flags |= flag::REFLECTS;
        }
    }
    for port in no_quic {
        ports[Service::Udp(*port).index() as usize].flags |= flag::NO_QUIC;
    }
    ports
}

/// Changes the entries of `services`.
fn each(ports: &mut [PortPolicy], services: Services, change: impl Fn(&mut PortPolicy)) {
    for service in services.iter() {
        change(&mut ports[service.index() as usize]);
    }
    // A protocol named by its number covers its echo requests, too.
    if let Services::Protocol(protocol::ICMP | protocol::ICMPV6) = services {
        change(&mut ports[Service::Echo.index() as usize]);
    }
}

fn size(rule: &config::SizeRule, slot: u16) -> SizeRule {
    SizeRule {
        min: rule.min.unwrap_or(0),
        max: rule.max.unwrap_or(u32::MAX),
        min_payload: rule.min_payload.unwrap_or(0),
        max_payload: rule.max_payload.unwrap_or(u32::MAX),
        slot,
        monitor: u8::from(rule.mode == Mode::Monitor),
        padding: 0,
    }
}

fn rate(rule: &Rate, slot: u16) -> RateRule {
    let (key, v4, v6) = match rule.per {
        Per::Source { v4, v6 } => (Key::Source, v4, v6),
        Per::Service => (Key::Service, 0, 0),
    };
    RateRule {
        id: rate_id(rule),
        packets: rule.packets.unwrap_or(Limit::NONE),
        bytes: rule.bytes.unwrap_or(Limit::NONE),
        connections: rule.connections.unwrap_or(Limit::NONE),
        ban: rule.ban.map_or(0, |ban| u64::try_from(ban.as_nanos()).unwrap_or(u64::MAX / 4)),
        slot,
        key: key as u8,
        monitor: u8::from(rule.mode == Mode::Monitor),
        length_v4: V4_OFFSET + v4,
        length_v6: v6,
        padding: 0,
    }
}

/// A hash of what shapes the rule's buckets. Its low bits are free for the dimension, its top bit is set, so that it is no
/// id of the program's own.
fn rate_id(rule: &Rate) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&rule.name, &rule.services, rule.per, rule.packets, rule.bytes, rule.connections).hash(&mut hasher);
    (hasher.finish() & !0b11) | 1 << 63
}
