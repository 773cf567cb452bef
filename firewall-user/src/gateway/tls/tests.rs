//! Handshakes in memory, with certificates made here.

use std::{path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, RsaKeySize,
    date_time_ymd,
};
use rustls::{
    CertificateError, ClientConnection, Error, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::*;
use crate::config::api::Certificate;

/// A folder with an authority.
struct Ca {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: PathBuf,
}

/// How a certificate differs from a good one.
#[derive(Clone, Copy, Default)]
struct Odd {
    rsa: bool,
    until: Option<(i32, u8, u8)>,
    from: Option<(i32, u8, u8)>,
}

impl Ca {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities are told apart by name.
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        let pem = folder.path().join("ca.pem");
        std::fs::write(&pem, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, file: &str, names: &[&str], odd: Odd) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some((year, month, day)) = odd.until {
            params.not_after = date_time_ymd(year, month, day);
        }
        if let Some((year, month, day)) = odd.from {
            params.not_before = date_time_ymd(year, month, day);
        }
        let key = match odd.rsa {
            true => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let files = Certificate { chain: self.write(&format!("{file}.pem"), &chain), key: self.path(file) };
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    fn good(&self, file: &str, names: &[&str]) -> Certificate {
        self.issue(file, names, Odd::default())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(file), text).unwrap();
        self.path(file)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        Arc::new(files::authorities(&self.pem).unwrap())
    }
}

fn tls(certificates: Vec<Certificate>) -> Tls {
    Tls { certificates, min_version: TlsVersion::V12, client_certificates: None }
}

/// A client that trusts `ca`, with a certificate or without.
fn client(ca: &Ca, certificate: Option<&Certificate>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(ca.roots());
    match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder.with_client_auth_cert(files::chain(&files.chain).unwrap(), key).unwrap()
        }
    }
}

fn any(ca: &Ca) -> Arc<ClientConfig> {
    Arc::new(client(ca, None, &[&TLS13, &TLS12]))
}

type Sides = (ClientConnection, ServerConnection);

/// To the end of the handshake, and the tickets behind it.
fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Sides, Error> {
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.clone())?;
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let sent = wire.len();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if sent == 0 && wire.is_empty() {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            return Ok((client, server));
        }
    }
}

fn named(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// The certificate that the client got.
fn served(client: &ClientConnection) -> CertificateDer<'static> {
    client.peer_certificates().unwrap()[0].clone()
}

fn first(files: &Certificate) -> CertificateDer<'static> {
    files::chain(&files.chain).unwrap().remove(0)
}

/// Clients that accept whatever they get, to see what it is.
fn careless(
    signatures: fn(&rustls::SignatureScheme) -> bool,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    #[derive(Debug)]
    struct Careless(Arc<WebPkiServerVerifier>, fn(&rustls::SignatureScheme) -> bool);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Careless {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, signed)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, signed)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_verify_schemes().into_iter().filter(self.1).collect()
        }
    }
    let ca = Ca::new();
    let verifier = WebPkiServerVerifier::builder_with_provider(ca.roots(), provider()).build().unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Careless(verifier, signatures)));
    Arc::new(builder.with_no_client_auth())
}

#[test]
fn a_client_gets_the_certificate_it_asks_for() {
    let ca = Ca::new();
    let [main, shop, wild] = [
        ca.good("main", &["api.example.com"]),
        ca.good("shop", &["shop.example.com", "SHOP.example.org", "192.0.2.1"]),
        ca.good("wild", &["*.example.com", "*.example.org"]),
    ];
    let server = server_config(&tls(vec![main.clone(), shop.clone(), wild.clone()])).unwrap();
    for client in [careless(|_| true, &[&TLS13]), careless(|_| true, &[&TLS12])] {
        for (name, expected) in [
            ("api.example.com", &main),
            ("shop.example.com", &shop),
            ("Shop.Example.Org", &shop),
            ("other.example.com", &wild),
            ("a.b.example.com", &main),
            ("example.com", &main),
            ("elsewhere.test", &main),
            // Addresses are no names to ask for.
            ("192.0.2.1", &main),
        ] {
            let (client, _) = shake(&server, &client, named(name)).unwrap();
            assert_eq!(served(&client), first(expected), "{name}");
        }
    }
}

#[test]
fn of_two_certificates_for_a_name_a_client_gets_one_it_can_read() {
    let ca = Ca::new();
    let ecdsa = ca.good("ecdsa", &["api.test"]);
    let rsa = ca.issue("rsa", &["api.test"], Odd { rsa: true, ..Odd::default() });
    let server = server_config(&tls(vec![ecdsa.clone(), rsa.clone()])).unwrap();
    let rsa_only = |scheme: &rustls::SignatureScheme| format!("{scheme:?}").starts_with("RSA");
    for version in [&TLS13, &TLS12] {
        let (client, _) = shake(&server, &careless(|_| true, &[version]), named("api.test")).unwrap();
        assert_eq!(served(&client), first(&ecdsa));
        let (client, _) = shake(&server, &careless(rsa_only, &[version]), named("api.test")).unwrap();
        assert_eq!(served(&client), first(&rsa));
    }
}

#[test]
fn versions_and_protocols() {
    let ca = Ca::new();
    let mut tls = tls(vec![ca.good("api", &["api.test"])]);
    let server = server_config(&tls).unwrap();
    let (old, new) = (Arc::new(client(&ca, None, &[&TLS12])), any(&ca));
    let version = |sides: &Sides| sides.1.protocol_version();
    assert_eq!(version(&shake(&server, &old, named("api.test")).unwrap()), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(version(&shake(&server, &new, named("api.test")).unwrap()), Some(ProtocolVersion::TLSv1_3));
    tls.min_version = TlsVersion::V13;
    let strict = server_config(&tls).unwrap();
    assert!(matches!(shake(&strict, &old, named("api.test")), Err(Error::PeerIncompatible(_))));
    assert_eq!(version(&shake(&strict, &new, named("api.test")).unwrap()), Some(ProtocolVersion::TLSv1_3));

    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
    ] {
        let mut client = client(&ca, None, &[&TLS13, &TLS12]);
        client.alpn_protocols = offered.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let (_, server) = shake(&server, &Arc::new(client), named("api.test")).unwrap();
        assert_eq!(server.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
    }
    let mut other = client(&ca, None, &[&TLS13]);
    other.alpn_protocols = vec![b"ftp".to_vec()];
    let refused = shake(&server, &Arc::new(other), named("api.test")).unwrap_err();
    assert_eq!(refused, Error::NoApplicationProtocol);
}

#[test]
fn clients_show_certificates() {
    let ca = Ca::new();
    let clients = Ca::new();
    let mine = clients.good("me", &["me"]);
    let others = Ca::new();
    let strange = others.good("me", &["me"]);
    let expired =
        clients.issue("old", &["old"], Odd { from: Some((2019, 1, 1)), until: Some((2020, 1, 1)), rsa: false });
    let mut tls = tls(vec![ca.good("api", &["api.test"])]);
    let server = |tls: &mut Tls, required| {
        tls.client_certificates = Some(ClientCertificates { ca: clients.pem.clone(), required });
        server_config(tls).unwrap()
    };
    let (required, optional) = (server(&mut tls, true), server(&mut tls, false));
    for version in [&TLS13, &TLS12] {
        let with = |certificate| Arc::new(client(&ca, certificate, &[version]));
        let shake = |server, certificate| shake(server, &with(certificate), named("api.test"));
        for server in [&required, &optional] {
            let (_, server_side) = shake(server, Some(&mine)).unwrap();
            assert_eq!(server_side.peer_certificates().unwrap()[0], first(&mine));
            let refused = |certificate| shake(server, Some(certificate)).unwrap_err();
            assert!(matches!(refused(&strange), Error::InvalidCertificate(CertificateError::UnknownIssuer)));
            assert!(matches!(
                refused(&expired),
                Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
            ));
        }
        assert_eq!(shake(&required, None).unwrap_err(), Error::NoCertificatesPresented);
        let (_, server_side) = shake(&optional, None).unwrap();
        assert!(server_side.peer_certificates().is_none());
    }
}

#[test]
fn sessions_are_resumed_here_and_nowhere_else() {
    let ca = Ca::new();
    let mut tls = tls(vec![ca.good("api", &["api.test"])]);
    let open = server_config(&tls).unwrap();
    let again = server_config(&tls).unwrap();
    tls.client_certificates = Some(ClientCertificates { ca: ca.pem.clone(), required: true });
    let closed = server_config(&tls).unwrap();
    for version in [&TLS13, &TLS12] {
        let client = Arc::new(client(&ca, None, &[version]));
        let kind = |server| shake(server, &client, named("api.test")).map(|(_, server)| server.handshake_kind());
        assert_eq!(kind(&open), Ok(Some(HandshakeKind::Full)));
        assert_eq!(kind(&open), Ok(Some(HandshakeKind::Resumed)));
        assert_eq!(kind(&again), Ok(Some(HandshakeKind::Full)));
        assert_eq!(kind(&again), Ok(Some(HandshakeKind::Resumed)));
        // A session from where nobody must show a certificate does not stand for one.
        assert_eq!(kind(&closed), Err(Error::NoCertificatesPresented));
    }
    assert_eq!(open.max_early_data_size, 0);
}

#[test]
fn files_that_cannot_be_used() {
    let ca = Ca::new();
    let (good, other) = (ca.good("good", &["a.test"]), ca.good("other", &["b.test"]));
    let key = std::fs::read_to_string(&good.key).unwrap();
    let chain = std::fs::read_to_string(&good.chain).unwrap();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let (chain_file, key_file) = (good.chain.clone(), good.key.clone());
    let cases = [
        (ca.path("none"), key_file.clone(), "/none cannot be read: No such file"),
        (chain_file.clone(), ca.path("none"), "/none cannot be read: No such file"),
        (ca.folder.path().to_owned(), key_file.clone(), " cannot be read: it is a directory"),
        (chain_file.clone(), other.key, "/other is not the key of the first certificate in "),
        (chain_file.clone(), chain_file.clone(), "/good.pem has no private key in PEM form"),
        (key_file.clone(), key_file.clone(), "/good has no certificate in PEM form"),
        (ca.write("empty", ""), key_file.clone(), "/empty has no certificate in PEM form"),
        (ca.write("rubbish", "\u{1b}[2Jrubbish"), key_file.clone(), "/rubbish has no certificate in PEM form"),
        (chain_file.clone(), ca.write("locked", &encrypted), "/locked is encrypted"),
        (ca.write("cut", &chain[..chain.len() / 2]), key_file.clone(), "/cut is not PEM: a line `-----END …-----`"),
        (
            ca.write("der", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            key_file,
            "/der has a certificate that cannot be used: ",
        ),
        (
            chain_file.clone(),
            ca.write("nokey", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "/nokey has a key that cannot be used: ",
        ),
    ];
    for (chain, key, message) in cases {
        let error = server_config(&tls(vec![good.clone(), Certificate { chain, key }])).unwrap_err().to_string();
        assert!(error.contains(message) && !error.contains('\u{1b}'), "{error}: {message}");
        assert!(error.starts_with(ca.folder.path().to_str().unwrap()), "{error}");
    }
    for (file, message) in [(ca.path("none"), "cannot be read"), (ca.path("empty"), "no certificate in PEM form")] {
        let wanted = Some(ClientCertificates { ca: file.clone(), required: false });
        let error = server_config(&Tls { client_certificates: wanted, ..tls(vec![good.clone()]) }).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        let error = client_config(&UpstreamTls { ca: Some(file), server_name: None }, &[]).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// An expired certificate does not stop a server; clients refuse it.
#[test]
fn certificates_to_look_after_are_told() {
    let ca = Ca::new();
    let day = Duration::from_secs(86_400);
    let expired =
        ca.issue("old", &["old.test"], Odd { from: Some((2019, 1, 1)), until: Some((2020, 1, 1)), rsa: false });
    let future = ca.issue("future", &["b.test"], Odd { from: Some((4000, 1, 1)), ..Odd::default() });
    let nameless = ca.good("nameless", &[]);
    let tls = tls(vec![expired.clone(), future, nameless.clone()]);
    let server = server_config(&tls).unwrap();
    let refused = shake(&server, &any(&ca), named("old.test")).unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })), "{refused:?}");

    std::fs::set_permissions(&nameless.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let folder = ca.folder.path().display();
    let told = notices(&tls, SystemTime::now()).unwrap();
    let expected = [
        format!("{folder}/old.pem: expired at 2020-01-01T00:00:00Z"),
        format!("{folder}/future.pem: not valid before 4000-01-01T00:00:00Z"),
        format!("{folder}/nameless.pem: the certificate is for no DNS name (subjectAltName): it is never served"),
        format!("{folder}/nameless: anyone on this host may read the key"),
    ];
    assert_eq!(told, expected);

    let end = SystemTime::UNIX_EPOCH + day * 18_262;
    let old = Tls { certificates: vec![expired.clone()], ..tls };
    assert_eq!(notices(&old, end - 8 * day).unwrap(), [""; 0]);
    assert_eq!(notices(&old, end - 6 * day).unwrap(), [format!("{folder}/old.pem: expires at 2020-01-01T00:00:00Z")]);
    // The issuer within a chain.
    let issuer = ca.issue("sub", &["c"], Odd { from: Some((2019, 1, 1)), until: Some((2019, 6, 1)), rsa: false });
    let whole = [&expired.chain, &issuer.chain].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&expired.chain, whole).unwrap();
    let expected = format!("{folder}/old.pem, certificate 2 of the chain: expired at 2019-06-01T00:00:00Z");
    assert_eq!(notices(&old, end - 8 * day).unwrap(), [expected]);
}

#[test]
fn upstreams_are_who_they_should_be() {
    let ca = Ca::new();
    let server = server_config(&tls(vec![ca.good("up", &["internal", "192.0.2.5", "2001:db8::5"])])).unwrap();
    let trusting = |name: Option<&str>| UpstreamTls { ca: Some(ca.pem.clone()), server_name: name.map(str::to_owned) };
    let connect = |tls: &UpstreamTls, host: &str| {
        let client = client_config(tls, &[b"http/1.1"]).unwrap();
        shake(&server, &client, server_name(tls, host).unwrap())
    };
    let refused = |tls: &UpstreamTls, host: &str| match connect(tls, host) {
        Err(Error::InvalidCertificate(error)) => error,
        other => panic!("{other:?}"),
    };
    let (client, _) = connect(&trusting(None), "internal").unwrap();
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    for (name, host) in [
        (Some("internal"), "10.9.9.9"),
        (Some("192.0.2.5"), "elsewhere.test"),
        (Some("2001:db8::5"), "elsewhere.test"),
        (None, "192.0.2.5"),
        (None, "[2001:db8::5]"),
    ] {
        connect(&trusting(name), host).unwrap();
    }
    for (name, host) in [(None, "elsewhere.test"), (None, "192.0.2.6"), (Some("elsewhere.test"), "internal")] {
        let error = refused(&trusting(name), host);
        assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
    }
    let strange = Ca::new();
    let other = UpstreamTls { ca: Some(strange.pem.clone()), server_name: None };
    assert_eq!(refused(&other, "internal"), CertificateError::UnknownIssuer);
    assert!(matches!(server_name(&other, "a b"), Err(TlsError::Name(name)) if name == "a b"));
    // Where the system has authorities, ours is none of them.
    if let Ok(client) = client_config(&UpstreamTls::default(), &[]) {
        let error = shake(&server, &client, named("internal")).unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
    }
}
