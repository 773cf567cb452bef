//! What is wrong with a configuration, and how it is shown.
//!
//! In: a source text, a place in it, a message. Out: [`Errors`], as a report for people or as values for `--json`. All
//! text of a file is made harmless for terminals before it is shown: list files come from strangers.

use std::{fmt, io::IsTerminal as _, ops::Range, path::PathBuf, sync::Arc};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use serde::Serialize;

/// Why a text is not what it should be, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub message: String,
    pub help: Option<String>,
}

impl Invalid {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

impl std::error::Error for Invalid {}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug)]
pub struct Errors {
    problems: Vec<Problem>,
    files: Vec<PathBuf>,
}

impl Errors {
    /// `files`: the configuration, and the list files it names.
    pub(super) fn new(problems: Vec<Problem>, files: Vec<PathBuf>) -> Self {
        debug_assert!(!problems.is_empty(), "no errors at all");
        Self { problems, files }
    }

    /// Every file that was read, or should have been: a change of one of them may put things right.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// In order: the configuration file's by place, then each list file's.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many errors there are, those of long list files that are counted but not shown included.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.problems.iter().map(|problem| problem.count).sum()
    }

    /// The report for people: each problem with its place, the lines around it and what to do.
    pub fn report(&self, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false).with_break_words(false);
        let mut report = String::new();
        for problem in &self.problems {
            // Writing to a string cannot fail, but reading a snippet can; the message must be seen all the same.
            if handler.render_report(&mut report, problem).is_err() {
                report.push_str(&format!("  × {problem}\n"));
            }
            report.push('\n');
        }
        let count = self.len();
        report.push_str(&format!("{count} {}\n", if count == 1 { "error" } else { "errors" }));
        report
    }
}

/// The report, in colour if standard error is a terminal and `NO_COLOR` is not set.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        f.write_str(&self.report(colour))
    }
}

impl std::error::Error for Errors {}

/// One error and its place.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// Path as given, or as put together from the configuration's folder.
    pub file: String,
    /// Counts from 1. An error of the file as a whole is at 1:1.
    pub line: usize,
    /// In characters, counts from 1.
    pub column: usize,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// The whole text, and the byte in it.
    #[serde(skip)]
    origin: (Arc<Source>, usize),
    /// What is shown of it, and the place in that.
    #[serde(skip)]
    source: Arc<Source>,
    #[serde(skip)]
    span: Range<usize>,
    /// Another place that has to do with it, and what it is.
    #[serde(skip)]
    also: Option<(Range<usize>, String)>,
    /// Errors this one stands for.
    #[serde(skip)]
    count: usize,
}

impl Problem {
    /// A problem at the bytes `span` of `source`. A span over several lines shrinks to the first.
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>, message: impl Into<String>) -> Self {
        let span = source.clamp(span);
        let (line, column) = source.position(span.start);
        let origin = (source.clone(), span.start);
        let (source, span) = if source.is_wide_around(&span) {
            Source::around(&source.name, &source.text, span, line)
        } else {
            (source.clone(), span)
        };
        let message = harmless(&message.into());
        let file = source.name.clone();
        Self { file, line, column, message, help: None, origin, source, span, also: None, count: 1 }
    }

    pub(super) fn from_invalid(source: &Arc<Source>, span: Range<usize>, invalid: Invalid) -> Self {
        Self::new(source, span, invalid.message).help(invalid.help)
    }

    pub(super) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into().map(|help| harmless(&help));
        self
    }

    /// Another place of the same text. Where it cannot be shown, the message names it.
    pub(super) fn also(mut self, span: Range<usize>, label: &str) -> Self {
        let (origin, _) = &self.origin;
        let span = origin.clamp(span);
        if Arc::ptr_eq(origin, &self.source) && !origin.is_wide_around(&span) {
            self.also = Some((span, label.to_owned()));
        } else {
            let (line, column) = origin.position(span.start);
            self.message.push_str(&format!(" ({label}: line {line}, column {column})"));
        }
        self
    }

    /// Turns the first of `count` problems that are not shown into one that stands for all of them; `what` is plural.
    pub(super) fn rest(mut self, what: &str, count: usize) -> Self {
        let what = if count == 1 { what.trim_end_matches('s') } else { what };
        self.message = format!("{count} more {what}, of which this is the first");
        (self.help, self.also, self.count) = (None, None, count);
        self
    }

    pub(super) fn is_in(&self, source: &Arc<Source>) -> bool {
        Arc::ptr_eq(&self.origin.0, source)
    }

    /// Where it is in its file, for sorting.
    pub(super) fn offset(&self) -> usize {
        self.origin.1
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = LabeledSpan::new_primary_with_span(None, self.span.clone());
        let also =
            self.also.as_ref().map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), span.clone()));
        Some(Box::new([place].into_iter().chain(also)))
    }
}

/// A text that problems point into, or an excerpt of one.
pub(super) struct Source {
    name: String,
    /// Byte for byte as long as the original, but harmless, and with a newline at its end: a caret may point there.
    text: String,
    /// Where its lines begin.
    lines: Vec<usize>,
    /// Number of the first line of `text`.
    first_line: usize,
    /// Where in `text` a line begins that lacks its beginning, and how many characters of it.
    cut: (usize, usize),
}

/// Longer lines, in bytes, are not shown whole.
const WIDE: usize = 400;
/// Bytes shown of such a line before and behind a place in it.
const MARGIN: usize = 100;

impl Source {
    pub(super) fn new(name: impl Into<String>, text: &str) -> Arc<Self> {
        let mut text = harmless(text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Arc::new(Self { name: harmless(&name.into()), lines: lines(&text), text, first_line: 1, cut: (0, 0) })
    }

    /// The lines around `span` of `text`, wide ones cut, and where `span` is in them. `span` is in line `number`.
    pub(super) fn around(name: &str, text: &str, span: Range<usize>, number: usize) -> (Arc<Self>, Range<usize>) {
        let line = line_around(text, span.start);
        let before = (line.start > 0).then(|| line_around(text, line.start - 1));
        let after = (line.end + 1 < text.len()).then(|| line_around(text, line.end + 1));
        let mut shown = String::new();
        let mut push = |range: Range<usize>| {
            let end = text.floor_char_boundary(range.end.min(range.start + WIDE));
            shown.push_str(&text[range.start..end]);
            shown.push('\n');
            shown.len()
        };
        let first_line = number - usize::from(before.is_some());
        let start = before.map_or(0, &mut push);
        let wide = line.len() > WIDE;
        let from =
            if wide { text.floor_char_boundary(span.start.saturating_sub(MARGIN).max(line.start)) } else { line.start };
        let to = if wide { span.end.min(span.start + MARGIN) + MARGIN } else { line.end };
        push(from..to.min(line.end));
        after.map(push);
        let cut = (start, text[line.start..from].chars().count());
        let shift = |offset: usize| offset - from + start;
        let span = shift(span.start)..shift(span.end.min(span.start + MARGIN));
        let name = harmless(name);
        (Arc::new(Self { name, lines: lines(&shown), text: harmless(&shown), first_line, cut }), span)
    }

    /// Whether a line that a report would show of `span` is wide.
    fn is_wide_around(&self, span: &Range<usize>) -> bool {
        let line = line_around(&self.text, span.start);
        let before = line_around(&self.text, line.start.saturating_sub(1));
        let after = line_around(&self.text, (line.end + 1).min(self.text.len()));
        [before, line, after].iter().any(|line| line.len() > WIDE)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `span` within its first line and on character boundaries. The end of the text belongs to its last line.
    pub(super) fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let text = &self.text;
        let end_of_text = text.strip_suffix('\n').unwrap_or(text).len();
        let start = text.floor_char_boundary(span.start.min(end_of_text));
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let end = text.ceil_char_boundary(span.end.clamp(start, line_end)).min(line_end);
        start..end
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let index = self.line(offset) - self.first_line;
        let start = self.lines[index];
        let cut = if self.cut.0 == start { self.cut.1 } else { 0 };
        (self.first_line + index, cut + self.text[start..offset].chars().count() + 1)
    }

    /// The number of the line that holds the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.first_line + self.lines.partition_point(|start| *start <= offset) - 1
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Unlike miette's own, this one counts columns in characters and knows of excerpts.
impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = &self.text;
        let (offset, end) = (span.offset(), span.offset() + span.len());
        if end > text.len() || !text.is_char_boundary(offset) || !text.is_char_boundary(end) {
            return Err(MietteError::OutOfBounds);
        }
        let (line, column) = self.position(offset);
        // With no lines around it, miette wants the place of the span itself.
        let column = if lines_before == 0 { column - 1 } else { 0 };
        let start = if lines_before == 0 {
            offset
        } else {
            let lines = text[..offset].rmatch_indices('\n').nth(lines_before);
            lines.map_or(0, |(newline, _)| newline + 1)
        };
        let stop =
            text[end..].match_indices('\n').nth(lines_after).map_or(text.len(), |(newline, _)| end + newline + 1);
        let data = &text[start..stop];
        let line = line - data[..offset - start].matches('\n').count();
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            data.as_bytes(),
            (start, data.len()).into(),
            line - 1,
            column,
            data.lines().count(),
        )))
    }
}

/// Where the lines of `text` begin.
fn lines(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect()
}

/// The line that holds the byte at `offset`, without its newline.
pub(super) fn line_around(text: &str, offset: usize) -> Range<usize> {
    let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |length| offset + length);
    start..end
}

/// `text`, quoted for a message, and shortened if it is long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let quoted = match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    };
    quoted.replace('\n', "\\n")
}

/// `text` without what a terminal would obey (control characters) or what would change the order it is read in
/// (Unicode bidirectional formatting). Byte offsets stay.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|char| match char {
            '\n' | '\t' => char,
            '\r' => ' ',
            _ if char.is_ascii_control() => '?',
            _ if char.is_control() => '\u{b7}',
            '\u{61c}' => '\u{b7}',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            _ => char,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_keeps_offsets() {
        let text = "a\u{1b}[31m\u{9b}x\u{202e}y\r\n\u{61c}ü\t";
        let safe = harmless(text);
        assert_eq!(safe.len(), text.len());
        assert_eq!(safe, "a?[31m\u{b7}x\u{fffd}y \n\u{b7}ü\t");
    }

    #[test]
    fn places_count_characters() {
        let source = Source::new("file", "one\nübér = 5\nthree");
        let at = source.text.find('5').unwrap();
        let problem = Problem::new(&source, at..at + 1, "no");
        assert_eq!((problem.line, problem.column), (2, 8));
        let report = Errors::new(vec![problem], vec![]).report(false);
        assert!(report.contains("[file:2:8]"), "{report}");
        assert!(report.contains("1 error\n"), "{report}");
    }

    #[test]
    fn places_survive_every_span() {
        for text in ["", "\n", "a", "a\n", "ü\nü\n", "a\n\nb", "\n\n"] {
            let source = Source::new("file", text);
            for start in 0..8 {
                for end in start..8 {
                    let errors = Errors::new(vec![Problem::new(&source, start..end, "no").also(0..1, "here")], vec![]);
                    let report = errors.report(false);
                    assert!(report.contains("[file:"), "{text:?} {start}..{end}: {report}");
                    assert!(
                        report.contains(['▲', '─', '┬']) && report.contains(" · "),
                        "{text:?} {start}..{end}: {report}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_excerpt_keeps_its_line_numbers() {
        let (source, span) = Source::around("list", "zeroth\nfirst\nsecond\nthird\n", 13..19, 500_000);
        assert_eq!(span, 6..12);
        let problem = Problem::new(&source, 6..12, "bad").help("good".to_owned());
        assert_eq!((problem.line, problem.column), (500_000, 1));
        let report = Errors::new(vec![problem], vec![]).report(false);
        for part in ["[list:500000:1]", "499999 │ first", "500000 │ second", "500001 │ third", "help: good"] {
            assert!(report.contains(part), "{part} in {report}");
        }
    }

    /// Miette falls over where a caret is beyond column 65535.
    #[test]
    fn wide_lines_are_cut() {
        let text = format!("{0}\n{0}ü=x{0}\n{0}", "abcd ".repeat(20_000));
        let source = Source::new("file", &text);
        let at = text.find('x').unwrap();
        let problem = Problem::new(&source, at..text.len(), "no").also(3..5, "the other");
        assert_eq!((problem.line, problem.column, problem.offset()), (2, 100_003, at));
        assert!(problem.is_in(&source));
        assert_eq!(problem.message, "no (the other: line 1, column 4)");
        let report = Errors::new(vec![problem], vec![]).report(false);
        assert!(report.contains("[file:2:100003]") && report.contains("ü=xabcd"), "{report}");
        assert!(report.len() < 4000, "{report}");
    }
}
