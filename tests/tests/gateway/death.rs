//! The agent is killed, or hangs: what new connections of a steered port meet then is the kernel's to decide.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::{
    http::{
        load::{Load, Use},
        raw::Client,
    },
    netns::client_v4,
    traffic::load_lock,
};

use super::support::{API, Gateway, NO_BANS, host, wait_until};

/// A heartbeat older than 2 s stands for an agent that hangs.
const HUNG: Duration = Duration::from_secs(3);
/// After a kill: the kernel has closed the listener before the process is gone.
const AT_ONCE: Duration = Duration::from_millis(100);

fn start(exit: &str) -> Gateway {
    Gateway::start(&format!("on_agent_exit = \"{exit}\"\n{NO_BANS}"))
}

/// Whether a new connection is refused by a reset, and not only left without an answer.
fn refused(gateway: &Gateway) -> bool {
    let opened = Client::try_open(&gateway.world.client, client_v4(9), host(), Duration::from_secs(1));
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Stops the agent, as if it hung. On a busy host its threads may go on for a moment after the signal.
fn hang(gateway: &Gateway) {
    gateway.agent.signal(Signal::SIGSTOP).unwrap();
    let threads = format!("/proc/{}/task", gateway.agent.pid().unwrap());
    wait_until("stopped", || {
        std::fs::read_dir(&threads).unwrap().all(|thread| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default();
            status.contains("State:\tT")
        })
    });
}

#[test]
fn killed_under_load_an_open_api_answers_at_once() {
    let _alone = load_lock().unwrap();
    let mut gateway = start("open");
    let load = Load::start(&gateway.world.client, 4, host(), Use::Fresh);
    assert!(load.wait_for(200, Duration::from_secs(10)));
    gateway.agent.kill9().unwrap();
    let died = Instant::now();
    assert!(load.wait_for(100, Duration::from_secs(3)), "no answers without the agent: {:?}", load.failures().last());
    let (_, failures) = load.stop();
    // Connections that the agent had accepted ended with it; new ones did not.
    let late = failures.iter().filter(|(when, _)| *when > died + AT_ONCE).collect::<Vec<_>>();
    assert!(late.is_empty(), "{late:?}");
    // They reach the application itself: it sees the client.
    let seen = gateway.seen(3, "");
    assert_eq!(seen.peer.ip().to_canonical(), client_v4(3));
    gateway.agent.launch(&[]).unwrap();
    assert_ne!(gateway.seen(3, "").peer.ip().to_canonical(), client_v4(3));
}

#[test]
fn killed_under_load_a_closed_api_refuses() {
    let _alone = load_lock().unwrap();
    let mut gateway = start("closed");
    let load = Load::start(&gateway.world.client, 4, host(), Use::Fresh);
    assert!(load.wait_for(200, Duration::from_secs(10)));
    let requests = || gateway.app.requests();
    gateway.agent.kill9().unwrap();
    std::thread::sleep(AT_ONCE);
    let (before, answered) = (requests(), load.answered());
    for _ in 0..20 {
        assert!(refused(&gateway));
    }
    assert_eq!((requests(), load.answered()), (before, answered), "requests pass without the agent");
    drop(load);
    gateway.agent.launch(&[]).unwrap();
    wait_until("answering", || gateway.answers(9));
}

#[test]
fn hung_under_load_an_open_api_answers_soon() {
    let _alone = load_lock().unwrap();
    let gateway = start("open");
    let load = Load::start(&gateway.world.client, 4, host(), Use::Fresh);
    assert!(load.wait_for(200, Duration::from_secs(10)));
    hang(&gateway);
    let stopped = Instant::now();
    while gateway.answers_within(9, Duration::from_millis(200)).is_err() {
        assert!(stopped.elapsed() < HUNG, "no answer {:?} after it hung", stopped.elapsed());
    }
    println!("answers again {:?} after SIGSTOP", stopped.elapsed());
    assert_eq!(gateway.seen(3, "").peer.ip().to_canonical(), client_v4(3));
    drop(load);
    // A connection that the application itself has accepted meanwhile.
    let mut direct = gateway.client(5);
    assert_eq!(direct.get("/").unwrap().status, 200);
    gateway.agent.signal(Signal::SIGCONT).unwrap();
    // It takes over again by itself, and nobody stays uninspected.
    wait_until("steering", || gateway.seen(3, "").peer.ip().to_canonical() != client_v4(3));
    assert!(direct.is_closed(Duration::from_secs(5)), "a connection from the gap goes on uninspected");
}

#[test]
fn hung_a_closed_api_refuses() {
    let gateway = start("closed");
    assert!(gateway.answers(0));
    hang(&gateway);
    let stopped = Instant::now();
    while !refused(&gateway) {
        assert!(stopped.elapsed() < HUNG + Duration::from_secs(1), "not refused {:?} after it hung", stopped.elapsed());
    }
    let before = gateway.app.requests();
    assert!(refused(&gateway) && gateway.app.requests() == before);
    gateway.agent.signal(Signal::SIGCONT).unwrap();
    wait_until("answering", || gateway.answers(9));
}

#[test]
fn a_stop_in_order_hands_over_to_the_application() {
    let mut gateway = start("open");
    let mut busy = gateway.client(0);
    busy.send(b"GET /slow/500 HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    wait_until("busy", || gateway.app.requests() == 1);
    assert!(gateway.agent.terminate().unwrap().success());
    // What it was asked before it was told to stop, it answered.
    assert_eq!(busy.response(false).unwrap().unwrap().text(), "slow");
    assert_eq!(gateway.seen(3, "").peer.ip().to_canonical(), client_v4(3));
}

/// The application answers the client itself.
#[track_caller]
fn assert_direct(gateway: &Gateway) {
    assert_eq!(gateway.seen(3, "").peer.ip().to_canonical(), client_v4(3));
    assert!(!gateway.is_steered(), "something is steered still");
}

#[test]
fn idle_connections_do_not_hold_up_a_stop() {
    let mut gateway = start("closed");
    let mut idle: Vec<Client> = (0..20).map(|n| gateway.client(n)).collect();
    for client in idle.iter_mut().take(10) {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    let told = Instant::now();
    assert!(gateway.agent.terminate().unwrap().success());
    // Not for as long as they may be idle, nor for as long as a drain may take.
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?}", told.elapsed());
    assert!(idle.iter_mut().all(|client| client.is_closed(Duration::from_secs(1))));
}

#[test]
fn detached_a_closed_api_is_open() {
    // After a stop, after a kill, and while the agent runs, be it with a request under way.
    for death in ["stop", "kill", "none"] {
        let mut gateway = start("closed");
        let mut busy = gateway.client(0);
        match death {
            "stop" => assert!(gateway.agent.terminate().unwrap().success()),
            "kill" => gateway.agent.kill9().unwrap(),
            _ => {
                busy.send(b"GET /slow/300 HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
                wait_until("busy", || gateway.app.requests() == 1);
            }
        }
        assert_eq!(refused(&gateway), death != "none", "{death}");
        gateway.agent.detach().unwrap();
        assert_direct(&gateway);
        if death == "none" {
            assert_eq!(busy.response(false).unwrap().unwrap().text(), "slow");
            assert!(gateway.agent.status().is_err());
        }
    }
}

#[test]
fn detach_does_not_wait_for_connections_that_do_not_end() {
    let gateway = Gateway::start("on_agent_exit = \"closed\"\n[gateway]\ndrain = \"1h\"\n");
    let mut poll = gateway.client(0);
    poll.send(b"GET /poll HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    wait_until("waiting", || gateway.app.requests() == 1);
    gateway.agent.detach().unwrap();
    assert_direct(&gateway);
}

#[test]
fn unconfirmed_nothing_stays_closed_or_steered() {
    let config = format!("{API}on_agent_exit = \"closed\"\n{NO_BANS}");
    for death in ["kill", "stop", "time"] {
        let mut gateway = Gateway::start_unconfirmed(&config, if death == "time" { "2s" } else { "60s" });
        assert!(!gateway.seen(3, "").values("forwarded").is_empty(), "unconfirmed, it is in force");
        match death {
            "kill" => gateway.agent.kill9().unwrap(),
            "stop" => assert!(gateway.agent.terminate().unwrap().success()),
            _ => drop(wait_until("taken back", || gateway.agent.status().is_err())),
        }
        assert!(gateway.seen(3, "").values("forwarded").is_empty(), "{death}");
        if death != "kill" {
            assert!(!gateway.is_steered(), "{death}");
        }
    }
    // Confirmed, it is as it was asked for.
    let mut gateway = Gateway::start_unconfirmed(&config, "60s");
    gateway.agent.run(&["confirm"]).unwrap();
    gateway.agent.kill9().unwrap();
    assert!(refused(&gateway));
    // A new policy that nobody confirms opens it, for the time being and after it.
    gateway.agent.launch(&["--confirm", "60s"]).unwrap();
    gateway.agent.kill9().unwrap();
    assert!(gateway.seen(3, "").values("forwarded").is_empty());
}
