//! Why the agent could not bring a policy into force. Each names the culprit: configuration, interface, kernel.

use std::fmt;

use crate::{
    config,
    dmz::{instance::InstanceError, link::LinkError, shared::SharedError, slots::Exhausted},
    events::SinkError,
    gateway::GatewayError,
    host::interface::OffloadError,
};

/// Why a policy did not come into force.
#[derive(Debug)]
pub enum CoreError {
    Config(config::Errors),
    Rules(Exhausted),
    Shared(SharedError),
    Instance(InstanceError),
    Link(LinkError),
    NoInterface {
        name: String,
    },
    Interface {
        name: String,
        source: std::io::Error,
    },
    /// Merged packets would be judged as one.
    Merging(OffloadError),
    Sinks(SinkError),
    Gateway(GatewayError),
    /// None could be started.
    Thread(std::io::Error),
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Rules(error) => error.fmt(f),
            Self::Shared(error) => error.fmt(f),
            Self::Instance(error) => error.fmt(f),
            Self::Link(error) => error.fmt(f),
            Self::NoInterface { name } => write!(f, "there is no interface `{name}`"),
            Self::Interface { name, source } => write!(f, "interface `{name}`: {source}"),
            Self::Merging(error) => write!(
                f,
                "{error}; in generic mode merged packets would be judged as one. Native mode (`xdp_mode = \"native\"`) sees \
                 them as they came"
            ),
            Self::Sinks(error) => error.fmt(f),
            Self::Gateway(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "no thread: {error}"),
        }
    }
}

impl std::error::Error for CoreError {}

macro_rules! from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for CoreError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from!(config::Errors => Config, Exhausted => Rules, SharedError => Shared, InstanceError => Instance, LinkError => Link, SinkError => Sinks, GatewayError => Gateway);
