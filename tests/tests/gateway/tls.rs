//! TLS towards clients: names, versions, protocols, client certificates, and certificates that change.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use tests::{
    agent::Agent,
    http::{
        raw::Client,
        tls::{Authority, Pair, Tls, shown},
        within,
    },
    netns::{HOST_V4, World},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{API, Gateway, NO_BANS, at, host, wait_until};

const GET: &[u8] = b"GET /seen HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";

/// A steered API with these certificates and further lines in its `tls` table.
fn start(pairs: &[&Pair], more: &str) -> Gateway {
    Gateway::start(&format!("{}{more}{NO_BANS}", Authority::toml(pairs)))
}

/// What was agreed on: version, protocol, and whose certificate was shown; and the answer to a request.
struct Talk {
    version: rustls::ProtocolVersion,
    resumed: bool,
    alpn: Option<Vec<u8>>,
    shown: Vec<u8>,
    answer: String,
}

/// Handshake and request. With TLS 1.3 a client learns only with the answer that its certificate was refused.
fn talk(gateway: &Gateway, tls: &Tls, name: &str) -> anyhow::Result<Talk> {
    within(&gateway.world.client, async {
        let mut stream = tls.connect(None, host(), name).await?;
        let session = stream.get_ref().1;
        let version = session.protocol_version().expect("a handshake");
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        let shown = shown(&stream).expect("a certificate").to_vec();
        let mut answer = Vec::new();
        if alpn.as_deref() != Some(b"h2") {
            stream.write_all(GET).await?;
            stream.read_to_end(&mut answer).await?;
        }
        Ok(Talk { version, resumed, alpn, shown, answer: String::from_utf8_lossy(&answer).into_owned() })
    })
}

#[test]
fn names_choose_certificates() {
    let authority = Authority::new().unwrap();
    let first = authority.issue("first", &["api.test", HOST_V4]).unwrap();
    let second = authority.issue("second", &["other.test", "*.wild.test"]).unwrap();
    let gateway = start(&[&first, &second], "");
    let tls = authority.client(&[], None).unwrap();
    for (name, pair) in [("api.test", &first), ("other.test", &second), ("a.wild.test", &second), (HOST_V4, &first)] {
        let request = talk(&gateway, &tls, name).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(request.shown, pair.certificate().to_vec(), "{name}");
    }
    // A name that none has is answered with the first, which the client does not take for it.
    assert!(talk(&gateway, &tls, "unknown.test").is_err());
}

#[test]
fn versions_and_protocols_are_agreed_on() {
    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let gateway = start(&[&pair], "");
    for (version, number) in [(&TLS12, rustls::ProtocolVersion::TLSv1_2), (&TLS13, rustls::ProtocolVersion::TLSv1_3)] {
        for (offered, agreed) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let tls = authority.client_of(&[version], offered, None).unwrap();
            let mark = gateway.agent.mark();
            let talk = talk(&gateway, &tls, "api.test").unwrap();
            assert_eq!(talk.version, number);
            assert_eq!(talk.alpn.as_deref(), agreed.map(str::as_bytes), "{offered:?}");
            if agreed != Some("h2") {
                assert!(talk.answer.starts_with("HTTP/1.1 200"), "{}", talk.answer);
                assert!(talk.answer.contains("proto=https"), "{}", talk.answer);
                let told = gateway.record(mark, "/seen");
                assert_eq!(
                    told.text("tls"),
                    Some(if number == rustls::ProtocolVersion::TLSv1_2 { "TLSv1.2" } else { "TLSv1.3" })
                );
            }
        }
    }
    let strict = start(&[&pair], "min_version = \"1.3\"\n");
    let old = authority.client_of(&[&TLS12], &[], None).unwrap();
    assert!(talk(&strict, &old, "api.test").is_err());
    assert!(talk(&strict, &authority.client(&[], None).unwrap(), "api.test").is_ok());
}

#[test]
fn what_is_no_tls_is_told_and_closed() {
    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let gateway = Gateway::start(&format!("{}[api.timeouts]\nhead = \"1s\"\n{NO_BANS}", Authority::toml(&[&pair])));
    for (bytes, reason) in [(GET, "tls-handshake"), (&b"\x16\x03\x01"[..], "tls-timeout"), (b"", "tls-timeout")] {
        let mark = gateway.agent.mark();
        let mut client = Client::open(&gateway.world.client, host()).unwrap();
        client.send(bytes).unwrap();
        assert!(client.is_closed(Duration::from_secs(3)), "{reason}");
        gateway.refusal(mark, reason);
    }
    assert!(talk(&gateway, &authority.client(&[], None).unwrap(), "api.test").is_ok());
}

#[test]
fn a_host_other_than_the_name_of_the_handshake_is_refused() {
    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["other.test"]).unwrap();
    let gateway = start(&[&pair], "");
    let mark = gateway.agent.mark();
    let talk = talk(&gateway, &authority.client(&[], None).unwrap(), "other.test").unwrap();
    // Misdirected (RFC 9110 section 15.5.20): the client may ask again on a connection of its own.
    assert!(talk.answer.starts_with("HTTP/1.1 421"), "{}", talk.answer);
    gateway.refusal(mark, "host-not-served");
}

#[test]
fn client_certificates_are_asked_for() {
    let authority = Authority::new().unwrap();
    let stranger = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let good = authority.issue("client", &["client"]).unwrap();
    let bad = stranger.issue("client", &["client"]).unwrap();
    for (word, without) in [("required", false), ("optional", true)] {
        let more = format!("client_ca = \"{}\"\nclient_certificates = \"{word}\"\n", authority.ca().display());
        let gateway = start(&[&pair], &more);
        for (identity, accepted) in [(None, without), (Some(&good), true), (Some(&bad), false)] {
            let talk = talk(&gateway, &authority.client(&[], identity).unwrap(), "api.test");
            let answered = talk.is_ok_and(|talk| talk.answer.starts_with("HTTP/1.1 200"));
            assert_eq!(answered, accepted, "{word} {identity:?}");
        }
    }
}

#[test]
fn a_changed_certificate_is_used_without_a_restart() {
    let authority = Authority::new().unwrap();
    let first = authority.issue("api", &["api.test"]).unwrap();
    let gateway = start(&[&first], "");
    let tls = authority.client(&[], None).unwrap();
    let current = || talk(&gateway, &tls, "api.test").unwrap().shown;
    assert_eq!(current(), first.certificate().to_vec());
    let second = authority.issue("api", &["api.test"]).unwrap();
    wait_until("shown", || current() == second.certificate().to_vec());
    // A broken file changes nothing.
    std::fs::write(&second.chain, "nonsense").unwrap();
    wait_until("told", || gateway.agent.status().unwrap().reloads.last_error.is_some());
    assert_eq!(current(), second.certificate().to_vec());
}

#[test]
fn sessions_outlive_a_reload_that_changes_no_certificate() {
    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let config = |methods: &str| format!("{API}methods = [{methods}]\n{}{NO_BANS}", Authority::toml(&[&pair]));
    for version in [&TLS12, &TLS13] {
        let gateway = Gateway::start_config(&config("\"GET\""));
        let tls = authority.client_of(&[version], &[], None).unwrap();
        let resumed = || talk(&gateway, &tls, "api.test").unwrap().resumed;
        assert!(!resumed() && resumed());
        gateway.agent.edit_config(&config("\"GET\", \"POST\"")).unwrap();
        gateway.agent.reload().unwrap();
        assert!(resumed(), "{version:?}");
        // What was agreed under other settings is over.
        gateway.agent.edit_config(&config("\"GET\"").replace("[api.tls]", "[api.tls]\nmin_version = \"1.2\"")).unwrap();
        gateway.agent.reload().unwrap();
        assert!(resumed(), "{version:?}: the default, written out");
        let other = authority.issue("api", &["api.test"]).unwrap();
        gateway.agent.reload().unwrap();
        let after = talk(&gateway, &tls, "api.test").unwrap();
        assert!(!after.resumed && after.shown == other.certificate().to_vec(), "{version:?}");
    }
}

#[test]
fn what_is_amiss_with_a_key_is_a_warning_as_long_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;

    let authority = Authority::new().unwrap();
    let pair = authority.issue("api", &["api.test"]).unwrap();
    let mode = |mode| std::fs::set_permissions(&pair.key, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let gateway = start(&[&pair], "");
    let told = || {
        let warnings = gateway.agent.status().unwrap().warnings;
        warnings.iter().any(|warning| warning.starts_with("API `orders`: ") && warning.contains("may read the key"))
    };
    assert!(told() && gateway.agent.stderr().contains("may read the key"));
    mode(0o600);
    gateway.agent.reload().unwrap();
    assert!(!told());
}

#[test]
fn the_certificate_of_an_upstream_is_checked() {
    let world = World::new().unwrap();
    let [authority, stranger] = [Authority::new().unwrap(), Authority::new().unwrap()];
    let back = authority.issue("back", &["127.0.0.1"]).unwrap();
    let server = tests::http::tls::serve_page(&world.host, 9443, &back).unwrap();
    let api = |name: &str, listen: u16, authority: &Authority| {
        let ca = authority.ca();
        format!(
            "[[api]]\nname = \"{name}\"\nlisten = \"{HOST_V4}:{listen}\"\nupstream = \"https://127.0.0.1:9443\"\n\
             upstream_tls = {{ ca = {ca:?} }}\n"
        )
    };
    let config =
        format!("interfaces = [\"eth0\"]\n{}{}{NO_BANS}", api("good", 8001, &authority), api("bad", 8002, &stranger));
    let _agent = Agent::start(&world, &config).unwrap();
    let ask = |port| Client::open(&world.client, at(HOST_V4, port)).unwrap().get("/").unwrap();
    assert_eq!(ask(8001).status, 200);
    super::support::assert_problem(&ask(8002), 502);
    drop(server);
}
