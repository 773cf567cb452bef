//! Running other programs: as they are, without their noise, or as root.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Says in a line what is about to happen. On stderr: stdout belongs to the program that a command runs.
pub(crate) fn say(line: impl std::fmt::Display) {
    eprintln!("xtask: {line}");
}

/// The cargo that runs us. What it calls (rustc, rustdoc, clippy-driver) comes from beside it, whatever PATH holds: two
/// toolchains must not mix, and `setup` may have put a second one into /usr/bin.
pub(crate) fn cargo() -> Command {
    beside_cargo(cargo_path())
}

/// `cargo clippy` of the same toolchain, for cargo might find another one's.
pub(crate) fn clippy() -> Command {
    let program = cargo_path().with_file_name("cargo-clippy");
    let mut command = beside_cargo(if program.exists() { program } else { cargo_path() });
    command.arg("clippy");
    command
}

fn cargo_path() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The program, in the repository, with its own directory first in PATH.
fn beside_cargo(program: PathBuf) -> Command {
    let mut command = Command::new(&program);
    command.current_dir(workspace());
    if let Some(directory) = program.parent().filter(|directory| directory.is_absolute()) {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = [directory.to_owned()].into_iter().chain(env::split_paths(&inherited));
        if let Ok(path) = env::join_paths(path) {
            command.env("PATH", path);
        }
    }
    command
}

/// The root of the repository.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Runs a program to its end. What it prints is shown, all of it on stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{} could not be started", name(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", spelled(command));
    }
    Ok(())
}

/// Runs a program to its end without input. What it prints is part of the error, or lost.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{} could not be started", name(command)))?;
    if !output.status.success() {
        let printed = [output.stdout, output.stderr].concat();
        bail!("{} failed: {}\n{}", spelled(command), output.status, String::from_utf8_lossy(&printed).trim_end());
    }
    Ok(())
}

/// Becomes the program: its output, signals and exit status are ours. Returns only if it cannot be started.
pub(crate) fn become_program(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("{} could not be started", name(command)))
}

/// The program, run as root: by sudo, which keeps the environment, where we are not root.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut words = root_prefix()?.into_iter().chain([program.as_ref()]);
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words);
    Ok(command)
}

/// What to put in front of a command so that root runs it.
pub(crate) fn root_prefix() -> Result<Vec<&'static OsStr>> {
    if is_root() {
        return Ok(Vec::new());
    }
    if find("sudo").is_none() {
        bail!("network namespaces and BPF need root, and there is no sudo: run this as root");
    }
    say("network namespaces and BPF need root: sudo may ask for your password");
    Ok(vec![OsStr::new("sudo"), OsStr::new("--preserve-env")])
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Where a command is, the directories of root's commands included.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(command))
        .find(|path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0))
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or(command.get_program()).display().to_string()
}

/// The command as one would type it.
fn spelled(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.display().to_string());
    [name(command)].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}
