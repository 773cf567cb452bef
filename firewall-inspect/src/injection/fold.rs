//! Tokens into the shape of a statement: what adds nothing is left out, until five are left.

use super::{
    token::{Kind, LONGEST, Token, Tokens},
    words,
};

/// As many tokens make a shape.
pub(super) const MOST: usize = 5;

/// A value's first tokens.
pub(super) struct Folded<'a> {
    /// One more is read, to learn what the last one is.
    tokens: [Token<'a>; MOST + 1],
    length: usize,
}

impl<'a> Folded<'a> {
    pub(super) fn tokens(&self) -> &[Token<'a>] {
        &self.tokens[..self.length]
    }
}

/// What a rule leaves to do.
enum Step {
    /// Look again at what is there now.
    Again,
    /// Nothing to fold: on with the next rule.
    On,
    /// The shape is an attack's, whatever follows.
    Evil,
}

struct Folding<'a, 't> {
    source: &'t mut Tokens<'a>,
    more: bool,
    tokens: [Token<'a>; MOST + 1],
    /// How many there are.
    length: usize,
    /// How many of them are done with.
    left: usize,
    /// The comment behind the last of them.
    comment: Option<Token<'a>>,
}

pub(super) fn fold<'a>(source: &mut Tokens<'a>) -> Folded<'a> {
    let none = Token::new(Kind::Unknown, b"");
    let starts_nothing =
        |token: &Token<'_>| matches!(token.kind, Kind::Comment | Kind::LeftParen | Kind::Type) || token.is_unary();
    let Some(first) = source.find(|token| !starts_nothing(token)) else {
        return Folded { tokens: [none; MOST + 1], length: 0 };
    };
    let mut tokens = [none; MOST + 1];
    tokens[0] = first;
    let mut folding = Folding { source, more: true, tokens, length: 1, left: 0, comment: None };
    folding.run();
    Folded { tokens: folding.tokens, length: folding.length }
}

impl<'a> Folding<'a, '_> {
    fn run(&mut self) {
        loop {
            self.start_over_if_repeated();
            if !self.more || self.left >= MOST {
                break;
            }
            let step = match self.read(2) {
                true => self.pair(),
                false => continue,
            };
            match step {
                Step::Again => continue,
                Step::Evil => {
                    self.tokens[0].kind = Kind::Evil;
                    self.length = 1;
                    return;
                }
                Step::On => {}
            }
            if self.read(3)
                && let Step::On = self.triple()
            {
                self.left += 1;
            }
        }
        if self.length < MOST
            && let Some(comment) = self.comment
        {
            self.tokens[self.length] = comment;
            self.length += 1;
        }
        self.length = self.length.min(MOST);
    }

    /// Sees to it that so many tokens are there that are not done with; without them, all are done with.
    fn read(&mut self, count: usize) -> bool {
        while self.more && self.length <= MOST && self.length - self.left < count {
            match self.source.next() {
                None => self.more = false,
                Some(token) if token.kind == Kind::Comment => self.comment = Some(token),
                Some(token) => {
                    self.comment = None;
                    self.tokens[self.length] = token;
                    self.length += 1;
                }
            }
        }
        let enough = self.length - self.left >= count;
        if !enough {
            self.left = self.length;
        }
        enough
    }

    /// Five tokens that may go on for ever, like `1,(1),(1)`, are as good as the first.
    fn start_over_if_repeated(&mut self) {
        if self.length < MOST {
            return;
        }
        use Kind::{Bareword, Comma, LeftParen, Number, Operator, RightParen};
        let kinds: [Kind; MOST] = std::array::from_fn(|index| self.tokens[index].kind);
        let repeated = matches!(
            kinds,
            [Number, Operator | Comma, LeftParen, Number, RightParen]
                | [Bareword, Operator, LeftParen, Bareword | Number, RightParen]
                | [Number, RightParen, Comma, LeftParen, Number]
                | [Bareword, RightParen, Operator, LeftParen, Bareword]
        );
        if repeated {
            self.tokens[1] = self.tokens[MOST];
            self.length = if self.length > MOST { 2 } else { 1 };
            self.left = 0;
        }
    }

    fn at(&mut self, distance: usize) -> &mut Token<'a> {
        &mut self.tokens[self.left + distance]
    }

    /// Looks again from the first token on, with so many tokens less.
    fn without(&mut self, count: usize) -> Step {
        self.length -= count;
        self.left = 0;
        Step::Again
    }

    /// As [`Self::without`] one token: that before the one at this distance, whose place it takes.
    fn without_before(&mut self, distance: usize) -> Step {
        self.tokens[self.left + distance - 1] = self.tokens[self.left + distance];
        self.without(1)
    }

    /// Drops the last token, and steps back by one.
    fn back(&mut self) -> Step {
        self.length -= 1;
        self.left = self.left.saturating_sub(1);
        Step::Again
    }

    fn pair(&mut self) -> Step {
        use Kind::{
            Backslash, Bareword, Collate, Function, Keyword, LeftBrace, LeftParen, Logic, Number, Operator, RightBrace,
            RightParen, Semicolon, String, Transact, Type, Variable,
        };
        let (a, b) = (*self.at(0), *self.at(1));
        match (a.kind, b.kind) {
            (String, String) | (Semicolon, Semicolon) => {
                self.length -= 1;
                return Step::Again;
            }
            (Operator | Logic, Type) => return self.without(1),
            (Operator | Logic, _) if b.is_unary() => return self.without(1),
            (LeftParen, _) if b.is_unary() => return self.back(),
            _ => {}
        }
        if let Some(phrase) = phrase(&a, &b) {
            let token = self.at(0);
            (token.kind, token.text) = (phrase.kind, phrase.text);
            return self.back();
        }
        match (a.kind, b.kind) {
            (Semicolon, Function) if b.text.len() >= 2 && b.text[..2].eq_ignore_ascii_case(b"if") => {
                self.at(1).kind = Transact;
                Step::Again
            }
            (Bareword | Variable, LeftParen) if a.is_any(&FUNCTIONS_BEFORE_PARENS) => {
                self.at(0).kind = Function;
                Step::Again
            }
            (Keyword, next) if a.is_any(&["in", "not in"]) => {
                self.at(0).kind = if next == LeftParen { Operator } else { Bareword };
                Step::Again
            }
            (Operator, next) if a.is_any(&["like", "not like"]) => {
                if next == LeftParen {
                    self.at(0).kind = Function;
                }
                Step::On
            }
            (Type, Bareword | Number | Type | LeftParen | Function | Variable | String) => self.without_before(1),
            (Collate, Bareword) => {
                // As libinjection, to which a null is the end.
                if b.text.iter().take_while(|byte| **byte != 0).any(|byte| *byte == b'_') {
                    self.at(1).kind = Type;
                    self.left = 0;
                }
                Step::On
            }
            // SQL Server reads `\%1` as `0 % 1`, and `\1` as `1`.
            (Backslash, _) if b.is_arithmetic() => {
                self.at(0).kind = Number;
                self.left = 0;
                Step::Again
            }
            (Backslash, _) => self.without_before(1),
            (LeftParen, LeftParen) | (RightParen, RightParen) => self.without(1),
            // MySQL takes {``.``.id} for a name.
            (LeftBrace, Bareword) if b.text.is_empty() => Step::Evil,
            (LeftBrace, Bareword) => self.without(2),
            (_, RightBrace) => self.without(1),
            _ => Step::On,
        }
    }

    fn triple(&mut self) -> Step {
        use Kind::{
            Bareword, Comma, Dot, Expression, Function, Group, Keyword, LeftParen, Logic, Number, Operator, RightParen,
            String, Type, Variable,
        };
        let (a, b, c) = (*self.at(0), *self.at(1), *self.at(2));
        let unary = b.is_unary();
        match (a.kind, b.kind, c.kind) {
            (Number | Bareword, Operator, Number | Bareword)
            | (Variable, Operator, Variable | Number | Bareword)
            | (Logic, _, Logic)
            | (Bareword | Number | String | Variable, Comma, Number | Bareword | String | Variable)
            | (Bareword, Dot, Bareword) => self.without(2),
            (Operator, middle, Operator) if middle != LeftParen => self.without(2),
            (Bareword | Number | Variable | String, Operator, Type) if b.text == b"::" => self.without(2),
            (Expression | Group | Comma, _, LeftParen) if unary => self.without_before(2),
            (Keyword | Expression | Group, _, Number | Bareword | Variable | String | Function) if unary => {
                self.without_before(2)
            }
            // `, -1` goes as a whole, and the token before it is looked at again.
            (Comma, _, Number | Bareword | Variable | String) if unary => {
                self.at(1).clone_from(&c);
                self.without(3)
            }
            (Comma, _, Function) if unary => self.without_before(2),
            (Expression, Dot, Bareword) => self.without_before(2),
            (Function, LeftParen, last) => {
                if last != RightParen && a.is_any(&["user"]) {
                    self.at(0).kind = Bareword;
                }
                Step::On
            }
            _ => Step::On,
        }
    }
}

/// Common names of columns that are functions before a parenthesis.
const FUNCTIONS_BEFORE_PARENS: [&str; 11] = [
    "user_id",
    "user_name",
    "database",
    "password",
    "user",
    "current_user",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

/// Two words that are one, like `UNION ALL`.
fn phrase(a: &Token<'_>, b: &Token<'_>) -> Option<&'static words::Word> {
    use Kind::{Bareword, Expression, Function, Keyword, Logic, Operator, Transact, Type, Union};
    let joins = |kind| matches!(kind, Keyword | Bareword | Operator | Union | Function | Expression | Transact | Type);
    let length = a.text.len() + 1 + b.text.len();
    if !joins(a.kind) || !(joins(b.kind) || b.kind == Logic) || length > LONGEST {
        return None;
    }
    let mut text = [b' '; LONGEST];
    text[..a.text.len()].copy_from_slice(a.text);
    text[a.text.len() + 1..length].copy_from_slice(b.text);
    words::find(&text[..length])
}
