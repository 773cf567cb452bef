//! Words for sizes, durations and rates: `64KiB`, `5m`, `2000/s`, `10MB/s`.
//!
//! In: text. Out: numbers, or what is wrong with the text. Numbers are whole; `KB` is 1000 bytes, `KiB` 1024. The writers
//! give the shortest word that reads back as the same number.

use std::time::Duration;

use super::report::{Invalid, quoted};

const BYTES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// In milliseconds.
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// In seconds.
const PERIODS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

const SIZE_HELP: &str = "a whole number and a unit: `512B`, `64KB`, `1KiB`, `10MB`, `64MiB`, `1GiB`";
const TIME_HELP: &str = "a whole number and a unit: `500ms`, `60s`, `5m`, `1h`, `30d`";
const RATE_HELP: &str = "a whole number and a period: `2000/s`, `10/m`, `100/h`, `1000/d`";
const BYTE_RATE_HELP: &str = "a size and a period: `10MB/s`, `512KiB/s`, `1GB/h`";

/// So many tokens each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWord {
    /// `> 0`
    pub tokens: u64,
    /// A second, a minute, an hour or a day.
    pub period: Duration,
}

/// A size in bytes: `9000B`.
pub fn parse_size(text: &str) -> Result<u64, Invalid> {
    scaled(text, BYTES).map_err(|fault| fault.explain(text, "a size", SIZE_HELP))
}

/// A duration: `500ms`, `60s`.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let milliseconds = scaled(text, TIMES).map_err(|fault| fault.explain(text, "a duration", TIME_HELP))?;
    Ok(Duration::from_millis(milliseconds))
}

/// A rate of things that are counted: `2000/s`.
pub fn parse_rate(text: &str) -> Result<RateWord, Invalid> {
    rate(text, &[("", 1)]).map_err(|fault| fault.explain(text, "a rate", RATE_HELP))
}

/// A rate of bytes: `10MB/s`.
pub fn parse_byte_rate(text: &str) -> Result<RateWord, Invalid> {
    rate(text, BYTES).map_err(|fault| fault.explain(text, "a rate of bytes", BYTE_RATE_HELP))
}

pub fn format_size(bytes: u64) -> String {
    unscaled(bytes, BYTES)
}

/// Rounds down to milliseconds.
pub fn format_duration(duration: Duration) -> String {
    unscaled(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), TIMES)
}

enum Fault {
    /// The text has another shape.
    Shape,
    /// The number is too large.
    Large,
    Zero,
}

impl Fault {
    fn explain(self, text: &str, what: &str, help: &str) -> Invalid {
        let text = quoted(text);
        let message = match self {
            Self::Shape => format!("{text} is not {what}"),
            Self::Large => format!("{text} is too large"),
            Self::Zero => format!("{text} lets nothing through"),
        };
        Invalid::new(message).help(help)
    }
}

/// A number and one of `units`.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(Fault::Shape);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(Fault::Shape)?;
    let number: u64 = number.parse().map_err(|_| Fault::Large)?;
    number.checked_mul(*factor).ok_or(Fault::Large)
}

fn rate(text: &str, units: &[(&str, u64)]) -> Result<RateWord, Fault> {
    let (amount, period) = text.split_once('/').ok_or(Fault::Shape)?;
    let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period).ok_or(Fault::Shape)?;
    match scaled(amount, units)? {
        0 => Err(Fault::Zero),
        tokens => Ok(RateWord { tokens, period: Duration::from_secs(*seconds) }),
    }
}

fn unscaled(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().filter(|(_, factor)| value.is_multiple_of(*factor) && (value > 0 || *factor == 1));
    let (unit, factor) = fits.max_by_key(|(_, factor)| *factor).unwrap_or(&units[0]);
    format!("{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0B", 0),
            ("9000B", 9000),
            ("64KB", 64_000),
            ("64kB", 64_000),
            ("1KiB", 1024),
            ("1MB", 1_000_000),
            ("64MiB", 64 << 20),
            ("2GB", 2_000_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "B", "12", "12 KB", " 12KB", "12kb", "12K", "-1B", "+1B", "1.5MB", "1Mbit", "0x10B", "１B"] {
            assert_eq!(parse_size(text).unwrap_err().message, format!("`{text}` is not a size"));
        }
        for text in ["18446744073709551616B", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text).unwrap_err().message, format!("`{text}` is too large"));
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in
            [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "60", "s", "1h30m", "1w", "1us", "-1s", "1 s", "1S"] {
            assert_eq!(parse_duration(text).unwrap_err().message, format!("`{text}` is not a duration"));
        }
        assert!(parse_duration("99999999999999999999d").is_err());
    }

    #[test]
    fn rates() {
        let word = |tokens, seconds| Ok(RateWord { tokens, period: Duration::from_secs(seconds) });
        assert_eq!(parse_rate("2000/s"), word(2000, 1));
        assert_eq!(parse_rate("10/m"), word(10, 60));
        assert_eq!(parse_rate("1/h"), word(1, 3600));
        assert_eq!(parse_rate("1/d"), word(1, 86_400));
        assert_eq!(parse_byte_rate("1MB/s"), word(1_000_000, 1));
        assert_eq!(parse_byte_rate("512KiB/m"), word(512 << 10, 60));
        for text in
            ["", "/", "2000", "2000/", "/s", "2000/5s", "2000/ms", "2000 / s", "2000/s/s", "1MB/s", "-1/s", "1.5/s"]
        {
            assert_eq!(parse_rate(text).unwrap_err().message, format!("`{text}` is not a rate"));
        }
        for text in ["", "1000/s", "1MB", "1Mbit/s", "1mb/s"] {
            assert_eq!(parse_byte_rate(text).unwrap_err().message, format!("`{text}` is not a rate of bytes"));
        }
        assert_eq!(parse_rate("0/s").unwrap_err().message, "`0/s` lets nothing through");
        assert_eq!(parse_byte_rate("0MB/s").unwrap_err().message, "`0MB/s` lets nothing through");
    }

    proptest! {
        #[test]
        fn words_survive_a_round_trip(number: u64) {
            prop_assert_eq!(parse_size(&format_size(number)), Ok(number));
            let duration = Duration::from_millis(number);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parsers_fall_over(text: String) {
            let _ = (parse_size(&text), parse_duration(&text), parse_rate(&text), parse_byte_rate(&text));
        }

        #[test]
        fn every_unit_scales(number in 0u64..1 << 20) {
            for (unit, factor) in BYTES {
                prop_assert_eq!(parse_size(&format!("{number}{unit}")), Ok(number * factor));
            }
            for (unit, factor) in TIMES {
                let expected = Duration::from_millis(number * factor);
                prop_assert_eq!(parse_duration(&format!("{number}{unit}")), Ok(expected));
            }
        }
    }
}
