//! nginx and the gateway, each with rules and without, and what the rules cost them.

use std::{
    fs,
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
use crate::gateway::{Cpus, Nginx};

const NGINX: &str = include_str!("../../../../nginx/rules.conf");
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests are sent for so long, with rules and without; and at least so many, or of large ones, which may take ModSecurity
/// seconds each, so few.
const SECONDS: Duration = Duration::from_secs(2);
const AT_LEAST: usize = 20;
const AT_LEAST_LARGE: usize = 2;
const LARGE: usize = 50_000;

/// A server with its two doors: the rules are behind one of them.
struct Side {
    with: SocketAddr,
    without: SocketAddr,
    /// The process that does the work.
    pid: u32,
}

pub(super) struct Served {
    namespace: Namespace,
    ours: Side,
    nginx: Side,
    _server: Nginx,
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
        let server = Nginx::start(&namespace, directory.path(), "nginx.conf", &cpus.gateway, "127.0.0.1:8081")?;
        let patterns: Vec<String> = ours.patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
        let upstream = "upstream = \"http://127.0.0.1:9000\"";
        let config = format!(
            "interfaces = [\"eth0\"]\n[gateway]\nworkers = 1\n[events]\nstdout = false\n[reputation]\nthreshold = 1000000\n\
             [[api]]\nname = \"without\"\nlisten = \"127.0.0.1:8080\"\n{upstream}\n\
             [[api]]\nname = \"with\"\nlisten = \"127.0.0.1:8090\"\n{upstream}\nrules = [{}]\n",
            patterns.join(", ")
        );
        let agent = Agent::start(world, &config)?;
        let pid = agent.pid().context("the agent has ended")?;
        namespace.run("taskset", &["-acp", &cpus.gateway, &pid.to_string()])?;
        let ours = Side { with: at(8090), without: at(8080), pid };
        let nginx = Side { with: at(8091), without: at(8081), pid: server.worker()? };
        Ok(Self { namespace, ours, nginx, _server: server, _agent: agent, _directory: directory })
    }

    /// Both refuse each request, or neither does any.
    pub(super) fn assert_verdicts(&self, requests: &[Vec<u8>], blocked: bool) -> Result<()> {
        let expected = if blocked { 403 } else { 200 };
        for (name, side) in [("the gateway", &self.ours), ("nginx", &self.nginx)] {
            for (door, expected) in [(side.without, 200), (side.with, expected)] {
                let mut asking = Asking { namespace: &self.namespace, server: door, client: None };
                // All kinds of each case are among the first.
                for request in requests.iter().take(at_least(requests)) {
                    let status = asking.ask(request)?;
                    ensure!(status == expected, "{name} answers {status}, not {expected}, at {door}");
                }
            }
        }
        Ok(())
    }

    pub(super) fn ours_us(&self, requests: &[Vec<u8>]) -> Result<f64> {
        self.added_us(&self.ours, requests)
    }

    pub(super) fn nginx_us(&self, requests: &[Vec<u8>]) -> Result<f64> {
        self.added_us(&self.nginx, requests)
    }

    fn added_us(&self, side: &Side, requests: &[Vec<u8>]) -> Result<f64> {
        // The second run is warm; what is between the two is what the rules cost.
        let mut means = [0.0; 2];
        for (mean, door) in means.iter_mut().zip([side.without, side.with]) {
            let mut asking = Asking { namespace: &self.namespace, server: door, client: None };
            let rotating = requests.iter().cycle();
            for request in rotating.clone().take(at_least(requests)) {
                asking.ask(request)?;
            }
            let (before, began, mut count) = (cpu_time(side.pid)?, Instant::now(), 0);
            for request in rotating {
                asking.ask(request)?;
                count += 1;
                if count >= at_least(requests) && began.elapsed() >= SECONDS {
                    break;
                }
            }
            *mean = (cpu_time(side.pid)? - before).as_secs_f64() * 1e6 / count as f64;
        }
        Ok(means[1] - means[0])
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
    server: SocketAddr,
    client: Option<Client>,
}

impl Asking<'_> {
    /// The status of the answer.
    fn ask(&mut self, request: &[u8]) -> Result<u16> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::open(self.namespace, self.server)?,
        };
        client.patience(PATIENCE)?;
        client.send(request)?;
        let response = client.response(false)?.context("closed without an answer")?;
        if response.header("connection") != Some("close") {
            self.client = Some(client);
        }
        Ok(response.status)
    }
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
