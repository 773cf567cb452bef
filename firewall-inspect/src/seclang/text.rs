//! Text with macros: `%{tx.anomaly_score}`.

use super::{Fault, names::Variable, source::Word};

/// Text that is put together when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub Vec<Piece>);

/// A part of a [`Text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    /// The first value of a variable; with the name of a member in lower case, the first of that name.
    Macro(Variable, Option<String>),
}

impl Text {
    /// The text, where it has no macros.
    pub fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// As it stands.
    pub(super) fn literally(text: &str) -> Self {
        Self(if text.is_empty() { Vec::new() } else { vec![Piece::Literal(text.to_owned())] })
    }

    /// Reads the text that stands in `word` from `offset` on. A `%` that begins no macro is one.
    pub(super) fn parse(word: &Word, offset: usize, text: &str) -> Result<Self, Fault> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(start) = rest.find("%{") {
            let at = offset + (text.len() - rest.len()) + start;
            literal.push_str(&rest[..start]);
            let inside = &rest[start + 2..];
            let Some(end) = inside.find('}') else {
                return Err(word.fault(at, "this macro has no closing brace"));
            };
            let (name, member) = match inside[..end].split_once(['.', ':']) {
                Some((name, member)) => (name, Some(member.to_lowercase())),
                None => (&inside[..end], None),
            };
            let Some(variable) = Variable::of_name(name) else {
                return Err(word.fault(at, format!("there is no variable `{name}`")));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Macro(variable, member));
            rest = &inside[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }
}
