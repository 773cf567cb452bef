//! The edge back: what the gateway condemns is dropped by the kernel, whatever the agent is busy with.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use firewall_common::{
    address::Addr,
    ban::{Ban, BanKey, BanOrigin, HOST, NETWORK_V6},
    counter::NO_RULE,
};
use firewall_inspect::reason::Reason;
use firewall_user::{
    agent::{
        bans,
        condemn::{Condemner, Sentence},
        core::Core,
    },
    config::{self, Overrides},
    events::kernel::WallClock,
    paths::Paths,
};
use tempfile::TempDir;
use tests::{
    frame::{Frame, ToIp as _},
    netns::{HOST_V4, HOST_V6, Namespace, World, client_v6, unique_name},
    traffic::{Wire, load_lock},
};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// The agent's core in this process, on the host of a world.
struct Host {
    core: Option<Core>,
    namespace: Namespace,
    paths: Paths,
    directory: TempDir,
}

impl Host {
    fn start(world: &World, policy: &str) -> Self {
        let paths = Paths::new(unique_name().parse().unwrap());
        let mut host =
            Self { core: None, namespace: world.host.clone(), paths, directory: tempfile::tempdir().unwrap() };
        host.write(policy);
        host.launch();
        host
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("portcullis.toml")
    }

    fn events(&self) -> PathBuf {
        self.directory.path().join("events.json")
    }

    fn write(&self, policy: &str) {
        let events = self.events();
        let text = format!(
            "interfaces = [\"eth0\"]\non_agent_exit = \"detach\"\n[events]\nstdout = false\n[events.file]\npath = {events:?}\n{policy}"
        );
        fs::write(self.config(), text).unwrap();
    }

    fn launch(&mut self) {
        let (path, paths) = (self.config(), self.paths.clone());
        let core = self.namespace.enter(move || {
            let config = config::load(&path, &Overrides::default()).unwrap();
            Core::start(paths, path, Overrides::default(), config, false, None, HashMap::new()).unwrap()
        });
        self.core = Some(core);
    }

    fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    fn condemner(&self) -> Condemner {
        self.core.as_ref().unwrap().condemner.clone()
    }

    fn reload(&mut self, policy: &str) {
        self.write(policy);
        let core = self.core.as_mut().unwrap();
        self.namespace.enter(|| core.reload().unwrap());
    }

    /// Condemns, and waits until that is carried out.
    fn condemn(&self, address: &str, lasts: Duration) {
        let condemner = self.condemner();
        condemner.condemn(sentence(address.to_ip(), lasts));
        condemner.settle(10 * SECOND);
    }

    fn ban(&self, key: &BanKey) -> Option<Ban> {
        self.core.as_ref().unwrap().shared.bans.get(key, 0).ok()
    }

    /// The ban of exactly this address.
    fn host_ban(&self, address: &str) -> Option<Ban> {
        self.ban(&BanKey::host(Addr::from(address.to_ip())))
    }

    fn outcome(&self, name: &str) -> u64 {
        self.condemner().outcomes().find(|(outcome, _)| *outcome == name).unwrap().1
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.core.take());
        for path in [self.paths.pins(), self.paths.state()] {
            // One of them may never have been made.
            let _gone = fs::remove_dir_all(path);
        }
    }
}

fn sentence(address: IpAddr, lasts: Duration) -> Sentence {
    Sentence { address, lasts, score: 104, offences: 2, api: "shop".into(), reason: Reason::PathAboveRoot }
}

fn left(ban: &Ban) -> Duration {
    Duration::from_nanos(ban.until - bans::now())
}

fn of_operator(lasts: Duration) -> Ban {
    let since = bans::now();
    let until = since + u64::try_from(lasts.as_nanos()).unwrap();
    let origin = BanOrigin::Operator as u8;
    Ban { until, since, packets: 0, origin, padding: 0, rule: NO_RULE, padding2: 0 }
}

const POLICY: &str = r#"
[dmz]
expose = ["6000/udp"]
[[dmz.list]]
name = "friends"
action = "allow"
prefixes = ["203.0.113.0/24", "2001:db8:f::/48"]
"#;

#[test]
fn the_kernel_drops_the_condemned_and_spares_the_others() {
    let world = World::new().unwrap();
    let host = Host::start(&world, POLICY);
    let wire = Wire::open(&world).unwrap();
    let from = |source: &str| {
        let to = if source.contains(':') { HOST_V6 } else { HOST_V4 };
        Frame::ip(source, to).udp(40_000, 6000)
    };
    for source in ["198.51.100.7", "2001:db8:9::7"] {
        assert!(wire.passes(&from(source)).unwrap(), "{source}");
        host.condemn(source, HOUR);
        assert!(!wire.passes(&from(source)).unwrap(), "{source}");
    }
    assert!(wire.passes(&from("198.51.100.8")).unwrap());
    // With IPv6 the network is banned, but of a neighbour the address alone.
    assert!(!wire.passes(&from("2001:db8:9::8")).unwrap());
    let [neighbour, other] = [client_v6(0), client_v6(1)].map(|address| address.to_string());
    host.condemn(&neighbour, HOUR);
    assert!(!wire.passes(&from(&neighbour)).unwrap() && wire.passes(&from(&other)).unwrap());
    let network = host.ban(&BanKey::new(&Addr::from("2001:db8:9::7".to_ip()), NETWORK_V6)).unwrap();
    assert_eq!((network.origin, network.rule, host.outcome("set")), (BanOrigin::Reputation as u8, NO_RULE, 3));

    let own = [HOST_V4, HOST_V6, "127.0.0.1", "::1", "203.0.113.9", "::ffff:203.0.113.9", "2001:db8:f::1"];
    for spared in own {
        assert!(host.condemner().is_exempt(spared.to_ip()), "{spared}");
        host.condemn(spared, HOUR);
        assert!(host.host_ban(spared).is_none(), "{spared}");
    }
    assert!(!host.condemner().is_exempt("198.51.100.7".to_ip()));
    assert_eq!((host.outcome("protected"), host.outcome("set")), (own.len() as u64, 3));
    assert_eq!(host.core.as_ref().unwrap().shared.all_bans().unwrap().len(), 3);
}

#[test]
fn no_ban_is_shortened_and_none_of_the_operators_touched() {
    let world = World::new().unwrap();
    let mut host = Host::start(&world, POLICY);
    let [operators, rates, ours, over] = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];
    let key = |address: &str| BanKey::host(Addr::from(address.to_ip()));
    let minute = of_operator(60 * SECOND);
    let long = Ban { origin: BanOrigin::Rate as u8, ..of_operator(2 * HOUR) };
    let ended = Ban { until: bans::now(), ..minute };
    for (address, ban) in [(operators, minute), (rates, long), (over, ended)] {
        host.core().shared.bans.insert(key(address), ban, 0).unwrap();
    }
    for address in [operators, rates, ours, over] {
        host.condemn(address, HOUR);
    }
    assert_eq!(host.host_ban(operators), Some(minute));
    assert_eq!(host.host_ban(rates), Some(long));
    assert_eq!((host.outcome("kept"), host.outcome("set")), (2, 2));
    assert_eq!(host.host_ban(over).unwrap().origin, BanOrigin::Reputation as u8, "what is over is no ban");
    // Ours is made longer, never shorter.
    host.condemn(ours, 60 * SECOND);
    assert!(left(&host.host_ban(ours).unwrap()) > HOUR - 60 * SECOND);
    host.condemn(ours, 2 * HOUR);
    assert!(left(&host.host_ban(ours).unwrap()) > HOUR);
    // A longer one of a rate's takes the place of a shorter one as well.
    let short = Ban { origin: BanOrigin::Rate as u8, ..of_operator(60 * SECOND) };
    host.core().shared.bans.insert(key(rates), short, 0).unwrap();
    host.condemn(rates, HOUR);
    assert_eq!(host.host_ban(rates).unwrap().origin, BanOrigin::Reputation as u8);
    // No ban is for ever, and none for nothing.
    host.condemn("198.51.100.5", Duration::MAX);
    host.condemn("198.51.100.6", Duration::ZERO);
    assert!(left(&host.host_ban("198.51.100.5").unwrap()) <= 365 * 24 * HOUR);
    let least = host.host_ban("198.51.100.6").unwrap();
    assert_eq!(least.until - least.since, 1_000_000_000);
}

#[test]
fn monitor_mode_only_tells() {
    let world = World::new().unwrap();
    let mut host = Host::start(&world, &POLICY.replace("[dmz]", "[dmz]\nmode = \"monitor\""));
    host.condemn("198.51.100.7", HOUR);
    assert!(host.host_ban("198.51.100.7").is_none());
    host.reload(POLICY);
    host.condemn("198.51.100.7", HOUR);
    assert!(host.host_ban("198.51.100.7").is_some());
    assert_eq!((host.outcome("monitored"), host.outcome("set")), (1, 1));
    let counts = host.core().sinks.close();
    assert_eq!((counts.delivered, counts.lost), (2, 0));
    let text = fs::read_to_string(host.events()).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (event, action) in events.iter().zip(["monitor", "ban"]) {
        let told = ["layer", "action", "reason", "source", "prefix", "api", "last_reason"].map(|name| &event[name]);
        let expected = ["lan", action, "reputation", "198.51.100.7", "198.51.100.7/32", "shop", "path-above-root"];
        assert_eq!(told, expected, "{event}");
        assert_eq!(
            (&event["score"], &event["offences"], &event["ban_seconds"]),
            (&104.into(), &2.into(), &3600.into())
        );
    }
}

#[test]
fn a_full_table_evicts_nobody_and_is_counted() {
    let world = World::new().unwrap();
    let host = Host::start(&world, &format!("[dmz.tables]\nbans = 1024\n{POLICY}"));
    let condemner = host.condemner();
    for number in 0..1200_u32 {
        let [.., a, b] = number.to_be_bytes();
        condemner.condemn(sentence(IpAddr::from([10, 0, a, b]), HOUR));
    }
    condemner.settle(10 * SECOND);
    assert_eq!((host.outcome("set"), host.outcome("failed")), (1024, 176));
    assert!(host.host_ban("10.0.0.0").is_some() && host.host_ban("10.0.4.175").is_none());
}

#[test]
fn a_policy_that_spares_somebody_lifts_the_ban() {
    let world = World::new().unwrap();
    let mut host = Host::start(&world, POLICY);
    host.condemn("198.51.100.7", HOUR);
    host.condemn("198.51.100.8", HOUR);
    let operators = of_operator(HOUR);
    host.core().shared.bans.insert(BanKey::host(Addr::from("198.51.100.9".to_ip())), operators, 0).unwrap();
    host.reload(&POLICY.replace("\"203.0.113.0/24\"", "\"198.51.100.7/32\", \"198.51.100.9/32\""));
    assert!(host.host_ban("198.51.100.7").is_none());
    assert!(host.host_ban("198.51.100.8").is_some());
    assert_eq!(host.host_ban("198.51.100.9"), Some(operators));
    host.condemn("198.51.100.7", HOUR);
    assert!(host.host_ban("198.51.100.7").is_none());
    host.condemn("203.0.113.9", HOUR);
    assert!(host.host_ban("203.0.113.9").is_some());
}

#[test]
fn bans_and_their_causes_outlive_a_reboot() {
    let world = World::new().unwrap();
    let mut host = Host::start(&world, POLICY);
    host.condemn("198.51.100.7", HOUR);
    host.condemn("2001:db8:9::7", HOUR);
    let described = |host: &Host| {
        let core = host.core.as_ref().unwrap();
        let (slots, clock) = (core.shared.slots().unwrap(), WallClock::sample());
        let all = core.shared.all_bans().unwrap();
        let mut all: Vec<_> =
            all.iter().map(|(key, ban)| bans::describe(key, ban, &slots, clock, &core.condemner)).collect();
        all.sort_by_key(|ban| ban.prefix);
        all
    };
    let before = described(&host);
    let [v4, v6] = &before[..] else { panic!("{before:?}") };
    assert_eq!((v4.prefix.to_string(), v6.prefix.to_string()), ("198.51.100.7/32".into(), "2001:db8:9::/64".into()));
    assert_eq!((v4.layer.as_str(), v4.origin.as_str(), &v4.rule), ("lan", "reputation", &None));
    let cause = v4.cause.as_ref().unwrap();
    assert_eq!(
        (cause.api.as_str(), cause.reason.as_str(), cause.score, cause.offences),
        ("shop", "path-above-root", 104, 2)
    );
    let core = host.core();
    let text = bans::to_save(&core.shared, &core.condemner).unwrap();
    bans::save(&text, &host.paths.bans(), None).unwrap();
    for reboot in [false, true] {
        drop(host.core.take());
        if reboot {
            fs::remove_dir_all(host.paths.pins()).unwrap();
        }
        host.launch();
        let after = described(&host);
        assert_eq!(after.len(), 2, "reboot {reboot}");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((before.prefix, &before.cause), (after.prefix, &after.cause), "reboot {reboot}");
            assert!(after.remaining_seconds > 3500, "{after:?}");
        }
    }
}

#[test]
fn trusted_proxies_are_spared_and_neighbours_banned_around_them() {
    let world = World::new().unwrap();
    let mut host = Host::start(&world, POLICY);
    let proxies = ["198.51.100.64", "2001:db8:9::5"];
    for address in proxies.into_iter().chain(["198.51.100.128", "2001:db8:9::7"]) {
        host.condemn(address, HOUR);
    }
    let api = r#"
[[api]]
name = "shop"
listen = ["127.0.0.1:18080"]
upstream = "http://127.0.0.1:18081"
trusted_proxies = ["198.51.100.64/26", "2001:db8:9::5/128"]
"#;
    host.reload(&format!("{POLICY}{api}"));
    // Bans of theirs are lifted, with that of the whole network of one; others stay.
    let network = BanKey::new(&Addr::from("2001:db8:9::7".to_ip()), NETWORK_V6);
    assert!(host.host_ban("198.51.100.64").is_none() && host.ban(&network).is_none());
    assert!(host.host_ban("198.51.100.128").is_some());
    for proxy in proxies {
        assert!(host.condemner().is_exempt(proxy.to_ip()));
        host.condemn(proxy, HOUR);
    }
    assert_eq!(host.outcome("protected"), 2);
    host.condemn("2001:db8:9::7", HOUR);
    assert!(host.host_ban("2001:db8:9::7").is_some() && host.ban(&network).is_none());

    host.reload(&format!("{POLICY}{api}[reputation]\nmode = \"monitor\"\n"));
    host.condemn("198.51.100.7", HOUR);
    assert!(host.host_ban("198.51.100.7").is_none());
    assert_eq!(host.outcome("monitored"), 1);
}

/// Ends the other thread even if this one panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each reload makes the table of bans anew, and holds the core all the time.
#[test]
fn a_ban_does_not_wait_for_a_reload_nor_get_lost_in_one() {
    let emulated = std::env::var_os("PORTCULLIS_EMULATED").is_some();
    let world = World::new().unwrap();
    let _alone = load_lock().unwrap();
    let mut host = Host::start(&world, POLICY);
    let wire = Wire::open(&world).unwrap();
    let condemner = host.condemner();
    let stop = AtomicBool::new(false);
    let (reloads, mut delays) = std::thread::scope(|scope| {
        let host = &mut host;
        let reloading = scope.spawn(|| {
            let mut reloads = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let bans = if reloads.is_multiple_of(2) { 4096 } else { 8192 };
                host.reload(&format!("[dmz.tables]\nbans = {bans}\n{POLICY}"));
                reloads += 1;
            }
            reloads
        });
        let end = SetOnDrop(&stop);
        let delays: Vec<Duration> = (0..150_u8)
            .map(|number| {
                let source = IpAddr::from([198, 51, 100, number]);
                let frame = Frame::ip(&*source.to_string(), HOST_V4).udp(40_000, 6000);
                condemner.condemn(sentence(source, HOUR));
                let began = Instant::now();
                while wire.passes(&frame).unwrap() {
                    assert!(began.elapsed() < 10 * SECOND, "{source} is not banned");
                }
                began.elapsed()
            })
            .collect();
        drop(end);
        (reloading.join().unwrap(), delays)
    });
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!("{reloads} reloads; banned after {median:?}, at worst {worst:?}");
    assert!(reloads >= 3, "{reloads}");
    // The worst includes what the machine took from the test itself.
    assert!(emulated || (median < Duration::from_millis(30) && worst < Duration::from_millis(500)), "{delays:?}");
    // Whatever table is the last: all are in it.
    let bans = host.core().shared.all_bans().unwrap();
    assert_eq!((bans.len(), host.outcome("set")), (150, 150));
    assert!(bans.iter().all(|(key, ban)| key.length == u32::from(HOST) && left(ban) > HOUR - 600 * SECOND));
}
