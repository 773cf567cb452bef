//! Where an instance of the agent keeps its things. Several instances on one host share nothing.

use std::{path::PathBuf, str::FromStr};

/// Name of an instance: 1 to 32 of `a-z`, `0-9` and `-`, so it is safe as part of any path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

impl FromStr for InstanceName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=32).contains(&name.len()) && name.bytes().all(valid) {
            Ok(Self(name.to_owned()))
        } else {
            Err("a name has 1 to 32 characters of a-z, 0-9 and -")
        }
    }
}

impl std::fmt::Display for InstanceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The paths of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    instance: InstanceName,
}

impl Paths {
    pub fn new(instance: InstanceName) -> Self {
        Self { instance }
    }

    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// Directory of pinned maps and links, on a BPF file system.
    pub fn pins(&self) -> PathBuf {
        format!("/sys/fs/bpf/{}", self.instance).into()
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        format!("/run/{}/control.sock", self.instance).into()
    }

    /// Where an agent hands over to the next one.
    pub fn handover(&self) -> PathBuf {
        format!("/run/{}/handover.sock", self.instance).into()
    }

    /// Directory of what outlives a restart of the host.
    pub fn state(&self) -> PathBuf {
        format!("/var/lib/{}", self.instance).into()
    }

    /// Bans, to be restored after a restart of the host.
    pub fn bans(&self) -> PathBuf {
        self.state().join("bans.json")
    }

    /// Offloads that were on before us.
    pub fn offloads(&self) -> PathBuf {
        self.state().join("offloads.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_names_that_are_safe_in_paths() {
        for name in ["portcullis", "a", "edge-2", "0123456789abcdef0123456789abcdef"] {
            assert!(name.parse::<InstanceName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "A", "ä", "a b", "a_b", "0123456789abcdef0123456789abcdef0"] {
            assert!(name.parse::<InstanceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn derives_every_path_from_the_name() {
        let paths = Paths::new("edge-2".parse().unwrap());
        assert_eq!(paths.pins(), PathBuf::from("/sys/fs/bpf/edge-2"));
        assert_eq!(paths.socket(), PathBuf::from("/run/edge-2/control.sock"));
        assert_eq!(paths.handover(), PathBuf::from("/run/edge-2/handover.sock"));
        assert_eq!(paths.state(), PathBuf::from("/var/lib/edge-2"));
    }
}
