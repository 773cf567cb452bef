//! Verdict tables: the real program in the real kernel, a packet in, and out come the verdict, every counter that changed
//! and every event. One module for each stage of the pipeline; `fuzz` and `lookups` ask at random.
//!
//! Needs root and bpffs; without them every test fails.

mod bans;
mod events;
mod exposure;
mod flows;
mod fragments;
mod fuzz;
mod hygiene;
mod lists;
mod lookups;
mod monitor;
mod parse;
mod quic;
mod rate_bans;
mod rates;
mod size;
mod sources;
mod support;
