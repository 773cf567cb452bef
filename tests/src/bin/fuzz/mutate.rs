//! Inputs made of others.

/// Bytes that readers stumble over.
const ODD: [u8; 24] = *b"\0\t\n\r \"%&'()*+,-/:;<=>[\\]";

pub(crate) struct Mutator {
    state: u64,
    /// What means something to the reader.
    words: &'static [&'static str],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { state: seed, words }
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }

    pub(crate) fn replace(&mut self, pool: &mut [Vec<u8>], input: Vec<u8>) {
        let at = self.below(pool.len());
        pool[at] = input;
    }

    /// One of the pool, changed in a few places.
    pub(crate) fn mutated(&mut self, pool: &[Vec<u8>], largest: usize) -> Vec<u8> {
        let mut input = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut input, pool);
        }
        input.truncate(largest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 => input.insert(at, ODD[self.below(ODD.len())]),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                drop(input.splice(to..to, piece));
            }
            // Over and over: what costs more than its length shows so.
            5 => {
                let piece = input[at..end].to_vec();
                let times = 1 << self.below(13);
                if piece.len() * times < 256 << 10 {
                    drop(input.splice(at..end, piece.repeat(times)));
                }
            }
            6 => {
                let other = &pool[self.below(pool.len())];
                let from = self.below(other.len() + 1);
                let to = from + self.below((other.len() - from).min(512) + 1);
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            7 if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            _ => {
                let bytes: Vec<u8> = (0..self.below(8)).map(|_| self.next() as u8).collect();
                drop(input.splice(at..at, bytes));
            }
        }
    }
}
