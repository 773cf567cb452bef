//! The harness on a real agent: it starts, judges, reloads, dies and goes.

use super::*;
use crate::{
    frame::Frame,
    netns::{HOST_V4, INTERFACE},
    raw::Raw,
};

const CONFIG: &str = r#"
    interfaces = ["eth0"]
    [dmz]
    expose = ["80/tcp"]
    [[dmz.list]]
    name = "bad"
    action = "block"
    file = "bad.txt"
"#;

fn instances_pins(agent: &Agent) -> bool {
    Path::new("/sys/fs/bpf").join(&agent.instance).exists()
}

#[test]
fn an_agent_lives_reloads_dies_and_leaves_nothing() {
    let world = World::new().unwrap();
    let mut agent = Agent::start_with(&world, CONFIG, &[("bad.txt", "203.0.113.0/24\n")]).unwrap();
    let sender = Raw::open(&world.client, INTERFACE).unwrap();
    let witness = Raw::open(&world.host, INTERFACE).unwrap();
    let second = Duration::from_secs(3);
    let arrives = |source: &str| {
        let frame = Frame::v4(source, HOST_V4).tcp(40000, 80).build();
        sender.send(&frame).unwrap();
        witness.count_arrivals(&[frame], Duration::from_millis(200)) == 1
    };
    let is_from = |source: &'static str| move |event: &Event| event.source == Some(source.parse().unwrap());

    // A list drops, counts and reports.
    assert!(arrives("198.51.100.1"));
    assert!(!arrives("203.0.113.1"));
    assert_eq!(agent.counter("block-list").unwrap(), 1);
    assert!(agent.counter("no-such-reason").is_err());
    let event = agent.wait_event(is_from("203.0.113.1"), second).expect("an event");
    assert_eq!((event.action.as_str(), event.reason.as_str(), event.by()), ("drop", "block-list", Some("bad")));
    let mark = agent.mark();
    assert!(agent.wait_event_since(mark, is_from("203.0.113.1"), Duration::from_millis(100)).is_none());

    // A ban comes and goes.
    agent.ban("198.51.100.0/24", "1h").unwrap();
    assert_eq!(agent.bans().unwrap().len(), 1);
    assert!(!arrives("198.51.100.2"));
    agent.unban("198.51.100.0/24").unwrap();
    assert!(arrives("198.51.100.3"));

    // An edit is noticed; a bad one is refused.
    let before = agent.status().unwrap();
    agent.write("bad.txt", "198.51.100.0/24\n").unwrap();
    let after = agent.wait_reload(&before).unwrap();
    assert_eq!(after.reloads.failed, 0);
    assert_eq!((arrives("198.51.100.4"), arrives("203.0.113.2")), (false, true));
    agent.edit_config("nonsense").unwrap();
    let after = agent.wait_reload(&after).unwrap();
    assert_eq!((after.reloads.failed, after.reloads.last_error.is_some()), (1, true));
    assert!(agent.reload().unwrap_err().to_string().contains("nonsense"));
    assert!(!arrives("198.51.100.5"));
    agent.edit_config(CONFIG).unwrap();
    agent.wait_until("mended", |status| status.reloads.last_error.is_none()).unwrap();

    // The kernel goes on without its agent, and a new one goes on where the last one ended.
    let dropped = agent.counter("block-list").unwrap();
    agent.kill9().unwrap();
    assert!(!arrives("198.51.100.6") && agent.status().is_err() && agent.pid().is_none());
    agent.restart().unwrap();
    assert_eq!(agent.counter("block-list").unwrap(), dropped + 1);
    assert!(agent.terminate().unwrap().success());
    assert!(!arrives("198.51.100.7") && instances_pins(&agent));

    // Taken off, it leaves nothing behind.
    agent.detach().unwrap();
    assert!(arrives("198.51.100.8") && !instances_pins(&agent));
    assert_eq!(agent.strange_lines(), Vec::<String>::new());
}

#[test]
fn an_agent_that_cannot_start_says_why() {
    let world = World::new().unwrap();
    let error = Agent::start(&world, "interfaces = [\"eth0\"]\nsurprise = 1\n").unwrap_err();
    assert!(error.to_string().contains("surprise"), "{error}");
}

const OPEN: &str = "interfaces = [\"eth0\"]\n";

/// Whether a frame from `source` gets through to port 80 of the host.
fn arrives(world: &World, source: &str) -> bool {
    let sender = Raw::open(&world.client, INTERFACE).unwrap();
    let witness = Raw::open(&world.host, INTERFACE).unwrap();
    let frame = Frame::v4(source, HOST_V4).tcp(40000, 80).build();
    sender.send(&frame).unwrap();
    witness.count_arrivals(&[frame], Duration::from_millis(200)) == 1
}

#[test]
fn an_unconfirmed_policy_gives_way_to_the_one_before() {
    let world = World::new().unwrap();
    let mut agent = Agent::start_with(&world, CONFIG, &[("bad.txt", "203.0.113.0/24\n")]).unwrap();
    agent.kill9().unwrap();
    // It needs no program for what leaves; the policy before does.
    agent.edit_config(&format!("{OPEN}[dmz.hygiene]\nreflection = false\n")).unwrap();
    let egress = format!("/sys/fs/bpf/{}/egress-{}", agent.instance, world.host.interface_index(INTERFACE).unwrap());
    assert!(Path::new(&egress).exists());

    // It runs out.
    agent.launch(&["--confirm", "2s"]).unwrap();
    assert!(arrives(&world, "203.0.113.1"));
    let deadline = Instant::now() + DEADLINE;
    while agent.exited().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it is still there");
        thread::sleep(POLL);
    }
    agent.kill9().unwrap();
    assert!(!arrives(&world, "203.0.113.2") && arrives(&world, "198.51.100.1"));
    assert!(Path::new(&egress).exists());

    // It is stopped before.
    agent.launch(&["--confirm", "60s"]).unwrap();
    assert!(arrives(&world, "203.0.113.3"));
    agent.terminate().unwrap();
    assert!(!arrives(&world, "203.0.113.4"));

    // One that cannot start changes nothing either.
    agent.edit_config("interfaces = [\"eth0\", \"lo\"]\n[dmz.tables]\nbans = 100\n").unwrap();
    assert!(agent.launch(&[]).unwrap_err().to_string().contains("no Ethernet"));
    agent.kill9().unwrap();
    assert!(!arrives(&world, "203.0.113.6") && Path::new(&egress).exists());

    // The next agent finds everything in its place.
    agent.edit_config(CONFIG).unwrap();
    agent.launch(&[]).unwrap();
    assert!(!arrives(&world, "203.0.113.5"));
    assert!(agent.status().unwrap().interfaces[0].egress);
}

#[test]
fn a_reload_that_fails_halfway_changes_nothing() {
    let world = World::new().unwrap();
    let agent = Agent::start_with(&world, CONFIG, &[("bad.txt", "203.0.113.0/24\n")]).unwrap();
    agent.ban("198.51.100.66", "1h").unwrap();

    // The loopback interface has no Ethernet header; eth0 carries the new policy when that comes out.
    let before = agent.status().unwrap();
    agent.edit_config("interfaces = [\"eth0\", \"lo\"]\n[dmz.tables]\nbans = 100\n").unwrap();
    let after = agent.wait_reload(&before).unwrap();
    assert_eq!(after.reloads.failed, before.reloads.failed + 1);
    assert!(!arrives(&world, "203.0.113.1") && !arrives(&world, "198.51.100.66") && arrives(&world, "198.51.100.1"));

    // The tables in use are those that the next policy finds, and that bans go to.
    agent.edit_config(CONFIG.replace("80/tcp", "81/tcp").as_str()).unwrap();
    agent.wait_until("reloaded", |status| status.reloads.last_error.is_none()).unwrap();
    agent.edit_config(CONFIG).unwrap();
    agent.reload().unwrap();
    assert!(!arrives(&world, "198.51.100.66"));
    agent.ban("198.51.100.67", "1h").unwrap();
    assert!(!arrives(&world, "198.51.100.67") && arrives(&world, "198.51.100.1"));
}

#[test]
fn what_must_not_be_banned_is_not_banned_under_another_name() {
    let world = World::new().unwrap();
    let agent = Agent::start(&world, OPEN).unwrap();
    for name in [HOST_V4.to_owned(), format!("::ffff:{HOST_V4}")] {
        let error = agent.ban(&name, "1h").unwrap_err().to_string();
        assert!(error.contains("never banned"), "{name}: {error}");
    }
    agent.ban("::ffff:198.51.100.66", "1h").unwrap();
    assert!(!arrives(&world, "198.51.100.66"));
    agent.unban("198.51.100.66").unwrap();
    assert!(arrives(&world, "198.51.100.66"));
}

#[test]
fn a_metrics_port_in_use_changes_nothing() {
    let world = World::new().unwrap();
    let taken = world.host.enter(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut agent = Agent::prepare(&world, &format!("{OPEN}[metrics]\nlisten = \"127.0.0.1:{port}\"\n"), &[]).unwrap();
    let error = agent.launch(&[]).unwrap_err().to_string();
    assert!(error.contains(&format!("metrics at 127.0.0.1:{port}")), "{error}");
    assert!(!instances_pins(&agent));
}

#[test]
fn an_interface_that_is_gone_for_a_while_does_not_hold_up_a_reload() {
    let world = World::new().unwrap();
    world.add_link("eth9", 1400).unwrap();
    let agent = Agent::start(&world, "interfaces = [\"eth0\", \"eth9\"]\n").unwrap();
    world.host.ip("link del eth9").unwrap();
    agent.wait_until("aware of it", |status| status.interfaces[1].mode == "absent").unwrap();
    let blocking = "interfaces = [\"eth0\", \"eth9\"]\n[[dmz.list]]\nname = \"bad\"\naction = \"block\"\nprefixes = [\"203.0.113.0/24\"]\n";
    let before = agent.status().unwrap();
    agent.edit_config(blocking).unwrap();
    assert_eq!(agent.wait_reload(&before).unwrap().reloads.last_error, None);
    assert!(!arrives(&world, "203.0.113.1"));
    world.add_link("eth9", 1400).unwrap();
    agent.wait_until("attached again", |status| status.interfaces[1].attached).unwrap();
}
