//! `[[dmz.list]]`: prefixes from the configuration itself and from list files.
//!
//! In: the tables and the folder that relative paths start from. Out: [`List`]s without duplicates. A list file has one
//! prefix a line, `#` comments (after a prefix, too) and blank lines; CRLF and a byte order mark are tolerated.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    List, ListAction, MODES, Mode,
    lower::{Names, folder_path},
    prefix::{self, Family},
    prefix_key,
    raw::{Context, Table, Value},
    read,
    report::{Problem, Source, quoted},
};

/// Lists there can be: together with rates and size rules they share one table of counters, and a reload may need the
/// counters of the old and the new ones at once.
const MAX_LISTS: usize = 256;
/// Largest list file, in bytes: some ten million prefixes.
const MAX_FILE: u64 = 256 << 20;
/// Problems of one list file that are shown; the others are counted.
const SHOWN: usize = 20;

/// Reads all lists; the paths of list files go to `files`.
pub(super) fn lower(dmz: &Table<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Vec<List> {
    let mut names = Names::new("list");
    let mut lists = Vec::new();
    for (index, table) in dmz.tables("list").into_iter().enumerate() {
        if index == MAX_LISTS {
            table.problem(format!("more than {MAX_LISTS} lists"), "merge lists of the same action".to_owned());
        }
        lists.extend(list(table, folder, files, &mut names));
    }
    lists
}

fn list(table: Table<'_>, folder: &Path, files: &mut Vec<PathBuf>, names: &mut Names) -> Option<List> {
    let name = names.take(&table);
    let action = table
        .require("action", "`action = \"allow\"` or `action = \"block\"`")
        .and_then(|value| value.choice(&[("allow", ListAction::Allow), ("block", ListAction::Block)]));
    let mode_value = table.get("mode");
    let mode = mode_value.as_ref().and_then(|value| value.choice(MODES)).unwrap_or(Mode::Enforce);
    if let (Some(value), Mode::Monitor, Some(ListAction::Allow)) = (&mode_value, mode, action) {
        let help = "only a block list can monitor; leave `mode` out".to_owned();
        value.problem("an allow list cannot monitor: it drops nothing", help);
    }
    let family = table.get("family").and_then(|value| value.choice(&[("ipv4", Family::V4), ("ipv6", Family::V6)]));
    let (inline, file) = (table.get("prefixes"), table.get("file"));
    if inline.is_none() && file.is_none() && !table.context.broken {
        let help = "give `prefixes = [\"198.51.100.0/24\"]`, `file = \"lists/drop.txt\"`, or both".to_owned();
        table.problem("the list has neither `prefixes` nor `file`", help);
    }
    let mut prefixes = inline.map_or_else(Vec::new, |value| inline_prefixes(value, family, action));
    if let Some(value) = file {
        prefixes.extend(file_prefixes(&value, table.context, folder, family, action, files));
    }
    table.finish();
    Some(List { name: name?, action: action?, mode, prefixes: without_duplicates(prefixes).into() })
}

/// Here a prefix that is given twice is a problem, since someone wrote it twice.
fn inline_prefixes(value: Value<'_>, family: Option<Family>, action: Option<ListAction>) -> Vec<IpNet> {
    let mut seen = HashMap::new();
    let mut prefixes = Vec::new();
    for item in value.items().unwrap_or_default() {
        let parse = |text: &str| prefix::parse(text, family).map_err(|fault| fault.explain(text, action));
        let Some(prefix) = item.parsed(parse) else { continue };
        if let Some(earlier) = seen.get(&prefix) {
            let earlier: std::ops::Range<usize> = std::ops::Range::clone(earlier);
            item.clash(format!("`{prefix}` is twice in this list"), earlier, "here already", "remove one of the two");
            continue;
        }
        seen.insert(prefix, item.span.clone());
        prefixes.push(prefix);
    }
    prefixes
}

fn file_prefixes(
    value: &Value<'_>,
    context: &Context,
    folder: &Path,
    family: Option<Family>,
    action: Option<ListAction>,
    files: &mut Vec<PathBuf>,
) -> Vec<IpNet> {
    let Some(path) = folder_path(value, folder) else { return Vec::new() };
    files.push(std::path::absolute(&path).unwrap_or_else(|_| path.clone()));
    let shown = path.display().to_string();
    let text = read(&path, MAX_FILE).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line} is not UTF-8")
        })
    });
    match text {
        Ok(text) => {
            let parsed = parse_file(&shown, &text, family, action);
            parsed.problems.into_iter().for_each(|problem| context.push(|| problem));
            parsed.prefixes
        }
        Err(cause) => {
            let help = "the path starts at the folder of the configuration file".to_owned();
            let help = Path::new(value.text().unwrap_or_default()).is_relative().then_some(help);
            value.problem(format!("cannot read the list file {}: {cause}", quoted(&shown)), help);
            Vec::new()
        }
    }
}

struct Parsed {
    prefixes: Vec<IpNet>,
    problems: Vec<Problem>,
}

fn parse_file(name: &str, text: &str, family: Option<Family>, action: Option<ListAction>) -> Parsed {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut prefixes = Vec::new();
    let mut problems = Vec::new();
    // The first problem that is not shown, and how many there are.
    let mut rest: Option<(Problem, usize)> = None;
    let mut offset = 0;
    for (index, line) in text.split('\n').enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let word = content.trim_ascii();
        if !word.is_empty() {
            match prefix::parse(word, family) {
                Ok(prefix) => prefixes.push(prefix),
                Err(_) if rest.is_some() => rest.iter_mut().for_each(|(_, count)| *count += 1),
                Err(fault) => {
                    let start = offset + content.len() - content.trim_ascii_start().len();
                    let (source, span) = Source::around(name, text, start..start + word.len(), index + 1);
                    if problems.len() < SHOWN {
                        problems.push(Problem::from_invalid(&source, span, fault.explain(word, action)));
                    } else {
                        rest = Some((Problem::new(&source, span, ""), 1));
                    }
                }
            }
        }
        offset += line.len() + 1;
    }
    problems.extend(rest.map(|(first, count)| first.rest("wrong lines", count)));
    Parsed { prefixes, problems }
}

/// Keeps the first of each, in order.
fn without_duplicates(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    // Sorting beats hashing here: lists mostly come sorted already. As plain numbers it is quick even where not.
    let mut ordered: Vec<((u64, u64, u8), usize)> = prefixes
        .iter()
        .enumerate()
        .map(|(index, prefix)| {
            let (address, length) = prefix_key(prefix);
            let (high, low) = address.halves();
            ((high, low, length), index)
        })
        .collect();
    ordered.sort_unstable();
    let mut keep = vec![true; prefixes.len()];
    for pair in ordered.windows(2) {
        if pair[0].0 == pair[1].0 {
            keep[pair[1].1] = false;
        }
    }
    let mut keep = keep.into_iter();
    prefixes.retain(|_| keep.next() == Some(true));
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_block(text: &str) -> Parsed {
        parse_file("list.txt", text, None, Some(ListAction::Block))
    }

    #[test]
    fn what_a_file_may_hold() {
        let text = "\u{feff}# head\r\n\r\n10.0.0.0/8\r\n  2001:db8::/32\t# documentation\n\n192.0.2.7#host\n#\n \n198.51.100.0/24";
        let parsed = parse_block(text);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let prefixes: Vec<String> = parsed.prefixes.iter().map(IpNet::to_string).collect();
        assert_eq!(prefixes, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32", "198.51.100.0/24"]);
        assert!(parse_block("").prefixes.is_empty());
    }

    #[test]
    fn a_problem_names_its_place() {
        for (text, line, column, message) in [
            ("10.0.0.1/8", 1, 1, "`10.0.0.1/8` has bits set behind its length"),
            ("10.0.0.0/8\r\n\t bad # comment\r\n", 2, 3, "`bad` is no prefix"),
            ("\u{feff}x\n", 1, 1, "`x` is no prefix"),
            ("# ü\n\n\nüx\n10.0.0.0/8", 4, 1, "`üx` is no prefix"),
            ("10.0.0.0/8 192.0.2.0/24\n", 1, 1, "`10.0.0.0/8 192.0.2.0/24` has a wrong prefix length"),
        ] {
            let parsed = parse_block(text);
            let [problem] = &parsed.problems[..] else { panic!("{text:?}: {:?}", parsed.problems) };
            assert_eq!((problem.line, problem.column, &*problem.message), (line, column, message), "{text:?}");
            let report = super::super::report::Errors::new(parsed.problems, vec![]).report(false);
            assert!(report.contains(&format!("[list.txt:{line}:{column}]")), "{report}");
        }
    }

    #[test]
    fn many_problems_are_counted() {
        let parsed = parse_block(&"bad\n".repeat(1000));
        assert_eq!(parsed.problems.len(), 21);
        assert_eq!(parsed.problems[19].line, 20);
        assert_eq!(
            (parsed.problems[20].line, &*parsed.problems[20].message),
            (21, "980 more wrong lines, of which this is the first")
        );
        assert_eq!(super::super::report::Errors::new(parsed.problems, vec![]).len(), 1000);
        assert_eq!(parse_block(&"bad\n".repeat(20)).problems.len(), 20);
    }

    #[test]
    fn a_bad_line_among_very_many() {
        let mut text = String::new();
        for index in 0..1_000_000u32 {
            if index == 500_000 {
                text.push_str("10.0.0.1/8\n");
            } else {
                text.push_str(&format!("{}\n", std::net::Ipv4Addr::from(index << 8)));
            }
        }
        let parsed = parse_block(&text);
        assert_eq!(parsed.prefixes.len(), 999_999);
        assert_eq!(parsed.problems.len(), 1);
        assert_eq!((parsed.problems[0].line, parsed.problems[0].column), (500_001, 1));
    }

    #[test]
    fn binary_rubbish_is_shown_in_bounds() {
        let line = "\u{0}\u{1b}[2Jü".repeat(100_000);
        let parsed = parse_block(&format!("{line}\n{line}\n10.0.0.0/8\n{line}"));
        assert_eq!(parsed.problems.len(), 3);
        let report = super::super::report::Errors::new(parsed.problems, vec![]).report(false);
        assert!(report.len() < 5000 && !report.contains('\u{1b}') && !report.contains('\u{0}'), "{report}");
    }

    #[test]
    fn duplicates_go_and_order_stays() {
        let prefixes =
            ["10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "9.0.0.0/8"].map(|text| text.parse().unwrap());
        let kept: Vec<String> = without_duplicates(prefixes.to_vec()).iter().map(IpNet::to_string).collect();
        assert_eq!(kept, ["10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/16"]);
    }
}
