//! The regression suite's files: what each stage sends, and what it expects.
//!
//! The format is that of go-ftw (github.com/coreruleset/ftw-tests-schema), in the shape of today and in that of CRS 3. As
//! go-ftw does, only files called `.yaml` are read, and those that say `enabled: false` are left out. What a file says that we do
//! not know is an error: an expectation that nobody looks at would pass.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::request::{self, Complete, Message, Request};

/// One request, and what is to become of it.
#[derive(Debug)]
pub(crate) struct Stage {
    /// `942100-3`, and `934120-43/2` where the test has several stages.
    pub(crate) title: String,
    pub(crate) request: Request,
    pub(crate) expected: Expected,
}

impl Stage {
    /// The test that it is of.
    pub(crate) fn test(&self) -> &str {
        self.title.split_once('/').map_or(&self.title, |(test, _)| test)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// One of them; any, if there is none.
    pub(crate) status: Vec<u16>,
    /// No answer at all.
    pub(crate) error: bool,
    pub(crate) ids: Vec<u64>,
    pub(crate) no_ids: Vec<u64>,
    /// No rule but the expected one.
    pub(crate) isolated: bool,
    /// Looked for in what ModSecurity would log.
    pub(crate) log: Option<String>,
    pub(crate) no_log: Option<String>,
    pub(crate) body: Option<String>,
    /// It may fail once.
    pub(crate) retry: bool,
}

/// Reads all files below a folder, in the order of their paths.
pub(crate) fn load(folder: &Path) -> Result<Vec<Stage>> {
    let mut paths = Vec::new();
    find(folder, &mut paths)?;
    paths.sort();
    let mut stages = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        read(&path, &text, &mut stages).with_context(|| path.display().to_string())?;
    }
    ensure!(!stages.is_empty(), "{} holds no stage", folder.display());
    Ok(stages)
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path, text: &str, stages: &mut Vec<Stage>) -> Result<()> {
    // One of the suite's files holds nothing.
    let Some(file) = yaml_serde::from_str::<Option<File>>(text)? else { return Ok(()) };
    if file.meta.enabled == Some(false) {
        return Ok(());
    }
    let rule = file.rule_id.map_or_else(|| digits(path), |id| Ok(id.to_string()))?;
    for (index, test) in file.tests.into_iter().enumerate() {
        let title = match test.test_title {
            Some(title) => title,
            None => format!("{rule}-{}", test.test_id.unwrap_or(index as u64 + 1)),
        };
        let several = test.stages.len() > 1;
        for (number, stage) in test.stages.into_iter().enumerate() {
            let title = if several { format!("{title}/{}", number + 1) } else { title.clone() };
            let (RawStage { input, output }, complete) = match stage {
                AnyStage::Wrapped { stage } => (*stage, Complete::DataLength),
                AnyStage::Plain(stage) => (*stage, Complete::Length),
            };
            let request = input.request(complete).with_context(|| title.clone())?;
            stages.push(Stage { title, request, expected: output.into() });
        }
    }
    Ok(())
}

/// The first number in a file's name.
fn digits(path: &Path) -> Result<String> {
    let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
    let digits: String = name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    if digits.is_empty() {
        bail!("no rule_id, and no number in the name");
    }
    Ok(digits)
}

#[derive(Deserialize)]
struct File {
    meta: Meta,
    rule_id: Option<u64>,
    #[serde(default)]
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Meta {
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct Test {
    test_id: Option<u64>,
    test_title: Option<String>,
    stages: Vec<AnyStage>,
}

/// CRS 3 has one more level than CRS 4.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyStage {
    Wrapped { stage: Box<RawStage> },
    Plain(Box<RawStage>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStage {
    input: Input,
    #[serde(default)]
    output: Output,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// Where to connect: always to the gateway.
    #[serde(rename = "dest_addr")]
    _dest_addr: Option<String>,
    #[serde(rename = "port")]
    _port: Option<u16>,
    #[serde(rename = "protocol")]
    _protocol: Option<String>,
    method: Option<String>,
    uri: Option<String>,
    version: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    data: Option<Data>,
    encoded_request: Option<String>,
    raw_request: Option<String>,
    autocomplete_headers: Option<bool>,
    /// What `autocomplete_headers` was called before, the other way round.
    stop_magic: Option<bool>,
}

impl Input {
    /// `complete`: unless it says otherwise.
    fn request(self, complete: Complete) -> Result<Request> {
        if let Some(encoded) = self.encoded_request {
            ensure!(self.data.is_none(), "`data` beside `encoded_request`");
            return Ok(Request::Raw(request::base64(&encoded)?));
        }
        if let Some(raw) = self.raw_request {
            return Ok(Request::Raw(raw.into_bytes()));
        }
        let data = match self.data {
            Some(Data::Text(text)) => request::expand(&text)?,
            Some(Data::Lines(lines)) => lines.join("\r\n").into_bytes(),
            None => Vec::new(),
        };
        let message = Message {
            method: self.method.unwrap_or_else(|| "GET".into()),
            target: self.uri.unwrap_or_else(|| "/".into()),
            version: self.version.unwrap_or_else(|| "HTTP/1.1".into()),
            fields: self.headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
            body: data,
        };
        let wanted = self.autocomplete_headers.or(self.stop_magic.map(|stop| !stop)).unwrap_or(true);
        Ok(Request::Built(message.finished(if wanted { complete } else { Complete::Nothing })))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Text(String),
    Lines(Vec<String>),
}

/// YAML's idea of what a header's value is does not matter.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Nothing(()),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Nothing(()) => Self::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    #[serde(default)]
    status: Statuses,
    #[serde(default)]
    expect_error: bool,
    #[serde(default)]
    isolated: bool,
    #[serde(default)]
    retry_once: bool,
    response_contains: Option<String>,
    log_contains: Option<String>,
    no_log_contains: Option<String>,
    #[serde(default)]
    log: Log,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Statuses {
    #[default]
    Any,
    One(u16),
    Several(Vec<u16>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default)]
    expect_ids: Vec<u64>,
    #[serde(default)]
    no_expect_ids: Vec<u64>,
    match_regex: Option<String>,
    no_match_regex: Option<String>,
}

impl From<Output> for Expected {
    fn from(output: Output) -> Self {
        let log = output.log;
        Self {
            status: match output.status {
                Statuses::Any => Vec::new(),
                Statuses::One(status) => vec![status],
                Statuses::Several(statuses) => statuses,
            },
            error: output.expect_error,
            ids: log.expect_ids,
            no_ids: log.no_expect_ids,
            isolated: output.isolated,
            log: log.match_regex.or(output.log_contains),
            no_log: log.no_match_regex.or(output.no_log_contains),
            body: output.response_contains,
            retry: output.retry_once,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(text: &str) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        read(Path::new("x/920100.yaml"), text, &mut stages)?;
        Ok(stages)
    }

    #[test]
    fn stages_of_crs_4() {
        let text = r#"---
meta: {author: somebody}
rule_id: 941100
tests:
  - test_id: 7
    desc: one
    stages:
      - input:
          dest_addr: 127.0.0.1
          port: 80
          headers: {User-Agent: a, Host: localhost, Content-Length: 0}
          uri: "/get?x=1"
          version: ""
        output:
          status: 400
          log: {expect_ids: [941100, 2], no_expect_ids: [3], match_regex: "id \"1\""}
  - stages:
      - input: {autocomplete_headers: false, method: POST, data: "a=b c"}
        output: {expect_error: true, retry_once: true}
      - input: {encoded_request: "R0VU\nIC8="}
        output: {isolated: true, log: {expect_ids: [4]}}
"#;
        let stages = stages(text).unwrap();
        let titles: Vec<&str> = stages.iter().map(|stage| &stage.title[..]).collect();
        assert_eq!(titles, ["941100-7", "941100-2/1", "941100-2/2"]);
        assert_eq!(stages[2].test(), "941100-2");
        let first =
            b"GET /get?x=1 \r\nContent-Length: 0\r\nHost: localhost\r\nUser-Agent: a\r\nConnection: close\r\n\r\n";
        assert_eq!(stages[0].request.bytes().escape_ascii().to_string(), first.escape_ascii().to_string());
        let Expected { status, ids, no_ids, log, .. } = &stages[0].expected;
        assert_eq!((&status[..], &ids[..], &no_ids[..]), (&[400][..], &[941_100, 2][..], &[3][..]));
        assert_eq!(log.as_deref(), Some("id \"1\""));
        assert_eq!(stages[1].request.bytes(), b"POST / HTTP/1.1\r\n\r\na=b c");
        assert!(stages[1].expected.error && stages[1].expected.retry);
        assert_eq!(stages[2].request.bytes(), b"GET /");
        assert!(stages[2].expected.isolated);
    }

    #[test]
    fn stages_of_crs_3() {
        let text = r#"
meta: {enabled: true}
tests:
  - test_title: 920100-1
    stages:
      - stage:
          input: {stop_magic: true, data: [a, b], version: HTTP/1.0}
          output: {status: [403, 400], log_contains: 'id "920100"'}
      - stage:
          input: {}
          output: {no_log_contains: 'id "920100"'}
"#;
        let stages = stages(text).unwrap();
        assert_eq!(stages[0].request.bytes(), b"GET / HTTP/1.0\r\n\r\na\r\nb");
        assert_eq!(stages[0].expected.status, [403, 400]);
        assert_eq!(stages[0].expected.log.as_deref(), Some("id \"920100\""));
        assert_eq!(stages[1].expected.no_log.as_deref(), Some("id \"920100\""));
    }

    #[test]
    fn what_is_left_out_and_what_is_not_known() {
        assert!(stages("---\n").unwrap().is_empty());
        assert!(stages("meta: {enabled: false}\ntests: [{stages: [{input: {}, output: {}}]}]").unwrap().is_empty());
        assert_eq!(stages("meta: {}\ntests: [{stages: [{input: {}}]}]").unwrap()[0].title, "920100-1");
        assert!(stages("meta: {}\ntests: [{stages: [{input: {}, output: {log: {expect_it: 1}}}]}]").is_err());
        assert!(stages("meta: {}\ntests: [{stages: [{input: {follow_redirect: true}}]}]").is_err());
    }
}
