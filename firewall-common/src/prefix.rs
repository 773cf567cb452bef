//! Entries of the allow and block lists, compiled into one table per family.

use crate::{counter::NO_RULE, pod};

/// What the lists say of a prefix, lists that hold a shorter prefix around it included: the longest match alone answers.
///
/// Invariant: with `allow` set, `block` and `monitor` mean nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListEntry {
    /// Slot of the allow list, [`NO_RULE`] if none.
    pub allow: u16,
    /// Slot of the enforcing block list, [`NO_RULE`] if none.
    pub block: u16,
    /// Slot of the monitoring block list, [`NO_RULE`] if none.
    pub monitor: u16,
    pub padding: u16,
}

pod!(ListEntry: 8);

impl ListEntry {
    pub const NONE: Self = Self { allow: NO_RULE, block: NO_RULE, monitor: NO_RULE, padding: 0 };
}
