//! `cargo xtask setup`: finds what is missing for the eBPF build, the tests and the demo, and installs it.
//!
//! Looks at the machine, not at a record of earlier runs. What it cannot install it names at the end, with the commands to
//! type, and fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    process::{cargo, find, is_root, run_quietly, say},
    toolchain::{Linker, Toolchain},
};

/// A command that the tests, the demo or the bench call.
pub(crate) struct Tool {
    /// Or the path of a file.
    command: &'static str,
    /// Debian's name of the package.
    package: &'static str,
    used_for: &'static str,
}

const fn tool(command: &'static str, package: &'static str, used_for: &'static str) -> Tool {
    Tool { command, package, used_for }
}

/// What the tests and the demo cannot do without.
const TOOLS: [Tool; 7] = [
    tool("ip", "iproute2", "network namespaces and links"),
    tool("tc", "iproute2", "losses and delays on a link"),
    tool("ping", "iputils-ping", "ICMP clients"),
    tool("curl", "curl", "HTTP clients"),
    tool("python3", "python3", "servers behind the firewall"),
    tool("nft", "nftables", "a router with masquerade"),
    tool("ethtool", "ethtool", "links without offloads"),
];

/// Peers to measure against. The bench leaves out those that are missing.
const PEERS: [Tool; 1] = [tool("xdp-filter", "xdp-tools", "the XDP filter to compare with")];

/// The gateway's peer and the clients for both, without which nothing can be measured.
const GATEWAY_PEERS: [Tool; 4] = [
    tool("nginx", "nginx", "the reverse proxy to compare with, and the upstream of both"),
    tool("wrk", "wrk", "clients of HTTP/1.1"),
    tool("h2load", "nghttp2-client", "clients of HTTP/2"),
    tool("taskset", "util-linux", "a CPU for each gateway"),
];

/// The peer of content rules, and the rules for both.
const INSPECT_PEERS: [Tool; 4] = [
    tool("nginx", "nginx", "the server that has ModSecurity, and the upstream of both"),
    tool(
        "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so",
        "libnginx-mod-http-modsecurity",
        "the engine to compare with",
    ),
    tool("/usr/share/modsecurity-crs/owasp-crs.load", "modsecurity-crs", "the rules of both"),
    tool("taskset", "util-linux", "a CPU for each"),
];

/// What other kernels are booted with.
const EMULATION: [Tool; 3] = [
    tool("qemu-system-x86_64", "qemu-system-x86", "a machine for another kernel"),
    tool("cpio", "cpio", "its initramfs"),
    tool("modprobe", "kmod", "its modules"),
];

/// Debian's compiler with `core` for BPF.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-llvm"];

const NIGHTLY: [&str; 6] =
    ["toolchain", "install", "nightly", "--profile=minimal", "--component=rust-src", "--no-self-update"];

/// The release of bpf-linker, and the versions of LLVM that it can be built on.
const LINKER_VERSION: &str = "^0.13";
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The newest cargo-binstall that Rust 1.95 compiles.
const BINSTALL: [&str; 5] = ["install", "cargo-binstall", "--version", "1.21.1", "--locked"];

/// Everything that building, testing and the demo need.
pub(crate) fn all() -> Result<()> {
    let mut advice = Advice::default();
    ebpf(&mut advice)?;
    tools(&TOOLS, &mut advice);
    bpf_filesystem(&mut advice);
    advice.finish()
}

/// All that, and what other kernels are booted with.
pub(crate) fn vm() -> Result<()> {
    all()?;
    let mut advice = Advice::default();
    tools(&EMULATION, &mut advice);
    advice.finish()
}

/// What the build alone needs.
pub(crate) fn build() -> Result<()> {
    let mut advice = Advice::default();
    ebpf(&mut advice)?;
    advice.finish()
}

/// The bench's peers, where they can be had without asking anyone.
pub(crate) fn peers() {
    if apt::usable() {
        let mut advice = Advice::default();
        tools(&PEERS, &mut advice);
    }
}

/// What the bench of the gateway needs.
pub(crate) fn gateway_peers() -> Result<()> {
    let mut advice = Advice::default();
    tools(&GATEWAY_PEERS, &mut advice);
    advice.finish()
}

/// What the bench of content rules needs.
pub(crate) fn inspect_peers() -> Result<()> {
    let mut advice = Advice::default();
    tools(&INSPECT_PEERS, &mut advice);
    advice.finish()
}

/// What is left for a person to do.
#[derive(Default)]
struct Advice(Vec<String>);

impl Advice {
    fn add(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    fn finish(self) -> Result<()> {
        if !self.0.is_empty() {
            bail!("something is still missing that setup cannot install here. Type:\n    {}", self.0.join("\n    "));
        }
        Ok(())
    }
}

/// A compiler for the BPF target and the linker for it.
fn ebpf(advice: &mut Advice) -> Result<()> {
    let toolchain = match Toolchain::find() {
        Some(toolchain) => toolchain,
        None => {
            install_compiler(advice);
            match Toolchain::find() {
                Some(toolchain) => toolchain,
                None if advice.0.is_empty() => bail!("the eBPF compiler was installed, but is not complete"),
                None => return Ok(()),
            }
        }
    };
    match toolchain.linker() {
        Linker::Fits => Ok(()),
        Linker::Unknown => bail!("{}", Linker::Unknown),
        state @ Linker::Wanted { needed, .. } => {
            say(state);
            install_linker(needed, advice)?;
            match toolchain.linker() {
                Linker::Wanted { .. } if !advice.0.is_empty() => Ok(()),
                Linker::Fits => Ok(()),
                state => bail!("bpf-linker was installed, but {state}"),
            }
        }
    }
}

fn install_compiler(advice: &mut Advice) {
    if apt::offers(&DEBIAN_RUST) {
        match apt::install(&DEBIAN_RUST) {
            Ok(()) => return,
            Err(error) => say(format_args!("{error:#}")),
        }
    }
    let by_hand = format!("rustup {}", NIGHTLY.join(" "));
    if find("rustup").is_some() {
        say("installing the nightly toolchain with rust-src by rustup");
        match run_quietly(Command::new("rustup").args(NIGHTLY)) {
            Ok(()) => return,
            Err(error) => say(format_args!("{error:#}")),
        }
        advice.add(by_hand);
    } else {
        advice.add(format!("{by_hand}    # with rustup installed"));
    }
    if apt::knows(&DEBIAN_RUST) {
        advice.add(format!("{}    # instead of rustup", apt::advice(&DEBIAN_RUST)));
    }
    advice.add("cargo xtask setup    # again");
}

/// Builds bpf-linker on the distribution's LLVM, or fetches one that was built on its own.
fn install_linker(llvm: u32, advice: &mut Advice) -> Result<()> {
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "the eBPF compiler emits bitcode of LLVM {llvm}, but bpf-linker {LINKER_VERSION} knows LLVM {} to {}",
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    let packages = [format!("llvm-{llvm}-dev"), format!("llvm-{llvm}"), format!("libpolly-{llvm}-dev")];
    let packages = packages.each_ref().map(String::as_str);
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let has_llvm = || prefix.join("lib/libLLVM.so").exists() && prefix.join("bin/llvm-config").exists();

    if !has_llvm() && apt::offers(&packages) {
        apt::install(&packages)?;
    }
    if has_llvm() {
        say(format_args!("building bpf-linker on LLVM {llvm} with cargo, which takes a minute or two"));
        let feature = format!("llvm-{llvm}");
        return run_quietly(
            cargo_outside()
                .env("LLVM_PREFIX", prefix)
                .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
                .args(["--no-default-features", "--features", &feature]),
        )
        .context("bpf-linker could not be built");
    }

    say("fetching bpf-linker with cargo-binstall");
    if let Err(error) = binstall_linker() {
        say(format_args!("{error:#}"));
        if apt::knows(&packages) {
            advice.add(format!("{}    # for bpf-linker", apt::advice(&packages)));
        } else {
            advice.add(format!("cargo {}", BINSTALL.join(" ")));
            advice.add(format!("cargo binstall bpf-linker --version '{LINKER_VERSION}'"));
        }
        advice.add("cargo xtask setup    # again");
    }
    Ok(())
}

/// A linker with LLVM inside, for machines whose distribution has no LLVM as new as the compiler's.
fn binstall_linker() -> Result<()> {
    let binstall = || {
        let mut command = cargo_outside();
        command.arg("binstall");
        command
    };
    if run_quietly(binstall().arg("-V")).is_err() {
        say("building cargo-binstall with cargo, which takes some minutes");
        run_quietly(cargo_outside().args(BINSTALL))?;
    }
    run_quietly(binstall().args([
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--force",
        "--no-confirm",
        "--disable-strategies=compile",
    ]))
}

/// cargo for programs of others: this workspace's settings and target directory are not for them.
fn cargo_outside() -> Command {
    let mut command = cargo();
    command.current_dir("/");
    for variable in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

fn tools(tools: &[Tool], advice: &mut Advice) {
    // A path is a file that a package brings, and no command.
    let there = |tool: &Tool| match tool.command.starts_with('/') {
        true => Path::new(tool.command).is_file(),
        false => find(tool.command).is_some(),
    };
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !there(tool)).collect();
    if missing.is_empty() {
        return;
    }
    for tool in &missing {
        say(format_args!("{} is missing: {}", tool.command, tool.used_for));
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if apt::usable() {
        match apt::install(&packages) {
            Ok(()) => return,
            Err(error) => say(format_args!("{error:#}")),
        }
    }
    if find("apt-get").is_some() {
        advice.add(apt::advice(&packages));
    } else {
        advice.add(format!("# the package manager of this machine, to install {}", packages.join(" ")));
    }
}

/// The file system that keeps programs and maps beyond their process.
fn bpf_filesystem(advice: &mut Advice) {
    const MOUNT: [&str; 4] = ["-t", "bpf", "bpf", "/sys/fs/bpf"];
    let mounted = fs::read_to_string("/proc/mounts")
        .is_ok_and(|mounts| mounts.lines().any(|mount| mount.split(' ').nth(1) == Some("/sys/fs/bpf")));
    // Where we are not root, the agent mounts it when it starts.
    if mounted || !is_root() {
        return;
    }
    say("mounting the BPF file system on /sys/fs/bpf");
    if let Err(error) = run_quietly(Command::new("mount").args(MOUNT)) {
        say(format_args!("{error:#}"));
        advice.add(format!("mount {}    # on a kernel with BPF", MOUNT.join(" ")));
    }
}
