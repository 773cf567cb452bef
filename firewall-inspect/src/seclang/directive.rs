//! The directives of a rule file.

use std::sync::Arc;

use super::{
    Fault, Place,
    action::{Action, EngineMode, Phase},
    names::Operator,
    source::{Statement, Word, statements},
    target::Target,
    text::Text,
};

/// Something with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated<T> {
    pub place: Place,
    pub value: T,
}

/// What a rule file says, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    Rule(Rule),
    /// A rule that always matches.
    Action(Vec<Action>),
    /// For one phase.
    DefaultAction(Phase, Vec<Action>),
    Marker(String),
    /// A file, or files by a pattern.
    Include(String),
    RuleEngine(EngineMode),
    RequestBody(Access),
    ResponseBody(Access),
    RequestBodyJsonDepthLimit(u32),
    /// MIME types of responses that are looked at, in lower case.
    ResponseBodyMimeTypes(Vec<String>),
    /// None of those so far.
    ResponseBodyMimeTypesClear,
    ArgumentSeparator(u8),
    ArgumentsLimit(u32),
    RemoveById(Vec<IdRange>),
    RemoveByMsg(String),
    RemoveByTag(String),
    UpdateActionById(IdRange, Vec<Action>),
    UpdateTargetById(Vec<IdRange>, Vec<Target>),
    UpdateTargetByMsg(String, Vec<Target>),
    UpdateTargetByTag(String, Vec<Target>),
    ComponentSignature(String),
    /// A setting of what is done otherwise here, such as logs: known, and without effect.
    WithoutEffect(String),
}

/// A setting of how bodies are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Inspected(bool),
    /// In bytes.
    Limit(u64),
    /// In bytes, without files.
    NoFilesLimit(u64),
    OverLimit(LimitAction),
}

/// What becomes of a body over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    Reject,
    /// What is within the limit is looked at.
    ProcessPartial,
}

/// `SecRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub targets: Vec<Target>,
    pub operator: OperatorUse,
    pub actions: Vec<Action>,
}

/// An operator and what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorUse {
    pub place: Place,
    pub negated: bool,
    pub operator: Operator,
    pub argument: Text,
}

/// Ids from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub first: u32,
    pub last: u32,
}

/// Settings whose subject is done otherwise here.
const WITHOUT_EFFECT: &[&str] = &[
    "SecAuditEngine",
    "SecAuditLog",
    "SecAuditLog2",
    "SecAuditLogDirMode",
    "SecAuditLogFileMode",
    "SecAuditLogFormat",
    "SecAuditLogParts",
    "SecAuditLogRelevantStatus",
    "SecAuditLogStorageDir",
    "SecAuditLogType",
    "SecCollectionTimeout",
    "SecCookieFormat",
    "SecDataDir",
    "SecDebugLog",
    "SecDebugLogLevel",
    "SecPcreMatchLimit",
    "SecPcreMatchLimitRecursion",
    "SecRequestBodyInMemoryLimit",
    "SecSensorId",
    "SecServerSignature",
    "SecStatusEngine",
    "SecTmpDir",
    "SecTmpSaveUploadedFiles",
    "SecUnicodeMapFile",
    "SecUploadDir",
    "SecUploadFileLimit",
    "SecUploadFileMode",
    "SecUploadKeepFiles",
    "SecWebAppId",
];

/// Reads a rule file.
///
/// # Errors
///
/// All that is wrong in it.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Vec<Stated<Directive>>, Vec<Fault>> {
    let (mut directives, mut faults) = (Vec::new(), Vec::new());
    for statement in statements(file, text)? {
        let place = statement.words[0].place(0);
        match directive(&statement) {
            Ok(value) => directives.push(Stated { place, value }),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(directives) } else { Err(faults) }
}

impl From<Fault> for Vec<Fault> {
    fn from(fault: Fault) -> Self {
        vec![fault]
    }
}

fn directive(statement: &Statement) -> Result<Directive, Vec<Fault>> {
    let [name, arguments @ ..] = &statement.words[..] else { return Err(Vec::new()) };
    let fault = |message: String| vec![name.fault(0, message)];
    let count = |least: usize, most: usize| {
        if (least..=most).contains(&arguments.len()) {
            return Ok(());
        }
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(fault(format!("`{}` takes {expected} arguments, and has {}", name.text, arguments.len())))
    };
    let one = || count(1, 1).map(|()| &arguments[0]);
    let two = || count(2, 2).map(|()| (&arguments[0], &arguments[1]));
    let targets = |word: &Word| Target::list(word, 0, &word.text).map_err(Vec::from);
    Ok(match &name.text.to_ascii_lowercase()[..] {
        "secrule" => {
            count(2, 3)?;
            Directive::Rule(rule(&arguments[0], &arguments[1], arguments.get(2))?)
        }
        "secaction" => Directive::Action(Action::list(one()?)?),
        "secdefaultaction" => {
            let word = one()?;
            let actions = Action::list(word)?;
            let phase = actions.iter().find_map(|action| match action {
                Action::Phase(phase) => Some(*phase),
                _ => None,
            });
            Directive::DefaultAction(phase.ok_or_else(|| word.fault(0, "a default action needs a phase"))?, actions)
        }
        "secmarker" => Directive::Marker(one()?.text.clone()),
        "include" => Directive::Include(one()?.text.clone()),
        "secruleengine" => {
            let word = one()?;
            let mode = EngineMode::of_name(&word.text);
            Directive::RuleEngine(mode.ok_or_else(|| word.fault(0, "this must be On, Off or DetectionOnly"))?)
        }
        "secrequestbodyaccess" => Directive::RequestBody(Access::Inspected(switch(one()?)?)),
        "secrequestbodylimit" => Directive::RequestBody(Access::Limit(number(one()?)?)),
        "secrequestbodynofileslimit" => Directive::RequestBody(Access::NoFilesLimit(number(one()?)?)),
        "secrequestbodylimitaction" => Directive::RequestBody(Access::OverLimit(limit_action(one()?)?)),
        "secrequestbodyjsondepthlimit" => Directive::RequestBodyJsonDepthLimit(number(one()?)?),
        "secresponsebodyaccess" => Directive::ResponseBody(Access::Inspected(switch(one()?)?)),
        "secresponsebodylimit" => Directive::ResponseBody(Access::Limit(number(one()?)?)),
        "secresponsebodylimitaction" => Directive::ResponseBody(Access::OverLimit(limit_action(one()?)?)),
        "secresponsebodymimetype" => {
            count(1, usize::MAX)?;
            let types = arguments.iter().flat_map(|word| word.text.split_whitespace()).map(str::to_ascii_lowercase);
            Directive::ResponseBodyMimeTypes(types.collect())
        }
        "secresponsebodymimetypesclear" => {
            count(0, 0)?;
            Directive::ResponseBodyMimeTypesClear
        }
        "secargumentseparator" => {
            let word = one()?;
            match word.text.as_bytes() {
                [separator] if separator.is_ascii() => Directive::ArgumentSeparator(*separator),
                _ => return Err(word.fault(0, "this must be one ASCII character").into()),
            }
        }
        "secargumentslimit" => Directive::ArgumentsLimit(number(one()?)?),
        "secxmlexternalentity" => {
            let word = one()?;
            if switch(word)? {
                return Err(word.fault(0, "external entities are never read").into());
            }
            Directive::WithoutEffect(name.text.clone())
        }
        "secruleremovebyid" => {
            count(1, usize::MAX)?;
            let ranges = arguments.iter().map(|word| IdRange::list(word, (0, &word.text)));
            Directive::RemoveById(ranges.collect::<Result<Vec<_>, _>>()?.concat())
        }
        "secruleremovebymsg" => Directive::RemoveByMsg(one()?.text.clone()),
        "secruleremovebytag" => Directive::RemoveByTag(one()?.text.clone()),
        "secruleupdateactionbyid" => {
            let (which, actions) = two()?;
            Directive::UpdateActionById(IdRange::one(which, (0, &which.text))?, Action::list(actions)?)
        }
        "secruleupdatetargetbyid" => {
            let (which, what) = two()?;
            Directive::UpdateTargetById(IdRange::list(which, (0, &which.text))?, targets(what)?)
        }
        "secruleupdatetargetbymsg" => {
            let (which, what) = two()?;
            Directive::UpdateTargetByMsg(which.text.clone(), targets(what)?)
        }
        "secruleupdatetargetbytag" => {
            let (which, what) = two()?;
            Directive::UpdateTargetByTag(which.text.clone(), targets(what)?)
        }
        "seccomponentsignature" => Directive::ComponentSignature(one()?.text.clone()),
        _ if WITHOUT_EFFECT.iter().any(|known| name.text.eq_ignore_ascii_case(known)) => {
            Directive::WithoutEffect(name.text.clone())
        }
        _ => return Err(fault(format!("there is no directive `{}`, or it is not supported", name.text))),
    })
}

fn rule(targets: &Word, operator: &Word, actions: Option<&Word>) -> Result<Rule, Vec<Fault>> {
    let mut faults = Vec::new();
    let targets = Target::list(targets, 0, &targets.text).map_err(|fault| faults.push(fault)).unwrap_or_default();
    let operator = OperatorUse::parse(operator).map_err(|fault| faults.push(fault)).ok();
    let actions = actions.map_or(Ok(Vec::new()), Action::list);
    let actions = actions.map_err(|found| faults.extend(found)).unwrap_or_default();
    match operator {
        Some(operator) if faults.is_empty() => Ok(Rule { targets, operator, actions }),
        _ => Err(faults),
    }
}

impl OperatorUse {
    fn parse(word: &Word) -> Result<Self, Fault> {
        let text = &word.text[..];
        let negated = text.starts_with('!');
        let behind = usize::from(negated);
        // Without a name, it is an expression.
        let Some(named) = text[behind..].strip_prefix('@') else {
            let argument = Text::literally(&text[behind..]);
            return Ok(Self { place: word.place(behind), negated, operator: Operator::Rx, argument });
        };
        let end = named.find([' ', '\t']).unwrap_or(named.len());
        let (name, argument) = named.split_at(end);
        let Some(operator) = Operator::of_name(name) else {
            return Err(word.fault(behind, format!("there is no operator `@{name}`, or it is not supported")));
        };
        let trimmed = argument.trim_start_matches([' ', '\t']);
        let at = text.len() - trimmed.len();
        let argument = match operator {
            // What looks like a macro there is part of the expression.
            Operator::Rx | Operator::RxGlobal if !trimmed.contains("%{") => Text::literally(trimmed),
            _ => Text::parse(word, at, trimmed)?,
        };
        Ok(Self { place: word.place(at), negated, operator, argument })
    }
}

impl IdRange {
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }

    pub(super) fn one(word: &Word, (at, text): (usize, &str)) -> Result<Self, Fault> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(word.fault(at, format!("`{text}` is no id, and no range of ids"))),
        }
    }

    /// Ids and ranges with commas or white space between them.
    pub(super) fn list(word: &Word, (at, text): (usize, &str)) -> Result<Vec<Self>, Fault> {
        let parts = text.split([',', ' ', '\t']).filter(|part| !part.is_empty());
        let ranges = parts.map(|part| Self::one(word, (at + part.as_ptr().addr() - text.as_ptr().addr(), part)));
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() { Err(word.fault(at, "an id is missing here")) } else { Ok(ranges) }
    }
}

fn switch(word: &Word) -> Result<bool, Fault> {
    match &word.text.to_ascii_lowercase()[..] {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(word.fault(0, "this must be On or Off")),
    }
}

fn number<T: std::str::FromStr>(word: &Word) -> Result<T, Fault> {
    word.text.parse().map_err(|_| word.fault(0, format!("`{}` is no number, or too large", word.text)))
}

fn limit_action(word: &Word) -> Result<LimitAction, Fault> {
    match &word.text.to_ascii_lowercase()[..] {
        "reject" => Ok(LimitAction::Reject),
        "processpartial" => Ok(LimitAction::ProcessPartial),
        _ => Err(word.fault(0, "this must be Reject or ProcessPartial")),
    }
}
