//! The judgement of the LAN layer, without I/O: what a request is, and whether it may go on.
//!
//! In: bytes and the policy of an API. Out: a [`head::Head`] with its framing decided, or a [`reason::Reason`] against it.
//! Nothing here opens a socket or a file, reads a clock, or knows tokio.

pub mod arguments;
pub mod body;
mod byte_set;
pub mod chunk;
mod class;
pub mod encoding;
pub mod fields;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod injection;
pub mod operator;
pub mod path;
pub mod pattern;
pub mod problem;
pub mod protocol;
pub mod reason;
pub mod reputation;
pub mod rules;
pub mod seclang;
pub mod transaction;
pub mod transform;
