//! The programs of this workspace that other commands run.
//!
//! All of them are built at once, with the profile and the features that `test` uses too: whichever command comes first
//! pays for the build, and the others start at once.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, run};

/// What tells the programs of `tests` where the agent is.
pub(crate) const AGENT_VARIABLE: &str = "PORTCULLIS_BIN";

/// The release builds.
pub(crate) struct Programs(PathBuf);

impl Programs {
    pub(crate) fn build() -> Result<Self> {
        run(cargo().args(["build", "--release", "--package=firewall-user", "--package=tests", "--bins"]))?;
        Ok(Self(Self::target()?.join("release")))
    }

    /// cargo's target directory.
    pub(crate) fn target() -> Result<PathBuf> {
        // xtask is at <target>/debug/xtask, wherever the settings put <target>.
        let xtask = env::current_exe().context("the path of xtask is unknown")?;
        Ok(xtask.ancestors().nth(2).context("xtask is not in cargo's target directory")?.to_owned())
    }

    /// The agent, `portcullis`.
    pub(crate) fn agent(&self) -> Result<PathBuf> {
        self.get("portcullis")
    }

    pub(crate) fn get(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if !path.exists() {
            bail!("there is no program {name} in this workspace");
        }
        Ok(path)
    }
}
