//! Builds the eBPF crate and leaves its objects, which the agent includes, at `$OUT_DIR/portcullis-ebpf` (the DMZ layer)
//! and `$OUT_DIR/portcullis-steer`.
//!
//! Installs nothing: where the compiler or the linker is missing, the build fails in one line that names the command.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;

use anyhow::{Context, Result, anyhow};
use toolchain::{Linker, Toolchain};

fn main() {
    // aya-build names the eBPF crate itself.
    for path in ["build.rs", "../xtask/src/toolchain.rs", "../firewall-common", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(error) = build() {
        // One line: cargo takes what follows a line break for something else.
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn build() -> Result<()> {
    let toolchain = Toolchain::find()
        .ok_or_else(|| anyhow!("there is no complete Rust toolchain for eBPF: run `cargo xtask setup`"))?;
    match toolchain.linker() {
        Linker::Fits => {}
        state => return Err(anyhow!("{state}: run `cargo xtask setup`")),
    }

    // SAFETY: changing the environment is unsound while another thread reads it; this program has no other thread yet.
    unsafe {
        env::set_var("PATH", toolchain.search_path());
        // What the inner cargo says of its progress would come out as warnings, on every later build again.
        env::set_var("CARGO_TERM_QUIET", "true");
        if toolchain == Toolchain::Debian {
            // A stable compiler: unstable features are for these crates only, and `core` comes precompiled.
            env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,portcullis_ebpf");
        }
    }
    let package =
        aya_build::Package { name: "firewall-ebpf", root_dir: "../firewall-ebpf", ..aya_build::Package::default() };
    let toolchain = match toolchain {
        Toolchain::Debian => aya_build::Toolchain::Custom("/usr"),
        Toolchain::Nightly => aya_build::Toolchain::Nightly,
    };
    aya_build::build_ebpf([package], toolchain).context("the eBPF crate could not be built")
}
