//! Stage 7: UDP to ports where the gateway inspects TLS.

use std::{path::PathBuf, time::Duration};

use firewall_common::{policy::stage, verdict::DropReason::Quic};
use firewall_user::config::{
    Mode,
    api::{
        Api, Certificate, Entry, Existing, Forward, Limits, OnExit, Protocol, Steered, Timeouts, Tls, TlsVersion,
        Upstream, UpstreamHttp, UpstreamTls,
    },
};
use tests::loaded::{Loaded, config};

use crate::support::{Bench, FAMILIES, UDP};

fn tls() -> Option<Tls> {
    let certificate = Certificate { chain: PathBuf::from("chain.pem"), key: PathBuf::from("key.pem") };
    Some(Tls { certificates: vec![certificate], min_version: TlsVersion::V12, client_certificates: None })
}

fn steered(ports: &[u16], upstream_tls: Option<UpstreamTls>) -> Entry {
    Entry::Steered(Steered {
        ports: ports.to_vec(),
        netns: None,
        on_agent_exit: OnExit::Open,
        existing: Existing::Reset,
        local_clients: false,
        upstream_tls,
    })
}

fn proxy(listen: &str) -> Entry {
    let listen = vec![listen.parse().expect("an address")];
    Entry::Proxy { listen, upstream: Upstream { host: "127.0.0.1".into(), port: 1, tls: Some(UpstreamTls::default()) } }
}

fn api(entry: Entry, tls: Option<Tls>) -> Api {
    let second = Duration::from_secs(1);
    Api {
        name: "it".into(),
        mode: Mode::Enforce,
        entry,
        tls,
        upstream_http: UpstreamHttp::Auto,
        forward: Forward::Headers,
        trusted_proxies: Vec::new(),
        protocol: Protocol {
            methods: Vec::new(),
            hosts: Vec::new(),
            content_types: Vec::new(),
            upgrades: Vec::new(),
            encoded_slashes: false,
        },
        rules: None,
        limits: Limits {
            request_line: 1,
            headers: 1,
            header_count: 1,
            body: 1,
            trailers: 1,
            streams: 1,
            connections_per_client: 1,
        },
        timeouts: Timeouts { head: second, body: second, idle: second, connect: second, upstream: second },
    }
}

fn bench(policy: &str, apis: Vec<Api>) -> Bench {
    let mut config = config(policy).expect("a valid policy");
    config.apis = apis;
    Bench::of(Loaded::of(config).expect("the program loads"))
}

/// One API of each kind, with the ports where its TLS is inspected.
fn apis() -> Vec<Api> {
    vec![
        api(steered(&[443, 8443], None), tls()),
        api(steered(&[9443], Some(UpstreamTls::default())), None),
        api(proxy("192.0.2.1:7443"), tls()),
        // In the clear.
        api(steered(&[8080], None), None),
        api(proxy("192.0.2.1:7080"), None),
    ]
}

const REFUSED: [u16; 4] = [443, 8443, 9443, 7443];

#[test]
fn udp_to_inspected_ports_is_dropped() {
    for policy in ["", "dmz.expose = [\"1-65535/udp\", \"1-65535/tcp\"]"] {
        let mut bench = bench(policy, apis());
        assert!(bench.loaded.compiled.needs_egress(), "replies must be known");
        for family in FAMILIES {
            for port in REFUSED {
                let seen = family.seen(UDP, (40000, port), 8);
                bench.drops("QUIC", &family.frame().udp(40000, port), Quic, seen);
                bench.passes("TCP", &family.frame().tcp(40000, port), &[]);
                bench.passes("from the same port", &family.frame().udp(port, 40000), &[]);
            }
            for port in [442, 444, 8080, 7080] {
                bench.passes("another port", &family.frame().udp(40000, port), &[]);
            }
        }
    }
}

#[test]
fn replies_pass() {
    for policy in ["", "dmz.expose = [\"443/udp\"]", "dmz.expose = []"] {
        let mut bench = bench(policy, apis());
        for family in FAMILIES {
            let answer = family.frame().udp(5300, 443);
            bench.loaded.leave(&tests::frame::Frame::ip(family.host, family.client).udp(443, 5300).build()).unwrap();
            bench.passes("an answer", &answer, &["reply"]);
            assert_eq!(bench.run(&family.frame().udp(5301, 443)).0, tests::loaded::Verdict::Drop, "of another port");
        }
    }
}

#[test]
fn lists_and_modes() {
    let list = |action: &str| {
        format!(
            "[[dmz.list]]\nname = \"it\"\naction = \"{action}\"\nprefixes = [\"198.51.100.7\", \"2001:db8:1::7\"]\n"
        )
    };
    let mut allowed = bench(&list("allow"), apis());
    let mut monitored = bench("dmz.mode = \"monitor\"", apis());
    let mut passing = bench("dmz.quic = \"pass\"", apis());
    assert_eq!(passing.loaded.compiled.policy.stages & stage::QUIC, 0);
    for family in FAMILIES {
        let (frame, seen) = (family.frame().udp(40000, 443), family.seen(UDP, (40000, 443), 8));
        // Whoever is on an allow list is inspected all the same.
        let counters = [("dropped", 1), ("dropped quic", 1), ("event-sent", 1), ("list/it", 1)];
        let (verdict, counted, told) = allowed.run(&frame);
        assert_eq!(verdict, tests::loaded::Verdict::Drop);
        assert_eq!(counted, counters.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(told.len(), 1);
        monitored.monitors("monitored", &frame, &[(Quic, None)], &[], seen);
        passing.passes("passed", &frame, &[]);
    }
}

/// What does not exist says so first.
#[test]
fn a_hidden_port_is_hidden() {
    let mut bench = bench("dmz.expose = [\"443/tcp\"]", apis());
    for family in FAMILIES {
        let seen = family.seen(UDP, (40000, 443), 8);
        let reason = firewall_common::verdict::DropReason::NotExposed;
        bench.drops("hidden", &family.frame().udp(40000, 443), reason, seen);
    }
}
