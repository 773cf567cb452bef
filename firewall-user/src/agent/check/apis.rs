//! What `portcullis check` says of APIs.

use std::{fmt::Display, io, net::IpAddr, path::Path, time::SystemTime};

use crate::{
    config::{
        Config, Mode, Services,
        api::{Api, Entry, Forward},
    },
    gateway::{silence, tls},
    steering::{Netns, existing},
};

/// What becomes of an API, in one line.
pub(super) fn summary(api: &Api) -> String {
    let monitor = if api.mode == Mode::Monitor { "; refuses nothing (monitor)" } else { "" };
    let tls = if api.tls.is_some() { " with TLS" } else { "" };
    let does = match &api.entry {
        Entry::Steered(steered) => {
            let netns = steered.netns.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display()));
            let told = match api.forward {
                Forward::Headers => "`Forwarded` tells it",
                Forward::ProxyV2 => "PROXY protocol and `Forwarded` tell it",
            };
            format!(
                "takes over port {}{netns}{tls}; the application sees this host's own address as its client, {told} the \
                 real one",
                joined(&steered.ports)
            )
        }
        Entry::Proxy { listen, upstream } => {
            let scheme = if upstream.tls.is_some() { "https" } else { "http" };
            let host = if upstream.host.contains(':') { format!("[{}]", upstream.host) } else { upstream.host.clone() };
            format!("listens on {}{tls}, and sends requests to {scheme}://{host}:{}", joined(listen), upstream.port)
        }
    };
    format!("API `{}`: {does}{monitor}", api.name)
}

/// What keeps APIs from being served, or should be put right.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for api in &config.apis {
        let said = unexposed(config, api).into_iter().chain(about_tls(api));
        warnings.extend(said.map(|warning| format!("API `{}`: {warning}", api.name)));
    }
    warnings
}

/// Ports behind which nothing listens now, and network namespaces that are not there now.
pub(super) fn silent(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for api in &config.apis {
        let Entry::Steered(steered) = &api.entry else { continue };
        let said = match Netns::open(steered.netns.as_deref()) {
            Ok(netns) => unheard(&netns, &steered.ports),
            Err(error) => {
                let path = steered.netns.as_deref().unwrap_or(Path::new("")).display();
                let until = match error.kind() {
                    io::ErrorKind::NotFound => "the API is not protected until it is there",
                    _ => "`run` refuses it",
                };
                vec![format!("network namespace {path}: {error}: {until}")]
            }
        };
        warnings.extend(said.into_iter().map(|warning| format!("API `{}`: {warning}", api.name)));
    }
    warnings
}

fn unheard(netns: &Netns, ports: &[u16]) -> Vec<String> {
    let mut silent = Vec::new();
    let mut inside = Vec::new();
    for port in ports {
        match existing::listening(netns, *port) {
            Ok(found) if found.is_empty() => silent.push(*port),
            Ok(found) if found.iter().all(IpAddr::is_loopback) => inside.push(*port),
            Ok(_) => {}
            // Without the right to look there.
            Err(error) => return vec![format!("cannot tell whether anything listens behind port {port}: {error}")],
        }
    }
    let inside = (!inside.is_empty()).then(|| {
        let ports = joined(&inside);
        format!(
            "behind port {ports} something listens on a loopback address only, where no request from outside can go"
        )
    });
    silence(&silent).map(|silence| format!("{silence} now")).into_iter().chain(inside).collect()
}

/// Ports that the DMZ layer keeps from the outside. Those of other network namespaces may have other numbers there.
fn unexposed(config: &Config, api: &Api) -> Option<String> {
    let exposure = config.dmz.exposure.as_ref()?;
    if config.dmz.mode == Mode::Monitor || exposure.mode == Mode::Monitor {
        return None;
    }
    let mut ports: Vec<u16> = match &api.entry {
        Entry::Steered(steered) if steered.netns.is_some() => return None,
        Entry::Steered(steered) => steered.ports.clone(),
        Entry::Proxy { listen, .. } => {
            listen.iter().filter(|address| !address.ip().is_loopback()).map(|address| address.port()).collect()
        }
    };
    ports.retain(|port| {
        let wanted = Services::Tcp { first: *port, last: *port };
        !exposure.services.iter().any(|services| services.overlaps(&wanted))
    });
    ports.sort_unstable();
    ports.dedup();
    let first = ports.first()?;
    let ports = joined(&ports);
    Some(format!(
        "port {ports} is not in `expose` of [dmz], so nobody outside reaches it but sources of allow lists: add \
         \"{first}/tcp\""
    ))
}

fn about_tls(api: &Api) -> Vec<String> {
    let upstream = match &api.entry {
        Entry::Steered(steered) => steered.upstream_tls.as_ref(),
        Entry::Proxy { upstream, .. } => upstream.tls.as_ref(),
    };
    let mut warnings = Vec::new();
    if let Some(tls) = &api.tls {
        match tls::server_config(tls).and_then(|_| tls::notices(tls, SystemTime::now())) {
            Ok(notices) => warnings.extend(notices),
            Err(error) => warnings.push(format!("{error}: `run` refuses it")),
        }
    }
    if let Some(Err(error)) = upstream.map(|tls| tls::client_config(tls, &[])) {
        warnings.push(format!("{error}: `run` refuses it"));
    }
    warnings
}

fn joined<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portcullis.toml");
        std::fs::write(&path, format!("interfaces = [\"eth0\"]\n{text}")).unwrap();
        load(&path, &Overrides::default()).unwrap_or_else(|errors| panic!("{}", errors.report(false)))
    }

    #[test]
    fn one_line_for_each_api() {
        let config = config(
            "api = [\n{ name = \"a\", port = [80, 8080], netns = \"x\", mode = \"monitor\" },\n{ name = \"b\", port = 1, \
             proxy_protocol = true },\n{ name = \"c\", listen = [\"[::]:443\", \"0.0.0.0:443\"], upstream = \
             \"https://[2001:db8::1]\", tls.certificates = [{ chain = \"c\", key = \"c\" }] },\n]",
        );
        let lines: Vec<String> = config.apis.iter().map(summary).collect();
        let expected = [
            "API `a`: takes over port 80, 8080 in /run/netns/x; the application sees this host's own address as its client, \
             `Forwarded` tells it the real one; refuses nothing (monitor)",
            "API `b`: takes over port 1; the application sees this host's own address as its client, PROXY protocol and \
             `Forwarded` tell it the real one",
            "API `c`: listens on [::]:443, 0.0.0.0:443 with TLS, and sends requests to https://[2001:db8::1]:443",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn ports_that_nobody_reaches() {
        let apis = "\n[[api]]\nname = \"a\"\nport = [80, 81, 82]\n[[api]]\nname = \"b\"\nport = 1\nnetns = \
                    \"x\"\n[[api]]\nname = \"c\"\nlisten = [\"127.0.0.1:3\", \"0.0.0.0:4\", \"[::]:4\"]\nupstream = \"http://u\"";
        let dmz = |dmz: &str| warnings(&config(&format!("[dmz]\n{dmz}{apis}")));
        let told = "is not in `expose` of [dmz], so nobody outside reaches it but sources of allow lists: add";
        let expected = [format!("API `a`: port 80, 82 {told} \"80/tcp\""), format!("API `c`: port 4 {told} \"4/tcp\"")];
        assert_eq!(dmz("expose = [\"81/tcp\", \"80/udp\"]"), expected);
        for good in
            ["", "expose = [\"4-82/tcp\"]", "expose = []\nmode = \"monitor\"", "expose = []\nexpose_mode = \"monitor\""]
        {
            assert_eq!(dmz(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn ports_behind_which_nothing_listens() {
        let open = |address: &str| std::net::TcpListener::bind(address).unwrap();
        let (everywhere, inside) = (open("0.0.0.0:0"), open("127.0.0.1:0"));
        let [everywhere_port, inside_port] = [&everywhere, &inside].map(|it| it.local_addr().unwrap().port());
        let silent_port = {
            let gone = open("0.0.0.0:0");
            gone.local_addr().unwrap().port()
        };
        let text = format!(
            "api = [\n{{ name = \"a\", port = [{everywhere_port}, {inside_port}, {silent_port}] }},\n{{ name = \"b\", port = \
             {everywhere_port}, netns = \"nowhere\" }},\n{{ name = \"c\", port = {everywhere_port}, netns = \
             \"/dev/null\" }},\n]"
        );
        let expected = [
            format!("API `a`: nothing listens behind port {silent_port} now"),
            format!(
                "API `a`: behind port {inside_port} something listens on a loopback address only, where no request from \
                 outside can go"
            ),
            "API `b`: network namespace /run/netns/nowhere: No such file or directory (os error 2): the API is not \
             protected until it is there"
                .to_owned(),
            "API `c`: network namespace /dev/null: it is not a network namespace: `run` refuses it".to_owned(),
        ];
        assert_eq!(silent(&config(&text)), expected);
    }

    #[test]
    fn certificates_that_cannot_be_served() {
        let text = "[[api]]\nname = \"a\"\nport = 1\ntls.certificates = [{ chain = \"/nowhere/a.pem\", key = \"a\" }]\n\
                    upstream_tls.ca = \"/nowhere/ca.pem\"";
        let cause = "cannot be read: No such file or directory (os error 2): `run` refuses it";
        let expected = ["a.pem", "ca.pem"].map(|file| format!("API `a`: /nowhere/{file} {cause}"));
        assert_eq!(warnings(&config(text)), expected);
    }
}
