//! Bytes of a page into tags, attributes and comments, as browsers read them, old ones too.

use memchr::{memchr, memmem};

/// What a page is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Doctype,
    TagName(&'a [u8]),
    AttributeName(&'a [u8]),
    AttributeValue(&'a [u8]),
    Comment(&'a [u8]),
    Other,
}

/// Where in a page the bytes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Text,
    Tag,
    /// The value of an attribute.
    Quoted(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    TagOpen,
    TagEnd,
    BeforeName,
    AfterName,
    BeforeValue,
    AfterQuoted,
    SelfClosing,
    Quoted(u8),
    End,
}

/// What reads parts.
pub(super) struct Parts<'a> {
    input: &'a [u8],
    at: usize,
    state: State,
    /// Whether the tag is a closing one.
    closing: bool,
}

impl<'a> Parts<'a> {
    pub(super) fn new(input: &'a [u8], start: Start) -> Self {
        let state = match start {
            Start::Text => State::Text,
            Start::Tag => State::BeforeName,
            Start::Quoted(quote) => State::Quoted(quote),
        };
        Self { input, at: 0, state, closing: false }
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    /// A part up to a position, behind which reading goes on at another.
    fn until(&mut self, end: usize, next: usize, state: State) -> &'a [u8] {
        let part = &self.input[self.at..end];
        (self.at, self.state) = (next, state);
        part
    }

    fn remainder(&mut self) -> &'a [u8] {
        self.until(self.input.len(), self.input.len(), State::End)
    }

    fn next_byte(&self, byte: u8) -> Option<usize> {
        memchr(byte, &self.input[self.at..]).map(|found| self.at + found)
    }

    /// The next position of a byte that is so, behind so many.
    fn next_where(&self, skip: usize, found: impl Fn(u8) -> bool) -> Option<usize> {
        let from = self.at + skip;
        self.input.get(from..)?.iter().position(|byte| found(*byte)).map(|position| from + position)
    }

    /// The next byte that is not white. 0xff is none: libinjection takes it for the end.
    fn skip_white(&mut self) -> Option<u8> {
        self.at = self.next_where(0, |byte| !is_white(byte)).unwrap_or(self.input.len());
        self.peek().filter(|byte| *byte != 0xff)
    }

    fn text(&mut self) -> Option<Part<'a>> {
        let Some(end) = self.next_byte(b'<') else {
            return (!self.remainder().is_empty()).then_some(Part::Other);
        };
        if self.until(end, end + 1, State::TagOpen).is_empty() { self.tag_open() } else { Some(Part::Other) }
    }

    fn tag_open(&mut self) -> Option<Part<'a>> {
        match self.peek()? {
            b'!' => {
                self.at += 1;
                Some(self.declaration())
            }
            b'/' => {
                self.at += 1;
                self.closing = true;
                self.end_tag()
            }
            b'?' => {
                self.at += 1;
                Some(self.bogus_comment())
            }
            b'%' => {
                self.at += 1;
                Some(self.comment_until(b"%>"))
            }
            b'a'..=b'z' | b'A'..=b'Z' | 0 => Some(self.tag_name()),
            _ => {
                self.state = State::Text;
                Some(Part::Other)
            }
        }
    }

    fn end_tag(&mut self) -> Option<Part<'a>> {
        match self.peek()? {
            b'>' => self.text(),
            b'a'..=b'z' | b'A'..=b'Z' => Some(self.tag_name()),
            _ => {
                self.closing = false;
                Some(self.bogus_comment())
            }
        }
    }

    fn tag_name(&mut self) -> Part<'a> {
        let ends = |byte: u8| byte != 0 && is_white(byte) || matches!(byte, b'/' | b'>');
        let Some(end) = self.next_where(0, ends) else { return Part::TagName(self.remainder()) };
        match self.input[end] {
            b'>' if self.closing => {
                self.closing = false;
                self.until(end, end + 1, State::Text);
                Part::Other
            }
            b'>' => Part::TagName(self.until(end, end, State::TagEnd)),
            b'/' => Part::TagName(self.until(end, end + 1, State::SelfClosing)),
            _ => Part::TagName(self.until(end, end + 1, State::BeforeName)),
        }
    }

    fn tag_end(&mut self) -> Part<'a> {
        self.closing = false;
        self.at += 1;
        self.state = State::Text;
        Part::Other
    }

    /// Behind a slash in a tag, or at any other place where a name may come.
    fn before_name(&mut self) -> Option<Part<'a>> {
        loop {
            match self.skip_white()? {
                b'/' => {
                    self.at += 1;
                    if self.peek()? == b'>' {
                        return Some(self.leave_tag());
                    }
                }
                b'>' => return Some(self.leave_tag()),
                _ => return Some(self.attribute_name()),
            }
        }
    }

    fn leave_tag(&mut self) -> Part<'a> {
        self.until(self.at, self.at + 1, State::Text);
        Part::Other
    }

    fn self_closing(&mut self) -> Option<Part<'a>> {
        match self.peek()? {
            b'>' => Some(self.leave_tag()),
            _ => self.before_name(),
        }
    }

    fn attribute_name(&mut self) -> Part<'a> {
        let ends = |byte: u8| is_white(byte) || matches!(byte, b'/' | b'=' | b'>');
        let Some(end) = self.next_where(1, ends) else { return Part::AttributeName(self.remainder()) };
        Part::AttributeName(match self.input[end] {
            b'/' => self.until(end, end + 1, State::SelfClosing),
            b'=' => self.until(end, end + 1, State::BeforeValue),
            b'>' => self.until(end, end, State::TagEnd),
            _ => self.until(end, end + 1, State::AfterName),
        })
    }

    fn after_name(&mut self) -> Option<Part<'a>> {
        match self.skip_white()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'=' => {
                self.at += 1;
                self.before_value()
            }
            b'>' => Some(self.tag_end()),
            _ => Some(self.attribute_name()),
        }
    }

    fn before_value(&mut self) -> Option<Part<'a>> {
        Some(match self.skip_white()? {
            quote @ (b'"' | b'\'' | b'`') => {
                self.at += 1;
                self.quoted(quote)
            }
            _ => self.unquoted(),
        })
    }

    fn quoted(&mut self, quote: u8) -> Part<'a> {
        Part::AttributeValue(match self.next_byte(quote) {
            Some(end) => self.until(end, end + 1, State::AfterQuoted),
            None => self.remainder(),
        })
    }

    fn unquoted(&mut self) -> Part<'a> {
        Part::AttributeValue(match self.next_where(0, |byte| is_white(byte) || byte == b'>') {
            Some(end) if self.input[end] == b'>' => self.until(end, end, State::TagEnd),
            Some(end) => self.until(end, end + 1, State::BeforeName),
            None => self.remainder(),
        })
    }

    fn after_quoted(&mut self) -> Option<Part<'a>> {
        match self.peek()? {
            b'>' => Some(self.leave_tag()),
            _ => self.before_name(),
        }
    }

    fn declaration(&mut self) -> Part<'a> {
        let rest = &self.input[self.at..];
        if rest.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"doctype")) {
            Part::Doctype
        } else if rest.starts_with(b"[CDATA[") {
            self.at += 7;
            self.comment_until(b"]]>");
            Part::Other
        } else if rest.starts_with(b"--") {
            self.at += 2;
            self.comment()
        } else {
            self.bogus_comment()
        }
    }

    fn bogus_comment(&mut self) -> Part<'a> {
        self.comment_until(b">")
    }

    fn comment_until(&mut self, end: &[u8]) -> Part<'a> {
        Part::Comment(match memmem::find(&self.input[self.at..], end) {
            Some(found) => self.until(self.at + found, self.at + found + end.len(), State::Text),
            None => self.remainder(),
        })
    }

    /// Ends with `-->` or `-!>`, with nulls behind the first dash, or not at all.
    fn comment(&mut self) -> Part<'a> {
        let mut search = self.at;
        while let Some(found) = memchr(b'-', &self.input[search..]) {
            let dash = search + found;
            let behind = &self.input[dash + 1..];
            if behind.len() < 2 {
                break;
            }
            let nulls = behind.iter().take_while(|byte| **byte == 0).count();
            match &behind[nulls..] {
                [] | [b'-' | b'!'] => break,
                [b'-' | b'!', b'>', ..] => {
                    return Part::Comment(self.until(dash, dash + nulls + 3, State::Text));
                }
                _ => search = dash + 1,
            }
        }
        Part::Comment(self.remainder())
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        match self.state {
            State::Text => self.text(),
            State::TagOpen => self.tag_open(),
            State::TagEnd => Some(self.tag_end()),
            State::BeforeName => self.before_name(),
            State::AfterName => self.after_name(),
            State::BeforeValue => self.before_value(),
            State::AfterQuoted => self.after_quoted(),
            State::SelfClosing => self.self_closing(),
            State::Quoted(quote) => Some(self.quoted(quote)),
            State::End => None,
        }
    }
}

pub(super) fn is_white(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0)
}
