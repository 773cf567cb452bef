//! Ports and addresses that stand in each other's way.
//!
//! In: what each API takes over, listens on and sends to, with its place. Out: problems. Ports are those of one network
//! namespace each; namespaces are told apart by their paths, so two paths of one are the agent's to find.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::config::raw::Value;

/// What is taken so far.
pub(super) struct Places<'d> {
    steered: HashMap<(Option<PathBuf>, u16), Range<usize>>,
    /// Of APIs, and that of metrics.
    listened: HashMap<SocketAddr, Range<usize>>,
    /// The first listener of a port in IPv4 (`true`) and in IPv6.
    ports: HashMap<(bool, u16), Range<usize>>,
    metrics: Option<SocketAddr>,
    listeners: Vec<(SocketAddr, Value<'d>)>,
    upstreams: Vec<(String, u16, Value<'d>)>,
}

impl<'d> Places<'d> {
    pub(super) fn new(metrics: Option<&(SocketAddr, Range<usize>)>) -> Self {
        let mut places = Self {
            steered: HashMap::new(),
            listened: HashMap::new(),
            ports: HashMap::new(),
            metrics: metrics.map(|(address, _)| *address),
            listeners: Vec::new(),
            upstreams: Vec::new(),
        };
        if let Some((address, span)) = metrics {
            places.take(*address, span.clone());
        }
        places
    }

    /// A port to take over, in the agent's own network namespace or another.
    pub(super) fn steer(&mut self, netns: Option<&Path>, port: u16, value: &Value<'d>) {
        let key = (netns.map(Path::to_owned), port);
        if let Some(earlier) = self.steered.get(&key) {
            let message = format!("port {port} belongs to another API already");
            value.clash(message, earlier.clone(), "this one", "a port has one API; an API can serve several hosts");
            return;
        }
        if let (None, Some(metrics)) = (netns, self.metrics)
            && metrics.port() == port
            && let Some(span) = self.listened.get(&metrics)
        {
            let message = format!("port {port} is where the agent serves metrics");
            value.clash(message, span.clone(), "here", "give one of them another port");
        }
        self.steered.insert(key, value.span.clone());
    }

    /// An address to listen on, in the agent's own network namespace.
    pub(super) fn listen(&mut self, address: SocketAddr, value: &Value<'d>) {
        let family = address.is_ipv4();
        let any = SocketAddr::new(unspecified(family), address.port());
        let earlier = match address == any {
            true => self.ports.get(&(family, address.port())),
            false => self.listened.get(&address).or_else(|| self.listened.get(&any)),
        };
        if let Some(earlier) = earlier {
            let message = format!("`{address}` is taken");
            let help = "an address has one API; an API can serve several hosts, with a certificate each";
            value.clash(message, earlier.clone(), "by this address", help);
            return;
        }
        self.take(address, value.span.clone());
        self.listeners.push((address, value.clone()));
    }

    /// Where requests of an API go.
    pub(super) fn send(&mut self, host: &str, port: u16, value: &Value<'d>) {
        self.upstreams.push((host.to_owned(), port, value.clone()));
    }

    /// Compares what only is known once all is.
    pub(super) fn finish(self) {
        for (address, value) in &self.listeners {
            if let Some(earlier) = self.steered.get(&(None, address.port())) {
                let message = format!("port {} is taken over from whoever listens on it", address.port());
                value.clash(message, earlier.clone(), "by this API", "give one of them another port");
            }
        }
        for (host, port, value) in &self.upstreams {
            let addresses = match host.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) if host == "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                Err(_) => continue,
            };
            let earlier = addresses.into_iter().find_map(|address| {
                let any = SocketAddr::new(unspecified(address.is_ipv4()), *port);
                let own = address.is_loopback() || address.is_unspecified();
                let exact = self.listened.get(&SocketAddr::new(address, *port));
                exact.or_else(|| own.then(|| self.listened.get(&any)).flatten())
            });
            if let Some(earlier) = earlier {
                let message = "requests would go back to the agent".to_owned();
                value.clash(message, earlier.clone(), "it listens here", "name the application's own address and port");
            }
        }
    }

    fn take(&mut self, address: SocketAddr, span: Range<usize>) {
        self.ports.entry((address.is_ipv4(), address.port())).or_insert_with(|| span.clone());
        self.listened.insert(address, span);
    }
}

fn unspecified(v4: bool) -> IpAddr {
    if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0u16; 8]) }
}
