//! Content rules: microseconds that a request costs, beside nginx with ModSecurity.
//!
//! Ours is measured twice: as the engine alone, whole transactions on one thread, and in the gateway, as the CPU time of the
//! agent with rules less that without. nginx is measured like the latter. Everything that serves runs on the first CPU, where
//! there are two or more, and whoever asks on the others.

mod engine;
mod requests;
mod served;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tests::netns::World;

use self::{
    engine::{Engine, RuleFiles},
    requests::CASES,
    served::Served,
};

/// The Core Rule Set of Debian, which both sides run.
const CRS_3: [&str; 2] = ["/etc/modsecurity/crs/crs-setup.conf", "/usr/share/modsecurity-crs/rules/*.conf"];

#[derive(Serialize)]
struct Report {
    /// Milliseconds to compile CRS 4.
    compile_ms: f64,
    cases: Vec<Case>,
}

/// All in microseconds a request.
#[derive(Serialize)]
struct Case {
    name: &'static str,
    /// The engine with CRS 4 at paranoia level 1: the mean, and the very first request of a worker.
    us: f64,
    first_us: f64,
    /// At paranoia level 4.
    pl4_us: f64,
    /// What CRS 4 at paranoia level 1 adds to a request in the gateway, and that over what the engine takes.
    gateway_us: f64,
    gateway_ratio: f64,
    /// With CRS 3.3 at paranoia level 1, as nginx with ModSecurity runs it.
    crs3_us: f64,
    nginx_modsecurity_us: f64,
    /// It did not answer within that: it takes longer.
    nginx_modsecurity_at_least: bool,
    /// nginx with ModSecurity over the engine, both with CRS 3.3.
    ratio: f64,
}

pub(crate) fn run(json: bool, crs_4: &Path, only: &[String]) -> Result<()> {
    for name in only {
        ensure!(CASES.iter().any(|case| case.name == name), "there is no case {name}");
    }
    let setup = crs_4.join("crs-setup.conf.example");
    let crs_4 =
        |level| RuleFiles::new([setup.display().to_string(), format!("{}/rules/*.conf", crs_4.display())], level);
    let crs_3 = RuleFiles::new(CRS_3.map(str::to_owned), 1)?;
    let level_1 = crs_4(1)?;

    let plain = Engine::load(&level_1)?;
    let paranoid = Engine::load(&crs_4(4)?)?;
    let older = Engine::load(&crs_3)?;
    let mut report = Report { compile_ms: round(plain.compile_ms), cases: Vec::new() };
    for case in CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)) {
        let requests = case.requests();
        for (engine, blocked) in [(&plain, Some(case.blocked)), (&older, Some(case.blocked)), (&paranoid, None)] {
            engine.assert_verdicts(&requests, blocked).with_context(|| case.name)?;
        }
        // Servers of its own for each case: what one leaves behind is not the next one's.
        let world = World::new().context("namespaces of its own (are you root?)")?;
        let served = Served::start(&world, &level_1, &crs_3)?;
        let ours = served.ours(&requests, case.blocked).with_context(|| case.name)?;
        ensure!(!ours.at_least, "{}: the gateway does not answer in time", case.name);
        let nginx = served.nginx(&requests, case.blocked).with_context(|| case.name)?;
        let mut measured = Case {
            name: case.name,
            us: plain.mean_us(&requests)?,
            first_us: plain.first_us(&requests[0])?,
            pl4_us: paranoid.mean_us(&requests)?,
            gateway_us: ours.us,
            gateway_ratio: 0.0,
            crs3_us: older.mean_us(&requests)?,
            nginx_modsecurity_us: nginx.us,
            nginx_modsecurity_at_least: nginx.at_least,
            ratio: 0.0,
        };
        measured.ratio = measured.nginx_modsecurity_us / measured.crs3_us;
        measured.gateway_ratio = measured.gateway_us / measured.us;
        eprintln!("{}: {:.1} µs, nginx {:.0} µs", case.name, measured.us, measured.nginx_modsecurity_us);
        report.cases.push(measured.rounded());
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl Case {
    fn rounded(self) -> Self {
        Self {
            name: self.name,
            us: round(self.us),
            first_us: round(self.first_us),
            pl4_us: round(self.pl4_us),
            gateway_us: round(self.gateway_us),
            gateway_ratio: (self.gateway_ratio * 100.0).round() / 100.0,
            crs3_us: round(self.crs3_us),
            nginx_modsecurity_us: round(self.nginx_modsecurity_us),
            nginx_modsecurity_at_least: self.nginx_modsecurity_at_least,
            ratio: round(self.ratio),
        }
    }
}

fn print(report: &Report) {
    println!("CRS 4 compiles in {:.0} ms; the rest is µs a request", report.compile_ms);
    println!(
        "{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>18} {:>7}",
        "case", "CRS 4 PL1", "first", "PL4", "gateway", "/engine", "CRS 3.3", "nginx+ModSecurity", "ratio"
    );
    for case in &report.cases {
        let more = if case.nginx_modsecurity_at_least { "> " } else { "" };
        println!(
            "{:<24} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.2} {:>9.1} {:>18} {:>7}",
            case.name,
            case.us,
            case.first_us,
            case.pl4_us,
            case.gateway_us,
            case.gateway_ratio,
            case.crs3_us,
            format!("{more}{:.0}", case.nginx_modsecurity_us),
            format!("{more}{:.1}", case.ratio),
        );
    }
}
