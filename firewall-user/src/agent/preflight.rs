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
    if let Ok(version) = KernelVersion::current()
        && version < KernelVersion::new(OLDEST.0, OLDEST.1, 0)
    {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        return Err(PreflightError::Kernel { found: format!("Linux {}", release.trim()) });
    }
    let root = bpffs.parent().unwrap_or(bpffs);
    match nix::sys::statfs::statfs(root) {
        Ok(found) if found.filesystem_type() == BPFFS => Ok(()),
        _ => Err(PreflightError::NoBpffs { path: root.to_owned() }),
    }
}

pub(super) fn root() -> Result<(), PreflightError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(PreflightError::NotRoot) }
}
