//! `cargo xtask bench`: builds the agent and the bench, and becomes the latter. Its stdout is the bench's alone.

use anyhow::Result;

use crate::{
    process::{as_root, become_program},
    programs::{AGENT_VARIABLE, Programs},
    setup,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    what: What,
    /// Print the results as JSON, and nothing else, on stdout
    #[arg(long)]
    json: bool,
    /// Passed on to the bench
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// The XDP program, beside xdp-filter
    Dmz,
    /// The gateway as a reverse proxy, beside nginx
    Gateway,
    /// Content rules, beside nginx with ModSecurity
    Inspect,
    /// Memory, over reloads of content rules under load
    Reload,
}

pub(crate) fn bench(args: &Args) -> Result<()> {
    setup::all()?;
    match args.what {
        What::Dmz => setup::peers(),
        What::Gateway => setup::gateway_peers()?,
        What::Inspect => setup::inspect_peers()?,
        What::Reload => {}
    }
    let programs = Programs::build()?;
    let mut bench = as_root(programs.get("bench")?)?;
    bench.arg(match args.what {
        What::Dmz => "dmz",
        What::Gateway => "gateway",
        What::Inspect => "inspect",
        What::Reload => "reload",
    });
    bench.args(args.json.then_some("--json")).args(&args.args);
    become_program(bench.env(AGENT_VARIABLE, programs.agent()?))
}
