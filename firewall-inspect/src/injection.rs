//! SQL and markup in values: whether a database or a browser would read them as code.
//!
//! The verdicts are those of libinjection, as libmodsecurity 3.0.15 has it. Its tables are in `injection/libinjection`,
//! with their licence; the code is ours. What libinjection overlooks is overlooked here, too.

mod fold;
mod html;
mod script;
mod statement;
#[cfg(test)]
mod tests;
mod token;
mod words;

pub(crate) use self::statement::is_of_words;

/// The shape of an injected statement: a letter for each of its first tokens, five at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    letters: [u8; 5],
    length: usize,
}

impl Fingerprint {
    pub fn as_bytes(&self) -> &[u8] {
        &self.letters[..self.length]
    }
}

/// Whether a value, put into a statement of SQL, would change what that does.
pub fn sqli(value: &[u8]) -> Option<Fingerprint> {
    sqli_possible(value).then(|| statement::judge(value)).flatten()
}

/// Whether a value, put into a page, would run as script.
pub fn xss(value: &[u8]) -> bool {
    xss_possible(value) && script::judge(value)
}

/// Whether [`sqli`] is worth asking: true of all that it finds, false of most that it does not.
pub fn sqli_possible(value: &[u8]) -> bool {
    statement::possible(value)
}

/// Whether [`xss`] is worth asking: true of all that it finds, false of most that it does not.
pub fn xss_possible(value: &[u8]) -> bool {
    script::possible(value)
}
