//! The table of token buckets: find, take, by compare-and-swap. See [`firewall_common::rate::BucketSet`].
//!
//! The functions with C names are global in BTF: the verifier judges each once, for any arguments, and not once for each
//! path that leads to a call. Inlined, they alone exceed what it is willing to look at.

use firewall_common::{
    address::Addr,
    counter::Tally,
    rate::{self, BucketSet, SET_LEN},
    token_bucket::{self, Limit},
};

use crate::{
    atomic::{self, compare_and_swap, load},
    maps::{BUCKETS, policy, seed},
    report,
};

/// Attempts at a bucket that other CPUs keep changing.
const ATTEMPTS: usize = 16;

/// A bucket, by the hash that is its tag.
#[derive(Clone, Copy)]
pub(crate) struct Bucket(u64);

impl Bucket {
    #[inline(always)]
    pub(crate) fn of(id: u64, subject: &Addr) -> Self {
        Self(rate::hash(seed(), id, subject))
    }

    /// Takes `tokens`; `false` if they are not there.
    #[inline(always)]
    pub(crate) fn take(self, limit: &Limit, tokens: u32, now: u64) -> bool {
        portcullis_bucket_take(self.0, now, limit.cost(tokens), limit.tolerance) != 0
    }

    /// The time until which [`Self::remember`] was asked to remember, or 0.
    #[inline(always)]
    pub(crate) fn remembered(self) -> u64 {
        portcullis_bucket_peek(self.0)
    }

    /// Keeps the bucket alive until `until`: for memories that are no limit.
    #[inline(always)]
    pub(crate) fn remember(self, now: u64, until: u64) {
        portcullis_bucket_set(self.0, now, until);
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_bucket_take(tag: u64, now: u64, cost: u64, tolerance: u64) -> u64 {
    let Some(tat) = open(tag, now, now + tolerance) else {
        report::tally(Tally::BucketContended, 0);
        return 1;
    };
    let mut state = load(tat);
    for _ in 0..ATTEMPTS {
        let Some(next) = token_bucket::take(state, now, cost, tolerance) else {
            return 0;
        };
        let found = compare_and_swap(tat, state, next);
        if found == state {
            return 1;
        }
        state = found;
    }
    report::tally(Tally::BucketContended, 0);
    1
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_bucket_peek(tag: u64) -> u64 {
    let Some(set) = set(tag) else { return 0 };
    for index in 0..SET_LEN {
        if load(tag_at(set, index)) == tag {
            return load(tat_at(set, index));
        }
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn portcullis_bucket_set(tag: u64, now: u64, until: u64) -> u64 {
    let Some(tat) = open(tag, now, until) else { return 0 };
    atomic::store(tat, until);
    1
}

#[inline(always)]
fn set(tag: u64) -> Option<*mut BucketSet> {
    BUCKETS.get_ptr_mut((tag >> 32) as u32 & policy!(bucket_mask))
}

/// The bucket, made if there is none: in the place of one that is full again, or else of the one that is nearest to it,
/// whose debt the new one inherits, up to `most`: it may be that of a slower limit, or a memory of minutes. `None` if
/// another CPU took that place first.
#[inline(always)]
fn open(tag: u64, now: u64, most: u64) -> Option<*mut u64> {
    let set = set(tag)?;
    for index in 0..SET_LEN {
        if load(tag_at(set, index)) == tag {
            return Some(tat_at(set, index));
        }
    }
    let mut oldest = 0;
    let mut oldest_tat = u64::MAX;
    for index in 0..SET_LEN {
        let tat = load(tat_at(set, index));
        if tat < oldest_tat {
            (oldest, oldest_tat) = (index, tat);
        }
    }
    // For the verifier: it lost track of the bound in the loop.
    let index = oldest & (SET_LEN - 1);
    let found = load(tag_at(set, index));
    if found != tag && compare_and_swap(tag_at(set, index), found, tag) != found {
        // It may have been the same source, on another CPU.
        return (load(tag_at(set, index)) == tag).then(|| tat_at(set, index));
    }
    if oldest_tat > now {
        report::tally(Tally::BucketStolen, 0);
    }
    if oldest_tat > most {
        // A lost race is another CPU's debt of the same source: then that one counts.
        compare_and_swap(tat_at(set, index), oldest_tat, most);
    }
    Some(tat_at(set, index))
}

#[inline(always)]
fn tag_at(set: *mut BucketSet, index: usize) -> *mut u64 {
    // SAFETY: `set` is a live map value and `index < SET_LEN`.
    unsafe { (&raw mut (*set).tags).cast::<u64>().add(index) }
}

#[inline(always)]
fn tat_at(set: *mut BucketSet, index: usize) -> *mut u64 {
    // SAFETY: `set` is a live map value and `index < SET_LEN`.
    unsafe { (&raw mut (*set).tats).cast::<u64>().add(index) }
}
