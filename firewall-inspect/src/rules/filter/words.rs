//! Finding the words of all rules at once. Of each word, three bytes in a row that are rare (or two, of short ones) say where in
//! a value it may be, and there it is looked for. Most values have none of these, and are read once.

use std::{collections::BTreeMap, fmt};

/// Bits that a byte becomes: letters, digits and a few more each have their own, the others share some.
const BITS: u32 = 6;
const THREE: usize = 1 << (3 * BITS);
const TWO: usize = 1 << (2 * BITS);

/// Words, and where in each to look first.
pub(super) struct Words {
    /// Of three bytes in a row, whether they or the last two of them lead to a word.
    any: Box<[u64; THREE / 64]>,
    three: Grams,
    two: Grams,
    text: Vec<u8>,
}

/// Bytes in a row, and the words that are looked for where they are.
struct Grams {
    bits: Box<[u64]>,
    /// How many bits are set before each of these.
    ranks: Box<[u32]>,
    /// Of each set bit, the first of its places; and the end of all.
    starts: Vec<u32>,
    places: Vec<Place>,
}

/// Where a word is if its bytes in a row end here.
#[derive(Clone, Copy)]
struct Place {
    word: u32,
    /// Bytes of the word before the last of them.
    before: u32,
    /// The word, in the text of all.
    start: u32,
    length: u32,
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [self.three.places.len(), self.two.places.len()];
        f.debug_struct("Words").field("three", &counts[0]).field("two", &counts[1]).finish()
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

/// What the names of all arguments from JSON have.
const JSON: &[u8] = b"json.array_";
/// How often these come, as a product of [`frequency`].
const COMMON: u32 = 1 << 24;

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

impl Words {
    /// For words of two bytes or more, in lower case. Their numbers are their places.
    pub(super) fn new(words: &[Vec<u8>]) -> Self {
        let mut text = Vec::new();
        let mut three: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        let mut two = three.clone();
        // The short ones first, which have no choice.
        let mut order: Vec<usize> = (0..words.len()).collect();
        order.sort_by_key(|number| words[*number].len());
        for number in order {
            let word = &words[number];
            let (grams, size) = if word.len() >= 3 { (&mut three, 3) } else { (&mut two, 2) };
            // Rare ones, and such as few others have.
            let cost = |gram: &[u8]| {
                let rarity = match JSON.windows(size).any(|common| common == gram) {
                    true => COMMON,
                    false => gram.iter().map(|byte| frequency(*byte)).product(),
                };
                u64::from(rarity) * (1 + grams.get(&index(gram)).map_or(0, Vec::len) as u64)
            };
            let Some((at, gram)) = word.windows(size).enumerate().min_by_key(|(_, gram)| cost(gram)) else { continue };
            grams.entry(index(gram)).or_default().push(Place {
                word: number as u32,
                before: (at + size - 1) as u32,
                start: text.len() as u32,
                length: word.len() as u32,
            });
            text.extend_from_slice(word);
        }
        let (three, two) = (Grams::new(THREE, three), Grams::new(TWO, two));
        let any = Box::new(std::array::from_fn(|at| three.bits[at] | two.bits[at % two.bits.len()]));
        Self { any, three, two, text }
    }

    /// Tells of each word, in any case, that a value has; of some more than once.
    pub(super) fn find(&self, value: &[u8], mut tell: impl FnMut(usize)) {
        let (mut first, mut second) = (0, 0);
        for (at, byte) in value.iter().enumerate() {
            let third = usize::from(CLASSES[usize::from(*byte)]);
            // It is less anyway, which the compiler does not know.
            let index = (first << (2 * BITS) | second << BITS | third) % THREE;
            (first, second) = (second, third);
            // What two bytes in a row lead to is known of them with any byte before.
            if !is_set(&self.any[..], index) {
                continue;
            }
            for (grams, index) in [(&self.three, index), (&self.two, index % TWO)] {
                for place in grams.places(index) {
                    let word = &self.text[place.start as usize..][..place.length as usize];
                    let found =
                        at.checked_sub(place.before as usize).and_then(|start| value.get(start..)?.get(..word.len()));
                    if found.is_some_and(|found| found.eq_ignore_ascii_case(word)) {
                        tell(place.word as usize);
                    }
                }
            }
        }
    }
}

impl Grams {
    fn new(size: usize, of: BTreeMap<usize, Vec<Place>>) -> Self {
        let mut bits = vec![0_u64; size / 64].into_boxed_slice();
        let (mut starts, mut places) = (vec![0], Vec::new());
        for (index, of) in of {
            bits[index / 64] |= 1 << (index % 64);
            places.extend(of);
            starts.push(places.len() as u32);
        }
        let before = bits.iter().scan(0, |count, word| {
            *count += word.count_ones();
            Some(*count - word.count_ones())
        });
        let ranks = before.collect();
        Self { bits, ranks, starts, places }
    }

    /// What is to be looked for where a value has these.
    fn places(&self, index: usize) -> &[Place] {
        if !is_set(&self.bits, index) {
            return &[];
        }
        let before = self.bits[index / 64] & ((1 << (index % 64)) - 1);
        let rank = (self.ranks[index / 64] + before.count_ones()) as usize;
        &self.places[self.starts[rank] as usize..self.starts[rank + 1] as usize]
    }
}

fn is_set(bits: &[u64], index: usize) -> bool {
    bits[index / 64] >> (index % 64) & 1 == 1
}

fn index(gram: &[u8]) -> usize {
    gram.iter().fold(0, |index, byte| index << BITS | usize::from(CLASSES[usize::from(*byte)]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn found(words: &[Vec<u8>], value: &[u8]) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        Words::new(words).find(value, |word| {
            found.insert(word);
        });
        found
    }

    fn is_in(word: &[u8], value: &[u8]) -> bool {
        value.windows(word.len()).any(|bytes| bytes.eq_ignore_ascii_case(word))
    }

    proptest! {
        #[test]
        fn what_is_there_is_found_and_nothing_else(
            words in prop::collection::btree_set("[a-c<(\\x00-\\xff]{2,5}", 1..40),
            value in "[a-cA-C<(\\x00-\\xff]{0,60}",
            with: prop::sample::Index,
            at: prop::sample::Index,
        ) {
            let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
            let mut value = value.into_bytes();
            let at = at.index(value.len() + 1);
            value.splice(at..at, words[with.index(words.len())].to_ascii_uppercase());
            let expected: BTreeSet<usize> = (0..words.len()).filter(|word| is_in(&words[*word], &value)).collect();
            prop_assert_eq!(found(&words, &value), expected);
        }
    }

    #[test]
    fn words_at_the_edges() {
        let words = [&b"select"[..], b"union", b"sh", b"ect"].map(<[u8]>::to_vec);
        for (value, expected) in [
            (&b""[..], &[][..]),
            (b"h", &[]),
            (b"elect", &[3]),
            (b"SELECT", &[0, 3]),
            (b"sh", &[2]),
            (b"selecunion", &[1]),
            (b"selec", &[]),
        ] {
            assert_eq!(found(&words, value), expected.iter().copied().collect(), "{}", value.escape_ascii());
        }
    }
}
