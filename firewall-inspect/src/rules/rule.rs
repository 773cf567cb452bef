//! A rule, compiled.

use regex_automata::meta::Regex;

use super::bits::Bits;
use crate::{
    operator::Matcher,
    pattern::{self, PatternError},
    seclang::{BodyProcessor, EngineMode, Operator, Phase, Place, Severity, Transformation, Variable},
};

/// A rule with all links of its chain.
#[derive(Debug)]
pub(crate) struct Rule {
    /// 0: it has none.
    pub(crate) id: u32,
    pub(crate) phase: Phase,
    /// Where it begins.
    pub(crate) place: Place,
    /// Never empty.
    pub(crate) links: Vec<Link>,
    pub(crate) disruption: Disruption,
    /// Where to go on after a match.
    pub(crate) jump: Option<usize>,
    pub(crate) log: bool,
    pub(crate) severity: Option<Severity>,
    pub(crate) message: Option<Text>,
    pub(crate) data: Option<Text>,
    pub(crate) tags: Vec<Text>,
    pub(crate) rev: String,
    pub(crate) version: String,
}

/// What becomes of the transaction when a rule matches.
#[derive(Clone, Debug)]
pub(crate) enum Disruption {
    Pass,
    AllowPhase,
    AllowRequest,
    AllowAll,
    Deny(u16),
    Drop,
    Redirect(u16, Text),
}

/// One rule of a chain.
#[derive(Debug)]
pub(crate) struct Link {
    /// Empty: it matches always, and nothing in particular.
    pub(crate) targets: Vec<Target>,
    pub(crate) exclusions: Vec<Target>,
    pub(crate) transformations: Vec<Transformation>,
    pub(crate) multi_match: bool,
    pub(crate) operator: Operator,
    pub(crate) matcher: Matcher,
    /// The number of its expression, if that is what it is; the next one is that of what is sure of it, if there is that.
    pub(crate) pattern: usize,
    /// The operator's argument, where it has macros.
    pub(crate) argument: Option<Text>,
    pub(crate) negated: bool,
    pub(crate) capture: Capture,
    /// For each match.
    pub(crate) sets: Vec<SetVar>,
    /// Once all of the chain has matched.
    pub(crate) effects: Vec<Effect>,
}

/// What of a match goes to TX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    Nothing,
    /// All of it: nobody reads the groups.
    Whole,
    Groups,
}

#[derive(Debug)]
pub(crate) struct Target {
    /// As the rule names it.
    pub(crate) variable: Variable,
    /// Where its values are kept; none for what is put together when it is asked for.
    pub(crate) sources: Sources,
    pub(crate) select: Select,
    pub(crate) count: bool,
}

#[derive(Debug)]
pub(crate) enum Select {
    All,
    /// In lower case.
    Name(Box<[u8]>),
    /// Of TX.
    Tx(u32),
    Expression(Box<NameExpression>),
}

/// An expression for the names of members, in any case.
#[derive(Debug)]
pub(crate) struct NameExpression {
    shape: Shape,
    /// Names of TX that it means, of those that the rule set has.
    pub(crate) tx: Box<[u32]>,
}

/// What most expressions for names come to.
#[derive(Debug)]
enum Shape {
    Begins(Box<[u8]>),
    Contains(Box<[u8]>),
    Other(Regex),
}

impl NameExpression {
    pub(crate) fn compile(expression: &str) -> Result<Self, PatternError> {
        let anchored = expression.strip_prefix('^');
        let text = anchored.unwrap_or(expression);
        let shape = if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            Shape::Other(pattern::compile(&format!("(?i){expression}"))?)
        } else if anchored.is_some() {
            Shape::Begins(text.as_bytes().into())
        } else {
            Shape::Contains(text.as_bytes().into())
        };
        Ok(Self { shape, tx: Box::default() })
    }

    pub(crate) fn is_match(&self, name: &[u8]) -> bool {
        match &self.shape {
            Shape::Begins(text) => name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text)),
            Shape::Contains(text) => name.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text)),
            Shape::Other(regex) => regex.is_match(name),
        }
    }
}

/// A kind of values that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(u8);

/// No more than two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources([Option<Source>; 2]);

impl Source {
    pub(crate) const COUNT: usize = Variable::ALL.len() + 1;
    pub(crate) const XML_ATTRIBUTES: Self = Self(Variable::ALL.len() as u8);

    /// For a variable that is kept as it is named; of XML, the text.
    pub(crate) const fn of(variable: Variable) -> Self {
        Self(variable as u8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Sources {
    pub(crate) const NONE: Self = Self([None, None]);
    pub(crate) const ATTRIBUTES: Self = Self([Some(Source::XML_ATTRIBUTES), None]);

    pub(crate) fn of(variable: Variable) -> Self {
        let both = |one, other| Self([Some(Source::of(one)), Some(Source::of(other))]);
        match variable {
            Variable::Args => both(Variable::ArgsGet, Variable::ArgsPost),
            Variable::ArgsNames => both(Variable::ArgsGetNames, Variable::ArgsPostNames),
            Variable::ArgsCombinedSize
            | Variable::Duration
            | Variable::Env
            | Variable::FullRequest
            | Variable::FullRequestLength
            | Variable::Geo
            | Variable::Global
            | Variable::HighestSeverity
            | Variable::Ip
            | Variable::MatchedVar
            | Variable::MatchedVarName
            | Variable::MatchedVars
            | Variable::MatchedVarsNames
            | Variable::RemoteAddr
            | Variable::RemoteHost
            | Variable::RemotePort
            | Variable::ReqbodyProcessor
            | Variable::Resource
            | Variable::Rule
            | Variable::ServerAddr
            | Variable::ServerPort
            | Variable::Session
            | Variable::Time
            | Variable::TimeDay
            | Variable::TimeEpoch
            | Variable::TimeHour
            | Variable::TimeMin
            | Variable::TimeMon
            | Variable::TimeSec
            | Variable::TimeWday
            | Variable::TimeYear
            | Variable::Tx
            | Variable::UniqueId
            | Variable::User => Self::NONE,
            _ => Self([Some(Source::of(variable)), None]),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Source> {
        self.0.into_iter().flatten()
    }

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Text with macros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text(pub(crate) Vec<Piece>);

#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Literal(Box<[u8]>),
    Tx(u32),
    Variable(Variable, Option<Box<[u8]>>),
}

#[derive(Debug)]
pub(crate) struct SetVar {
    pub(crate) name: MemberName,
    pub(crate) value: SetVarValue,
}

/// A member of TX, or of a collection that persists.
#[derive(Debug)]
pub(crate) enum MemberName {
    Tx(u32),
    Dynamic(Variable, Text),
}

#[derive(Debug)]
pub(crate) enum SetVarValue {
    Number(i64),
    Set(Text),
    Add(Amount),
    Subtract(Amount),
    Remove,
}

#[derive(Debug)]
pub(crate) enum Amount {
    Number(i64),
    Text(Text),
}

#[derive(Debug)]
pub(crate) enum Effect {
    ForceRequestBodyVariable(bool),
    RequestBodyAccess(bool),
    RequestBodyProcessor(BodyProcessor),
    ResponseBodyAccess(bool),
    RuleEngine(EngineMode),
    RemoveRules(Bits),
    RemoveTargets(Bits, std::sync::Arc<[Target]>),
    SetEnv(Text, Text),
}
