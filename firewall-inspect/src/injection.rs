//! SQL and markup in values: whether a database or a browser would read them as code, as libinjection judges.

/// The shape of an injected statement: a letter for each of its first tokens, five at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    letters: [u8; 5],
    length: usize,
}

impl Fingerprint {
    pub fn as_bytes(&self) -> &[u8] {
        &self.letters[..self.length]
    }
}

/// Whether a value, put into a statement of SQL, would change what that does.
pub fn sqli(value: &[u8]) -> Option<Fingerprint> {
    let found = libinjectionrs::detect_sqli(value);
    let shape = found.fingerprint.as_ref().filter(|_| found.is_injection())?;
    let shape = shape.as_bytes();
    let length = shape.iter().position(|byte| *byte == 0).unwrap_or(shape.len()).min(5);
    let mut letters = [0; 5];
    letters[..length].copy_from_slice(&shape[..length]);
    Some(Fingerprint { letters, length })
}

/// Whether a value, put into a page, would run as script.
pub fn xss(value: &[u8]) -> bool {
    libinjectionrs::detect_xss(value).is_injection()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_shapes() {
        for (value, shape) in [
            (&b"1' OR '1'='1"[..], Some(&b"s&sos"[..])),
            (b"1 UNION SELECT 1", Some(b"1UE1")),
            (b"hello world", None),
            (b"", None),
            (b"\xff\xfe' or 1=1--", Some(b"n")),
        ] {
            let found = sqli(value);
            assert_eq!(found.is_some(), shape.is_some(), "{}", value.escape_ascii());
            if value.is_ascii() {
                assert_eq!(found.as_ref().map(Fingerprint::as_bytes), shape, "{}", value.escape_ascii());
            }
        }
    }

    #[test]
    fn script_is_script() {
        assert!(xss(b"<script>alert(1)</script>") && xss(b"\" onload=\"x") && !xss(b"a < b") && !xss(b""));
    }
}
