//! `cargo xtask fuzz`: builds the fuzzer and becomes it.

use anyhow::Result;

use crate::{process::become_program, programs::Programs, setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to the fuzzer: see `cargo xtask fuzz -- --help`
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn fuzz(args: &Args) -> Result<()> {
    setup::all()?;
    let mut fuzzer = std::process::Command::new(Programs::build()?.get("fuzz")?);
    become_program(fuzzer.args(&args.args))
}
