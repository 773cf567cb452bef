//! Certificates and keys from PEM files.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::error::{FileFault, TlsError};
use crate::config::{self, api::Certificate};

/// Largest file of certificates or a key, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// A certificate with its key, and the DNS names it is for.
pub(super) struct Named {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: Vec<Box<str>>,
}

/// What a certificate says of itself.
pub(super) struct About {
    /// DNS names in lower case, wildcards as they are.
    pub(super) names: Vec<Box<str>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

pub(super) fn certified_key(files: &Certificate, provider: &CryptoProvider) -> Result<Named, TlsError> {
    let Certificate { chain: chain_file, key: key_file } = files;
    let chain = chain(chain_file)?;
    let Some(first) = chain.first() else { return Err(FileFault::NoCertificate.of(chain_file)) };
    let names = about(first, chain_file)?.names;
    let key = key(key_file)?;
    let private = provider.key_provider.load_private_key(key);
    let private = private.map_err(|error| FileFault::Key(error).of(key_file))?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) => Ok(Named { key: Arc::new(certified), names }),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(TlsError::Mismatch { chain: chain_file.clone(), key: key_file.clone() })
        }
        Err(error) => Err(FileFault::Certificate(error.to_string()).of(chain_file)),
    }
}

/// The certificates of a file, in order; not empty.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| FileFault::Pem(error).of(file))?;
    if chain.is_empty() { Err(FileFault::NoCertificate.of(file)) } else { Ok(chain) }
}

/// `file` is where it comes from.
pub(super) fn about(certificate: &CertificateDer<'_>, file: &Path) -> Result<About, TlsError> {
    let fault = |cause: String| FileFault::Certificate(cause).of(file);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| fault(error.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|error| fault(error.to_string()))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
        _ => None,
    });
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    Ok(About {
        names: names.collect(),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
    })
}

/// The authorities of a file; not empty.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots.add(certificate).map_err(|error| FileFault::Certificate(error.to_string()).of(file))?;
    }
    Ok(roots)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let bytes = read(file)?;
    if ENCRYPTED.iter().any(|mark| bytes.windows(mark.len()).any(|window| window == *mark)) {
        return Err(FileFault::Encrypted.of(file));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => FileFault::NoKey.of(file),
        error => FileFault::Pem(error).of(file),
    })
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    config::read(file, MAX_FILE).map_err(|cause| FileFault::Read(cause).of(file))
}
