//! Whom the LAN layer never bans, and how much around an address it bans.
//!
//! In: what the host is and what the configuration names. Out: answers in logarithmic time, since a gateway may ask for each
//! refusal and a list may be long. Immutable: a new one takes its place.

use std::{collections::HashSet, net::IpAddr};

use firewall_common::{
    address::{Addr, V4_OFFSET},
    ban::{BanKey, HOST, NETWORK_V6, guard},
};
use ipnet::IpNet;

use crate::{
    config::{List, ListAction, prefix_key},
    host::addresses::Guarded,
};

#[derive(Debug)]
pub struct Exempt {
    /// Never banned.
    spared: Ranges,
    /// Of these, the trusted proxies: no ban of a neighbour may hit them.
    proxies: Ranges,
    /// Networks of IPv6 whose hosts are banned one by one.
    on_link: HashSet<Addr>,
    /// Nobody is banned; it is only told.
    pub monitor: bool,
}

impl Default for Exempt {
    /// Nobody is banned.
    fn default() -> Self {
        Self::new(&Guarded::new(), &[], &[], true)
    }
}

impl Exempt {
    /// `proxies` are the trusted ones of all APIs.
    pub fn new(guarded: &Guarded, lists: &[List], proxies: &[IpNet], monitor: bool) -> Self {
        let proxies = Ranges::new(proxies.iter().map(prefix_key));
        // Nobody can come from these: a ban would be for nothing, or for the host itself.
        let nowhere = [
            (Addr::from(IpAddr::from([127, 0, 0, 0])), V4_OFFSET + 8),
            (Addr::from(IpAddr::from([0, 0, 0, 0])), HOST),
            (Addr::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST)), HOST),
            (Addr::from(IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED)), HOST),
        ];
        let has = |bits: u32, bit: u32| bits & bit != 0;
        let protected = guarded
            .iter()
            .filter(|((_, length), bits)| *length == HOST && has(**bits, guard::PROTECTED))
            .map(|((address, _), _)| (Addr::from(*address), HOST));
        let allowed = lists.iter().filter(|list| list.action == ListAction::Allow);
        let allowed = allowed.flat_map(|list| list.prefixes.iter()).map(prefix_key);
        let spared = nowhere.into_iter().chain(protected).chain(allowed);
        Self {
            spared: Ranges::merged(spared.map(range).chain(proxies.0.iter().copied())),
            proxies,
            on_link: guarded
                .iter()
                .filter(|(_, bits)| has(**bits, guard::ON_LINK))
                .map(|((address, length), _)| Addr::from(*address).masked(*length))
                .collect(),
            monitor,
        }
    }

    /// Whether this address is never banned.
    pub fn spares(&self, address: IpAddr) -> bool {
        let bits = bits(Addr::from(address));
        self.spared.overlap(bits, bits)
    }

    /// What a ban of this address hits: with IPv6 its /64, as a rate rule's does, unless others are in there who must not
    /// be hit.
    pub fn key(&self, address: IpAddr) -> BanKey {
        let address = Addr::from(address);
        let network = BanKey::new(&address, NETWORK_V6);
        if address.is_v4() || self.on_link.contains(&network.address) || self.hits_proxy(&network) {
            BanKey::host(address)
        } else {
            network
        }
    }

    /// Whether this ban, though it was right once, hits whom it must not.
    pub fn forbids(&self, key: &BanKey) -> bool {
        let (start, end) = range((key.address, key.length as u8));
        self.hits_proxy(key) || (start == end && self.spared.overlap(start, end))
    }

    fn hits_proxy(&self, key: &BanKey) -> bool {
        let (start, end) = range((key.address, key.length as u8));
        self.proxies.overlap(start, end)
    }
}

/// Addresses as numbers, in ranges from the first to the last: sorted, none touches another.
#[derive(Debug, Default)]
struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    fn new(prefixes: impl Iterator<Item = (Addr, u8)>) -> Self {
        Self::merged(prefixes.map(range))
    }

    fn merged(ranges: impl Iterator<Item = (u128, u128)>) -> Self {
        let mut sorted: Vec<_> = ranges.collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (start, end) in sorted {
            match merged.last_mut() {
                Some((_, last)) if start <= last.saturating_add(1) => *last = end.max(*last),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// Whether any address from `start` to `end` is among them.
    fn overlap(&self, start: u128, end: u128) -> bool {
        let index = self.0.partition_point(|(_, last)| *last < start);
        self.0.get(index).is_some_and(|(first, _)| *first <= end)
    }
}

fn range((address, length): (Addr, u8)) -> (u128, u128) {
    let start = bits(address.masked(length));
    let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    (start, start | host)
}

fn bits(address: Addr) -> u128 {
    let (high, low) = address.halves();
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Mode;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn list(action: ListAction, prefixes: &[&str]) -> List {
        List {
            name: "l".to_owned(),
            action,
            mode: Mode::Enforce,
            prefixes: prefixes.iter().map(|text| net(text)).collect(),
        }
    }

    fn sample() -> Exempt {
        let guarded = Guarded::from([
            ((ip("198.51.100.1"), HOST), guard::OWN | guard::PROTECTED),
            ((ip("2001:db8:1::1"), HOST), guard::PROTECTED),
            ((ip("2001:db8:1::"), NETWORK_V6), guard::ON_LINK),
        ]);
        let lists = [
            list(ListAction::Allow, &["192.0.2.0/24", "2001:db8:2::/48"]),
            list(ListAction::Block, &["203.0.113.9/32"]),
        ];
        Exempt::new(&guarded, &lists, &[net("203.0.113.64/26"), net("2001:db8:3::5/128")], false)
    }

    #[test]
    fn spares_the_host_the_allowed_and_the_proxies() {
        let exempt = sample();
        for spared in [
            "198.51.100.1",
            "::ffff:198.51.100.1",
            "2001:db8:1::1",
            "192.0.2.0",
            "192.0.2.255",
            "2001:db8:2:ffff::1",
            "203.0.113.64",
            "203.0.113.127",
            "2001:db8:3::5",
            "127.0.0.1",
            "127.255.255.255",
            "::1",
            "::",
            "0.0.0.0",
        ] {
            assert!(exempt.spares(ip(spared)), "{spared}");
        }
        for other in [
            "198.51.100.2",
            "2001:db8:1::2",
            "192.0.3.0",
            "192.0.1.255",
            "203.0.113.9",
            "203.0.113.63",
            "203.0.113.128",
            "2001:db8:3::4",
            "128.0.0.0",
            "::2",
            "2001:db8:3::",
        ] {
            assert!(!exempt.spares(ip(other)), "{other}");
        }
    }

    #[test]
    fn bans_ipv6_by_network_unless_neighbours_must_not_be_hit() {
        let exempt = sample();
        for (address, key, length) in [
            ("203.0.113.9", "203.0.113.9", HOST),
            ("::ffff:203.0.113.9", "203.0.113.9", HOST),
            ("2001:db8:9::7", "2001:db8:9::", NETWORK_V6),
            // A neighbour, and one that shares its network with a trusted proxy.
            ("2001:db8:1::7", "2001:db8:1::7", HOST),
            ("2001:db8:3::7", "2001:db8:3::7", HOST),
        ] {
            let expected = BanKey::new(&Addr::from(ip(key)), length);
            assert_eq!(exempt.key(ip(address)), expected, "{address}");
            assert!(!exempt.forbids(&expected), "{address}");
        }
        let key = |text: &str, length| BanKey::new(&Addr::from(ip(text)), length);
        assert!(exempt.forbids(&key("2001:db8:3::", NETWORK_V6)));
        assert!(exempt.forbids(&key("203.0.113.70", HOST)));
        assert!(exempt.forbids(&key("192.0.2.1", HOST)));
    }

    proptest! {
        #[test]
        fn ranges_hold_what_the_prefixes_hold(
            prefixes in prop::collection::vec((any::<[u8; 2]>(), 0..=16_u8), 0..12),
            addresses in prop::collection::vec(any::<[u8; 2]>(), 1..50),
        ) {
            let address = |[a, b]: [u8; 2]| IpAddr::from([10, 0, a, b]);
            let prefixes: Vec<IpNet> =
                prefixes.iter().map(|(bytes, length)| IpNet::new(address(*bytes), 16 + length).unwrap().trunc()).collect();
            let exempt = Exempt::new(&Guarded::new(), &[], &prefixes, false);
            for address in addresses.into_iter().map(address) {
                prop_assert_eq!(exempt.spares(address), prefixes.iter().any(|prefix| prefix.contains(&address)));
            }
        }
    }
}
