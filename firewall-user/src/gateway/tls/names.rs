//! Which certificate a client gets.

use std::{collections::HashMap, slice, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::files::Named;

/// Certificates by the names they are for. Of several for one name, a client gets the first whose signatures it knows, such
/// as RSA where it has no ECDSA.
#[derive(Debug)]
pub(super) struct ByName {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Of `*.example.com`, by `example.com`. A wildcard stands for one label (RFC 9525 section 6.3).
    below: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For clients that ask for no name, or for one that no certificate has; none if there are no certificates.
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    pub(super) fn new(certificates: Vec<Named>) -> Self {
        let first = certificates.first().map(|certificate| certificate.key.clone());
        let mut by_name = Self { exact: HashMap::new(), below: HashMap::new(), first };
        for Named { key, names } in certificates {
            for name in names {
                let keys = match name.strip_prefix("*.") {
                    Some(parent) => by_name.below.entry(parent.into()),
                    None => by_name.exact.entry(name),
                };
                keys.or_default().push(key.clone());
            }
        }
        by_name
    }

    /// `name` in lower case.
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let below = || name.split_once('.').and_then(|(_, parent)| self.below.get(parent));
        self.exact.get(name).or_else(below).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has made it lower case.
        let named = hello.server_name().and_then(|name| self.named(name));
        let keys = match (named, &self.first) {
            (Some(keys), _) => keys,
            (None, Some(first)) => slice::from_ref(first),
            (None, None) => &[],
        };
        let schemes = hello.signature_schemes();
        keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).or(keys.first()).cloned()
    }
}
