//! The agent: brings a policy into force, keeps it there, and tells what happens.
//!
//! `run` holds the loop; `core` the state; `service` answers the control socket; `condemn` bans for the gateway; `check` and `detach` are the commands that
//! need no agent.

pub mod bans;
mod check;
pub mod condemn;
pub mod core;
mod detach;
mod drain;
pub mod error;
pub mod exempt;
mod files;
mod lockout;
mod offloads;
mod preflight;
mod rollback;
mod run;
mod service;
mod takeover;
mod warnings;

pub use check::check;
pub use detach::detach;
pub use run::run;
