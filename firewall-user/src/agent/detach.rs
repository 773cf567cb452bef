//! `portcullis detach`: takes everything of ours out of the kernel, and nothing else.

use std::{
    io,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use serde::Serialize;

use super::{offloads, preflight};
use crate::{
    cli::{DetachArgs, show},
    control,
    dmz::{
        pin::{Kind, Pin},
        shared,
        syscall::detach_pinned,
    },
    paths::Paths,
    steering,
};

/// For connections to end. Those that do not are cut off.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// For the agent to save its bans and to write what events it has.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// What was removed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Detached {
    /// The agent that was stopped first.
    pub stopped_agent: Option<u32>,
    pub links: usize,
    pub maps: usize,
    /// Network namespaces whose connections were steered.
    pub steered: usize,
    /// Offloads that could not be switched on again.
    pub warnings: Vec<String>,
}

pub fn detach(paths: &Paths, args: DetachArgs) -> Result<ExitCode> {
    show(args.output.json, &remove_everything(paths)?, print)?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut dyn Write, detached: &Detached) -> io::Result<()> {
    if let Some(pid) = detached.stopped_agent {
        writeln!(out, "stopped the agent (process {pid})")?;
    }
    for warning in &detached.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if detached.steered > 0 {
        let plural = if detached.steered == 1 { "" } else { "s" };
        writeln!(
            out,
            "NOT STEERING: applications answer for themselves in {} network namespace{plural}",
            detached.steered
        )?;
    }
    if detached.links == 0 && detached.maps == 0 {
        return if detached.steered > 0 { Ok(()) } else { writeln!(out, "nothing of ours is in the kernel") };
    }
    writeln!(out, "NOT FILTERING: detached from {} interfaces, removed {} maps", detached.links, detached.maps)
}

fn remove_everything(paths: &Paths) -> Result<Detached> {
    preflight::root()?;
    let mut detached = Detached { stopped_agent: stop_agent(paths)?, ..Detached::default() };
    for pin in Pin::all(&paths.pins()) {
        detached.links += usize::from(pin.kind == Kind::Xdp);
        // What is left of its link, a link of tc included, goes at once; one whose interface is gone is detached already.
        let _gone = detach_pinned(&pin.path);
        pin.remove().with_context(|| pin.path.display().to_string())?;
    }
    // Before the last maps: they make way for the directory.
    detached.steered = steering::remove_all(&paths.pins()).with_context(|| paths.pins().display().to_string())?;
    detached.maps = shared::remove_pins(&paths.pins()).with_context(|| paths.pins().display().to_string())?;
    detached.warnings = offloads::restore(paths, &[]).iter().map(ToString::to_string).collect();
    Ok(detached)
}

/// Asks a running agent to stop, and waits until it has: one that goes on would attach again with its next reload. It need
/// not answer, nor be of this version.
fn stop_agent(paths: &Paths) -> Result<Option<u32>> {
    let socket = paths.socket();
    let Some(pid) = control::owner(&socket).with_context(|| socket.display().to_string())? else { return Ok(None) };
    kill(pid, Signal::SIGTERM).with_context(|| format!("stopping the agent (process {pid})"))?;
    let began = Instant::now();
    let mut told_again = false;
    while kill(pid, None).is_ok() && socket.exists() {
        if began.elapsed() > ENDS_WITHIN && !told_again {
            // It answers what it had accepted, for as long as its configuration says. That may be long.
            kill(pid, Signal::SIGTERM).with_context(|| format!("stopping the agent (process {pid})"))?;
            told_again = true;
        }
        if began.elapsed() > ENDS_WITHIN + STOPS_WITHIN {
            bail!("the agent (process {pid}) does not stop, and nothing was removed; `kill -9 {pid}` ends it");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(pid.as_raw().cast_unsigned()))
}
