//! Benchmarks, as `cargo xtask bench` runs them. Each asserts its verdicts before it measures anything, and measures its
//! peer, or a floor, in the same run. Numbers depend on the machine: compare the ratios.

mod dmz;
mod gateway;
mod inspect;
mod peer;
mod reload;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// As in the agent, whose engine is measured here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Nanoseconds that the program of the DMZ layer takes for a packet
    Dmz {
        /// Print JSON to standard output, and nothing else there
        #[arg(long)]
        json: bool,
    },
    /// Requests a second through the LAN layer's gateway, beside nginx
    Gateway {
        /// Print JSON to standard output, and nothing else there
        #[arg(long)]
        json: bool,
        /// These cases alone
        cases: Vec<String>,
    },
    /// Microseconds that content rules take for a request, beside nginx with ModSecurity
    Inspect {
        /// Print JSON to standard output, and nothing else there
        #[arg(long)]
        json: bool,
        /// The folder of CRS 4, with its set-up example and `rules` in it
        #[arg(long, value_name = "DIRECTORY")]
        crs: Option<PathBuf>,
        /// These cases alone
        cases: Vec<String>,
    },
    /// Memory of the agent, over 500 reloads of content rules under load
    Reload {
        /// Print JSON to standard output, and nothing else there
        #[arg(long)]
        json: bool,
        /// The folder of CRS 4, with its set-up example and `rules` in it
        #[arg(long, value_name = "DIRECTORY")]
        crs: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Dmz { json } => dmz::run(json),
        Bench::Gateway { json, cases } => gateway::run(json, &cases),
        Bench::Inspect { json, crs, cases } => inspect::run(json, &folder(crs)?, &cases),
        Bench::Reload { json, crs } => reload::run(json, &folder(crs)?),
    }
}

/// Where the Core Rule Set 4 is: beside the repository, if nobody says where.
fn folder(crs: Option<PathBuf>) -> Result<PathBuf> {
    let crs = crs.unwrap_or_else(|| "../shared/crs-4.28".into());
    crs.canonicalize()
        .with_context(|| format!("{}: CRS 4 is not there; say where with `-- --crs DIRECTORY`", crs.display()))
}
