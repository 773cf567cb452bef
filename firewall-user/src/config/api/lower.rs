//! `[[api]]`: how connections come in, where requests go, TLS on both sides.
//!
//! In: the tables and the folder that relative paths start from. Out: [`Api`]s that do not stand in each other's way. The
//! paths of certificates and keys go to the files to be watched; nothing reads them here.

use std::{
    collections::HashMap,
    fmt::Display,
    hash::Hash,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    Api, Certificate, ClientCertificates, Entry, Existing, Forward, OnExit, Steered, Tls, TlsVersion, Upstream,
    UpstreamHttp, UpstreamTls, clash::Places, protocol, rules, settings, words,
};
use crate::config::{
    MODES, Mode,
    lower::{Names, folder_path},
    prefix::{self, Fault},
    raw::{Table, Value},
    report::{Invalid, quoted},
};

/// APIs there can be.
const MAX_APIS: usize = 64;
/// Ports, or addresses, of one API.
const MAX_ENTRIES: usize = 64;
/// Certificates of one API.
const MAX_CERTIFICATES: usize = 256;
/// Keys that only go with `port`.
const STEERED_ONLY: [&str; 4] = ["netns", "on_agent_exit", "existing", "local_clients"];

/// Reads all APIs. `metrics` is where the agent's own listener is, and where that is written.
pub(in crate::config) fn lower(
    root: &Table<'_>,
    folder: &Path,
    files: &mut Vec<PathBuf>,
    metrics: Option<&(SocketAddr, Range<usize>)>,
) -> Vec<Api> {
    let mut names = Names::new("API");
    let mut places = Places::new(metrics);
    let mut apis = Vec::new();
    for (index, table) in root.tables("api").into_iter().enumerate() {
        if index == MAX_APIS {
            table.problem(format!("more than {MAX_APIS} APIs"), "an API can have several ports and hosts".to_owned());
        }
        apis.extend(api(table, folder, files, &mut names, &mut places));
    }
    places.finish();
    apis
}

fn api<'d>(
    table: Table<'d>,
    folder: &Path,
    files: &mut Vec<PathBuf>,
    names: &mut Names,
    places: &mut Places<'d>,
) -> Option<Api> {
    const UPSTREAM_HTTP: &[(&str, UpstreamHttp)] =
        &[("auto", UpstreamHttp::Auto), ("1.1", UpstreamHttp::Http1), ("2", UpstreamHttp::Http2)];
    let name = names.take(&table);
    let mode = table.choice("mode", MODES, Mode::Enforce);
    let upstream_tls = table.get("upstream_tls").and_then(|value| upstream_tls(value, folder, files));
    let entry = entry(&table, upstream_tls, places);
    let tls = table.get("tls").and_then(Value::table).map(|table| tls(table, folder, files));
    let upstream_http = table.choice("upstream_http", UPSTREAM_HTTP, UpstreamHttp::Auto);
    let forward = if table.switch("proxy_protocol", false) { Forward::ProxyV2 } else { Forward::Headers };
    let trusted_proxies = table.get("trusted_proxies").map_or_else(Vec::new, trusted_proxies);
    let protocol = protocol::lower(&table);
    let rules = rules::lower(&table, folder, files);
    let limits = settings::limits(table.table("limits"));
    let timeouts = settings::timeouts(table.table("timeouts"));
    table.finish();
    let name = name?.into();
    let entry = entry?;
    Some(Api { name, mode, entry, tls, upstream_http, forward, trusted_proxies, protocol, rules, limits, timeouts })
}

fn entry<'d>(
    table: &Table<'d>,
    upstream_tls: Option<(Range<usize>, UpstreamTls)>,
    places: &mut Places<'d>,
) -> Option<Entry> {
    const ON_EXIT: &[(&str, OnExit)] = &[("open", OnExit::Open), ("closed", OnExit::Closed)];
    const EXISTING: &[(&str, Existing)] = &[("reset", Existing::Reset), ("keep", Existing::Keep)];
    let (port, listen, upstream) = (table.get("port"), table.get("listen"), table.get("upstream"));
    let netns = table.get("netns").map(|value| value.parsed(words::netns));
    let on_agent_exit = table.choice("on_agent_exit", ON_EXIT, OnExit::Open);
    let existing = table.choice("existing", EXISTING, Existing::Reset);
    let local_clients = table.switch("local_clients", false);
    let steers = "`port` takes over the port of an application on this host; with `listen` the agent listens itself, and \
                  sends requests to `upstream`";
    match (port, listen) {
        (Some(port), Some(listen)) => {
            listen.clash("an API has either `port` or `listen`".to_owned(), port.span, "`port`", steers);
            None
        }
        (Some(port), None) => {
            if let Some(upstream) = upstream {
                let help = "requests go to where the client wanted to go: remove it, or write `listen`".to_owned();
                upstream.problem("`upstream` means nothing with `port`", help);
            }
            // With a namespace that has no name, its ports cannot be compared with others'.
            let ports = ports(port, netns.as_ref().map(Option::as_deref), places);
            let netns = netns.map_or(Some(None), |netns| netns.map(Some))?;
            let upstream_tls = upstream_tls.map(|(_, tls)| tls);
            Some(Entry::Steered(Steered { ports, netns, on_agent_exit, existing, local_clients, upstream_tls }))
        }
        (None, Some(listen)) => {
            for value in STEERED_ONLY.into_iter().filter_map(|key| Some((key, table.get(key)?))) {
                let (key, value) = value;
                value
                    .problem(format!("`{key}` means nothing with `listen`"), "remove it, or steer a `port`".to_owned());
            }
            let listen = addresses(listen, places);
            let upstream =
                table.require("upstream", "where requests go, such as `upstream = \"http://10.0.0.5:8080\"`");
            Some(Entry::Proxy { listen, upstream: self::upstream(&upstream?, upstream_tls, places)? })
        }
        (None, None) => {
            if !table.context.broken {
                table.problem("the API has neither `port` nor `listen`", steers.to_owned());
            }
            None
        }
    }
}

/// `netns`: the namespace of the ports, if that is known; the agent's own without one.
fn ports<'d>(value: Value<'d>, netns: Option<Option<&Path>>, places: &mut Places<'d>) -> Vec<u16> {
    let items = entries(value, "8080");
    let ports = distinct(items, |item| u16::try_from(item.integer(1..=65_535)?).ok());
    for (port, item) in &ports {
        match netns {
            None => places.steer(None, *port, item),
            Some(Some(path)) => places.steer(Some(path), *port, item),
            Some(None) => {}
        }
    }
    ports.into_iter().map(|(port, _)| port).collect()
}

fn addresses<'d>(value: Value<'d>, places: &mut Places<'d>) -> Vec<SocketAddr> {
    let items = entries(value, "\"0.0.0.0:443\"");
    let addresses: Vec<SocketAddr> = items
        .iter()
        .filter_map(|item| {
            let address = item.parsed(words::listen)?;
            places.listen(address, item);
            Some(address)
        })
        .collect();
    addresses
}

/// One value or several, not too many, not none.
fn entries<'d>(value: Value<'d>, example: &str) -> Vec<Value<'d>> {
    let mut items = value.clone().one_or_more();
    if items.is_empty() {
        value.problem("nothing is in here", format!("at least one, such as `{example}`"));
    }
    if let Some(item) = items.get(MAX_ENTRIES) {
        item.problem(format!("more than {MAX_ENTRIES} for one API"), None);
        items.truncate(MAX_ENTRIES);
    }
    items
}

fn upstream<'d>(
    value: &Value<'d>,
    upstream_tls: Option<(Range<usize>, UpstreamTls)>,
    places: &mut Places<'d>,
) -> Option<Upstream> {
    let (host, port, secure) = value.parsed(words::upstream)?;
    places.send(&host, port, value);
    if let (false, Some((span, _))) = (secure, &upstream_tls) {
        let message = "`upstream_tls` means nothing for an upstream without TLS".to_owned();
        value.clash(message, span.clone(), "TLS", "write `https://`, or remove `upstream_tls`");
    }
    let tls = secure.then(|| upstream_tls.map(|(_, tls)| tls).unwrap_or_default());
    Some(Upstream { host, port, tls })
}

/// And its place.
fn upstream_tls(value: Value<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Option<(Range<usize>, UpstreamTls)> {
    let span = value.span.clone();
    let table = value.table()?;
    let ca = table.get("ca").and_then(|value| file(&value, folder, files));
    let server_name = table.get("server_name").and_then(|value| value.parsed(words::host));
    table.finish();
    Some((span, UpstreamTls { ca, server_name }))
}

fn tls(table: Table<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Tls {
    const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
    let example = "`certificates = [{ chain = \"api.pem\", key = \"api.key\" }]`";
    let certificates = table.require("certificates", example).map_or_else(Vec::new, |value| {
        let items = value.clone().items();
        if items.as_ref().is_some_and(Vec::is_empty) {
            value.problem("`certificates` is empty", format!("at least one: {example}"));
        }
        let mut items = items.unwrap_or_default();
        if let Some(item) = items.get(MAX_CERTIFICATES) {
            item.problem(format!("more than {MAX_CERTIFICATES} certificates"), "one can have many names".to_owned());
            items.truncate(MAX_CERTIFICATES);
        }
        let certificates = distinct(items, |item| certificate(item.clone().table()?, folder, files));
        certificates.into_iter().map(|(certificate, _)| certificate).collect()
    });
    let min_version = table.choice("min_version", VERSIONS, TlsVersion::V12);
    let (ca, word) = (table.get("client_ca"), table.get("client_certificates"));
    let required = word.as_ref().and_then(|value| value.choice(&[("required", true), ("optional", false)]));
    if let (None, Some(word)) = (&ca, word) {
        let help = "add `client_ca = \"clients.pem\"`: who may issue them".to_owned();
        word.problem("`client_certificates` without `client_ca` means nothing", help);
    }
    let ca = ca.and_then(|value| file(&value, folder, files));
    table.finish();
    let client_certificates = ca.map(|ca| ClientCertificates { ca, required: required.unwrap_or(true) });
    Tls { certificates, min_version, client_certificates }
}

fn certificate(table: Table<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Option<Certificate> {
    let mut path = |key, help| table.require(key, help).and_then(|value| file(&value, folder, files));
    let chain = path("chain", "the certificate and its issuers: `chain = \"api.pem\"`");
    let key = path("key", "its private key: `key = \"api.key\"`");
    table.finish();
    Some(Certificate { chain: chain?, key: key? })
}

/// The path of a file that others read, and that is watched.
fn file(value: &Value<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Option<PathBuf> {
    let path = folder_path(value, folder)?;
    files.push(std::path::absolute(&path).unwrap_or_else(|_| path.clone()));
    Some(path)
}

fn trusted_proxies(value: Value<'_>) -> Vec<IpNet> {
    let parse = |text: &str| {
        prefix::parse(text, None).map_err(|fault| match fault {
            Fault::Everything => Invalid::new(format!("{} is every address", quoted(text)))
                .help("any client could claim to be another; name the proxies before this host"),
            fault => fault.explain(text, None),
        })
    };
    let items = value.items().unwrap_or_default();
    distinct(items, |item| item.parsed(parse)).into_iter().map(|(prefix, _)| prefix).collect()
}

/// What `parse` makes of the items, and the items; one that is there twice is a problem.
pub(super) fn distinct<'d, T: Clone + Eq + Hash + Display>(
    items: Vec<Value<'d>>,
    mut parse: impl FnMut(&Value<'d>) -> Option<T>,
) -> Vec<(T, Value<'d>)> {
    let mut seen: HashMap<T, Range<usize>> = HashMap::new();
    let mut kept = Vec::new();
    for item in items {
        let Some(parsed) = parse(&item) else { continue };
        if let Some(earlier) = seen.get(&parsed) {
            let message = format!("`{parsed}` is there twice");
            item.clash(message, earlier.clone(), "here already", "remove one of the two");
            continue;
        }
        seen.insert(parsed.clone(), item.span.clone());
        kept.push((parsed, item));
    }
    kept
}
