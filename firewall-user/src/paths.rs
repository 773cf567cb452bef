//! Where an instance of Portcullis keeps its things.

use std::path::{Path, PathBuf};

/// Paths of one instance. Instances of different names do not see each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub instance: String,
    /// Pinned links and maps.
    pub bpffs: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// What survives a reboot.
    pub state: PathBuf,
}

impl Paths {
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            bpffs: Path::new("/sys/fs/bpf").join(instance),
            socket: Path::new("/run").join(instance).join("control.sock"),
            state: Path::new("/var/lib").join(instance),
        }
    }

    pub fn bans(&self) -> PathBuf {
        self.state.join("bans.json")
    }

    pub fn offloads(&self) -> PathBuf {
        self.state.join("offloads.json")
    }
}
