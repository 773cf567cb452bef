//! What there is to say of each rule to a person.

use std::sync::Arc;

use super::{
    Rules,
    rule::{Piece, Text},
};
use crate::seclang::{Phase, Severity};

/// A rule, with its chain, as people look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// 0: it has none.
    pub id: u32,
    pub phase: Phase,
    pub severity: Option<Severity>,
    /// As it is written, macros and all.
    pub message: String,
    pub tags: Vec<String>,
    pub file: Arc<str>,
    pub line: u32,
}

impl Rules {
    /// All rules, by phase and then as they stand.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.rules.iter().map(|rule| Listed {
            id: rule.id,
            phase: rule.phase,
            severity: rule.severity,
            message: rule.message.as_ref().map_or_else(String::new, |text| self.written(text)),
            tags: rule.tags.iter().map(|text| self.written(text)).collect(),
            file: Arc::clone(&rule.place.file),
            line: rule.place.line,
        })
    }

    fn written(&self, text: &Text) -> String {
        let bytes = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let piece = |piece: &Piece| match piece {
            Piece::Literal(literal) => bytes(literal),
            Piece::Tx(number) => format!("%{{tx.{}}}", bytes(self.tx.name(*number))),
            Piece::Variable(variable, None) => format!("%{{{}}}", variable.name()),
            Piece::Variable(variable, Some(member)) => format!("%{{{}.{}}}", variable.name(), bytes(member)),
        };
        text.0.iter().map(piece).collect()
    }
}
