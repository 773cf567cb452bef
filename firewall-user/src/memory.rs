//! Memory that the allocator keeps though nobody uses it any more.

/// Gives it back to the system: what this thread kept for itself, and whole pages that others left.
///
/// The allocator does that by itself only when somebody needs new pages, which after a reload of content rules may be never:
/// what the old rules and the compiler took would stay resident, twice as much as an agent has without.
pub(crate) fn give_back() {
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
