//! Certificates made for a test, and a TLS client that says what it wants to say.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{PATIENCE, connect};
use crate::netns::Namespace;

/// An authority that issues certificates into a directory of its own, which goes with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// PEM files of a certificate that an [`Authority`] issued.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: PathBuf,
    pub key: PathBuf,
    certificate: CertificateDer<'static>,
    private: Vec<u8>,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, directory: TempDir::new()? };
        fs::write(authority.ca(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// PEM file of the authority itself.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Issues a certificate for these names or addresses, as `file.pem` and `file.key`; what was there is replaced.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            chain: self.directory.path().join(format!("{file}.pem")),
            key: self.directory.path().join(format!("{file}.key")),
            certificate: certificate.der().clone(),
            private: key.serialize_der(),
        };
        fs::write(&pair.key, key.serialize_pem())?;
        fs::write(&pair.chain, certificate.pem())?;
        Ok(pair)
    }

    /// `[api.tls]` with these certificates.
    pub fn toml(pairs: &[&Pair]) -> String {
        let entries: Vec<String> = pairs
            .iter()
            .map(|pair| format!("{{ chain = {:?}, key = {:?} }}", pair.chain.display(), pair.key.display()))
            .collect();
        format!("[api.tls]\ncertificates = [{}]\n", entries.join(", ").replace("\"\"", "\""))
    }

    /// A client that trusts this authority, and shows `identity` if it is asked for one.
    pub fn client(&self, alpn: &[&str], identity: Option<&Pair>) -> Result<Tls> {
        self.client_of(rustls::ALL_VERSIONS, alpn, identity)
    }

    pub fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        identity: Option<&Pair>,
    ) -> Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions)?.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.private.clone()));
                builder.with_client_auth_cert(vec![pair.certificate.clone()], key)?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Tls { config: Arc::new(config) })
    }
}

impl Pair {
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

/// What a TLS client offers.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// For load: each handshake is a whole one, and the client spends no time on judging certificates.
    pub fn careless(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = rustls::client::Resumption::disabled();
        config.dangerous().set_certificate_verifier(Arc::new(Careless));
        Self { config: Arc::new(config) }
    }

    /// A TLS connection that asks for `name` (none is sent for an address). For use inside [`super::within`].
    pub async fn connect(
        &self,
        source: Option<IpAddr>,
        server: SocketAddr,
        name: &str,
    ) -> Result<TlsStream<TcpStream>> {
        let stream = connect(source, server).await?;
        let name = ServerName::try_from(name.to_owned())?;
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        Ok(tokio::time::timeout(PATIENCE, handshake).await.context("no end of the handshake")??)
    }
}

/// A TLS server (`openssl s_server`) that answers each GET with a page of its own, until dropped.
#[derive(Debug)]
pub struct PageServer(Child);

pub fn serve_page(namespace: &Namespace, port: u16, pair: &Pair) -> Result<PageServer> {
    let mut command = namespace.command("openssl");
    command.args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-cert"]).arg(&pair.chain);
    command.arg("-key").arg(&pair.key).stdin(Stdio::null()).stdout(Stdio::null());
    let server = PageServer(command.spawn().context("openssl")?);
    let deadline = Instant::now() + PATIENCE;
    while namespace.enter(|| std::net::TcpStream::connect(("127.0.0.1", port))).is_err() {
        ensure!(Instant::now() < deadline, "openssl does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

impl Drop for PageServer {
    fn drop(&mut self) {
        // It may have ended already; waiting is what leaves no zombie.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The certificate that the server showed.
pub fn shown(stream: &TlsStream<TcpStream>) -> Option<CertificateDer<'static>> {
    Some(stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
}

/// Believes everything.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
