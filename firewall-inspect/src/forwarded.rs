//! Who the client is, and how the upstream learns of it: `Forwarded` (RFC 7239), `X-Forwarded-For` and `-Proto`, and the PROXY
//! protocol, version 2.
//!
//! Only peers that the operator trusts are believed, and of what they say only what stands behind the rightmost address that is not
//! trusted itself: all to the left of it is the client's own word, and does not go on.

mod node;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::{class::TOKEN, fields::elements, head::Head, reason::Reason};

/// The client of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// IPv4 is never mapped.
    pub address: IpAddr,
    /// The trusted proxies behind it, the peer last. Empty if the peer is the client.
    pub proxies: Vec<IpAddr>,
    /// Whether the client spoke TLS to the first of them, if they said so.
    pub https: Option<bool>,
}

impl Client {
    /// The trusted proxy that is our peer.
    pub fn proxy(&self) -> Option<IpAddr> {
        self.proxies.last().copied()
    }

    /// Whether the client speaks TLS, given whether our peer does.
    pub fn speaks_tls(&self, peer: bool) -> bool {
        self.https.unwrap_or(peer)
    }
}

/// The rightmost address that is not trusted, or the leftmost if all are.
///
/// # Errors
///
/// [`Reason::ForwardedMissing`]: the peer is trusted, and names nobody, or what is no address where one counts; or `Forwarded` and
/// `X-Forwarded-For` name different clients.
pub fn client(peer: IpAddr, head: &Head, trusted: &[IpNet]) -> Result<Client, Reason> {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return Ok(Client { address: peer, proxies: Vec::new(), https: None });
    }
    let mut standard = Vec::new();
    for value in head.values("forwarded") {
        node::elements(value, &mut standard).ok_or(Reason::ForwardedMissing)?;
    }
    let plain: Vec<_> = head
        .values("x-forwarded-for")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|value| node::Element { address: node::address(value.trim_ascii()), https: None })
        .collect();
    match (decide(&standard, peer, trusted), decide(&plain, peer, trusted)) {
        (Some(standard), None) if plain.is_empty() => Ok(standard),
        (None, Some(plain)) if standard.is_empty() => Ok(Client { https: plain_scheme(head), ..plain }),
        (Some(standard), Some(plain)) if standard.address == plain.address => {
            // Most proxies write one of the two and leave the other as the client sent it.
            match (standard.https, plain_scheme(head)) {
                (Some(one), Some(other)) if one != other => Err(Reason::ForwardedMissing),
                (one, other) => Ok(Client { https: one.or(other), ..standard }),
            }
        }
        _ => Err(Reason::ForwardedMissing),
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn decide(chain: &[node::Element], peer: IpAddr, trusted: &[IpNet]) -> Option<Client> {
    let mut proxies = vec![peer];
    let mut rest = chain.iter().rev();
    let mut element = rest.next()?;
    let mut address = element.address?;
    while is_trusted(address, trusted) {
        let Some(next) = rest.next() else { break };
        proxies.push(address);
        element = next;
        address = next.address?;
    }
    proxies.reverse();
    Some(Client { address, proxies, https: element.https })
}

/// What the nearest proxy says in X-Forwarded-Proto.
fn plain_scheme(head: &Head) -> Option<bool> {
    head.values("x-forwarded-proto").flat_map(elements).last().and_then(node::is_https)
}

/// The value of `Forwarded` for the upstream: client, then proxies. `host` is what the client asked for, port included.
pub fn forwarded(client: &Client, https: bool, host: Option<&[u8]>) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    push_for(&mut value, client.address);
    if let Some(host) = host {
        value.extend_from_slice(b";host=");
        push_quoted(&mut value, host);
    }
    value.extend_from_slice(b";proto=");
    value.extend_from_slice(x_forwarded_proto(https).as_bytes());
    for proxy in &client.proxies {
        value.extend_from_slice(b", ");
        push_for(&mut value, *proxy);
    }
    value
}

/// The value of `X-Forwarded-For` for the upstream.
pub fn x_forwarded_for(client: &Client) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    push_address(&mut value, client.address);
    for proxy in &client.proxies {
        value.extend_from_slice(b", ");
        push_address(&mut value, *proxy);
    }
    value
}

/// The value of `X-Forwarded-Proto` for the upstream.
pub fn x_forwarded_proto(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

fn push_for(value: &mut Vec<u8>, address: IpAddr) {
    let (before, after): (&[u8], &[u8]) = if address.is_ipv4() { (b"for=", b"") } else { (b"for=\"[", b"]\"") };
    value.extend_from_slice(before);
    push_address(value, address);
    value.extend_from_slice(after);
}

/// Every request has some; `std` formats them with great care for width and padding.
fn push_address(value: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (at, octet) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    value.push(b'.');
                }
                for (divisor, least) in [(100, 100), (10, 10), (1, 0)] {
                    if octet >= least {
                        value.push(b'0' + octet / divisor % 10);
                    }
                }
            }
        }
        IpAddr::V6(address) => value.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// As a token if it is one (RFC 7239 section 4).
fn push_quoted(value: &mut Vec<u8>, text: &[u8]) {
    if !text.is_empty() && TOKEN.all(text) {
        value.extend_from_slice(text);
        return;
    }
    value.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            value.push(b'\\');
        }
        value.push(*byte);
    }
    value.push(b'"');
}

/// The header of the PROXY protocol, version 2: TCP from `source` to `destination`. Addresses of two families go as IPv6, IPv4 mapped.
pub fn proxy_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    const PROXY: u8 = 0x21;
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let mut header = Vec::with_capacity(52);
    header.extend_from_slice(SIGNATURE);
    header.push(PROXY);
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend_from_slice(&[TCP4, 0, 12]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            header.extend_from_slice(&[TCP6, 0, 36]);
            for address in [source, destination] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                header.extend_from_slice(&address.octets());
            }
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests;
