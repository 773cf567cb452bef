//! Reloads of content rules under load: what the agent's memory comes to.
//!
//! The Core Rule Set with one more rule that is another one each time, so that the whole set is compiled anew. Meanwhile each of
//! two clients asks one request after the other, and every answer is seen to.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tests::{
    agent::Agent,
    http::{app::App, raw::Client},
    netns::{Namespace, World},
};

const RELOADS: usize = 500;
/// After so many, memory is what it will be.
const SETTLED: usize = 50;
/// What one reload needed in passing is given back by then: every ten seconds it is.
const REST: Duration = Duration::from_secs(25);
const GATEWAY: &str = "127.0.0.1:8080";
const APP: &str = "127.0.0.1:9000";

#[derive(Serialize)]
struct Report {
    reloads: usize,
    requests: u64,
    seconds: f64,
    /// Megabytes: at the beginning, after the first reloads, after all.
    start_mb: f64,
    settled_mb: f64,
    end_mb: f64,
    /// The last over the one before, in percent.
    growth_percent: f64,
}

pub(crate) fn run(json: bool, crs: &Path) -> Result<()> {
    let world = World::new().context("namespaces of its own (are you root?)")?;
    let _app = App::start(&world.host, APP.parse()?)?;
    let setup = crs.join("crs-setup.conf.example");
    let config = format!(
        "interfaces = [\"eth0\"]\n[gateway]\nworkers = 2\n[events]\nstdout = false\n[reputation]\nthreshold = 1000000\n\
         [[api]]\nname = \"shop\"\nlisten = \"{GATEWAY}\"\nupstream = \"http://{APP}\"\n\
         rules = [\"base.conf\", {:?}, {:?}]\n",
        setup.display().to_string(),
        crs.join("rules/*.conf").display().to_string()
    );
    let rule = |number: usize| {
        format!(
            "SecRuleEngine On\nSecRequestBodyAccess On\n\
             SecRule ARGS:reload \"@streq {number}\" \"id:1,phase:2,deny,status:403\"\n"
        )
    };
    let agent = Agent::start_with(&world, &config, &[("base.conf", &rule(0))])?;
    let megabytes = || -> Result<f64> {
        thread::sleep(REST);
        Ok((agent.resident()? as f64 / 1e5).round() / 10.0)
    };
    let (over, requests, began) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let (start_mb, settled_mb, end_mb) = thread::scope(|scope| {
        let clients = [0, 1].map(|_| scope.spawn(|| load(&world.host, &over, &requests)));
        let measured = (|| {
            ask(&world.host, 0, 403)?;
            let (start, mut settled) = (megabytes()?, 0.0);
            for number in 1..=RELOADS {
                let before = agent.status()?;
                // In one step, or a file half written would be a reload of its own.
                agent.write("base.new", &rule(number))?;
                fs::rename(agent.directory().join("base.new"), agent.directory().join("base.conf"))?;
                let after = agent.wait_reload(&before)?;
                ensure!(after.reloads.last_error.is_none(), "a reload failed: {:?}", after.reloads.last_error);
                // The new rule is in force, the old one no longer.
                ask(&world.host, number, 403)?;
                ask(&world.host, number - 1, 200)?;
                if number == SETTLED {
                    settled = megabytes()?;
                }
            }
            anyhow::Ok((start, settled, megabytes()?))
        })();
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client broke down"))??;
        }
        measured
    })?;
    let report = Report {
        reloads: RELOADS,
        requests: requests.into_inner(),
        seconds: began.elapsed().as_secs_f64().round(),
        start_mb,
        settled_mb,
        end_mb,
        growth_percent: ((end_mb / settled_mb - 1.0) * 1000.0).round() / 10.0,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!(
            "{} reloads in {} s, with {} requests meanwhile: {} MB at the beginning, {} after {SETTLED}, {} at the end ({:+} %)",
            report.reloads, report.seconds, report.requests, start_mb, settled_mb, end_mb, report.growth_percent
        );
    }
    Ok(())
}

fn ask(namespace: &Namespace, number: usize, expected: u16) -> Result<()> {
    let mut client = Client::open(namespace, GATEWAY.parse()?)?;
    let status = client.get(&format!("/a?reload={number}"))?.status;
    ensure!(status == expected, "rule {number}: {status}, not {expected}");
    Ok(())
}

fn load(namespace: &Namespace, over: &AtomicBool, requests: &AtomicU64) -> Result<()> {
    let mut client = Client::open(namespace, GATEWAY.parse()?)?;
    while !over.load(Ordering::Relaxed) {
        for (target, expected) in [("/list?page=2&sort=name", 200), ("/list?id=1%27+OR+1%3D1--+", 403)] {
            let status = client.get(target)?.status;
            ensure!(status == expected, "{target}: {status}, not {expected}");
            requests.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
