//! `[[api.exclude]]`: rules that are not to be applied, or not to some variables, everywhere or at some paths. For people who
//! do not want to write SecLang; what they say becomes SecLang, ahead of all rule files.

use std::fmt::Write as _;

use firewall_inspect::seclang;

use crate::config::{
    raw::{Table, Value},
    report::{Invalid, quoted},
};

/// Ids of the rules that are made here. No registered range of ids is near.
const FIRST_ID: u32 = 4_000_000_000;

/// What the exclusions say, as the text of a rule file; empty without any.
pub(super) fn lower(api: &Table<'_>) -> String {
    let mut text = String::new();
    for (index, table) in api.tables("exclude").into_iter().enumerate() {
        let id = FIRST_ID + index as u32;
        text.extend(exclusion(table, id));
    }
    text
}

fn exclusion(table: Table<'_>, id: u32) -> Option<String> {
    let path = match table.get("path") {
        None => Some(None),
        Some(value) => value.parsed(path).map(Some),
    };
    let words = |key, parse: fn(&Value<'_>) -> Option<String>| {
        let items = table.get(key).map(Value::one_or_more).unwrap_or_default();
        items.iter().map(parse).collect::<Option<Vec<String>>>()
    };
    let ids = words("rules", ids);
    let tags = words("tags", |value| value.parsed(tag));
    let targets = words("targets", |value| value.parsed(target));
    let (ids, tags, targets) = (ids?, tags?, targets?);
    if ids.is_empty() && tags.is_empty() && !table.context.broken {
        let help = "`rules = [942100, \"941000-941999\"]`, `tags = [\"attack-sqli\"]`, or both".to_owned();
        table.problem("the exclusion does not say which rules", help);
    }
    table.finish();
    let condition = match path? {
        None => "SecAction".to_owned(),
        Some(Path { text, below: false }) => format!("SecRule REQUEST_FILENAME \"@streq {text}\""),
        Some(Path { text, below: true }) => format!("SecRule REQUEST_FILENAME \"@beginsWith {text}\""),
    };
    let mut rule = format!("{condition} \"id:{id},phase:1,pass,nolog,t:none,t:normalizePath");
    let mut ctl = |what: &str, which: &str| {
        // A string takes every write.
        let _ = match &targets[..] {
            [] => write!(rule, ",ctl:ruleRemoveBy{what}={which}"),
            targets => {
                targets.iter().try_for_each(|target| write!(rule, ",ctl:ruleRemoveTargetBy{what}={which};{target}"))
            }
        };
    };
    ids.iter().for_each(|ids| ctl("Id", ids));
    tags.iter().for_each(|tag| ctl("Tag", tag));
    rule.push_str("\"\n");
    Some(rule)
}

struct Path {
    text: String,
    /// And all that begins with it.
    below: bool,
}

/// What goes into SecLang as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b',' | b'{' | b'}'))
}

fn path(text: &str) -> Result<Path, Invalid> {
    let (start, below) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
    let wrong = || Invalid::new(format!("{} is no path", quoted(text)));
    if !start.starts_with('/') || (below && !start.ends_with('/')) || start.contains('*') {
        return Err(wrong().help("a path such as `/search`, or `/files/*` for all that is below one"));
    }
    if !is_plain(start) || start.contains(['?', '#', '%']) || start.split('/').any(|step| matches!(step, "." | "..")) {
        return Err(wrong().help("as it is in normal form, without a query and without percent signs"));
    }
    Ok(Path { text: start.to_owned(), below })
}

/// An id, or `first-last`.
fn ids(value: &Value<'_>) -> Option<String> {
    if value.is_integer() {
        return value.integer(1..=i64::from(u32::MAX)).map(|id| id.to_string());
    }
    value.parsed(|text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(format!("{first}-{last}")),
            _ => Err(Invalid::new(format!("{} is no id of a rule", quoted(text))).help("`942100`, or `942000-942999`")),
        }
    })
}

fn tag(text: &str) -> Result<String, Invalid> {
    if text.is_empty() || !is_plain(text) || text.contains(';') {
        return Err(Invalid::new(format!("{} cannot be a tag", quoted(text))).help("such as `attack-sqli`, as a whole"));
    }
    Ok(text.to_owned())
}

/// A variable, as SecLang names it.
fn target(text: &str) -> Result<String, Invalid> {
    let wrong = |message: String| {
        Invalid::new(message).help("such as `ARGS:comment`, `REQUEST_COOKIES:/^prefs_/` or `REQUEST_BODY`")
    };
    if text.is_empty() || text.contains(['"', '\'', '\\', ',', '|', ' ', ';']) {
        return Err(wrong(format!("{} is no variable", quoted(text))));
    }
    match seclang::parse(&"exclude".into(), &format!("SecRuleUpdateTargetById 1 \"{text}\"")) {
        Ok(_) => Ok(text.to_owned()),
        Err(faults) => Err(wrong(faults.into_iter().next().map_or_else(String::new, |fault| fault.message))),
    }
}
