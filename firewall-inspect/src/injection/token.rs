//! Bytes of SQL into tokens, of any dialect at once. Whatever is there, some token comes of it.

use memchr::{memchr, memmem};

use super::words;

/// As much of a token's text is kept.
pub(super) const LONGEST: usize = 31;

/// What a token is. The letters are those of fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Keyword = b'k',
    Union = b'U',
    Group = b'B',
    Expression = b'E',
    Type = b't',
    Function = b'f',
    Bareword = b'n',
    Number = b'1',
    Variable = b'v',
    String = b's',
    Operator = b'o',
    Logic = b'&',
    Comment = b'c',
    Collate = b'A',
    Transact = b'T',
    LeftParen = b'(',
    RightParen = b')',
    LeftBrace = b'{',
    RightBrace = b'}',
    Dot = b'.',
    Comma = b',',
    Colon = b':',
    Semicolon = b';',
    Backslash = b'\\',
    /// No letter of SQL's.
    Unknown = b'?',
    /// What databases read in ways that differ: always an attack.
    Evil = b'X',
}

impl Kind {
    pub(super) const ALL: [Self; 26] = [
        Self::Keyword,
        Self::Union,
        Self::Group,
        Self::Expression,
        Self::Type,
        Self::Function,
        Self::Bareword,
        Self::Number,
        Self::Variable,
        Self::String,
        Self::Operator,
        Self::Logic,
        Self::Comment,
        Self::Collate,
        Self::Transact,
        Self::LeftParen,
        Self::RightParen,
        Self::LeftBrace,
        Self::RightBrace,
        Self::Dot,
        Self::Comma,
        Self::Colon,
        Self::Semicolon,
        Self::Backslash,
        Self::Unknown,
        Self::Evil,
    ];

    pub(super) fn of(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == letter)
    }
}

/// A token. Quotes are null where there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// Without quotes, and cut off at [`LONGEST`].
    pub(super) text: &'a [u8],
    pub(super) open: u8,
    pub(super) close: u8,
}

impl<'a> Token<'a> {
    pub(super) fn new(kind: Kind, text: &'a [u8]) -> Self {
        Self { kind, text: &text[..text.len().min(LONGEST)], open: 0, close: 0 }
    }

    pub(super) fn is_unary(&self) -> bool {
        self.kind == Kind::Operator
            && (matches!(self.text, b"+" | b"-" | b"!" | b"~" | b"!!") || self.text.eq_ignore_ascii_case(b"not"))
    }

    pub(super) fn is_arithmetic(&self) -> bool {
        self.kind == Kind::Operator && matches!(self.text, b"*" | b"/" | b"-" | b"+" | b"%")
    }

    pub(super) fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.text.eq_ignore_ascii_case(word.as_bytes()))
    }
}

/// How `#`, and `--` before a letter, are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Ansi,
    MySql,
}

/// What reads tokens.
pub(super) struct Tokens<'a> {
    input: &'a [u8],
    at: usize,
    /// The quote in which the input starts.
    quote: Option<u8>,
    dialect: Dialect,
    /// How many tokens were read.
    pub(super) count: usize,
    /// Whether there was something that the other dialect reads differently.
    pub(super) ambiguous: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(input: &'a [u8], quote: Option<u8>, dialect: Dialect) -> Self {
        Self { input, at: 0, quote, dialect, count: 0, ambiguous: false }
    }

    fn token(&mut self) -> Option<Token<'a>> {
        if let Some(quote) = self.quote.take() {
            return Some(self.quoted(0, quote, 0));
        }
        loop {
            let byte = *self.input.get(self.at)?;
            let token = match byte {
                ..=b' ' | 0x7f | 0xa0 => {
                    self.at += 1;
                    continue;
                }
                b'.' | b'0'..=b'9' => match self.number() {
                    Some(token) => token,
                    // As MySQL: a number that lacks its exponent is not there.
                    None => continue,
                },
                b'\'' | b'"' => self.quoted(self.at + 1, byte, byte),
                b'`' => self.tick(),
                b'B' | b'b' => self.digits_in_quotes(|byte| matches!(byte, b'0' | b'1' | 0)),
                b'X' | b'x' => self.digits_in_quotes(|byte| byte.is_ascii_hexdigit() || byte == 0),
                b'E' | b'e' => self.escaped(),
                b'N' | b'n' if self.ahead(1) == Some(b'\'') && self.ahead(2).is_some() => self.escaped(),
                b'N' | b'n' => self.delimited(1),
                b'Q' | b'q' => self.delimited(0),
                b'U' | b'u' => self.unicode(),
                b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => self.word(),
                b'@' => self.variable(),
                b'$' => self.dollar(),
                b'[' => self.bracket(),
                b'-' => self.dash(),
                b'#' => self.hash(),
                b'/' => self.slash(),
                b'\\' if self.ahead(1) == Some(b'N') => self.cut(Kind::Number, 2),
                b'\\' => self.cut(Kind::Backslash, 1),
                b'%' | b'+' | b'^' | b'~' => self.cut(Kind::Operator, 1),
                b'!' | b'&' | b'*' | b':' | b'<' | b'=' | b'>' | b'|' => self.operator(),
                b'(' => self.cut(Kind::LeftParen, 1),
                b')' => self.cut(Kind::RightParen, 1),
                b'{' => self.cut(Kind::LeftBrace, 1),
                b'}' => self.cut(Kind::RightBrace, 1),
                b',' => self.cut(Kind::Comma, 1),
                b';' => self.cut(Kind::Semicolon, 1),
                b'?' | b']' => self.cut(Kind::Unknown, 1),
            };
            return Some(token);
        }
    }

    fn ahead(&self, distance: usize) -> Option<u8> {
        self.input.get(self.at + distance).copied()
    }

    fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    fn cut(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let token = Token::new(kind, &self.rest()[..length]);
        self.at += length;
        token
    }

    fn operator(&mut self) -> Token<'a> {
        let rest = self.rest();
        if rest.starts_with(b"<=>") {
            return self.cut(Kind::Operator, 3);
        }
        match rest.get(..2).and_then(words::find) {
            Some(word) => self.cut(word.kind, 2),
            None if rest[0] == b':' && rest.len() > 1 => self.cut(Kind::Colon, 1),
            None => self.cut(Kind::Operator, 1),
        }
    }

    /// A string whose content starts at `from`: to a quote that is neither doubled nor behind an odd number of
    /// backslashes, or to the end.
    fn quoted(&mut self, from: usize, quote: u8, open: u8) -> Token<'a> {
        let mut search = from;
        while let Some(found) = memchr(quote, &self.input[search..]) {
            let end = search + found;
            let backslashes = self.input[from..end].iter().rev().take_while(|byte| **byte == b'\\').count();
            if backslashes % 2 == 1 {
                search = end + 1;
            } else if self.input.get(end + 1) == Some(&quote) {
                search = end + 2;
            } else {
                self.at = end + 1;
                return Token { open, close: quote, ..Token::new(Kind::String, &self.input[from..end]) };
            }
        }
        self.at = self.input.len();
        Token { open, ..Token::new(Kind::String, &self.input[from..]) }
    }

    /// MySQL's quoted name.
    fn tick(&mut self) -> Token<'a> {
        let token = self.quoted(self.at + 1, b'`', b'`');
        let function = words::find(token.text).is_some_and(|word| word.kind == Kind::Function);
        Token { kind: if function { Kind::Function } else { Kind::Bareword }, ..token }
    }

    /// `b'01'`, `x'1f'`.
    fn digits_in_quotes(&mut self, digit: impl Fn(u8) -> bool) -> Token<'a> {
        let Some(digits) = self.rest()[1..].strip_prefix(b"'") else { return self.word() };
        let length = digits.iter().take_while(|byte| digit(**byte)).count();
        if digits.get(length) == Some(&b'\'') { self.cut(Kind::Number, length + 3) } else { self.word() }
    }

    /// `e'…'`, `n'…'`.
    fn escaped(&mut self) -> Token<'a> {
        if self.ahead(1) == Some(b'\'') && self.ahead(2).is_some() {
            self.quoted(self.at + 2, b'\'', b'\'')
        } else {
            self.word()
        }
    }

    /// `u&'…'`.
    fn unicode(&mut self) -> Token<'a> {
        if !self.rest()[1..].starts_with(b"&'") {
            return self.word();
        }
        let token = self.quoted(self.at + 3, b'\'', b'u');
        Token { close: if token.close == 0 { 0 } else { b'u' }, ..token }
    }

    /// Oracle's `q'(…)'`, or, behind a letter, `nq'(…)'`.
    fn delimited(&mut self, letters: usize) -> Token<'a> {
        let rest = &self.rest()[letters..];
        let close = match rest {
            [b'Q' | b'q', b'\'', open @ b'!'..=0x7f, ..] => match open {
                b'(' => b')',
                b'[' => b']',
                b'{' => b'}',
                b'<' => b'>',
                other => *other,
            },
            _ => return self.word(),
        };
        let content = &rest[3..];
        let end = content.windows(2).position(|pair| pair == [close, b'\'']);
        self.at += letters + 3 + end.map_or(content.len(), |end| end + 2);
        Token {
            open: b'q',
            close: if end.is_some() { b'q' } else { 0 },
            ..Token::new(Kind::String, &content[..end.unwrap_or(content.len())])
        }
    }

    /// SQL Server's `[name]`.
    fn bracket(&mut self) -> Token<'a> {
        let rest = self.rest();
        self.cut(Kind::Bareword, memchr(b']', rest).map_or(rest.len(), |end| end + 1))
    }

    /// A word, or as much of it, before a dot or a backtick, as is a word of SQL's.
    fn word(&mut self) -> Token<'a> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| ENDS_WORD[usize::from(*byte)]).unwrap_or(rest.len());
        for (inner, byte) in rest[..length.min(LONGEST)].iter().enumerate() {
            if matches!(byte, b'.' | b'`')
                && let Some(word) = words::find(&rest[..inner])
                && word.kind != Kind::Bareword
            {
                return self.cut(word.kind, inner);
            }
        }
        let kind = words::find(&rest[..length]).map_or(Kind::Bareword, |word| word.kind);
        self.cut(kind, length)
    }

    /// `@name`, `@@name`, with or without quotes.
    fn variable(&mut self) -> Token<'a> {
        self.at += if self.ahead(1) == Some(b'@') { 2 } else { 1 };
        let kind = Kind::Variable;
        match self.ahead(0) {
            Some(b'`') => Token { kind, ..self.tick() },
            Some(quote @ (b'\'' | b'"')) => Token { kind, ..self.quoted(self.at + 1, quote, quote) },
            _ => {
                let rest = self.rest();
                let end = rest.iter().position(|byte| match byte {
                    b'[' | b']' | b'{' | b'}' | 0xa0 => false,
                    b'\'' | b'`' => true,
                    other => ENDS_WORD[usize::from(*other)],
                });
                self.cut(kind, end.unwrap_or(rest.len()))
            }
        }
    }

    /// `$1,000.00`, `$$…$$`, `$tag$…$tag$`.
    fn dollar(&mut self) -> Token<'a> {
        let rest = self.rest();
        let amount = rest[1..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b',' | 0)).count();
        match rest {
            [_, b'.', ..] if amount == 1 => return self.word(),
            _ if amount > 0 => return self.cut(Kind::Number, 1 + amount),
            _ => {}
        }
        let letters = rest[1..].iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == 0).count();
        if rest.get(letters + 1) != Some(&b'$') {
            return self.cut(Kind::Bareword, 1);
        }
        let tag = &rest[..letters + 2];
        let start = self.at + tag.len();
        let end = memmem::find(&self.input[start..], tag).map(|end| start + end);
        self.at = end.map_or(self.input.len(), |end| end + tag.len());
        Token {
            open: b'$',
            close: if end.is_some() { b'$' } else { 0 },
            ..Token::new(Kind::String, &self.input[start..end.unwrap_or(self.input.len())])
        }
    }

    fn number(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let count = |from: usize, digit: fn(&u8) -> bool| rest[from..].iter().take_while(|byte| digit(byte)).count();
        let digits = match rest {
            [b'0', b'X' | b'x', ..] => Some(count(2, |byte| byte.is_ascii_hexdigit() || *byte == 0)),
            [b'0', b'B' | b'b', ..] => Some(count(2, |byte| matches!(byte, b'0' | b'1' | 0))),
            _ => None,
        };
        match digits {
            Some(0) => return Some(self.cut(Kind::Bareword, 2)),
            Some(digits) => return Some(self.cut(Kind::Number, 2 + digits)),
            None => {}
        }
        let mut length = count(0, u8::is_ascii_digit);
        if rest.get(length) == Some(&b'.') {
            length += 1 + count(length + 1, u8::is_ascii_digit);
            if length == 1 {
                return Some(self.cut(Kind::Dot, 1));
            }
        }
        let mut whole = true;
        if let Some(b'E' | b'e') = rest.get(length) {
            length += 1;
            if let Some(b'+' | b'-') = rest.get(length) {
                length += 1;
            }
            let exponent = count(length, u8::is_ascii_digit);
            length += exponent;
            whole = exponent > 0;
        }
        // Oracle's suffix, and `1fUNION`.
        if let [b'd' | b'D' | b'f' | b'F', after @ ..] = &rest[length..]
            && after.first().is_none_or(|byte| is_white(*byte) || matches!(byte, b';' | b'u' | b'U'))
        {
            length += 1;
        }
        let token = self.cut(Kind::Number, length);
        whole.then_some(token)
    }

    fn dash(&mut self) -> Token<'a> {
        if self.ahead(1) != Some(b'-') {
            return self.cut(Kind::Operator, 1);
        }
        match self.ahead(2) {
            Some(byte) if !is_white(byte) => match self.dialect {
                Dialect::Ansi => self.ambiguous = true,
                Dialect::MySql => return self.cut(Kind::Operator, 1),
            },
            _ => {}
        }
        self.line_comment()
    }

    fn hash(&mut self) -> Token<'a> {
        self.ambiguous = true;
        match self.dialect {
            Dialect::Ansi => self.cut(Kind::Operator, 1),
            Dialect::MySql => self.line_comment(),
        }
    }

    fn line_comment(&mut self) -> Token<'a> {
        let rest = self.rest();
        let end = memchr(b'\n', rest);
        let token = self.cut(Kind::Comment, end.unwrap_or(rest.len()));
        self.at += usize::from(end.is_some());
        token
    }

    /// A comment, unless it has another in it, or MySQL reads it.
    fn slash(&mut self) -> Token<'a> {
        let rest = self.rest();
        let Some(content) = rest[1..].strip_prefix(b"*") else { return self.cut(Kind::Operator, 1) };
        let end = memmem::find(content, b"*/");
        let nested = end.is_some_and(|end| memmem::find(&content[..=end], b"/*").is_some());
        let kind = if nested || content.starts_with(b"!") { Kind::Evil } else { Kind::Comment };
        self.cut(kind, end.map_or(rest.len(), |end| end + 4))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.token();
        self.count += usize::from(token.is_some());
        token
    }
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0 | 0xa0)
}

/// What ends a word.
static ENDS_WORD: [bool; 256] = {
    let ends = b" []{}<>:\\?=@!#~+-*/&|^%(),';\t\n\x0b\x0c\r\"\xa0\0";
    let mut table = [false; 256];
    let mut index = 0;
    while index < ends.len() {
        table[ends[index] as usize] = true;
        index += 1;
    }
    table
};
