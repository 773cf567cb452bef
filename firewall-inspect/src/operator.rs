//! SecLang's operators, compiled: whether a value is what a rule looks for, and where.
//!
//! Arguments with macros are put together by whoever knows the transaction; all else is done once, here. Negation is the
//! rule's, not the operator's.

mod list;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, ops::Range};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use ipnet::IpNet;
use memchr::memmem::{self, Finder};
use regex_automata::{
    Input,
    meta::{Cache, Regex},
};
use regex_syntax::hir::Hir;

use crate::{
    pattern::{
        self,
        conditions::{Conditions, Excess},
    },
    seclang::{Operator, Piece, Text},
};

/// A compiled operator.
#[derive(Debug)]
pub enum Matcher {
    /// The first match of an expression.
    Regex(Box<Expression>),
    /// An expression that macros are part of.
    DynamicRegex(Text),
    /// Any of these words, in any case.
    Words(Box<Words>),
    /// How text stands in the value.
    Literal(Place, Box<Finder<'static>>),
    DynamicLiteral(Place, Text),
    Number(Order, i64),
    DynamicNumber(Order, Text),
    Networks(Vec<IpNet>),
    /// A byte that is not among these.
    ByteRange(Box<[bool; 256]>),
    UrlEncoding,
    Utf8Encoding,
    Sqli,
    Xss,
    Always,
    Never,
}

/// An expression, and how it is built.
#[derive(Debug)]
pub struct Expression {
    pub(crate) hir: Hir,
    pub(crate) regex: Regex,
    /// What more a match needs.
    pub(crate) conditions: Option<Box<Conditions>>,
}

/// Words, and what finds them.
#[derive(Debug)]
pub struct Words {
    pub(crate) words: Vec<Vec<u8>>,
    automaton: AhoCorasick,
}

/// How a text and a value lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Begins,
    Contains,
    ContainsWord,
    Ends,
    Equals,
    /// The value is part of the text.
    Within,
}

/// How a value, as a number, lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Equal,
    AtLeast,
    Greater,
    AtMost,
    Less,
}

/// Reads a file that a rule names, relative to the rule's own. The error says what is wrong.
pub type ReadData<'r> = &'r mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

impl Matcher {
    /// Compiles an operator with its argument.
    ///
    /// # Errors
    ///
    /// What is wrong with the argument, or the data it names.
    pub fn compile(operator: Operator, argument: &Text, read: ReadData<'_>) -> Result<Self, String> {
        let literal = argument.literal();
        let text = || literal.ok_or_else(|| format!("@{} takes no macros", operator.name()));
        let place = |place| match literal {
            Some(literal) => Self::Literal(place, Box::new(Finder::new(literal).into_owned())),
            None => Self::DynamicLiteral(place, argument.clone()),
        };
        let number = |order| match literal {
            Some(literal) if !is_number(literal) => Err(format!("`{literal}` is no number")),
            Some(literal) => Ok(Self::Number(order, number(literal.as_bytes()))),
            None => Ok(Self::DynamicNumber(order, argument.clone())),
        };
        Ok(match operator {
            Operator::Rx | Operator::RxGlobal => match literal {
                Some(literal) => {
                    let (hir, conditions) = pattern::parse_any(literal).map_err(|error| error.to_string())?;
                    let regex = pattern::build(&hir).map_err(|error| error.to_string())?;
                    Self::Regex(Box::new(Expression { hir, regex, conditions: conditions.map(Box::new) }))
                }
                None => {
                    // What macros will be is not known; with a digit for each, it is seen what they are not supported with.
                    let like = argument.0.iter().map(|piece| match piece {
                        Piece::Literal(literal) => literal,
                        Piece::Macro(..) => "1",
                    });
                    pattern::refuse_conditions(&like.collect::<String>()).map_err(|error| error.to_string())?;
                    Self::DynamicRegex(argument.clone())
                }
            },
            Operator::Pm => Self::words(list::phrases(text()?)?)?,
            Operator::PmFromFile => {
                let mut words = Vec::new();
                for file in text()?.split_whitespace() {
                    words.extend(list::lines(&read(file)?));
                }
                Self::words(words)?
            }
            Operator::BeginsWith => place(Place::Begins),
            Operator::Contains | Operator::StrMatch => place(Place::Contains),
            Operator::ContainsWord => place(Place::ContainsWord),
            Operator::EndsWith => place(Place::Ends),
            Operator::StrEq => place(Place::Equals),
            Operator::Within => place(Place::Within),
            Operator::Eq => number(Order::Equal)?,
            Operator::Ge => number(Order::AtLeast)?,
            Operator::Gt => number(Order::Greater)?,
            Operator::Le => number(Order::AtMost)?,
            Operator::Lt => number(Order::Less)?,
            Operator::IpMatch => Self::Networks(list::networks(text()?.split(','))?),
            Operator::IpMatchFromFile => {
                let file = read(text()?)?;
                let lines = list::lines(&file);
                let lines = lines.iter().map(|line| std::str::from_utf8(line).unwrap_or("\u{fffd}"));
                Self::Networks(list::networks(lines)?)
            }
            Operator::ValidateByteRange => Self::ByteRange(list::byte_range(text()?)?),
            Operator::ValidateUrlEncoding => Self::UrlEncoding,
            Operator::ValidateUtf8Encoding => Self::Utf8Encoding,
            Operator::DetectSqli => Self::Sqli,
            Operator::DetectXss => Self::Xss,
            Operator::UnconditionalMatch => Self::Always,
            // There is neither a database nor name resolution here.
            Operator::GeoLookup | Operator::Rbl => Self::Never,
            Operator::NoMatch => Self::Never,
        })
    }

    fn words(words: Vec<Vec<u8>>) -> Result<Self, String> {
        if words.is_empty() {
            return Err("there are no words to look for".into());
        }
        let built = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&words);
        let automaton = built.map_err(|error| error.to_string())?;
        Ok(Self::Words(Box::new(Words { words, automaton })))
    }

    /// Where in the value it is. `argument`: with its macros in place, where it has any; `cache` is memory for
    /// expressions, made for this one.
    ///
    /// SQLi and XSS are not judged here, nor expressions with macros.
    pub fn find<'c>(
        &self,
        value: &[u8],
        cache: impl FnOnce(&Regex) -> &'c mut Cache,
        argument: &[u8],
    ) -> Option<Range<usize>> {
        let whole = 0..value.len();
        let is = |is: bool| is.then_some(whole.clone());
        match self {
            Self::Regex(expression) => {
                let regex = &expression.regex;
                match &expression.conditions {
                    None => regex.search_with(cache(regex), &Input::new(value)).map(|found| found.range()),
                    // Too much to look at counts as found.
                    Some(conditions) => match conditions.search(regex, cache(regex), value) {
                        Ok(slots) => slots.and_then(|slots| Some(slots[0]?.get()..slots[1]?.get())),
                        Err(Excess) => Some(whole),
                    },
                }
            }
            Self::Words(words) => words.automaton.find(value).map(|found| found.range()),
            Self::Literal(place, finder) => place.find(value, finder.needle(), || finder.find(value)),
            Self::DynamicLiteral(place, _) => place.find(value, argument, || memmem::find(value, argument)),
            Self::Number(order, other) => is(order.holds(number(value), *other)),
            Self::DynamicNumber(order, _) => is(order.holds(number(value), number(argument))),
            Self::Networks(networks) => {
                let address = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
                is(address
                    .is_some_and(|address| networks.iter().any(|network| network.contains(&address.to_canonical()))))
            }
            Self::ByteRange(allowed) => value.iter().position(|byte| !allowed[usize::from(*byte)]).map(|at| at..at + 1),
            Self::UrlEncoding => malformed_escape(value).map(|at| at..value.len().min(at + 3)),
            Self::Utf8Encoding => std::str::from_utf8(value).err().map(|error| error.valid_up_to()..value.len()),
            Self::Always => Some(whole),
            Self::Never | Self::Sqli | Self::Xss | Self::DynamicRegex(_) => None,
        }
    }
}

impl Place {
    fn find(self, value: &[u8], text: &[u8], find: impl FnOnce() -> Option<usize>) -> Option<Range<usize>> {
        let at = |start: usize| start..start + text.len();
        match self {
            Self::Begins => value.starts_with(text).then(|| at(0)),
            Self::Contains => find().map(at),
            Self::ContainsWord => {
                let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                memmem::find_iter(value, text)
                    .find(|start| {
                        let before = start.checked_sub(1).and_then(|before| value.get(before));
                        !word(before) && !word(value.get(start + text.len()))
                    })
                    .map(at)
            }
            Self::Ends => value.ends_with(text).then(|| at(value.len() - text.len())),
            Self::Equals => (value == text).then(|| at(0)),
            Self::Within => memmem::find(text, value).map(|_| 0..value.len()),
        }
    }
}

impl Order {
    pub(crate) fn holds(self, value: i64, other: i64) -> bool {
        match self {
            Self::Equal => value == other,
            Self::AtLeast => value >= other,
            Self::Greater => value > other,
            Self::AtMost => value <= other,
            Self::Less => value < other,
        }
    }
}

/// The number at the start of a text, as C's `atoi` has it: 0 where there is none. Too large is as large as can be.
pub fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -value } else { value }
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<i64>().is_ok()
}

/// A `%` that two digits do not follow.
fn malformed_escape(value: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'%', value)
        .find(|at| !matches!(value[at + 1..], [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()))
}
