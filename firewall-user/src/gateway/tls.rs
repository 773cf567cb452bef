//! TLS towards clients and upstreams, as the configuration wants it.
//!
//! In: [`Tls`] or [`UpstreamTls`], and the files they name. Out: a configuration for rustls that never changes: who wants
//! new certificates builds another. All cryptography is aws-lc-rs. There is no early data (0-RTT): it could be replayed.
//! Revocation is not checked, neither of clients' certificates nor of upstreams'.

mod error;
mod files;
mod names;
mod stamp;
#[cfg(test)]
mod tests;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{ServerSessionMemoryCache, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use crate::config::api::{ClientCertificates, Tls, TlsVersion, UpstreamTls};
pub use error::{FileFault, TlsError};
use names::ByName;
pub use stamp::Stamp;

/// Sessions of clients without tickets that can be taken up again.
const SESSIONS: usize = 4096;
/// A certificate that ends within this is worth a word.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// The protocols of [`server_config`], the better first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For an API's clients: HTTP/2 and HTTP/1.1 by ALPN; a client that names other protocols only is refused.
///
/// Sessions can be resumed with this very configuration only, so a client that one API knows is a stranger to another, and
/// after a reload that builds anew. A session lasts 12 hours at most; a client's certificate is not judged again within it.
///
/// # Errors
/// A file that cannot be read or does not hold what it should, a key that is not its certificate's. A certificate that
/// has expired is none: see [`notices`].
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let certificates = tls.certificates.iter().map(|certificate| files::certified_key(certificate, &provider));
    let names = ByName::new(certificates.collect::<Result<_, _>>()?);
    let versions: &[&SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    let builder = match &tls.client_certificates {
        Some(wanted) => builder.with_client_cert_verifier(client_verifier(wanted, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Each resumed session brings its own, so one is enough for who comes again.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// For connections to an upstream, which must have a certificate for [`server_name`]. `alpn`: the better first; without
/// any, none is asked for. It can be used for several upstreams that share `tls`.
///
/// # Errors
/// The file of authorities cannot be read or has none, or the system has none.
pub fn client_config(tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &tls.ca {
        Some(file) => files::authorities(file)?,
        None => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The name an upstream's certificate must have, where it is `host` (without port; IPv6 with brackets or without) that is
/// connected to.
///
/// # Errors
/// [`TlsError::Name`]: no certificate can have such a name.
pub fn server_name(tls: &UpstreamTls, host: &str) -> Result<ServerName<'static>, TlsError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))
}

/// What does not keep an API from being served at `now`, but should be put right: certificates that are not valid or soon
/// will not be, or that nobody can ask for, and keys that anyone may read.
///
/// # Errors
/// As [`server_config`]'s for certificates.
pub fn notices(tls: &Tls, now: SystemTime) -> Result<Vec<String>, TlsError> {
    let mut notices = Vec::new();
    for (index, certificate) in tls.certificates.iter().enumerate() {
        let file = certificate.chain.display();
        for (place, link) in files::chain(&certificate.chain)?.iter().enumerate() {
            let about = files::about(link, &certificate.chain)?;
            let what = if place == 0 { String::new() } else { format!(", certificate {} of the chain", place + 1) };
            let time = humantime::format_rfc3339_seconds;
            if now > about.not_after {
                notices.push(format!("{file}{what}: expired at {}", time(about.not_after)));
            } else if now < about.not_before {
                notices.push(format!("{file}{what}: not valid before {}", time(about.not_before)));
            } else if now + SOON > about.not_after {
                notices.push(format!("{file}{what}: expires at {}", time(about.not_after)));
            }
            if place == 0 && about.names.is_empty() {
                let where_served = if index == 0 { "clients will not accept it by name" } else { "it is never served" };
                notices.push(format!("{file}: the certificate is for no DNS name (subjectAltName): {where_served}"));
            }
        }
        if readable_by_all(&certificate.key) {
            notices.push(format!("{}: anyone on this host may read the key", certificate.key.display()));
        }
    }
    Ok(notices)
}

fn readable_by_all(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
}

/// Clients choose the group; as one, we begin with X25519, and know the hybrid with ML-KEM.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn client_verifier(
    wanted: &ClientCertificates,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(files::authorities(&wanted.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = if wanted.required { builder } else { builder.allow_unauthenticated() };
    let fault = |error: rustls::server::VerifierBuilderError| FileFault::Certificate(error.to_string());
    builder.build().map_err(|error| fault(error).of(&wanted.ca))
}

/// Those of them that rustls can use; systems carry some that it cannot.
fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::NoAuthorities(causes.join(", ")));
    }
    Ok(roots)
}
