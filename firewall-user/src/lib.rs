//! The Portcullis agent.
pub mod config;
