//! The LAN layer's gateway.

pub mod metrics;
