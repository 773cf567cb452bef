//! What a rule does: `id:1,phase:2,deny,t:lowercase,setvar:'tx.score=+5'`.

use super::{
    Fault,
    directive::IdRange,
    names::{BodyProcessor, Transformation, Variable},
    source::Word,
    target::{Target, unescaped},
    text::Text,
};

/// An entry of a rule's list of actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Accuracy(u8),
    AuditLog(bool),
    Capture,
    Chain,
    Ctl(Ctl),
    Disrupt(Disruption),
    /// Of a member of a persistent collection, in seconds.
    ExpireVar {
        collection: Variable,
        name: Text,
        after: Text,
    },
    Id(u32),
    /// A persistent collection and its key.
    InitCol {
        collection: Variable,
        key: Text,
    },
    Log(bool),
    LogData(Text),
    Maturity(u8),
    Msg(Text),
    MultiMatch,
    Phase(Phase),
    Rev(String),
    SetEnv {
        name: Text,
        value: Text,
    },
    SetVar(SetVar),
    Severity(Severity),
    /// So many rules.
    Skip(u32),
    SkipAfter(String),
    Status(u16),
    /// `None`: none of those that a default action named.
    Transform(Option<Transformation>),
    Tag(Text),
    Ver(String),
}

/// What becomes of the transaction when a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disruption {
    Allow(AllowScope),
    /// What the default action of the phase says.
    Block,
    Deny,
    Drop,
    Pass,
    Redirect(Text),
}

/// What is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowScope {
    Transaction,
    Phase,
    Request,
}

/// When a rule is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    RequestHeaders = 1,
    RequestBody = 2,
    ResponseHeaders = 3,
    ResponseBody = 4,
    Logging = 5,
}

/// The severities of syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

impl Severity {
    /// As rules and logs name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emergency => "EMERGENCY",
            Self::Alert => "ALERT",
            Self::Critical => "CRITICAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// A change of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetVar {
    /// TX or a persistent collection.
    pub collection: Variable,
    pub name: Text,
    pub value: SetVarValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetVarValue {
    Set(Text),
    Add(Text),
    Subtract(Text),
    Remove,
}

/// A change of the engine's settings for the rest of the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ctl {
    AuditEngine(EngineMode),
    /// Which parts of a log that is not written here.
    AuditLogParts,
    ForceRequestBodyVariable(bool),
    RequestBodyAccess(bool),
    RequestBodyProcessor(BodyProcessor),
    ResponseBodyAccess(bool),
    RuleEngine(EngineMode),
    RuleRemoveById(Vec<IdRange>),
    RuleRemoveByMsg(String),
    RuleRemoveByTag(String),
    RuleRemoveTargetById(IdRange, Vec<Target>),
    RuleRemoveTargetByMsg(String, Vec<Target>),
    RuleRemoveTargetByTag(String, Vec<Target>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineMode {
    On,
    Off,
    DetectionOnly,
}

/// Some text, and its offset in the word.
type Part<'v> = (usize, &'v str);

/// An entry as it stands: a name, and what follows its colon, each with its offset in the word.
struct Entry<'w> {
    word: &'w Word,
    name: Part<'w>,
    value: Option<(usize, String)>,
}

impl Action {
    /// Reads the list that is `word`.
    pub(super) fn list(word: &Word) -> Result<Vec<Self>, Vec<Fault>> {
        let (mut actions, mut faults) = (Vec::new(), Vec::new());
        for entry in entries(word) {
            match entry.and_then(|entry| Self::parse(&entry)) {
                Ok(action) => actions.push(action),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(actions) } else { Err(faults) }
    }

    fn parse(entry: &Entry<'_>) -> Result<Self, Fault> {
        Ok(match &entry.name.1.to_ascii_lowercase()[..] {
            "accuracy" => Self::Accuracy(entry.number(1..=9)? as u8),
            "allow" => Self::Disrupt(Disruption::Allow(match &entry.value {
                None => AllowScope::Transaction,
                Some((_, scope)) if scope.eq_ignore_ascii_case("phase") => AllowScope::Phase,
                Some((_, scope)) if scope.eq_ignore_ascii_case("request") => AllowScope::Request,
                Some(_) => return Err(entry.expects("phase or request")),
            })),
            "auditlog" => entry.bare(Self::AuditLog(true))?,
            "noauditlog" => entry.bare(Self::AuditLog(false))?,
            "block" => entry.bare(Self::Disrupt(Disruption::Block))?,
            "capture" => entry.bare(Self::Capture)?,
            "chain" => entry.bare(Self::Chain)?,
            "ctl" => Self::Ctl(entry.ctl()?),
            "deny" => entry.bare(Self::Disrupt(Disruption::Deny))?,
            "drop" => entry.bare(Self::Disrupt(Disruption::Drop))?,
            "expirevar" => {
                let (name, after) = entry.pair()?;
                let (collection, name) = entry.member(name)?;
                Self::ExpireVar { collection, name, after: entry.text_of(after)? }
            }
            "id" => Self::Id(entry.number(1..=u32::MAX)?),
            "initcol" => {
                let ((at, collection), key) = entry.pair()?;
                let collection = Variable::of_name(collection)
                    .filter(|variable| persists(*variable))
                    .ok_or_else(|| entry.word.fault(at, format!("`{collection}` is no persistent collection")))?;
                Self::InitCol { collection, key: entry.text_of(key)? }
            }
            "log" => entry.bare(Self::Log(true))?,
            "nolog" => entry.bare(Self::Log(false))?,
            "logdata" => Self::LogData(entry.text()?),
            "maturity" => Self::Maturity(entry.number(1..=9)? as u8),
            "msg" => Self::Msg(entry.text()?),
            "multimatch" => entry.bare(Self::MultiMatch)?,
            "pass" => entry.bare(Self::Disrupt(Disruption::Pass))?,
            "phase" => Self::Phase(entry.phase()?),
            "redirect" => Self::Disrupt(Disruption::Redirect(entry.text()?)),
            "rev" => Self::Rev(entry.string()?),
            "setenv" => {
                let (name, value) = entry.pair()?;
                Self::SetEnv { name: entry.text_of(name)?, value: entry.text_of(value)? }
            }
            "setvar" => Self::SetVar(entry.setvar()?),
            "severity" => Self::Severity(entry.severity()?),
            "skip" => Self::Skip(entry.number(1..=u32::MAX)?),
            "skipafter" => Self::SkipAfter(entry.string()?),
            "status" => Self::Status(entry.number(100..=599)? as u16),
            "t" => {
                let name = entry.string()?;
                if name.eq_ignore_ascii_case("none") {
                    Self::Transform(None)
                } else {
                    let known = Transformation::of_name(&name);
                    Self::Transform(Some(
                        known.ok_or_else(|| entry.fault(format!("there is no transformation `{name}`")))?,
                    ))
                }
            }
            "tag" => Self::Tag(entry.text()?),
            "ver" => Self::Ver(entry.string()?),
            _ => {
                let (at, name) = entry.name;
                return Err(entry.word.fault(at, format!("there is no action `{name}`, or it is not supported")));
            }
        })
    }
}

/// Whether a collection outlives a transaction.
pub(super) fn persists(variable: Variable) -> bool {
    matches!(variable, Variable::Global | Variable::Ip | Variable::Resource | Variable::Session | Variable::User)
}

/// The comma-separated entries of a list of actions; values may stand in single quotes.
fn entries(word: &Word) -> impl Iterator<Item = Result<Entry<'_>, Fault>> {
    let text = &word.text[..];
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].len() - text[at..].trim_start_matches([' ', '\t', '\r', ',']).len();
        if at == text.len() {
            return None;
        }
        let (entry, length) = match one(word, at) {
            Ok(found) => found,
            Err(fault) => {
                at = text.len();
                return Some(Err(fault));
            }
        };
        at += length;
        Some(Ok(entry))
    })
}

/// The entry that stands at this offset, and its length.
fn one(word: &Word, at: usize) -> Result<(Entry<'_>, usize), Fault> {
    let text = &word.text[at..];
    let end = text.find([',', ':']).unwrap_or(text.len());
    let name = text[..end].trim_end();
    let entry = |value| Entry { word, name: (at, name), value };
    let Some(value) = text[end..].strip_prefix(':') else { return Ok((entry(None), end)) };
    let blank = value.len() - value.trim_start().len();
    let start = end + 1 + blank;
    let value = &value[blank..];
    let Some(quoted) = value.strip_prefix('\'') else {
        // `ctl:ruleRemoveTargetById=1;ARGS:a` and the like have colons, but no commas.
        let end = quoted_part(value);
        let length = value[..end].trim_end().len();
        return Ok((entry(Some((at + start, value[..length].to_owned()))), start + end));
    };
    let Some(close) = unescaped(quoted, '\'') else {
        return Err(word.fault(at + start, "this ' is not closed"));
    };
    let behind = quoted[close + 1..].trim_start();
    if !(behind.is_empty() || behind.starts_with(',')) {
        return Err(word.fault(at + start + close + 2, "`,` is expected behind this '"));
    }
    Ok((entry(Some((at + start + 1, quoted[..close].replace("\\'", "'")))), start + close + 2))
}

/// How long a value is that does not begin with a quote: to the next comma that stands in none.
fn quoted_part(value: &str) -> usize {
    let mut inside = false;
    let mut escaped = false;
    value
        .char_indices()
        .find(|(_, next)| {
            if *next == '\'' && !escaped {
                inside = !inside;
            }
            escaped = *next == '\\' && !escaped;
            *next == ',' && !inside
        })
        .map_or(value.len(), |(at, _)| at)
}

impl Entry<'_> {
    fn at(&self) -> usize {
        self.value.as_ref().map_or(self.name.0, |(at, _)| *at)
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        self.word.fault(self.at(), message)
    }

    fn expects(&self, what: &str) -> Fault {
        self.fault(format!("`{}` expects {what}", self.name.1))
    }

    fn bare(&self, action: Action) -> Result<Action, Fault> {
        if self.value.is_some() { Err(self.fault(format!("`{}` takes no value", self.name.1))) } else { Ok(action) }
    }

    fn str(&self) -> Result<&str, Fault> {
        match &self.value {
            Some((_, value)) if !value.is_empty() => Ok(value),
            _ => Err(self.expects("a value")),
        }
    }

    fn string(&self) -> Result<String, Fault> {
        Ok(self.str()?.to_owned())
    }

    fn text(&self) -> Result<Text, Fault> {
        Text::parse(self.word, self.at(), self.str()?)
    }

    fn text_of(&self, (at, text): Part<'_>) -> Result<Text, Fault> {
        Text::parse(self.word, at, text)
    }

    fn number(&self, range: std::ops::RangeInclusive<u32>) -> Result<u32, Fault> {
        let number = self.str()?.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| self.expects(&format!("a number from {} to {}", range.start(), range.end())))
    }

    fn switch(&self, (at, value): Part<'_>) -> Result<bool, Fault> {
        match &value.to_ascii_lowercase()[..] {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.word.fault(at, "this must be On or Off")),
        }
    }

    /// The two sides of `=`.
    fn pair(&self) -> Result<(Part<'_>, Part<'_>), Fault> {
        let (name, value) = self.str()?.split_once('=').ok_or_else(|| self.expects("NAME=VALUE"))?;
        Ok(((self.at(), name), (self.at() + name.len() + 1, value)))
    }

    /// `tx.name` or the like.
    fn member(&self, (at, text): Part<'_>) -> Result<(Variable, Text), Fault> {
        let Some((collection, name)) = text.split_once('.') else {
            return Err(self.word.fault(at, format!("`{}` expects COLLECTION.NAME", self.name.1)));
        };
        let known = Variable::of_name(collection).filter(|known| *known == Variable::Tx || persists(*known));
        let known = known.ok_or_else(|| self.word.fault(at, format!("nothing can be set in `{collection}`")))?;
        Ok((known, self.text_of((at + collection.len() + 1, name))?))
    }

    fn setvar(&self) -> Result<SetVar, Fault> {
        let (at, text) = (self.at(), self.str()?);
        if let Some(name) = text.strip_prefix('!') {
            let (collection, name) = self.member((at + 1, name))?;
            return Ok(SetVar { collection, name, value: SetVarValue::Remove });
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, (at + name.len() + 1, value)),
            // As in ModSecurity: it is set.
            None => (text, (at, "1")),
        };
        let (collection, name) = self.member((at, name))?;
        let behind = |(at, value): Part<'_>| self.text_of((at + 1, &value[1..]));
        let value = match value.1.as_bytes().first() {
            Some(b'+') => SetVarValue::Add(behind(value)?),
            Some(b'-') => SetVarValue::Subtract(behind(value)?),
            _ => SetVarValue::Set(self.text_of(value)?),
        };
        Ok(SetVar { collection, name, value })
    }

    fn phase(&self) -> Result<Phase, Fault> {
        Ok(match &self.str()?.to_ascii_lowercase()[..] {
            "1" => Phase::RequestHeaders,
            "2" | "request" => Phase::RequestBody,
            "3" => Phase::ResponseHeaders,
            "4" | "response" => Phase::ResponseBody,
            "5" | "logging" => Phase::Logging,
            _ => return Err(self.expects("1 to 5, request, response or logging")),
        })
    }

    fn severity(&self) -> Result<Severity, Fault> {
        Ok(match &self.str()?.to_ascii_uppercase()[..] {
            "0" | "EMERGENCY" => Severity::Emergency,
            "1" | "ALERT" => Severity::Alert,
            "2" | "CRITICAL" => Severity::Critical,
            "3" | "ERROR" => Severity::Error,
            "4" | "WARNING" => Severity::Warning,
            "5" | "NOTICE" => Severity::Notice,
            "6" | "INFO" => Severity::Info,
            "7" | "DEBUG" => Severity::Debug,
            _ => return Err(self.expects("a severity of syslog, or 0 to 7")),
        })
    }

    fn engine_mode(&self, (at, value): Part<'_>) -> Result<EngineMode, Fault> {
        EngineMode::of_name(value).ok_or_else(|| self.word.fault(at, "this must be On, Off or DetectionOnly"))
    }

    /// What stands before the semicolon, and the targets behind it.
    fn targets<'v>(&self, (at, value): Part<'v>) -> Result<(Part<'v>, Vec<Target>), Fault> {
        let Some((which, targets)) = value.split_once(';') else {
            return Err(self.word.fault(at, "`;` and a target are missing here"));
        };
        Ok(((at, which), Target::list(self.word, at + which.len() + 1, targets)?))
    }

    fn ctl(&self) -> Result<Ctl, Fault> {
        let ((at, name), value) = self.pair()?;
        let ids = |value| IdRange::list(self.word, value);
        Ok(match &name.to_ascii_lowercase()[..] {
            "auditengine" => match value.1.to_ascii_lowercase().as_str() {
                "relevantonly" => Ctl::AuditEngine(EngineMode::DetectionOnly),
                _ => Ctl::AuditEngine(self.engine_mode(value)?),
            },
            "auditlogparts" => Ctl::AuditLogParts,
            "forcerequestbodyvariable" => Ctl::ForceRequestBodyVariable(self.switch(value)?),
            "requestbodyaccess" => Ctl::RequestBodyAccess(self.switch(value)?),
            "requestbodyprocessor" => {
                let known = BodyProcessor::of_name(value.1);
                let fault = || self.word.fault(value.0, format!("there is no body processor `{}`", value.1));
                Ctl::RequestBodyProcessor(known.ok_or_else(fault)?)
            }
            "responsebodyaccess" => Ctl::ResponseBodyAccess(self.switch(value)?),
            "ruleengine" => Ctl::RuleEngine(self.engine_mode(value)?),
            "ruleremovebyid" => Ctl::RuleRemoveById(ids(value)?),
            "ruleremovebymsg" => Ctl::RuleRemoveByMsg(value.1.to_owned()),
            "ruleremovebytag" => Ctl::RuleRemoveByTag(value.1.to_owned()),
            "ruleremovetargetbyid" => {
                let (which, targets) = self.targets(value)?;
                Ctl::RuleRemoveTargetById(IdRange::one(self.word, which)?, targets)
            }
            "ruleremovetargetbymsg" => {
                let (which, targets) = self.targets(value)?;
                Ctl::RuleRemoveTargetByMsg(which.1.to_owned(), targets)
            }
            "ruleremovetargetbytag" => {
                let (which, targets) = self.targets(value)?;
                Ctl::RuleRemoveTargetByTag(which.1.to_owned(), targets)
            }
            _ => return Err(self.word.fault(at, format!("ctl has no `{name}`, or it is not supported"))),
        })
    }
}

impl EngineMode {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        [("on", Self::On), ("off", Self::Off), ("detectiononly", Self::DetectionOnly)]
            .into_iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map(|(_, mode)| mode)
    }
}
