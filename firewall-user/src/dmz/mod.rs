//! The DMZ layer's user-space half: compiles a configuration into what the kernel program reads, loads instances of the
//! program, attaches them, and reads what they count.
//!
//! `config → compile → instance → link`; `shared` holds the maps that outlive an instance.

pub mod compile;
pub mod instance;
pub mod link;
pub mod pin;
pub mod prefixes;
pub mod shared;
pub mod slots;
pub mod syscall;
