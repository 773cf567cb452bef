//! Typed access to a parsed TOML document, in which every value knows its place.
//!
//! In: the spanned document. Out: values of the wanted type, or `None` after the problem was written down, so that
//! lowering goes on and finds the next one. Serde is not used, since it stops at the first error. A table remembers which
//! keys it was asked for; the others are unknown.

use std::{cell::RefCell, ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::report::{Invalid, Problem, Source, quoted};

/// Problems of the document that are shown; the others are counted. Who gives us a file of another kind has many.
pub(super) const SHOWN: usize = 1000;

/// Where problems of one document are written down.
pub(super) struct Context {
    pub(super) source: Arc<Source>,
    problems: RefCell<Vec<Problem>>,
    /// The first problem beyond [`SHOWN`], and how many there are.
    rest: RefCell<Option<(Problem, usize)>>,
    /// The document could not be parsed whole, so what is missing may have been there.
    pub(super) broken: bool,
    /// Keys that tables were asked for, as `table.key`.
    #[cfg(test)]
    pub(super) known: RefCell<std::collections::BTreeSet<String>>,
}

impl Context {
    pub(super) fn new(source: Arc<Source>, broken: bool) -> Self {
        Self {
            source,
            problems: RefCell::default(),
            rest: RefCell::default(),
            broken,
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    pub(super) fn push(&self, problem: impl FnOnce() -> Problem) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < SHOWN {
            return problems.push(problem());
        }
        let mut rest = self.rest.borrow_mut();
        rest.get_or_insert_with(|| (problem(), 0)).1 += 1;
    }

    /// The problems, and one that stands for those which are not shown.
    pub(super) fn into_problems(self) -> (Vec<Problem>, Option<Problem>) {
        let rest = self.rest.into_inner().map(|(first, count)| first.rest("errors", count));
        (self.problems.into_inner(), rest)
    }
}

/// A table of the document.
pub(super) struct Table<'d> {
    /// `None` for a table that is not there.
    entries: Option<&'d DeTable<'d>>,
    /// Of the header, or of the whole inline table.
    pub(super) span: Range<usize>,
    /// Path in the document, without indices.
    name: String,
    asked: RefCell<Vec<&'static str>>,
    pub(super) context: &'d Context,
}

impl<'d> Table<'d> {
    pub(super) fn root(entries: &'d DeTable<'d>, context: &'d Context) -> Self {
        Self { entries: Some(entries), span: 0..0, name: String::new(), asked: RefCell::default(), context }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'d>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        #[cfg(test)]
        self.context.known.borrow_mut().insert(name.clone());
        let value = self.entries?.get(key)?;
        Some(Value { value: value.get_ref(), span: value.span(), key, name, context: self.context })
    }

    /// As [`Self::get`]; that it is missing is a problem of the table.
    pub(super) fn require(&self, key: &'static str, help: &str) -> Option<Value<'d>> {
        let value = self.get(key);
        if value.is_none() && !self.context.broken {
            self.problem(format!("`{key}` is missing"), help.to_owned());
        }
        value
    }

    /// The table of `key`; an absent one has no entries.
    pub(super) fn table(&self, key: &'static str) -> Table<'d> {
        self.get(key).and_then(Value::table).unwrap_or_else(|| Table {
            entries: None,
            span: self.span.clone(),
            name: if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) },
            asked: RefCell::default(),
            context: self.context,
        })
    }

    /// The tables of the array `key`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'d>> {
        self.get(key).and_then(Value::items).into_iter().flatten().filter_map(Value::table).collect()
    }

    /// A switch.
    pub(super) fn switch(&self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|value| value.boolean()).unwrap_or(default)
    }

    /// One of the named values.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        self.get(key).and_then(|value| value.choice(choices)).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, key: &'static str, bounds: std::ops::RangeInclusive<i64>, default: u32) -> u32 {
        let value = self.get(key).and_then(|value| value.integer(bounds));
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
    }

    pub(super) fn problem(&self, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.context.push(|| Problem::new(&self.context.source, self.span.clone(), message).help(help));
    }

    /// To be called once all known keys were asked for: the others are problems.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, _) in self.entries.into_iter().flatten() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            self.context.push(|| {
                let place = if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) };
                let help = match closest(name, &asked) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known keys{place}: {}", list(&asked)),
                };
                let message = format!("unknown key {}{place}", quoted(name));
                Problem::new(&self.context.source, key.span(), message).help(help)
            });
        }
    }
}

/// A value of the document.
#[derive(Clone)]
pub(super) struct Value<'d> {
    value: &'d DeValue<'d>,
    pub(super) span: Range<usize>,
    /// The key it belongs to; an array's items have the array's.
    key: &'static str,
    name: String,
    context: &'d Context,
}

impl<'d> Value<'d> {
    pub(super) fn text(&self) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    /// A string that `parse` makes sense of.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.invalid(invalid);
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type("`true` or `false`");
        }
        value
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let known = format!("one of {}", list(&names));
            let help = closest(text, &names).map_or(known, |name| format!("did you mean `{name}`?"));
            self.problem(format!("`{}` cannot be {}", self.key, quoted(text)), help);
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number within `bounds`.
    pub(super) fn integer(&self, bounds: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let range = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let Some(written) = self.value.as_integer() else {
            self.wrong_type(&range);
            return None;
        };
        let value = i64::from_str_radix(written.as_str(), written.radix()).ok().filter(|value| bounds.contains(value));
        if value.is_none() {
            self.problem(format!("`{}` is out of range", self.key), format!("{range} goes here"));
        }
        value
    }

    /// A number, with or without a fraction. Infinities and NaN pass.
    pub(super) fn number(&self) -> Option<f64> {
        let value = match self.value {
            DeValue::Integer(value) => {
                i64::from_str_radix(value.as_str(), value.radix()).ok().map(|value| value as f64)
            }
            DeValue::Float(value) => value.as_str().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type("a number");
        }
        value
    }

    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The items of an array, or a value that stands alone.
    pub(super) fn one_or_more(self) -> Vec<Value<'d>> {
        if self.value.is_array() { self.items().unwrap_or_default() } else { vec![self] }
    }

    pub(super) fn items(self) -> Option<Vec<Value<'d>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type("an array");
            return None;
        };
        let item =
            |item: &'d toml::Spanned<DeValue<'d>>| Value { value: item.get_ref(), span: item.span(), ..self.clone() };
        Some(array.iter().map(item).collect())
    }

    pub(super) fn table(self) -> Option<Table<'d>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong_type("a table");
            return None;
        };
        let Self { span, name, context, .. } = self;
        Some(Table { entries: Some(entries), span, name, asked: RefCell::default(), context })
    }

    pub(super) fn problem(&self, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.context.push(|| Problem::new(&self.context.source, self.span.clone(), message).help(help));
    }

    /// A problem that has to do with an earlier place, too.
    pub(super) fn clash(&self, message: String, earlier: Range<usize>, label: &str, help: &str) {
        self.context.push(|| {
            let problem = Problem::new(&self.context.source, self.span.clone(), message).also(earlier, label);
            problem.help(help.to_owned())
        });
    }

    pub(super) fn invalid(&self, invalid: Invalid) {
        self.context.push(|| Problem::from_invalid(&self.context.source, self.span.clone(), invalid));
    }

    fn wrong_type(&self, wanted: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("`{}` wants {wanted}, not {found}", self.key), None);
    }
}

/// `` `a`, `b`, `c` ``
fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The name that `text` may be a misspelling of.
pub(super) fn closest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    let distances = names.iter().map(|name| (distance(text, name), *name));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, name)| name)
}

/// Edits between two words: insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_word() {
        let names = ["packets", "ports", "burst", "ban", "per"];
        for (text, found) in [
            ("packet", Some("packets")),
            ("pakcets", Some("packets")),
            ("prots", Some("ports")),
            ("port", Some("ports")),
            ("bann", Some("ban")),
            ("bandwidth", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(text, &names), found, "{text}");
        }
    }
}
