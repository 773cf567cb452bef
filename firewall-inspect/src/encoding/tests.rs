use std::io::Write;

use flate2::{
    Compression, GzBuilder,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const LIMITS: Limits = Limits { size: 1 << 20, ratio: 1000 };

type Encode = fn(&[u8]) -> Vec<u8>;

/// Everything that a body may come as.
const ENCODERS: [(&str, Coding, Encode); 6] = [
    ("gzip", Coding::Gzip, |text| finish(GzEncoder::new(Vec::new(), Compression::default()), text, GzEncoder::finish)),
    ("gzip, all fields", Coding::Gzip, |text| {
        let builder = GzBuilder::new().filename("a.txt").comment("b").extra(vec![1, 2, 3]).mtime(7);
        finish(builder.write(Vec::new(), Compression::best()), text, GzEncoder::finish)
    }),
    ("zlib", Coding::Deflate, |text| {
        finish(ZlibEncoder::new(Vec::new(), Compression::fast()), text, ZlibEncoder::finish)
    }),
    ("raw deflate", Coding::Deflate, |text| {
        finish(DeflateEncoder::new(Vec::new(), Compression::default()), text, DeflateEncoder::finish)
    }),
    ("brotli", Coding::Brotli, |text| brotli_of(text, 22)),
    ("zstd", Coding::Zstd, |text| compress_to_vec(text, CompressionLevel::Fastest)),
];

fn finish<W: Write>(mut encoder: W, text: &[u8], end: fn(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    encoder.write_all(text).unwrap();
    end(encoder).unwrap()
}

fn brotli_of(text: &[u8], window: u32) -> Vec<u8> {
    let mut body = Vec::new();
    ::brotli::CompressorWriter::new(&mut body, 4096, 5, window).write_all(text).unwrap();
    body
}

fn zeros(length: usize) -> Vec<u8> {
    vec![0; length]
}

#[test]
fn what_the_header_says() {
    for (lines, expected) in [
        (&[][..], Ok(None)),
        (&[""], Ok(None)),
        (&[" , "], Ok(None)),
        (&["identity"], Ok(None)),
        (&["GZip"], Ok(Some(Coding::Gzip))),
        (&["x-gzip "], Ok(Some(Coding::Gzip))),
        (&["", "\tdeflate"], Ok(Some(Coding::Deflate))),
        (&["br,"], Ok(Some(Coding::Brotli))),
        (&["zstd"], Ok(Some(Coding::Zstd))),
        (&["gzip, br"], Err(Problem::Several)),
        (&["gzip", "gzip"], Err(Problem::Several)),
        (&["identity,gzip"], Err(Problem::Several)),
        (&["gzip;q=1"], Err(Problem::Unknown)),
        (&["gzip br"], Err(Problem::Unknown)),
        (&["compress"], Err(Problem::Unknown)),
        (&["*"], Err(Problem::Unknown)),
        (&["dcz"], Err(Problem::Unknown)),
    ] {
        assert_eq!(Coding::of(lines.iter().map(|line: &&str| line.as_bytes())), expected, "{lines:?}");
    }
}

#[test]
fn what_ends_too_soon_or_goes_on() {
    let text = "so much to say, so much to say; and one thing more: ".repeat(20);
    for (name, coding, encode) in ENCODERS {
        let body = encode(text.as_bytes());
        for end in 0..body.len() {
            assert_eq!(
                decode(coding, &body[..end], LIMITS),
                Err(Problem::Malformed),
                "{name}, {end} of {}",
                body.len()
            );
        }
        for behind in [&b"\0"[..], b"&a=1", &body, b"\x50\x2a\x4d\x18\0\0\0\0"] {
            assert_eq!(decode(coding, &[&body, behind].concat(), LIMITS), Err(Problem::TrailingBytes), "{name}");
        }
        assert_eq!(decode(coding, b"", LIMITS), Err(Problem::Malformed), "{name}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    for (name, coding, encode) in ENCODERS {
        for length in [0, 1, 1000, 70_000, 300_000] {
            let body = encode(&zeros(length));
            let at = |size: usize| decode(coding, &body, Limits { size: size as u64, ratio: u32::MAX });
            assert_eq!(at(length), Ok(zeros(length)), "{name}");
            if length > 0 {
                assert_eq!(at(length - 1), Err(Problem::TooLarge), "{name}");
            }
            let ratio = length.div_ceil(body.len().max(1)) as u32;
            let at = |ratio: u32| decode(coding, &body, Limits { size: u64::MAX, ratio });
            assert_eq!(at(ratio), Ok(zeros(length)), "{name}");
            if length > 64 << 10 && ratio > 1 {
                assert_eq!(at(ratio - 1), Err(Problem::Ratio), "{name}");
            } else {
                assert_eq!(at(0), Ok(zeros(length)), "{name}");
            }
        }
    }
}

#[test]
fn bombs_end_at_the_limit() {
    for (name, coding, encode) in ENCODERS {
        let body = encode(&zeros(64 << 20));
        let limit = |size: u64, ratio: u32| decode(coding, &body, Limits { size, ratio });
        assert_eq!(limit(1 << 20, u32::MAX), Err(Problem::TooLarge), "{name}");
        assert_eq!(limit(u64::MAX, 100), Err(Problem::Ratio), "{name}");
    }
    // Blocks of zstd that repeat one byte, 128 KiB of it for four.
    let body = [&b"\x28\xb5\x2f\xfd\x00\x68"[..], &b"\x02\0\x10\0".repeat(4000), b"\x01\0\0"].concat();
    assert_eq!(decode(Coding::Zstd, &body, LIMITS), Err(Problem::TooLarge));
    let enough = Limits { size: 4000 << 17, ratio: u32::MAX };
    assert_eq!(decode(Coding::Zstd, &body, enough).map(|bytes| bytes.len()), Ok(4000 << 17));
}

#[test]
fn windows_are_bounded() {
    let frame = |descriptor: u8, rest: &[u8]| [&b"\x28\xb5\x2f\xfd\x00"[..], &[descriptor], rest].concat();
    let raw = b"\x09\0\0a";
    assert_eq!(decode(Coding::Zstd, &frame(13 << 3, raw), LIMITS), Ok(b"a".to_vec()));
    assert_eq!(decode(Coding::Zstd, &frame(13 << 3 | 1, raw), LIMITS), Err(Problem::Malformed));
    assert_eq!(decode(Coding::Zstd, &frame(31 << 3, raw), LIMITS), Err(Problem::Malformed));
    // A size told of 2⁶⁴ - 1.
    let large = [&b"\x28\xb5\x2f\xfd\xe0"[..], &[0xff; 8], raw].concat();
    assert!(decode(Coding::Zstd, &large, Limits { size: u64::MAX, ratio: u32::MAX }).is_err());
    // A dictionary's number, and a size that is wrong.
    assert_eq!(decode(Coding::Zstd, b"\x28\xb5\x2f\xfd\x01\x00\x05\x09\0\0a", LIMITS), Err(Problem::Malformed));
    assert_eq!(decode(Coding::Zstd, b"\x28\xb5\x2f\xfd\x20\x01\x09\0\0a", LIMITS), Ok(b"a".to_vec()));
    assert_eq!(decode(Coding::Zstd, b"\x28\xb5\x2f\xfd\x20\x02\x09\0\0a", LIMITS), Err(Problem::Malformed));
    // Brotli with a large window, 30 bits: 0b0001 and 0001, then the bits.
    assert_eq!(decode(Coding::Brotli, b"\x11\x5e\x03", LIMITS), Err(Problem::Malformed));
    // Zlib with a dictionary, and with a window beyond 32 KiB.
    for header in [[0x78, 0xbb], [0x88, 0x1c]] {
        assert_eq!(
            decode(Coding::Deflate, &[&header[..], b"\x03\0\0\0\0\x01"].concat(), LIMITS),
            Err(Problem::Malformed)
        );
    }
}

#[test]
fn checks_and_headers_of_gzip() {
    let body = ENCODERS[0].2(b"text");
    let changed = |at: usize, to: u8| {
        let mut body = body.clone();
        body[at] = to;
        decode(Coding::Gzip, &body, LIMITS)
    };
    assert_eq!(changed(9, 77), Ok(b"text".to_vec()));
    for at in [0, 1, 2, body.len() - 8, body.len() - 1] {
        assert_eq!(changed(at, 77), Err(Problem::Malformed), "{at}");
    }
    assert_eq!(changed(3, 1 << 5), Err(Problem::Malformed));
    // With a check of the header: of ten bytes and of what is told of them.
    let mut header = body[..10].to_vec();
    header[3] = 1 << 1;
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    let with = |check: u16| decode(Coding::Gzip, &[&header, &check.to_le_bytes()[..], &body[10..]].concat(), LIMITS);
    assert_eq!(with(crc.sum() as u16), Ok(b"text".to_vec()));
    assert_eq!(with(crc.sum() as u16 ^ 1), Err(Problem::Malformed));
}

#[test]
fn deflate_that_can_be_read_in_two_ways() {
    // With its wrapper: a stored block of 0xff63 bytes and an empty one. Without, the header begins a stored block of 0x9c bytes.
    let mut text = vec![b'a'; 0xff63];
    let zlib = |text: &[u8]| {
        let (low, high) = text.iter().fold((1, 0), |(low, high), byte| {
            let low = (low + u32::from(*byte)) % 65_521;
            (low, (high + low) % 65_521)
        });
        [b"\x78\x9c\x00\x63\xff\x9c\x00", text, b"\x03\x00", &(high << 16 | low).to_be_bytes()].concat()
    };
    assert_eq!(decode(Coding::Deflate, &zlib(&text), LIMITS), Ok(text.clone()));
    text[0x9c - 2..][..5].copy_from_slice(b"\x01\0\0\xff\xff");
    assert_eq!(decode(Coding::Deflate, &zlib(&text), LIMITS), Err(Problem::Malformed));
    // A check that is wrong.
    let mut broken = zlib(b"");
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(decode(Coding::Deflate, &broken, LIMITS), Err(Problem::Malformed));
}

proptest! {
    #[test]
    fn round_trips(text in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000), repeat in 1..60_usize, window in 10..25_u32) {
        let text = text.repeat(repeat);
        for (name, coding, encode) in ENCODERS {
            prop_assert!(decode(coding, &encode(&text), LIMITS) == Ok(text.clone()), "{}", name);
        }
        let body = brotli_of(&text, window);
        let exact = Limits { size: text.len() as u64, ratio: u32::MAX };
        prop_assert!(decode(Coding::Brotli, &body, exact) == Ok(text.clone()), "{}", window);
    }

    #[test]
    fn what_is_no_stream(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0..300_usize, text in "[a-f]{0,200}") {
        for (_, coding, encode) in ENCODERS {
            let _ = decode(coding, &noise, LIMITS);
            // Behind an honest beginning, too.
            let mut body = encode(text.as_bytes());
            body.truncate(at.min(body.len()));
            body.extend_from_slice(&noise);
            if let Ok(decoded) = decode(coding, &body, LIMITS) {
                prop_assert!(decoded.len() as u64 <= LIMITS.size);
            }
        }
    }
}
