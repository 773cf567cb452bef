//! Why steering could not be set up, or changed.

use std::{io, path::PathBuf};

use aya::programs::ProgramError;
use firewall_common::ABI_VERSION;

use crate::dmz::instance::chain;

#[derive(Debug)]
pub enum SteerError {
    /// The namespace cannot be opened; without a path, the agent's own.
    Netns {
        path: Option<PathBuf>,
        source: io::Error,
    },
    /// The pins are of an agent of another version.
    Abi {
        found: u32,
    },
    /// A pin under our name that is not ours.
    Foreign {
        path: PathBuf,
    },
    Pin {
        path: PathBuf,
        source: io::Error,
    },
    /// The kernel refused the object's maps.
    Load(aya::EbpfError),
    /// The verifier refused the program, the kernel has no such program type, or too many are attached.
    Program(ProgramError),
    /// The link that is there could not be given this program.
    Update {
        path: PathBuf,
        source: io::Error,
    },
    Map {
        name: &'static str,
        source: io::Error,
    },
    TooManyPorts {
        count: usize,
        most: usize,
    },
    /// The listener cannot be put into its place.
    Listener(io::Error),
}

impl SteerError {
    /// There is nothing at the path of the namespace.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Netns { path: Some(_), source } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl std::fmt::Display for SteerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Netns { path: Some(path), source } => write!(f, "network namespace {}: {source}", path.display()),
            Self::Netns { path: None, source } => write!(f, "the agent's own network namespace: {source}"),
            Self::Abi { found } => write!(
                f,
                "the kernel steers for another version of Portcullis (ABI {found}, this one has {ABI_VERSION}); \
                 `portcullis detach` of either version ends that"
            ),
            Self::Foreign { path } => {
                write!(f, "{} is not a map of ours; `portcullis detach` removes what is", path.display())
            }
            Self::Pin { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Load(source) => write!(f, "the kernel did not take the tables of steering: {}", chain(source)),
            Self::Program(source) => write!(f, "the kernel refused program portcullis_steer: {}", chain(source)),
            Self::Update { path, source } => {
                write!(f, "{}: the program could not be replaced: {source}", path.display())
            }
            Self::Map { name, source } => write!(f, "steering table {name}: {source}"),
            Self::TooManyPorts { count, most } => {
                write!(f, "{count} ports are to be steered in one network namespace, but there is room for {most}")
            }
            Self::Listener(source) => write!(f, "the kernel does not hand connections to the listener: {source}"),
        }
    }
}

impl std::error::Error for SteerError {}
