//! Stages of which something else is expected than the suite says, each with its reason: `tests/crs/overrides-*.toml`.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::suite::{Expected, Stage};

const OF_4_28: &str = include_str!("../../../crs/overrides-4.28.toml");
const OF_3_3: &str = include_str!("../../../crs/overrides-3.3.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    stage: Vec<Override>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    title: String,
    #[serde(rename = "reason")]
    _reason: String,
    /// The peer whose overrides have it, too.
    #[serde(rename = "peer")]
    _peer: Option<String>,
    #[serde(default)]
    status: Vec<u16>,
    #[serde(default)]
    expect_ids: Vec<u64>,
    #[serde(default)]
    no_expect_ids: Vec<u64>,
}

/// The titles of stages that expect something else now. `version` of the rules, as `4.28.0`.
pub(crate) fn apply(version: &str, stages: &mut [Stage]) -> Result<Vec<String>> {
    let text = match version.split('.').take(2).collect::<Vec<_>>()[..] {
        ["4", "28"] => OF_4_28,
        ["3", "3"] => OF_3_3,
        _ => return Ok(Vec::new()),
    };
    let file: File = toml::from_str(text)?;
    let mut titles = Vec::new();
    for entry in file.stage {
        if entry.status.is_empty() && entry.expect_ids.is_empty() && entry.no_expect_ids.is_empty() {
            bail!("the override of {} expects nothing", entry.title);
        }
        // Not every variant has every stage.
        let Some(stage) = stages.iter_mut().find(|stage| stage.title == entry.title) else { continue };
        stage.expected = Expected {
            status: entry.status,
            ids: entry.expect_ids,
            no_ids: entry.no_expect_ids,
            ..Expected::default()
        };
        titles.push(entry.title);
    }
    Ok(titles)
}

/// The version that rules say they are of, as `4.28.0`.
pub(crate) fn version(rules: &std::path::Path) -> Result<String> {
    let path = rules.join("REQUEST-901-INITIALIZATION.conf");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("SecComponentSignature \"OWASP_CRS/"));
    Ok(line.and_then(|line| line.strip_suffix('"')).context("the rules do not tell their version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    #[test]
    fn overrides_replace_the_whole_expectation() {
        let expected = Expected { ids: vec![1], error: true, ..Expected::default() };
        let stage =
            |title: &str| Stage { title: title.into(), request: Request::Raw(Vec::new()), expected: expected.clone() };
        let mut stages = [stage("920181-1"), stage("920181-2")];
        assert_eq!(apply("4.28.0", &mut stages).unwrap(), ["920181-1"]);
        assert_eq!(stages[0].expected, Expected { status: vec![400], ..Expected::default() });
        assert_eq!(stages[1].expected, expected);
        assert!(apply("4.27.0", &mut stages).unwrap().is_empty());
        apply("3.3.4", &mut stages).unwrap();
    }

    #[test]
    fn there_are_few() {
        let file: File = toml::from_str(OF_4_28).unwrap();
        assert!(file.stage.len() <= 6);
    }
}
