//! `cargo xtask demo`: a host behind Portcullis in a network namespace, a client that sends good and bad traffic of every
//! kind, and a table of what became of it: packets first, then requests to applications behind the gateway.
//!
//! What a line claims is proved three times over: by the kernel's counters, by the agent's events, and by a witness behind
//! the firewall (or the real client). The exit status is 0 if every line is as expected, 1 if one is not, 2 if the demo
//! could not be run.

mod bench;
mod gateway;
mod good;
mod hostile;
mod judge;
mod live;
mod probe;
mod table;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::{
    bench::{Bench, XdpMode},
    probe::Step,
};

/// Shows what Portcullis does to good and bad traffic, in network namespaces of its own.
///
/// Exit status: 0 if every line is as expected, 1 if one is not, 2 if the demo could not be run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Do not print events as they come, only the probes and the table
    #[arg(long, short)]
    quiet: bool,
    /// Where the program shall run
    #[arg(long, value_enum, default_value_t = XdpMode::Native)]
    mode: XdpMode,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("The demo could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went as expected.
fn run(arguments: &Arguments) -> Result<bool> {
    clean_up_when_interrupted()?;
    let start = Instant::now();
    println!("Making a host and a client in network namespaces, and starting Portcullis on the host's interface …");
    let mut bench = Bench::new(arguments.mode)?;
    println!("{}\n", bench.introduction()?);
    if !arguments.quiet {
        bench.show_events();
    }
    let mut lines = Vec::new();
    for step in steps() {
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted; everything is cleaned up");
        }
        match step {
            Step::Do(what, action) => {
                println!("     * {what}");
                action(&mut bench).with_context(|| what)?;
            }
            Step::Probe(probe) => {
                println!("{:>3}. {} {}: {}", lines.len() + 1, probe.family, probe.stage, probe.what);
                let line = judge::run(&mut bench, probe)?;
                println!("     {}", line.summary());
                lines.push(line);
            }
        }
    }
    let (closing, complaints) = bench.closing()?;
    drop(bench);
    lines.extend(gateway::run(lines.len())?);
    println!("\n{}", table::render(&lines));
    println!("{closing}");
    for complaint in &complaints {
        println!("!! {complaint}");
    }
    let wrong = lines.iter().filter(|line| !line.complaints.is_empty()).count();
    println!("{} of {} as expected, in {:.0} s.", lines.len() - wrong, lines.len(), start.elapsed().as_secs_f64());
    Ok(wrong == 0 && complaints.is_empty())
}

/// All of one family before the other: packets that have no readable source share it, and their events with it, for up to
/// 2.6 s.
fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for family in [probe::Family::v4(), probe::Family::v6()] {
        steps.extend(good::steps(&family));
        steps.extend(hostile::steps(&family));
        steps.extend(live::steps(&family));
    }
    steps.extend(live::death());
    steps
}

/// Ctrl-C and SIGTERM end the demo between two probes, so that everything is dropped in order.
fn clean_up_when_interrupted() -> Result<()> {
    extern "C" fn interrupted(_signal: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
