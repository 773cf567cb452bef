//! Which rules a value gets through to, of those whose values consist of certain bytes.
//!
//! What a rule needs of such values may be more than it needs of any: an expression that takes quotes in between is a plain
//! word where there are no quotes, and one that begins with `<` finds nothing.

use std::collections::HashMap;

use super::{super::require::Requirement, LENGTHS, mask::Mask, words::Words};
use crate::{byte_set::ByteSet, operator::Matcher};

#[derive(Debug)]
pub(super) struct Sieve {
    alphabet: ByteSet,
    words: Words,
    /// Of each word, those that look for it.
    seekers: Vec<Vec<u16>>,
    /// Those that look for a word.
    seeking: Mask,
    /// Those that are content with so many bytes.
    by_length: Box<[Mask; LENGTHS]>,
    /// Bytes, and those that need one of them, of those that look for no word.
    sets: Vec<(ByteSet, Mask)>,
    /// Of each rule, the bytes that it needs.
    needs: Vec<Vec<ByteSet>>,
}

impl Sieve {
    /// For rules with these operators, in the order of their numbers.
    pub(super) fn build(alphabet: ByteSet, matchers: &[&Matcher]) -> Self {
        let mut sieve = Self {
            alphabet,
            words: Words::new(&[]),
            seekers: Vec::new(),
            seeking: Mask::default(),
            by_length: Box::new([Mask::default(); LENGTHS]),
            sets: Vec::new(),
            needs: Vec::new(),
        };
        let mut words: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut sets: HashMap<ByteSet, Mask> = HashMap::new();
        for (number, matcher) in matchers.iter().enumerate() {
            let Some(requirement) = Requirement::of(matcher, &alphabet) else {
                sieve.needs.push(Vec::new());
                continue;
            };
            for (length, mask) in sieve.by_length.iter_mut().enumerate() {
                if length >= requirement.length.min(LENGTHS - 1) {
                    mask.insert(number);
                }
            }
            if let Some(wanted) = &requirement.words {
                sieve.seeking.insert(number);
                for word in wanted {
                    let next = words.len();
                    let at = *words.entry(word.clone()).or_insert(next);
                    sieve.seekers.resize(sieve.seekers.len().max(at + 1), Vec::new());
                    sieve.seekers[at].push(number as u16);
                }
            } else {
                for set in &requirement.sets {
                    sets.entry(*set).or_default().insert(number);
                }
            }
            sieve.needs.push(requirement.sets);
        }
        sieve.sets = sets.into_iter().collect();
        sieve.sets.sort_by_key(|(set, _)| *set);
        let mut by_number: Vec<(Vec<u8>, usize)> = words.into_iter().collect();
        by_number.sort_by_key(|(_, number)| *number);
        let words: Vec<Vec<u8>> = by_number.into_iter().map(|(word, _)| word).collect();
        sieve.words = Words::new(&words);
        sieve
    }

    /// Whether it speaks for values of these bytes.
    pub(super) fn takes(&self, set: &ByteSet) -> bool {
        set.is_within(&self.alphabet)
    }

    /// Whether one of `rules` is content with so many bytes.
    pub(super) fn has_length(&self, length: usize, rules: &Mask) -> bool {
        !rules.and(&self.by_length[length.min(LENGTHS - 1)]).is_empty()
    }

    /// Those of `rules` that might match.
    pub(super) fn might(&self, value: &[u8], set: &ByteSet, rules: Mask) -> Mask {
        let rules = rules.and(&self.by_length[value.len().min(LENGTHS - 1)]);
        let mut might = rules;
        might.drop(&self.seeking);
        if !might.is_empty() {
            for (needed, who) in &self.sets {
                if !needed.meets(set) {
                    might.drop(who);
                }
            }
        }
        let seeking = rules.and(&self.seeking);
        if !seeking.is_empty() {
            self.words.find(value, |word| {
                for number in &self.seekers[word] {
                    let number = usize::from(*number);
                    if seeking.contains(number) && self.needs[number].iter().all(|needed| needed.meets(set)) {
                        might.insert(number);
                    }
                }
            });
        }
        might
    }
}
