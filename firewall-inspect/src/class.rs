//! Sets of bytes, asked in one table look-up.

pub(crate) struct Class([bool; 256]);

impl Class {
    const fn of(lists: &[&[u8]]) -> Self {
        let mut set = [false; 256];
        let mut list = 0;
        while list < lists.len() {
            let mut at = 0;
            while at < lists[list].len() {
                set[lists[list][at] as usize] = true;
                at += 1;
            }
            list += 1;
        }
        Self(set)
    }

    pub(crate) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }

    pub(crate) fn all(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.has(*byte))
    }
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DIGITS: &[u8] = b"0123456789";

/// `tchar` (RFC 9110 section 5.6.2).
pub(crate) static TOKEN: Class = Class::of(&[LETTERS, DIGITS, b"!#$%&'*+-.^_`|~"]);

/// What a path and a query may be made of: what RFC 3986 lets them have, and what browsers send raw beside it.
pub(crate) static TARGET: Class = Class::of(&[LETTERS, DIGITS, b"-._~!$&'()*+,;=:@/?%", b"[]{}|^`\\"]);

/// `pchar` without `%` (RFC 3986 section 3.3), and the slash.
pub(crate) static PATH: Class = Class::of(&[LETTERS, DIGITS, b"-._~!$&'()*+,;=:@/"]);

/// What the name of a host is made of, underscores of home-made networks included.
pub(crate) static HOST: Class = Class::of(&[LETTERS, DIGITS, b"-._"]);

/// Whether a header's value has no controls but tabs (RFC 9110 section 5.5). Looks at each byte: the loop has no branches.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & ((*byte >= b' ' && *byte != 0x7F) || *byte == b'\t'))
}
