//! What a value must have for an operator to find something in it: a length, bytes, words. Each is necessary, none is
//! sufficient: what lacks one cannot match, what has all may.
//!
//! Words count in any case of ASCII's letters: one automaton looks for those of all rules.

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use crate::{
    byte_set::ByteSet,
    injection,
    operator::{Matcher, Place},
};

/// Strings that a node of an expression may stand for, at most; beyond, it may stand for anything.
const EXACT: usize = 48;
/// Words of one requirement, at most.
const WORDS: usize = 512;
/// Sets of bytes of one requirement, at most.
const SETS: usize = 4;
/// What a longer word would say is hardly more.
const LONG: usize = 24;

/// What a value must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// Bytes.
    pub(crate) length: usize,
    /// One of these at least, in lower case, each of two bytes or more. `None`: no word.
    pub(crate) words: Option<Vec<Vec<u8>>>,
    /// A byte of each.
    pub(crate) sets: Vec<ByteSet>,
}

impl Requirement {
    /// One of these words.
    pub(crate) fn words(words: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let words: Vec<Vec<u8>> = words.into_iter().map(|word| word.to_ascii_lowercase()).collect();
        let length = words.iter().map(Vec::len).min().unwrap_or(0);
        let mut first = ByteSet::default();
        for word in &words {
            match word.first() {
                Some(byte) => insert_folded(&mut first, *byte),
                None => return Self::default(),
            }
        }
        let words = (length >= 2).then_some(words);
        Self { length, words, sets: vec![first] }
    }

    /// A byte of this set.
    pub(crate) fn set(set: ByteSet) -> Self {
        Self { length: 1, words: None, sets: vec![set] }
    }

    /// What an expression needs to match anywhere.
    pub(crate) fn expression(hir: &Hir) -> Self {
        let needs = Needs::of(hir);
        let words = match needs.exact {
            Some(exact) => Some(exact),
            None => needs.words,
        };
        let words = words.filter(|words| !words.is_empty() && words.iter().all(|word| word.len() >= 2));
        let mut sets = needs.sets;
        sets.retain(|set| *set != ByteSet::ALL);
        Self {
            length: hir.properties().minimum_len().unwrap_or(0),
            words: words.map(|words| words.into_iter().collect()),
            sets,
        }
    }

    /// What an operator needs to find something in a value of these bytes; `None` if it never does.
    pub(crate) fn of(matcher: &Matcher, alphabet: &ByteSet) -> Option<Self> {
        let requirement = match matcher {
            Matcher::Regex(expression) => Self::expression(&restrict(&expression.hir, alphabet)?),
            Matcher::Words(words) => {
                let mut words = words.words.iter().filter(|word| is_possible(word, alphabet)).peekable();
                words.peek()?;
                Self::words(words.cloned())
            }
            Matcher::Literal(place, finder) if *place != Place::Within && !finder.needle().is_empty() => {
                if !is_possible(finder.needle(), alphabet) {
                    return None;
                }
                Self::words([finder.needle().to_vec()])
            }
            Matcher::ByteRange(allowed) => Self::set(ByteSet::matching(|byte| !allowed[usize::from(byte)])),
            Matcher::Sqli => Self::set(ByteSet::matching(|byte| !injection::is_of_words(byte))),
            Matcher::Xss => Self::set(ByteSet::of(b"<=")),
            Matcher::UrlEncoding => Self::set(ByteSet::of(b"%")),
            Matcher::Utf8Encoding => Self::set(ByteSet([0, 0, u64::MAX, u64::MAX])),
            _ => Self::default(),
        };
        requirement.sets.iter().all(|set| set.meets(alphabet)).then_some(requirement)
    }

    /// Whether it tells values apart at all.
    pub(crate) fn is_something(&self) -> bool {
        self.words.is_some() || !self.sets.is_empty() || self.length > 2
    }
}

/// How much of ordinary text has one of these bytes: the fewer, the better a set tells values apart.
fn commonness(set: &ByteSet) -> u32 {
    set.members()
        .map(|byte| match byte {
            b'a'..=b'z' => 40,
            b'0'..=b'9' | b'A'..=b'Z' => 20,
            b'/' | b'.' | b'-' | b' ' | b'_' => 15,
            b':' | b',' | b';' | b'=' | b'(' | b')' | b'%' | b'+' => 6,
            _ => 1,
        })
        .sum()
}

/// Whether a word, in any case, may be in a value of these bytes.
fn is_possible(word: &[u8], alphabet: &ByteSet) -> bool {
    word.iter().all(|byte| {
        let mut folded = ByteSet::default();
        insert_folded(&mut folded, *byte);
        folded.meets(alphabet)
    })
}

/// The expression as far as it matches within a value of these bytes; `None` if it does not.
fn restrict(hir: &Hir, alphabet: &ByteSet) -> Option<Hir> {
    Some(match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => hir.clone(),
        HirKind::Literal(literal) => {
            return literal.0.iter().all(|byte| alphabet.contains(*byte)).then(|| hir.clone());
        }
        HirKind::Class(class) => {
            // What is not of bytes stays whole: that only lets more through.
            let Some(set) = ByteSet::of_class(class) else { return Some(hir.clone()) };
            let set = set.both(alphabet);
            if set.is_empty() {
                return None;
            }
            Hir::class(set.to_class())
        }
        HirKind::Repetition(repetition) => match restrict(&repetition.sub, alphabet) {
            Some(sub) => Hir::repetition(Repetition { sub: Box::new(sub), ..repetition.clone() }),
            None if repetition.min == 0 => Hir::empty(),
            None => return None,
        },
        HirKind::Capture(capture) => return restrict(&capture.sub, alphabet),
        HirKind::Concat(parts) => {
            Hir::concat(parts.iter().map(|part| restrict(part, alphabet)).collect::<Option<_>>()?)
        }
        HirKind::Alternation(branches) => {
            let branches: Vec<Hir> = branches.iter().filter_map(|branch| restrict(branch, alphabet)).collect();
            if branches.is_empty() {
                return None;
            }
            Hir::alternation(branches)
        }
    })
}

fn insert_folded(set: &mut ByteSet, byte: u8) {
    set.insert(byte.to_ascii_lowercase());
    set.insert(byte.to_ascii_uppercase());
}

/// What a part of an expression needs.
struct Needs {
    /// All that it may stand for, where that is little.
    exact: Option<BTreeSet<Vec<u8>>>,
    /// One of these is within what it stands for.
    words: Option<BTreeSet<Vec<u8>>>,
    sets: Vec<ByteSet>,
}

impl Needs {
    fn nothing() -> Self {
        Self { exact: None, words: None, sets: Vec::new() }
    }

    fn exactly(exact: BTreeSet<Vec<u8>>, sets: Vec<ByteSet>) -> Self {
        Self { exact: Some(exact), words: None, sets }
    }

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::exactly([Vec::new()].into(), Vec::new()),
            HirKind::Literal(literal) => {
                let sets = literal.0.iter().map(|byte| ByteSet::of(&[*byte])).collect();
                Self::exactly([literal.0.to_ascii_lowercase()].into(), best_sets(sets))
            }
            HirKind::Class(class) => Self::class(class),
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) => Self::repetition(repetition),
            HirKind::Concat(parts) => Self::concatenation(parts),
            HirKind::Alternation(branches) => Self::alternation(branches),
        }
    }

    fn class(class: &Class) -> Self {
        let Some(set) = ByteSet::of_class(class) else { return Self::nothing() };
        let folded: BTreeSet<Vec<u8>> = set.members().map(|byte| vec![byte.to_ascii_lowercase()]).collect();
        let sets = vec![set];
        if folded.len() <= 8 { Self::exactly(folded, sets) } else { Self { exact: None, words: None, sets } }
    }

    fn repetition(repetition: &Repetition) -> Self {
        if repetition.min == 0 {
            if repetition.max == Some(1)
                && let Some(mut exact) = Self::of(&repetition.sub).exact
                && exact.len() < EXACT
            {
                exact.insert(Vec::new());
                return Self::exactly(exact, Vec::new());
            }
            return Self::nothing();
        }
        let once = Self::of(&repetition.sub);
        if repetition.min == 1 && repetition.max == Some(1) {
            return once;
        }
        let mut exact = once.exact.clone().filter(|_| repetition.min <= LONG as u32);
        for _ in 1..repetition.min {
            exact = exact.zip(once.exact.as_ref()).and_then(|(all, once)| product(&all, once));
        }
        if repetition.max == Some(repetition.min)
            && let Some(exact) = exact
        {
            return Self::exactly(exact, once.sets);
        }
        // So often at least, and what is behind that is not known.
        let needed = exact.or_else(|| once.exact.clone());
        let words = better(needed.filter(is_useful), once.words);
        Self { exact: None, words, sets: once.sets }
    }

    fn concatenation(parts: &[Hir]) -> Self {
        let mut run: BTreeSet<Vec<u8>> = [Vec::new()].into();
        let (mut whole, mut words, mut sets) = (true, None, Vec::new());
        for part in parts {
            let needs = Self::of(part);
            sets.extend(needs.sets);
            words = better(words, needs.words);
            match needs.exact.as_ref().and_then(|exact| product(&run, exact)) {
                Some(longer) => run = longer,
                None => {
                    whole = false;
                    words = better(words, Some(std::mem::take(&mut run)).filter(is_useful));
                    run = needs.exact.unwrap_or_else(|| [Vec::new()].into());
                }
            }
        }
        let sets = best_sets(sets);
        if whole {
            return Self::exactly(run, sets);
        }
        Self { exact: None, words: better(words, Some(run).filter(is_useful)), sets }
    }

    fn alternation(branches: &[Hir]) -> Self {
        let all: Vec<Self> = branches.iter().map(Self::of).collect();
        let mut set = Some(ByteSet::default());
        for needs in &all {
            let best = needs.sets.iter().min_by_key(|set| commonness(set));
            set = set.zip(best).map(|(set, best)| set.union(best));
        }
        let sets: Vec<ByteSet> = set.into_iter().collect();
        if all.iter().all(|needs| needs.exact.is_some()) {
            let exact: BTreeSet<Vec<u8>> = all.iter().filter_map(|needs| needs.exact.clone()).flatten().collect();
            if exact.len() <= EXACT {
                return Self::exactly(exact, sets);
            }
        }
        let mut words = Some(BTreeSet::new());
        for needs in all {
            let own = better(needs.words, needs.exact.filter(is_useful));
            words = words.zip(own).map(|(mut words, own): (BTreeSet<Vec<u8>>, _)| {
                words.extend(own);
                words
            });
        }
        Self { exact: None, words: words.filter(|words| words.len() <= WORDS), sets }
    }
}

/// Each of the first with each of the second behind it; `None` if those are too many.
fn product(first: &BTreeSet<Vec<u8>>, second: &BTreeSet<Vec<u8>>) -> Option<BTreeSet<Vec<u8>>> {
    if first.len().saturating_mul(second.len()) > EXACT {
        return None;
    }
    let longest = |set: &BTreeSet<Vec<u8>>| set.iter().map(Vec::len).max().unwrap_or(0);
    if longest(first) + longest(second) > LONG && longest(first) > 0 && longest(second) > 0 {
        return None;
    }
    Some(first.iter().flat_map(|one| second.iter().map(move |two| [&one[..], two].concat())).collect())
}

fn is_useful(words: &BTreeSet<Vec<u8>>) -> bool {
    !words.is_empty() && words.iter().all(|word| word.len() >= 2)
}

/// The words of which fewer values have one.
fn better(one: Option<BTreeSet<Vec<u8>>>, other: Option<BTreeSet<Vec<u8>>>) -> Option<BTreeSet<Vec<u8>>> {
    let (Some(first), Some(second)) = (&one, &other) else { return one.or(other) };
    if rarity(second) > rarity(first) { other } else { one }
}

/// Higher is rarer: the shortest word counts most, then what is in it, then how many there are.
fn rarity(words: &BTreeSet<Vec<u8>>) -> (usize, i64) {
    let shortest = words.iter().map(Vec::len).min().unwrap_or(0);
    let common: i64 =
        words.iter().map(|word| i64::from(commonness(&ByteSet::of(word))) / word.len().max(1) as i64).sum();
    (shortest.min(5), -common)
}

/// The few sets that tell values apart best.
fn best_sets(mut sets: Vec<ByteSet>) -> Vec<ByteSet> {
    sets.sort_by_key(commonness);
    sets.dedup();
    sets.truncate(SETS);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> Requirement {
        Requirement::expression(&crate::pattern::parse(pattern).unwrap())
    }

    #[track_caller]
    fn assert_words(pattern: &str, expected: &[&str]) {
        let words = of(pattern).words.unwrap_or_default();
        let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        assert_eq!(words, expected, "{pattern}");
    }

    #[test]
    fn words_that_must_be_there() {
        assert_words(r"(?i)\bor\s+select\b", &["select"]);
        assert_words("(?i:sleep|benchmark)[(]", &["benchmark(", "sleep("]);
        assert_words("ab(?:cd|ef)?gh", &["abcdgh", "abefgh", "abgh"]);
        assert_words("(?:a|bc)+", &[]);
        assert_words("x*", &[]);
        assert_words("(?:foo|.)bar", &["bar"]);
        assert_words("foo.*|bar.*", &["bar", "foo"]);
        assert_words("foo.*|.*", &[]);
        assert_words("(?:ab){2}", &["abab"]);
        assert_words("(?:ab){2,}c", &["abab"]);
    }

    #[test]
    fn bytes_that_must_be_there() {
        assert_eq!(of("[0-9]+<").sets[0], ByteSet::of(b"<"));
        assert_eq!(of("['\"]").sets, [ByteSet::of(b"'\"")]);
        assert_eq!(of("a|").sets, []);
        assert_eq!(of("(?:<a|>b)c").sets[0], ByteSet::of(b"<>"));
    }

    #[test]
    fn lengths() {
        assert_eq!(of("abc?d{3}").length, 5);
        assert_eq!(of("^$").length, 0);
    }
}
