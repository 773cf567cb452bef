//! The SSH session in which a command was typed: what must not be locked out.

use std::{fs, net::IpAddr};

/// A TCP session into this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub client: IpAddr,
    pub client_port: u16,
    pub server: IpAddr,
    pub server_port: u16,
}

impl Session {
    /// Whether it comes from this host itself, over the loopback interface: a tunnel's far end, a jump within the host.
    pub fn is_local(&self) -> bool {
        self.client.is_loopback() || self.client == self.server
    }
}

/// The session of this process, or of the nearest ancestor that has one: sudo clears the environment.
pub fn current() -> Option<Session> {
    if let Some(session) = std::env::var("SSH_CONNECTION").ok().and_then(|text| parse(&text)) {
        return Some(session);
    }
    let mut pid = std::os::unix::process::parent_id();
    // The depth is bounded in case parents change while we walk.
    for _ in 0..64 {
        if pid <= 1 {
            return None;
        }
        if let Some(session) = environment_of(pid) {
            return Some(session);
        }
        pid = parent_of(pid)?;
    }
    None
}

fn environment_of(pid: u32) -> Option<Session> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    parse(std::str::from_utf8(value).ok()?)
}

/// Fourth field of `/proc/PID/stat`; the second, in parentheses, may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `client client-port server server-port`, as sshd(8) sets it.
fn parse(text: &str) -> Option<Session> {
    let mut words = text.split_ascii_whitespace();
    let address = |word: &str| Some(word.split('%').next()?.parse::<IpAddr>().ok()?.to_canonical());
    let client = address(words.next()?)?;
    let client_port = words.next()?.parse().ok()?;
    let server = address(words.next()?)?;
    let server_port = words.next()?.parse().ok()?;
    Some(Session { client, client_port, server, server_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sshd_writes_it_so() {
        let session = parse("198.51.100.7 50000 192.0.2.1 22").unwrap();
        let [client, server] = ["198.51.100.7", "192.0.2.1"].map(|address| address.parse().unwrap());
        assert_eq!(session, Session { client, client_port: 50000, server, server_port: 22 });
        assert!(!session.is_local());
        for local in ["127.0.0.1 1 127.0.0.1 22", "::1 1 ::1 22", "192.0.2.1 1 ::ffff:192.0.2.1 22"] {
            assert!(parse(local).unwrap().is_local(), "{local}");
        }
        assert_eq!(parse("fe80::1%eth0 1 fe80::2 2222").map(|session| session.server_port), Some(2222));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(parse(""), None);
    }
}
