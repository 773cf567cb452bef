//! SecLang, the rule language of ModSecurity v3 and of the OWASP Core Rule Set: from text to a syntax tree.
//!
//! In: the text of a rule file. Out: its [`Directive`]s, each with its place, or every [`Fault`] in it. What is not known here
//! is a fault, never ignored. Nothing is opened: what a directive includes, or which data it names, its caller reads.
//!
//! The grammar is that of ModSecurity's reference manual, as libmodsecurity 3.0 reads it where the two differ: within double
//! quotes, `\"` is a quote and every other backslash stays.

mod action;
mod directive;
mod names;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod text;

use std::{fmt, sync::Arc};

pub use self::{
    action::{Action, AllowScope, Ctl, Disruption, EngineMode, Phase, SetVar, SetVarValue, Severity},
    directive::{Access, Directive, IdRange, LimitAction, OperatorUse, Rule, Stated, parse},
    names::{BodyProcessor, Operator, Transformation, Variable},
    target::{Selector, Target, Use},
    text::{Piece, Text},
};

/// Where something stands in a rule file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for Fault {}
