//! From text to statements and their words: comments, lines that go on, quotes.

use std::{iter::Peekable, str::CharIndices, sync::Arc};

use super::{Fault, Place};

/// A directive's name and its arguments.
#[derive(Debug)]
pub(super) struct Statement {
    /// Never empty.
    pub(super) words: Vec<Word>,
}

/// A word without its quotes, which knows where each of its bytes stood.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    file: Arc<str>,
    /// Offset in the text, line and column, wherever what follows is not just behind what was before.
    breaks: Vec<(usize, u32, u32)>,
}

impl Word {
    /// Where the byte at this offset of the text stood.
    pub(super) fn place(&self, offset: usize) -> Place {
        let index = self.breaks.partition_point(|(start, ..)| *start <= offset).saturating_sub(1);
        let (start, line, column) = self.breaks.get(index).copied().unwrap_or((0, 1, 1));
        let between = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        Place { file: Arc::clone(&self.file), line, column: column + u32::try_from(between).unwrap_or(u32::MAX) }
    }

    pub(super) fn fault(&self, offset: usize, message: impl Into<String>) -> Fault {
        Fault { place: self.place(offset), message: message.into() }
    }
}

struct Scanner<'t> {
    file: Arc<str>,
    chars: Peekable<CharIndices<'t>>,
    text: &'t str,
    line: u32,
    column: u32,
}

/// The statements of a file.
pub(super) fn statements(file: &Arc<str>, text: &str) -> Result<Vec<Statement>, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scanner =
        Scanner { file: Arc::clone(file), chars: text.char_indices().peekable(), text, line: 1, column: 1 };
    let (mut statements, mut faults) = (Vec::new(), Vec::new());
    while let Some(statement) = scanner.statement() {
        match statement {
            Ok(statement) => statements.push(statement),
            Err(fault) => {
                faults.push(fault);
                scanner.skip_line();
            }
        }
    }
    if faults.is_empty() { Ok(statements) } else { Err(faults) }
}

impl Scanner<'_> {
    fn here(&self) -> Place {
        Place { file: Arc::clone(&self.file), line: self.line, column: self.column }
    }

    fn next(&mut self) -> Option<char> {
        let (_, next) = self.chars.next()?;
        if next == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(next)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, next)| *next)
    }

    /// Whether a backslash that comes next ends its line, white space aside: then the line goes on with the next.
    fn continues(&mut self) -> bool {
        let Some((at, '\\')) = self.chars.peek().copied() else { return false };
        let rest = self.text[at + 1..].trim_start_matches([' ', '\t', '\r']);
        rest.starts_with('\n')
    }

    fn skip_continuation(&mut self) {
        while self.next().is_some_and(|next| next != '\n') {}
    }

    /// To the end of the line, and of those that it goes on with.
    fn skip_line(&mut self) {
        loop {
            if self.continues() {
                self.skip_continuation();
            } else if self.next().is_none_or(|next| next == '\n') {
                return;
            }
        }
    }

    fn statement(&mut self) -> Option<Result<Statement, Fault>> {
        let mut words = Vec::new();
        loop {
            match self.peek() {
                None => break,
                Some('\n') => {
                    self.next();
                    if !words.is_empty() {
                        break;
                    }
                }
                Some(' ' | '\t' | '\r') => {
                    self.next();
                }
                Some('#') if words.is_empty() => self.skip_line(),
                Some('\\') if self.continues() => self.skip_continuation(),
                Some(_) => match self.word() {
                    Ok(word) => words.push(word),
                    Err(fault) => return Some(Err(fault)),
                },
            }
        }
        (!words.is_empty()).then_some(Ok(Statement { words }))
    }

    fn word(&mut self) -> Result<Word, Fault> {
        let begin = self.here();
        let quote = self.peek().filter(|next| matches!(next, '"' | '\''));
        if quote.is_some() {
            self.next();
        }
        let mut word =
            Word { text: String::new(), file: Arc::clone(&self.file), breaks: vec![(0, self.line, self.column)] };
        loop {
            if self.continues() {
                self.skip_continuation();
                word.breaks.push((word.text.len(), self.line, self.column));
                continue;
            }
            match (self.peek(), quote) {
                (None | Some('\n'), Some(quote)) => {
                    return Err(Fault { place: begin, message: format!("this {quote} is not closed on its line") });
                }
                (None | Some('\n' | ' ' | '\t' | '\r'), None) => return Ok(word),
                (next, Some(quote)) if next == Some(quote) => {
                    self.next();
                    return match self.peek() {
                        None | Some('\n' | ' ' | '\t' | '\r' | '\\') => Ok(word),
                        Some(_) => Err(Fault {
                            place: self.here(),
                            message: format!("white space is missing behind this {quote}"),
                        }),
                    };
                }
                (Some('\\'), Some(quote)) => {
                    self.next();
                    if self.peek() == Some(quote) {
                        word.breaks.push((word.text.len(), self.line, self.column));
                        word.text.extend(self.next());
                    } else {
                        word.text.push('\\');
                        // What it escapes for whoever reads the word is no continuation and no quote here.
                        if self.peek() == Some('\\') && !self.continues() {
                            word.text.extend(self.next());
                        }
                    }
                }
                (Some(_), _) => word.text.extend(self.next()),
            }
        }
    }
}
