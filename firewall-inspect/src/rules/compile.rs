//! From rules as they stand to rules as they run.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    Read, Rules,
    bits::Bits,
    filter::{Filter, Kind},
    fold::{Folded, fold},
    names::{GROUPS, Names},
    resolve::{Draft, Item, resolve},
    rule::{
        Amount, Capture, Disruption, Effect, Link, MemberName, NameExpression, Piece, Rule, Select, SetVar,
        SetVarValue, Sources, Target, Text,
    },
};
use crate::{
    operator::Matcher,
    seclang::{self, Action, Ctl, Directive, Fault, Operator, Place, Stated, Transformation, Use, Variable},
};

/// The status of a denial that names none.
const DENIED: u16 = 403;

pub(super) fn compile(directives: &[Stated<Directive>], read: Read<'_>) -> Result<Rules, Vec<Fault>> {
    let (items, settings) = resolve(directives)?;
    let mut compiler = Compiler { read, tx: Names::default(), patterns: 0, faults: Vec::new(), files: HashMap::new() };
    // By phase; markers and rules that were there before stay in order.
    let mut drafts: [Vec<&Draft>; 5] = Default::default();
    let mut markers: [HashMap<&str, usize>; 5] = Default::default();
    for item in &items {
        match item {
            Item::Rule(draft) => drafts[draft.phase() as usize - 1].push(draft),
            Item::Marker(name) => {
                for (marks, drafts) in markers.iter_mut().zip(&drafts) {
                    marks.insert(name, drafts.len());
                }
            }
        }
    }
    let mut phases: [Range<usize>; 5] = Default::default();
    let mut rules = Vec::new();
    for (index, drafts) in drafts.iter().enumerate() {
        let start = rules.len();
        for (at, draft) in drafts.iter().enumerate() {
            let jump = |compiler: &mut Compiler<'_>| {
                draft.actions.iter().find_map(|action| match action {
                    Action::Skip(count) => Some(start + (at + 1 + *count as usize).min(drafts.len())),
                    Action::SkipAfter(name) => match markers[index].get(&name[..]) {
                        Some(position) if *position > at => Some(start + position),
                        _ => {
                            compiler.fault(&draft.place, format!("there is no marker `{name}` behind this rule"));
                            None
                        }
                    },
                    _ => None,
                })
            };
            let jump = jump(&mut compiler);
            rules.push(compiler.rule(draft, jump));
        }
        phases[index] = start..rules.len();
    }
    compiler.effects(&drafts.concat(), &mut rules);
    if !compiler.faults.is_empty() {
        return Err(compiler.faults);
    }
    for target in rules.iter_mut().flat_map(|rule| &mut rule.links).flat_map(|link| &mut link.targets) {
        if let (Variable::Tx, Select::Expression(names)) = (target.variable, &mut target.select) {
            let tx = &compiler.tx;
            names.tx = (0..tx.len() as u32).filter(|number| names.is_match(tx.name(*number))).collect();
        }
    }
    settle_captures(&mut rules);
    let Folded { idle, begin } = fold(&rules, &compiler.tx);
    let request = Filter::build(Kind::Request, &rules, &idle);
    let response = Filter::build(Kind::Response, &rules, &idle);
    let always = phases.clone().map(|phase| {
        let works = |index: &usize| !idle.contains(*index);
        let unfiltered =
            phase.filter(works).filter(|index| !request.speaks_for(*index) && !response.speaks_for(*index));
        unfiltered.map(|index| index as u32).collect()
    });
    let (tx, patterns) = (compiler.tx, compiler.patterns);
    Ok(Rules { rules, phases, always, tx, begin, request, response, patterns, settings })
}

struct Compiler<'r> {
    read: Read<'r>,
    tx: Names,
    patterns: usize,
    faults: Vec<Fault>,
    files: HashMap<(Arc<str>, String), Result<Vec<u8>, String>>,
}

impl Compiler<'_> {
    fn fault(&mut self, place: &Place, message: impl Into<String>) {
        self.faults.push(Fault { place: place.clone(), message: message.into() });
    }

    fn rule(&mut self, draft: &Draft, jump: Option<usize>) -> Rule {
        let actions = || draft.defaults.iter().chain(&draft.actions);
        let status = actions().rev_find_status();
        let of_defaults = disruption_of(&draft.defaults);
        let disruption = match disruption_of(&draft.actions).unwrap_or(&seclang::Disruption::Block) {
            seclang::Disruption::Block => of_defaults.unwrap_or(&seclang::Disruption::Pass),
            other => other,
        };
        let disruption = match disruption {
            seclang::Disruption::Block | seclang::Disruption::Pass => Disruption::Pass,
            seclang::Disruption::Allow(seclang::AllowScope::Phase) => Disruption::AllowPhase,
            seclang::Disruption::Allow(seclang::AllowScope::Request) => Disruption::AllowRequest,
            seclang::Disruption::Allow(seclang::AllowScope::Transaction) => Disruption::AllowAll,
            seclang::Disruption::Deny => Disruption::Deny(status.unwrap_or(DENIED)),
            seclang::Disruption::Drop => Disruption::Drop,
            seclang::Disruption::Redirect(url) => {
                let status = status.filter(|status| matches!(status, 301 | 302 | 303 | 307)).unwrap_or(302);
                Disruption::Redirect(status, self.text(url))
            }
        };
        let mut links = vec![self.link(draft, &draft.defaults)];
        links.extend(draft.chain.iter().map(|link| self.link(link, &draft.defaults)));
        let mut rule = Rule {
            id: draft.id(),
            phase: draft.phase(),
            place: draft.place.clone(),
            links,
            disruption,
            jump,
            log: true,
            severity: None,
            message: None,
            data: None,
            tags: Vec::new(),
            rev: String::new(),
            version: String::new(),
        };
        for action in actions() {
            match action {
                Action::Log(log) => rule.log = *log,
                Action::Severity(severity) => rule.severity = Some(*severity),
                Action::Msg(text) => rule.message = Some(self.text(text)),
                Action::LogData(text) => rule.data = Some(self.text(text)),
                Action::Tag(text) => rule.tags.push(self.text(text)),
                Action::Rev(text) => rule.rev.clone_from(text),
                Action::Ver(text) => rule.version.clone_from(text),
                _ => {}
            }
        }
        rule
    }

    fn link(&mut self, draft: &Draft, defaults: &[Action]) -> Link {
        let mut transformations: Vec<Transformation> = Vec::new();
        let (mut sets, mut effects, mut capture, mut multi_match) = (Vec::new(), Vec::new(), Capture::Nothing, false);
        for action in defaults.iter().chain(&draft.actions) {
            match action {
                Action::Transform(None) => transformations.clear(),
                Action::Transform(Some(transformation)) => transformations.push(*transformation),
                Action::Capture => capture = Capture::Whole,
                Action::MultiMatch => multi_match = true,
                Action::SetVar(set) => sets.push(self.set(set)),
                Action::SetEnv { name, value } => effects.push(Effect::SetEnv(self.text(name), self.text(value))),
                _ => {}
            }
        }
        let (mut targets, mut exclusions) = (Vec::new(), Vec::new());
        for target in &draft.targets {
            if let Some(compiled) = self.target(&draft.place, target) {
                if target.usage == Use::Exclude { exclusions.push(compiled) } else { targets.push(compiled) }
            }
        }
        let mut link = Link {
            targets,
            exclusions,
            transformations,
            multi_match,
            operator: Operator::UnconditionalMatch,
            matcher: Matcher::Always,
            pattern: self.patterns,
            argument: None,
            negated: false,
            capture,
            sets,
            effects,
        };
        let Some(used) = &draft.operator else { return link };
        link.operator = used.operator;
        link.negated = used.negated;
        link.argument = used.argument.literal().is_none().then(|| self.text(&used.argument));
        let (read, files) = (&mut *self.read, &mut self.files);
        let mut data = |name: &str| {
            let file = Arc::clone(&draft.place.file);
            files.entry((Arc::clone(&file), name.to_owned())).or_insert_with(|| read(&file, name)).clone()
        };
        match Matcher::compile(used.operator, &used.argument, &mut data) {
            Ok(matcher) => {
                if let Matcher::Regex(expression) = &matcher {
                    let sure = expression.conditions.as_ref().and_then(|conditions| conditions.sure.as_ref());
                    self.patterns += 1 + usize::from(sure.is_some());
                }
                link.matcher = matcher;
            }
            Err(message) => self.fault(&used.place, message),
        }
        link
    }

    fn target(&mut self, place: &Place, target: &seclang::Target) -> Option<Target> {
        let variable = target.variable;
        let mut sources = Sources::of(variable);
        let select = match &target.selector {
            None => Select::All,
            Some(seclang::Selector::Name(name)) if variable == Variable::Tx => {
                Select::Tx(self.tx.number(name.as_bytes()))
            }
            Some(seclang::Selector::Name(name)) => Select::Name(name.to_ascii_lowercase().into_bytes().into()),
            Some(seclang::Selector::Regex(expression)) => match NameExpression::compile(expression) {
                Ok(names) => Select::Expression(Box::new(names)),
                Err(error) => {
                    self.fault(place, format!("`{expression}`: {error}"));
                    return None;
                }
            },
            Some(seclang::Selector::XPath(path)) => {
                match &path[..] {
                    "/*" => {}
                    "//@*" => sources = Sources::ATTRIBUTES,
                    _ => {
                        self.fault(place, format!("of XML, only `/*` and `//@*` are supported, not `{path}`"));
                        return None;
                    }
                }
                Select::All
            }
        };
        Some(Target { variable, sources, select, count: target.usage == Use::Count })
    }

    fn set(&mut self, set: &seclang::SetVar) -> SetVar {
        let name = match set.name.literal() {
            Some(name) if set.collection == Variable::Tx => MemberName::Tx(self.tx.number(name.as_bytes())),
            _ => MemberName::Dynamic(set.collection, self.text(&set.name)),
        };
        let mut amount = |text: &seclang::Text| match text.literal() {
            Some(literal) => Amount::Number(crate::operator::number(literal.as_bytes())),
            None => Amount::Text(self.text(text)),
        };
        let value = match &set.value {
            seclang::SetVarValue::Add(text) => SetVarValue::Add(amount(text)),
            seclang::SetVarValue::Subtract(text) => SetVarValue::Subtract(amount(text)),
            seclang::SetVarValue::Remove => SetVarValue::Remove,
            seclang::SetVarValue::Set(text) => {
                // As it is written back.
                let number =
                    text.literal().and_then(|literal| literal.parse::<i64>().ok().filter(|n| n.to_string() == literal));
                number.map_or_else(|| SetVarValue::Set(self.text(text)), SetVarValue::Number)
            }
        };
        SetVar { name, value }
    }

    fn text(&mut self, text: &seclang::Text) -> Text {
        let pieces = text.0.iter().map(|piece| match piece {
            seclang::Piece::Literal(literal) => Piece::Literal(literal.as_bytes().into()),
            seclang::Piece::Macro(Variable::Tx, Some(name)) => Piece::Tx(self.tx.number(name.as_bytes())),
            seclang::Piece::Macro(variable, member) => {
                Piece::Variable(*variable, member.as_ref().map(|member| member.as_bytes().into()))
            }
        });
        Text(pieces.collect())
    }

    /// What needs to know all rules: changes of the engine for the rest of a transaction.
    fn effects(&mut self, drafts: &[&Draft], rules: &mut [Rule]) {
        for (index, draft) in drafts.iter().enumerate() {
            let links = std::iter::once(*draft).chain(&draft.chain);
            for (at, link) in links.enumerate() {
                for action in draft.defaults.iter().chain(&link.actions) {
                    let Action::Ctl(ctl) = action else { continue };
                    let effect = self.effect(&link.place, ctl, drafts);
                    rules[index].links[at].effects.extend(effect);
                }
            }
        }
    }

    fn effect(&mut self, place: &Place, ctl: &Ctl, drafts: &[&Draft]) -> Option<Effect> {
        let such = |is: &dyn Fn(&Draft) -> bool| {
            let mut bits = Bits::new(drafts.len());
            drafts.iter().enumerate().filter(|(_, draft)| is(draft)).for_each(|(index, _)| bits.insert(index));
            bits
        };
        let mut targets = |targets: &[seclang::Target]| {
            targets.iter().filter_map(|target| self.target(place, target)).collect::<Vec<_>>().into()
        };
        Some(match ctl {
            Ctl::AuditEngine(_) | Ctl::AuditLogParts => return None,
            Ctl::ForceRequestBodyVariable(forced) => Effect::ForceRequestBodyVariable(*forced),
            Ctl::RequestBodyAccess(access) => Effect::RequestBodyAccess(*access),
            Ctl::RequestBodyProcessor(processor) => Effect::RequestBodyProcessor(*processor),
            Ctl::ResponseBodyAccess(access) => Effect::ResponseBodyAccess(*access),
            Ctl::RuleEngine(mode) => Effect::RuleEngine(*mode),
            Ctl::RuleRemoveById(ranges) => {
                Effect::RemoveRules(such(&|draft| ranges.iter().any(|range| range.contains(draft.id()))))
            }
            Ctl::RuleRemoveByMsg(message) => Effect::RemoveRules(such(&|draft| draft.has_message(message))),
            Ctl::RuleRemoveByTag(tag) => Effect::RemoveRules(such(&|draft| draft.has_tag(tag))),
            Ctl::RuleRemoveTargetById(range, which) => {
                Effect::RemoveTargets(such(&|draft| range.contains(draft.id())), targets(which))
            }
            Ctl::RuleRemoveTargetByMsg(message, which) => {
                Effect::RemoveTargets(such(&|draft| draft.has_message(message)), targets(which))
            }
            Ctl::RuleRemoveTargetByTag(tag, which) => {
                Effect::RemoveTargets(such(&|draft| draft.has_tag(tag)), targets(which))
            }
        })
    }
}

trait FindStatus {
    fn rev_find_status(self) -> Option<u16>;
}

impl<'a, I: DoubleEndedIterator<Item = &'a Action>> FindStatus for I {
    fn rev_find_status(mut self) -> Option<u16> {
        self.rfind(|action| matches!(action, Action::Status(_))).and_then(|action| match action {
            Action::Status(status) => Some(*status),
            _ => None,
        })
    }
}

fn disruption_of(actions: &[Action]) -> Option<&seclang::Disruption> {
    actions.iter().rev().find_map(|action| match action {
        Action::Disrupt(disruption) => Some(disruption),
        _ => None,
    })
}

/// Groups go to TX only where somebody may read them: one of the chain, or, if somebody reads them who may mean those of
/// another, everywhere.
fn settle_captures(rules: &mut [Rule]) {
    let read_by_strangers =
        rules.iter().any(|rule| reads_groups(rule) && !rule.links.iter().any(|link| link.capture != Capture::Nothing));
    for rule in rules {
        if read_by_strangers || reads_groups(rule) {
            for link in rule.links.iter_mut().filter(|link| link.capture != Capture::Nothing) {
                link.capture = Capture::Groups;
            }
        }
    }
}

fn reads_groups(rule: &Rule) -> bool {
    let group = |number: u32| (1..GROUPS).contains(&number);
    let text = |text: &Text| text.0.iter().any(|piece| matches!(piece, Piece::Tx(number) if group(*number)));
    let amount = |amount: &Amount| matches!(amount, Amount::Text(inner) if text(inner));
    let texts = rule.message.iter().chain(&rule.data).chain(&rule.tags);
    texts.into_iter().any(text)
        || rule.links.iter().any(|link| {
            let targets = link.targets.iter().any(|target| match (target.variable, &target.select) {
                (Variable::Tx, Select::Tx(number)) => group(*number),
                (Variable::Tx, Select::All) => true,
                (Variable::Tx, Select::Expression(names)) => names.tx.iter().any(|number| group(*number)),
                _ => false,
            });
            let sets = link.sets.iter().any(|set| {
                let name = matches!(&set.name, MemberName::Dynamic(_, name) if text(name));
                name || match &set.value {
                    SetVarValue::Set(value) => text(value),
                    SetVarValue::Add(value) | SetVarValue::Subtract(value) => amount(value),
                    _ => false,
                }
            });
            targets || sets || link.argument.iter().any(text)
        })
}
