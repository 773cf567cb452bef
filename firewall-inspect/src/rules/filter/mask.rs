//! Sets of a filter's rules, by their numbers in it.

/// Rules of a filter: 64 for each word. Further ones are run on every value.
const WORDS: usize = 8;
pub(crate) const MOST: usize = WORDS * 64;

/// A set of a filter's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::rules) struct Mask([u64; WORDS]);

impl Mask {
    pub(super) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    pub(super) fn add(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] |= other.0[word];
        }
    }

    pub(super) fn keep(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] &= other.0[word];
        }
    }

    pub(super) fn drop(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] &= !other.0[word];
        }
    }

    pub(super) fn and(mut self, other: &Self) -> Self {
        self.keep(other);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let bit = word.trailing_zeros() as usize;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }
}
