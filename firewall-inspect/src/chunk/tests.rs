//! Limits, pieces and agreement with a plain reader; malformed chunks are in the table of smuggled requests.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { trailers: 20, trailer_count: 2 };

/// Body, trailers and how much was used up.
type Whole = (Vec<u8>, Vec<(String, String)>, usize);

/// Reads pieces of the input.
fn read(pieces: &[&[u8]]) -> Result<Option<Whole>, Reason> {
    let mut chunks = Chunks::new(LIMITS);
    let (mut body, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match chunks.advance(piece, at)? {
                Step::More => break,
                Step::Data(range) => {
                    assert!(range.start >= at && !range.is_empty());
                    at = range.end;
                    body.extend_from_slice(&piece[range]);
                }
                Step::End(end) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let trailers = chunks.trailers().iter().map(|(name, value)| (text(name), text(value))).collect();
                    return Ok(Some((body, trailers, used + end)));
                }
            }
        }
        used += piece.len();
    }
    Ok(None)
}

#[test]
fn trailers_are_told() {
    let input = b"1\r\na\r\n0\r\nX-A: 1\r\nb:2\r\n\r\nrest";
    let (body, trailers, used) = read(&[input]).unwrap().unwrap();
    assert_eq!((&body[..], &input[used..]), (&b"a"[..], &b"rest"[..]));
    assert_eq!(trailers, [("X-A".into(), "1".into()), ("b".into(), "2".into())]);
}

#[test]
fn limits_hold() {
    let rows: &[(&str, Option<Reason>)] = &[
        // 20 and 21 bytes.
        ("0\r\nabc: 5678901234567\r\n\r\n", None),
        ("0\r\nabc: 56789012345678\r\n\r\n", Some(Reason::TrailersTooLarge)),
        ("0\r\nabc: 56789012345678901234567890", Some(Reason::TrailersTooLarge)),
        ("0\r\na:\r\nb:\r\n\r\n", None),
        ("0\r\na:\r\nb:\r\nc:\r\n\r\n", Some(Reason::TrailersTooLarge)),
    ];
    for (input, expected) in rows {
        assert_eq!(read(&[input.as_bytes()]).err(), *expected, "{input:?}");
        let bytes: Vec<_> = input.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes).err(), *expected, "{input:?}");
    }
    for (length, expected) in [(MAX_EXTENSION - 1, None), (MAX_EXTENSION, Some(Reason::MalformedChunk))] {
        let input = format!("0;{}\r\n\r\n", "a".repeat(length.into()));
        assert_eq!(read(&[input.as_bytes()]).err(), expected, "{length}");
    }
}

#[test]
fn sizes_are_written_as_they_are_read() {
    for (size, line) in
        [(0, "0\r\n"), (9, "9\r\n"), (0x10, "10\r\n"), (0xFFF, "fff\r\n"), (u64::MAX, "ffffffffffffffff\r\n")]
    {
        assert_eq!(size_line(size).as_ref(), line.as_bytes());
    }
}

proptest! {
    /// What our own writer makes reads as it was, in any pieces.
    #[test]
    fn chunks_come_back(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut input = Vec::new();
        for part in &parts {
            input.extend_from_slice(size_line(part.len() as u64).as_ref());
            input.extend_from_slice(part);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(size_line(0).as_ref());
        input.extend_from_slice(b"\r\n");
        let end = input.len();
        input.extend_from_slice(b"next");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len())).chain([0, input.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        prop_assert_eq!(read(&pieces), Ok(Some((parts.concat(), vec![], end))));
    }

    #[test]
    fn no_bytes_panic(input in prop::collection::vec(any::<u8>(), 0..40), trailers: bool) {
        let start: &[u8] = if trailers { b"0\r\n" } else { b"" };
        let _ = read(&[start, &input]);
    }

    /// Bytes that look like chunks: no panic, and no difference between one piece and many.
    #[test]
    fn pieces_make_no_difference(input in "([0-3];?a?=?\"?\r?\n?[ab]{0,3}\r?\n?){0,6}") {
        let bytes: Vec<_> = input.as_bytes().chunks(1).collect();
        prop_assert_eq!(read(&[input.as_bytes()]), read(&bytes));
    }
}
