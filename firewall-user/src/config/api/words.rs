//! Words of `[[api]]`: hosts and patterns of them, addresses to listen on, upstreams, network namespaces.
//!
//! In: text. Out: the value in the one form it is compared in, or what is wrong with the text.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use crate::config::report::{Invalid, quoted};

/// A token of HTTP (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A name in lower case, or an address, without brackets.
pub(super) fn host(text: &str) -> Result<String, Invalid> {
    let wrong = |help: String| Invalid::new(format!("{} is no host", quoted(text))).help(help);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if !text.is_ascii() {
        return Err(wrong("write its ASCII form, which begins with `xn--`".to_owned()));
    }
    if let Some(name) = text.strip_suffix('.') {
        return Err(wrong(format!("without the dot at its end: {}", quoted(name))));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    // Some programs read a name that ends in a number as an address of an old form.
    let last = text.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if text.len() > 253 || !text.split('.').all(label) || number {
        return Err(wrong("a name such as `api.example.com`, or an address, without a port".to_owned()));
    }
    Ok(text.to_ascii_lowercase())
}

/// A host as requests name it, or `*.` and a name for all names below. IPv6 addresses are in brackets.
pub(super) fn host_pattern(text: &str) -> Result<String, Invalid> {
    if text == "*" {
        return Err(Invalid::new("`*` is every host").help("leave `hosts` out for every host"));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return Ok(format!("[{address}]"));
    }
    let wrong = |help: String| Invalid::new(format!("{} is no host", quoted(text))).help(help);
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(wrong(format!("write `[{text}]`, as requests do")));
    }
    let (name, wild) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    if name.contains('*') {
        return Err(wrong("`*` stands for whole names, at the beginning: `*.example.com`".to_owned()));
    }
    if let Some((left, port)) = name.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && host(left).is_ok()
    {
        let left = &text[..text.len() - port.len() - 1];
        return Err(wrong(format!("hosts are compared without their ports: write {}", quoted(left))));
    }
    let plain = host(name).map_err(|invalid| Invalid { message: wrong(String::new()).message, ..invalid })?;
    match wild {
        true if name.parse::<IpAddr>().is_ok() => Err(wrong("no name is below an address".to_owned())),
        true => Ok(format!("*.{plain}")),
        false => Ok(plain),
    }
}

/// An address to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Invalid> {
    let wrong = |message: &str, help: String| Err(Invalid::new(format!("{} {message}", quoted(text))).help(help));
    let Ok(address) = text.parse::<SocketAddr>() else {
        return wrong("is no address with a port", "`0.0.0.0:443`, `[::]:443` or one address of this host".to_owned());
    };
    if let IpAddr::V6(ip) = address.ip()
        && let Some(ip) = ip.to_ipv4_mapped()
    {
        return wrong("is IPv4 in IPv6 notation", format!("write `{ip}:{}`", address.port()));
    }
    if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return wrong("is no address of a host", "`0.0.0.0:443`, `[::]:443` or one address of this host".to_owned());
    }
    match address.port() {
        0 => wrong("has no port to find it by", "ports go from 1 to 65535".to_owned()),
        _ => Ok(address),
    }
}

/// A URL to send requests to: its host, its port, and whether it is TLS.
pub(super) fn upstream(text: &str) -> Result<(String, u16, bool), Invalid> {
    let shape = "`http://10.0.0.5:8080` or `https://host:port`; the port is 80 or 443 without it";
    let wrong = |help: &str| Invalid::new(format!("{} is no upstream", quoted(text))).help(help);
    let (rest, tls) = match text.split_once("://") {
        Some(("http", rest)) => (rest, false),
        Some(("https", rest)) => (rest, true),
        _ => return Err(wrong(shape)),
    };
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("requests keep their path: leave out what follows the host and the port"));
    }
    if rest.contains('@') {
        return Err(wrong("credentials do not go here: `http://host:port`"));
    }
    let (name, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => {
            let address: Ipv6Addr = address.parse().map_err(|_| wrong(shape))?;
            (
                address.to_string(),
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(|| wrong(shape))?) },
            )
        }
        Some(None) => return Err(wrong(shape)),
        None => {
            let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
            let name = host(name).map_err(|invalid| wrong(invalid.help.as_deref().unwrap_or(shape)))?;
            (name, port)
        }
    };
    let port = match port {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(port) => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = digits.then(|| port.parse().ok()).flatten().filter(|port| *port > 0);
            port.ok_or_else(|| wrong("ports go from 1 to 65535"))?
        }
    };
    Ok((name, port, tls))
}

/// Path of a network namespace: a name is one that `ip netns` made.
pub(super) fn netns(text: &str) -> Result<PathBuf, Invalid> {
    let wrong = || Invalid::new(format!("{} is no network namespace", quoted(text)));
    if text.contains('\0') {
        return Err(wrong());
    }
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    if text.is_empty() || text.contains('/') || text == "." || text == ".." {
        return Err(wrong().help("a name that `ip netns` shows, or an absolute path such as `/proc/1234/ns/net`"));
    }
    Ok(PathBuf::from("/run/netns").join(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        for (text, becomes) in [
            ("API.Example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("a_b.internal", "a_b.internal"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.example", "1.example"),
            ("192.0.2.7", "192.0.2.7"),
            ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ] {
            assert_eq!(host_pattern(text), Ok(becomes.to_owned()), "{text}");
        }
        assert_eq!(host("2001:DB8::0:1"), Ok("2001:db8::1".to_owned()));
        let long = ["a"; 127].join(".");
        assert_eq!(host(&long), Ok(long.clone()));
        let label = "a".repeat(64);
        let longer = format!("{long}.a");
        for (text, help) in [
            ("", "a name such as"),
            ("*.", "a name such as"),
            ("*.*.example.com", "at the beginning"),
            ("api.*.com", "at the beginning"),
            ("api*.example.com", "at the beginning"),
            ("example.com.", "without the dot"),
            (".example.com", "a name such as"),
            ("a..b", "a name such as"),
            ("-a.b", "a name such as"),
            ("a-.b", "a name such as"),
            ("a b", "a name such as"),
            ("http://a", "a name such as"),
            ("bücher.example", "`xn--`"),
            ("api.example.com:8443", "write `api.example.com`"),
            ("*.example.com:8443", "write `*.example.com`"),
            ("10.0.0.256", "a name such as"),
            ("10.1", "a name such as"),
            ("0x7f.0x1", "a name such as"),
            ("2130706433", "a name such as"),
            ("2001:db8::1", "write `[2001:db8::1]`"),
            ("[2001:db8::1]:443", "a name such as"),
            ("*.10.0.0.1", "below an address"),
            (&label, "a name such as"),
            (&longer, "a name such as"),
        ] {
            let invalid = host_pattern(text).unwrap_err();
            assert!(invalid.message.ends_with(" is no host"), "{text}: {invalid}");
            assert!(invalid.help.as_ref().unwrap().contains(help), "{text}: {invalid}");
        }
        assert!(host_pattern("*").unwrap_err().message.contains("every host"));
    }

    #[test]
    fn upstreams() {
        for (text, host, port, tls) in [
            ("http://10.0.0.5:8080", "10.0.0.5", 8080, false),
            ("http://Orders", "orders", 80, false),
            ("https://orders.internal", "orders.internal", 443, true),
            ("https://[2001:db8::1]", "2001:db8::1", 443, true),
            ("http://[::1]:65535", "::1", 65_535, false),
        ] {
            assert_eq!(upstream(text), Ok((host.to_owned(), port, tls)), "{text}");
        }
        for (text, help) in [
            ("", "`http://10.0.0.5:8080`"),
            ("10.0.0.5:8080", "`http://10.0.0.5:8080`"),
            ("HTTP://a", "`http://10.0.0.5:8080`"),
            ("unix:///run/a.sock", "`http://10.0.0.5:8080`"),
            ("http://", "a name such as"),
            ("http://a/", "keep their path"),
            ("http://a/b", "keep their path"),
            ("http://a?b", "keep their path"),
            ("http://user:word@a", "credentials"),
            ("http://a:0", "from 1 to 65535"),
            ("http://a:", "from 1 to 65535"),
            ("http://a:+1", "from 1 to 65535"),
            ("http://a:65536", "from 1 to 65535"),
            ("http://::1", "a name such as"),
            ("http://[::1", "`http://10.0.0.5:8080`"),
            ("http://[::1]8080", "`http://10.0.0.5:8080`"),
            ("http://[a]:1", "`http://10.0.0.5:8080`"),
        ] {
            let invalid = upstream(text).unwrap_err();
            assert_eq!(invalid.message, format!("`{text}` is no upstream"));
            assert!(invalid.help.as_ref().unwrap().contains(help), "{text}: {invalid}");
        }
    }

    #[test]
    fn addresses_and_namespaces() {
        for (text, message, help) in [
            ("443", "is no address with a port", "`0.0.0.0:443`"),
            ("localhost:443", "is no address with a port", "`0.0.0.0:443`"),
            ("0.0.0.0:0", "has no port to find it by", "1 to 65535"),
            ("[::ffff:192.0.2.1]:443", "is IPv4 in IPv6 notation", "write `192.0.2.1:443`"),
            ("224.0.0.1:443", "is no address of a host", ""),
            ("255.255.255.255:443", "is no address of a host", ""),
        ] {
            let invalid = listen(text).unwrap_err();
            assert_eq!(invalid.message, format!("`{text}` {message}"));
            assert!(invalid.help.as_ref().unwrap().contains(help), "{text}: {invalid}");
        }
        assert_eq!(listen("[::]:443"), Ok("[::]:443".parse().unwrap()));
        assert_eq!(netns("orders"), Ok(PathBuf::from("/run/netns/orders")));
        assert_eq!(netns("/proc/7/ns/net"), Ok(PathBuf::from("/proc/7/ns/net")));
        for text in ["", ".", "..", "a/b", "../run/netns/a", "/a\0"] {
            assert!(netns(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_fall_over(text: String) {
            let _ = (host(&text), host_pattern(&text), listen(&text), upstream(&text), netns(&text));
            let _ = (host_pattern(&format!("*.{text}:1")), upstream(&format!("http://{text}")));
        }

        /// What is in the one form stays in it.
        #[test]
        fn hosts_are_stable(text in "[a-zA-Z0-9_.:-]{1,12}|\\*\\.[a-z0-9.]{1,8}") {
            if let Ok(pattern) = host_pattern(&text) {
                prop_assert_eq!(host_pattern(&pattern), Ok(pattern.clone()));
            }
        }
    }
}
