//! What stands in bpffs for our links, so that they outlive the agent: one entry of each kind for an interface, named
//! `KIND-INDEX` after the interface's number.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    TcAttachType,
    tc::{SchedClassifierLink, TcHandle},
};

use super::syscall::detach_pinned;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The link of XDP.
    Xdp,
    /// The same link once more, where it is native: the kernel does not tell.
    Native,
    /// The same link once more, where it is generic.
    Generic,
    /// The link of tc for what leaves.
    Egress,
    /// An empty directory, for a filter of tc in the place of that link: kernels before 6.6 keep it whatever happens to us.
    Filter,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Xdp, Self::Native, Self::Generic, Self::Egress, Self::Filter];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Native => "mode-native",
            Self::Generic => "mode-generic",
            Self::Egress => "egress",
            Self::Filter => "filter",
        }
    }
}

/// An entry that is there, or might be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub kind: Kind,
    /// Of the interface.
    pub index: u32,
    pub path: PathBuf,
}

impl Pin {
    pub fn new(directory: &Path, kind: Kind, index: u32) -> Self {
        Self { kind, index, path: directory.join(format!("{}-{index}", kind.name())) }
    }

    /// Those that are in `directory`.
    pub fn all(directory: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let pin = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            Kind::ALL.into_iter().find_map(|kind| {
                let index = name.strip_prefix(kind.name())?.strip_prefix('-')?.parse().ok()?;
                Some(Self { kind, index, path: path.clone() })
            })
        };
        entries.filter_map(Result::ok).filter_map(|entry| pin(entry.path())).collect()
    }

    /// Name of the interface, if it is still there.
    pub fn interface(&self) -> Option<String> {
        nix::net::if_::if_indextoname(self.index).ok()?.into_string().ok()
    }

    /// Removes it for good; one that is not there is no error. A link of XDP, and a filter, are off the interface when this
    /// returns: without its last pin alone, a link would go some moments later, and be in the way of the next until then. A
    /// link of tc may be held by others.
    pub fn remove(&self) -> io::Result<()> {
        let removed = match self.kind {
            Kind::Xdp | Kind::Native | Kind::Generic => {
                // One whose interface is gone is off it already.
                let _gone = detach_pinned(&self.path);
                fs::remove_file(&self.path)
            }
            Kind::Egress => fs::remove_file(&self.path),
            Kind::Filter => {
                if self.path.exists()
                    && let Some(interface) = self.interface()
                {
                    detach_filter(&interface);
                }
                fs::remove_dir(&self.path)
            }
        };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }
}

/// tc filters are told apart by priority and handle; these are ours.
pub(super) const FILTER_PRIORITY: u16 = 0x9c15;
pub(super) const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Our filter on the interface, if it is there.
pub(super) fn filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Egress, FILTER_PRIORITY, FILTER_HANDLE, None)
}

fn detach_filter(interface: &str) {
    // Dropped, it is detached.
    drop(filter(interface));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_told_from_what_else_is_there() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["xdp-7", "mode-generic-7", "BANS", "xdp-", "xdp-x", "xdp7", "mode-other-7"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join("filter-9")).unwrap();
        let pin = |kind, index| Pin::new(directory.path(), kind, index);
        let mut found = Pin::all(directory.path());
        found.sort_by_key(|pin| pin.path.clone());
        assert_eq!(found, [pin(Kind::Filter, 9), pin(Kind::Generic, 7), pin(Kind::Xdp, 7)]);
        for pin in &found {
            pin.remove().unwrap();
            pin.remove().unwrap();
        }
        assert_eq!(Pin::all(directory.path()), []);
        assert!(directory.path().join("BANS").exists());
    }
}
