//! `cargo xtask demo`: builds the agent and the demonstration, and becomes the latter.

use anyhow::Result;

use crate::{
    process::{as_root, become_program},
    programs::{AGENT_VARIABLE, Programs},
    setup,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to the demo; `cargo xtask demo -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn demo(args: &Args) -> Result<()> {
    setup::all()?;
    let programs = Programs::build()?;
    let demo = programs.get("demo")?;
    become_program(as_root(demo)?.args(&args.args).env(AGENT_VARIABLE, programs.agent()?))
}
