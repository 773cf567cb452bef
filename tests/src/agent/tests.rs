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
