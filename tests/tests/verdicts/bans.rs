//! Stage 4: bans. Those that rates set are in `rate_bans`.

use std::time::Duration;

use firewall_common::{
    address::Addr,
    ban::{Ban, BanKey},
    verdict::DropReason::Ban as Banned,
};
use firewall_user::agent::bans::{self, now};
use tests::frame::ToIp as _;

use crate::support::{Bench, FAMILIES, Family, TCP, V4, V6};

/// The program's clock may lag behind ours by this much, in nanoseconds.
const TICK: u64 = 20_000_000;

/// Which of these sources are banned.
#[track_caller]
fn check(bench: &mut Bench, family: Family, banned: &[&str], free: &[&str]) {
    for source in banned {
        let seen = family.seen_from(source, TCP, (40000, 80), 20);
        bench.drops_by(source, &family.from(source).tcp(40000, 80), (Banned, None), &[], seen);
    }
    for source in free {
        bench.passes(source, &family.from(source).tcp(40000, 80), &[]);
    }
}

#[test]
fn hosts_and_networks_of_ipv6() {
    let mut bench = Bench::new("");
    bench.ban("198.51.100.7/32");
    check(&mut bench, V4, &["198.51.100.7"], &["198.51.100.6", "198.51.100.8"]);
    bench.ban("2001:db8:1::7/128");
    check(&mut bench, V6, &["2001:db8:1::7"], &["2001:db8:1::6", "2001:db8:1::8", "2001:db8:1:1::7"]);
    bench.ban("2001:db8:1:2::/64");
    check(
        &mut bench,
        V6,
        &["2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff"],
        &["2001:db8:1:1:ffff:ffff:ffff:ffff", "2001:db8:1:3::"],
    );
}

/// Defect 3: a /20 ban stored as one host, or as a range of millions.
#[test]
fn defect_3_a_ban_covers_its_prefix_and_nothing_else() {
    let mut bench = Bench::new("");
    for (family, prefix, inside, outside) in [
        (V4, "203.0.112.0/20", ["203.0.112.0", "203.0.127.255"], ["203.0.111.255", "203.0.128.0"]),
        (V4, "9.0.0.0/8", ["9.0.0.0", "9.255.255.255"], ["8.255.255.255", "11.0.0.0"]),
        (V4, "198.51.100.8/31", ["198.51.100.8", "198.51.100.9"], ["198.51.100.7", "198.51.100.10"]),
        (V4, "198.51.99.128/25", ["198.51.99.128", "198.51.99.255"], ["198.51.99.127", "198.51.100.0"]),
        (V6, "2a00::/32", ["2a00::", "2a00:0:ffff:ffff:ffff:ffff:ffff:ffff"], ["29ff:ffff::1", "2a00:1::"]),
        (
            V6,
            "2001:db8:40::/48",
            ["2001:db8:40::", "2001:db8:40:ffff:ffff:ffff:ffff:ffff"],
            ["2001:db8:3f:ffff::", "2001:db8:41::"],
        ),
        (V6, "2001:db8::8/127", ["2001:db8::8", "2001:db8::9"], ["2001:db8::7", "2001:db8::a"]),
        (V6, "2001:db8:9::/65", ["2001:db8:9::", "2001:db8:9:0:7fff::1"], ["2001:db8:8::1", "2001:db8:9:0:8000::"]),
    ] {
        check(&mut bench, family, &[], &[inside[0], inside[1], outside[0], outside[1]]);
        bench.ban(prefix);
        check(&mut bench, family, &inside, &outside);
    }
}

#[test]
fn a_family_leaves_the_other_alone() {
    let mut bench = Bench::new("");
    bench.ban("198.0.0.0/8");
    check(&mut bench, V4, &[V4.client], &[]);
    check(&mut bench, V6, &[], &[V6.client, "c633:6407::", "::c633:6407"]);
}

#[test]
fn bans_end() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        bench.ban_until(family.client, now() - TICK);
        check(&mut bench, family, &[], &[family.client]);
        bench.ban_until(family.client, now() + 400_000_000);
        check(&mut bench, family, &[family.client], &[]);
        std::thread::sleep(Duration::from_millis(450));
        check(&mut bench, family, &[], &[family.client]);
    }
    // An expired host ban does not hide the ban of the network around it.
    bench.ban("203.0.113.0/24");
    bench.ban_until("203.0.113.9/32", now() - TICK);
    check(&mut bench, V4, &["203.0.113.9"], &[]);
}

#[test]
fn a_ban_counts_what_it_drops_and_can_be_lifted() {
    let mut bench = Bench::new("");
    for family in FAMILIES {
        let key = BanKey::host(Addr::from(family.client.to_ip()));
        bench.ban(family.client);
        check(&mut bench, family, &[family.client; 3], &[]);
        assert_eq!(bench.loaded.shared.bans.get(&key, 0).expect("the ban").packets, 3);
        bans::lift(&mut bench.loaded.shared, family.client.to_ip().into()).expect("it was banned");
        check(&mut bench, family, &[], &[family.client]);
    }
}

#[test]
fn a_full_table_evicts_nothing() {
    let mut bench = Bench::new("dmz.tables.bans = 4");
    let sources = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
    sources.iter().for_each(|source| bench.ban(source));
    let (guarded, minute) = (Default::default(), Duration::from_secs(60));
    let limits = bans::Limits { guarded: &guarded, lists: &[], capacity: 4 };
    let refused = bans::set(&mut bench.loaded.shared, &limits, "203.0.113.5/32".parse().expect("a prefix"), minute);
    assert!(matches!(refused, Err(bans::BanError::Full { capacity: 4 })), "{refused:?}");
    check(&mut bench, V4, &sources, &["203.0.113.5"]);
}

/// A table is read in steps, each bigger than the one before if a place of the hash is: none is missed, none is there twice.
#[test]
fn every_ban_is_listed_once() {
    let mut bench = Bench::new("dmz.tables.bans = 20000");
    let ban = Ban { until: u64::MAX / 2, since: 0, packets: 0, origin: 0, padding: 0, rule: u16::MAX, padding2: 0 };
    let host = |number: u32| BanKey::host(Addr::v4((0x0b00_0000 + number).to_be()));
    let keys: Vec<BanKey> = (0..20_000).map(host).collect();
    for key in &keys {
        bench.loaded.shared.bans.insert(key, ban, 0).expect("there is room");
    }
    let address = |key: &BanKey| u32::from_be(key.address.v4_word());
    let mut listed: Vec<u32> =
        bench.loaded.shared.all_bans().expect("it can be read").iter().map(|(key, _)| address(key)).collect();
    listed.sort_unstable();
    assert_eq!(listed, keys.iter().map(address).collect::<Vec<_>>());
}

#[test]
fn eight_other_lengths_of_each_family_hold_at_once() {
    let mut bench = Bench::new("");
    let prefixes: Vec<String> = (0..8).map(|index| format!("203.{index}.0.0/{}", 16 + index)).collect();
    prefixes.iter().for_each(|prefix| bench.ban(prefix));
    for index in 0..8 {
        let source = format!("203.{index}.0.1");
        check(&mut bench, V4, &[&source], &[]);
    }
    (0..8).for_each(|index| bench.ban(&format!("2a0{index}::/{}", 40 + index)));
    for index in 0..8 {
        let source = format!("2a0{index}::1");
        check(&mut bench, V6, &[&source], &["2a09::1"]);
    }
}

/// Whoever bans a neighbour would lose its neighbour discovery too, so that passes; see `exposure`.
#[test]
fn neighbour_discovery_passes_a_ban() {
    let mut bench = Bench::new("");
    bench.ban("2001:db8:1::/64");
    let solicitation = V6.frame().neighbour_solicitation(V6.host.parse().expect("an address"));
    bench.passes("hop limit 255", &solicitation, &["control"]);
    let seen = V6.seen(V6.icmp, (0, 0), 32);
    bench.drops_by("hop limit 254", &solicitation.ttl(254), (Banned, None), &[], seen);
}
