//! `[[api]]`, `[gateway]`, `[reputation]`: every kind of error with its place, and what values become.

use super::{
    super::{api::*, *},
    Expected, assert_problems, config, with_interface,
};

/// One error each, in `port = 8080` and further lines from line 4 on.
#[test]
fn every_error_of_a_steered_api() {
    let cases: &[(&str, Expected)] = &[
        ("quux = 1", (5, 1, "unknown key `quux` in `api`", "known keys in `api`: `name`")),
        ("mode = \"off\"", (5, 8, "`mode` cannot be `off`", "`monitor`")),
        ("listen = \"0.0.0.0:443\"", (5, 10, "an API has either `port` or `listen`", "the agent listens itself")),
        ("upstream = \"http://a\"", (5, 12, "`upstream` means nothing with `port`", "write `listen`")),
        ("on_agent_exit = \"keep\"", (5, 17, "`on_agent_exit` cannot be `keep`", "`open`, `closed`")),
        ("existing = \"rest\"", (5, 12, "`existing` cannot be `rest`", "did you mean `reset`?")),
        ("netns = \"a/b\"", (5, 9, "`a/b` is no network namespace", "`ip netns`")),
        ("local_clients = 1", (5, 17, "`local_clients` wants `true` or `false`, not an integer", "")),
        ("upstream_http = \"http2\"", (5, 17, "`upstream_http` cannot be `http2`", "`auto`, `1.1`, `2`")),
        ("upstream_http = 2", (5, 17, "`upstream_http` wants a string, not an integer", "")),
        ("proxy_protocol = \"v2\"", (5, 18, "`proxy_protocol` wants `true` or `false`, not a string", "")),
        ("trusted_proxies = \"10.0.0.1\"", (5, 19, "`trusted_proxies` wants an array, not a string", "")),
        ("trusted_proxies = [\"0.0.0.0/0\"]", (5, 20, "`0.0.0.0/0` is every address", "claim to be another")),
        ("trusted_proxies = [\"::ffff:0:0/96\"]", (5, 20, "`::ffff:0:0/96` is every address", "claim to be another")),
        ("trusted_proxies = [\"10.0.0.1/8\"]", (5, 20, "`10.0.0.1/8` has bits set behind its length", "10.0.0.0/8")),
        ("trusted_proxies = [\"10.0.0.1\", \"10.0.0.1/32\"]", (5, 32, "`10.0.0.1/32` is there twice", "remove one")),
        ("methods = []", (5, 11, "`methods` is empty: nothing could be asked", "leave it out")),
        ("methods = [\"get\"]", (5, 12, "`get` has small letters", "write `GET`")),
        ("methods = [\"GET\", \"GET\"]", (5, 19, "`GET` is there twice", "remove one")),
        ("hosts = []", (5, 9, "`hosts` is empty: nothing could be asked", "every host")),
        ("hosts = [\"*\"]", (5, 10, "`*` is every host", "leave `hosts` out")),
        ("hosts = [\"a.b:80\"]", (5, 10, "`a.b:80` is no host", "write `a.b`")),
        ("hosts = [\"A.b\", \"a.B\"]", (5, 17, "`a.b` is there twice", "remove one")),
        ("content_types = []", (5, 17, "`content_types` is empty: nothing could be asked", "every type")),
        ("content_types = [\"json\"]", (5, 18, "`json` is no media type", "`application/json`")),
        ("upgrades = [\"h2c\"]", (5, 13, "`h2c` is not allowed", "would pass unseen")),
        ("encoded_slashes = 0", (5, 19, "`encoded_slashes` wants `true` or `false`, not an integer", "")),
        // TLS.
        ("tls = true", (5, 7, "`tls` wants a table, not a boolean", "")),
        ("[api.tls]", (5, 1, "`certificates` is missing", "chain = \"api.pem\"")),
        ("[api.tls]\ncertificates = []", (6, 16, "`certificates` is empty", "at least one")),
        ("[api.tls]\ncertificates = [{ chain = \"a\" }]", (6, 17, "`key` is missing", "its private key")),
        ("[api.tls]\ncertificates = [{ key = \"a\" }]", (6, 17, "`chain` is missing", "its issuers")),
        ("tls = { certificates = [{ chain = \"\", key = \"a\" }] }", (5, 35, "this is no path", "")),
        (
            "tls = { certificates = [{ chain = \"a\", key = \"a\", x = 1 }] }",
            (5, 51, "unknown key `x` in `api.tls.certificates`", "`chain`, `key`"),
        ),
        (
            "tls.certificates = [{ chain = \"a\", key = \"b\" }, { chain = \"a\", key = \"b\" }]",
            (5, 49, "`/nowhere/a` is there twice", "remove one"),
        ),
        (
            "tls = { certificates = [{ chain = \"a\", key = \"a\" }], min_version = \"1.1\" }",
            (5, 68, "`min_version` cannot be `1.1`", "did you mean"),
        ),
        (
            "tls = { certificates = [{ chain = \"a\", key = \"a\" }], client_certificates = \"optional\" }",
            (5, 76, "`client_certificates` without `client_ca` means nothing", "clients.pem"),
        ),
        (
            "tls = { certificates = [{ chain = \"a\", key = \"a\" }], client_ca = \"c\", client_certificates = \"no\" }",
            (5, 93, "`client_certificates` cannot be `no`", "`required`, `optional`"),
        ),
        ("upstream_tls = false", (5, 16, "`upstream_tls` wants a table, not a boolean", "")),
        ("upstream_tls = { server_name = \"a:1\" }", (5, 32, "`a:1` is no host", "without a port")),
        ("upstream_tls = { insecure = true }", (5, 18, "unknown key `insecure` in `api.upstream_tls`", "`ca`")),
        // Limits and timeouts.
        ("limits.request_line = 63", (5, 23, "`request_line` is out of range", "from 64B to 64KiB")),
        ("limits.headers = \"2MiB\"", (5, 18, "`headers` is out of range", "from 256B to 1MiB")),
        ("limits.header_count = 0", (5, 23, "`header_count` is out of range", "from 1 to 1000")),
        ("limits.body = \"1001GB\"", (5, 15, "`body` is out of range", "from 0B to 1000GB")),
        ("limits.body = -1", (5, 15, "`body` is out of range", "")),
        ("limits.trailers = \"1\"", (5, 19, "`1` is not a size", "`64KB`")),
        ("limits.streams = 1001", (5, 18, "`streams` is out of range", "from 1 to 1000")),
        ("limits.connections_per_client = 0", (5, 33, "`connections_per_client` is out of range", "from 1 to")),
        ("limits.bdy = 1", (5, 8, "unknown key `bdy` in `api.limits`", "did you mean `body`?")),
        ("timeouts.head = \"0s\"", (5, 17, "`head` is out of range", "from 1s to 1h")),
        ("timeouts.body = 30", (5, 17, "`body` wants a string, not an integer", "")),
        ("timeouts.idle = \"1m30s\"", (5, 17, "`1m30s` is not a duration", "`5m`")),
        ("timeouts.connect = \"2h\"", (5, 20, "`connect` is out of range", "from 1s to 1h")),
        ("timeouts.upstream = \"2d\"", (5, 21, "`upstream` is out of range", "from 1s to 1d")),
        ("timeouts.total = \"1s\"", (5, 10, "unknown key `total` in `api.timeouts`", "known keys")),
    ];
    for (text, expected) in cases {
        let text = format!("[[api]]\nname = \"a\"\nport = 8080\n{text}");
        assert_problems(&text, with_interface(&text), &[*expected]);
    }
}

/// One error each, in what follows line 1.
#[test]
fn every_error_of_entries() {
    let cases: &[(&str, Expected)] = &[
        ("api = {}", (2, 7, "`api` wants an array, not a table", "")),
        ("[[api]]\nport = 1", (2, 1, "`name` is missing", "call the API by its name")),
        ("[[api]]\nname = \"a b\"\nport = 1", (3, 8, "`a b` cannot be a name", "letters")),
        ("[[api]]\nname = \"a\"", (2, 1, "the API has neither `port` nor `listen`", "`port` takes over")),
        ("[[api]]\nname = \"a\"\nport = 0", (4, 8, "`port` is out of range", "from 1 to 65535")),
        (
            "[[api]]\nname = \"a\"\nport = \"8080\"",
            (4, 8, "`port` wants a whole number from 1 to 65535, not a string", ""),
        ),
        ("[[api]]\nname = \"a\"\nport = []", (4, 8, "nothing is in here", "`8080`")),
        ("[[api]]\nname = \"a\"\nport = [1, 2, 1]", (4, 15, "`1` is there twice", "remove one")),
        ("api = [{ name = \"a\", port = 1 }, { name = \"a\", port = 2 }]", (2, 43, "two APIs have the name `a`", "")),
        (
            "api = [{ name = \"a\", port = 1 }, { name = \"b\", port = [2, 1] }]",
            (2, 59, "port 1 belongs to another API already", "a port has one API"),
        ),
        (
            "api = [{ name = \"a\", port = 1, netns = \"x\" }, { name = \"b\", port = 1, netns = \"/run/netns/x\" }]",
            (2, 68, "port 1 belongs to another API already", "a port has one API"),
        ),
        (
            "metrics.listen = \"127.0.0.1:1\"\napi = [{ name = \"a\", port = 1 }]",
            (3, 29, "port 1 is where the agent serves metrics", "another port"),
        ),
        // Proxies.
        ("[[api]]\nname = \"a\"\nlisten = \"0.0.0.0:1\"", (2, 1, "`upstream` is missing", "http://10.0.0.5:8080")),
        (
            "api = [{ name = \"a\", listen = \"0.0.0.0:1\", upstream = \"b:80\" }]",
            (2, 55, "`b:80` is no upstream", "`http://10.0.0.5:8080`"),
        ),
        (
            "api = [{ name = \"a\", listen = [], upstream = \"http://b\" }]",
            (2, 31, "nothing is in here", "`\"0.0.0.0:443\"`"),
        ),
        (
            "api = [{ name = \"a\", listen = 443, upstream = \"http://b\" }]",
            (2, 31, "`listen` wants a string, not an integer", ""),
        ),
        (
            "api = [{ name = \"a\", listen = [\"0.0.0.0:0\"], upstream = \"http://b\" }]",
            (2, 32, "`0.0.0.0:0` has no port to find it by", ""),
        ),
        (
            "api = [{ name = \"a\", listen = \"0.0.0.0:1\", upstream = \"http://b\", netns = \"x\" }]",
            (2, 75, "`netns` means nothing with `listen`", "steer a `port`"),
        ),
        (
            "api = [{ name = \"a\", listen = \"0.0.0.0:1\", upstream = \"http://b\", on_agent_exit = \"open\" }]",
            (2, 83, "`on_agent_exit` means nothing with `listen`", "remove it"),
        ),
        (
            "api = [{ name = \"a\", listen = \"0.0.0.0:1\", upstream = \"http://b\", upstream_tls = {} }]",
            (2, 55, "`upstream_tls` means nothing for an upstream without TLS", "write `https://`"),
        ),
        (
            "api = [{ name = \"a\", listen = [\"0.0.0.0:1\", \"0.0.0.0:1\"], upstream = \"http://b\" }]",
            (2, 45, "`0.0.0.0:1` is taken", "an address has one API"),
        ),
        (
            "api = [{ name = \"a\", listen = [\"10.0.0.1:1\", \"0.0.0.0:1\"], upstream = \"http://b\" }]",
            (2, 46, "`0.0.0.0:1` is taken", "an address has one API"),
        ),
        (
            "[[api]]\nname = \"a\"\nlisten = \"[::]:1\"\nupstream = \"http://b\"\n[[api]]\nname = \"b\"\nlisten = \
             [\"0.0.0.0:1\", \"[::1]:1\"]\nupstream = \"http://b\"",
            (8, 24, "`[::1]:1` is taken", "an API can serve several hosts"),
        ),
        (
            "metrics.listen = \"[::1]:1\"\napi = [{ name = \"a\", listen = \"[::]:1\", upstream = \"http://b\" }]",
            (3, 31, "`[::]:1` is taken", ""),
        ),
        (
            "api = [{ name = \"a\", listen = \"10.0.0.1:1\", upstream = \"http://b\" }, { name = \"b\", port = 1 }]",
            (2, 31, "port 1 is taken over from whoever listens on it", "another port"),
        ),
        (
            "api = [{ name = \"a\", listen = \"0.0.0.0:1\", upstream = \"http://127.0.0.2:1\" }]",
            (2, 55, "requests would go back to the agent", "the application's own"),
        ),
        (
            "api = [{ name = \"a\", listen = \"[::]:80\", upstream = \"http://LOCALHOST\" }]",
            (2, 53, "requests would go back to the agent", "the application's own"),
        ),
        (
            "api = [{ name = \"a\", listen = \"10.0.0.1:1\", upstream = \"http://10.0.0.1:1\" }]",
            (2, 56, "requests would go back to the agent", "the application's own"),
        ),
        // The layer as a whole.
        ("gateway.workers = 0", (2, 19, "`workers` is out of range", "from 1 to 1024")),
        ("gateway.connections = 1000001", (2, 23, "`connections` is out of range", "from 1 to 1000000")),
        ("gateway.drain = \"61m\"", (2, 17, "`drain` is out of range", "from 0ms to 1h")),
        ("gateway.threads = 1", (2, 9, "unknown key `threads` in `gateway`", "`workers`")),
        ("reputation.mode = \"on\"", (2, 19, "`mode` cannot be `on`", "`enforce`")),
        ("reputation.threshold = 0", (2, 24, "`threshold` is out of range", "from 1 to 1000000")),
        ("reputation.half_life = \"500ms\"", (2, 24, "`half_life` is out of range", "from 1s to 1d")),
        ("reputation.ban = \"366d\"", (2, 18, "`ban` is out of range", "from 1s to 365d")),
        ("reputation = { ban = \"2m\", max_ban = \"1m\" }", (2, 38, "`max_ban` is shorter than the first ban", "2m")),
        ("reputation.bans = 1", (2, 12, "unknown key `bans` in `reputation`", "did you mean `ban`?")),
    ];
    for (text, expected) in cases {
        assert_problems(text, with_interface(text), &[*expected]);
    }
}

#[test]
fn all_errors_of_an_api_come_at_once() {
    let text = "[[api]]\nport = 0\nmethods = [\"get\", \"a b\"]\nnetns = \"\"\n[api.tls]\nclient_ca = \"\"\nx = 1\n[[api]]\nname = \
                \"b\"\ny = 1\n[api.limits]\nz = 1";
    let errors = with_interface(text).unwrap_err();
    let places: Vec<_> = errors.problems().iter().map(|problem| (problem.line, problem.column)).collect();
    let expected = [(2, 1), (3, 8), (4, 12), (4, 19), (5, 9), (6, 1), (7, 13), (8, 1), (9, 1), (11, 1), (13, 1)];
    assert_eq!(places, expected, "{}", errors.report(false));
}

#[test]
fn what_does_not_clash() {
    let text = "metrics.listen = \"127.0.0.1:9\"\napi = [\n{ name = \"a\", port = [1, 2] },\n{ name = \"b\", port = [1, 9], netns = \
                \"x\" },\n{ name = \"c\", port = 1, netns = \"y\" },\n{ name = \"d\", listen = [\"10.0.0.1:443\", \"10.0.0.2:443\", \
                \"[::]:443\"], upstream = \"http://10.0.0.4:443\" },\n{ name = \"e\", listen = \"10.0.0.3:443\", upstream = \
                \"http://127.0.0.1:443\" },\n]";
    assert_eq!(config(text).apis.len(), 5);
}

#[test]
fn values_arrive() {
    let text = r#"
[[api]]
name = "orders"
port = [8443, 8080]
mode = "monitor"
on_agent_exit = "closed"
existing = "keep"
netns = "orders"
local_clients = true
upstream_http = "2"
proxy_protocol = true
trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]
methods = ["PURGE"]
hosts = ["*.Example.com", "[::1]"]
content_types = ["Application/JSON"]
upgrades = []
encoded_slashes = true
[api.tls]
certificates = [{ chain = "a.pem", key = "/etc/a.key" }, { chain = "b.pem", key = "b.key" }]
min_version = "1.3"
client_ca = "clients.pem"
client_certificates = "optional"
[api.upstream_tls]
server_name = "Orders.internal"
[api.limits]
request_line = 100
headers = "1KiB"
header_count = 1
body = "1000GB"
trailers = 0
streams = 2
connections_per_client = 3
[api.timeouts]
head = "1s"
body = "2s"
idle = "3s"
connect = "4s"
upstream = "1d"
[[api]]
name = "shop"
listen = ["10.0.0.1:443", "[2001:db8::1]:443"]
upstream = "https://Shop.internal"
[api.tls]
certificates = [{ chain = "a.pem", key = "/etc/a.key" }]
client_ca = "clients.pem"
[gateway]
workers = 3
connections = 4
drain = "0s"
[reputation]
mode = "monitor"
threshold = 1
half_life = "1s"
ban = "2d"
"#;
    let config = config(text);
    let seconds = Duration::from_secs;
    let strings = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let certificate = |chain: &str, key: &str| Certificate { chain: chain.into(), key: key.into() };
    let orders = Api {
        name: "orders".into(),
        mode: Mode::Monitor,
        entry: Entry::Steered(Steered {
            ports: vec![8443, 8080],
            netns: Some("/run/netns/orders".into()),
            on_agent_exit: OnExit::Closed,
            existing: Existing::Keep,
            local_clients: true,
            upstream_tls: Some(UpstreamTls { ca: None, server_name: Some("orders.internal".to_owned()) }),
        }),
        tls: Some(Tls {
            certificates: vec![
                certificate("/nowhere/a.pem", "/etc/a.key"),
                certificate("/nowhere/b.pem", "/nowhere/b.key"),
            ],
            min_version: TlsVersion::V13,
            client_certificates: Some(ClientCertificates { ca: "/nowhere/clients.pem".into(), required: false }),
        }),
        upstream_http: UpstreamHttp::Http2,
        forward: Forward::ProxyV2,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::1/128".parse().unwrap()],
        protocol: Protocol {
            methods: strings(&["PURGE"]),
            hosts: strings(&["*.example.com", "[::1]"]),
            content_types: strings(&["application/json"]),
            upgrades: vec![],
            encoded_slashes: true,
        },
        rules: None,
        limits: Limits {
            request_line: 100,
            headers: 1024,
            header_count: 1,
            body: 1_000_000_000_000,
            trailers: 0,
            streams: 2,
            connections_per_client: 3,
        },
        timeouts: Timeouts {
            head: seconds(1),
            body: seconds(2),
            idle: seconds(3),
            connect: seconds(4),
            upstream: seconds(86_400),
        },
    };
    let shop = Api {
        name: "shop".into(),
        mode: Mode::Enforce,
        entry: Entry::Proxy {
            listen: vec!["10.0.0.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()],
            upstream: Upstream { host: "shop.internal".to_owned(), port: 443, tls: Some(UpstreamTls::default()) },
        },
        tls: Some(Tls {
            certificates: vec![certificate("/nowhere/a.pem", "/etc/a.key")],
            min_version: TlsVersion::V12,
            client_certificates: Some(ClientCertificates { ca: "/nowhere/clients.pem".into(), required: true }),
        }),
        upstream_http: UpstreamHttp::Auto,
        forward: Forward::Headers,
        trusted_proxies: vec![],
        protocol: Protocol {
            methods: strings(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
            hosts: vec![],
            content_types: vec![],
            upgrades: strings(&["websocket"]),
            encoded_slashes: false,
        },
        rules: None,
        limits: Limits {
            request_line: 8000,
            headers: 32_000,
            header_count: 100,
            body: 10_000_000,
            trailers: 4000,
            streams: 100,
            connections_per_client: 1000,
        },
        timeouts: Timeouts {
            head: seconds(10),
            body: seconds(30),
            idle: seconds(75),
            connect: seconds(5),
            upstream: seconds(60),
        },
    };
    assert_eq!(config.apis, [orders, shop]);
    let files =
        ["/nowhere/a.pem", "/etc/a.key", "/nowhere/b.pem", "/nowhere/b.key", "/nowhere/clients.pem"].map(PathBuf::from);
    assert_eq!(config.files, files);
    assert_eq!(config.gateway, Gateway { workers: 3, connections: 4, drain: Duration::ZERO });
    let (half_life, ban) = (seconds(1), seconds(2 * 86_400));
    assert_eq!(config.reputation, Reputation { mode: Mode::Monitor, threshold: 1, half_life, ban, max_ban: ban });
}

#[test]
fn no_more_than_there_is_room_for() {
    let apis: String = (1..=65).map(|n| format!("[[api]]\nname = \"{n}\"\nport = {n}\n")).collect();
    assert_problems("65 APIs", with_interface(&apis), &[(194, 1, "more than 64 APIs", "several ports")]);
    let ports: Vec<u16> = (1..=65).collect();
    let ports = format!("[[api]]\nname = \"a\"\nport = {ports:?}");
    let Err(errors) = with_interface(&ports) else { panic!("65 ports") };
    assert_eq!((errors.len(), &*errors.problems()[0].message), (1, "more than 64 for one API"));
}

/// A key is not what events are appended to.
#[test]
fn events_do_not_go_into_a_key() {
    let text = "events.file = \"a.key\"\n[[api]]\nname = \"a\"\nport = 1\ntls.certificates = [{ chain = \"a.pem\", key = \
                \"a.key\" }]";
    let message = "events would be written into a file that is read here";
    assert_problems(text, with_interface(text), &[(2, 15, message, "a file of their own")]);
}
