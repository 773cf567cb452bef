//! Expressions as rule sets write them (PCRE, without UTF), for an engine that runs in linear time.
//!
//! The two languages look alike and differ in what matters: here, `\x{c2}` is a byte and not a character, `[` within a class is
//! a bracket, `\<` is a less-than sign, `.` matches every byte and `$` only the end. So an expression is read as PCRE has it and
//! written anew. What an automaton cannot do, look-around and back-references above all, `conditions` does, as far as that goes
//! in linear time; the rest is an error.

mod class;
pub(crate) mod conditions;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, ops::Range};

use regex_automata::meta::{self, Regex};
use regex_syntax::{ParserBuilder, hir::Hir};

use self::conditions::{Conditions, Kind, Mark};

/// Bytes that a compiled expression may take, and what it may use while it runs, for each thread.
const SIZE: usize = 4 << 20;
const CACHE: usize = 256 << 10;

/// What is wrong with an expression, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    pub offset: usize,
    pub message: String,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternError {}

/// Reads an expression without conditions.
///
/// # Errors
///
/// It is none, has look-around, back-references or possessive quantifiers, or is not supported.
pub fn parse(pattern: &str) -> Result<Hir, PatternError> {
    let translated = translate(pattern)?;
    translated.refuse_conditions()?;
    translated.parse()
}

/// Whether an expression is without conditions, if it is one at all.
pub(crate) fn refuse_conditions(pattern: &str) -> Result<(), PatternError> {
    translate(pattern).map_or(Ok(()), |translated| translated.refuse_conditions())
}

/// Reads an expression. One with conditions comes in two: as what whatever matches needs, and as the conditions, if they say
/// more.
pub(crate) fn parse_any(pattern: &str) -> Result<(Hir, Option<Conditions>), PatternError> {
    let translated = translate(pattern)?;
    let hir = translated.parse()?;
    if translated.marks.is_empty() {
        return Ok((hir, None));
    }
    conditions::split(&hir, &translated.marks)
}

/// Compiles an expression.
///
/// # Errors
///
/// It takes too much memory.
pub fn build(hir: &Hir) -> Result<Regex, PatternError> {
    let config = meta::Config::new().utf8_empty(false).nfa_size_limit(Some(SIZE)).hybrid_cache_capacity(CACHE);
    meta::Builder::new().configure(config).build_from_hir(hir).map_err(|error| {
        let message = match error.size_limit() {
            Some(limit) => format!("it takes more than the size limit of {limit} bytes"),
            None => error.to_string(),
        };
        PatternError { offset: 0, message }
    })
}

/// Reads and compiles an expression.
///
/// # Errors
///
/// Those of [`parse`] and [`build`].
pub fn compile(pattern: &str) -> Result<Regex, PatternError> {
    build(&parse(pattern)?)
}

/// The same expression in the language of the `regex` crate, to be compiled without Unicode and with `.` for every byte.
struct Translated {
    text: String,
    marks: Vec<Mark>,
}

impl Translated {
    fn refuse_conditions(&self) -> Result<(), PatternError> {
        self.marks.first().map_or(Ok(()), |mark| {
            let message = format!("{} is supported only in an @rx without macros", mark.kind.name());
            Err(PatternError { offset: mark.offset, message })
        })
    }

    fn parse(&self) -> Result<Hir, PatternError> {
        let mut parser = ParserBuilder::new().unicode(false).utf8(false).dot_matches_new_line(true).build();
        parser.parse(&self.text).map_err(|error| PatternError { offset: 0, message: error.to_string() })
    }
}

fn translate(pattern: &str) -> Result<Translated, PatternError> {
    let output = String::with_capacity(pattern.len() + 16);
    let mut translator = Translator { bytes: pattern.as_bytes(), at: 0, output, groups: 0, marks: Vec::new() };
    translator.run()?;
    Ok(Translated { text: translator.output, marks: translator.marks })
}

struct Translator<'p> {
    bytes: &'p [u8],
    at: usize,
    output: String,
    /// Groups that were opened, marked ones included.
    groups: u32,
    marks: Vec<Mark>,
}

impl Translator<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> PatternError {
        PatternError { offset, message: message.into() }
    }

    /// A byte that stands for itself.
    fn literal(&mut self, byte: u8) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_') {
            self.output.push(byte as char);
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.output, "\\x{byte:02X}");
        }
    }

    fn run(&mut self) -> Result<(), PatternError> {
        // Where what was written last begins; and where its quantifier does, if it has one already.
        let (mut item, mut quantifier) = (0, None);
        while let Some(first) = self.rest().first().copied() {
            let start = self.at;
            self.at += 1;
            let was: Option<usize> = quantifier.take();
            let written = self.output.len();
            match first {
                b'\\' => self.escape(start)?,
                b'[' => self.class(start)?,
                b'(' => self.group(start)?,
                b'*' | b'+' | b'?' => {
                    if let Some(quantifier) = was.filter(|_| first == b'+') {
                        self.possessive(start, item..quantifier)?;
                        continue;
                    }
                    self.output.push(first as char);
                    quantifier = was.is_none().then_some(written);
                    continue;
                }
                b'{' => match self.counted() {
                    Some(length) => {
                        self.output
                            .push_str(std::str::from_utf8(&self.bytes[start..start + length]).unwrap_or_default());
                        self.at = start + length;
                        quantifier = Some(written);
                        continue;
                    }
                    // Not a quantifier: a brace.
                    None => self.literal(first),
                },
                b'.' | b'^' | b'$' | b'|' | b')' => self.output.push(first as char),
                _ => self.literal(first),
            }
            item = written;
        }
        Ok(())
    }

    /// Opens a group that stands for something else.
    fn mark(&mut self, offset: usize, kind: Kind) {
        self.open();
        self.marks.push(Mark { group: self.groups, kind, offset });
    }

    fn open(&mut self) {
        self.output.push('(');
        self.groups += 1;
    }

    /// The `+` that makes a quantifier possessive.
    fn possessive(&mut self, start: usize, item: Range<usize>) -> Result<(), PatternError> {
        let quantifier = &self.output[item.end..];
        let endless = matches!(quantifier, "*" | "+") || quantifier.ends_with(",}");
        let item = self.output[item].to_owned();
        // A group ends here that began before.
        if !endless || item == ")" {
            return Err(
                self.error(start, "possessive quantifiers are supported for single bytes and classes without end only")
            );
        }
        self.mark(start, Kind::Possessive);
        self.output.push_str(&item);
        self.output.push(')');
        Ok(())
    }

    /// The length of `{n}`, `{n,}` or `{n,m}`, whose brace was just read.
    fn counted(&self) -> Option<usize> {
        let end = self.rest().iter().position(|byte| *byte == b'}')?;
        let inside = std::str::from_utf8(&self.rest()[..end]).ok()?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let counts = match inside.split_once(',') {
            Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
            None => digits(inside),
        };
        counts.then_some(end + 2)
    }

    /// What follows a backslash.
    fn escape(&mut self, start: usize) -> Result<(), PatternError> {
        let Some(next) = self.rest().first().copied() else {
            return Err(self.error(start, "a backslash at the end escapes nothing"));
        };
        if let Some(byte) = self.escaped_byte(start)? {
            self.literal(byte);
            return Ok(());
        }
        self.at += 1;
        match next {
            b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'B' | b'A' | b'z' => {
                self.output.push('\\');
                self.output.push(next as char);
            }
            // Never `\b{start}`.
            b'b' => self.output.push_str("(?:\\b)"),
            b'Z' => self.output.push_str("(?:\\n?\\z)"),
            b'h' => self.output.push_str("[\\t ]"),
            b'H' => self.output.push_str("[^\\t ]"),
            b'v' => self.output.push_str("[\\n-\\r]"),
            b'V' => self.output.push_str("[^\\n-\\r]"),
            b'N' => self.output.push_str("[^\\n]"),
            b'R' => self.output.push_str("(?:\\r\\n|[\\n-\\r])"),
            b'Q' => {
                let end = self.rest().windows(2).position(|two| two == b"\\E").unwrap_or(self.rest().len());
                let quoted = self.rest()[..end].to_vec();
                quoted.iter().for_each(|byte| self.literal(*byte));
                self.at = (self.at + end + 2).min(self.bytes.len());
            }
            b'E' => {}
            b'1'..=b'9' if !self.rest().first().is_some_and(u8::is_ascii_digit) => {
                self.mark(start, Kind::Back(u32::from(next - b'0')));
                self.output.push_str("x?.*)");
            }
            b'0'..=b'9' | b'g' | b'k' => {
                return Err(self.error(start, "only `\\1` to `\\9` are supported as back-references"));
            }
            _ => return Err(self.error(start, format!("there is no `\\{}`, or it is not supported", next as char))),
        }
        Ok(())
    }

    /// The byte that an escape stands for, within a class and outside; `None` (and nothing read) if it stands for something else.
    fn escaped_byte(&mut self, start: usize) -> Result<Option<u8>, PatternError> {
        let Some((next, behind)) = self.rest().split_first() else { return Ok(None) };
        let hex = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).unwrap_or_default();
            if text.is_empty() { Some(0) } else { u32::from_str_radix(text, 16).ok() }
        };
        let (byte, length) = match next {
            b'x' if behind.first() == Some(&b'{') => {
                let end = behind.iter().position(|byte| *byte == b'}');
                let value = end.and_then(|end| hex(&behind[1..end]));
                match (value.and_then(|value| u8::try_from(value).ok()), end) {
                    (Some(byte), Some(end)) => (byte, end + 2),
                    _ => return Err(self.error(start, "`\\x{…}` must be a byte, from 0 to FF")),
                }
            }
            b'x' => {
                let count = behind.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                (hex(&behind[..count]).unwrap_or(0) as u8, 1 + count)
            }
            b'0' => {
                let count = behind.iter().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                (behind[..count].iter().fold(0, |value, digit| value * 8 + (digit - b'0')), 1 + count)
            }
            b'a' => (0x07, 1),
            b'e' => (0x1b, 1),
            b'f' => (0x0c, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'c' => match behind.first() {
                Some(control) if control.is_ascii() => (control.to_ascii_uppercase() ^ 0x40, 2),
                _ => return Err(self.error(start, "`\\c` is followed by an ASCII character")),
            },
            _ if !next.is_ascii_alphanumeric() => (*next, 1),
            _ => return Ok(None),
        };
        self.at += length;
        Ok(Some(byte))
    }

    /// What follows an opening parenthesis.
    fn group(&mut self, start: usize) -> Result<(), PatternError> {
        let Some(kind) = self.rest().strip_prefix(b"?") else {
            self.open();
            return Ok(());
        };
        let unsupported = |what: &str| Err(PatternError { offset: start, message: format!("{what} is not supported") });
        match kind {
            [b'=' | b'!', ..] | [b'<', b'=' | b'!', ..] => {
                let behind = kind[0] == b'<';
                let length = usize::from(behind) + 1;
                let negated = kind[length - 1] == b'!';
                self.at += 1 + length;
                self.mark(start, Kind::Look { behind, negated });
                Ok(())
            }
            [b'>', ..] => unsupported("an atomic group"),
            [b'|', ..] => unsupported("a branch reset"),
            [b'(', ..] => unsupported("a condition"),
            [b'R' | b'&' | b'0'..=b'9', ..] => unsupported("recursion"),
            [b'#', ..] => {
                let end = self.rest().iter().position(|byte| *byte == b')');
                self.at += end.map_or(self.rest().len(), |end| end + 1);
                Ok(())
            }
            [b'P', b'<', ..] | [b'<', ..] => {
                let end = self.rest().iter().position(|byte| *byte == b'>');
                let Some(end) = end else { return Err(self.error(start, "this group's name does not end")) };
                let name = String::from_utf8_lossy(&self.rest()[..=end]).into_owned();
                self.open();
                self.output.push_str(&name);
                self.at += end + 1;
                Ok(())
            }
            _ => {
                let length =
                    kind.iter().take_while(|byte| matches!(byte, b'i' | b'm' | b's' | b'x' | b'U' | b'-')).count();
                let flags = String::from_utf8_lossy(&kind[..length]).into_owned();
                let end = kind.get(length).copied();
                self.at += 1 + length + 1;
                match end {
                    // It sets nothing.
                    Some(b')') if flags.is_empty() => {}
                    Some(end @ (b':' | b')')) => {
                        let _ = write!(self.output, "(?{flags}{}", end as char);
                    }
                    _ => return unsupported("this kind of group"),
                }
                Ok(())
            }
        }
    }
}
