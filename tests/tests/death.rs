//! The agent dies, is killed, is started anew: the kernel's part filters on, and nothing it knew is lost.

use std::{
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use firewall_common::{ABI_VERSION, policy::Control};
use firewall_user::{
    control::api::{Ban, Status},
    dmz::shared::Shared,
};
use tests::{
    agent::Agent,
    frame::Frame,
    netns::{CLIENT_V4, HOST_V4, HOST_V6, INTERFACE, World},
    traffic::{Traffic, Wire, load_lock},
};

const POLICY: &str = r#"
interfaces = ["eth0"]
[[dmz.list]]
name = "bad"
action = "block"
prefixes = ["203.0.113.0/24", "2001:db8:bad::/48"]
[[dmz.list]]
name = "worse"
action = "block"
prefixes = ["198.51.100.66"]
[[dmz.rate]]
name = "slow"
per = "source"
ports = ["7000/udp"]
packets = "15/m"
burst = 10.0
"#;

fn pins(agent: &Agent) -> PathBuf {
    PathBuf::from("/sys/fs/bpf").join(&agent.instance)
}

fn matched(status: &Status, rule: &str) -> u64 {
    status.rules.iter().find(|entry| entry.name == rule).unwrap_or_else(|| panic!("no rule {rule}")).matched.packets
}

/// The end of a ban, in seconds of the wall clock.
fn until(ban: &Ban) -> f64 {
    let (date, time) = ban.until.split_once('T').unwrap();
    let mut parts = time.trim_end_matches('Z').split(':').map(|part| part.parse::<f64>().unwrap());
    let seconds = parts.by_ref().fold(0.0, |sum, part| sum * 60.0 + part);
    // A test does not run through the turn of a month.
    date.rsplit('-').next().unwrap().parse::<f64>().unwrap() * 86_400.0 + seconds
}

fn bans(agent: &Agent) -> Vec<(String, f64)> {
    agent.bans().unwrap().iter().map(|ban| (ban.prefix.to_string(), until(ban))).collect()
}

fn assert_same_bans(before: &[(String, f64)], after: &[(String, f64)]) {
    assert_eq!(before.len(), after.len(), "{before:?} {after:?}");
    for ((prefix, until), (other, then)) in before.iter().zip(after) {
        assert_eq!(prefix, other);
        assert!((until - then).abs() <= 1.0, "{prefix}: until {until}, then {then}");
    }
}

fn has_xdp(world: &World) -> bool {
    world.host.run("ip", &["link", "show", INTERFACE]).unwrap().contains("prog/xdp")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(5), "not {what} after 5 s");
        sleep(Duration::from_millis(10));
    }
}

/// Defect 7: a crash of the agent that removes the protection.
#[test]
fn defect_7_a_killed_agent_leaves_no_gap_and_its_successor_goes_on() {
    let _alone = load_lock().unwrap();
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    agent.ban("198.51.100.7", "600s").unwrap();
    agent.ban("198.51.96.0/20", "900s").unwrap();
    agent.ban("2001:db8:f::/48", "1d").unwrap();
    let banned = bans(&agent);
    let frame = |source: &str, host: &str| Frame::ip(source, host).udp(40_000, 6000);
    let kinds = vec![
        ("good4".to_owned(), frame("198.18.0.1", HOST_V4)),
        ("good6".to_owned(), frame("2001:db8:1::1", HOST_V6)),
        ("bad4".to_owned(), frame("203.0.113.5", HOST_V4)),
        ("bad6".to_owned(), frame("2001:db8:bad::5", HOST_V6)),
        ("vlan".to_owned(), frame("203.0.113.6", HOST_V4).vlan(7)),
        ("banned4".to_owned(), frame("198.51.100.7", HOST_V4)),
        ("banned20".to_owned(), frame("198.51.111.255", HOST_V4)),
        ("banned6".to_owned(), frame("2001:db8:f:7::1", HOST_V6)),
    ];
    let good = ["good4", "good6"];
    let traffic = Traffic::start(&world, 20_000, kinds).unwrap();
    let mut last = agent.status().unwrap();
    for round in 0..6 {
        agent.kill9().unwrap();
        // Nobody is there, and the good passes all the same.
        for kind in good {
            assert!(traffic.wait_for(kind, Duration::from_secs(1)).is_some(), "{kind} while the agent is dead");
        }
        sleep(Duration::from_millis(150));
        agent.launch(&[]).unwrap();
        let status = agent.status().unwrap();
        assert!(status.generation > last.generation);
        assert!(matched(&status, "bad") > matched(&last, "bad"), "round {round}: a counter fell");
        assert!(status.packets.passed.packets > last.packets.passed.packets);
        assert!(status.packets.dropped.packets > last.packets.dropped.packets);
        assert_same_bans(&banned, &bans(&agent));
        last = status;
    }
    let kinds = traffic.stop().unwrap();
    let status = agent.status().unwrap();
    for (kind, count) in &kinds {
        let expected = if good.contains(&kind.as_str()) { count.sent } else { 0 };
        assert_eq!(count.arrived, expected, "{kind}: {count:?}");
    }
    let bad: u64 = ["bad4", "bad6", "vlan"].iter().map(|kind| kinds[*kind].sent).sum();
    assert_eq!(matched(&status, "bad"), bad, "over six deaths each packet was counted once");
    let on_ban: u64 = ["banned4", "banned20", "banned6"].iter().map(|kind| kinds[*kind].sent).sum();
    assert_eq!(agent.bans().unwrap().iter().map(|ban| ban.packets).sum::<u64>(), on_ban);
    assert_eq!(agent.counter("ban").unwrap(), on_ban);
}

/// Defect 2: a limiter's state lost by a restart or a reload.
#[test]
fn defect_2_a_bucket_is_as_full_after_a_death_as_before() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    let wire = Wire::open(&world).unwrap();
    let frames = |count: u16| -> Vec<Vec<u8>> {
        (0..count).map(|port| Frame::v4(CLIENT_V4, HOST_V4).udp(20_000 + port, 7000).build()).collect()
    };
    let began = Instant::now();
    // One comes in every four seconds.
    let refilled = || usize::try_from(began.elapsed().as_secs() / 4 + 1).unwrap();
    let first = wire.passed(&frames(100)).unwrap();
    assert_eq!(first, 100, "{:#?}", agent.status().unwrap());
    agent.kill9().unwrap();
    agent.launch(&[]).unwrap();
    // Of 150, 50 are left.
    let second = wire.passed(&frames(100)).unwrap();
    assert!((50..=50 + refilled()).contains(&second), "{second} of 100");
    // Another policy with the same rule goes on with it, too.
    agent.edit_config(&POLICY.replace("\"worse\"", "\"worst\"")).unwrap();
    agent.restart().unwrap();
    let third = wire.passed(&frames(30)).unwrap();
    assert!(third <= refilled(), "{third} of 30");
    let dropped = 230 - (first + second + third);
    assert_eq!(
        matched(&agent.status().unwrap(), "slow"),
        dropped as u64,
        "each is counted once, whoever was the agent"
    );
}

#[test]
fn a_changed_configuration_is_adopted_with_what_stays() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    let wire = Wire::open(&world).unwrap();
    let frame = |source: &str| Frame::v4(source, HOST_V4).udp(40_000, 6000);
    let passes = |source: &str| wire.passes(&frame(source)).unwrap();
    assert!(!passes("203.0.113.5") && !passes("198.51.100.66") && passes("198.51.100.67"));
    agent.ban("198.18.0.9", "600s").unwrap();
    let banned = bans(&agent);
    let before = agent.status().unwrap();
    agent.kill9().unwrap();
    let changed = POLICY.replace("\"worse\"", "\"other\"").replace("198.51.100.66", "198.51.100.67");
    // Another size of the table of bans: it is made anew, and the bans move.
    agent.edit_config(&format!("{changed}[dmz.tables]\nbans = 1024\n")).unwrap();
    assert!(!passes("198.51.100.66"), "the old policy holds until the new one is there");
    agent.launch(&[]).unwrap();
    assert!(!passes("203.0.113.5") && passes("198.51.100.66") && !passes("198.51.100.67") && !passes("198.18.0.9"));
    let after = agent.status().unwrap();
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!((matched(&after, "bad"), matched(&after, "other")), (2, 1));
    assert_same_bans(&banned, &bans(&agent));
}

#[test]
fn on_agent_exit_detach_ends_with_the_agent() {
    let world = World::new().unwrap();
    // With exposure, there is a program for what leaves, too.
    let policy = format!("on_agent_exit = \"detach\"\n{POLICY}")
        .replace("[[dmz.list]]\nname = \"bad\"", "[dmz]\nexpose = [\"6000/udp\"]\n[[dmz.list]]\nname = \"bad\"");
    let mut agent = Agent::start(&world, &policy).unwrap();
    let wire = Wire::open(&world).unwrap();
    let frame = Frame::v4("203.0.113.5", HOST_V4).udp(40_000, 6000);
    for clean in [false, true] {
        assert!(has_xdp(&world));
        assert!(!wire.passes(&frame).unwrap());
        if clean {
            assert!(agent.terminate().unwrap().success());
        } else {
            agent.kill9().unwrap();
        }
        wait_until("detached", || !has_xdp(&world));
        assert!(wire.passes(&frame).unwrap());
        agent.launch(&[]).unwrap();
    }
    // From `detach` to `keep` and back, by a reload.
    for (exit, stays) in [("keep", true), ("detach", false)] {
        let before = agent.status().unwrap();
        agent.edit_config(&policy.replace("\"detach\"", &format!("\"{exit}\""))).unwrap();
        assert_eq!(agent.wait_reload(&before).unwrap().reloads.last_error, None);
        agent.kill9().unwrap();
        sleep(Duration::from_millis(300));
        assert_eq!(has_xdp(&world), stays, "{exit}");
        assert_eq!(wire.passes(&frame).unwrap(), !stays, "{exit}");
        agent.launch(&[]).unwrap();
    }
    // The filter of kernels before 6.6 outlives an agent that is killed, but not `detach`, which finds nothing else there.
    let filters = || world.host.run("tc", &["filter", "show", "dev", INTERFACE, "egress"]).unwrap_or_default();
    assert!(filters().matches("portcullis_egress").count() <= 1, "{}", filters());
    agent.kill9().unwrap();
    agent.detach().unwrap();
    assert_eq!(filters(), "");
}

#[test]
fn bans_survive_a_reboot() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    agent.ban("198.18.0.9", "600s").unwrap();
    agent.ban("198.18.64.0/20", "1h").unwrap();
    agent.ban("2001:db8:f::/48", "1d").unwrap();
    agent.ban("198.18.0.10", "2s").unwrap();
    let banned: Vec<_> = bans(&agent).into_iter().filter(|(prefix, _)| prefix != "198.18.0.10/32").collect();
    let wire = Wire::open(&world).unwrap();
    let passes = |source: &str| wire.passes(&Frame::v4(source, HOST_V4).udp(40_000, 6000)).unwrap();
    for clean in [true, false] {
        if clean {
            agent.terminate().unwrap();
        } else {
            // The file is written a quarter of a second after the last change.
            sleep(Duration::from_millis(600));
            agent.kill9().unwrap();
        }
        // What a reboot does to the kernel's part.
        std::fs::remove_dir_all(pins(&agent)).unwrap();
        wait_until("detached", || !has_xdp(&world));
        assert!(passes("198.18.0.9"));
        sleep(Duration::from_secs(2));
        agent.launch(&[]).unwrap();
        assert_same_bans(&banned, &bans(&agent));
        assert!(!passes("198.18.0.9") && !passes("198.18.79.255") && passes("198.18.80.0") && passes("198.18.0.10"));
    }
}

/// Who knew the seed could choose sources whose buckets collide.
#[test]
fn the_seed_of_hashes_is_drawn_with_the_maps_and_lasts_as_long() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    let seed = |agent: &Agent| Shared::open(&pins(agent), 0).unwrap().control().unwrap().seed;
    let first = seed(&agent);
    agent.restart().unwrap();
    assert_eq!(seed(&agent), first);
    agent.terminate().unwrap();
    agent.detach().unwrap();
    agent.launch(&[]).unwrap();
    assert_ne!(seed(&agent), first);
}

#[test]
fn maps_of_another_version_are_refused_and_left_at_work() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    agent.terminate().unwrap();
    let other = ABI_VERSION + 1;
    let mut shared = Shared::open(&pins(&agent), 0).unwrap();
    let control = shared.control().unwrap();
    shared.set_control(Control { abi: other, ..control }).unwrap();
    let config = agent.config();
    let output = agent.command(&["run", "--config", config.to_str().unwrap()]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [&format!("ABI {other}")[..], &format!("this one has {ABI_VERSION}"), "portcullis detach"] {
        assert!(said.contains(words), "{said}");
    }
    // Filtering goes on as the other version left it.
    let wire = Wire::open(&world).unwrap();
    assert!(!wire.passes(&Frame::v4("203.0.113.5", HOST_V4).udp(40_000, 6000)).unwrap());
    assert_eq!(shared.control().unwrap().abi, other);
    drop(shared);
    agent.detach().unwrap();
    assert!(!has_xdp(&world) && !pins(&agent).exists());
    agent.launch(&[]).unwrap();
}

#[test]
fn a_start_that_is_refused_leaves_the_tables_pinned() {
    let world = World::new().unwrap();
    let mut agent = Agent::start(&world, POLICY).unwrap();
    agent.terminate().unwrap();
    // Something of somebody else's in the place of a map, found after a table that would have been made anew.
    let place = pins(&agent).join("GUARDED");
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    agent.edit_config(&format!("{POLICY}[dmz.tables]\nbans = 100\n")).unwrap();
    assert!(agent.launch(&[]).unwrap_err().to_string().contains("not a map of ours"));
    agent.kill9().unwrap();
    assert!(pins(&agent).join("BANS").exists());
    std::fs::remove_dir(&place).unwrap();
    agent.launch(&[]).unwrap();
}
