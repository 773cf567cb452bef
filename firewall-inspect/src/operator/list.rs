//! Arguments that are lists.

use std::net::IpAddr;

use ipnet::IpNet;

/// The words of `@pm`, which spaces separate. Between `|`, bytes stand as pairs of digits: `|41 42|`.
pub(super) fn phrases(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let (mut words, mut word, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some(next) = rest.chars().next() {
        match next {
            '|' => {
                let Some((inside, behind)) = rest[1..].split_once('|') else {
                    return Err("a `|` has no other behind it".into());
                };
                word.extend(bytes(inside)?);
                rest = behind;
                continue;
            }
            ' ' | '\t' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = &rest[next.len_utf8()..];
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// Bytes as pairs of hexadecimal digits, with white space between them or none.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes = digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>();
    bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| format!("`|{text}|` is no list of bytes"))
}

/// The lines of a data file, without white space around them, empty ones and comments.
pub(super) fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    let lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && line[0] != b'#').map(<[u8]>::to_vec).collect()
}

/// Addresses and prefixes.
pub(super) fn networks<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<IpNet>, String> {
    texts
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).map_err(|_| format!("`{text}` is no address and no prefix"))
        })
        .collect()
}

/// `1-31,127`: which bytes these are.
pub(super) fn byte_range(text: &str) -> Result<Box<[bool; 256]>, String> {
    let mut allowed = Box::new([false; 256]);
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u8>(), last.trim().parse::<u8>()) {
            (Ok(first), Ok(last)) if first <= last => {
                allowed[usize::from(first)..=usize::from(last)].fill(true);
            }
            _ => return Err(format!("`{part}` is no byte and no range of bytes, from 0 to 255")),
        }
    }
    Ok(allowed)
}
