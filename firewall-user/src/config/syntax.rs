//! Errors of TOML itself.
//!
//! In: what the parser complained of, and the document it recovered. Out: one problem a line, and how far the recovered
//! document can be trusted, so that its other errors are shown as well, but none that is only a consequence.

use std::{collections::HashSet, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

use super::{
    raw::SHOWN,
    report::{Problem, Source, line_around},
};

pub(super) struct Syntax {
    pub(super) problems: Vec<Problem>,
    /// Bytes of the text of which the document does not say what was meant.
    lost: Vec<Range<usize>>,
}

impl Syntax {
    pub(super) fn new(source: &Arc<Source>, document: &Spanned<DeTable<'_>>, errors: &[Error]) -> Self {
        let unclosed = errors
            .iter()
            .filter(|error| ["unclosed array,", "unclosed inline"].iter().any(|text| error.message().starts_with(text)))
            .filter_map(|error| opening(document.get_ref(), error.span()?.start))
            .min_by_key(|(start, _)| *start);
        let end = unclosed.map_or(usize::MAX, |(start, _)| start);
        let mut lost = Vec::from_iter(unclosed.map(|(start, _)| start..usize::MAX));
        let mut problems: Vec<Problem> = Vec::new();
        let mut rest: Option<(Problem, usize)> = None;
        let mut lines = HashSet::new();
        for error in errors {
            let span = source.clamp(error.span().unwrap_or(0..0));
            if span.start >= end || !lines.insert(source.line(span.start)) {
                continue;
            }
            let problem = || Problem::new(source, span.clone(), format!("not TOML: {}", error.message()));
            if problems.len() < SHOWN {
                lost.push(statement(source.text(), span.start));
                problems.push(problem());
            } else {
                rest.get_or_insert_with(|| (problem(), 0)).1 += 1;
            }
        }
        if let Some((first, count)) = rest {
            // What follows is of no use: the file is something else.
            lost.push(first.offset()..usize::MAX);
            problems.push(first.rest("wrong lines", count));
        }
        if let Some((start, closing)) = unclosed {
            let problem = Problem::new(source, start..start + 1, "not TOML: this is never closed");
            problems.push(problem.help(format!("a `{closing}` is missing somewhere behind it")));
        }
        Self { problems, lost }
    }

    /// Whether a problem of the recovered document is one of the text, too: what the parser made of that which it did not
    /// understand deserves no further complaint.
    pub(super) fn trusts(&self, problem: &Problem) -> bool {
        self.lost.iter().all(|lost| !lost.contains(&problem.offset()))
    }
}

/// The line of `offset`; if it is a table's header, with the keys that follow, since they lost their table.
fn statement(text: &str, offset: usize) -> Range<usize> {
    let is_header = |line: &Range<usize>| text[line.clone()].trim_start().starts_with('[');
    let first = line_around(text, offset);
    let mut lost = first.start..first.end + 1;
    while is_header(&first) && lost.end < text.len() {
        let next = line_around(text, lost.end);
        if is_header(&next) {
            break;
        }
        lost.end = next.end + 1;
    }
    lost
}

/// Where the outermost array or inline table begins that is still open at `end`, and what would close it.
fn opening(table: &DeTable<'_>, end: usize) -> Option<(usize, char)> {
    table.iter().find_map(|(_, value)| opening_value(value, end))
}

fn opening_value(value: &Spanned<DeValue<'_>>, end: usize) -> Option<(usize, char)> {
    let Range { start, end: stop } = value.span();
    let open = start < end && end <= stop;
    match value.get_ref() {
        DeValue::Array(_) if open => Some((start, ']')),
        DeValue::Table(_) if open => Some((start, '}')),
        DeValue::Array(array) => array.iter().find_map(|item| opening_value(item, end)),
        DeValue::Table(table) => opening(table, end),
        _ => None,
    }
}
