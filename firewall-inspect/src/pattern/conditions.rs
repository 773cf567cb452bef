//! What an automaton does not know: look-around, back-references and possessive quantifiers.
//!
//! The translator writes each as a group and marks it ([`Mark`]). From the tree come two things:
//!
//! - the *wide* expression, where look-around always holds and a back-reference is anything. Whatever matches, matches it as
//!   well, so it is the filter's, and says where a match may begin;
//! - a list of [`Step`]s. All ways through it are walked side by side, a byte at a time (Pike's machine), and a way that arrives
//!   where another has been at the same byte, with the same group to refer back to, ends. Nothing is tried again.
//!
//! So the work for each byte is bounded by the number of steps, save where back-references keep many ways apart: then [`Excess`]
//! tells that too much was done, and the rule counts as matched.
//!
//! A possessive `c*+` of one byte or class is `c*(?!c)`, which is the same: no shorter run of them has something else behind it.
//! Atomic groups and other possessive quantifiers are errors.

mod follow;
mod sure;

use std::collections::BTreeSet;

use regex_automata::{
    Input,
    meta::{Cache, Regex},
    util::primitives::NonMaxUsize,
};
use regex_syntax::hir::{Class, Dot, Hir, HirKind, Look, Repetition};

use super::PatternError;
use crate::byte_set::ByteSet;

/// Steps of an expression, at most.
const STEPS: usize = 4096;
/// Bytes that look-around may look at, beside what a back-reference takes.
const SIGHT: usize = 255;
/// Visits to each step for each byte of the value and 256 more, on average, at most.
const VISITS: u64 = 4;
/// The whole match and the groups 1 to 9, as starts and ends.
const SLOTS: usize = 20;
const UNSET: u32 = u32::MAX;

/// A group that stands for something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The group's number, as the tree counts.
    pub(super) group: u32,
    pub(super) kind: Kind,
    /// Where it stands in the expression.
    pub(super) offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Look {
        behind: bool,
        negated: bool,
    },
    /// What does not come next. It is one byte.
    Possessive,
    /// To this group, as the expression counts. What is in the marked group is `x?.*`, and tells whether case matters here.
    Back(u32),
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Look { .. } => "look-around",
            Self::Possessive => "a possessive quantifier",
            Self::Back(_) => "a back-reference",
        }
    }
}

/// More was to be done than the value's length allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess;

/// Starts and ends of groups, as `regex_automata` has them.
pub(crate) type Slots = [Option<NonMaxUsize>; SLOTS];

/// An expression with conditions.
#[derive(Debug)]
pub(crate) struct Conditions {
    steps: Vec<Step>,
    /// The group that is referred back to.
    group: Option<usize>,
    /// Whatever this finds a match in, has one: the first thing to try where it does not matter which.
    pub(crate) sure: Option<Regex>,
}

#[derive(Debug)]
enum Step {
    Byte(ByteSet),
    /// The byte here, if there is one, is not one of these.
    Not(ByteSet),
    Look(Look),
    Slot(usize),
    /// Both; the first one rather.
    Fork(usize, usize),
    Goto(usize),
    Back {
        any_case: bool,
    },
    /// Whether the steps that follow match from here on, or, `behind`, from so many bytes before up to here. It goes on at `next`.
    Ask {
        negated: bool,
        behind: Option<(usize, usize)>,
        next: usize,
    },
    Found,
}

/// The wide expression, and the narrow one, unless that is the same.
pub(super) fn split(hir: &Hir, marks: &[Mark]) -> Result<(Hir, Option<Conditions>), PatternError> {
    let needed = follow::needed(hir, marks);
    let sure = sure::sure(hir, marks, &needed).and_then(|sure| super::build(&sure).ok());
    let mut compiler = Compiler { marks, needed, steps: Vec::new(), group: None, asking: false };
    compiler.add(hir)?;
    compiler.steps.push(Step::Found);
    let anything =
        Hir::repetition(Repetition { min: 0, max: None, greedy: true, sub: Box::new(Hir::dot(Dot::AnyByte)) });
    let conditions = Conditions { steps: compiler.steps, group: compiler.group, sure };
    Ok((replaced(hir, marks, &anything), (!compiler.needed.is_empty()).then_some(conditions)))
}

/// Without marked groups: back-references become `back`, the others nothing.
fn replaced(hir: &Hir, marks: &[Mark], back: &Hir) -> Hir {
    let inside = |sub: &Hir| replaced(sub, marks, back);
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(inside(&repetition.sub)), ..repetition.clone() })
        }
        HirKind::Capture(capture) => match marks.iter().find(|mark| mark.group == capture.index) {
            Some(Mark { kind: Kind::Back(_), .. }) => back.clone(),
            Some(_) => Hir::empty(),
            None => {
                let index = number(marks, capture.index);
                let sub = Box::new(inside(&capture.sub));
                Hir::capture(regex_syntax::hir::Capture { index, name: None, sub })
            }
        },
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(inside).collect()),
        HirKind::Alternation(branches) => Hir::alternation(branches.iter().map(inside).collect()),
    }
}

/// A group's number as the expression counts.
fn number(marks: &[Mark], group: u32) -> u32 {
    group - marks.iter().filter(|mark| mark.group < group).count() as u32
}

struct Compiler<'m> {
    marks: &'m [Mark],
    /// The groups of those that say something.
    needed: BTreeSet<u32>,
    steps: Vec<Step>,
    group: Option<usize>,
    /// Within look-around.
    asking: bool,
}

impl Compiler<'_> {
    fn add(&mut self, hir: &Hir) -> Result<(), PatternError> {
        if self.steps.len() > STEPS {
            let message = format!("it takes more than {STEPS} steps, with look-around or the like in it");
            return Err(PatternError { offset: 0, message });
        }
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => {
                self.steps.extend(literal.0.iter().map(|byte| Step::Byte(ByteSet::of(&[*byte]))));
            }
            HirKind::Class(class) => self.steps.push(Step::Byte(class_set(class)?)),
            HirKind::Look(look) => self.steps.push(Step::Look(*look)),
            HirKind::Repetition(repetition) => self.repetition(repetition)?,
            HirKind::Capture(capture) => match self.marks.iter().find(|mark| mark.group == capture.index).copied() {
                Some(mark) if self.needed.contains(&mark.group) => self.mark(mark, &capture.sub)?,
                Some(_) => {}
                None => {
                    let slot = 2 * number(self.marks, capture.index) as usize;
                    let kept = slot < SLOTS;
                    self.steps.extend(kept.then_some(Step::Slot(slot)));
                    self.add(&capture.sub)?;
                    self.steps.extend(kept.then_some(Step::Slot(slot + 1)));
                }
            },
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.add(part))?,
            HirKind::Alternation(branches) => {
                let mut ends = Vec::new();
                for (at, branch) in branches.iter().enumerate() {
                    if at + 1 == branches.len() {
                        self.add(branch)?;
                        break;
                    }
                    let fork = self.reserve();
                    self.add(branch)?;
                    ends.push(self.reserve());
                    self.steps[fork] = Step::Fork(fork + 1, self.steps.len());
                }
                for end in ends {
                    self.steps[end] = Step::Goto(self.steps.len());
                }
            }
        }
        Ok(())
    }

    /// A step that is written later.
    fn reserve(&mut self) -> usize {
        self.steps.push(Step::Found);
        self.steps.len() - 1
    }

    fn repetition(&mut self, repetition: &Repetition) -> Result<(), PatternError> {
        for _ in 0..repetition.min {
            self.add(&repetition.sub)?;
        }
        let mut forks = Vec::new();
        match repetition.max {
            None => {
                forks.push(self.reserve());
                self.add(&repetition.sub)?;
                self.steps.push(Step::Goto(forks[0]));
            }
            Some(max) => {
                for _ in repetition.min..max {
                    forks.push(self.reserve());
                    self.add(&repetition.sub)?;
                }
            }
        }
        let end = self.steps.len();
        for fork in forks {
            self.steps[fork] = if repetition.greedy { Step::Fork(fork + 1, end) } else { Step::Fork(end, fork + 1) };
        }
        Ok(())
    }

    fn mark(&mut self, mark: Mark, inside: &Hir) -> Result<(), PatternError> {
        let error = |message: &str| Err(PatternError { offset: mark.offset, message: message.into() });
        match mark.kind {
            Kind::Possessive => match inside.kind() {
                HirKind::Class(class) => self.steps.push(Step::Not(class_set(class)?)),
                HirKind::Literal(literal) if literal.0.len() == 1 => {
                    self.steps.push(Step::Not(ByteSet::of(&literal.0)));
                }
                _ => return error("possessive quantifiers are supported for single bytes and classes only"),
            },
            Kind::Back(group) => {
                let group = group as usize;
                if self.group.replace(group).is_some_and(|other| other != group) {
                    return error("back-references to several groups are not supported");
                }
                let any_case = match inside.kind() {
                    HirKind::Concat(parts) => !has_literal(&parts[0]),
                    _ => false,
                };
                self.steps.push(Step::Back { any_case });
            }
            Kind::Look { behind, negated } => {
                if std::mem::replace(&mut self.asking, true) {
                    return error("look-around within look-around is not supported");
                }
                let lengths = replaced(inside, self.marks, &Hir::empty());
                let lengths = (lengths.properties().minimum_len(), lengths.properties().maximum_len());
                let (Some(shortest), Some(longest)) = lengths else {
                    return error("look-around at what has no greatest length is not supported");
                };
                if longest > SIGHT {
                    return error("look-around at more than 255 bytes is not supported");
                }
                let ask = self.reserve();
                self.add(inside)?;
                self.steps.push(Step::Found);
                if behind && self.steps[ask..].iter().any(|step| matches!(step, Step::Back { .. })) {
                    return error("back-references within look-behind are not supported");
                }
                let behind = behind.then_some((shortest, longest));
                self.steps[ask] = Step::Ask { negated, behind, next: self.steps.len() };
                self.asking = false;
            }
        }
        Ok(())
    }
}

fn has_literal(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Repetition(repetition) if matches!(repetition.sub.kind(), HirKind::Literal(_)))
}

fn class_set(class: &Class) -> Result<ByteSet, PatternError> {
    let message = "a class has characters beyond ASCII";
    ByteSet::of_class(class).ok_or_else(|| PatternError { offset: 0, message: message.into() })
}

/// A way through the steps, at the byte that is looked at.
#[derive(Clone, Copy)]
struct Way {
    step: usize,
    /// Bytes of a back-reference that were there already.
    matched: u32,
    slots: [u32; SLOTS],
}

/// What tells two ways at one step apart: of the group that is referred back to, start and end; and how far that has come.
type Key = (u32, u32, u32);

/// Where a match begins and ends.
enum Span<'w> {
    /// Where the wide expression says.
    Any(&'w Regex, &'w mut Cache),
    Start,
    StartAndEnd(usize),
}

struct Walk<'v> {
    value: &'v [u8],
    /// Visits that are left.
    left: u64,
}

impl Conditions {
    /// The first match, with its groups. `wide` is the wide expression.
    pub(crate) fn search(&self, wide: &Regex, cache: &mut Cache, value: &[u8]) -> Result<Option<Slots>, Excess> {
        let left = VISITS * self.steps.len() as u64 * (value.len() as u64 + 256);
        let found = Walk { value, left }.run(self, 0, 0, [UNSET; SLOTS], Span::Any(wide, cache))?;
        Ok(found.map(|slots| slots.map(|slot| NonMaxUsize::new(slot as usize).filter(|_| slot != UNSET))))
    }
}

impl Walk<'_> {
    fn spend(&mut self, visits: usize) -> Result<(), Excess> {
        self.left = self.left.checked_sub(visits as u64).ok_or(Excess)?;
        Ok(())
    }

    /// Walks from a step and a byte on.
    fn run(
        &mut self,
        conditions: &Conditions,
        entry: usize,
        start: usize,
        slots: [u32; SLOTS],
        mut span: Span<'_>,
    ) -> Result<Option<[u32; SLOTS]>, Excess> {
        let value = self.value;
        let (mut now, mut next, mut found, mut at) = (Vec::new(), Vec::new(), None, start);
        let mut seen = Seen(vec![(usize::MAX, Vec::new()); conditions.steps.len()]);
        loop {
            if now.is_empty() {
                match &mut span {
                    _ if found.is_some() => break,
                    Span::Any(wide, cache) => match wide.search_with(cache, &Input::new(value).range(at..)) {
                        Some(candidate) => {
                            self.spend(candidate.end() - at)?;
                            at = candidate.start();
                        }
                        None => break,
                    },
                    _ if at > start => break,
                    _ => {}
                }
            }
            if found.is_none() && (matches!(span, Span::Any(..)) || at == start) {
                let way = Way { step: entry, matched: 0, slots };
                self.visit(conditions, way.with(0, at), at, &mut seen, &mut now)?;
            }
            for way in now.drain(..) {
                match &conditions.steps[way.step] {
                    Step::Byte(set) if value.get(at).is_some_and(|byte| set.contains(*byte)) => {
                        self.visit(conditions, way.at(way.step + 1), at + 1, &mut seen, &mut next)?;
                    }
                    Step::Back { any_case } => {
                        let referred = value[(way.key(conditions.group).0 + way.matched) as usize];
                        let same = |byte: &u8| *byte == referred || (*any_case && byte.eq_ignore_ascii_case(&referred));
                        if value.get(at).is_some_and(same) {
                            let further = Way { matched: way.matched + 1, ..way };
                            self.visit(conditions, further, at + 1, &mut seen, &mut next)?;
                        }
                    }
                    Step::Found if !matches!(span, Span::StartAndEnd(end) if end != at) => {
                        found = Some(way.with(1, at).slots);
                        // The ways behind it come second.
                        break;
                    }
                    _ => {}
                }
            }
            if at == value.len() || matches!(span, Span::StartAndEnd(end) if end == at) {
                break;
            }
            std::mem::swap(&mut now, &mut next);
            at += 1;
        }
        Ok(found)
    }

    /// Follows a way to the steps that need the byte at `at`.
    fn visit(
        &mut self,
        conditions: &Conditions,
        way: Way,
        at: usize,
        seen: &mut Seen,
        ways: &mut Vec<Way>,
    ) -> Result<(), Excess> {
        let mut open = vec![way];
        while let Some(way) = open.pop() {
            let key = way.key(conditions.group);
            let (first, others) = seen.visit(way.step, at, key);
            self.spend(1 + others)?;
            if !first {
                continue;
            }
            let step = way.step;
            let goes_on = match &conditions.steps[step] {
                Step::Goto(to) => {
                    open.push(way.at(*to));
                    continue;
                }
                Step::Fork(rather, otherwise) => {
                    open.push(way.at(*otherwise));
                    open.push(way.at(*rather));
                    continue;
                }
                Step::Slot(slot) => {
                    open.push(way.at(step + 1).with(*slot, at));
                    continue;
                }
                Step::Ask { negated, behind, next } => {
                    if self.ask(conditions, &way, at, *behind)? != *negated {
                        open.push(way.at(*next));
                    }
                    continue;
                }
                // A group that is not set does not match, nor one that has not ended.
                Step::Back { .. } if key.1 == UNSET || key.1 < key.0 => continue,
                Step::Back { .. } if key.1 - key.0 == way.matched => true,
                Step::Look(look) => holds(*look, self.value, at),
                Step::Not(set) => self.value.get(at).is_none_or(|byte| !set.contains(*byte)),
                Step::Byte(_) | Step::Back { .. } | Step::Found => {
                    ways.push(way);
                    continue;
                }
            };
            if goes_on {
                open.push(way.at(step + 1));
            }
        }
        Ok(())
    }

    /// Whether the steps behind this one match, from here on or up to here.
    fn ask(
        &mut self,
        conditions: &Conditions,
        way: &Way,
        at: usize,
        behind: Option<(usize, usize)>,
    ) -> Result<bool, Excess> {
        let Some((shortest, longest)) = behind else {
            return Ok(self.run(conditions, way.step + 1, at, way.slots, Span::Start)?.is_some());
        };
        for length in shortest..=longest.min(at) {
            let span = Span::StartAndEnd(at);
            if self.run(conditions, way.step + 1, at - length, way.slots, span)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Way {
    fn at(self, step: usize) -> Self {
        Self { step, matched: 0, ..self }
    }

    fn with(mut self, slot: usize, at: usize) -> Self {
        self.slots[slot] = at as u32;
        self
    }

    fn key(&self, group: Option<usize>) -> Key {
        let (start, end) = group.map_or((0, 0), |group| (self.slots[2 * group], self.slots[2 * group + 1]));
        (start, end, self.matched)
    }
}

/// Of each step, the byte at which it was last visited, and by which ways.
struct Seen(Vec<(usize, Vec<Key>)>);

impl Seen {
    /// Whether a way like this comes here for the first time, and how many others were here.
    fn visit(&mut self, step: usize, at: usize, key: Key) -> (bool, usize) {
        let (last, keys) = &mut self.0[step];
        if *last != at {
            *last = at;
            keys.clear();
        }
        let others = keys.len();
        let first = !keys.contains(&key);
        if first {
            keys.push(key);
        }
        (first, others)
    }
}

fn holds(look: Look, value: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| value[before]);
    let here = value.get(at).copied();
    let word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match look {
        Look::Start => at == 0,
        Look::End => at == value.len(),
        Look::StartLF => before.is_none_or(|byte| byte == b'\n'),
        Look::EndLF => here.is_none_or(|byte| byte == b'\n'),
        Look::WordAsciiNegate => word(before) == word(here),
        // The translator writes no others.
        _ => word(before) != word(here),
    }
}
