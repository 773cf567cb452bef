//! The Portcullis agent.

pub mod config;
pub mod control;
pub mod events;
mod http;
pub mod metrics;
