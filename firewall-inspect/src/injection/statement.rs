//! Whether a value turns a statement of SQL into another.

use memchr::{memchr, memchr2, memmem};

use super::{
    Fingerprint,
    fold::{MOST, fold},
    token::{Dialect, Kind, Token, Tokens},
    words,
};

/// Where more tokens are than this, looking at all of them costs more than it may save.
const ENOUGH: usize = 16;

/// Reads the value as it is, then as if it were inside of quotes that it has.
pub(super) fn judge(value: &[u8]) -> Option<Fingerprint> {
    either(value, None)
        .or_else(|| memchr(b'\'', value).and_then(|_| either(value, Some(b'\''))))
        .or_else(|| memchr(b'"', value).and_then(|_| read(value, Some(b'"'), Dialect::MySql).ok()))
}

/// Whether a value has what no attack is without: a quote, or a word or sign that is telling.
pub(super) fn possible(value: &[u8]) -> bool {
    if is_harmless(value) {
        return false;
    }
    if memchr2(b'\'', b'"', value).is_some() {
        return true;
    }
    let mut tokens = Tokens::new(value, None, Dialect::Ansi);
    tokens.by_ref().take(ENOUGH).any(|token| {
        words::is_telling(token.kind)
            || matches!(token.text, [b'#', ..])
            || token.open == b'`'
            || words::find(token.text).is_some_and(|word| word.telling)
    }) || tokens.next().is_some()
}

/// Of these bytes alone, there are a number and a word, at most. Dots that are not part of numbers may be between such, and no
/// shape of an attack has one; of those that are, more may become: `1eint1.1union`.
pub(super) fn is_harmless(value: &[u8]) -> bool {
    let mut digit = false;
    let mut dot = false;
    value.iter().all(|byte| {
        let adjacent = if *byte == b'.' { digit } else { dot && byte.is_ascii_digit() };
        (digit, dot) = (byte.is_ascii_digit(), *byte == b'.');
        !adjacent && (is_of_words(*byte) || dot)
    })
}

/// What words and numbers consist of.
pub(crate) fn is_of_words(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn either(value: &[u8], quote: Option<u8>) -> Option<Fingerprint> {
    read(value, quote, Dialect::Ansi)
        .or_else(|ambiguous| if ambiguous { read(value, quote, Dialect::MySql) } else { Err(false) })
        .ok()
}

/// The error says whether the other dialect would read it differently.
fn read(value: &[u8], quote: Option<u8>, dialect: Dialect) -> Result<Fingerprint, bool> {
    let mut source = Tokens::new(value, quote, dialect);
    let folded = fold(&mut source);
    let tokens = folded.tokens();
    let mut fingerprint = Fingerprint { letters: [0; MOST], length: tokens.len() };
    for (letter, token) in fingerprint.letters.iter_mut().zip(tokens) {
        *letter = token.kind as u8;
    }
    if tokens.iter().any(|token| token.kind == Kind::Evil) {
        return Ok(Fingerprint { letters: [Kind::Evil as u8, 0, 0, 0, 0], length: 1 });
    }
    // PHP's comment: a lone backtick.
    if let [_, _, .., last] = tokens
        && matches!(last, Token { kind: Kind::Bareword, open: b'`', close: 0, text: [] })
    {
        fingerprint.letters[tokens.len() - 1] = Kind::Comment as u8;
    }
    let shape = fingerprint.as_bytes();
    if words::is_attack(shape) && !is_benign(value, shape, tokens, source.count) {
        Ok(fingerprint)
    } else {
        Err(source.ambiguous)
    }
}

/// Shapes that ordinary text has, too: whether it is such text, of so many tokens.
fn is_benign(value: &[u8], shape: &[u8], tokens: &[Token<'_>], count: usize) -> bool {
    // Audit logs of SQL Server leave out what has this in a comment.
    if let [_, .., b'c'] = shape
        && memmem::find(value, b"sp_password").is_some()
    {
        return false;
    }
    match tokens {
        [_, second] if second.kind == Kind::Union => count == 2,
        [first, second] => match (first.kind, second.text) {
            (_, [b'#', ..]) => true,
            (Kind::Bareword, [start, ..]) if second.kind == Kind::Comment => *start != b'/',
            (Kind::Number, [b'/', ..]) if second.kind == Kind::Comment => false,
            (Kind::Number, _) if second.kind == Kind::Comment => count <= 2 && !is_commented(value, first),
            (_, [b'-', _, _, ..]) => true,
            _ => false,
        },
        [first, middle, last] => match shape {
            b"sos" | b"s&s" => first.open != 0 || last.close != 0 || first.close != last.open,
            b"s&n" | b"n&1" | b"1&1" | b"1&v" | b"1&s" => count == 3,
            _ => {
                middle.kind == Kind::Keyword
                    && !(middle.text.len() >= 5 && middle.text[..4].eq_ignore_ascii_case(b"into"))
            }
        },
        _ => false,
    }
}

/// Whether a comment, or a blank, is where a number ends, were it at the value's start.
fn is_commented(value: &[u8], number: &Token<'_>) -> bool {
    match value.get(number.text.len()..) {
        Some([..=b' ' | 0x80.., ..] | [b'/', b'*', ..] | [b'-', b'-', ..] | []) | None => true,
        Some(_) => false,
    }
}
