//! Benchmarks, as `cargo xtask bench` runs them. Each asserts its verdicts before it measures anything, and measures its
//! peer, or a floor, in the same run. Numbers depend on the machine: compare the ratios.

mod dmz;
mod gateway;
mod peer;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Dmz { json } => dmz::run(json),
        Bench::Gateway { json, cases } => gateway::run(json, &cases),
    }
}
