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
pub(super) struct ApiPolicy {
    pub(super) config: Api,
    pub(super) generation: u32,
    pub(super) protocol: protocol::Policy,
    pub(super) tls: Option<Arc<ServerConfig>>,
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
    source: (Entry, UpstreamHttp, Forward),
}

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

/// TLS towards the upstream, by what we offer.
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
        static IDS: AtomicU64 = AtomicU64::new(0);
        let source = (api.entry.clone(), api.upstream_http, api.forward);
        let same = |before: &&Arc<Self>| {
            before.source == source
                && before.connect == api.timeouts.connect
                // Files may have changed.
                && before.tls.is_none()
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
            id: IDS.fetch_add(1, Ordering::Relaxed),
            target,
            tls,
            proxy_v2: api.forward == Forward::ProxyV2,
            connect: api.timeouts.connect,
            source,
        }))
    }

    /// The host of the request is the name that the upstream's certificate must have.
    pub(super) fn names_by_request(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.server_name.is_none())
    }
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
        Ok(Self {
            protocol: protocol::Policy::new(&protocol::Rules {
                methods: api.protocol.methods.clone(),
                hosts: api.protocol.hosts.clone(),
                content_types: api.protocol.content_types.clone(),
                upgrades: api.protocol.upgrades.clone(),
                encoded_slashes: api.protocol.encoded_slashes,
                body: api.limits.body,
            }),
            tls: api.tls.as_ref().map(tls::server_config).transpose().map_err(fail)?,
            upstream: UpstreamPolicy::new(api, network, before.map(|before| &before.upstream))?,
            config: api.clone(),
            generation,
            metrics,
        })
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
