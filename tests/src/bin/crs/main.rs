//! `cargo xtask crs`: the regression suite of the OWASP Core Rule Set, over real connections through the running gateway.
//!
//! Each stage is one request on a connection of its own to the agent as a reverse proxy, in a network namespace of its own. What
//! it is held against is the answer and the agent's event about it, known by the client's port. Not here: what the rules decide
//! without a gateway, which the tests of `firewall-inspect` see to.

mod backend;
mod benign;
mod client;
mod gateway;
mod judge;
mod overrides;
mod request;
mod suite;
mod variant;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use serde::Serialize;

use crate::{gateway::Gateway, suite::Stage, variant::Variant};

/// Sends the regression suite of the OWASP Core Rule Set through the gateway.
///
/// Exit status: 0 if all stages are as expected, 1 if one is not, 2 if the suite could not be run.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask crs", max_term_width = 100)]
struct Arguments {
    /// The folder of the rules, with crs-setup.conf or crs-setup.conf.example beside it, or in /etc/modsecurity/crs
    #[arg(long)]
    rules: PathBuf,
    /// The folder of the suite's files
    #[arg(long)]
    tests: PathBuf,
    /// How requests are said; those that cannot be are left out
    #[arg(long, value_enum, default_value_t)]
    variant: Variant,
    /// Enforce the rules, and count what they refuse; then send benign requests
    #[arg(long)]
    blocking: bool,
    /// The paranoia level: 4, or 1 with --blocking, unless given
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    paranoia: Option<u8>,
    /// Print counts as JSON on stdout, and nothing else there
    #[arg(long)]
    json: bool,
    /// These stages alone, such as 942100-3
    titles: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    stages: usize,
    passed: usize,
    failed: usize,
    /// Passed by another expectation than the suite's own.
    overridden: usize,
    failures: Vec<Failure>,
    resident_mb: u64,
}

#[derive(Debug, Serialize)]
struct Failure {
    title: String,
    why: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("the suite could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is as expected.
fn run(arguments: &Arguments) -> Result<bool> {
    let version = overrides::version(&arguments.rules)?;
    let mut stages = suite::load(&arguments.tests)?;
    if !arguments.titles.is_empty() {
        stages.retain(|stage| arguments.titles.iter().any(|title| title == stage.test() || *title == stage.title));
    }
    let all = stages.len();
    stages.retain_mut(|stage| match arguments.variant.of(stage) {
        Some(request) => {
            stage.request = request;
            true
        }
        None => false,
    });
    ensure!(!stages.is_empty(), "no such stage");
    let overridden = overrides::apply(&version, &mut stages)?;
    eprintln!("CRS {version}: {} stages; {} cannot be said like this", stages.len(), all - stages.len());
    let paranoia = arguments.paranoia.unwrap_or(if arguments.blocking { 1 } else { 4 });
    let start = Instant::now();
    let gateway = Gateway::start(&arguments.rules, &stages, arguments.blocking, paranoia)?;
    let started = start.elapsed().as_secs_f64();
    let http2 = arguments.variant == Variant::Http2;
    let good = match arguments.blocking {
        true => benign::run(&gateway, &stages, http2, arguments.json)?,
        false => detect(&gateway, &stages, &overridden, http2, arguments.json)?,
    };
    eprintln!("{:.1} s, {started:.1} of them until the agent was there", start.elapsed().as_secs_f64());
    Ok(good)
}

fn detect(gateway: &Gateway, stages: &[Stage], overridden: &[String], http2: bool, json: bool) -> Result<bool> {
    let mut report = Report { stages: stages.len(), ..Report::default() };
    let mut left: Vec<&Stage> = stages.iter().collect();
    let mut retries = true;
    while !left.is_empty() {
        let mut again = Vec::new();
        gateway.send(
            &left,
            |_| http2,
            |stage, answer, event| {
                let why = judge::judge(&stage.expected, answer, event)?;
                if why.is_empty() {
                    let own = !overridden.contains(&stage.title);
                    *(if own { &mut report.passed } else { &mut report.overridden }) += 1;
                } else if retries && stage.expected.retry {
                    again.push(stage);
                } else {
                    eprintln!("{}: {}", stage.title, why.join("; "));
                    report.failed += 1;
                    report.failures.push(Failure { title: stage.title.clone(), why });
                }
                Ok(())
            },
        )?;
        (left, retries) = (again, false);
    }
    report.resident_mb = gateway.resident_mb()?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        let Report { stages, passed, failed, overridden, resident_mb, .. } = &report;
        println!("{stages} stages: {passed} passed, {failed} failed, {overridden} passed by an override");
        println!("the agent holds {resident_mb} MB");
    }
    Ok(report.failed == 0)
}
