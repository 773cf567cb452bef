//! Which rules could match a value: the sieve before the expressions.
//!
//! A value is transformed along all chains of transformations that some rule wants of it, each step once; what comes out
//! equal is looked at once. Of each outcome, three things are asked that every rule has answered beforehand
//! ([`Requirement`]): is it long enough, has it the bytes, has it one of the words. A rule that passes is run on it with its
//! own operator. What is asked is necessary for a match, so nothing is lost; how much it spares, only time tells.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

use super::{
    bits::Bits,
    require::{ByteSet, Requirement},
    rule::{Link, Rule, Select, Source, Target},
};
use crate::{
    operator::{Matcher, Place},
    seclang::{Phase, Transformation, Variable},
};

/// Rules of a filter: 64 for each word. Further ones are run on every value.
const WORDS: usize = 8;
pub(crate) const MOST: usize = WORDS * 64;
/// Lengths from here on are all the same.
const LENGTHS: usize = 33;

/// A set of a filter's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask([u64; WORDS]);

impl Mask {
    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn add(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] |= other.0[word];
        }
    }

    fn keep(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] &= other.0[word];
        }
    }

    fn drop(&mut self, other: &Self) {
        for word in 0..WORDS {
            self.0[word] &= !other.0[word];
        }
    }

    fn and(mut self, other: &Self) -> Self {
        self.keep(other);
        self
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn iter(self) -> impl Iterator<Item = usize> {
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

/// What the filter's values are parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

#[derive(Debug)]
pub(crate) struct Filter {
    /// Of each of the filter's rules, its number in the rule set; ascending.
    rules: Vec<u32>,
    words: Option<AhoCorasick>,
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
    plans: Vec<Plans>,
}

/// What is looked for in the values of a source.
#[derive(Debug, Default)]
struct Plans {
    any: Plan,
    /// By the member's name, in lower case; what is looked for in any is part of it.
    named: HashMap<Box<[u8]>, Plan>,
}

#[derive(Clone, Debug, Default)]
struct Plan {
    /// What becomes of a value: the first node is the value itself. A node's parent is before it.
    nodes: Vec<Node>,
    /// Bytes without which no node differs from its parent.
    triggers: ByteSet,
    all: Mask,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u16,
    transformation: Transformation,
    triggers: ByteSet,
    rules: Mask,
}

/// Bytes: of the values as they came, or of what transformations made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) transformed: bool,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// A rule that might match a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    /// Its number in the rule set.
    pub(crate) rule: u32,
    /// The value's number.
    pub(crate) entry: u32,
    pub(crate) bytes: Bytes,
}

/// What a filter found, and the memory it needs to find it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit>,
    /// What transformations made.
    pub(crate) made: Vec<u8>,
    outcomes: Vec<Outcome>,
    outcome_of: Vec<u16>,
    buffer: Vec<u8>,
    /// Bytes that were looked at, for the budget.
    pub(crate) scanned: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    bytes: Bytes,
    set: ByteSet,
    rules: Mask,
}

impl Filter {
    pub(crate) fn build(kind: Kind, rules: &[Rule], idle: &Bits) -> Self {
        let mut filter = Self {
            rules: Vec::new(),
            words: None,
            seekers: Vec::new(),
            seeking: Mask::default(),
            by_length: Box::new([Mask::default(); LENGTHS]),
            sets: Vec::new(),
            needs: Vec::new(),
            plans: std::iter::repeat_with(Plans::default).take(Source::COUNT).collect(),
        };
        let mut words: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut sets: HashMap<ByteSet, Mask> = HashMap::new();
        let mut chosen: Vec<(usize, &Link, Requirement)> = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if !idle.contains(index)
                && chosen.len() < MOST
                && let Some(requirement) = speaks_for(kind, rule)
            {
                chosen.push((index, &rule.links[0], requirement));
            }
        }
        for (number, (index, _, requirement)) in chosen.iter().enumerate() {
            filter.rules.push(*index as u32);
            for (length, mask) in filter.by_length.iter_mut().enumerate() {
                if length >= requirement.length.min(LENGTHS - 1) {
                    mask.insert(number);
                }
            }
            filter.needs.push(requirement.sets.clone());
            if requirement.words.is_none() {
                for set in &requirement.sets {
                    sets.entry(*set).or_default().insert(number);
                }
            }
            if let Some(wanted) = &requirement.words {
                filter.seeking.insert(number);
                for word in wanted {
                    let next = words.len();
                    let at = *words.entry(word.clone()).or_insert(next);
                    filter.seekers.resize(filter.seekers.len().max(at + 1), Vec::new());
                    filter.seekers[at].push(number as u16);
                }
            }
        }
        filter.sets = sets.into_iter().collect();
        filter.sets.sort_by_key(|(set, _)| *set);
        filter.plan(&chosen);
        let mut by_number: Vec<_> = words.into_iter().collect();
        by_number.sort_by_key(|(_, number)| *number);
        if !by_number.is_empty() {
            let words = by_number.into_iter().map(|(word, _)| word);
            // Words that are too many for it are no reason to let anything pass: then nothing is sieved by words.
            filter.words = AhoCorasickBuilder::new()
                .ascii_case_insensitive(true)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(words)
                .ok();
            if filter.words.is_none() {
                filter.seeking = Mask::default();
            }
        }
        filter
    }

    fn plan(&mut self, chosen: &[(usize, &Link, Requirement)]) {
        // First what concerns all members of a source, which the plans for single members begin with.
        for named in [false, true] {
            for (number, (_, link, _)) in chosen.iter().enumerate() {
                for target in &link.targets {
                    for source in target.sources.iter() {
                        let plans = &mut self.plans[source.index()];
                        match &target.select {
                            Select::Name(name) if named => {
                                let any = &plans.any;
                                plans.named.entry(name.clone()).or_insert_with(|| any.clone()).add(link, number);
                            }
                            Select::Name(_) => {}
                            // Whether the name is one of these, the rule itself sees to.
                            _ if !named => plans.any.add(link, number),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    /// Whether the rule with this number of the set is run only on what the filter finds.
    pub(crate) fn speaks_for(&self, rule: usize) -> bool {
        self.rules.binary_search(&(rule as u32)).is_ok()
    }

    /// Finds the rules that might match a value. `name` is the member's, as sent; `start` is where in `values` it is.
    pub(crate) fn look(
        &self,
        source: Source,
        name: &[u8],
        entry: u32,
        values: &[u8],
        (start, end): (u32, u32),
        found: &mut Found,
    ) {
        let plans = &self.plans[source.index()];
        let plan = if plans.named.is_empty() { &plans.any } else { plans.of(name) };
        if plan.nodes.is_empty() {
            return;
        }
        let value = &values[start as usize..end as usize];
        let bytes = Bytes { transformed: false, start, end };
        let set = ByteSet::of(value);
        if !plan.triggers.meets(&set) {
            self.sieve(value, &set, plan.all, entry, bytes, found);
            return;
        }
        let mut outcomes = std::mem::take(&mut found.outcomes);
        let mut outcome_of = std::mem::take(&mut found.outcome_of);
        outcomes.clear();
        outcome_of.clear();
        outcomes.push(Outcome { bytes, set, rules: plan.nodes[0].rules });
        outcome_of.push(0);
        for node in &plan.nodes[1..] {
            let parent = outcome_of[usize::from(node.parent)];
            let before = outcomes[usize::from(parent)];
            let mut outcome = parent;
            if node.triggers.meets(&before.set) {
                let mut buffer = std::mem::take(&mut found.buffer);
                if node.transformation.apply(before.bytes.of(values, &found.made), &mut buffer) {
                    found.scanned += buffer.len() as u64;
                    let same = outcomes.iter().position(|other| *other.bytes.of(values, &found.made) == buffer[..]);
                    outcome = same.unwrap_or(outcomes.len()) as u16;
                    if same.is_none() {
                        let start = found.made.len() as u32;
                        found.made.extend_from_slice(&buffer);
                        let bytes = Bytes { transformed: true, start, end: found.made.len() as u32 };
                        outcomes.push(Outcome { bytes, set: ByteSet::of(&buffer), rules: Mask::default() });
                    }
                }
                found.buffer = buffer;
            }
            outcome_of.push(outcome);
            outcomes[usize::from(outcome)].rules.add(&node.rules);
        }
        let made = std::mem::take(&mut found.made);
        for outcome in &outcomes {
            self.sieve(outcome.bytes.of(values, &made), &outcome.set, outcome.rules, entry, outcome.bytes, found);
        }
        found.made = made;
        found.outcomes = outcomes;
        found.outcome_of = outcome_of;
    }

    fn sieve(&self, value: &[u8], set: &ByteSet, rules: Mask, entry: u32, bytes: Bytes, found: &mut Found) {
        let mut rules = rules.and(&self.by_length[value.len().min(LENGTHS - 1)]);
        if rules.is_empty() {
            return;
        }
        for (needed, who) in &self.sets {
            if !needed.meets(set) {
                rules.drop(who);
            }
        }
        let mut might = rules;
        might.drop(&self.seeking);
        let seeking = rules.and(&self.seeking);
        found.scanned += value.len() as u64;
        if !seeking.is_empty()
            && let Some(words) = &self.words
        {
            for word in words.find_overlapping_iter(value) {
                for number in &self.seekers[word.pattern().as_usize()] {
                    let number = usize::from(*number);
                    if seeking.contains(number) && self.needs[number].iter().all(|needed| needed.meets(set)) {
                        might.insert(number);
                    }
                }
            }
        }
        for number in might.iter() {
            found.hits.push(Hit { rule: self.rules[number], entry, bytes });
        }
    }
}

impl Bytes {
    pub(crate) fn of<'b>(self, values: &'b [u8], made: &'b [u8]) -> &'b [u8] {
        let from = if self.transformed { made } else { values };
        &from[self.start as usize..self.end as usize]
    }
}

impl Plans {
    fn of(&self, name: &[u8]) -> &Plan {
        let mut lower = [0; 64];
        let plan = match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                self.named.get(&*lower)
            }
            None => self.named.get(&name.to_ascii_lowercase()[..]),
        };
        plan.unwrap_or(&self.any)
    }
}

impl Plan {
    fn add(&mut self, link: &Link, number: usize) {
        if self.nodes.is_empty() {
            let transformation = Transformation::Lowercase;
            self.nodes.push(Node { parent: 0, transformation, triggers: ByteSet::default(), rules: Mask::default() });
        }
        let mut at = 0;
        if link.multi_match {
            self.nodes[0].rules.insert(number);
        }
        for transformation in &link.transformations {
            let known =
                self.nodes[1..].iter().position(|node| node.parent == at && node.transformation == *transformation);
            at = match known {
                Some(position) => position as u16 + 1,
                None => {
                    let (transformation, triggers) = (*transformation, transformation.triggers());
                    self.nodes.push(Node { parent: at, transformation, triggers, rules: Mask::default() });
                    self.nodes.len() as u16 - 1
                }
            };
            if link.multi_match {
                self.nodes[usize::from(at)].rules.insert(number);
            }
            self.triggers = self.triggers.union(&transformation.triggers());
        }
        self.nodes[usize::from(at)].rules.insert(number);
        self.all.insert(number);
    }
}

/// What a rule needs of a value, if the filter may speak for it.
fn speaks_for(kind: Kind, rule: &Rule) -> Option<Requirement> {
    let phases = match kind {
        Kind::Request => [Phase::RequestHeaders, Phase::RequestBody],
        Kind::Response => [Phase::ResponseHeaders, Phase::ResponseBody],
    };
    let link = &rule.links[0];
    let kept = |target: &Target| !target.count && !target.sources.is_none() && kind_of(target.variable) == kind;
    if !phases.contains(&rule.phase) || link.negated || link.targets.is_empty() || !link.targets.iter().all(kept) {
        return None;
    }
    requirement(&link.matcher).filter(Requirement::is_something)
}

fn kind_of(variable: Variable) -> Kind {
    match variable {
        Variable::ResponseBody
        | Variable::ResponseContentLength
        | Variable::ResponseContentType
        | Variable::ResponseHeaders
        | Variable::ResponseHeadersNames
        | Variable::ResponseProtocol
        | Variable::ResponseStatus
        | Variable::OutboundDataError
        | Variable::StatusLine => Kind::Response,
        _ => Kind::Request,
    }
}

fn requirement(matcher: &Matcher) -> Option<Requirement> {
    match matcher {
        Matcher::Regex(expression) => Some(Requirement::expression(&expression.hir)),
        Matcher::Words(words) => Some(Requirement::words(words.words.iter().cloned())),
        Matcher::Literal(place, finder) if *place != Place::Within && !finder.needle().is_empty() => {
            Some(Requirement::words([finder.needle().to_vec()]))
        }
        Matcher::ByteRange(allowed) => {
            let allowed = (0..=255_u8).filter(|byte| allowed[usize::from(*byte)]);
            Some(Requirement::set(ByteSet::of(&allowed.collect::<Vec<_>>()).complement()))
        }
        Matcher::Sqli => {
            let words = (0..=255_u8).filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            Some(Requirement::set(ByteSet::of(&words.collect::<Vec<_>>()).complement()))
        }
        Matcher::Xss => Some(Requirement::set(ByteSet::of(b"<="))),
        Matcher::UrlEncoding => Some(Requirement::set(ByteSet::of(b"%"))),
        Matcher::Utf8Encoding => Some(Requirement::set(ByteSet([0, 0, u64::MAX, u64::MAX]))),
        _ => None,
    }
}
