//! Memory: 10,000 connections that say nothing, and bodies of a gibibyte each way.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::{
    agent::resident,
    http::raw::Client,
    netns::{HOST_V4, client_v4},
    traffic::load_lock,
};

use super::support::{Gateway, NO_BANS, PORT, host, wait_until};

const MEBIBYTE: u64 = 1 << 20;
const GIBIBYTE: u64 = 1 << 30;
const CONNECTIONS: usize = 10_000;

#[test]
fn ten_thousand_idle_connections_fit_in_250_mib() {
    let _alone = load_lock().unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.max(12_000), most.max(12_000)).unwrap();
    let gateway = Gateway::start(&format!("[api.timeouts]\nidle = \"10m\"\n[gateway]\nconnections = 20000\n{NO_BANS}"));
    let mut held: Vec<Client> = Vec::with_capacity(CONNECTIONS);
    gateway.world.client.enter(|| {
        for number in 0..CONNECTIONS {
            // 200 a client: below its limit.
            let source = client_v4((number / 200) as u8);
            let mut client = Client::try_open(&gateway.world.client, source, host(), Duration::from_secs(5)).unwrap();
            // Half of them have been used.
            if number % 2 == 0 {
                assert_eq!(client.get("/").unwrap().status, 200);
            }
            held.push(client);
        }
    });
    let memory = gateway.resident();
    assert!(memory <= 250 * MEBIBYTE, "{} MiB resident", memory / MEBIBYTE);
    assert!(gateway.answers(55));
    for number in [0, CONNECTIONS / 2 + 1, CONNECTIONS - 1] {
        assert_eq!(held[number].get("/").unwrap().status, 200, "connection {number}");
    }
    println!("{CONNECTIONS} connections: {} MiB resident", memory / MEBIBYTE);
}

/// Runs a shell command on the client while the agent's memory is watched; gives what it printed, and the peak over idle.
fn grown(gateway: &Gateway, command: &str) -> (String, u64) {
    let pid = gateway.agent.pid().unwrap();
    let before = resident(pid).unwrap();
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(before));
    let printed = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident(pid).unwrap(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let output = gateway.world.client.command("sh").args(["-c", command]).stdin(Stdio::null()).output();
        done.store(true, Ordering::Relaxed);
        let output = output.unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    });
    (printed, peak.load(Ordering::Relaxed) - before)
}

#[test]
fn a_gibibyte_each_way_takes_no_memory() {
    let _alone = load_lock().unwrap();
    let gateway = Gateway::start(&format!("[api.limits]\nbody = \"2GB\"\n[api.timeouts]\nbody = \"5m\"\n{NO_BANS}"));
    for _ in 0..20 {
        assert!(gateway.answers(0));
    }
    let url = format!("http://{HOST_V4}:{PORT}");
    let curl = "curl -sS --max-time 300";
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(GIBIBYTE).unwrap();
    let file = sparse.path().display();
    for (what, command, expected) in [
        (
            "download",
            format!("{curl} -o /dev/null -w '%{{size_download}}' {url}/bytes/{GIBIBYTE}"),
            format!("{GIBIBYTE}"),
        ),
        (
            "download, slowly read",
            format!("{curl} {url}/bytes/{} | (sleep 2; wc -c)", GIBIBYTE / 4),
            format!("{}\n", GIBIBYTE / 4),
        ),
        (
            "download by HTTP/2",
            format!("{curl} --http2-prior-knowledge -o /dev/null -w '%{{size_download}}' {url}/bytes/{GIBIBYTE}"),
            format!("{GIBIBYTE}"),
        ),
        ("upload", format!("{curl} -H Expect: -T {file} {url}/upload"), format!("\"bytes\":{GIBIBYTE}")),
        ("upload in chunks", format!("{curl} -H Expect: -T - {url}/upload < {file}"), format!("\"bytes\":{GIBIBYTE}")),
    ] {
        let (printed, growth) = grown(&gateway, &command);
        assert!(printed.contains(&expected), "{what}: {printed}");
        assert!(growth <= 60 * MEBIBYTE, "{what}: {} MiB above idle", growth / MEBIBYTE);
        println!("{what}: {} MiB above idle", growth / MEBIBYTE);
    }
    wait_until("answering", || gateway.answers(1));
}
