//! The DMZ layer: what a packet costs in the program, over an empty program that drops everything.

use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use firewall_common::ban::{Ban, BanKey};
use firewall_user::config::{Config, List, ListAction, Mode};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Serialize;
use tests::{
    frame::{ACK, Frame},
    loaded::{Loaded, Verdict, empty_program, test_run},
};

use super::peer;

/// Runs of each case, interleaved with the others' so that a slow moment hits all alike.
const ROUNDS: usize = 7;
/// Packets in a run.
const PACKETS: u32 = 1_000_000;

const HOST: &str = "192.0.2.1";
const HOST_V6: &str = "2001:db8::1";
/// Source of packets that pass: with an established connection, as clients have.
const CLIENT: &str = "198.51.100.7";

#[derive(Serialize)]
struct Report {
    /// The empty program.
    floor_ns: u64,
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    name: &'static str,
    /// Prefixes of each family in the policy's lists.
    prefixes: u32,
    ns: u64,
    /// Times the floor.
    ratio: f64,
}

/// A program, a packet, and what it should say to it.
pub(crate) struct Contender {
    name: &'static str,
    prefixes: u32,
    program: OwnedFd,
    frame: Vec<u8>,
    runs: Vec<Duration>,
}

pub(crate) fn run(json: bool) -> Result<()> {
    alone().context("namespaces of its own (are you root?)")?;
    tests::netns::loopback_addresses(&[&format!("{HOST}/32"), &format!("{CLIENT}/32"), &format!("{HOST_V6}/128")])?;
    let listener = TcpListener::bind((HOST, 443))?;
    let client = connect()?;
    let client_port = client.local_addr()?.port();

    let floor = empty_program()?;
    let mut contenders = vec![Contender {
        name: "floor",
        prefixes: 0,
        program: floor,
        frame: Frame::v4(CLIENT, HOST).tcp(client_port, 443).flags(ACK).build(),
        runs: Vec::new(),
    }];
    let mut policies = Vec::new();
    for prefixes in [10, 1_000_000] {
        let mut loaded = Loaded::of(policy(prefixes)?)?;
        contenders.extend(cases(&mut loaded, prefixes, client_port)?);
        policies.push(loaded);
    }
    let peer = peer::XdpFilter::start();
    match &peer {
        Ok(peer) => contenders.extend(peer.cases()?),
        Err(error) => eprintln!("xdp-filter is not measured: {error:#}"),
    }

    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for contender in &mut contenders {
            let run = test_run(contender.program.as_fd(), &contender.frame, PACKETS)?;
            contender.runs.push(run.each);
        }
    }
    drop((listener, client));
    let report = report(&mut contenders);
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Moves into a network namespace, where the bench's connection and nothing else lives, and to a BPF file system of its own:
/// xdp-filter keeps its tables at one place for the whole machine, which may be in use.
fn alone() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
}

fn connect() -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::new(CLIENT.parse()?, 0).into())?;
    socket.connect(&std::net::SocketAddr::new(HOST.parse()?, 443).into())?;
    Ok(socket.into())
}

/// Every stage on, as in a real deployment.
fn policy(prefixes: u32) -> Result<Config> {
    let mut config = tests::loaded::config(
        r#"
        [dmz]
        expose = ["22/tcp", "443/tcp", "icmp-echo"]
        [[dmz.list]]
        name = "office"
        action = "allow"
        prefixes = ["203.0.113.0/24", "2001:db8:1::/48"]
        [dmz.hygiene]
        private_sources = true
        [dmz.size]
        max_packet = "9000B"
        rules = [{ port = "443/tcp", max_payload = "9000B" }]
        [[dmz.rate]]
        name = "per-client"
        per = "source"
        ports = ["443/tcp"]
        packets = "1000000000/s"
        connections = "50/s"
        ban = "60s"
        [[dmz.rate]]
        name = "limited"
        per = "source"
        ports = ["22/tcp"]
        packets = "1/s"
        "#,
    )?;
    config.dmz.lists.push(List {
        name: "drop-list".to_owned(),
        action: ListAction::Block,
        mode: Mode::Enforce,
        prefixes: blocked(prefixes),
    });
    Ok(config)
}

/// `count` prefixes of each family, of mixed lengths, all over 11/8 to 99/8 and 2a00::/16.
fn blocked(count: u32) -> std::sync::Arc<[IpNet]> {
    let v4 = (0..count).map(|n| {
        // A step that is prime to the range scatters them; the last 8 bits make some of them hosts.
        let scattered = (u64::from(n) * 2_654_435_761 % (88 << 24)) as u32;
        let length = if n % 4 == 0 { 32 } else { 24 };
        let address = Ipv4Addr::from((11 << 24) + scattered);
        IpNet::V4(Ipv4Net::new_assert(address, length).trunc())
    });
    let v6 = (0..count).map(|n| {
        let scattered = u128::from(n) * 0x9e37_79b9_7f4a_7c15;
        let length = if n % 4 == 0 { 128 } else { 48 };
        let address = Ipv6Addr::from((0x2a00 << 112) | (scattered << 16 >> 16 << 8 >> 8));
        IpNet::V6(Ipv6Net::new_assert(address, length).trunc())
    });
    let mut all: Vec<IpNet> = v4.chain(v6).collect();
    all.sort();
    all.dedup();
    all.into()
}

/// The cases of one policy, each with its verdict asserted.
fn cases(loaded: &mut Loaded, prefixes: u32, client_port: u16) -> Result<Vec<Contender>> {
    let list = loaded.config.dmz.lists.iter().find(|list| list.name == "drop-list").context("the list")?;
    let blocked_v4 = list.prefixes.iter().find(|prefix| matches!(prefix, IpNet::V4(_))).context("a prefix")?.addr();
    let blocked_v6 = list.prefixes.iter().find(|prefix| matches!(prefix, IpNet::V6(_))).context("a prefix")?.addr();
    let banned: Ipv4Addr = "198.51.100.66".parse()?;
    let ban = Ban { until: u64::MAX / 2, since: 0, packets: 0, origin: 0, padding: 0, rule: u16::MAX, padding2: 0 };
    loaded.shared.bans.insert(BanKey::host(std::net::IpAddr::V4(banned).into()), ban, 0)?;

    let table = [
        ("pass_all_on", Frame::v4(CLIENT, HOST).tcp(client_port, 443).flags(ACK).payload(64).build(), Verdict::Pass),
        (
            "drop_block_v4",
            Frame::ip(blocked_v4, std::net::IpAddr::from([192, 0, 2, 1])).tcp(4000, 443).flags(ACK).build(),
            Verdict::Drop,
        ),
        (
            "drop_block_v6",
            Frame::ip(blocked_v6, HOST_V6.parse::<std::net::IpAddr>()?).tcp(4000, 443).flags(ACK).build(),
            Verdict::Drop,
        ),
        ("drop_ban", Frame::v4(banned, HOST).tcp(4000, 443).flags(ACK).build(), Verdict::Drop),
        ("drop_rate", Frame::v4("198.51.100.67", HOST).tcp(4000, 22).flags(ACK).build(), Verdict::Drop),
        (
            "drop_exposure",
            Frame::v4("198.51.100.68", HOST).tcp(4000, 8443).flags(tests::frame::SYN).build(),
            Verdict::Drop,
        ),
    ];
    let mut contenders = Vec::new();
    for (name, frame, expected) in table {
        let reason = |loaded: &mut Loaded| -> Result<u64> {
            use firewall_common::{counter::Tally, verdict::DropReason};
            let counters = loaded.counters()?;
            Ok(match name {
                "drop_block_v4" | "drop_block_v6" => counters.dropped(DropReason::BlockList),
                "drop_ban" => counters.dropped(DropReason::Ban),
                "drop_rate" => counters.dropped(DropReason::PacketRate),
                "drop_exposure" => counters.dropped(DropReason::NotExposed),
                _ => counters.tally(Tally::Passed),
            })
        };
        // A rate drops only what exceeds it.
        if name == "drop_rate" {
            loaded.run(&frame, 100_000)?;
        }
        let before = reason(loaded)?;
        let verdict = loaded.judge(&frame)?;
        ensure!(verdict == expected, "{name} with {prefixes} prefixes: {verdict:?}, expected {expected:?}");
        ensure!(reason(loaded)? == before + 1, "{name} with {prefixes} prefixes: for another reason");
        contenders.push(Contender { name, prefixes, program: loaded.program()?, frame, runs: Vec::new() });
    }
    Ok(contenders)
}

impl Contender {
    pub(crate) fn peer(name: &'static str, prefixes: u32, program: OwnedFd, frame: Vec<u8>) -> Self {
        Self { name, prefixes, program, frame, runs: Vec::new() }
    }

    fn median(&mut self) -> u64 {
        self.runs.sort();
        self.runs.get(self.runs.len() / 2).map_or(0, |median| median.as_nanos() as u64)
    }
}

fn report(contenders: &mut [Contender]) -> Report {
    let mut medians = contenders.iter_mut().map(|contender| (contender.name, contender.prefixes, contender.median()));
    let floor_ns = medians.next().map_or(0, |(_, _, ns)| ns);
    let cases = medians
        .map(|(name, prefixes, ns)| Case { name, prefixes, ns, ratio: ns as f64 / floor_ns.max(1) as f64 })
        .collect();
    Report { floor_ns, cases }
}

fn print(report: &Report) {
    println!("{:<18} {:>9} {:>7} {:>9} {:>7}", "case", "prefixes", "ns", "over", "ratio");
    println!("{:<18} {:>9} {:>7}", "floor", "", report.floor_ns);
    for case in &report.cases {
        let over = case.ns.saturating_sub(report.floor_ns);
        println!("{:<18} {:>9} {:>7} {:>+9} {:>7.1}", case.name, case.prefixes, case.ns, over, case.ratio);
    }
}
