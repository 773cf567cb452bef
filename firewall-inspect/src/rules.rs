//! A rule set, compiled: what a file of SecLang says, ready to judge requests.
//!
//! In: directives. Out: [`Rules`], or all that is wrong with them. [`crate::transaction`] runs them. What is known before any
//! request is settled here: chains, updates and removals, where a jump leads, which of the rules could match a value at all
//! (`filter`).
//!
//! Updates and removals concern all rules of the set, wherever they stand, as in libmodsecurity 3.0; tags and messages are
//! compared as a whole.

pub(crate) mod bits;
mod compile;
pub(crate) mod filter;
mod fold;
mod listing;
mod load;
pub(crate) mod names;
mod require;
mod resolve;
pub(crate) mod rule;
mod settings;
mod value;

use std::ops::Range;

pub(crate) use self::value::Value;
use self::{bits::Bits, filter::Filter, names::Names, rule::Rule};
pub use self::{
    listing::Listed,
    load::Files,
    settings::{BodySettings, Settings},
};
use crate::seclang::{Directive, Fault, Phase, Stated};

/// Reads the data that a rule names: the file of the rule, and the name as it stands there. The error says what is wrong.
pub type Read<'r> = &'r mut dyn FnMut(&str, &str) -> Result<Vec<u8>, String>;

/// A compiled rule set.
#[derive(Debug)]
pub struct Rules {
    /// By phase, then as they stand.
    pub(crate) rules: Vec<Rule>,
    phases: [Range<usize>; 5],
    /// Of each phase, those that no filter speaks for.
    pub(crate) always: [Vec<u32>; 5],
    pub(crate) tx: Names,
    /// What TX holds before any rule runs, by the numbers of the names.
    pub(crate) begin: Vec<Option<Value>>,
    pub(crate) request: Filter,
    pub(crate) response: Filter,
    /// Expressions, each with a number below this.
    pub(crate) patterns: usize,
    pub settings: Settings,
}

impl Rules {
    /// Compiles a rule set.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn compile(directives: &[Stated<Directive>], read: Read<'_>) -> Result<Self, Vec<Fault>> {
        compile::compile(directives, read)
    }

    pub(crate) fn phase(&self, phase: Phase) -> Range<usize> {
        self.phases[phase as usize - 1].clone()
    }

    /// None of them.
    pub(crate) fn no_rules(&self) -> Bits {
        Bits::new(self.rules.len())
    }

    /// How many rules there are, chains counted once.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}
