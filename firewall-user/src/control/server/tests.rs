//! Server and client together, over a real socket.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    control::{
        api::{Ban, ContentRule, List, Reloaded, Status},
        bind,
        client::{Client, ClientError},
    },
    metrics::tests::status as sample_status,
};

#[derive(Default)]
struct Fake {
    calls: Mutex<Vec<String>>,
}

fn refusal(message: &str) -> Refusal {
    Refusal { message: message.to_owned() }
}

fn a_ban(prefix: IpNet) -> Ban {
    Ban {
        prefix,
        layer: "operator".to_owned(),
        origin: "operator".to_owned(),
        rule: None,
        since: "2023-11-14T22:13:20.000Z".to_owned(),
        until: "2023-11-14T23:13:20.000Z".to_owned(),
        remaining_seconds: 3600,
        packets: 0,
        cause: None,
    }
}

impl Fake {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Agent for Fake {
    fn status(&self) -> Status {
        sample_status()
    }

    fn reload(&self) -> Result<Reloaded, Refusal> {
        Err(refusal("the configuration has errors:\nportcullis.toml:3:1"))
    }

    fn ban(&self, request: BanRequest) -> Result<Ban, Refusal> {
        self.note(format!("ban {} {}", request.prefix, request.seconds));
        Ok(a_ban(request.prefix))
    }

    fn unban(&self, prefix: IpNet) -> Result<Ban, Refusal> {
        self.note(format!("unban {prefix}"));
        Err(refusal("not banned"))
    }

    fn bans(&self) -> Result<Vec<Ban>, Refusal> {
        Ok(vec![a_ban("2001:db8::/64".parse().unwrap())])
    }

    fn lists(&self, lookup: Option<IpAddr>) -> Result<Vec<List>, Refusal> {
        self.note(format!("lists {lookup:?}"));
        Ok(Vec::new())
    }

    fn rules(&self) -> Result<Vec<ContentRule>, Refusal> {
        Ok(vec![ContentRule::sample()])
    }

    fn confirm(&self) -> Result<(), Refusal> {
        panic!("a fault of the agent");
    }
}

/// A server of a fake agent, for as long as this lives.
struct Running {
    agent: Arc<Fake>,
    path: PathBuf,
    _directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn start(serve: impl FnOnce(UnixListener, Arc<Fake>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = bind(&path, None).unwrap();
    let agent = Arc::new(Fake::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(serve(listener, Arc::clone(&agent)));
    Running { agent, path, _directory: directory, _runtime: runtime }
}

fn running() -> Running {
    start(|listener, agent| {
        Box::pin(async {
            let _ = serve(listener, agent, None).await;
        })
    })
}

/// The answer to `request` as it comes over the socket.
fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn carries_requests_and_answers() {
    let running = running();
    let client = Client::new(&running.path);
    assert_eq!(client.status().unwrap(), sample_status());
    let prefix: IpNet = "2001:db8:1::/48".parse().unwrap();
    assert_eq!(client.ban(&BanRequest { prefix, seconds: 60 }).unwrap(), a_ban(prefix));
    assert_eq!(client.bans().unwrap().len(), 1);
    assert_eq!(client.rules().unwrap(), [ContentRule::sample()]);
    client.lists(None).unwrap();
    client.lists(Some("2001:db8::1".parse().unwrap())).unwrap();
    assert_eq!(
        *running.agent.calls.lock().unwrap(),
        ["ban 2001:db8:1::/48 60", "lists None", "lists Some(2001:db8::1)"]
    );
}

#[test]
fn refusals_reach_the_client() {
    let running = running();
    let client = Client::new(&running.path);
    match client.reload().unwrap_err() {
        ClientError::Refused(refusal) => assert!(refusal.message.contains("portcullis.toml:3:1")),
        other => panic!("{other:?}"),
    }
    let error = client.unban("192.0.2.0/24".parse().unwrap()).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(_)), "{error:?}");
    assert_eq!(error.to_string(), "not banned");
    assert_eq!(*running.agent.calls.lock().unwrap(), ["unban 192.0.2.0/24"]);
    let answer = raw(&running.path, "POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    // A panic ends neither the server nor the connection without an answer.
    assert!(matches!(client.confirm().unwrap_err(), ClientError::Refused(_)));
    client.status().unwrap();
}

#[test]
fn refuses_what_makes_no_sense() {
    let running = running();
    let client = Client::new(&running.path);
    for (prefix, seconds) in [("192.0.2.1/24", 60), ("192.0.2.0/24", 0)] {
        let error = client.ban(&BanRequest { prefix: prefix.parse().unwrap(), seconds }).unwrap_err();
        assert!(matches!(error, ClientError::BadRequest(_)), "{error:?}");
    }
    for (request, status) in [
        ("GET /v2/status HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("DELETE /v1/bans HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("DELETE /v1/bans?prefix=nonsense HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET /v1/lists?lookup=1.2.3 HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("POST /v1/bans HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{", "400"),
        ("POST /v1/bans HTTP/1.1\r\nhost: x\r\ncontent-length: 999999\r\n\r\n{", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = raw(&running.path, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    assert!(running.agent.calls.lock().unwrap().is_empty());
}

#[test]
fn serves_metrics() {
    let running = running();
    let answer = raw(&running.path, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    assert_eq!(body, metrics::render(&sample_status()));
}

#[test]
fn who_is_not_admitted_is_told_so() {
    let running = start(|listener, _| {
        Box::pin(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let _ = http::serve(listener, |_| denied("user 1000 may not use the control socket")).await;
        })
    });
    let error = Client::new(&running.path).status().unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error:?}");
    assert_eq!(error.to_string(), "permission denied: user 1000 may not use the control socket");
    assert!(raw(&running.path, "POST /v1/confirm HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 403 "));
}

#[test]
fn another_user_may_not_but_its_group_may() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    for (group, admitted) in [(None, false), (Some(1002), false), (Some(1001), true)] {
        let running = start(move |listener, agent| {
            Box::pin(async move {
                let _ = serve(listener, agent, group.map(Gid::from_raw)).await;
            })
        });
        // The file's mode would turn a stranger away before the server does.
        for (path, mode) in [(running.path.parent().unwrap(), 0o755), (&running.path, 0o666)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = running.path.clone();
        let result = std::thread::spawn(move || {
            // SAFETY: as system calls, not functions of libc, these change the credentials of this thread only.
            let results = unsafe {
                [
                    libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()),
                    libc::syscall(libc::SYS_setresgid, 1001, 1001, 1001),
                    libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000),
                ]
            };
            assert_eq!(results, [0, 0, 0]);
            Client::new(path).status()
        })
        .join()
        .unwrap();
        match result {
            Ok(_) => assert!(admitted, "{group:?}"),
            Err(ClientError::Denied { message: Some(message), .. }) => {
                assert!(!admitted && message.contains("user 1000"), "{group:?}: {message}");
            }
            Err(other) => panic!("{group:?}: {other:?}"),
        }
    }
}

#[test]
fn nobody_at_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let error = Client::new(&path).status().unwrap_err();
    assert_eq!(error.to_string(), format!("no agent is running at {}", path.display()));
    drop(bind(&path, None).unwrap());
    assert!(matches!(Client::new(&path).status().unwrap_err(), ClientError::NoAgent { .. }));
}

#[test]
fn silent_peers_do_not_keep_others_out() {
    let running = running();
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&running.path).unwrap()).collect();
    let started = Instant::now();
    Client::new(&running.path).status().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    drop(silent);
}
