//! The control socket: what the agent tells and does for root and for a configured group.

pub mod api;
