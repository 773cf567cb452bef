//! Why there is no TLS. Each error names the file to put right.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rustls::pki_types::pem;

#[derive(Debug)]
pub enum TlsError {
    File {
        file: PathBuf,
        fault: FileFault,
    },
    /// The key is not that of the chain's first certificate.
    Mismatch {
        chain: PathBuf,
        key: PathBuf,
    },
    /// The system has no authorities that can be used; why, where that is known.
    NoAuthorities(String),
    /// Neither a DNS name nor an address.
    Name(String),
    /// Should not happen: our own settings do not fit together.
    Rustls(rustls::Error),
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum FileFault {
    Read(String),
    Pem(pem::Error),
    NoCertificate,
    NoKey,
    /// The key needs a password.
    Encrypted,
    /// A certificate, or an authority, that makes no sense.
    Certificate(String),
    Key(rustls::Error),
}

impl FileFault {
    pub(super) fn of(self, file: &Path) -> TlsError {
        TlsError::File { file: file.to_owned(), fault: self }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(cause) => write!(f, "cannot be read: {cause}"),
            // The sender of a broken file may put anything there, so its text is not repeated.
            Self::Pem(pem::Error::MissingSectionEnd { .. }) => {
                f.write_str("is not PEM: a line `-----END …-----` is missing")
            }
            Self::Pem(pem::Error::IllegalSectionStart { .. }) => {
                f.write_str("is not PEM: a line `-----BEGIN …` is wrong")
            }
            Self::Pem(error) => write!(f, "is not PEM: {error}"),
            Self::NoCertificate => f.write_str("has no certificate in PEM form"),
            Self::NoKey => f.write_str("has no private key in PEM form"),
            Self::Encrypted => f.write_str("is encrypted: the agent has nobody to ask for the password"),
            Self::Certificate(cause) => write!(f, "has a certificate that cannot be used: {cause}"),
            Self::Key(cause) => write!(f, "has a key that cannot be used: {cause}"),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, fault } => write!(f, "{} {fault}", file.display()),
            Self::Mismatch { chain, key } => {
                write!(f, "{} is not the key of the first certificate in {}", key.display(), chain.display())
            }
            Self::NoAuthorities(causes) if causes.is_empty() => f.write_str(
                "the system has no authorities to judge an upstream's certificate by: install them, or set `ca`",
            ),
            Self::NoAuthorities(causes) => write!(f, "the system's authorities cannot be used: {causes}"),
            Self::Name(name) => write!(f, "no certificate can have the name {name:?}"),
            Self::Rustls(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}
