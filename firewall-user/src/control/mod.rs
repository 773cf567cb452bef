//! The control socket: what the agent tells and does for root and for a configured group.

pub mod api;
pub mod client;
mod peer;
pub mod server;
mod socket;

pub use self::socket::{BindError, bind, owner, replace};
