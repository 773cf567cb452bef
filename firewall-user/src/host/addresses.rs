//! Addresses with a meaning of their own: the host's, its gateways', its resolvers', and the networks on its links.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use firewall_common::{
    address::Addr,
    ban::{BanKey, HOST, NETWORK_V6, guard},
};
use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage};

/// Prefixes and the bits of [`guard`] they carry, as the kernel's table of guarded prefixes holds them.
pub type Guarded = BTreeMap<(IpAddr, u8), u32>;

/// Reads all of them anew. What cannot be read is left out: a warning for each is among the second part.
pub fn guarded() -> (Guarded, Vec<String>) {
    guarded_below(Path::new("/"))
}

fn guarded_below(root: &Path) -> (Guarded, Vec<String>) {
    let mut guarded = Guarded::new();
    let mut warnings = Vec::new();
    let mut add = |address: IpAddr, length: u8, bits: u32| {
        *guarded.entry((address, length)).or_insert(0) |= bits;
    };
    match nix::ifaddrs::getifaddrs() {
        Ok(addresses) => {
            for entry in addresses {
                let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
                add(address, HOST, guard::OWN | guard::PROTECTED);
                // Whatever its mask says: with DHCPv6 an address is a /128, and the link's /64 is a route of its own.
                if address.is_ipv6() {
                    add(network(address), NETWORK_V6, guard::ON_LINK);
                }
            }
        }
        Err(error) => warnings.push(format!("the host's own addresses cannot be read: {error}")),
    }
    for (path, parse) in [
        ("proc/net/route", gateways_v4 as fn(&str) -> Vec<IpAddr>),
        ("proc/net/ipv6_route", gateways_v6),
        ("etc/resolv.conf", resolvers),
        // Where systemd-resolved answers, the one above names nothing but its stub on the loopback interface.
        ("run/systemd/resolve/resolv.conf", resolvers),
    ] {
        let path = root.join(path);
        match fs::read_to_string(&path) {
            Ok(text) => {
                for address in parse(&text) {
                    add(address, HOST, guard::PROTECTED);
                    if address.is_ipv6() {
                        // Whoever shares its network is banned alone, or the ban would hit it, too.
                        add(network(address), NETWORK_V6, guard::ON_LINK);
                    }
                }
            }
            // No IPv6 in the kernel, or no resolver configured.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => warnings.push(format!("{} cannot be read: {error}", path.display())),
        }
    }
    (guarded, warnings)
}

/// Key of the kernel's table.
pub fn key((address, length): &(IpAddr, u8)) -> BanKey {
    BanKey::new(&Addr::from(*address), *length)
}

/// The /64 around an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    Addr::from(address).masked(NETWORK_V6).into()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())),
        _ => None,
    }
}

/// Gateway column of `/proc/net/route`: a hexadecimal word in host byte order of a big-endian value.
fn gateways_v4(text: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let word = u32::from_str_radix(line.split_ascii_whitespace().nth(2)?, 16).ok()?;
        (word != 0).then(|| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())))
    };
    text.lines().skip(1).filter_map(gateway).collect()
}

/// Next-hop column of `/proc/net/ipv6_route`.
fn gateways_v6(text: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let bits = u128::from_str_radix(line.split_ascii_whitespace().nth(4)?, 16).ok()?;
        (bits != 0).then(|| IpAddr::V6(Ipv6Addr::from(bits)))
    };
    text.lines().filter_map(gateway).collect()
}

/// `nameserver` lines of resolv.conf(5). A zone (`%eth0`) is not part of the address.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_resolvers_are_read_as_the_kernel_writes_them() {
        let routes =
            "Iface\tDestination\tGateway \tFlags\neth0\t00000000\t010200C0\t0003\neth0\t000200C0\t00000000\t0001\n";
        let expected: IpAddr = "192.0.2.1".parse().unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(gateways_v4(routes), [expected]);
        }
        let routes = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n";
        assert_eq!(gateways_v6(routes), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        let conf = "# x\nnameserver 192.0.2.53\nsearch a.example\nnameserver fe80::1%eth0\nnameserver nonsense\n";
        assert_eq!(resolvers(conf), ["192.0.2.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn resolvers_behind_a_stub_are_protected() {
        let root = tempfile::tempdir().unwrap();
        for (folder, server) in [("etc", "127.0.0.53"), ("run/systemd/resolve", "192.0.2.53")] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("resolv.conf"), format!("nameserver {server}\n")).unwrap();
        }
        let (guarded, warnings) = guarded_below(root.path());
        assert_eq!(warnings, Vec::<String>::new());
        for server in ["127.0.0.53", "192.0.2.53"] {
            assert_eq!(guarded.get(&(server.parse().unwrap(), HOST)), Some(&guard::PROTECTED), "{server}");
        }
    }

    #[test]
    fn loopback_is_an_own_address() {
        let (guarded, _) = guarded();
        let bits = guarded.get(&("127.0.0.1".parse().unwrap(), HOST)).copied().unwrap_or(0);
        assert_eq!(bits, guard::OWN | guard::PROTECTED);
    }
}
