//! The example file: it loads, it names every key, and what is made of its ruins is never worse than an error.

use proptest::prelude::*;

use super::{super::*, config as with_defaults, whole};

const EXAMPLE: &str = include_str!("../../../portcullis.example.toml");

/// With the APIs and all else whose lines begin with `#` and no space.
fn with_apis() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(code) if code.starts_with(|char: char| char == '[' || char.is_ascii_lowercase()) => code,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_loads() {
    let config = whole(EXAMPLE).unwrap_or_else(|errors| panic!("{}", errors.report(false)));
    assert_eq!((config.dmz.lists.len(), config.dmz.rates.len(), config.dmz.size.rules.len()), (2, 2, 2));
    // What it calls defaults is what an absent key gives.
    let bare = with_defaults("");
    assert_eq!(config.dmz.hygiene.reflection_ports, bare.dmz.hygiene.reflection_ports);
    assert_eq!(config.dmz.tables, bare.dmz.tables);
    assert_eq!(format!("{:?}", config.dmz.hygiene), format!("{:?}", bare.dmz.hygiene));
    assert_eq!(config.reputation, bare.reputation);
    assert_eq!(config.gateway, bare.gateway);
    assert_eq!((config.apis, config.files), (vec![], vec![]));
}

#[test]
fn the_example_with_its_apis_loads() {
    let text = with_apis();
    let config = whole(&text).unwrap_or_else(|errors| panic!("{}", errors.report(false)));
    let [orders, shop] = &config.apis[..] else { panic!("{:?}", config.apis) };
    // Again, what it calls defaults.
    let bare = with_defaults("[[api]]\nname = \"orders\"\nport = 8080").apis.remove(0);
    assert_eq!((orders.mode, orders.upstream_http, orders.forward), (bare.mode, bare.upstream_http, bare.forward));
    assert_eq!((orders.limits, orders.timeouts), (bare.limits, bare.timeouts));
    let open = |protocol: &api::Protocol| api::Protocol { hosts: vec![], content_types: vec![], ..protocol.clone() };
    assert_eq!(open(&orders.protocol), bare.protocol);
    let steered = |api: &api::Api| match &api.entry {
        api::Entry::Steered(steered) => api::Steered { netns: None, upstream_tls: None, ..steered.clone() },
        api::Entry::Proxy { .. } => panic!("{api:?}"),
    };
    assert_eq!(steered(orders), steered(&bare));
    assert!(matches!(shop.entry, api::Entry::Proxy { .. }));
    let named: Vec<_> = config.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(named, ["internal-ca.pem", "api.pem", "api.key", "clients.pem", "shop.pem", "shop.key"]);
}

/// Each key that the parser asks for stands in its section of the example, be it commented out.
#[test]
fn the_example_names_every_key() {
    let mut written = std::collections::BTreeSet::new();
    let mut section = String::new();
    let example = with_apis();
    for line in example.lines() {
        let line = line.trim_start_matches("# ").trim();
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned() + ".";
            written.insert(line.trim_matches(['[', ']']).to_owned());
            continue;
        }
        // `key = value`, or `parent = { key = value, key = value }`.
        let mut prefix = section.clone();
        for part in line.split_inclusive(['{', ',', '[', '}']) {
            let Some((key, _)) = part.split_once('=') else { continue };
            let key = key.trim();
            if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                written.insert(format!("{prefix}{key}"));
                if part.ends_with(['{', '[']) {
                    prefix = format!("{prefix}{key}.");
                }
            }
            if line.starts_with('{') {
                prefix = format!("{section}rules.");
                written.insert(format!("{prefix}{key}"));
            }
        }
    }
    let document = DeTable::parse(&example).unwrap();
    let context = raw::Context::new(Source::new("example", &example), false);
    lower::lower(raw::Table::root(document.get_ref(), &context), Path::new(""), vec![], &Overrides::default());
    let known = context.known.borrow();
    assert!(known.len() > 110, "{known:?}");
    let missing: Vec<_> = known.iter().filter(|key| *key != "dmz" && !written.contains(*key)).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}; there: {written:?}");
}

proptest! {
    /// Texts cut out of the example and put in elsewhere: each gives a configuration or a report.
    #[test]
    fn no_text_makes_the_parser_fall_over(
        cut in (0..EXAMPLE.len(), 0usize..200),
        from in (0..EXAMPLE.len(), 0usize..200),
        at in 0..EXAMPLE.len(),
        apis: bool,
        rubbish in "[\\[\\]{}\"'=,.#\n\r\tü\u{0}\u{feff}a1-]{0,6}",
    ) {
        let slice = |text: &str, (start, length): (usize, usize)| {
            text.floor_char_boundary(start)..text.floor_char_boundary(start + length)
        };
        let mut text = if apis { with_apis() } else { EXAMPLE.to_owned() };
        let piece = text[slice(&text, from)].to_owned();
        text.insert_str(text.floor_char_boundary(at), &format!("{rubbish}{piece}"));
        text.replace_range(slice(&text, cut), "");
        if let Err(errors) = whole(&text) {
            let report = errors.report(false);
            prop_assert!(errors.problems().iter().all(|problem| report.contains(&format!(
                "[{}:{}:{}]", problem.file, problem.line, problem.column
            ))), "{}", report);
        }
    }
}
