//! `cargo xtask ci`: format, lints, documentation, tests, in the order of what fails soonest.
//!
//! Every step uses the release profile, so that build scripts and macros are compiled once.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    process::{cargo, clippy, find, run, run_quietly, say},
    setup, test,
    toolchain::Toolchain,
};

type Step = fn() -> Result<()>;

pub(crate) fn ci() -> Result<()> {
    let steps: [(&str, Step); 6] = [
        ("format", || run(cargo().args(["fmt", "--all", "--check"]))),
        ("setup", setup::all),
        ("lints of the eBPF crate", ebpf_lints),
        ("lints", lints),
        ("documentation", documentation),
        ("tests", || test::test(&test::Args::default())),
    ];
    let start = Instant::now();
    for (name, step) in steps {
        say(format_args!("ci: {name}"));
        let step_start = Instant::now();
        step().with_context(|| format!("ci: {name} did not pass"))?;
        say(format_args!("ci: {name} passed in {} s", step_start.elapsed().as_secs()));
    }
    say(format_args!("ci: all passed in {} s", start.elapsed().as_secs()));
    Ok(())
}

fn lints() -> Result<()> {
    run(clippy().args(["--release", "--locked", "--all-targets", "--", "--deny=warnings"]))
}

/// The eBPF crate has a panic handler of its own and only means something for its target, so it is linted there, by the
/// clippy that belongs to the compiler that builds it.
fn ebpf_lints() -> Result<()> {
    let toolchain = Toolchain::find().context("there is no eBPF compiler: run `cargo xtask setup`")?;
    let mut command = match toolchain {
        Toolchain::Debian => {
            if find("/usr/bin/cargo-clippy").is_none() {
                if !apt::usable() {
                    bail!("Debian's clippy is missing: {}", apt::advice(&["rust-web-clippy"]));
                }
                apt::install(&["rust-web-clippy"])?;
            }
            let mut command = Command::new("/usr/bin/cargo-clippy");
            command.arg("clippy").env("CARGO", "/usr/bin/cargo").env("RUSTC", "/usr/bin/rustc");
            // The stable compiler takes unstable features from these crates only.
            command.env("RUSTC_BOOTSTRAP", "aya_ebpf,portcullis_ebpf");
            command
        }
        Toolchain::Nightly => {
            run_quietly(Command::new("rustup").args(["component", "add", "clippy", "--toolchain=nightly"]))?;
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo", "clippy", "-Zbuild-std=core"]);
            command
        }
    };
    let endian = if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" };
    command
        .args(["--release", "--locked", "--package=firewall-ebpf", "--bins"])
        .arg(format!("--target={endian}-unknown-none"))
        .args(["--", "--deny=warnings"])
        .env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH))
        .env("PATH", toolchain.search_path());
    run(&mut command)
}

fn documentation() -> Result<()> {
    run(cargo().args(["doc", "--release", "--locked", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
}
