//! What must hold before anything is touched: privileges, kernel, bpffs.

use std::path::{Path, PathBuf};

use aya::util::KernelVersion;
use nix::sys::statfs::FsType;

/// The oldest kernel that has all we use.
const OLDEST: (u8, u8) = (6, 1);
/// Magic number of bpffs (`linux/magic.h`).
const BPFFS: FsType = FsType(0xcafe_4a11);

#[derive(Debug)]
pub(super) enum PreflightError {
    NotRoot,
    Kernel { found: String },
    NoBpffs { path: PathBuf },
}

impl std::fmt::Display for PreflightError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRoot => f.write_str("only root may load programs into the kernel: run this with sudo"),
            Self::Kernel { found } => {
                write!(f, "this kernel is {found}; Portcullis needs {}.{} or later", OLDEST.0, OLDEST.1)
            }
            Self::NoBpffs { path } => write!(
                f,
                "there is no bpf file system at {}: `mount -t bpf bpf {}` makes one",
                path.display(),
                path.display()
            ),
        }
    }
}

impl std::error::Error for PreflightError {}

/// Checks all of it. `bpffs` is our directory in it.
pub(super) fn check(bpffs: &Path) -> Result<(), PreflightError> {
    root()?;
    if let (Ok(version), Ok(names)) = (KernelVersion::current(), nix::sys::utsname::uname()) {
        kernel(version, &names.release().to_string_lossy())?;
    }
    let root = bpffs.parent().unwrap_or(bpffs);
    match nix::sys::statfs::statfs(root) {
        Ok(found) if found.filesystem_type() == BPFFS => Ok(()),
        _ => Err(PreflightError::NoBpffs { path: root.to_owned() }),
    }
}

/// `release` is the version as uname(1) tells it.
fn kernel(version: KernelVersion, release: &str) -> Result<(), PreflightError> {
    if version < KernelVersion::new(OLDEST.0, OLDEST.1, 0) {
        return Err(PreflightError::Kernel { found: release.to_owned() });
    }
    Ok(())
}

pub(super) fn root() -> Result<(), PreflightError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(PreflightError::NotRoot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named() {
        let error = kernel(KernelVersion::new(5, 10, 251), "5.10.0-40-amd64").unwrap_err().to_string();
        assert_eq!(error, "this kernel is 5.10.0-40-amd64; Portcullis needs 6.1 or later");
        assert!(kernel(KernelVersion::new(6, 0, 19), "6.0.19").is_err());
        assert!(kernel(KernelVersion::new(6, 1, 0), "6.1.0-56-cloud-amd64").is_ok());
    }
}
