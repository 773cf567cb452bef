//! Which compiler builds the eBPF crate, and whether its linker fits.
//!
//! Two crates compile this file: `xtask setup` installs what it finds missing, and `firewall-user/build.rs` builds with what
//! it finds. So it uses the standard library alone, looks but changes nothing, and holds only what both need.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A complete Rust compiler for the BPF target, `core` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's own, in /usr, with a precompiled `core`.
    Debian,
    /// rustup's nightly with `rust-src`, from which cargo builds `core`.
    Nightly,
}

impl Toolchain {
    /// The first complete one.
    pub(crate) fn find() -> Option<Self> {
        [Self::Debian, Self::Nightly].into_iter().find(|toolchain| toolchain.is_complete())
    }

    fn is_complete(self) -> bool {
        match self {
            Self::Debian => {
                let target = if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" };
                ["bin/rustc", "bin/cargo", &format!("lib/rustlib/{target}-unknown-none/lib")]
                    .iter()
                    .all(|path| Path::new("/usr").join(path).exists())
            }
            Self::Nightly => output(self.rustc().args(["--print", "sysroot"]))
                .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()),
        }
    }

    fn rustc(self) -> Command {
        match self {
            Self::Debian => Command::new("/usr/bin/rustc"),
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]).env("PATH", self.search_path());
                command
            }
        }
    }

    /// Whether `bpf-linker` can read what the compiler emits: LLVM reads bitcode of its own version and of older ones.
    pub(crate) fn linker(self) -> Linker {
        let version = output(self.rustc().arg("-vV"));
        let Some(needed) = version.as_deref().and_then(|text| major_version(text, "LLVM version: ")) else {
            return Linker::Unknown;
        };
        // The linker has no option for this, but it hands options to LLVM, which answers and exits before it reads a file.
        let mut linker = Command::new("bpf-linker");
        linker.args(["--llvm-args=--version", "--output=/dev/null", "/dev/null"]).env("PATH", self.search_path());
        match output(&mut linker).and_then(|text| major_version(&text, "LLVM version ")) {
            Some(found) if found >= needed => Linker::Fits,
            found => Linker::Wanted { needed, found },
        }
    }

    /// `PATH` for a build with this toolchain: cargo's own directory, where `cargo install` puts the linker, comes first
    /// even where the user's `PATH` lacks it.
    pub(crate) fn search_path(self) -> OsString {
        let mut path: Vec<PathBuf> = cargo_bin().into_iter().collect();
        if self == Self::Debian {
            path.push("/usr/bin".into());
        }
        if let Some(inherited) = env::var_os("PATH") {
            path.extend(env::split_paths(&inherited));
        }
        // Only a directory with a colon in its name cannot be joined: such a PATH is of no use anyway.
        env::join_paths(path).unwrap_or_default()
    }
}

/// What is known of `bpf-linker`. Versions are LLVM's major ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    Fits,
    /// Missing (`found` is none), broken (none as well) or older than the compiler.
    Wanted {
        needed: u32,
        found: Option<u32>,
    },
    /// The compiler does not tell its version of LLVM.
    Unknown,
}

impl std::fmt::Display for Linker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fits => f.write_str("bpf-linker fits the eBPF compiler"),
            Self::Wanted { needed, found: None } => write!(f, "no working bpf-linker for LLVM {needed} was found"),
            Self::Wanted { needed, found: Some(found) } => {
                write!(f, "bpf-linker is built on LLVM {found}, but the eBPF compiler needs LLVM {needed}")
            }
            Self::Unknown => f.write_str("the eBPF compiler does not tell its version of LLVM"),
        }
    }
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Option<PathBuf> {
    let root = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    root("CARGO_INSTALL_ROOT")
        .or_else(|| root("CARGO_HOME"))
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .map(|root| root.join("bin"))
}

/// What the command says on stdout; none where it cannot be run or fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// The number that follows `label`: 22 for `LLVM version: 22.1.8`.
fn major_version(text: &str, label: &str) -> Option<u32> {
    let (_, version) = text.split_once(label)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
