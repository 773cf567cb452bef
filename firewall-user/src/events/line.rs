//! An event as one line of JSON.
//!
//! In: an [`Event`]. Out: ASCII, closed by the only newline. The fields of a packet's record are its `Serialize`; those of
//! requests are written by hand, since there is one for each request.

use std::{
    fmt::Display,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    BanRecord, Event, format_time,
    request::{Content, RequestRecord},
};

/// Remembers the last time it wrote: the events of a batch are close to each other.
#[derive(Debug, Default)]
pub(super) struct LineWriter {
    second: Option<u64>,
    /// That second as [`format_time`] has it, up to and with the point before the fraction.
    stamp: String,
}

impl LineWriter {
    /// Appends the line of `event`.
    pub(super) fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            // A struct of numbers and strings always has a JSON form, and a vector takes every write.
            Event::Packet(record) => serde_json::to_writer(&mut *out, record).expect("a record has a JSON form"),
            Event::Request(record) => self.request(record, out),
            Event::Ban(record) => self.ban(record, out),
        }
        out.push(b'\n');
    }

    fn request(&mut self, record: &RequestRecord, out: &mut Vec<u8>) {
        self.begin(record.time, out);
        let mut fields = Fields(out);
        fields.known("action", record.verdict.name());
        fields.known_if("reason", record.reason.map(|reason| reason.name()));
        fields.shown("id", format_args!("{:016x}", record.id));
        fields.text("api", &record.api);
        fields.shown("source", record.client);
        match record.proxy {
            Some(proxy) => {
                fields.shown("proxy", proxy);
                fields.number("proxy_port", record.client_port.into());
            }
            None => fields.number("source_port", record.client_port.into()),
        }
        if !record.method.is_empty() {
            fields.text("method", &record.method);
        }
        if let Some(host) = &record.host {
            fields.text("host", host);
        }
        if !record.path.is_empty() {
            fields.text("path", &record.path);
        }
        fields.known_if("version", record.version);
        fields.known_if("tls", record.tls);
        if record.status != 0 {
            fields.number("status", record.status.into());
        }
        fields.number("bytes_in", record.bytes_in);
        fields.number("bytes_out", record.bytes_out);
        fields.number("duration_us", record.duration);
        if let Some(upstream) = record.upstream {
            fields.number("upstream_us", upstream);
        }
        fields.number("generation", record.generation.into());
        if let Some(content) = &record.content {
            fields.content(content);
        }
        out.push(b'}');
    }

    fn ban(&mut self, record: &BanRecord, out: &mut Vec<u8>) {
        self.begin(record.time, out);
        let mut fields = Fields(out);
        fields.known("action", record.outcome.name());
        fields.known("reason", "reputation");
        fields.text("api", &record.api);
        fields.shown("source", record.source);
        fields.shown("prefix", record.prefix);
        fields.known("last_reason", record.cause.name());
        fields.number("score", record.score.into());
        fields.number("offences", record.offences.into());
        fields.number("ban_seconds", record.lasts.as_secs());
        out.push(b'}');
    }

    /// What all lines of the LAN layer begin with.
    fn begin(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.stamp = format_time(UNIX_EPOCH + Duration::from_secs(since.as_secs()));
            self.stamp.truncate("2023-11-14T22:13:20.".len());
        }
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(self.stamp.as_bytes());
        let millis = since.subsec_millis();
        out.extend([millis / 100, millis / 10 % 10, millis % 10].map(|digit| b'0' + digit as u8));
        out.extend_from_slice(b"Z\",\"layer\":\"lan\"");
    }
}

/// Fields behind others.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A word of ours, in which nothing needs to be escaped.
    fn known(&mut self, name: &'static str, word: &'static str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }

    fn known_if(&mut self, name: &'static str, word: Option<&'static str>) {
        if let Some(word) = word {
            self.known(name, word);
        }
    }

    /// What shows as ASCII without quotes, backslashes and control characters: an address, a number.
    fn shown(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        // A vector takes every write.
        write!(self.0, "\"{value}\"").expect("a vector takes every write");
    }

    fn number(&mut self, name: &'static str, mut number: u64) {
        self.name(name);
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[start..]);
    }

    /// Anybody's text. What is not printable ASCII is escaped: nothing that a terminal or an editor would obey is left,
    /// neither control characters nor those that turn the direction of writing.
    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        self.quoted(text);
    }

    fn quoted(&mut self, text: &str) {
        self.0.push(b'"');
        let plain = |byte: &u8| (b' '..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
        if text.as_bytes().iter().all(plain) {
            self.0.extend_from_slice(text.as_bytes());
        } else {
            text.chars().for_each(|character| self.escaped(character));
        }
        self.0.push(b'"');
    }

    fn content(&mut self, content: &Content) {
        self.array("phases", &content.phases, |out, phase| out.push(b'0' + phase));
        for (name, score) in [("score_in", content.score_in), ("score_out", content.score_out)] {
            if let Some(score) = score {
                self.name(name);
                write!(self.0, "{score}").expect("a vector takes every write");
            }
        }
        self.array("rules", &content.rules, |out, rule| {
            write!(out, "{{\"id\":{}", rule.id).expect("a vector takes every write");
            let mut fields = Fields(out);
            fields.number("phase", rule.phase.into());
            fields.known_if("severity", rule.severity);
            fields.text_if("message", &rule.message);
            fields.array("tags", &rule.tags, |out, tag| Fields(out).quoted(tag));
            fields.text_if("variable", &rule.variable);
            fields.text_if("matched", &rule.matched);
            fields.text_if("data", &rule.data);
            out.push(b'}');
        });
        if content.omitted > 0 {
            self.number("rules_omitted", content.omitted as u64);
        }
    }

    /// Nothing if it is empty.
    fn array<T>(&mut self, name: &'static str, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
        if items.is_empty() {
            return;
        }
        self.name(name);
        for (index, item) in items.iter().enumerate() {
            self.0.push(if index == 0 { b'[' } else { b',' });
            write(self.0, item);
        }
        self.0.push(b']');
    }

    fn text_if(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn escaped(&mut self, character: char) {
        match character {
            '"' | '\\' => self.0.extend([b'\\', character as u8]),
            ' '..='~' => self.0.push(character as u8),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(self.0, "\\u{unit:04x}").expect("a vector takes every write");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{ban, request},
        *,
    };

    fn line(event: impl Into<Event>) -> String {
        let mut out = Vec::new();
        LineWriter::default().write(&event.into(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_stable() {
        let sample = request::tests::sample();
        assert_eq!(
            line(sample.clone()),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","layer":"lan","action":"refuse","reason":"path-above-root","#,
                r#""id":"00000000000000ff","api":"shop","source":"203.0.113.7","source_port":40000,"method":"GET","#,
                r#""host":"shop.example","path":"/a/../../b","version":"HTTP/1.1","tls":"TLSv1.3","status":400,"#,
                r#""bytes_in":0,"bytes_out":120,"duration_us":350,"upstream_us":0,"generation":3}"#,
                "\n"
            )
        );
        assert_eq!(
            line(ban::tests::sample()),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","layer":"lan","action":"ban","reason":"reputation","api":"shop","#,
                r#""source":"203.0.113.7","prefix":"203.0.113.7/32","last_reason":"path-above-root","score":104,"#,
                r#""offences":2,"ban_seconds":600}"#,
                "\n"
            )
        );
        // Behind a proxy the port is the proxy's; what is not known is absent.
        let bare = RequestRecord {
            proxy: Some([198, 51, 100, 9].into()),
            method: "".into(),
            host: None,
            path: "".into(),
            version: None,
            tls: None,
            reason: None,
            status: 0,
            upstream: None,
            ..sample
        };
        assert_eq!(
            line(bare),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","layer":"lan","action":"refuse","id":"00000000000000ff","#,
                r#""api":"shop","source":"203.0.113.7","proxy":"198.51.100.9","proxy_port":40000,"bytes_in":0,"#,
                r#""bytes_out":120,"duration_us":350,"generation":3}"#,
                "\n"
            )
        );
    }

    #[test]
    fn times_of_a_batch_are_each_their_own() {
        let mut writer = LineWriter::default();
        let mut out = Vec::new();
        let millis = [1_700_000_000_007, 1_700_000_000_999, 1_700_000_001_000, 1_700_000_000_010, 0];
        for millis in millis {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            writer.write(&RequestRecord { time, ..request::tests::sample() }.into(), &mut out);
        }
        let early = RequestRecord { time: UNIX_EPOCH - Duration::from_secs(5), ..request::tests::sample() };
        writer.write(&early.into(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let told: Vec<_> = text.lines().map(|line| line.split('"').nth(3).unwrap().to_owned()).collect();
        let expected: Vec<_> =
            millis.iter().chain(&[0]).map(|millis| format_time(UNIX_EPOCH + Duration::from_millis(*millis))).collect();
        assert_eq!(told, expected);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_of_ascii_and_comes_back(
            method in ".{0,40}", host in proptest::option::of("\\PC{0,40}"), path in any::<String>(), number: u64,
        ) {
            let record = RequestRecord {
                id: number,
                method: method.as_str().into(),
                host: host.as_deref().map(Into::into),
                path: path.as_str().into(),
                bytes_in: number,
                ..request::tests::sample()
            };
            let line = line(record);
            prop_assert!(line.is_ascii());
            prop_assert_eq!(line.find(|c: char| c.is_ascii_control()), Some(line.len() - 1));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(value["method"].as_str().unwrap_or_default(), method);
            prop_assert_eq!(value["host"].as_str(), host.as_deref());
            prop_assert_eq!(value["path"].as_str().unwrap_or_default(), path);
            prop_assert_eq!(value["bytes_in"].as_u64(), Some(number));
            prop_assert_eq!(u64::from_str_radix(value["id"].as_str().unwrap(), 16), Ok(number));
        }
    }
}
