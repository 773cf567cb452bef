//! A new agent takes over from the one that runs.

use std::time::Duration;

use tests::{
    agent::Agent,
    http::{
        app::App,
        load::{Load, Use},
        raw::Client,
    },
    netns::{HOST_V4, World, client_v4},
    traffic::load_lock,
};

use super::support::{API, Gateway, NO_BANS, at, host, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

/// A steered API, and a reverse proxy to the same application.
fn config(exit: &str) -> String {
    format!(
        "{API}on_agent_exit = \"{exit}\"\n[[api]]\nname = \"proxy\"\nlisten = \"{HOST_V4}:9000\"\nupstream = \
         \"http://{HOST_V4}:8080\"\n{NO_BANS}"
    )
}

#[test]
fn three_takeovers_under_load_fail_nothing_and_let_nothing_by() {
    let _alone = load_lock().unwrap();
    for exit in ["open", "closed"] {
        let mut gateway = Gateway::start_config(&config(exit));
        let loads = [host(), at(HOST_V4, 9000)].map(|server| Load::start(&gateway.world.client, 3, server, Use::Fresh));
        // One that is used over and over: it ends in order, by what its answers say.
        let kept = Load::start(&gateway.world.client, 2, host(), Use::Kept);
        for _ in 0..3 {
            assert!(loads.iter().chain([&kept]).all(|load| load.wait_for(100, PATIENCE)));
            let before = gateway.agent.pid();
            assert!(gateway.agent.replace().unwrap().success());
            assert_ne!(gateway.agent.pid(), before);
        }
        assert!(loads.iter().chain([&kept]).all(|load| load.wait_for(100, PATIENCE)));
        for load in loads {
            let (answered, failures) = load.stop();
            assert!(failures.is_empty(), "{exit}: {} of {answered}: {failures:?}", failures.len());
        }
        // A request may cross with the end of a kept connection that was idle (RFC 9112 section 9.3.1): its client asks again.
        let (answered, failures) = kept.stop();
        assert!(failures.len() <= 6, "{exit}: {} of {answered}: {failures:?}", failures.len());
        assert_eq!(gateway.app.bare(), 0, "{exit}: requests went by the gateway");
        // It is the new one whose end counts.
        gateway.agent.kill9().unwrap();
        assert_eq!(gateway.answers(9), exit == "open");
    }
}

#[test]
fn what_the_old_agent_accepted_it_answers() {
    let mut gateway = Gateway::start_config(&config("closed"));
    let mut busy = gateway.client(0);
    busy.send(b"GET /slow/1500 HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    wait_until("busy", || gateway.app.requests() == 1);
    assert!(gateway.agent.replace().unwrap().success());
    let response = busy.response(false).unwrap().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "slow"));
    // Events, bans, reloads and the socket are the new one's.
    let status = gateway.agent.status().unwrap();
    assert_eq!(Some(status.pid), gateway.agent.pid());
    gateway.agent.ban("192.0.2.9", "1h").unwrap();
    assert!(!gateway.answers(7));
    wait_until("seen", || gateway.agent.events().iter().any(|event| event.layer == "dmz" && event.reason == "ban"));
    gateway.agent.edit_config(&config("open")).unwrap();
    gateway.agent.reload().unwrap();
    assert!(gateway.agent.terminate().unwrap().success());
    assert!(gateway.answers(9));
}

#[test]
fn links_that_would_go_with_the_agent_are_handed_over_too() {
    let world = World::new().unwrap();
    let _app = App::start(&world.host, at("::", 8080)).unwrap();
    let text = format!("on_agent_exit = \"detach\"\n{}", config("open"));
    let mut agent = Agent::start(&world, &text).unwrap();
    assert!(agent.replace().unwrap().success());
    assert!(agent.status().unwrap().interfaces[0].attached);
    agent.kill9().unwrap();
    let shown = world.host.run("ip", &["-details", "link", "show", "eth0"]).unwrap();
    assert!(!shown.contains("xdp"), "{shown}");
}

#[test]
fn one_that_cannot_start_changes_nothing() {
    let gateway = Gateway::start_config(&config("closed"));
    let load = Load::start(&gateway.world.client, 2, host(), Use::Fresh);
    // No such certificate, found when the old one holds still already; and a port of somebody else's.
    let certificate =
        config("closed").replace("port = 8080", "port = 8080\ntls.certificates = [{ chain = \"c\", key = \"k\" }]");
    let _taken = App::start(&gateway.world.host, at(HOST_V4, 9001)).unwrap();
    let port = config("closed").replace(":9000", ":9001");
    for (name, text, said) in
        [("certificate.toml", certificate, "cannot be read"), ("port.toml", port, "cannot listen")]
    {
        gateway.agent.write(name, &text).unwrap();
        let path = gateway.agent.config().with_file_name(name);
        let error = gateway.agent.run(&["run", "--replace", "--config", path.to_str().unwrap()]).unwrap_err();
        assert!(error.to_string().contains(said), "{error:#}");
        let status = gateway.agent.status().unwrap();
        assert_eq!(Some(status.pid), gateway.agent.pid());
        assert!(status.interfaces[0].attached && status.apis.iter().all(|api| api.protected), "{status:#?}");
        assert!(load.wait_for(50, PATIENCE));
    }
    // Without the option it is refused, as ever.
    let path = gateway.agent.config();
    let error = gateway.agent.run(&["run", "--config", path.to_str().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("socket in use"), "{error:#}");
    let (answered, failures) = load.stop();
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
    assert_eq!(gateway.app.bare(), 0);
    // What it does besides serving, it does again.
    gateway.agent.edit_config(&config("open")).unwrap();
    gateway.agent.reload().unwrap();
    gateway.agent.ban("192.0.2.9", "1h").unwrap();
    assert!(!gateway.answers(7));
    wait_until("seen", || gateway.agent.events().iter().any(|event| event.layer == "dmz" && event.reason == "ban"));
}

#[test]
fn one_that_is_killed_amid_gives_everything_back() {
    let gateway = Gateway::start_config(&config("closed"));
    let load = Load::start(&gateway.world.client, 2, host(), Use::Fresh);
    let path = gateway.agent.config();
    for milliseconds in (0..400).step_by(10) {
        let mut other = gateway.agent.command(&["run", "--replace", "--config", path.to_str().unwrap()]).unwrap();
        let mut other = other.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        other.kill().unwrap();
        other.wait().unwrap();
        // Only the old one knows which of the two was in time.
        let over = || gateway.agent.stderr().contains("has taken over");
        wait_until("itself", || {
            over()
                || gateway.agent.status().is_ok_and(|status| {
                    Some(status.pid) == gateway.agent.pid()
                        && status.interfaces[0].attached
                        && status.apis.iter().all(|api| api.protected)
                })
        });
        if over() {
            assert!(milliseconds > 0, "nothing was killed amid");
            break;
        }
        assert!(load.wait_for(20, PATIENCE), "after {milliseconds} ms");
    }
    assert_eq!(gateway.app.bare(), 0);
}

#[test]
fn an_unconfirmed_agent_does_not_hand_over() {
    let gateway = Gateway::start_unconfirmed(&config("open"), "60s");
    let path = gateway.agent.config();
    let error = gateway.agent.run(&["run", "--replace", "--config", path.to_str().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("not confirmed"), "{error:#}");
    assert!(gateway.answers(0));
    gateway.agent.run(&["confirm"]).unwrap();
    let opened = Client::try_open(&gateway.world.client, client_v4(1), host(), Duration::from_secs(1));
    assert!(opened.is_ok());
}
