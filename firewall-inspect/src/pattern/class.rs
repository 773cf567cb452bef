//! Classes: `[^a-z\d[:space:]]`.

use std::fmt::Write as _;

use super::{PatternError, Translator};

/// The classes of POSIX that have names.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

enum Item {
    Byte(u8),
    /// Written as it is.
    Set(String),
}

impl Translator<'_> {
    /// What follows an opening bracket.
    pub(super) fn class(&mut self, start: usize) -> Result<(), PatternError> {
        let negated = self.rest().first() == Some(&b'^');
        self.at += usize::from(negated);
        self.output.push_str(if negated { "[^" } else { "[" });
        let mut first = true;
        loop {
            match self.rest().first() {
                None => return Err(self.error(start, "this class is not closed")),
                Some(b']') if !first => break,
                Some(_) => {}
            }
            first = false;
            let at = self.at;
            let Some(item) = self.item(start)? else { continue };
            let range = matches!(self.rest(), [b'-', next, ..] if *next != b']');
            let low = match item {
                Item::Byte(low) if range => low,
                Item::Byte(byte) => {
                    self.byte(byte);
                    continue;
                }
                Item::Set(set) => {
                    self.output.push_str(&set);
                    continue;
                }
            };
            self.at += 1;
            match self.item(start)? {
                Some(Item::Byte(high)) if low <= high => {
                    self.byte(low);
                    self.output.push('-');
                    self.byte(high);
                }
                Some(Item::Byte(_)) => return Err(self.error(at, "this range ends before it begins")),
                // A hyphen before a set is one.
                Some(Item::Set(set)) => {
                    self.byte(low);
                    self.byte(b'-');
                    self.output.push_str(&set);
                }
                None => {
                    self.byte(low);
                    self.byte(b'-');
                }
            }
        }
        self.at += 1;
        self.output.push(']');
        Ok(())
    }

    fn byte(&mut self, byte: u8) {
        // Writing to a string does not fail.
        let _ = write!(self.output, "\\x{byte:02X}");
    }

    /// The next item; `None` for what stands for nothing.
    fn item(&mut self, start: usize) -> Result<Option<Item>, PatternError> {
        let here = self.at;
        let Some(next) = self.rest().first().copied() else {
            return Err(self.error(start, "this class is not closed"));
        };
        self.at += 1;
        match next {
            b'\\' => {
                let Some(escaped) = self.rest().first().copied() else {
                    return Err(self.error(start, "this class is not closed"));
                };
                // There, it is a backspace; and digits are octal.
                if escaped == b'b' {
                    self.at += 1;
                    return Ok(Some(Item::Byte(0x08)));
                }
                if matches!(escaped, b'1'..=b'7') {
                    let count = self.rest().iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                    let value =
                        self.rest()[..count].iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                    self.at += count;
                    return match u8::try_from(value) {
                        Ok(byte) => Ok(Some(Item::Byte(byte))),
                        Err(_) => Err(self.error(here, "an octal escape must be a byte, from 0 to 377")),
                    };
                }
                if let Some(byte) = self.escaped_byte(here)? {
                    return Ok(Some(Item::Byte(byte)));
                }
                self.at += 1;
                let set = match escaped {
                    b'd' | b'D' | b's' | b'S' | b'w' | b'W' => format!("\\{}", escaped as char),
                    b'h' => "\\t\\x20".to_owned(),
                    b'v' => "\\n-\\r".to_owned(),
                    b'E' => return Ok(None),
                    _ => {
                        let message = format!("a class has no `\\{}`, or it is not supported", escaped as char);
                        return Err(self.error(here, message));
                    }
                };
                Ok(Some(Item::Set(set)))
            }
            b'[' if self.rest().first() == Some(&b':') => {
                let end = self.rest().windows(2).position(|two| two == b":]");
                let Some(end) = end else { return Ok(Some(Item::Byte(b'['))) };
                let name = String::from_utf8_lossy(&self.rest()[1..end]).into_owned();
                let bare = name.strip_prefix('^').unwrap_or(&name);
                if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_lowercase()) {
                    return Ok(Some(Item::Byte(b'[')));
                }
                if !NAMES.contains(&bare) {
                    return Err(self.error(here, format!("there is no class `{bare}`")));
                }
                self.at += end + 2;
                Ok(Some(Item::Set(format!("[:{name}:]"))))
            }
            byte => Ok(Some(Item::Byte(byte))),
        }
    }
}
