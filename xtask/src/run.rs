//! `cargo xtask run`: builds the agent and becomes it, on a real interface.

use anyhow::Result;

use crate::{
    process::{as_root, become_program},
    programs::Programs,
    setup,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `portcullis run`; `cargo xtask run -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::build()?;
    let agent = Programs::build()?.agent()?;
    become_program(as_root(agent)?.arg("run").args(&args.args))
}
