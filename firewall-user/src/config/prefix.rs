//! Words for prefixes: `198.51.100.0/24`, `2001:db8:1::/48`, or an address alone for a single host.
//!
//! In: text. Out: a prefix without host bits, or a small value that says what is wrong. No allocation on either way, since
//! list files have millions of them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    ListAction,
    report::{Invalid, quoted},
};

/// An IP version that a list keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// What is wrong with a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Address,
    Length {
        longest: u8,
    },
    /// Bits are set behind the length.
    HostBits(IpNet),
    /// An IPv4 address in IPv6 clothes: no packet has it, its IPv4 form is meant.
    Mapped,
    /// Length 0, of IPv4 in IPv6 notation as well.
    Everything,
    Family(Family),
}

/// A prefix; of `family`, if that is given.
pub(super) fn parse(text: &str, family: Option<Family>) -> Result<IpNet, Fault> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| Fault::Address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(digits) => decimal(digits).filter(|length| *length <= longest).ok_or(Fault::Length { longest })?,
        None => longest,
    };
    if length == 0 {
        return Err(Fault::Everything);
    }
    let prefix = IpNet::new(address, length).map_err(|_| Fault::Length { longest })?;
    if let IpNet::V6(v6) = prefix
        && length >= 96
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(if length == 96 { Fault::Everything } else { Fault::Mapped });
    }
    match (family, prefix) {
        (Some(Family::V4), IpNet::V6(_)) => return Err(Fault::Family(Family::V4)),
        (Some(Family::V6), IpNet::V4(_)) => return Err(Fault::Family(Family::V6)),
        _ => {}
    }
    if prefix.trunc() != prefix {
        return Err(Fault::HostBits(prefix));
    }
    Ok(prefix)
}

impl Fault {
    /// In words, for `text` in a list that has `action`.
    pub(super) fn explain(self, text: &str, action: Option<ListAction>) -> Invalid {
        let text_quoted = quoted(text);
        match self {
            Self::Address | Self::Length { .. } if text.contains(';') => {
                Invalid::new(format!("{text_quoted} is no prefix")).help("comments begin with `#`, not with `;`")
            }
            Self::Address => {
                let help = if text.contains('-') {
                    "a range must be written as prefixes, such as `198.51.100.0/24`"
                } else {
                    "an address, or an address and a length, such as `198.51.100.0/24` or `2001:db8::/32`"
                };
                Invalid::new(format!("{text_quoted} is no prefix")).help(help)
            }
            Self::Length { longest } => {
                let message = format!("{text_quoted} has a wrong prefix length");
                Invalid::new(message).help(format!("a whole number from 1 to {longest} follows the `/`"))
            }
            Self::HostBits(prefix) => {
                let host = IpNet::from(prefix.addr());
                let message = format!("{text_quoted} has bits set behind its length");
                Invalid::new(message)
                    .help(format!("write `{}`, or `{host}` if only this host is meant", prefix.trunc()))
            }
            Self::Mapped => {
                let message = format!("{text_quoted} is an IPv4 prefix in IPv6 notation");
                let v4 = mapped_as_v4(text).map_or("the IPv4 prefix".to_owned(), |prefix| format!("`{prefix}`"));
                Invalid::new(message).help(format!("write {v4}"))
            }
            Self::Everything => {
                let help = match action {
                    Some(ListAction::Allow) => {
                        "it would switch off lists, bans, exposure and per-source rates; set `mode = \"monitor\"` in \
                         `[dmz]` instead"
                    }
                    _ => "it would block everything; to serve nobody, set `expose = []` in `[dmz]`",
                };
                Invalid::new(format!("{text_quoted} is every address")).help(help)
            }
            Self::Family(family) => {
                let (wanted, found) = match family {
                    Family::V4 => ("ipv4", "IPv6"),
                    Family::V6 => ("ipv6", "IPv4"),
                };
                let message = format!("wrong family: {text_quoted} is {found}");
                Invalid::new(message).help(format!("the list has `family = \"{wanted}\"`"))
            }
        }
    }
}

/// The IPv4 prefix that the mapped prefix `text` stands for, without host bits.
fn mapped_as_v4(text: &str) -> Option<IpNet> {
    let prefix: IpNet = match text.contains('/') {
        true => text.parse().ok()?,
        false => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = prefix else { return None };
    let length = v6.prefix_len().checked_sub(96)?;
    Some(IpNet::new(IpAddr::V4(v6.addr().to_ipv4_mapped()?), length).ok()?.trunc())
}

/// Up to three digits, no sign, no leading zero.
fn decimal(digits: &str) -> Option<u8> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (text, prefix) in [
            ("198.51.100.0/24", "198.51.100.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("2001:db8:1::/48", "2001:db8:1::/48"),
            ("2001:DB8:1::", "2001:db8:1::/128"),
            ("::1", "::1/128"),
            ("128.0.0.0/1", "128.0.0.0/1"),
            ("::/8", "::/8"),
        ] {
            assert_eq!(parse(text, None), Ok(prefix.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn wrong_prefixes() {
        let allow = Some(ListAction::Allow);
        for (text, family, message, help) in [
            ("10.0.0.1/8", None, "has bits set behind its length", "write `10.0.0.0/8`, or `10.0.0.1/32` if only"),
            ("2001:db8::1/32", None, "has bits set", "write `2001:db8::/32`, or `2001:db8::1/128` if only"),
            ("::ffff:10.0.0.0/104", None, "IPv4 prefix in IPv6 notation", "write `10.0.0.0/8`"),
            ("::ffff:192.0.2.7", None, "IPv4 prefix in IPv6 notation", "write `192.0.2.7/32`"),
            ("0.0.0.0/0", None, "is every address", "switch off lists"),
            ("::/0", None, "is every address", "switch off lists"),
            ("::ffff:0:0/96", None, "is every address", "switch off lists"),
            ("10.0.0.0/33", None, "has a wrong prefix length", "from 1 to 32"),
            ("10.0.0.0/", None, "has a wrong prefix length", "from 1 to 32"),
            ("10.0.0.0/08", None, "has a wrong prefix length", "from 1 to 32"),
            ("10.0.0.0/+8", None, "has a wrong prefix length", "from 1 to 32"),
            ("10.0.0.0/255.0.0.0", None, "has a wrong prefix length", "from 1 to 32"),
            ("::/129", None, "has a wrong prefix length", "from 1 to 128"),
            ("10.0.0.0 /8", None, "is no prefix", "an address, or"),
            ("010.0.0.1", None, "is no prefix", "an address, or"),
            ("10.0.0.1-10.0.0.9", None, "is no prefix", "a range"),
            ("10.0.0.0/8 ; SBL1", None, "is no prefix", "comments begin with `#`"),
            ("; drop", None, "is no prefix", "comments begin with `#`"),
            ("fe80::1%eth0", None, "is no prefix", "an address, or"),
            ("example.org", None, "is no prefix", "an address, or"),
            ("10.0.0.0/8", Some(Family::V6), "wrong family: `10.0.0.0/8` is IPv4", "family = \"ipv6\""),
            ("2001:db8::/32", Some(Family::V4), "wrong family: `2001:db8::/32` is IPv6", "family = \"ipv4\""),
        ] {
            let invalid = parse(text, family).unwrap_err().explain(text, allow);
            assert!(invalid.message.contains(message), "{text}: {invalid}");
            assert!(invalid.help.as_ref().unwrap().contains(help), "{text}: {invalid}");
        }
        let block = parse("0.0.0.0/0", None).unwrap_err().explain("0.0.0.0/0", Some(ListAction::Block));
        assert!(block.help.unwrap().contains("expose = []"));
    }
}
