//! Sets of bytes, of which most questions are asked at once.

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange};

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ByteSet(pub(crate) [u64; 4]);

/// Of each byte, the set of it alone: faster to put together than bits are to set.
static SINGLE: [ByteSet; 256] = {
    let mut sets = [ByteSet([0; 4]); 256];
    let mut byte = 0;
    while byte < 256 {
        sets[byte].0[byte >> 6] = 1 << (byte & 63);
        byte += 1;
    }
    sets
};

impl ByteSet {
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    pub(crate) fn of(bytes: &[u8]) -> Self {
        bytes.iter().fold(Self::default(), |set, byte| set.union(&SINGLE[usize::from(*byte)]))
    }

    /// Those of which something is true.
    pub(crate) fn matching(is: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::default();
        (0..=255).filter(|byte| is(*byte)).for_each(|byte| set.insert(byte));
        set
    }

    /// Those of a class; `None` if they are not all there is to it.
    pub(crate) fn of_class(class: &Class) -> Option<Self> {
        let mut set = Self::default();
        match class {
            Class::Bytes(class) => {
                for range in class.iter() {
                    (range.start()..=range.end()).for_each(|byte| set.insert(byte));
                }
            }
            // With Unicode off, what is one is ASCII.
            Class::Unicode(class) => {
                for range in class.iter() {
                    match (u8::try_from(range.start()), u8::try_from(range.end())) {
                        (Ok(start), Ok(end)) if end < 0x80 => (start..=end).for_each(|byte| set.insert(byte)),
                        _ => return None,
                    }
                }
            }
        }
        Some(set)
    }

    pub(crate) fn to_class(self) -> Class {
        Class::Bytes(ClassBytes::new(self.members().map(|byte| ClassBytesRange::new(byte, byte))))
    }

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(crate) fn members(self) -> impl Iterator<Item = u8> {
        (0..=255).filter(move |byte| self.contains(*byte))
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        (0..4).any(|word| self.0[word] & other.0[word] != 0)
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        (0..4).all(|word| self.0[word] & !other.0[word] == 0)
    }

    pub(crate) fn both(mut self, other: &Self) -> Self {
        for word in 0..4 {
            self.0[word] &= other.0[word];
        }
        self
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        for word in 0..4 {
            self.0[word] |= other.0[word];
        }
        self
    }

    pub(crate) fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}
