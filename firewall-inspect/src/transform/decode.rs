//! What undoes an encoding.

use super::white::is_space;

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

/// The byte that two digits are.
fn pair(high: u8, low: u8) -> Option<u8> {
    Some(digit(high)? << 4 | digit(low)?)
}

/// The byte of four digits, of which the last two count; of full-width letters (U+FF01 to U+FF5E), the ASCII letter.
fn wide(digits: [u8; 4]) -> Option<u8> {
    pair(digits[0], digits[1])?;
    let low = pair(digits[2], digits[3])?;
    let full_width = digits[0].eq_ignore_ascii_case(&b'f') && digits[1].eq_ignore_ascii_case(&b'f');
    Some(if full_width && (1..0x5f).contains(&low) { low + 0x20 } else { low })
}

fn octal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'7')
}

/// `%hh`, `+`, and with `unicode` `%uhhhh`.
pub(super) fn url(input: &[u8], output: &mut Vec<u8>, unicode: bool) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (b'%', [b'u' | b'U', a, b, c, d, after @ ..]) if unicode => {
                if let Some(byte) = wide([*a, *b, *c, *d]) {
                    output.push(byte);
                    rest = after;
                } else {
                    output.extend_from_slice(&[b'%', behind[0]]);
                    rest = &behind[1..];
                }
            }
            (b'%', [high, low, after @ ..]) if pair(*high, *low).is_some() => {
                output.extend(pair(*high, *low));
                rest = after;
            }
            (b'+', _) => output.push(b' '),
            _ => output.push(*first),
        }
    }
}

const NAMES: [(&[u8], u8); 5] = [(b"quot", b'"'), (b"amp", b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"nbsp", 0xa0)];

/// `&#60;`, `&#x3c;`, and the five names `quot`, `amp`, `lt`, `gt` and `nbsp`. The semicolon may be missing.
pub(super) fn html_entities(input: &[u8], output: &mut Vec<u8>) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        if *first != b'&' {
            output.push(*first);
            rest = behind;
            continue;
        }
        let entity = match behind {
            [b'#', b'x' | b'X', digits @ ..] => {
                let count = count(digits, |byte| byte.is_ascii_hexdigit());
                (count > 0).then(|| (low_byte(&digits[..count], 16), 2 + count))
            }
            [b'#', digits @ ..] => {
                let count = count(digits, |byte| byte.is_ascii_digit());
                (count > 0).then(|| (low_byte(&digits[..count], 10), 1 + count))
            }
            _ => {
                // It is enough that the word begins with the name.
                let word = &behind[..count(behind, |byte| byte.is_ascii_alphanumeric())];
                let begins = |name: &[u8]| word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
                NAMES.iter().find(|(name, _)| begins(name)).map(|(_, byte)| (*byte, word.len()))
            }
        };
        match entity {
            Some((byte, length)) => {
                output.push(byte);
                rest = &behind[length..];
                rest = rest.strip_prefix(b";").unwrap_or(rest);
            }
            None => {
                output.push(b'&');
                rest = behind;
            }
        }
    }
}

fn count(bytes: &[u8], is: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is(byte)).count()
}

/// The lowest byte of a number that may be too large, which counts as the largest that C's `long` can hold.
fn low_byte(digits: &[u8], radix: u32) -> u8 {
    let value = digits.iter().try_fold(0_i64, |value, byte| {
        let digit = (*byte as char).to_digit(radix)?;
        value.checked_mul(i64::from(radix))?.checked_add(i64::from(digit))
    });
    value.unwrap_or(i64::MAX) as u8
}

/// JavaScript's escapes: `\uhhhh`, `\xhh`, octal, and single letters.
pub(super) fn js(input: &[u8], output: &mut Vec<u8>) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        match (first, behind) {
            (b'\\', [b'u', a, b, c, d, after @ ..]) if wide([*a, *b, *c, *d]).is_some() => {
                output.extend(wide([*a, *b, *c, *d]));
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) if pair(*high, *low).is_some() => {
                output.extend(pair(*high, *low));
                rest = after;
            }
            (b'\\', [digit, ..]) if octal(*digit) => {
                let mut digits = count(&behind[..behind.len().min(3)], |byte| octal(*byte));
                if digits == 3 && *digit > b'3' {
                    digits = 2;
                }
                output.push(low_byte(&behind[..digits], 8));
                rest = &behind[digits..];
            }
            (b'\\', [letter, after @ ..]) => {
                output.push(match letter {
                    b'a' => 0x07,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 0x0b,
                    other => *other,
                });
                rest = after;
            }
            _ => output.push(*first),
        }
    }
}

/// CSS's escapes: a backslash and up to six digits, of which the last two count, and one white space behind them; a backslash
/// before a line feed is nothing, before anything else it is left out.
pub(super) fn css(input: &[u8], output: &mut Vec<u8>) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            output.push(*first);
            continue;
        }
        let digits = count(&behind[..behind.len().min(6)], u8::is_ascii_hexdigit);
        match (digits, behind) {
            (0, [b'\n', after @ ..]) => rest = after,
            (0, [other, after @ ..]) => {
                output.push(*other);
                rest = after;
            }
            (0, []) => {}
            (1, _) => output.extend(digit(behind[0])),
            _ => {
                let last = &behind[..digits];
                let low = pair(last[digits - 2], last[digits - 1]);
                let full_width = match last {
                    [a, b, ..] if digits == 4 => Some((*a, *b)),
                    [b'0', a, b, ..] if digits == 5 => Some((*a, *b)),
                    [b'0', b'0', a, b, ..] if digits == 6 => Some((*a, *b)),
                    _ => None,
                };
                let full_width =
                    full_width.is_some_and(|(a, b)| a.eq_ignore_ascii_case(&b'f') && b.eq_ignore_ascii_case(&b'f'));
                output.extend(low.map(|low| if full_width && (1..0x5f).contains(&low) { low + 0x20 } else { low }));
            }
        }
        if digits > 0 {
            rest = &behind[digits..];
            if let [space, after @ ..] = rest
                && is_space(*space)
            {
                rest = after;
            }
        }
    }
}

/// ANSI C's escapes. A backslash before anything else is left out.
pub(super) fn escape_sequences(input: &[u8], output: &mut Vec<u8>) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let (b'\\', [next, after @ ..]) = (first, behind) else {
            output.push(*first);
            continue;
        };
        let single = match next {
            b'a' => Some(0x07),
            b'b' => Some(0x08),
            b'f' => Some(0x0c),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'v' => Some(0x0b),
            b'\\' | b'?' | b'\'' | b'"' => Some(*next),
            _ => None,
        };
        if let Some(byte) = single {
            output.push(byte);
            rest = after;
            continue;
        }
        match (next, after) {
            (b'x' | b'X', [high, low, after @ ..]) if pair(*high, *low).is_some() => {
                output.extend(pair(*high, *low));
                rest = after;
            }
            (digit, _) if octal(*digit) => {
                let digits = count(&behind[..behind.len().min(3)], |byte| octal(*byte));
                output.push(low_byte(&behind[..digits], 8));
                rest = &behind[digits..];
            }
            _ => {
                output.push(*next);
                rest = after;
            }
        }
    }
}

/// Pairs of digits. What is no digit counts as its letter would, as in ModSecurity.
pub(super) fn hex(input: &[u8], output: &mut Vec<u8>) {
    let digit = |byte: u8| {
        if byte >= b'A' { (byte & 0xdf).wrapping_sub(b'A').wrapping_add(10) } else { byte.wrapping_sub(b'0') }
    };
    output.extend(input.chunks_exact(2).map(|pair| digit(pair[0]).wrapping_mul(16).wrapping_add(digit(pair[1]))));
}

/// `0x` and pairs of digits, as SQL writes strings.
pub(super) fn sql_hex(input: &[u8], output: &mut Vec<u8>) {
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if let (b'0', [b'x' | b'X', digits @ ..]) = (first, behind)
            && let [high, low, ..] = digits
            && pair(*high, *low).is_some()
        {
            let count = count(digits, u8::is_ascii_hexdigit) & !1;
            hex(&digits[..count], output);
            rest = &digits[count..];
        } else {
            output.push(*first);
        }
    }
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Base64 to the letter (RFC 4648 section 4, line feeds between lines allowed); what is none stays as it is.
pub(super) fn base64(input: &[u8], output: &mut Vec<u8>) {
    let digits = || input.iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    let count = digits().count();
    let padding = digits().rev().take_while(|byte| **byte == b'=').count();
    let whole =
        count.is_multiple_of(4) && padding <= 2 && digits().take(count - padding).all(|byte| sextet(*byte).is_some());
    if whole {
        sextets(digits().filter_map(|byte| sextet(*byte)), output);
    } else {
        output.extend_from_slice(input);
    }
}

/// Base64 without what does not belong. Where padding shows that something is missing, there is nothing.
pub(super) fn base64_forgiving(input: &[u8], output: &mut Vec<u8>) {
    let (mut count, mut rest) = (0, input);
    while let [first, behind @ ..] = rest {
        rest = behind;
        count += usize::from(sextet(*first).is_some());
        if *first == b'=' && behind.first() != Some(&b'=') && count % 4 == 1 {
            return;
        }
    }
    sextets(input.iter().filter_map(|byte| sextet(*byte)), output);
}

fn sextets(sextets: impl Iterator<Item = u32>, output: &mut Vec<u8>) {
    let (mut bits, mut value) = (0, 0_u32);
    for sextet in sextets {
        value = value << 6 | sextet;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            output.push((value >> bits) as u8);
        }
    }
}

/// UTF-8 of two bytes and more as `%uhhhh`. What is no UTF-8 stays.
pub(super) fn utf8_to_unicode(input: &[u8], output: &mut Vec<u8>) {
    for chunk in input.utf8_chunks() {
        for next in chunk.valid().chars() {
            if next.is_ascii() {
                output.push(next as u8);
            } else {
                output.extend_from_slice(format!("%u{:04x}", u32::from(next)).as_bytes());
            }
        }
        output.extend_from_slice(chunk.invalid());
    }
}
