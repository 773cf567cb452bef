//! Connections that applications on steered ports have already: from before the agent came, or from while it was gone.
//! Nobody inspects what is said on them, so they are reset.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
};

use firewall_common::steer::is_local;

use super::{
    Flags, Netns,
    diag::{Diag, Found, state},
};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// Connections that were reset.
    pub reset: usize,
    /// Handshakes that were not over, and may end with the application: look again some seconds later.
    pub handshakes: usize,
}

#[derive(Debug)]
pub enum ExistingError {
    /// The kernel was built without `INET_DIAG_DESTROY`.
    Unsupported,
    /// The kernel does not tell whose connections are.
    NotTold,
    Io(io::Error),
}

impl std::fmt::Display for ExistingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsupported => f.write_str(
                "this kernel cannot close connections of others (it was built without INET_DIAG_DESTROY): those from \
                 before stay, and nobody inspects them",
            ),
            Self::NotTold => f.write_str("this kernel does not tell the options of sockets (Linux 5.10 does)"),
            Self::Io(source) => write!(f, "connections from before cannot be listed or closed: {source}"),
        }
    }
}

impl std::error::Error for ExistingError {}

/// Resets what would be steered now, but is not: connections that applications have on these ports. Those of agents, of
/// this one or another, stay, accepted or not, since the kernel tells them by their listener; so do those of clients on
/// this host where they are not steered. It may be called at any time.
///
/// # Errors
/// The kernel cannot do it, or refuses.
pub fn reset(netns: &Netns, ports: &[(u16, Flags)]) -> Result<Existing, ExistingError> {
    let diag = netns.enter(Diag::open).and_then(|diag| diag).map_err(ExistingError::Io)?;
    reset_by(diag, ports)
}

fn reset_by(mut diag: Diag, ports: &[(u16, Flags)]) -> Result<Existing, ExistingError> {
    let open = [state::ESTABLISHED, state::FIN_WAIT_1, state::FIN_WAIT_2, state::CLOSE_WAIT, state::SYN_RECEIVED];
    let found = diag.dump(&open).map_err(ExistingError::Io)?;
    let ours: HashSet<(SocketAddr, SocketAddr)> =
        found.iter().filter(|found| found.is_ours == Some(true)).map(|found| (found.local, found.remote)).collect();
    let mut existing = Existing::default();
    for found in &found {
        let Some((_, flags)) = ports.iter().find(|(port, _)| *port == found.local.port()) else { continue };
        if is_exempt(found, *flags, &ours) {
            continue;
        }
        if found.state == state::SYN_RECEIVED {
            existing.handshakes += 1;
            continue;
        }
        match found.is_ours {
            Some(true) => continue,
            Some(false) => {}
            // Closed by the application, which is all that the kernel remembers of it.
            None if found.state == state::FIN_WAIT_2 => continue,
            None => return Err(ExistingError::NotTold),
        }
        match diag.destroy(found) {
            Ok(closed) => existing.reset += usize::from(closed),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Err(ExistingError::Unsupported),
            Err(error) => return Err(ExistingError::Io(error)),
        }
    }
    Ok(existing)
}

/// Whether such a client would not be steered: one on this host, unless these are, and even then the agent itself.
fn is_exempt(found: &Found, flags: Flags, ours: &HashSet<(SocketAddr, SocketAddr)>) -> bool {
    let (remote, local): (IpAddr, IpAddr) = (found.remote.ip(), found.local.ip());
    is_local(&remote.into(), &local.into()) && (!flags.local_clients || ours.contains(&(found.remote, found.local)))
}

/// Where something listens on `port` in the namespace: addresses, unspecified ones for all of a family. What listens on a
/// loopback address only cannot be reached by way of a steered port.
///
/// # Errors
/// The kernel does not tell.
pub fn listening(netns: &Netns, port: u16) -> io::Result<Vec<IpAddr>> {
    let found = netns.enter(|| Diag::open()?.dump(&[state::LISTEN]))??;
    Ok(found.iter().filter(|found| found.local.port() == port).map(|found| found.local.ip()).collect())
}
