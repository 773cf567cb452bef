//! What is settled before any request: rules that cannot match, and rules that a jump always passes by.
//!
//! TX begins empty, and what a rule set does to it first (its settings) is the same for every request. Followed through the
//! phases, that decides most conditions on TX alone: the gates of paranoia levels above all. What depends on the request, or
//! on a rule that a request may switch off, is unknown from there on.

use std::collections::HashMap;

use super::{
    bits::Bits,
    names::{GROUPS, Names},
    rule::{Amount, Capture, Disruption, Effect, MemberName, Piece, Rule, Select, SetVarValue},
};
use crate::{
    operator::Matcher,
    seclang::{Phase, Variable},
};

/// What is known of a member of TX.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Number(i64),
    /// It may be anything, or not there.
    Nothing,
}

/// The rules that never run to any effect.
pub(super) fn idle(rules: &[Rule], tx: &Names) -> Bits {
    let mut idle = Bits::new(rules.len());
    // What a request may switch off, so far: rules, or of rules the look at TX.
    let mut removable: Vec<(&Bits, bool)> = Vec::new();
    // What is not among these is not there.
    let mut known: HashMap<u32, Known> = HashMap::new();
    // Rules before this one may be passed by, depending on the request; and where jumps like that lead.
    let (mut doubtful, mut landings) = (0, Vec::new());
    // Rules before this one are passed by, unless what leads past them is switched off and they are not.
    let (mut passed, mut with): (usize, Vec<&Bits>) = (0, Vec::new());
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
        follow(rule, certain && own.is_empty(), tx, &mut known);
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
        } else {
            doubtful = doubtful.max(to);
            landings.push(to);
        }
    }
    idle
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
    let value = known.get(number).copied();
    let value = match (target.count, value) {
        (_, Some(Known::Nothing)) => return None,
        (true, value) => i64::from(value.is_some()),
        (false, Some(Known::Number(value))) => value,
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
                Some(Known::Number(before)) => Some(*before),
                Some(Known::Nothing) => None,
            };
            let after = match (&set.value, before) {
                (SetVarValue::Number(value), _) => Known::Number(*value),
                (SetVarValue::Add(Amount::Number(more)), Some(before)) => Known::Number(before.saturating_add(*more)),
                (SetVarValue::Subtract(Amount::Number(less)), Some(before)) => {
                    Known::Number(before.saturating_sub(*less))
                }
                (SetVarValue::Set(text), _) => copied(text, known),
                _ => Known::Nothing,
            };
            known.insert(number, if certain { after } else { Known::Nothing });
        }
    }
}

/// What a text that is one macro stands for: `%{tx.blocking_paranoia_level}`.
fn copied(text: &super::rule::Text, known: &HashMap<u32, Known>) -> Known {
    match &text.0[..] {
        [Piece::Tx(number)] => known.get(number).copied().unwrap_or(Known::Nothing),
        _ => Known::Nothing,
    }
}
