//! The Portcullis agent.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod events;
mod http;
pub mod metrics;
pub mod paths;
