//! `cargo xtask crs`: builds the agent and the runner of the Core Rule Set's regression suite, and becomes the latter.

use anyhow::Result;

use crate::{
    process::{as_root, become_program},
    programs::{AGENT_VARIABLE, Programs},
    setup,
};

#[derive(Debug, clap::Args)]
#[command(override_usage = "cargo xtask crs --rules <DIR> --tests <DIR> [ARGS]...")]
pub(crate) struct Args {
    /// Passed on to the runner; `cargo xtask crs -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn crs(args: &Args) -> Result<()> {
    setup::all()?;
    let programs = Programs::build()?;
    let runner = programs.get("crs")?;
    become_program(as_root(runner)?.args(&args.args).env(AGENT_VARIABLE, programs.agent()?))
}
