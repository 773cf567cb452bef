//! What is settled before any request: rules that cannot match, rules that a jump always passes by, and what rules always do.
//!
//! TX begins empty, and what a rule set does to it first (its settings) is the same for every request. Followed through the
//! phases, that decides most conditions on TX alone: the gates of paranoia levels above all. What depends on the request, or
//! on a rule that a request may switch off, is unknown from there on. What the first phase always does to TX before anything
//! else could look at it is done once, and TX begins with it.

use std::collections::{HashMap, HashSet};

use super::{
    bits::Bits,
    names::{GROUPS, Names},
    rule::{Amount, Capture, Disruption, Effect, Link, MemberName, Piece, Rule, Select, SetVarValue, Text},
    value::Value,
};
use crate::{
    operator::Matcher,
    seclang::{Phase, Variable},
};

/// What came of it.
pub(super) struct Folded {
    /// The rules that never run to any effect.
    pub(super) idle: Bits,
    /// What TX holds at the beginning, by the numbers of its names.
    pub(super) begin: Vec<Option<Value>>,
}

/// What is known of a member of TX.
#[derive(Clone, PartialEq, Eq)]
enum Known {
    Value(Value),
    /// It may be anything, or not there.
    Nothing,
}

pub(super) fn fold(rules: &[Rule], tx: &Names) -> Folded {
    let mut folded = Folded { idle: Bits::new(rules.len()), begin: vec![None; tx.len()] };
    let idle = &mut folded.idle;
    // What a request may switch off, so far: rules, or of rules the look at TX.
    let mut removable: Vec<(&Bits, bool)> = Vec::new();
    // What is not among these is not there.
    let mut known: HashMap<u32, Known> = HashMap::new();
    // What rules that run for a request may have read or written.
    let mut touched = Touched::default();
    // Rules before this one may be passed by, depending on the request; and where jumps like that lead.
    let (mut doubtful, mut landings) = (0, Vec::new());
    // Rules before this one are passed by, unless what leads past them is switched off and they are not.
    let (mut passed, mut with): (usize, Vec<&Bits>) = (0, Vec::new());
    // Rules that do nothing but jump, and where to.
    let mut gates: Vec<(usize, usize)> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        // The last phase runs whatever ended the others.
        if rule.phase == Phase::Logging {
            break;
        }
        if index < passed {
            if with.iter().all(|removed| removed.contains(index)) {
                idle.insert(index);
                continue;
            }
            doubtful = doubtful.max(passed);
            landings.push(passed);
        }
        let verdict = settled(rule, &known);
        if verdict == Some(false) {
            idle.insert(index);
            continue;
        }
        let certain = verdict == Some(true) && index >= doubtful;
        let own: Vec<(&Bits, bool)> = removable.iter().filter(|(rules, _)| rules.contains(index)).copied().collect();
        let certain_to_run = certain && own.is_empty();
        follow(rule, certain_to_run, tx, &mut known);
        if certain_to_run && let Some(sets) = only_sets(rule, &known, &touched) {
            for (number, value) in sets {
                folded.begin[number as usize] = Some(value);
            }
            idle.insert(index);
            continue;
        }
        touched.by(rule);
        for effect in rule.links.iter().flat_map(|link| &link.effects) {
            match effect {
                Effect::RemoveRules(rules) => removable.push((rules, true)),
                Effect::RemoveTargets(rules, targets)
                    if targets.iter().any(|target| target.variable == Variable::Tx) =>
                {
                    removable.push((rules, false));
                }
                _ => {}
            }
        }
        if matches!(rule.disruption, Disruption::AllowPhase | Disruption::AllowRequest | Disruption::AllowAll) {
            doubtful = usize::MAX;
        }
        let Some(to) = rule.jump else { continue };
        // Whoever gets here jumps. What is between is passed by, if no other jump leads to it.
        let jumps = verdict == Some(true) && matches!(rule.disruption, Disruption::Pass);
        if jumps && own.iter().all(|(_, whole)| *whole) && landings.iter().all(|at| *at <= index || *at >= to) {
            (passed, with) = (to, own.into_iter().map(|(rules, _)| rules).collect());
            if is_silent(rule) && rule.links.iter().all(|link| link.sets.is_empty() && link.effects.is_empty()) {
                gates.push((index, to));
            }
        } else {
            doubtful = doubtful.max(to);
            landings.push(to);
        }
    }
    // A jump past nothing.
    for (index, to) in gates.into_iter().rev() {
        if (index + 1..to).all(|passed| idle.contains(passed)) {
            idle.insert(index);
        }
    }
    folded
}

/// Whether a rule matches, where that is known.
fn settled(rule: &Rule, known: &HashMap<u32, Known>) -> Option<bool> {
    let [link] = &rule.links[..] else { return None };
    if link.targets.is_empty() {
        return Some(true);
    }
    let ([target], [], []) = (&link.targets[..], &link.exclusions[..], &link.transformations[..]) else { return None };
    let (Variable::Tx, Select::Tx(number), Matcher::Number(order, other)) =
        (target.variable, &target.select, &link.matcher)
    else {
        return None;
    };
    let value = match (target.count, known.get(number)) {
        (_, Some(Known::Nothing)) => return None,
        (true, value) => i64::from(value.is_some()),
        (false, Some(Known::Value(value))) => value.number(),
        // No value, no match, not even a negated one.
        (false, None) => return Some(false),
    };
    Some(order.holds(value, *other) != link.negated)
}

/// What a rule leaves in TX.
fn follow(rule: &Rule, certain: bool, tx: &Names, known: &mut HashMap<u32, Known>) {
    for link in &rule.links {
        if link.capture != Capture::Nothing {
            known.extend((0..GROUPS).map(|group| (group, Known::Nothing)));
        }
        for set in &link.sets {
            let number = match &set.name {
                MemberName::Tx(number) => *number,
                MemberName::Dynamic(Variable::Tx, name) => {
                    let start = match name.0.first() {
                        Some(Piece::Literal(literal)) => literal.to_ascii_lowercase(),
                        _ => Vec::new(),
                    };
                    let meant = (0..tx.len() as u32).filter(|number| tx.name(*number).starts_with(&start));
                    known.extend(meant.map(|number| (number, Known::Nothing)));
                    continue;
                }
                MemberName::Dynamic(..) => continue,
            };
            let before = match known.get(&number) {
                None => Some(0),
                Some(Known::Value(before)) => Some(before.number()),
                Some(Known::Nothing) => None,
            };
            let value = |number| Known::Value(Value::Number(number));
            let after = match (&set.value, before) {
                (SetVarValue::Number(number), _) => value(*number),
                (SetVarValue::Add(Amount::Number(more)), Some(before)) => value(before.saturating_add(*more)),
                (SetVarValue::Subtract(Amount::Number(less)), Some(before)) => value(before.saturating_sub(*less)),
                (SetVarValue::Set(text), _) => expanded(text, known),
                _ => Known::Nothing,
            };
            known.insert(number, if certain { after } else { Known::Nothing });
        }
    }
}

/// What a text comes to, its macros in place: `%{tx.blocking_paranoia_level}`.
fn expanded(text: &Text, known: &HashMap<u32, Known>) -> Known {
    let mut bytes = Vec::new();
    for piece in &text.0 {
        match piece {
            Piece::Literal(literal) => bytes.extend_from_slice(literal),
            Piece::Tx(number) => match known.get(number) {
                None => {}
                Some(Known::Value(value)) => value.write(&mut bytes),
                Some(Known::Nothing) => return Known::Nothing,
            },
            Piece::Variable(..) => return Known::Nothing,
        }
    }
    Known::Value(Value::Bytes(bytes))
}

/// Of a rule that always runs and matches: what it leaves in TX, if that is all it does, and nobody sees it done beforehand.
fn only_sets(rule: &Rule, known: &HashMap<u32, Known>, touched: &Touched) -> Option<Vec<(u32, Value)>> {
    let [Link { capture: Capture::Nothing, effects, sets, .. }] = &rule.links[..] else { return None };
    let alone = rule.phase == Phase::RequestHeaders
        && is_silent(rule)
        && rule.jump.is_none()
        && effects.is_empty()
        && !touched.all
        && matches!(rule.disruption, Disruption::Pass);
    if !alone {
        return None;
    }
    let values = sets.iter().map(|set| match &set.name {
        MemberName::Tx(number) if !touched.names.contains(number) => match known.get(number) {
            Some(Known::Value(value)) => Some((*number, value.clone())),
            _ => None,
        },
        _ => None,
    });
    values.collect()
}

/// Whether nothing is told of a rule that matches.
fn is_silent(rule: &Rule) -> bool {
    !rule.log && rule.severity.is_none()
}

/// Members of TX that rules may have read or written.
#[derive(Default)]
struct Touched {
    names: HashSet<u32>,
    all: bool,
}

impl Touched {
    fn by(&mut self, rule: &Rule) {
        // What it ends is not what it would have been: from here on, everything is in its place or not at all.
        self.all |= !matches!(rule.disruption, Disruption::Pass);
        for text in rule.message.iter().chain(&rule.data).chain(&rule.tags) {
            self.by_text(text);
        }
        for link in &rule.links {
            for target in link.targets.iter().chain(&link.exclusions).filter(|target| target.variable == Variable::Tx) {
                match &target.select {
                    Select::Tx(number) => drop(self.names.insert(*number)),
                    Select::Expression(names) => self.names.extend(&names.tx),
                    Select::All | Select::Name(_) => self.all = true,
                }
            }
            link.argument.iter().for_each(|text| self.by_text(text));
            if link.capture != Capture::Nothing {
                self.names.extend(0..GROUPS);
            }
            for set in &link.sets {
                match &set.name {
                    MemberName::Tx(number) => drop(self.names.insert(*number)),
                    MemberName::Dynamic(Variable::Tx, _) => self.all = true,
                    MemberName::Dynamic(_, name) => self.by_text(name),
                }
                match &set.value {
                    SetVarValue::Set(text)
                    | SetVarValue::Add(Amount::Text(text))
                    | SetVarValue::Subtract(Amount::Text(text)) => self.by_text(text),
                    _ => {}
                }
            }
            for effect in &link.effects {
                match effect {
                    Effect::SetEnv(name, value) => [name, value].into_iter().for_each(|text| self.by_text(text)),
                    // The engine may be off from here on.
                    Effect::RuleEngine(_) => self.all = true,
                    _ => {}
                }
            }
        }
    }

    fn by_text(&mut self, text: &Text) {
        self.names.extend(text.0.iter().filter_map(|piece| match piece {
            Piece::Tx(number) => Some(number),
            _ => None,
        }));
    }
}
