//! The Portcullis agent.

pub mod agent;
pub mod config;
pub mod control;
pub mod dmz;
pub mod events;
pub mod host;
pub mod paths;
