//! Inputs made of others.

use tests::dice::Dice;

/// Bytes that readers stumble over.
const ODD: [u8; 24] = *b"\0\t\n\r \"%&'()*+,-/:;<=>[\\]";

pub(crate) struct Mutator {
    dice: Dice,
    /// What means something to the reader.
    words: &'static [&'static str],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { dice: Dice(seed), words }
    }

    pub(crate) fn replace(&mut self, pool: &mut [Vec<u8>], input: Vec<u8>) {
        let at = self.dice.below(pool.len());
        pool[at] = input;
    }

    /// One of the pool, changed in a few places.
    pub(crate) fn mutated(&mut self, pool: &[Vec<u8>], largest: usize) -> Vec<u8> {
        let mut input = pool.get(self.dice.below(pool.len())).cloned().unwrap_or_default();
        for _ in 0..=self.dice.below(6) {
            self.change(&mut input, pool);
        }
        input.truncate(largest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.dice.below(input.len() + 1);
        let end = at + self.dice.below((input.len() - at).min(64) + 1);
        match self.dice.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.dice.below(8),
            1 if at < input.len() => input[at] = self.dice.roll() as u8,
            2 => input.insert(at, ODD[self.dice.below(ODD.len())]),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                let to = self.dice.below(input.len() + 1);
                drop(input.splice(to..to, piece));
            }
            // Over and over: what costs more than its length shows so.
            5 => {
                let piece = input[at..end].to_vec();
                let times = 1 << self.dice.below(13);
                if piece.len() * times < 256 << 10 {
                    drop(input.splice(at..end, piece.repeat(times)));
                }
            }
            6 => {
                let other = &pool[self.dice.below(pool.len())];
                let from = self.dice.below(other.len() + 1);
                let to = from + self.dice.below((other.len() - from).min(512) + 1);
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            7 if !self.words.is_empty() => {
                let word = self.words[self.dice.below(self.words.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            _ => {
                let bytes: Vec<u8> = (0..self.dice.below(8)).map(|_| self.dice.roll() as u8).collect();
                drop(input.splice(at..at, bytes));
            }
        }
    }
}
