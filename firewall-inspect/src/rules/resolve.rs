//! From directives to rules with their chains, after all updates and removals, and with the markers between them.

use std::collections::{HashMap, HashSet};

use super::settings::Settings;
use crate::seclang::{Action, Directive, Disruption, Fault, IdRange, OperatorUse, Phase, Place, Stated, Target};

/// A rule before it is compiled.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) place: Place,
    pub(super) targets: Vec<Target>,
    /// `None`: it always matches.
    pub(super) operator: Option<OperatorUse>,
    pub(super) actions: Vec<Action>,
    /// The other links of its chain.
    pub(super) chain: Vec<Draft>,
    /// What the default action of its phase says.
    pub(super) defaults: Vec<Action>,
}

/// What a rule set is made of, in order.
pub(super) enum Item {
    Rule(Draft),
    Marker(String),
}

impl Draft {
    pub(super) fn id(&self) -> u32 {
        let id = self.actions.iter().find_map(|action| if let Action::Id(id) = action { Some(*id) } else { None });
        id.unwrap_or(0)
    }

    pub(super) fn phase(&self) -> Phase {
        let phase = self.actions.iter().rev().find_map(|action| match action {
            Action::Phase(phase) => Some(*phase),
            _ => None,
        });
        phase.unwrap_or(Phase::RequestBody)
    }

    fn chains(&self) -> bool {
        self.actions.contains(&Action::Chain)
    }

    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Tag(text) if text.literal() == Some(tag)))
    }

    pub(super) fn has_message(&self, message: &str) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Msg(text) if text.literal() == Some(message)))
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { place: self.place.clone(), message: message.into() }
    }
}

/// What the directives come to.
pub(super) fn resolve(directives: &[Stated<Directive>]) -> Result<(Vec<Item>, Settings), Vec<Fault>> {
    let (mut items, mut settings, mut faults) = (Vec::new(), Settings::default(), Vec::new());
    let mut defaults: HashMap<Phase, Vec<Action>> = HashMap::new();
    // The chain that goes on with the next rule.
    let mut open: Option<Draft> = None;
    for Stated { place, value } in directives {
        settings.apply(value);
        let mut draft = match value {
            Directive::Rule(rule) => {
                Draft::new(place, rule.targets.clone(), Some(rule.operator.clone()), rule.actions.clone())
            }
            Directive::Action(actions) => Draft::new(place, Vec::new(), None, actions.clone()),
            Directive::Marker(name) => {
                items.push(Item::Marker(name.clone()));
                continue;
            }
            Directive::DefaultAction(phase, actions) => {
                if let Some(fault) = unfit_default(place, actions) {
                    faults.push(fault);
                }
                defaults.insert(*phase, actions.clone());
                continue;
            }
            _ => continue,
        };
        if let Some(mut head) = open.take() {
            faults.extend(unfit_link(&draft));
            let more = draft.chains();
            head.chain.push(draft);
            if more {
                open = Some(head)
            } else {
                items.push(Item::Rule(head))
            }
            continue;
        }
        if draft.id() == 0 {
            faults.push(draft.fault("this rule needs an id"));
        }
        draft.defaults = defaults.get(&draft.phase()).cloned().unwrap_or_default();
        if draft.chains() { open = Some(draft) } else { items.push(Item::Rule(draft)) }
    }
    if let Some(head) = open {
        faults.push(head.fault("this chain ends without its last rule"));
    }
    let mut seen = HashMap::new();
    for draft in rules(&items) {
        if let Some(first) = seen.insert(draft.id(), &draft.place) {
            faults.push(draft.fault(format!("rule {} is there already, at {first}", draft.id())));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for Stated { value, .. } in directives {
        update(&mut items, value);
    }
    Ok((items, settings))
}

impl Draft {
    fn new(place: &Place, targets: Vec<Target>, operator: Option<OperatorUse>, actions: Vec<Action>) -> Self {
        Self { place: place.clone(), targets, operator, actions, chain: Vec::new(), defaults: Vec::new() }
    }
}

fn rules(items: &[Item]) -> impl Iterator<Item = &Draft> {
    items.iter().filter_map(|item| if let Item::Rule(draft) = item { Some(draft) } else { None })
}

fn unfit_default(place: &Place, actions: &[Action]) -> Option<Fault> {
    let unfit = actions.iter().any(|action| {
        matches!(action, Action::Id(_) | Action::Chain | Action::Skip(_) | Action::SkipAfter(_))
            || matches!(action, Action::Disrupt(Disruption::Block))
    });
    unfit.then(|| Fault {
        place: place.clone(),
        message: "a default action has no id, no chain, no jump and no block".into(),
    })
}

/// What only the first rule of a chain may say.
fn unfit_link(draft: &Draft) -> Option<Fault> {
    let unfit = draft.actions.iter().any(|action| {
        matches!(action, Action::Id(_) | Action::Skip(_) | Action::SkipAfter(_))
            || matches!(action, Action::Disrupt(disruption) if !matches!(disruption, Disruption::Block | Disruption::Pass))
    });
    unfit.then(|| draft.fault("only the first rule of a chain has an id, a jump or a disruptive action"))
}

/// Carries out a removal or an update.
fn update(items: &mut Vec<Item>, directive: &Directive) {
    let within = |ranges: &[IdRange], draft: &Draft| ranges.iter().any(|range| range.contains(draft.id()));
    let remove = |items: &mut Vec<Item>, is: &dyn Fn(&Draft) -> bool| {
        items.retain(|item| !matches!(item, Item::Rule(draft) if is(draft)));
    };
    let add = |items: &mut Vec<Item>, is: &dyn Fn(&Draft) -> bool, targets: &[Target]| {
        for item in items {
            if let Item::Rule(draft) = item
                && is(draft)
            {
                draft.targets.extend(targets.iter().cloned());
            }
        }
    };
    match directive {
        Directive::RemoveById(ranges) => remove(items, &|draft| within(ranges, draft)),
        Directive::RemoveByMsg(message) => remove(items, &|draft| draft.has_message(message)),
        Directive::RemoveByTag(tag) => remove(items, &|draft| draft.has_tag(tag)),
        Directive::UpdateTargetById(ranges, targets) => add(items, &|draft| within(ranges, draft), targets),
        Directive::UpdateTargetByMsg(message, targets) => add(items, &|draft| draft.has_message(message), targets),
        Directive::UpdateTargetByTag(tag, targets) => add(items, &|draft| draft.has_tag(tag), targets),
        Directive::UpdateActionById(range, actions) => {
            for item in items {
                if let Item::Rule(draft) = item
                    && range.contains(draft.id())
                {
                    draft.replace(actions);
                }
            }
        }
        _ => {}
    }
}

impl Draft {
    /// New actions: those that a rule has one of take the place of the old one; id, phase and chain stay.
    fn replace(&mut self, actions: &[Action]) {
        let kinds: HashSet<_> = actions.iter().filter(|action| is_single(action)).map(kind).collect();
        self.actions.retain(|action| !(is_single(action) && kinds.contains(&kind(action))));
        let kept = |action: &&Action| !matches!(action, Action::Id(_) | Action::Phase(_) | Action::Chain);
        self.actions.extend(actions.iter().filter(kept).cloned());
    }
}

fn kind(action: &Action) -> std::mem::Discriminant<Action> {
    match action {
        Action::SkipAfter(_) => std::mem::discriminant(&Action::Skip(0)),
        other => std::mem::discriminant(other),
    }
}

fn is_single(action: &Action) -> bool {
    matches!(
        action,
        Action::Accuracy(_)
            | Action::AuditLog(_)
            | Action::Disrupt(_)
            | Action::Log(_)
            | Action::LogData(_)
            | Action::Maturity(_)
            | Action::Msg(_)
            | Action::Rev(_)
            | Action::Severity(_)
            | Action::Skip(_)
            | Action::SkipAfter(_)
            | Action::Status(_)
            | Action::Ver(_)
    )
}
