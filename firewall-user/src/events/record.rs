//! The record of a verdict as operators read it: one line of JSON.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

/// A verdict worth telling. What is not known is absent from the JSON.
///
/// The names of the fields are an interface: people write queries against them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// RFC 3339, UTC, with milliseconds.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// `dmz`: the layer that judged.
    pub layer: &'static str,
    /// [`firewall_common::event::EventAction::name`].
    pub action: Cow<'static, str>,
    /// [`firewall_common::verdict::DropReason::name`].
    pub reason: Cow<'static, str>,
    /// The rate or size rule that gave the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// The list that gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the number IANA gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Cow<'static, str>>,
    /// Bytes of the IP packet.
    pub length: u32,
    pub interface: Arc<str>,
    /// Packets this record stands for, at least 1.
    pub count: u32,
    /// Generation of the policy that judged.
    pub generation: u32,
}

impl Record {
    /// What a person reads first, e.g. `drop: packet-rate, 203.0.113.7 to 198.51.100.1 port 443/tcp`.
    pub fn summary(&self) -> String {
        let mut text = format!("{}: {}", self.action, self.reason);
        if let Some(name) = self.list.as_ref().or(self.rule.as_ref()) {
            text += &format!(" ({name})");
        }
        if let (Some(source), Some(destination)) = (self.source, self.destination) {
            text += &format!(", {source} to {destination}");
        }
        match (self.destination_port, &self.protocol) {
            (Some(port), Some(protocol)) => text += &format!(" port {port}/{protocol}"),
            (None, Some(protocol)) => text += &format!(", protocol {protocol}"),
            _ => {}
        }
        if self.count > 1 {
            text += &format!(", {} packets", self.count);
        }
        text
    }
}

/// `time` in RFC 3339, UTC, with milliseconds. Times before 1970 become 1970, those after 9999 the last day of it.
pub fn format_time(time: SystemTime) -> String {
    /// The first second of the year 10000.
    const END: u64 = 253_402_300_800;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(END - 1);
    let time = UNIX_EPOCH + std::time::Duration::new(seconds, since.subsec_nanos());
    humantime::format_rfc3339_millis(time).to_string()
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*time))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A record with every field set but `list`.
    pub(crate) fn sample() -> Record {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            layer: "dmz",
            action: "drop".into(),
            reason: "packet-rate".into(),
            rule: Some("per-client".into()),
            list: None,
            source: Some([203, 0, 113, 7].into()),
            source_port: Some(40000),
            destination: Some([198, 51, 100, 1].into()),
            destination_port: Some(443),
            protocol: Some("tcp".into()),
            length: 60,
            interface: "eth0".into(),
            count: 12,
            generation: 3,
        }
    }

    #[test]
    fn is_one_line_of_json_with_stable_names() {
        assert_eq!(
            serde_json::to_string(&sample()).unwrap(),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","layer":"dmz","action":"drop","reason":"packet-rate","#,
                r#""rule":"per-client","source":"203.0.113.7","source_port":40000,"destination":"198.51.100.1","#,
                r#""destination_port":443,"protocol":"tcp","length":60,"interface":"eth0","count":12,"generation":3}"#
            )
        );
    }

    #[test]
    fn leaves_out_what_is_unknown() {
        let record = Record {
            rule: None,
            source: None,
            source_port: None,
            destination: None,
            destination_port: None,
            protocol: None,
            ..sample()
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","layer":"dmz","action":"drop","reason":"packet-rate","#,
                r#""length":60,"interface":"eth0","count":12,"generation":3}"#
            )
        );
    }

    #[test]
    fn a_name_cannot_break_the_line() {
        let record = Record { interface: "a\"\n\u{1b}b".into(), ..sample() };
        let line = serde_json::to_string(&record).unwrap();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["interface"], "a\"\n\u{1b}b");
    }

    #[test]
    fn summarises() {
        assert_eq!(
            sample().summary(),
            "drop: packet-rate (per-client), 203.0.113.7 to 198.51.100.1 port 443/tcp, 12 packets"
        );
    }

    #[test]
    fn formats_every_time() {
        assert_eq!(format_time(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_time(UNIX_EPOCH + Duration::from_secs(u64::MAX >> 2)), "9999-12-31T23:59:59.000Z");
    }
}
