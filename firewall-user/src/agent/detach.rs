//! `portcullis detach`: takes everything of ours out of the kernel, and nothing else.

use std::{
    io,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

use super::{offloads, preflight};
use crate::{
    cli::{DetachArgs, show},
    control::client::Client,
    dmz::{
        link::{link_pins, remove_link_pin},
        shared,
        syscall::detach_pinned,
    },
    paths::Paths,
};

/// What was removed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Detached {
    /// The agent that was stopped first.
    pub stopped_agent: Option<u32>,
    pub links: usize,
    pub maps: usize,
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
    if detached.links == 0 && detached.maps == 0 {
        return writeln!(out, "nothing of ours is in the kernel");
    }
    writeln!(out, "NOT FILTERING: detached from {} interfaces, removed {} maps", detached.links, detached.maps)
}

fn remove_everything(paths: &Paths) -> Result<Detached> {
    preflight::root()?;
    let mut detached = Detached { stopped_agent: stop_agent(paths)?, ..Detached::default() };
    for (path, index) in link_pins(&paths.pins()) {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"xdp-")) {
            detached.links += 1;
        }
        // One whose interface is gone is detached already; without its pin, it goes in any case.
        let _gone = detach_pinned(&path);
        remove_link_pin(&path, index)?;
    }
    detached.maps = shared::remove_pins(&paths.pins()).with_context(|| paths.pins().display().to_string())?;
    detached.warnings = offloads::restore(paths).iter().map(ToString::to_string).collect();
    Ok(detached)
}

/// Asks a running agent to stop, and waits until it has.
fn stop_agent(paths: &Paths) -> Result<Option<u32>> {
    let Ok(status) = Client::new(paths.socket()).status() else { return Ok(None) };
    let pid = Pid::from_raw(i32::try_from(status.pid).context("the agent's process id")?);
    kill(pid, Signal::SIGTERM).with_context(|| format!("stopping the agent (process {pid})"))?;
    let began = Instant::now();
    while kill(pid, None).is_ok() && paths.socket().exists() {
        if began.elapsed() > Duration::from_secs(10) {
            bail!("the agent (process {pid}) does not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(status.pid))
}
