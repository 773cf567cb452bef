//! Words for services: `443/tcp`, `8000-8100/udp`, `icmp-echo`, `esp`, `gre`, `proto/89`.
//!
//! In: text. Out: [`Services`], or what is wrong with the text.

use std::str::FromStr;

use firewall_common::packet::protocol;

use super::{
    Services,
    report::{Invalid, quoted},
};

const HELP: &str = "`443/tcp`, `8000-8100/udp`, `icmp-echo`, `esp`, `gre`, or `proto/89` for another IP protocol";

impl FromStr for Services {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("{} is no service", quoted(text)));
        match text {
            "icmp-echo" => return Ok(Self::Echo),
            "esp" => return Ok(Self::Protocol(protocol::ESP)),
            "gre" => return Ok(Self::Protocol(protocol::GRE)),
            "icmp" | "ping" | "echo" => return Err(wrong().help("`icmp-echo` is ping, of both IP versions")),
            _ => {}
        }
        let Some((left, right)) = text.split_once('/') else {
            let help = match left_is_ports(text) {
                true => format!("add the protocol: `{text}/tcp` or `{text}/udp`"),
                false => HELP.to_owned(),
            };
            return Err(wrong().help(help));
        };
        match (left, right) {
            ("proto", number) => protocol_number(number).unwrap_or(Err(HELP)).map_err(|help| wrong().help(help)),
            ("*", "tcp" | "udp") => Err(wrong().help(format!("`1-65535/{right}` is every port"))),
            (ports, "tcp") => {
                let (first, last) = port_range(ports, text)?;
                Ok(Self::Tcp { first, last })
            }
            (ports, "udp") => {
                let (first, last) = port_range(ports, text)?;
                Ok(Self::Udp { first, last })
            }
            ("tcp" | "udp", ports) if left_is_ports(ports) => Err(wrong().help(format!("write `{ports}/{left}`"))),
            (ports, other) if left_is_ports(ports) && matches!(&*other.to_ascii_lowercase(), "tcp" | "udp") => {
                Err(wrong().help(format!("write `{ports}/{}`", other.to_ascii_lowercase())))
            }
            _ => Err(wrong().help(HELP)),
        }
    }
}

impl Services {
    /// Whether some service belongs to both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Tcp { first: a, last: b }, Self::Tcp { first: c, last: d })
            | (Self::Udp { first: a, last: b }, Self::Udp { first: c, last: d }) => a <= d && c <= b,
            (Self::Protocol(a), Self::Protocol(b)) => a == b,
            (Self::Echo, Self::Echo) => true,
            _ => false,
        }
    }
}

/// `None` if it is no number of a protocol; the help if it is one that has a better word.
fn protocol_number(text: &str) -> Option<Result<Services, &'static str>> {
    let number: u8 = decimal(text)?.try_into().ok()?;
    Some(match number {
        protocol::TCP => Err("TCP has ports: `1-65535/tcp` is all of it"),
        protocol::UDP => Err("UDP has ports: `1-65535/udp` is all of it"),
        number => Ok(Services::Protocol(number)),
    })
}

/// `443` or `8000-8100`, out of the whole word `text`.
fn port_range(ports: &str, text: &str) -> Result<(u16, u16), Invalid> {
    let wrong = |help: &str| Invalid::new(format!("{} is no service", quoted(text))).help(help);
    let port = |text: &str| {
        let number = decimal(text).ok_or_else(|| wrong(HELP))?;
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| wrong("ports go from 1 to 65535"))
    };
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(ports)?, port(ports)?),
    };
    if first > last {
        return Err(wrong("the first port is greater than the last"));
    }
    Ok((first, last))
}

fn left_is_ports(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        && text.len() <= 11
}

/// Digits only: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn services() -> impl Strategy<Value = Services> {
        let range = || (1u16.., 1u16..).prop_map(|(a, b)| (a.min(b), a.max(b)));
        prop_oneof![
            range().prop_map(|(first, last)| Services::Tcp { first, last }),
            range().prop_map(|(first, last)| Services::Udp { first, last }),
            any::<u8>().prop_filter("has ports", |n| ![6, 17].contains(n)).prop_map(Services::Protocol),
            Just(Services::Echo),
        ]
    }

    proptest! {
        #[test]
        fn words_survive_a_round_trip(services in services()) {
            prop_assert_eq!(services.to_string().parse(), Ok(services));
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text: String) {
            let _ = text.parse::<Services>();
        }

        #[test]
        fn overlap_is_what_the_sets_say(a in services(), b in services()) {
            let first: std::collections::HashSet<_> = a.iter().collect();
            prop_assert_eq!(a.overlaps(&b), b.iter().any(|service| first.contains(&service)));
        }
    }

    #[test]
    fn words() {
        for (text, services) in [
            ("443/tcp", Services::Tcp { first: 443, last: 443 }),
            ("8000-8100/udp", Services::Udp { first: 8000, last: 8100 }),
            ("1-65535/tcp", Services::Tcp { first: 1, last: 65535 }),
            ("icmp-echo", Services::Echo),
            ("esp", Services::Protocol(50)),
            ("gre", Services::Protocol(47)),
            ("proto/89", Services::Protocol(89)),
            ("proto/0", Services::Protocol(0)),
            ("proto/255", Services::Protocol(255)),
        ] {
            assert_eq!(text.parse(), Ok(services), "{text}");
        }
    }

    #[test]
    fn wrong_words() {
        for (text, help) in [
            ("443", "add the protocol: `443/tcp` or `443/udp`"),
            ("tcp/443", "write `443/tcp`"),
            ("443/TCP", "write `443/tcp`"),
            ("*/tcp", "`1-65535/tcp` is every port"),
            ("0/tcp", "ports go from 1 to 65535"),
            ("65536/udp", "ports go from 1 to 65535"),
            ("9-8/udp", "the first port is greater than the last"),
            ("icmp", "`icmp-echo` is ping, of both IP versions"),
            ("proto/6", "TCP has ports: `1-65535/tcp` is all of it"),
            ("proto/17", "UDP has ports: `1-65535/udp` is all of it"),
            ("proto/256", HELP),
            ("proto/", HELP),
            ("443/sctp", HELP),
            ("+443/tcp", HELP),
            ("0443/tcp", HELP),
            ("-443/tcp", HELP),
            ("443-/tcp", HELP),
            ("443/tcp ", HELP),
            ("https", HELP),
            ("", HELP),
        ] {
            let invalid = text.parse::<Services>().unwrap_err();
            assert_eq!(invalid.message, format!("`{text}` is no service"));
            assert_eq!(invalid.help.as_deref(), Some(help), "{text}");
        }
    }
}
