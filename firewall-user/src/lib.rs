//! The Portcullis agent.

pub mod config;
pub mod control;
pub mod dmz;
pub mod host;
