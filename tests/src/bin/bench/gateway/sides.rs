//! The two gateways and their upstream, running, and proof that each does its work.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tests::{
    agent::Agent,
    http::{
        curl::{Http, curl},
        raw::Client,
        tls::Authority,
    },
    netns::{Namespace, World},
};

const PROXY: &str = include_str!("../../../../nginx/proxy.conf");
pub(crate) const UPSTREAM: &str = include_str!("../../../../nginx/upstream.conf");
pub(crate) const UPSTREAM_AT: &str = "127.0.0.1:9000";
const PATIENCE: Duration = Duration::from_secs(10);
/// What `/64k` is.
const FILE: usize = 64 << 10;

/// A gateway to measure.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// One line for each request.
    log: PathBuf,
    /// Whose CPU time counts: the agent, or the worker of nginx.
    pid: u32,
}

pub(crate) struct Sides {
    /// Ours, and nginx.
    pub(crate) all: [Side; 2],
    pub(crate) namespace: Namespace,
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) cpus: Cpus,
    _servers: [Nginx; 2],
    _agent: Agent,
}

/// Who runs where, as lists that `taskset` takes.
pub(crate) struct Cpus {
    pub(crate) gateway: String,
    pub(crate) rest: String,
    /// CPUs of the rest.
    pub(crate) clients: usize,
}

impl Cpus {
    pub(crate) fn new() -> Self {
        match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => Self { gateway: "0".into(), rest: "0".into(), clients: 1 },
            count => Self { gateway: "0".into(), rest: format!("1-{}", count - 1), clients: count - 1 },
        }
    }
}

impl Sides {
    pub(crate) fn start(world: &World) -> Result<Self> {
        let (namespace, cpus) = (world.host.clone(), Cpus::new());
        let directory = TempDir::new()?;
        let authority = Authority::new()?;
        let pair = authority.issue("api", &["api.test", "127.0.0.1"])?;
        let place = |name: &str| directory.path().join(name);
        fs::copy(&pair.chain, place("api.pem"))?;
        fs::copy(&pair.key, place("api.key"))?;
        fs::write(place("64k"), [b'x'; FILE])?;
        fs::write(place("proxy.conf"), PROXY)?;
        fs::write(place("upstream.conf"), UPSTREAM)?;
        let upstream = Nginx::start(&namespace, directory.path(), "upstream.conf", &cpus.rest, UPSTREAM_AT)?;
        let proxy = Nginx::start(&namespace, directory.path(), "proxy.conf", &cpus.gateway, "127.0.0.1:8081")?;

        let log = place("ours.jsonl");
        let config = format!(
            "interfaces = [\"eth0\"]\n[gateway]\nworkers = 1\n\
             [events]\nstdout = false\nfile = {{ path = {log:?}, max_size = \"1000GiB\" }}\n\
             [[api]]\nname = \"plain\"\nlisten = \"127.0.0.1:8080\"\nupstream = \"http://{UPSTREAM_AT}\"\n\
             [[api]]\nname = \"tls\"\nlisten = \"127.0.0.1:8443\"\nupstream = \"http://{UPSTREAM_AT}\"\n{}",
            Authority::toml(&[&pair])
        );
        let agent = Agent::start(world, &config)?;
        let pid = agent.pid().context("the agent has ended")?;
        let ours = Side { name: "ours", plain: at(8080), tls: at(8443), log, pid };
        namespace.run("taskset", &["-acp", &cpus.gateway, &pid.to_string()])?;
        let nginx = Side {
            name: "nginx",
            plain: at(8081),
            tls: at(8444),
            log: place("proxy-access.jsonl"),
            pid: proxy.worker()?,
        };
        Ok(Self {
            all: [ours, nginx],
            namespace,
            directory,
            authority,
            cpus,
            _servers: [upstream, proxy],
            _agent: agent,
        })
    }

    /// Both answer as the upstream does, by each protocol, and log it; and ours refuses what it must.
    pub(crate) fn assert_verdicts(&self) -> Result<()> {
        let upstream = self.ask(Http::One, "http://127.0.0.1:9000/small", &[])?;
        ensure!(upstream.len() > 50, "the upstream answers {upstream:?}");
        let file = vec![b'x'; FILE];
        let body = "x".repeat(350);
        let ca = self.authority.ca().display().to_string();
        for Side { name, plain, tls, .. } in &self.all {
            for (http, url, more, expected) in [
                (Http::One, format!("http://{plain}/small"), &[][..], &upstream),
                (Http::One, format!("http://{plain}/small"), &["-d", &body], &upstream),
                (Http::One, format!("http://{plain}/64k"), &[], &file),
                (Http::One, format!("https://{tls}/small"), &["--cacert", &ca], &upstream),
                (Http::Two, format!("https://{tls}/small"), &["--cacert", &ca], &upstream),
            ] {
                let got = self.ask(http, &url, more).with_context(|| format!("{name}: {url}"))?;
                ensure!(&got == expected, "{name} answers {url} with {} bytes, not {}", got.len(), expected.len());
            }
        }
        for side in &self.all {
            side.assert_logged(5).with_context(|| format!("the log of {}", side.name))?;
        }
        self.assert_refusal()
    }

    fn ask(&self, http: Http, url: &str, more: &[&str]) -> Result<Vec<u8>> {
        let answer = curl(&self.namespace, http, None, &[more, &[url]].concat())?;
        ensure!(answer.response.status == 200, "status {}", answer.response.status);
        let spoken = if http == Http::Two { "2" } else { "1.1" };
        ensure!(answer.http == spoken, "HTTP/{} is spoken", answer.http);
        Ok(answer.response.body)
    }

    /// Ours inspects while it is measured: a request in two framings is refused, and told.
    fn assert_refusal(&self) -> Result<()> {
        let ours = &self.all[0];
        ours.forget_log()?;
        let mut client = Client::open(&self.namespace, ours.plain)?;
        client.send(b"POST /small HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")?;
        let answer = client.response(false)?.context("closed without an answer")?;
        ensure!(answer.status == 400, "a request in two framings got {}", answer.status);
        ours.assert_logged(1)?;
        let said = fs::read_to_string(&ours.log)?;
        ensure!(said.contains("\"length-and-coding\""), "the record of the refusal is {said}");
        ours.forget_log()
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Side {
    /// Waits until the log has at least so many lines, and empties it.
    pub(crate) fn assert_logged(&self, requests: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read(&self.log).unwrap_or_default();
            let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
            if lines >= requests {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{lines} lines for {requests} requests");
            sleep(Duration::from_millis(50));
        }
    }

    /// Empties the log, so that it does not fill the disk.
    pub(crate) fn forget_log(&self) -> Result<()> {
        Ok(fs::File::options().write(true).open(&self.log)?.set_len(0)?)
    }

    /// CPU time used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let (user, system) = (ticks.next().context("no times")??, ticks.next().context("no times")??);
        // USER_HZ is 100 on every architecture that Linux has kept.
        Ok(Duration::from_millis((user + system) * 10))
    }
}

/// A server that ends with this.
pub(crate) struct Nginx {
    master: Child,
}

impl Nginx {
    pub(crate) fn start(
        namespace: &Namespace,
        directory: &Path,
        config: &str,
        cpus: &str,
        address: &str,
    ) -> Result<Self> {
        let mut command = namespace.command("taskset");
        command.args(["-c", cpus, "nginx", "-e", "stderr", "-p"]).arg(directory).arg("-c").arg(directory.join(config));
        let master = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("nginx (Debian: nginx)")?;
        let mut nginx = Self { master };
        let address: SocketAddr = address.parse()?;
        let deadline = Instant::now() + PATIENCE;
        while namespace.enter(|| std::net::TcpStream::connect(address)).is_err() {
            if let Some(status) = nginx.master.try_wait()? {
                bail!("nginx with {config} ended: {status}");
            }
            ensure!(Instant::now() < deadline, "nginx does not listen at {address}");
            sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// The process that does the work.
    pub(crate) fn worker(&self) -> Result<u32> {
        let pid = self.master.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().next().context("nginx has no worker")?.parse()?)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its worker with it, which a kill would not.
        let pid = nix::unistd::Pid::from_raw(self.master.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.master.wait();
    }
}
