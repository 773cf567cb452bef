//! An expression without conditions for some of what one with conditions matches.
//!
//! That no `c` comes next is said by what comes next, if that is a byte: `\s*+[^;]` matches what `\s*[^;\s]` does. Where it may
//! be nothing, that is left out. Most of what people send is sure to match in this way, and found so by an automaton.

use std::collections::BTreeSet;

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

use super::{Kind, Mark};
use crate::byte_set::ByteSet;

/// Nodes that it may take.
const SIZE: usize = 4096;

/// Whatever the result matches, the expression does. `None`: there is no such thing, or it is not simple.
pub(super) fn sure(hir: &Hir, marks: &[Mark], needed: &BTreeSet<u32>) -> Option<Hir> {
    let inside = |sub: &Hir| sure(sub, marks, needed);
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => Some(hir.clone()),
        HirKind::Repetition(repetition) => match inside(&repetition.sub) {
            Some(sub) => Some(Hir::repetition(Repetition { sub: Box::new(sub), ..repetition.clone() })),
            None => (repetition.min == 0).then(Hir::empty),
        },
        // One that is marked has nothing behind it here; in a concatenation, that is seen below.
        HirKind::Capture(capture) => match marks.iter().find(|mark| mark.group == capture.index) {
            Some(mark) if needed.contains(&mark.group) => None,
            Some(_) => Some(Hir::empty()),
            None => inside(&capture.sub),
        },
        HirKind::Concat(parts) => {
            let mut behind = Hir::empty();
            for part in parts.iter().rev() {
                behind = match possessive(part, marks, needed) {
                    Some(set) => not_first(&behind, &set)?,
                    None => Hir::concat(vec![inside(part)?, behind]),
                };
                if size(&behind) > SIZE {
                    return None;
                }
            }
            Some(behind)
        }
        HirKind::Alternation(branches) => alternatives(branches.iter().filter_map(inside).collect()),
    }
}

/// The bytes of which none may come next, if that is what a part says.
fn possessive(part: &Hir, marks: &[Mark], needed: &BTreeSet<u32>) -> Option<ByteSet> {
    let HirKind::Capture(capture) = part.kind() else { return None };
    let mark = marks.iter().find(|mark| mark.group == capture.index)?;
    if !matches!(mark.kind, Kind::Possessive) || !needed.contains(&mark.group) {
        return None;
    }
    match capture.sub.kind() {
        HirKind::Class(class) => ByteSet::of_class(class),
        HirKind::Literal(literal) if literal.0.len() == 1 => Some(ByteSet::of(&literal.0)),
        _ => None,
    }
}

/// What matches at least a byte, and begins with none of these; or the end.
fn not_first(hir: &Hir, set: &ByteSet) -> Option<Hir> {
    match hir.kind() {
        HirKind::Literal(literal) => (!set.contains(literal.0[0])).then(|| hir.clone()),
        HirKind::Class(class) => {
            let left = ByteSet::of_class(class)?.both(&set.complement());
            (!left.is_empty()).then(|| Hir::class(left.to_class()))
        }
        HirKind::Look(Look::End) => Some(hir.clone()),
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Repetition(Repetition { min, max, greedy, sub }) => {
            let max = match max {
                Some(0) => return None,
                max => max.map(|max| max - 1),
            };
            let more = Repetition { min: min.saturating_sub(1), max, greedy: *greedy, sub: sub.clone() };
            Some(Hir::concat(vec![not_first(sub, set)?, Hir::repetition(more)]))
        }
        HirKind::Capture(capture) => not_first(&capture.sub, set),
        HirKind::Concat(parts) => {
            let mut ways = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                if let Some(first) = not_first(part, set) {
                    ways.push(Hir::concat([&[first], &parts[at + 1..]].concat()));
                }
                if !may_be_empty(part) {
                    break;
                }
            }
            alternatives(ways)
        }
        HirKind::Alternation(branches) => {
            alternatives(branches.iter().filter_map(|branch| not_first(branch, set)).collect())
        }
    }
}

fn alternatives(ways: Vec<Hir>) -> Option<Hir> {
    (!ways.is_empty()).then(|| Hir::alternation(ways))
}

/// Whether a part may match nothing, wherever it stands.
fn may_be_empty(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => false,
        HirKind::Repetition(repetition) => repetition.min == 0 || may_be_empty(&repetition.sub),
        HirKind::Capture(capture) => may_be_empty(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(may_be_empty),
        HirKind::Alternation(branches) => branches.iter().any(may_be_empty),
    }
}

fn size(hir: &Hir) -> usize {
    1 + match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 0,
        HirKind::Repetition(repetition) => size(&repetition.sub),
        HirKind::Capture(capture) => size(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(size).sum(),
    }
}
