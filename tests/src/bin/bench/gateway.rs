//! The LAN layer's gateway as a reverse proxy, beside nginx: one worker thread each, the same upstream, the same clients, in
//! turns.
//!
//! Everything runs on the loopback interface of a network namespace of its own. Where there are two CPUs or more, whichever
//! gateway is measured has the first to itself, and the upstream and the clients have the others.

mod load;
mod sides;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tests::netns::World;

pub(crate) use self::{
    load::pin,
    sides::{Cpus, Nginx, UPSTREAM, UPSTREAM_AT},
};
use self::{
    load::{Client, Sample},
    sides::Sides,
};

/// Runs of each case and side, in turns, so that a slow moment hits both alike.
const ROUNDS: usize = 5;
/// Of each run.
const SECONDS: u64 = 3;
/// Before a case is measured: caches, connections to the upstream, branch predictors.
const WARM_UP: Duration = Duration::from_millis(1000);

#[derive(Serialize)]
struct Report {
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    name: &'static str,
    ours_rps: f64,
    nginx_rps: f64,
    /// Ours over nginx.
    ratio: f64,
    ours_p99_us: u64,
    nginx_p99_us: u64,
    /// How busy the CPU of the gateway was, in percent of one CPU. Well below 100, the clients were the limit.
    ours_busy: u32,
    nginx_busy: u32,
}

/// A case and what asks for it.
const CASES: [(&str, Client); 6] = [
    ("h1_get", Client::Wrk { tls: false, path: "/small", post: false }),
    ("h1_post_350b", Client::Wrk { tls: false, path: "/small", post: true }),
    ("h1_tls_get", Client::Wrk { tls: true, path: "/small", post: false }),
    ("tls_handshake", Client::Handshakes),
    ("h2_get", Client::H2load),
    ("h1_get_64k", Client::Wrk { tls: false, path: "/64k", post: false }),
];

pub(crate) fn run(json: bool, only: &[String]) -> Result<()> {
    for name in only {
        ensure!(CASES.iter().any(|(known, _)| known == name), "there is no case {name}");
    }
    let world = World::new().context("namespaces of its own (are you root?)")?;
    let sides = Sides::start(&world)?;
    sides.assert_verdicts()?;
    let mut report = Report { cases: Vec::new() };
    for (name, client) in CASES {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        report.cases.push(measure(&sides, name, client)?);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn measure(sides: &Sides, name: &'static str, client: Client) -> Result<Case> {
    let mut samples: [Vec<Sample>; 2] = Default::default();
    for side in &sides.all {
        let sample = client.run(sides, side, WARM_UP).with_context(|| format!("{name} of {}", side.name))?;
        side.assert_logged(sample.requests).with_context(|| format!("the log of {}", side.name))?;
    }
    for round in 0..ROUNDS {
        // Neither is always the first.
        for number in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let side = &sides.all[number];
            let sample = client
                .run(sides, side, Duration::from_secs(SECONDS))
                .with_context(|| format!("{name} of {}", side.name))?;
            eprintln!("{name}, round {} of {ROUNDS}: {} {:.0} a second", round + 1, side.name, sample.rps);
            side.forget_log()?;
            samples[number].push(sample);
        }
    }
    let [ours, nginx] = samples.map(median);
    Ok(Case {
        name,
        ours_rps: ours.rps.round(),
        nginx_rps: nginx.rps.round(),
        ratio: (ours.rps / nginx.rps * 1000.0).round() / 1000.0,
        ours_p99_us: ours.p99.as_micros() as u64,
        nginx_p99_us: nginx.p99.as_micros() as u64,
        ours_busy: ours.busy,
        nginx_busy: nginx.busy,
    })
}

/// Each value is the median of its own.
fn median(samples: Vec<Sample>) -> Sample {
    fn middle<T: Copy>(
        samples: &[Sample],
        value: impl Fn(&Sample) -> T,
        order: impl Fn(&T, &T) -> std::cmp::Ordering,
    ) -> T {
        let mut values: Vec<T> = samples.iter().map(value).collect();
        values.sort_by(order);
        values[values.len() / 2]
    }
    Sample {
        requests: middle(&samples, |sample| sample.requests, Ord::cmp),
        rps: middle(&samples, |sample| sample.rps, f64::total_cmp),
        p99: middle(&samples, |sample| sample.p99, Ord::cmp),
        busy: middle(&samples, |sample| sample.busy, Ord::cmp),
    }
}

fn print(report: &Report) {
    println!(
        "{:<14} {:>9} {:>9} {:>6}   {:>11} {:>11}   {:>9} {:>9}",
        "case", "ours/s", "nginx/s", "ratio", "ours p99", "nginx p99", "ours busy", "nginx"
    );
    for case in &report.cases {
        let Case { name, ours_rps, nginx_rps, ratio, ours_p99_us, nginx_p99_us, ours_busy, nginx_busy } = case;
        println!(
            "{name:<14} {ours_rps:>9.0} {nginx_rps:>9.0} {ratio:>6.2}   {ours_p99_us:>8} µs {nginx_p99_us:>8} µs   {ours_busy:>7} % {nginx_busy:>7} %"
        );
    }
}
