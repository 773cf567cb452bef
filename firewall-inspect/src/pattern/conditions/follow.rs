//! Which conditions say something.

use std::collections::BTreeSet;

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

use super::{Kind, Mark};
use crate::byte_set::ByteSet;

/// The groups of those that say something: all but that no `c` comes next where what comes next never begins with it, as in
/// `\s*+;`.
pub(super) fn needed(hir: &Hir, marks: &[Mark]) -> BTreeSet<u32> {
    let mut follow = Follow { marks, needed: BTreeSet::new() };
    follow.first(hir, ByteSet::ALL);
    follow.needed
}

struct Follow<'m> {
    marks: &'m [Mark],
    needed: BTreeSet<u32>,
}

impl Follow<'_> {
    /// The bytes that a part of the expression with all that is behind it may begin with, if that may begin with `after`.
    fn first(&mut self, hir: &Hir, after: ByteSet) -> ByteSet {
        match hir.kind() {
            HirKind::Empty => after,
            HirKind::Literal(literal) => ByteSet::of(&literal.0[..1]),
            HirKind::Class(class) => ByteSet::of_class(class).unwrap_or(ByteSet::ALL),
            HirKind::Look(Look::End) => ByteSet::default(),
            HirKind::Look(_) => after,
            HirKind::Repetition(Repetition { min, max, sub, .. }) => {
                let mut first = self.first(sub, after);
                // It comes again, once more or often.
                while *max != Some(1) {
                    let more = self.first(sub, after.union(&first)).union(&first);
                    if more == first {
                        break;
                    }
                    first = more;
                }
                if *min == 0 { first.union(&after) } else { first }
            }
            HirKind::Capture(capture) => match self.marks.iter().find(|mark| mark.group == capture.index) {
                None => self.first(&capture.sub, after),
                Some(Mark { kind: Kind::Possessive, .. }) => {
                    let byte = capture.sub.properties().maximum_len() == Some(1);
                    if !byte || self.first(&capture.sub, ByteSet::ALL).meets(&after) {
                        self.needed.insert(capture.index);
                    }
                    after
                }
                Some(mark) => {
                    self.needed.insert(capture.index);
                    self.first(&capture.sub, ByteSet::ALL);
                    if matches!(mark.kind, Kind::Back(_)) { ByteSet::ALL } else { after }
                }
            },
            HirKind::Concat(parts) => parts.iter().rev().fold(after, |after, part| self.first(part, after)),
            HirKind::Alternation(branches) => {
                branches.iter().fold(ByteSet::default(), |first, branch| first.union(&self.first(branch, after)))
            }
        }
    }
}
