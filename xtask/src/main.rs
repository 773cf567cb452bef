//! `cargo xtask`: what cargo alone cannot say.
//!
//! In goes a command line; out come installed tools, built programs and their output. Every command that builds installs
//! what is missing first, so each works on a fresh clone. Our own words go to stderr: stdout belongs to the program that a
//! command runs. Nothing here decides what Portcullis does with a packet.

mod apt;
mod bench;
mod ci;
mod crs;
mod demo;
mod fuzz;
mod process;
mod programs;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Tasks of this repository, each ready to run on a fresh clone
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
enum Task {
    /// Install what the eBPF build, the tests and the demo need
    ///
    /// As root on Debian by its packages, otherwise by rustup and cargo. Where neither is possible, the commands to type are
    /// printed and the exit status is not zero. Does nothing, quickly, when nothing is missing.
    Setup,
    /// Show the firewall at work in network namespaces of its own
    Demo(demo::Args),
    /// Run every test, those that need root and network namespaces included
    Test(test::Args),
    /// Build the agent and start `portcullis run` as root
    #[command(override_usage = "cargo xtask run -- --interface <IF> [ARGS]...")]
    Run(run::Args),
    /// Measure, beside the tools that one would use instead
    Bench(bench::Args),
    /// Feed hostile input to all that reads any, a minute each, or as long as one likes
    Fuzz(fuzz::Args),
    /// The OWASP Core Rule Set's regression suite, through the gateway
    Crs(crs::Args),
    /// The tests that need a kernel, on other kernels, in emulation: takes half an hour
    Vm(vm::Args),
    /// All that has to pass before a merge: format, lints, documentation, tests
    Ci,
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Setup => setup::all(),
        Task::Demo(args) => demo::demo(&args),
        Task::Test(args) => test::test(&args),
        Task::Run(args) => run::run(&args),
        Task::Bench(args) => bench::bench(&args),
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Crs(args) => crs::crs(&args),
        Task::Vm(args) => vm::vm(&args),
        Task::Ci => ci::ci(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
