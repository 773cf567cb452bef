//! A look for words before the look for words: of each, three bytes in a row that are rare (or two, of short ones). A value
//! without any of them has no word, and most have none.

use std::fmt;

/// Bits that a byte becomes: letters, digits and a few more each have their own, the others share some.
const BITS: u32 = 6;
const THREE: usize = 1 << (3 * BITS);
const TWO: usize = 1 << (2 * BITS);

pub(super) struct Grams {
    three: Box<[u64; THREE / 64]>,
    two: Box<[u64; TWO / 64]>,
}

impl Default for Grams {
    fn default() -> Self {
        Self { three: Box::new([0; THREE / 64]), two: Box::new([0; TWO / 64]) }
    }
}

impl fmt::Debug for Grams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        f.debug_struct("Grams").field("three", &count(&self.three[..])).field("two", &count(&self.two[..])).finish()
    }
}

/// What a byte becomes.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let folded = (byte as u8).to_ascii_lowercase();
        classes[byte] = match folded {
            b'a'..=b'z' => folded - b'a',
            b'0'..=b'9' => 26 + folded - b'0',
            other => 36 + other % 28,
        };
        byte += 1;
    }
    classes
};

/// How often a byte comes in text, roughly: of a thousand.
fn frequency(byte: u8) -> u32 {
    match byte {
        b'e' => 120,
        b't' | b'a' | b' ' => 85,
        b'o' | b'i' | b'n' | b's' | b'r' => 70,
        b'h' | b'd' | b'l' => 45,
        b'u' | b'c' | b'm' | b'p' | b'.' => 27,
        b'f' | b'w' | b'g' | b'y' | b'b' | b'-' | b'_' | b'0'..=b'9' => 20,
        b'v' | b'k' => 9,
        b'x' | b'j' | b'q' | b'z' => 2,
        _ => 5,
    }
}

impl Grams {
    /// Takes note of a word of two bytes or more, in lower case.
    pub(super) fn insert(&mut self, word: &[u8]) {
        let rarest =
            |length| word.windows(length).min_by_key(|gram| gram.iter().map(|byte| frequency(*byte)).product::<u32>());
        match (rarest(3), rarest(2)) {
            (Some(gram), _) => set(&mut self.three[..], index(gram)),
            (None, Some(gram)) => set(&mut self.two[..], index(gram)),
            // Whatever it is, every value has it.
            (None, None) => self.two.fill(u64::MAX),
        }
    }

    /// Whether a value has one of a word's grams.
    pub(super) fn might(&self, value: &[u8]) -> bool {
        let mut index = 0;
        for (at, byte) in value.iter().enumerate() {
            index = (index << BITS | usize::from(CLASSES[usize::from(*byte)])) % THREE;
            if (at >= 2 && is_set(&self.three[..], index)) || (at >= 1 && is_set(&self.two[..], index % TWO)) {
                return true;
            }
        }
        false
    }
}

fn index(gram: &[u8]) -> usize {
    gram.iter().fold(0, |index, byte| index << BITS | usize::from(CLASSES[usize::from(*byte)]))
}

fn set(bits: &mut [u64], index: usize) {
    bits[index / 64] |= 1 << (index % 64);
}

fn is_set(bits: &[u64], index: usize) -> bool {
    bits[index / 64] >> (index % 64) & 1 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_with_a_word_has_a_gram_of_it(
            before: Vec<u8>, word in "[a-z0-9 ._<(]{2,9}", behind: Vec<u8>, upper: bool,
        ) {
            let mut grams = Grams::default();
            grams.insert(word.as_bytes());
            let word = if upper { word.to_ascii_uppercase() } else { word };
            prop_assert!(grams.might(&[&before[..], word.as_bytes(), &behind].concat()));
        }
    }

    #[test]
    fn most_values_have_none() {
        let mut grams = Grams::default();
        for word in ["select", "union", "sh", "passwd"] {
            grams.insert(word.as_bytes());
        }
        for (value, expected) in
            [("12345", false), ("a plain value", false), ("SELECT", true), ("h", false), ("s", false)]
        {
            assert_eq!(grams.might(value.as_bytes()), expected, "{value}");
        }
    }
}
