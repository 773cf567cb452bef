//! Runs, checks and detaches. Stands in until the agent itself is merged.

use std::process::ExitCode;

use crate::{
    cli::{CheckArgs, DetachArgs, RunArgs},
    paths::Paths,
};

pub fn run(_paths: &Paths, _args: RunArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}

pub fn check(_paths: &Paths, _args: CheckArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}

pub fn detach(_paths: &Paths, _args: DetachArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
