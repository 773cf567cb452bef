//! The policy of an API as the workers use it: compiled from the configuration, never changed, swapped whole.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use firewall_inspect::{chunk, head, protocol};
use rustls::{ClientConfig, ServerConfig};

use super::{GatewayError, gate::GateLimits, metrics::ApiMetrics, network::Network, tls};
use crate::config::{
    Mode,
    api::{Api, Entry, Forward, UpstreamHttp, UpstreamTls},
};

/// What the gateway knows of one API.
#[derive(Clone)]
pub(super) struct ApiPolicy {
    pub(super) config: Api,
    pub(super) generation: u32,
    pub(super) protocol: protocol::Policy,
    /// Kept over reloads that do not change it, and the sessions of clients with it.
    pub(super) tls: Option<Arc<ServerConfig>>,
    tls_stamp: Option<tls::Stamp>,
    pub(super) upstream: Arc<UpstreamPolicy>,
    pub(super) metrics: Arc<ApiMetrics>,
}

/// Where requests go. Kept over reloads that do not change it, and its connections with it.
pub(super) struct UpstreamPolicy {
    /// Tells connections apart.
    pub(super) id: u64,
    pub(super) target: Target,
    pub(super) tls: Option<ClientTls>,
    pub(super) proxy_v2: bool,
    pub(super) connect: Duration,
    tls_stamp: Option<tls::Stamp>,
    source: (Entry, UpstreamHttp, Forward),
}

#[derive(Clone)]
pub(super) enum Target {
    /// Where the client wanted to go, in this network namespace.
    Original {
        network: Arc<Network>,
    },
    Named {
        host: String,
        port: u16,
    },
}

impl Target {
    /// Whether it is in this network, or in none that we steer.
    fn is_in(&self, other: &Arc<Network>) -> bool {
        match self {
            Self::Original { network } => Arc::ptr_eq(network, other),
            Self::Named { .. } => true,
        }
    }
}

/// TLS towards the upstream, by what we offer.
#[derive(Clone)]
pub(super) struct ClientTls {
    pub(super) server_name: Option<String>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Option<Arc<ClientConfig>>,
}

impl ClientTls {
    fn new(config: &UpstreamTls, host: Option<&str>, http: UpstreamHttp) -> Result<Self, tls::TlsError> {
        let offer = |protocols: &[&[u8]]| tls::client_config(config, protocols);
        Ok(Self {
            server_name: config.server_name.clone().or_else(|| host.map(str::to_owned)),
            http1: offer(&[b"http/1.1"])?,
            http2: offer(&[b"h2"])?,
            either: match http {
                UpstreamHttp::Auto => Some(offer(&[b"h2", b"http/1.1"])?),
                UpstreamHttp::Http1 | UpstreamHttp::Http2 => None,
            },
        })
    }

    /// For a connection that speaks HTTP/2 where nothing is negotiated, or, for an upgrade, must speak HTTP/1.
    pub(super) fn config(&self, http2: bool, upgrade: bool) -> Arc<ClientConfig> {
        match &self.either {
            _ if upgrade => Arc::clone(&self.http1),
            Some(either) => Arc::clone(either),
            None if http2 => Arc::clone(&self.http2),
            None => Arc::clone(&self.http1),
        }
    }
}

impl UpstreamPolicy {
    /// `before` serves on if nothing of it changed.
    fn new(api: &Api, network: &Arc<Network>, before: Option<&Arc<Self>>) -> Result<Arc<Self>, GatewayError> {
        let tls_stamp = match &api.entry {
            Entry::Steered(steered) => steered.upstream_tls.as_ref(),
            Entry::Proxy { upstream, .. } => upstream.tls.as_ref(),
        }
        .map(tls::Stamp::of_client);
        let source = (api.entry.clone(), api.upstream_http, api.forward);
        let same = |before: &&Arc<Self>| {
            before.source == source
                && before.connect == api.timeouts.connect
                && before.tls_stamp == tls_stamp
                && before.target.is_in(network)
        };
        if let Some(before) = before.filter(same) {
            return Ok(Arc::clone(before));
        }
        let fail = |source| GatewayError::Tls { api: api.name.to_string(), source };
        let (target, tls) = match &api.entry {
            Entry::Steered(steered) => {
                let tls = steered.upstream_tls.as_ref().map(|tls| ClientTls::new(tls, None, api.upstream_http));
                (Target::Original { network: Arc::clone(network) }, tls.transpose().map_err(fail)?)
            }
            Entry::Proxy { upstream, .. } => {
                let tls = upstream.tls.as_ref();
                let tls = tls.map(|tls| ClientTls::new(tls, Some(&upstream.host), api.upstream_http));
                let target = Target::Named { host: upstream.host.clone(), port: upstream.port };
                (target, tls.transpose().map_err(fail)?)
            }
        };
        Ok(Arc::new(Self {
            id: next_id(),
            target,
            tls,
            proxy_v2: api.forward == Forward::ProxyV2,
            connect: api.timeouts.connect,
            tls_stamp,
            source,
        }))
    }

    /// The same in another network namespace.
    fn moved_to(&self, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            target: match &self.target {
                Target::Original { .. } => Target::Original { network: Arc::clone(network) },
                named @ Target::Named { .. } => named.clone(),
            },
            tls: self.tls.clone(),
            source: self.source.clone(),
            ..*self
        })
    }

    /// The host of the request is the name that the upstream's certificate must have.
    pub(super) fn names_by_request(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.server_name.is_none())
    }
}

fn next_id() -> u64 {
    static IDS: AtomicU64 = AtomicU64::new(0);
    IDS.fetch_add(1, Ordering::Relaxed)
}

impl ApiPolicy {
    pub(super) fn new(
        api: &Api,
        generation: u32,
        network: &Arc<Network>,
        metrics: Arc<ApiMetrics>,
        before: Option<&Self>,
    ) -> Result<Self, GatewayError> {
        let fail = |source| GatewayError::Tls { api: api.name.to_string(), source };
        let tls_stamp = api.tls.as_ref().map(tls::Stamp::of_server);
        let same = before.filter(|before| before.config.tls == api.tls && before.tls_stamp == tls_stamp);
        let tls = match same {
            Some(same) => same.tls.clone(),
            None => api.tls.as_ref().map(tls::server_config).transpose().map_err(fail)?,
        };
        Ok(Self {
            protocol: protocol::Policy::new(&protocol::Rules {
                methods: api.protocol.methods.clone(),
                hosts: api.protocol.hosts.clone(),
                content_types: api.protocol.content_types.clone(),
                upgrades: api.protocol.upgrades.clone(),
                encoded_slashes: api.protocol.encoded_slashes,
                body: api.limits.body,
            }),
            tls,
            tls_stamp,
            upstream: UpstreamPolicy::new(api, network, before.map(|before| &before.upstream))?,
            config: api.clone(),
            generation,
            metrics,
        })
    }

    /// The same, for an application that is in another network namespace now. Reads no file: that they may be wrong by now is
    /// no reason not to follow.
    pub(super) fn moved_to(&self, network: &Arc<Network>) -> Self {
        Self { upstream: self.upstream.moved_to(network), ..self.clone() }
    }

    pub(super) fn is_in(&self, network: &Arc<Network>) -> bool {
        self.upstream.target.is_in(network)
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.config.name)
    }

    pub(super) fn monitors(&self) -> bool {
        self.config.mode == Mode::Monitor
    }

    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|prefix| prefix.contains(&peer))
    }

    pub(super) fn head_limits(&self) -> head::Limits {
        let limits = &self.config.limits;
        head::Limits { request_line: limits.request_line, headers: limits.headers, header_count: limits.header_count }
    }

    pub(super) fn gate_limits(&self) -> GateLimits {
        GateLimits {
            head: self.head_limits(),
            trailers: chunk::Limits {
                trailers: self.config.limits.trailers,
                trailer_count: self.config.limits.header_count,
            },
            head_within: self.config.timeouts.head,
            idle: self.config.timeouts.idle,
        }
    }

    /// HTTP/2 towards an upstream with which nothing is negotiated.
    pub(super) fn upstream_http2(&self, by_prior_knowledge: bool, grpc: bool) -> bool {
        match self.config.upstream_http {
            UpstreamHttp::Auto => by_prior_knowledge || grpc,
            UpstreamHttp::Http1 => false,
            UpstreamHttp::Http2 => true,
        }
    }
}
