//! nginx and the gateway, each with rules and without, and what the rules cost them.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    agent::Agent,
    http::raw::Client,
    netns::{Namespace, World},
};

use super::engine::RuleFiles;
use crate::gateway::{Cpus, Nginx, UPSTREAM, UPSTREAM_AT, pin};

const NGINX: &str = include_str!("../../../../nginx/rules.conf");
/// What takes a request longer than this is not waited for, and then nothing is measured but that.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request that takes longer than this is one to go by.
const SLOW: Duration = Duration::from_secs(5);
/// Requests are sent for so long, with rules and without in turns, so often; and at least so many of them.
const PERIOD: Duration = Duration::from_millis(700);
const ROUNDS: usize = 3;
const AT_LEAST: usize = 20;
const AT_LEAST_LARGE: usize = 2;
const LARGE: usize = 50_000;

/// Microseconds that rules cost a request, or that they take at least.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) us: f64,
    pub(super) at_least: bool,
}

/// A server with its two doors: the rules are behind one of them.
struct Side {
    name: &'static str,
    with: SocketAddr,
    without: SocketAddr,
    /// The process that does the work.
    pid: u32,
}

pub(super) struct Served {
    namespace: Namespace,
    ours: Side,
    nginx: Side,
    _servers: [Nginx; 2],
    _agent: Agent,
    _directory: TempDir,
}

impl Served {
    pub(super) fn start(world: &World, ours: &RuleFiles, nginx: &RuleFiles) -> Result<Self> {
        let (namespace, cpus) = (world.host.clone(), Cpus::new());
        let directory = TempDir::new()?;
        let includes: Vec<String> = nginx.patterns.iter().map(|pattern| format!("Include {pattern}\n")).collect();
        let rules = directory.path().join("rules.load");
        fs::write(&rules, includes.concat())?;
        // It looks for relative paths where it was started.
        fs::write(directory.path().join("nginx.conf"), NGINX.replace("RULES", &rules.display().to_string()))?;
        fs::write(directory.path().join("upstream.conf"), UPSTREAM)?;
        // Whoever is measured has a CPU of its own, and its caches.
        pin(&cpus.rest)?;
        let upstream = Nginx::start(&namespace, directory.path(), "upstream.conf", &cpus.rest, UPSTREAM_AT)?;
        let server = Nginx::start(&namespace, directory.path(), "nginx.conf", &cpus.gateway, "127.0.0.1:8081")?;
        let patterns: Vec<String> = ours.patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
        let to_upstream = format!("upstream = \"http://{UPSTREAM_AT}\"");
        let config = format!(
            "interfaces = [\"eth0\"]\n[gateway]\nworkers = 1\n[events]\nstdout = false\n[reputation]\nthreshold = 1000000\n\
             [[api]]\nname = \"without\"\nlisten = \"127.0.0.1:8080\"\n{to_upstream}\n\
             [[api]]\nname = \"with\"\nlisten = \"127.0.0.1:8090\"\n{to_upstream}\nrules = [{}]\n",
            patterns.join(", ")
        );
        let agent = Agent::start(world, &config)?;
        let pid = agent.pid().context("the agent has ended")?;
        namespace.run("taskset", &["-acp", &cpus.gateway, &pid.to_string()])?;
        let ours = Side { name: "the gateway", with: at(8090), without: at(8080), pid };
        let nginx = Side { name: "nginx", with: at(8091), without: at(8081), pid: server.worker()? };
        Ok(Self { namespace, ours, nginx, _servers: [server, upstream], _agent: agent, _directory: directory })
    }

    /// What rules cost in the gateway. `blocked`: what they do with each request, which is seen to first.
    pub(super) fn ours(&self, requests: &[Vec<u8>], blocked: bool) -> Result<Cost> {
        self.cost(&self.ours, requests, blocked)
    }

    pub(super) fn nginx(&self, requests: &[Vec<u8>], blocked: bool) -> Result<Cost> {
        self.cost(&self.nginx, requests, blocked)
    }

    fn cost(&self, side: &Side, requests: &[Vec<u8>], blocked: bool) -> Result<Cost> {
        let expected = if blocked { 403 } else { 200 };
        // All kinds of each case are among the first. They also warm caches.
        let first = &requests[..at_least(requests).min(requests.len())];
        for (door, expected) in [(side.without, 200), (side.with, expected)] {
            let mut asking = self.ask_at(side, door);
            for request in first {
                let (before, began) = (cpu_time(side.pid)?, Instant::now());
                let Some(status) = asking.ask(request)? else {
                    return Ok(Cost { us: PATIENCE.as_secs_f64() * 1e6, at_least: true });
                };
                ensure!(status == expected, "{} answers {status}, not {expected}, at {door}", side.name);
                if began.elapsed() > SLOW {
                    return Ok(Cost { us: (cpu_time(side.pid)? - before).as_secs_f64() * 1e6, at_least: false });
                }
            }
        }
        // The least of each: what disturbs only adds.
        let mut least = [f64::MAX; 2];
        for _ in 0..ROUNDS {
            for (least, door) in least.iter_mut().zip([side.without, side.with]) {
                *least = least.min(self.mean_us(side, door, requests)?);
            }
        }
        Ok(Cost { us: least[1] - least[0], at_least: false })
    }

    /// CPU time of a request.
    fn mean_us(&self, side: &Side, door: SocketAddr, requests: &[Vec<u8>]) -> Result<f64> {
        let mut asking = self.ask_at(side, door);
        let (before, began, mut count) = (cpu_time(side.pid)?, Instant::now(), 0);
        for request in requests.iter().cycle() {
            asking.ask(request)?.context("it takes too long now, but did not before")?;
            count += 1;
            if count >= at_least(requests) && began.elapsed() >= PERIOD {
                break;
            }
        }
        Ok((cpu_time(side.pid)? - before).as_secs_f64() * 1e6 / count as f64)
    }

    fn ask_at(&self, side: &Side, door: SocketAddr) -> Asking<'_> {
        Asking { namespace: &self.namespace, name: side.name, door, client: None }
    }
}

fn at_least(requests: &[Vec<u8>]) -> usize {
    if requests.iter().any(|request| request.len() > LARGE) { AT_LEAST_LARGE } else { AT_LEAST }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// One request after the other, over a connection as long as that lasts.
struct Asking<'n> {
    namespace: &'n Namespace,
    name: &'static str,
    door: SocketAddr,
    client: Option<Client>,
}

impl Asking<'_> {
    /// The status of the answer; `None`: there was none in time.
    fn ask(&mut self, request: &[u8]) -> Result<Option<u16>> {
        let told = || format!("{} at {}, asked with {} bytes", self.name, self.door, request.len());
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::open(self.namespace, self.door)?,
        };
        client.patience(PATIENCE)?;
        client.send(request).with_context(told)?;
        let response = match client.response(false) {
            Ok(response) => response.context("closed without an answer").with_context(told)?,
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(error.context(told())),
        };
        if response.header("connection") != Some("close") {
            self.client = Some(client);
        }
        Ok(Some(response.status))
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// CPU time that all threads of a process have used.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let said = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += said.split_whitespace().next().context("no time in schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}
