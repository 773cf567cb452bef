//! The Portcullis agent.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod dmz;
pub mod events;
pub mod gateway;
pub mod host;
mod http;
mod memory;
pub mod metrics;
pub mod paths;
pub mod steering;
