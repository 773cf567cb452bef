//! What a rule looks at: `REQUEST_HEADERS:User-Agent|!ARGS:/^pass/|&FILES`.

use super::{Fault, names::Variable, source::Word};

/// One of a rule's targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub usage: Use,
    pub variable: Variable,
    /// The members that are meant. `None`: all.
    pub selector: Option<Selector>,
}

/// How a target is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Values,
    /// `&`: how many values there are.
    Count,
    /// `!`: none of these.
    Exclude,
}

/// Which members of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By their name, in any case.
    Name(String),
    /// Whose name matches this expression, in any case.
    Regex(String),
    /// Of XML: where they stand.
    XPath(String),
}

impl Target {
    /// Reads the list that stands in `word` from `offset` on.
    pub(super) fn list(word: &Word, offset: usize, text: &str) -> Result<Vec<Self>, Fault> {
        let (mut targets, mut at) = (Vec::new(), 0);
        loop {
            let (target, length) = Self::one(word, offset + at, &text[at..])?;
            targets.push(target);
            at += length;
            match text[at..].chars().next() {
                None => return Ok(targets),
                // ModSecurity takes a comma as well.
                Some('|' | ',') => at += 1,
                Some(other) => return Err(word.fault(offset + at, format!("`|` is expected here, not `{other}`"))),
            }
        }
    }

    /// The target at the start of `text`, and its length.
    fn one(word: &Word, offset: usize, text: &str) -> Result<(Self, usize), Fault> {
        let (usage, sign) = match text.as_bytes().first() {
            Some(b'!') => (Use::Exclude, 1),
            Some(b'&') => (Use::Count, 1),
            _ => (Use::Values, 0),
        };
        let name = &text[sign..];
        let end = name.find(|next: char| !(next.is_ascii_alphanumeric() || next == '_')).unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        let Some(variable) = Variable::of_name(name) else {
            let what = if name.is_empty() {
                "a variable is missing here".into()
            } else {
                format!("there is no variable `{name}`")
            };
            return Err(word.fault(offset + sign, what));
        };
        let mut length = sign + end;
        let mut selector = None;
        if let Some(rest) = rest.strip_prefix(':') {
            if !variable.is_collection() {
                return Err(word.fault(offset + length, format!("{} has no members", variable.name())));
            }
            let (found, taken) = Selector::parse(word, offset + length + 1, variable, rest)?;
            selector = Some(found);
            length += 1 + taken;
        }
        Ok((Self { usage, variable, selector }, length))
    }
}

impl Selector {
    fn parse(word: &Word, offset: usize, variable: Variable, text: &str) -> Result<(Self, usize), Fault> {
        let until = |stop: &[char]| text.find(stop).unwrap_or(text.len());
        if variable == Variable::Xml {
            let end = until(&['|']);
            return Ok((Self::XPath(text[..end].to_owned()), end));
        }
        let quote = usize::from(text.starts_with('\''));
        let inside = &text[quote..];
        if let Some(pattern) = inside.strip_prefix('/') {
            let Some(end) = unescaped(pattern, '/') else {
                return Err(word.fault(offset + quote, "this expression has no closing `/`"));
            };
            let closing = &pattern[end + 1..];
            if quote == 1 && !closing.starts_with('\'') {
                return Err(word.fault(offset, "this ' is not closed behind the expression"));
            }
            return Ok((Self::Regex(pattern[..end].replace("\\/", "/")), quote + 1 + end + 1 + quote));
        }
        if quote == 1 {
            let Some(end) = unescaped(inside, '\'') else { return Err(word.fault(offset, "this ' is not closed")) };
            return Ok((Self::Name(inside[..end].replace("\\'", "'")), end + 2));
        }
        let end = until(&['|', ',']);
        if end == 0 {
            return Err(word.fault(offset, "the name of a member is missing here"));
        }
        Ok((Self::Name(text[..end].to_owned()), end))
    }
}

/// Where `stop` first stands without a backslash before it.
pub(super) fn unescaped(text: &str, stop: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices()
        .find(|(_, next)| {
            let found = *next == stop && !escaped;
            escaped = *next == '\\' && !escaped;
            found
        })
        .map(|(at, _)| at)
}
