//! Debian's package manager, for root on a machine that has it.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, process::Command};

use anyhow::{Context, Result};

use crate::process::{find, is_root, run_quietly, say};

/// Whether packages can be installed at all.
pub(crate) fn usable() -> bool {
    is_root() && find("apt-get").is_some()
}

/// Whether the distribution has all of these, as far as the package lists on this machine say.
pub(crate) fn knows(packages: &[&str]) -> bool {
    // `show` succeeds for a purely virtual package as well; none of ours is one.
    find("apt-cache").is_some()
        && run_quietly(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages)).is_ok()
}

/// Whether they can be installed: fetches the package lists where those on this machine do not have them.
pub(crate) fn offers(packages: &[&str]) -> bool {
    usable() && (knows(packages) || (update().is_ok() && knows(packages)))
}

/// Installs the packages, and nothing that would remove another one.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    say(format_args!("installing {} with apt-get", packages.join(" ")));
    let _quiet = NoServices::new();
    // Old lists name versions that the mirror no longer has: fetch new ones, and try again.
    if !knows(packages) || apt_get(&["install", "--no-install-recommends", "--no-remove"], packages).is_err() {
        update()?;
        apt_get(&["install", "--no-install-recommends", "--no-remove"], packages)?;
    }
    Ok(())
}

/// While this lives, packages start no services (policy-rc.d of Debian): a web server that we need now and then is nobody's
/// to find on port 80 afterwards.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Self {
        let policy = fs::File::options().write(true).create_new(true).mode(0o755).open(Self::PATH);
        // Where there is a policy already, or no Debian, it is not ours to change.
        let ours = policy.is_ok_and(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n").is_ok());
        Self { ours }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(Self::PATH)
        {
            say(format_args!("{} stays behind: {error}", Self::PATH));
        }
    }
}

/// The command to type for the same.
pub(crate) fn advice(packages: &[&str]) -> String {
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    match (is_root(), find("sudo")) {
        (true, _) => command,
        (false, Some(_)) => format!("sudo {command}"),
        (false, None) => format!("su -c '{command}'"),
    }
}

fn update() -> Result<()> {
    say("fetching the package lists with apt-get update");
    apt_get(&["update"], &[]).or_else(|_| apt_get(&["update"], &[])).context("the package lists could not be fetched")
}

fn apt_get(action: &[&str], packages: &[&str]) -> Result<()> {
    run_quietly(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["--yes", "-o", "DPkg::Lock::Timeout=60", "-o", "Acquire::Retries=2", "-o", "Dpkg::Use-Pty=0"])
            .args(action)
            .args(packages),
    )
}
