//! What words are to SQL, and which shapes of statements are attacks: libinjection's tables.

use std::{collections::HashMap, sync::LazyLock};

use super::token::{Kind, LONGEST};

/// A word as the table has it, in capitals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) text: &'static [u8],
    pub(super) kind: Kind,
    /// Whether a statement without this word, or another such, is none.
    pub(super) telling: bool,
}

struct Words {
    /// A word is where its hash says, or behind.
    slots: Vec<Option<Word>>,
    /// A bit for each length of the words that begin with a byte.
    lengths: [u32; 256],
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let mut words: Vec<Word> = include_str!("libinjection/words.txt")
        .lines()
        .filter_map(|line| {
            let (kind, text) = line.split_once(' ')?;
            let kind = Kind::of(*kind.as_bytes().first()?)?;
            Some(Word { text: text.as_bytes(), kind, telling: is_telling(kind) })
        })
        .collect();
    // The first word of a phrase tells what the phrase does.
    let mut first = HashMap::new();
    for phrase in &words {
        if let Some(blank) = memchr::memchr(b' ', phrase.text) {
            *first.entry(&phrase.text[..blank]).or_insert(false) |= phrase.telling;
        }
    }
    for word in &mut words {
        word.telling |= first.remove(word.text).unwrap_or_default();
    }
    // Those left are no words by themselves.
    words.extend(first.into_iter().map(|(text, telling)| Word { text, kind: Kind::Bareword, telling }));
    let mut table = Words { slots: vec![None; SLOTS], lengths: [0; 256] };
    for word in words {
        table.lengths[usize::from(word.text[0])] |= 1 << word.text.len();
        let free = probe(word.text).find(|slot| table.slots[*slot].is_none());
        table.slots[free.expect("there are more slots than words")] = Some(word);
    }
    table
});

/// So many that most words are where they are looked for first.
const SLOTS: usize = 8192;

/// Where a word in any case may be, one place after the other.
fn probe(text: &[u8]) -> impl Iterator<Item = usize> {
    let hash = text.iter().fold(0_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_uppercase())).wrapping_mul(0x0100_0193).rotate_left(5)
    });
    let start = hash.wrapping_mul(0x9e37_79b9) as usize >> 19;
    (0..SLOTS).map(move |step| (start + step) % SLOTS)
}

/// A byte a kind: five, padded with blanks, and the end of the line.
const SHAPES: &[u8] = include_bytes!("libinjection/shapes.txt");

/// Looks a word or a phrase up, in any case.
pub(super) fn find(text: &[u8]) -> Option<&'static Word> {
    if text.len() > LONGEST {
        return None;
    }
    let table = &*WORDS;
    let first = usize::from(text.first()?.to_ascii_uppercase());
    if table.lengths[first] >> text.len() & 1 == 0 {
        return None;
    }
    let slots = probe(text).map(|slot| table.slots[slot].as_ref());
    slots.map_while(|word| word).find(|word| word.text.eq_ignore_ascii_case(text))
}

/// Whether a shape is that of an attack.
pub(super) fn is_attack(shape: &[u8]) -> bool {
    let mut padded = [b' '; 5];
    for (to, from) in padded.iter_mut().zip(shape) {
        *to = from.to_ascii_uppercase();
    }
    let (lines, _) = SHAPES.as_chunks::<6>();
    lines.binary_search_by(|line| line[..5].cmp(&padded)).is_ok()
}

/// Whether a token of this kind is needed for an attack: there is no shape without one of them.
pub(super) fn is_telling(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Bareword
            | Kind::Number
            | Kind::Operator
            | Kind::Comma
            | Kind::Dot
            | Kind::Colon
            | Kind::Semicolon
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::Backslash
            | Kind::Unknown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_shape_is_without_what_tells() {
        let (lines, rest) = SHAPES.as_chunks::<6>();
        assert!(lines.len() == 8367 && rest.is_empty() && lines.is_sorted());
        for line in lines {
            // Letters of shapes are capitals: a `T` stands for two kinds, an `N` for one.
            let tells = |letter: &u8| {
                [*letter, letter.to_ascii_lowercase()].iter().filter_map(|letter| Kind::of(*letter)).all(is_telling)
            };
            assert!(line[..5].trim_ascii().iter().any(tells), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn words_are_found_in_any_case() {
        assert!(WORDS.slots.iter().flatten().count() >= 985 && find(b"own3d").is_some_and(|word| word.telling));
        for word in WORDS.slots.iter().flatten() {
            let lower = word.text.to_ascii_lowercase();
            assert!(find(&lower).is_some_and(|found| found.text == word.text && word.text.len() <= LONGEST));
        }
        assert!(find(b"").is_none() && find(b"SELEC").is_none() && find(b"SELECT\0").is_none());
    }
}
