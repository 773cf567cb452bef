//! Turns what the kernel tells of a verdict into a [`Record`].
//!
//! In: an [`Event`] of the ring buffer, the names that were in force, and the relation of the two clocks. Out: a record.
//! A number that has no name here becomes `unknown-N`: an agent may meet events of a policy it no longer knows.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use firewall_common::{
    address::Addr,
    counter::NO_RULE,
    event::{Event, EventAction},
    packet::protocol,
    verdict::DropReason,
};
use nix::time::{ClockId, clock_gettime};

use super::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    List,
    Rate,
    Size,
}

impl RuleKind {
    /// The name in `status` and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Rate => "rate",
            Self::Size => "size",
        }
    }
}

/// Who owns a counter slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleName {
    pub kind: RuleKind,
    pub name: Arc<str>,
}

/// Policies whose names are remembered. Events are read within 20 ms, or on a busy host a few reloads later.
const REMEMBERED: usize = 8;

/// What the numbers of an event mean.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By counter slot, for each of the latest policies, by its generation: a slot may serve another rule soon after.
    rules: Vec<(u32, Arc<HashMap<u16, RuleName>>)>,
    /// By interface index.
    interfaces: HashMap<u32, Arc<str>>,
}

impl Names {
    /// With the names of a policy. What was known of that generation is forgotten.
    pub fn with(&self, generation: u32, rules: HashMap<u16, RuleName>, interfaces: HashMap<u32, Arc<str>>) -> Self {
        let others = self.rules.iter().filter(|(of, _)| *of != generation).take(REMEMBERED - 1).cloned();
        Self { rules: std::iter::once((generation, Arc::new(rules))).chain(others).collect(), interfaces }
    }

    /// The latest names, where a policy is not known.
    fn rule(&self, generation: u32, slot: u16) -> Option<&RuleName> {
        let of_it = self.rules.iter().find(|(of, _)| *of == generation);
        let (_, rules) = of_it.or(self.rules.first())?;
        rules.get(&slot)
    }
}

/// The wall clock's lead over CLOCK_MONOTONIC. It changes when the wall clock is set, so sample it now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Nanoseconds between the epoch and the zero of CLOCK_MONOTONIC.
    offset: i128,
}

impl WallClock {
    /// Reads both clocks.
    pub fn sample() -> Self {
        // CLOCK_MONOTONIC exists on every Linux; without it, times count from the epoch.
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self::from_pair(monotonic, SystemTime::now())
    }

    /// From what the two clocks showed at the same moment.
    pub fn from_pair(monotonic: Duration, wall: SystemTime) -> Self {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { offset: wall.as_nanos() as i128 - monotonic.as_nanos() as i128 }
    }

    /// The wall clock's time at `monotonic` nanoseconds; 1970 at the earliest.
    pub fn time(self, monotonic: u64) -> SystemTime {
        let nanoseconds = u64::try_from((self.offset + i128::from(monotonic)).max(0)).unwrap_or(u64::MAX);
        UNIX_EPOCH + Duration::from_nanos(nanoseconds)
    }
}

/// The event at the start of `bytes`, or `None` if they are too few. A later ABI may append fields.
pub fn read(bytes: &[u8]) -> Option<Event> {
    let bytes = bytes.get(..size_of::<Event>())?;
    // SAFETY: the slice has the size of an event, every bit pattern is one, and the read may be unaligned.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// The record of `event`.
pub fn record(event: &Event, names: &Names, clock: WallClock) -> Record {
    let reason = DropReason::from_number(event.reason);
    // The kernel fills in what it read before the verdict. A frame cut short in its Ethernet header has no addresses.
    let parsed = event.source != Addr::default() || event.destination != Addr::default();
    // Later fragments and headers cut short have no ports, which the kernel reports as zeros.
    let has_ports = matches!(event.protocol, protocol::TCP | protocol::UDP)
        && (event.source_port != 0 || event.destination_port != 0 || reason == Some(DropReason::PortZero));
    let (rule, list) = rule_and_list(event, names);
    Record {
        time: clock.time(event.time),
        layer: "dmz",
        action: match EventAction::from_number(event.action) {
            Some(action) => action.name().into(),
            None => unknown(event.action).into(),
        },
        reason: match reason {
            Some(reason) => reason.name().into(),
            None => unknown(event.reason).into(),
        },
        rule,
        list,
        source: parsed.then(|| IpAddr::from(event.source)),
        source_port: has_ports.then_some(event.source_port),
        destination: parsed.then(|| IpAddr::from(event.destination)),
        destination_port: has_ports.then_some(event.destination_port),
        protocol: parsed.then(|| protocol_name(event.protocol)),
        length: event.length,
        interface: match names.interfaces.get(&event.interface) {
            Some(name) => Arc::clone(name),
            None => unknown(event.interface).into(),
        },
        count: event.count.max(1),
        generation: event.generation,
    }
}

fn rule_and_list(event: &Event, names: &Names) -> (Option<Arc<str>>, Option<Arc<str>>) {
    let slot = event.rule;
    if slot == NO_RULE {
        return (None, None);
    }
    match names.rule(event.generation, slot) {
        Some(RuleName { kind: RuleKind::List, name }) => (None, Some(Arc::clone(name))),
        Some(RuleName { kind: RuleKind::Rate | RuleKind::Size, name }) => (Some(Arc::clone(name)), None),
        None => (Some(unknown(slot).into()), None),
    }
}

fn protocol_name(number: u8) -> Cow<'static, str> {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        _ => number.to_string().into(),
    }
}

fn unknown(number: impl std::fmt::Display) -> String {
    format!("unknown-{number}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOCK: WallClock = WallClock { offset: 1_700_000_000_000_000_000 };

    fn names() -> Names {
        let name = |kind, name: &str| RuleName { kind, name: name.into() };
        let rules = HashMap::from([
            (1, name(RuleKind::List, "drop-list")),
            (2, name(RuleKind::Rate, "per-client")),
            (3, name(RuleKind::Size, "53/udp")),
        ]);
        Names::default().with(1, rules, HashMap::from([(4, "eth0".into())]))
    }

    #[test]
    fn a_slot_means_what_it_meant_to_the_policy_of_the_event() {
        let with = |names: &Names, generation: u32, slot, name: &str| {
            let rule = RuleName { kind: RuleKind::List, name: name.into() };
            names.with(generation, HashMap::from([(slot, rule)]), HashMap::new())
        };
        let list = |names: &Names, generation| {
            let event = Event { rule: 1, generation, ..event() };
            rule_and_list(&event, names).1.map(|name| name.to_string())
        };
        let first = with(&Names::default(), 7, 1, "first");
        let both = with(&first, 8, 1, "second");
        let got = [6, 7, 8, 9].map(|generation| list(&both, generation));
        assert_eq!(got, ["second", "first", "second", "second"].map(|name| Some(name.to_owned())));
        // The policy before is put back.
        assert_eq!(list(&with(&both, 7, 1, "again"), 7).as_deref(), Some("again"));
        let many = (10..30).fold(both, |names, generation| with(&names, generation, 1, &generation.to_string()));
        assert_eq!(many.rules.len(), REMEMBERED);
        assert_eq!(list(&many, 29 - REMEMBERED as u32 + 1).as_deref(), Some("22"));
    }

    fn event() -> Event {
        Event {
            time: 7_000_000,
            source: IpAddr::from([203, 0, 113, 7]).into(),
            destination: IpAddr::from([198, 51, 100, 1]).into(),
            count: 12,
            interface: 4,
            generation: 3,
            length: 60,
            source_port: 40000,
            destination_port: 443,
            rule: 2,
            reason: DropReason::PacketRate as u8,
            action: EventAction::Drop as u8,
            protocol: protocol::TCP,
            tcp_flags: 2,
            icmp_type: 0,
            icmp_code: 0,
            padding: [0; 4],
        }
    }

    #[test]
    fn names_what_it_knows() {
        assert_eq!(record(&event(), &names(), CLOCK), super::super::record::tests::sample());
        let listed = record(&Event { rule: 1, ..event() }, &names(), CLOCK);
        assert_eq!((listed.rule, listed.list.as_deref()), (None, Some("drop-list")));
        let sized = record(&Event { rule: 3, ..event() }, &names(), CLOCK);
        assert_eq!((sized.rule.as_deref(), sized.list), (Some("53/udp"), None));
        let none = record(&Event { rule: NO_RULE, ..event() }, &names(), CLOCK);
        assert_eq!((none.rule, none.list), (None, None));
    }

    #[test]
    fn numbers_what_it_does_not_know() {
        let strange = Event { rule: 9, reason: 200, action: 77, interface: 5, ..event() };
        let record = record(&strange, &names(), CLOCK);
        assert_eq!(record.rule.as_deref(), Some("unknown-9"));
        assert_eq!(record.reason, "unknown-200");
        assert_eq!(record.action, "unknown-77");
        assert_eq!(&*record.interface, "unknown-5");
    }

    #[test]
    fn gives_ports_only_where_there_are_some() {
        let ports = |event: Event| {
            let record = record(&event, &names(), CLOCK);
            (record.source_port, record.destination_port)
        };
        assert_eq!(ports(event()), (Some(40000), Some(443)));
        assert_eq!(ports(Event { protocol: protocol::ICMP, ..event() }), (None, None));
        let fragment = Event { source_port: 0, destination_port: 0, ..event() };
        assert_eq!(ports(fragment), (None, None));
        assert_eq!(ports(Event { reason: DropReason::PortZero as u8, ..fragment }), (Some(0), Some(0)));
        assert_eq!(ports(Event { source_port: 0, ..event() }), (Some(0), Some(443)));
    }

    #[test]
    fn names_protocols() {
        let name = |protocol| record(&Event { protocol, ..event() }, &names(), CLOCK).protocol.unwrap();
        assert_eq!([name(6), name(17), name(1), name(58), name(47)], ["tcp", "udp", "icmp", "icmpv6", "47"]);
    }

    #[test]
    fn leaves_out_addresses_that_were_never_read() {
        let cut = Event { source: Addr::default(), destination: Addr::default(), protocol: 0, ..event() };
        let record = record(&cut, &names(), CLOCK);
        assert_eq!((record.source, record.destination, record.protocol), (None, None, None));
    }

    #[test]
    fn relates_the_clocks() {
        let wall = UNIX_EPOCH + Duration::from_secs(1000);
        let clock = WallClock::from_pair(Duration::from_secs(400), wall);
        assert_eq!(clock.time(400_000_000_000), wall);
        assert_eq!(clock.time(0), UNIX_EPOCH + Duration::from_secs(600));
        // A wall clock that has been set back to before the boot.
        assert_eq!(WallClock::from_pair(Duration::from_secs(400), UNIX_EPOCH).time(0), UNIX_EPOCH);
        let now = WallClock::sample();
        let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let read = now.time(monotonic.as_nanos() as u64);
        assert!(SystemTime::now().duration_since(read).unwrap_or_default() < Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn reads_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            let event = read(&bytes);
            prop_assert_eq!(event.is_some(), bytes.len() >= size_of::<Event>());
            if let Some(event) = event {
                let line = serde_json::to_vec(&record(&event, &names(), CLOCK)).unwrap();
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
            }
        }
    }
}
