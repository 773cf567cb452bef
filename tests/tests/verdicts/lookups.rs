//! Lists against a plain reference: random prefixes, random addresses, the real program.

use std::{fmt::Write as _, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::{prelude::*, sample::Index};
use tests::{frame::Frame, loaded::Verdict};

use crate::support::{Bench, V4, V6};

const NO_HYGIENE: &str = "[dmz.hygiene]\ntcp_flags = false\nport_zero = false\nland = false\nbogons = false\nown_source = false\n\
    reflection = false\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Allow,
    Block,
    Monitor,
}

/// Addresses of few distinct beginnings, so that prefixes nest.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (0u32..4, any::<u32>(), 1u8..=32).prop_map(|(first, rest, length)| {
        IpNet::from(Ipv4Net::new((first << 30 | rest & 0x3003_000f).into(), length).expect("a length").trunc())
    });
    let v6 = (0u128..4, any::<u128>(), 4u8..=128).prop_map(|(first, rest, length)| {
        let bits = 0x2 << 124 | first << 122 | rest & (0x3 << 80 | 0x3 << 62 | 0xf);
        IpNet::from(Ipv6Net::new(bits.into(), length).expect("a length").trunc())
    });
    prop_oneof![v4, v6]
}

fn lists() -> impl Strategy<Value = Vec<(Kind, Vec<IpNet>)>> {
    let kind = prop_oneof![Just(Kind::Allow), Just(Kind::Block), Just(Kind::Block), Just(Kind::Monitor)];
    prop::collection::vec((kind, prop::collection::vec(prefix(), 1..40)), 1..6)
}

/// An address at or near an end of a prefix, or anywhere.
fn probe() -> impl Strategy<Value = (Index, u8, u128)> {
    (any::<Index>(), 0u8..6, any::<u128>())
}

fn address(all: &[IpNet], (which, place, random): &(Index, u8, u128)) -> IpAddr {
    let prefix = which.get(all);
    let shifted = |address: IpAddr, by: i8| match address {
        IpAddr::V4(v4) => IpAddr::from(v4.to_bits().wrapping_add_signed(by.into()).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from(v6.to_bits().wrapping_add_signed(by.into()).to_be_bytes()),
    };
    match (place, prefix) {
        (0, _) => prefix.network(),
        (1, _) => prefix.broadcast(),
        (2, _) => shifted(prefix.network(), -1),
        (3, _) => shifted(prefix.broadcast(), 1),
        (4, IpNet::V4(v4)) => IpAddr::V4((v4.network().to_bits() | *random as u32 & v4.hostmask().to_bits()).into()),
        (4, IpNet::V6(v6)) => IpAddr::V6((v6.network().to_bits() | random & v6.hostmask().to_bits()).into()),
        (_, IpNet::V4(_)) => IpAddr::V4((*random as u32).into()),
        (_, IpNet::V6(_)) => IpAddr::V6((*random).into()),
    }
}

fn policy(lists: &[(Kind, Vec<IpNet>)]) -> String {
    let mut policy = NO_HYGIENE.to_owned();
    for (number, (kind, prefixes)) in lists.iter().enumerate() {
        let keys = match kind {
            Kind::Allow => "action = \"allow\"",
            Kind::Block => "action = \"block\"",
            Kind::Monitor => "action = \"block\"\nmode = \"monitor\"",
        };
        let mut prefixes: Vec<String> = prefixes.iter().map(IpNet::to_string).collect();
        prefixes.sort();
        prefixes.dedup();
        let _infallible = writeln!(policy, "[[dmz.list]]\nname = \"l{number}\"\n{keys}\nprefixes = {prefixes:?}");
    }
    policy
}

/// Lists of a kind that hold the longest prefix of that kind around the address.
fn holders(lists: &[(Kind, Vec<IpNet>)], kind: Kind, address: &IpAddr) -> Vec<String> {
    let length = |list: &(Kind, Vec<IpNet>)| {
        let around = list.1.iter().filter(|prefix| list.0 == kind && prefix.contains(address));
        around.map(IpNet::prefix_len).max()
    };
    let longest = lists.iter().filter_map(length).max();
    let numbered = lists.iter().enumerate().filter(|(_, list)| longest.is_some() && length(list) == longest);
    numbered.map(|(number, _)| format!("list/l{number}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_program_answers_as_a_plain_search_would(
        lists in lists(),
        probes in prop::collection::vec(probe(), 300),
    ) {
        let mut bench = Bench::new(&policy(&lists));
        let all: Vec<IpNet> = lists.iter().flat_map(|(_, prefixes)| prefixes.clone()).collect();
        for probe in &probes {
            let source = address(&all, probe);
            // An IPv4 address in IPv6 clothes is a bogon, and no list's.
            if source != source.to_canonical() {
                continue;
            }
            let host = if source.is_ipv4() { V4.host } else { V6.host };
            let frame = Frame::ip(source, host).udp(40000, 5000).build();
            let (verdict, counted, told) = bench.run(&frame);
            let [allow, block, monitor] = [Kind::Allow, Kind::Block, Kind::Monitor].map(|kind| holders(&lists, kind, &source));
            let names: Vec<String> = counted.iter().map(|(name, _)| name.clone()).collect();
            let blamed = |holders: &[String]| holders.iter().filter(|holder| names.contains(holder)).count();
            let expected = if allow.is_empty() && !block.is_empty() { Verdict::Drop } else { Verdict::Pass };
            prop_assert_eq!(verdict, expected, "{} {:?} {:?} {:?}", source, allow, block, monitor);
            if allow.is_empty() {
                let verdicts = usize::from(!block.is_empty()) + usize::from(!monitor.is_empty());
                prop_assert_eq!(told.len(), verdicts, "{} {:?}", source, told);
                prop_assert_eq!(blamed(&block), usize::from(!block.is_empty()), "{} {:?}", source, names);
                prop_assert_eq!(blamed(&monitor), usize::from(!monitor.is_empty()), "{} {:?}", source, names);
            } else {
                prop_assert_eq!(blamed(&allow), 1, "{} {:?}", source, names);
                prop_assert_eq!(names.len(), 3, "{} {:?}", source, names);
            }
        }
    }
}
