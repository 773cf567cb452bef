//! Which rules could match a value: the sieve before the expressions.
//!
//! A value is transformed along all chains of transformations that some rule wants of it, each step once; what comes out
//! equal is looked at once. Of each outcome, three things are asked that every rule has answered beforehand
//! ([`Requirement`]): is it long enough, has it the bytes, has it one of the words. A rule that passes is run on it with its
//! own operator. What is asked is necessary for a match, so nothing is lost; how much it spares, only time tells.

mod mask;
mod sieve;
mod words;

use std::collections::HashMap;

use self::{
    mask::{MOST, Mask},
    sieve::Sieve,
};
use super::{
    bits::Bits,
    require::Requirement,
    rule::{Link, Rule, Select, Source, Target},
};
use crate::{
    byte_set::ByteSet,
    injection,
    operator::Matcher,
    seclang::{Phase, Transformation, Variable},
    transform::Triggers,
};

/// Lengths from here on are all the same.
const LENGTHS: usize = 33;

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
    /// The first that takes a value speaks for it; the last takes all.
    sieves: Vec<Sieve>,
    /// Those that look for SQL, and for markup.
    sqli: Mask,
    xss: Mask,
    plans: Vec<Plans>,
}

/// What is looked for in the values of a source.
#[derive(Debug, Default)]
struct Plans {
    any: Plan,
    /// By the member's name, in lower case; what is looked for in any is part of it.
    named: HashMap<Box<[u8]>, Plan>,
    /// How long these names are; 63 is that, or longer.
    lengths: u64,
}

#[derive(Clone, Debug, Default)]
struct Plan {
    /// What becomes of a value: the first node is the value itself. A node's parent is before it.
    nodes: Vec<Node>,
    /// For values of each length, what makes a node differ from its parent; of nodes whose rules so many bytes are enough for.
    triggers: Vec<Triggers>,
    all: Mask,
}

/// A transformation of what the parent made. All that is made of it comes right behind it.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u16,
    transformation: Transformation,
    triggers: Triggers,
    rules: Mask,
    /// Of it and all that is made of it: the node behind them, what triggers one, their rules, and whether one may make more
    /// bytes than it gets.
    end: u16,
    any_triggers: Triggers,
    any_rules: Mask,
    grows: bool,
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
    /// Bytes that were read, each time that they were.
    pub(crate) read: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    bytes: Bytes,
    set: ByteSet,
    rules: Mask,
}

impl Filter {
    pub(crate) fn build(kind: Kind, rules: &[Rule], idle: &Bits) -> Self {
        let chosen = rules.iter().enumerate().filter(|(index, rule)| !idle.contains(*index) && speaks_for(kind, rule));
        let chosen: Vec<(usize, &Link)> = chosen.map(|(index, rule)| (index, &rule.links[0])).take(MOST).collect();
        let matchers: Vec<&Matcher> = chosen.iter().map(|(_, link)| &link.matcher).collect();
        let mut filter = Self {
            rules: chosen.iter().map(|(index, _)| *index as u32).collect(),
            sieves: alphabets().map(|alphabet| Sieve::build(alphabet, &matchers)).into(),
            sqli: Mask::default(),
            xss: Mask::default(),
            plans: std::iter::repeat_with(Plans::default).take(Source::COUNT).collect(),
        };
        for (number, matcher) in matchers.iter().enumerate() {
            match matcher {
                Matcher::Sqli => filter.sqli.insert(number),
                Matcher::Xss => filter.xss.insert(number),
                _ => {}
            }
        }
        filter.plan(&chosen);
        let mut all = std::mem::take(&mut filter.plans);
        for plans in &mut all {
            for plan in plans.named.values_mut().chain([&mut plans.any]) {
                plan.settle();
                let triggers = |length| {
                    let worth = plan.nodes.iter().skip(1).filter(|node| filter.is_worth(node, length));
                    worth.fold(Triggers::default(), |all, node| all.union(&node.triggers))
                };
                plan.triggers = (0..LENGTHS).map(triggers).collect();
            }
            plans.lengths = plans.named.keys().fold(0, |lengths, name| lengths | 1 << name.len().min(63));
        }
        filter.plans = all;
        filter
    }

    fn plan(&mut self, chosen: &[(usize, &Link)]) {
        // First what concerns all members of a source, which the plans for single members begin with.
        for named in [false, true] {
            for (number, (_, link)) in chosen.iter().enumerate() {
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
        let plan = plans.of(name);
        if plan.nodes.is_empty() {
            return;
        }
        let value = &values[start as usize..end as usize];
        let bytes = Bytes { transformed: false, start, end };
        let set = ByteSet::of(value);
        if !plan.triggers[value.len().min(LENGTHS - 1)].meet(&set, value.len()) {
            self.sieve(value, &set, plan.all, entry, bytes, found);
            return;
        }
        let mut outcomes = std::mem::take(&mut found.outcomes);
        let mut outcome_of = std::mem::take(&mut found.outcome_of);
        outcomes.clear();
        outcomes.push(Outcome { bytes, set, rules: plan.nodes[0].rules });
        outcome_of.clear();
        outcome_of.resize(plan.nodes.len(), 0);
        let mut at = 1;
        while let Some(node) = plan.nodes.get(at) {
            let mut outcome = outcome_of[usize::from(node.parent)];
            let before = &mut outcomes[usize::from(outcome)];
            if !node.any_triggers.meet(&before.set, before.bytes.len()) {
                before.rules.add(&node.any_rules);
                at = usize::from(node.end);
                continue;
            }
            if !self.is_worth(node, before.bytes.len()) {
                at = usize::from(node.end);
                continue;
            }
            if node.triggers.meet(&before.set, before.bytes.len()) {
                found.read += before.bytes.len() as u64;
                let mut buffer = std::mem::take(&mut found.buffer);
                if node.transformation.apply(before.bytes.of(values, &found.made), &mut buffer) {
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
            outcome_of[at] = outcome;
            outcomes[usize::from(outcome)].rules.add(&node.rules);
            at += 1;
        }
        let made = std::mem::take(&mut found.made);
        for outcome in &outcomes {
            self.sieve(outcome.bytes.of(values, &made), &outcome.set, outcome.rules, entry, outcome.bytes, found);
        }
        found.made = made;
        found.outcomes = outcomes;
        found.outcome_of = outcome_of;
    }

    /// Whether so many bytes, and all that a node makes of them, are enough for one of its rules.
    fn is_worth(&self, node: &Node, length: usize) -> bool {
        node.grows || self.sieves.last().is_none_or(|sieve| sieve.has_length(length, &node.any_rules))
    }

    fn sieve(&self, value: &[u8], set: &ByteSet, rules: Mask, entry: u32, bytes: Bytes, found: &mut Found) {
        let Some(sieve) = self.sieves.iter().find(|sieve| sieve.takes(set)) else { return };
        found.read += value.len() as u64;
        let mut might = sieve.might(value, set, rules);
        if !might.and(&self.sqli).is_empty() && !injection::sqli_possible(value) {
            might.drop(&self.sqli);
        }
        if !might.and(&self.xss).is_empty() && !injection::xss_possible(value) {
            might.drop(&self.xss);
        }
        for number in might.iter() {
            found.hits.push(Hit { rule: self.rules[number], entry, bytes });
        }
    }
}

impl Bytes {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub(crate) fn of<'b>(self, values: &'b [u8], made: &'b [u8]) -> &'b [u8] {
        let from = if self.transformed { made } else { values };
        &from[self.start as usize..self.end as usize]
    }
}

impl Plans {
    fn of(&self, name: &[u8]) -> &Plan {
        if self.lengths >> name.len().min(63) & 1 == 0 {
            return &self.any;
        }
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

impl Node {
    fn new(parent: u16, transformation: Transformation, triggers: Triggers) -> Self {
        Self {
            parent,
            transformation,
            triggers,
            rules: Mask::default(),
            end: 0,
            any_triggers: triggers,
            any_rules: Mask::default(),
            grows: transformation.grows(),
        }
    }
}

impl Plan {
    /// Puts every node before those that are made of it, with nothing else in between.
    fn settle(&mut self) {
        let before = std::mem::take(&mut self.nodes);
        if let Some(root) = before.first() {
            self.nodes.push(*root);
            self.settle_below(&before, 0, 0);
        }
    }

    /// What is made of a node, by its place in `before` and here.
    fn settle_below(&mut self, before: &[Node], old: u16, new: u16) {
        for (number, node) in before.iter().enumerate().skip(1).filter(|(_, node)| node.parent == old) {
            let at = self.nodes.len();
            self.nodes.push(Node { parent: new, any_rules: node.rules, ..*node });
            self.settle_below(before, number as u16, at as u16);
            let below = self.nodes[at + 1..].to_vec();
            let node = &mut self.nodes[at];
            node.end = (at + 1 + below.len()) as u16;
            for other in below {
                node.any_triggers = node.any_triggers.union(&other.triggers);
                node.any_rules.add(&other.rules);
                node.grows |= other.grows;
            }
        }
    }

    fn add(&mut self, link: &Link, number: usize) {
        if self.nodes.is_empty() {
            let transformation = Transformation::Lowercase;
            self.nodes.push(Node::new(0, transformation, Triggers::default()));
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
                    self.nodes.push(Node::new(at, *transformation, transformation.triggers()));
                    self.nodes.len() as u16 - 1
                }
            };
            if link.multi_match {
                self.nodes[usize::from(at)].rules.insert(number);
            }
        }
        self.nodes[usize::from(at)].rules.insert(number);
        self.all.insert(number);
    }
}

/// The bytes that each sieve's values consist of: words and numbers, and all.
fn alphabets() -> [ByteSet; 2] {
    let plain = ByteSet::matching(|byte| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte));
    [plain, ByteSet::ALL]
}

/// Whether the filter may speak for a rule.
fn speaks_for(kind: Kind, rule: &Rule) -> bool {
    let phases = match kind {
        Kind::Request => [Phase::RequestHeaders, Phase::RequestBody],
        Kind::Response => [Phase::ResponseHeaders, Phase::ResponseBody],
    };
    let link = &rule.links[0];
    let kept = |target: &Target| !target.count && !target.sources.is_none() && kind_of(target.variable) == kind;
    if !phases.contains(&rule.phase) || link.negated || link.targets.is_empty() || !link.targets.iter().all(kept) {
        return false;
    }
    Requirement::of(&link.matcher, &ByteSet::ALL).is_some_and(|requirement| requirement.is_something())
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
