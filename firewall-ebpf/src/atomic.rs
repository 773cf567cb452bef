//! Atomic words in map values. `core` has no read-modify-write operations on this target; the processor of BPF has them
//! (Linux 5.12).
//!
//! Every pointer taken here is of an aligned word in a live map value: the verifier refuses anything else.

use core::arch::asm;

#[inline(always)]
pub(crate) fn load(word: *mut u64) -> u64 {
    // SAFETY: see the module.
    unsafe { word.read_volatile() }
}

#[inline(always)]
pub(crate) fn store(word: *mut u64, value: u64) {
    // SAFETY: see the module.
    unsafe { word.write_volatile(value) }
}

#[inline(always)]
pub(crate) fn add(word: *mut u64, value: u64) {
    // SAFETY: see the module.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) word, value = in(reg) value) }
}

/// Writes `new` if the word is `expected`; gives what was there.
#[inline(always)]
pub(crate) fn compare_and_swap(word: *mut u64, expected: u64, new: u64) -> u64 {
    let mut found = expected;
    // SAFETY: see the module.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") found,
        );
    }
    found
}
