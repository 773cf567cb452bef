//! Steering: the real program in namespaces, with plain servers for the application and the agent. What is said on
//! connections is not its matter: each server names itself, and whom it sees.

mod containers;
mod existing;
mod gone;
mod handover;
mod local;
mod outside;
mod support;
