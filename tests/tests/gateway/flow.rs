//! Reloads and restarts under load: no request of a kept connection fails by the former, no new connection by the latter.

use std::time::Duration;

use tests::{
    http::load::{Load, Use},
    traffic::load_lock,
};

use super::support::{API, Gateway, NO_BANS, host, wait_until};

/// Among the policies that take turns: another limit, and a rule that `/` does not meet.
fn policy(number: u32) -> String {
    format!("{API}methods = [\"GET\", \"POST\"]\n[api.limits]\nbody = \"{}KB\"\n{NO_BANS}", 10 + number)
}

#[test]
fn twenty_reloads_fail_no_request() {
    let _alone = load_lock().unwrap();
    let gateway = Gateway::start_config(&policy(0));
    let loads = [Use::Kept, Use::Fresh].map(|kind| Load::start(&gateway.world.client, 4, host(), kind));
    for number in 1..=20 {
        assert!(loads.iter().all(|load| load.wait_for(20, Duration::from_secs(10))));
        let before = gateway.agent.status().unwrap();
        gateway.agent.edit_config(&policy(number)).unwrap();
        let after = gateway.agent.wait_reload(&before).unwrap();
        assert_eq!(after.reloads.last_error, None);
        // The new policy judges at once.
        let length = (10 + number) * 1000;
        for (length, status) in [(length, 200), (length + 1, 413)] {
            let body = "x".repeat(length as usize);
            let request = format!("POST /upload HTTP/1.1\r\nHost: api.test\r\nContent-Length: {length}\r\n\r\n{body}");
            assert_eq!(gateway.ask(9, request.as_bytes()).status, status, "{length} bytes after reload {number}");
        }
    }
    for load in loads {
        let (answered, failures) = load.stop();
        assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
    }
    // A policy that does not compile changes nothing.
    let before = gateway.agent.status().unwrap();
    gateway.agent.edit_config("nonsense").unwrap();
    assert_eq!(gateway.agent.wait_reload(&before).unwrap().reloads.failed, before.reloads.failed + 1);
    assert!(gateway.answers(0));
}

#[test]
fn three_restarts_fail_no_new_connection() {
    let _alone = load_lock().unwrap();
    let mut gateway = Gateway::start_config(&policy(0));
    let load = Load::start(&gateway.world.client, 4, host(), Use::Fresh);
    for _ in 0..3 {
        assert!(load.wait_for(200, Duration::from_secs(10)));
        gateway.agent.restart().unwrap();
    }
    assert!(load.wait_for(200, Duration::from_secs(10)));
    // In between the application answered for itself.
    assert!(gateway.app.bare() > 0);
    let (answered, failures) = load.stop();
    assert!(failures.is_empty(), "{} of {answered}: {failures:?}", failures.len());
}

#[test]
fn an_api_comes_and_goes_by_reload() {
    let gateway = Gateway::start_config("interfaces = [\"eth0\"]\n");
    let direct = || gateway.seen(0, "").values("forwarded").is_empty();
    assert!(direct());
    gateway.agent.edit_config(&policy(1)).unwrap();
    gateway.agent.reload().unwrap();
    wait_until("steered", || !direct());
    let mut kept = gateway.client(1);
    assert_eq!(kept.get("/").unwrap().status, 200);
    gateway.agent.edit_config("interfaces = [\"eth0\"]\n").unwrap();
    gateway.agent.reload().unwrap();
    wait_until("let go", direct);
}
