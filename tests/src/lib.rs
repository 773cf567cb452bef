//! The end-to-end harness: network namespaces, raw frames, an agent under test and real servers to protect.
//!
//! In flows a configuration and traffic, out come verdicts: what a witness on the host saw, what clients got, what the
//! agent counted and reported. Nothing here replaces the kernel: frames cross a real veth pair with the real program on
//! it. No packet leaves the namespaces that a [`netns::World`] made.

pub mod agent;
pub mod dice;
pub mod frame;
pub mod http;
pub mod loaded;
pub mod netns;
pub mod raw;
pub mod servers;
pub mod smuggling;
pub mod traffic;
