//! The gateway from end to end: real clients, an unmodified application, and the real agent between them. One module for
//! each theme.
//!
//! Needs root, bpffs and curl; without them every test fails.

mod attacks;
mod bans;
mod clients;
mod death;
mod endurance;
mod flow;
mod hostile;
mod namespaces;
mod protocols;
mod refusals;
mod rules;
mod slow;
mod steering;
mod support;
mod takeover;
mod tls;
