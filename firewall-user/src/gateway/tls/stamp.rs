//! Tells whether files still hold what a configuration was made of. One that is made anew forgets its sessions, so it is made
//! anew only where it would be another.

use std::{
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    path::Path,
    sync::LazyLock,
};

use super::files;
use crate::config::api::{Tls, UpstreamTls};

/// A hash, under a secret of this process, of the contents of all files that are involved. Take it before the configuration
/// is made: what changes in between is then found by the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Stamp {
    /// Of what [`super::server_config`] reads.
    pub fn of_server(tls: &Tls) -> Self {
        let certificates = tls.certificates.iter().flat_map(|certificate| [&certificate.chain, &certificate.key]);
        let authorities = tls.client_certificates.iter().map(|wanted| &wanted.ca);
        Self::of_files(certificates.chain(authorities).map(AsRef::as_ref))
    }

    /// Of what [`super::client_config`] reads: the file of authorities, or those of the system.
    pub fn of_client(tls: &UpstreamTls) -> Self {
        if let Some(ca) = &tls.ca {
            return Self::of_files([ca.as_ref()].into_iter());
        }
        Self(SECRET.hash_one(rustls_native_certs::load_native_certs().certs))
    }

    fn of_files<'p>(paths: impl Iterator<Item = &'p Path>) -> Self {
        let mut hasher = SECRET.build_hasher();
        for path in paths {
            path.hash(&mut hasher);
            // What cannot be read is refused when it is used.
            files::read(path).ok().hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::api::{Certificate, ClientCertificates, TlsVersion};

    #[test]
    fn every_file_counts_and_time_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        for name in ["chain", "key", "ca"] {
            write(name, "a");
        }
        let tls = Tls {
            certificates: vec![Certificate { chain: path("chain"), key: path("key") }],
            min_version: TlsVersion::V12,
            client_certificates: Some(ClientCertificates { ca: path("ca"), required: true }),
        };
        let upstream = UpstreamTls { ca: Some(path("ca")), server_name: None };
        let before = (Stamp::of_server(&tls), Stamp::of_client(&upstream));
        write("key", "a");
        assert_eq!((Stamp::of_server(&tls), Stamp::of_client(&upstream)), before);
        for name in ["chain", "key"] {
            write(name, "b");
            assert_ne!(Stamp::of_server(&tls), before.0, "{name}");
            write(name, "a");
        }
        std::fs::remove_file(path("ca")).unwrap();
        assert_ne!(Stamp::of_server(&tls), before.0);
        assert_ne!(Stamp::of_client(&upstream), before.1);
        assert_eq!(
            Stamp::of_client(&UpstreamTls::default()),
            Stamp::of_client(&UpstreamTls { server_name: Some("x".to_owned()), ..UpstreamTls::default() })
        );
    }
}
