//! The clients: wrk for HTTP/1.1, h2load for HTTP/2, and a loop of our own for handshakes, since neither makes a new TLS
//! session for each request.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::http::{tls::Tls, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::sides::{Side, Sides};

/// Connections of wrk at once, and of h2load, with so many requests each.
const CONNECTIONS: usize = 64;
const H2_CONNECTIONS: usize = 8;
const H2_STREAMS: usize = 16;
/// Handshakes of each client thread at once.
const HANDSHAKES: usize = 8;

const POST: &str =
    "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", 350)\nwrk.headers[\"Content-Type\"] = \"application/json\"\n";
/// `wrk` has milliseconds with two digits at best; this prints microseconds.
const REPORT: &str = "function done(summary, latency)\n  io.write(string.format(\"result %d %d %d %d\\n\", summary.requests, summary.duration, latency:percentile(99), summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))\nend\n";

#[derive(Clone, Copy)]
pub(crate) enum Client {
    Wrk { tls: bool, path: &'static str, post: bool },
    H2load,
    Handshakes,
}

/// A run.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) rps: f64,
    pub(crate) p99: Duration,
    /// Percent of one CPU that the gateway used.
    pub(crate) busy: u32,
}

impl Client {
    /// Asks this side for so long. Any request that fails is an error.
    pub(crate) fn run(self, sides: &Sides, side: &Side, time: Duration) -> Result<Sample> {
        let (began, before) = (Instant::now(), side.cpu_time()?);
        let mut sample = match self {
            Self::Wrk { tls, path, post } => wrk(sides, side, time, (tls, path, post))?,
            Self::H2load => h2load(sides, side, time)?,
            Self::Handshakes => handshakes(sides, side, time)?,
        };
        let used = side.cpu_time()?.saturating_sub(before);
        sample.busy = (used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0).round() as u32;
        Ok(sample)
    }
}

/// Runs a client on its CPUs; gives what it printed.
fn run(sides: &Sides, program: &str, arguments: &[String]) -> Result<String> {
    let mut command = sides.namespace.command("taskset");
    command.args(["-c", &sides.cpus.rest, program]).args(arguments).stdin(Stdio::null());
    let output = command.output()?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{program}: {}: {said}", output.status);
    Ok(said)
}

fn wrk(sides: &Sides, side: &Side, time: Duration, (tls, path, post): (bool, &str, bool)) -> Result<Sample> {
    let script = sides.directory.path().join("wrk.lua");
    fs::write(&script, format!("{}{REPORT}", if post { POST } else { "" }))?;
    let url = if tls { format!("https://{}{path}", side.tls) } else { format!("http://{}{path}", side.plain) };
    let threads = sides.cpus.clients.min(4);
    let arguments = [
        format!("-t{threads}"),
        format!("-c{CONNECTIONS}"),
        format!("-d{}s", time.as_secs().max(1)),
        "-s".into(),
        script.display().to_string(),
        url,
    ];
    let said = run(sides, "wrk", &arguments)?;
    let line =
        said.lines().find_map(|line| line.strip_prefix("result ")).with_context(|| format!("wrk says {said}"))?;
    let numbers = line.split(' ').map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    let [requests, microseconds, p99, errors] = numbers[..] else { anyhow::bail!("wrk says {line}") };
    ensure!(errors == 0 && requests > 0, "wrk counts {errors} errors in {requests} requests");
    let rps = requests as f64 / (microseconds as f64 / 1e6);
    Ok(Sample { requests, rps, p99: Duration::from_micros(p99), busy: 0 })
}

fn h2load(sides: &Sides, side: &Side, time: Duration) -> Result<Sample> {
    let log = sides.directory.path().join("h2load.log");
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let arguments = [
        "-t1".into(),
        format!("-c{H2_CONNECTIONS}"),
        format!("-m{H2_STREAMS}"),
        format!("-D{}", time.as_secs().max(1)),
        format!("--log-file={}", log.display()),
        format!("https://{}/small", side.tls),
    ];
    let said = run(sides, "h2load", &arguments)?;
    ensure!(said.contains("Application protocol: h2"), "h2load says {said}");
    // requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout
    let count = |name: &str| -> Result<u64> {
        let line = said.lines().find(|line| line.starts_with("requests:")).context("no line of requests")?;
        let part = line.split(", ").find_map(|part| part.trim_start_matches("requests: ").strip_suffix(name));
        Ok(part.with_context(|| format!("no {name} in {line}"))?.trim().parse()?)
    };
    let requests = count("succeeded")?;
    ensure!(requests > 0 && count("failed")? + count("errored")? + count("timeout")? == 0, "h2load says {said}");
    // Start, status, duration in microseconds.
    let mut durations = Vec::with_capacity(requests as usize);
    for line in fs::read_to_string(&log)?.lines() {
        let mut fields = line.split('\t').skip(1);
        ensure!(fields.next() == Some("200"), "h2load logs {line}");
        durations.push(Duration::from_micros(fields.next().context("no duration")?.parse()?));
    }
    // In time: whatever the number of requests is, they took so long.
    let rps = requests as f64 / time.as_secs().max(1) as f64;
    Ok(Sample { requests, rps, p99: percentile(durations), busy: 0 })
}

/// A connection, a handshake without resumption, one request, and the end of the connection, over and over.
fn handshakes(sides: &Sides, side: &Side, time: Duration) -> Result<Sample> {
    let tls = sides.authority.client(&["http/1.1"], None)?.careless();
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let results: Vec<Result<Vec<Duration>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..sides.cpus.clients.min(4))
            .map(|_| {
                let (tls, stop) = (tls.clone(), Arc::clone(&stop));
                scope.spawn(move || {
                    pin(&sides.cpus.rest)?;
                    within(&sides.namespace, shake_hands(tls, side.tls, stop))
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("clients do not panic")).collect()
    });
    let took = began.elapsed();
    let durations: Vec<Duration> = results.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let requests = durations.len() as u64;
    ensure!(requests > 0, "no handshake in {took:?}");
    Ok(Sample { requests, rps: requests as f64 / took.as_secs_f64(), p99: percentile(durations), busy: 0 })
}

async fn shake_hands(tls: Tls, server: std::net::SocketAddr, stop: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let clients: Vec<_> = (0..HANDSHAKES)
        .map(|_| {
            let (tls, stop) = (tls.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut durations = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let mut stream = tls.connect(None, server, "api.test").await?;
                    stream.write_all(b"GET /small HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await?;
                    let mut answer = Vec::with_capacity(1024);
                    stream.read_to_end(&mut answer).await.context("the end of the answer")?;
                    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "the answer is {}", answer.escape_ascii());
                    durations.push(began.elapsed());
                }
                Ok(durations)
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await??);
    }
    Ok(all)
}

/// Keeps this thread, and those it starts, on these CPUs.
pub(crate) fn pin(cpus: &str) -> Result<()> {
    let (first, last) = cpus.split_once('-').unwrap_or((cpus, cpus));
    let mut set = nix::sched::CpuSet::new();
    for cpu in first.parse::<usize>()?..=last.parse()? {
        set.set(cpu)?;
    }
    Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
}

fn percentile(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations.get(durations.len() * 99 / 100).copied().unwrap_or_default()
}
