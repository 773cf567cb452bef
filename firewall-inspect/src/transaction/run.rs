//! Running the rules of a phase.

use regex_automata::Input;

use super::{Interruption, Match, Worker, state::State, store::Store};
use crate::{
    operator::{Expression, Matcher},
    pattern::conditions::Excess,
    rules::{
        Rules, Value,
        filter::{Found, Hit},
        names::GROUPS,
        rule::{
            Amount, Capture, Disruption, Effect, Link, MemberName, Piece, Rule, Select, SetVar, SetVarValue, Target,
            Text,
        },
    },
    seclang::{EngineMode, Phase, Variable},
};

/// Everything at hand while rules run.
pub(super) struct Run<'t> {
    pub(super) rules: &'t Rules,
    pub(super) store: &'t Store,
    pub(super) state: &'t mut State,
    pub(super) worker: &'t mut Worker,
    pub(super) about: &'t super::About,
    pub(super) matches: &'t mut Vec<Match>,
}

/// How the phase ends, or goes on.
enum Next {
    Rule,
    At(usize),
    /// Nothing more of this phase, and of the phases up to this.
    Allow(Option<Phase>),
    Interrupt(Interruption),
}

/// What a phase came to.
pub(super) enum Ended {
    Through,
    Interrupted(Interruption),
    /// What comes up to this phase, it included, is let through.
    Allowed(Phase),
}

impl Run<'_> {
    /// Runs the rules of a phase: those that the filter found something for, and those that it does not speak for.
    pub(super) fn phase(&mut self, phase: Phase, found: &[&Found]) -> Ended {
        let range = self.rules.phase(phase);
        let always = &self.rules.always[phase as usize - 1][..];
        let mut hits: Vec<(Hit, &Found)> = Vec::new();
        for found in found {
            let mine = found.hits.iter().filter(|hit| range.contains(&(hit.rule as usize)));
            hits.extend(mine.map(|hit| (*hit, *found)));
        }
        // Stable: the outcomes of a value stay in the order of its transformations.
        hits.sort_by_key(|(hit, _)| (hit.rule, hit.entry));
        let (mut at, mut next_always, mut next_hit) = (range.start, 0, 0);
        while at < range.end {
            if self.state.engine == EngineMode::Off || self.state.budget.is_spent() {
                break;
            }
            while always.get(next_always).is_some_and(|rule| (*rule as usize) < at) {
                next_always += 1;
            }
            while hits.get(next_hit).is_some_and(|(hit, _)| (hit.rule as usize) < at) {
                next_hit += 1;
            }
            let of_always = always.get(next_always).map_or(usize::MAX, |rule| *rule as usize);
            let of_hits = hits.get(next_hit).map_or(usize::MAX, |(hit, _)| hit.rule as usize);
            let rule = of_always.min(of_hits);
            if rule == usize::MAX {
                break;
            }
            let own = &hits[next_hit..];
            let own = &own[..own.iter().take_while(|(hit, _)| hit.rule as usize == rule).count()];
            let filtered = of_hits == rule;
            match self.rule(rule, filtered.then_some(own)) {
                Next::Rule => at = rule + 1,
                Next::At(position) => at = position.max(rule + 1),
                Next::Interrupt(interruption) => return Ended::Interrupted(interruption),
                Next::Allow(None) => return Ended::Through,
                Next::Allow(Some(phase)) => return Ended::Allowed(phase),
            }
        }
        Ended::Through
    }

    fn rule(&mut self, index: usize, hits: Option<&[(Hit, &Found)]>) -> Next {
        if self.state.removed.as_ref().is_some_and(|removed| removed.contains(index)) {
            return Next::Rule;
        }
        let rules = self.rules;
        let rule = &rules.rules[index];
        self.state.matched.clear();
        for (at, link) in rule.links.iter().enumerate() {
            let matched = match hits {
                Some(hits) if at == 0 => self.hits(index, link, hits),
                _ => self.link(index, link),
            };
            if !matched {
                return Next::Rule;
            }
        }
        for link in rule.links.iter().rev() {
            for effect in &link.effects {
                self.effect(effect);
            }
        }
        self.conclude(index, rule)
    }

    /// A rule and all of its chain matched.
    fn conclude(&mut self, index: usize, rule: &Rule) -> Next {
        if let Some(severity) = rule.severity {
            self.state.highest_severity =
                Some(self.state.highest_severity.map_or(severity, |highest| highest.min(severity)));
        }
        let blocks = self.state.engine == EngineMode::On;
        self.record(index, rule);
        let jump = || rule.jump.map_or(Next::Rule, Next::At);
        let status = |status| Next::Interrupt(Interruption { rule: rule.id, status, redirect: None });
        match &rule.disruption {
            Disruption::Pass => jump(),
            _ if !blocks => jump(),
            Disruption::AllowPhase => Next::Allow(None),
            Disruption::AllowRequest => Next::Allow(Some(Phase::RequestBody)),
            Disruption::AllowAll => Next::Allow(Some(Phase::ResponseBody)),
            Disruption::Deny(code) => status(*code),
            Disruption::Drop => status(0),
            Disruption::Redirect(code, url) => {
                let redirect = Some(self.expand(url));
                Next::Interrupt(Interruption { rule: rule.id, status: *code, redirect })
            }
        }
    }

    fn record(&mut self, index: usize, rule: &Rule) {
        if !rule.log {
            return;
        }
        let message = rule.message.as_ref().map(|text| self.expand(text)).unwrap_or_default();
        let data = rule.data.as_ref().map(|text| self.expand(text)).unwrap_or_default();
        let tags = rule.tags.iter().map(|text| self.expand(text)).collect();
        let mut matched = self.state.matched.iter();
        let last = matched.next_back().cloned().unwrap_or_default();
        self.matches.push(Match {
            rule: index as u32,
            id: rule.id,
            phase: rule.phase,
            severity: rule.severity,
            message,
            data,
            tags,
            variable: last.name,
            value: last.value,
            also: matched.map(|matched| matched.name.clone()).collect(),
        });
    }

    /// What the filter found, looked at with the rule's own operator.
    fn hits(&mut self, index: usize, link: &Link, hits: &[(Hit, &Found)]) -> bool {
        let mut matched = false;
        let store = self.store;
        for target in &link.targets {
            for (hit, found) in hits {
                let entry = hit.entry as usize;
                let source = store.entries[entry].source;
                if !target.sources.iter().any(|own| own == source)
                    || !self.selects(target, store.name(entry))
                    || self.is_excluded(index, link, target, store.name(entry))
                {
                    continue;
                }
                let value = hit.bytes.of(&store.bytes, &found.made);
                matched |= self.judge(link, target.variable, store.name(entry), value);
            }
        }
        matched
    }

    /// A link, on all values that it is about.
    fn link(&mut self, index: usize, link: &Link) -> bool {
        if link.targets.is_empty() {
            self.sets(link);
            return true;
        }
        let mut matched = false;
        for target in &link.targets {
            if target.count {
                let count = self.count(index, link, target);
                if differs(link, || count as i64) {
                    continue;
                }
                matched |= self.judge(link, target.variable, self.member_name(target), count.to_string().as_bytes());
                continue;
            }
            if target.sources.is_none() {
                matched |= self.dynamic(index, link, target);
                continue;
            }
            let store = self.store;
            for source in target.sources.iter() {
                // ASCII is UTF-8; most of what is said is.
                if matches!(link.matcher, Matcher::Utf8Encoding)
                    && !link.negated
                    && link.transformations.is_empty()
                    && store.all_of(source).is_ascii()
                {
                    continue;
                }
                for entry in store.range(source) {
                    let name = store.name(entry);
                    if self.selects(target, name) && !self.is_excluded(index, link, target, name) {
                        matched |= self.transformed(link, target.variable, name, store.value(entry));
                    }
                }
            }
        }
        matched
    }

    fn member_name<'m>(&self, target: &'m Target) -> &'m [u8]
    where
        Self: 'm,
    {
        match &target.select {
            Select::Name(name) => name,
            _ => b"",
        }
    }

    fn selects(&self, target: &Target, name: &[u8]) -> bool {
        match &target.select {
            Select::All => true,
            Select::Name(wanted) => name.eq_ignore_ascii_case(wanted),
            Select::Tx(number) => name.eq_ignore_ascii_case(self.rules.tx.name(*number)),
            Select::Expression(names) => names.is_match(name),
        }
    }

    /// Whether a member is exempt, by the rule itself or for this transaction.
    fn is_excluded(&self, index: usize, link: &Link, target: &Target, name: &[u8]) -> bool {
        let meant = |exempt: &Target| {
            exempt.variable == target.variable && exempt.sources == target.sources && self.selects(exempt, name)
        };
        link.exclusions.iter().any(meant)
            || self
                .state
                .removed_targets
                .iter()
                .any(|(rules, targets)| rules.contains(index) && targets.iter().any(meant))
    }

    fn count(&self, index: usize, link: &Link, target: &Target) -> usize {
        let here = |name: &[u8]| self.selects(target, name) && !self.is_excluded(index, link, target, name);
        if !target.sources.is_none() {
            let entries = target.sources.iter().flat_map(|source| self.store.range(source));
            return entries.filter(|entry| here(self.store.name(*entry))).count();
        }
        match (&target.select, target.variable) {
            (Select::Tx(number), _) => usize::from(self.state.tx(self.rules, *number).is_some()),
            _ => self.values(target).iter().filter(|(name, _)| here(name)).count(),
        }
    }

    /// The values of what is not kept, with the names of the members.
    fn values(&self, target: &Target) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = &self.state;
        let one = |value: Vec<u8>| vec![(Vec::new(), value)];
        match target.variable {
            Variable::MatchedVar => state.matched.last().map(|last| one(last.value.clone())).unwrap_or_default(),
            Variable::MatchedVarName => state.matched.last().map(|last| one(last.name.clone())).unwrap_or_default(),
            Variable::MatchedVars => {
                state.matched.iter().map(|matched| (matched.name.clone(), matched.value.clone())).collect()
            }
            Variable::MatchedVarsNames => {
                state.matched.iter().map(|matched| (matched.name.clone(), matched.name.clone())).collect()
            }
            Variable::Tx => {
                let member = |number: u32| {
                    let value = state.tx(self.rules, number)?;
                    Some((self.rules.tx.name(number).to_vec(), value.to_vec()))
                };
                match &target.select {
                    Select::Expression(names) => {
                        names.tx.iter().filter_map(|number| member(*number)).chain(self.members(Variable::Tx)).collect()
                    }
                    _ => (0..self.rules.tx.len() as u32).filter_map(member).chain(self.members(Variable::Tx)).collect(),
                }
            }
            Variable::Env
            | Variable::Global
            | Variable::Ip
            | Variable::Resource
            | Variable::Session
            | Variable::User => self.members(target.variable).collect(),
            other => self.about.value(other, self.store, state).map(one).unwrap_or_default(),
        }
    }

    fn members(&self, collection: Variable) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let members = self.state.members.get(&collection).into_iter().flatten();
        members.map(|(name, value)| (name.clone(), value.to_vec()))
    }

    /// A link, on what is put together when it is asked for.
    fn dynamic(&mut self, index: usize, link: &Link, target: &Target) -> bool {
        if let Select::Tx(number) = target.select {
            if self.is_excluded(index, link, target, self.rules.tx.name(number)) {
                return false;
            }
            let Some(value) = self.state.tx(self.rules, number) else { return false };
            if differs(link, || value.number()) {
                return false;
            }
            let mut written = std::mem::take(&mut self.worker.written);
            written.clear();
            value.write(&mut written);
            let matched = self.transformed(link, target.variable, self.rules.tx.name(number), &written);
            self.worker.written = written;
            return matched;
        }
        let mut matched = false;
        for (name, value) in self.values(target) {
            if self.selects(target, &name) && !self.is_excluded(index, link, target, &name) {
                matched |= self.transformed(link, target.variable, &name, &value);
            }
        }
        matched
    }

    /// A value, once it is transformed.
    fn transformed(&mut self, link: &Link, variable: Variable, name: &[u8], value: &[u8]) -> bool {
        if link.transformations.is_empty() {
            return self.judge(link, variable, name, value);
        }
        let [mut now, mut next] = std::mem::take(&mut self.worker.buffers);
        let mut changed = false;
        let mut matched = link.multi_match && self.judge(link, variable, name, value);
        for transformation in &link.transformations {
            if !self.state.budget.look(value.len()) {
                break;
            }
            if transformation.apply(if changed { &now } else { value }, &mut next) {
                std::mem::swap(&mut now, &mut next);
                changed = true;
                if link.multi_match {
                    matched |= self.judge(link, variable, name, &now);
                }
            }
        }
        if !link.multi_match {
            matched = self.judge(link, variable, name, if changed { &now } else { value });
        }
        self.worker.buffers = [now, next];
        matched
    }

    /// Whether the operator finds what it looks for; and if so, what follows for each match.
    fn judge(&mut self, link: &Link, variable: Variable, name: &[u8], value: &[u8]) -> bool {
        if !self.state.budget.look(value.len()) {
            return false;
        }
        let mut argument = std::mem::take(&mut self.worker.argument);
        argument.clear();
        if let Some(text) = &link.argument {
            self.expand_to(text, &mut argument);
        }
        let matched = self.judge_with(link, &argument, variable, name, value);
        self.worker.argument = argument;
        matched
    }

    /// The same; the argument has its macros in place.
    fn judge_with(&mut self, link: &Link, argument: &[u8], variable: Variable, name: &[u8], value: &[u8]) -> bool {
        let found = match &link.matcher {
            Matcher::Regex(expression)
                if expression.conditions.is_some() || (link.capture == Capture::Groups && !link.negated) =>
            {
                return self.groups(link, variable, name, value, expression);
            }
            Matcher::DynamicRegex(_) => {
                self.worker.dynamic(argument).and_then(|regex| regex.find(value)).map(|found| found.range())
            }
            Matcher::Sqli => crate::injection::sqli(value).map(|_| 0..value.len()),
            Matcher::Xss => crate::injection::xss(value).then_some(0..value.len()),
            matcher => {
                let worker = &mut *self.worker;
                matcher.find(value, |regex| worker.cache(link.pattern, regex), argument)
            }
        };
        if found.is_some() == link.negated {
            return false;
        }
        if let Some(range) = found
            && link.capture != Capture::Nothing
            && captures(&link.matcher)
        {
            let captured = match &link.matcher {
                Matcher::Sqli => {
                    crate::injection::sqli(value).map(|fingerprint| fingerprint.as_bytes().to_vec()).unwrap_or_default()
                }
                _ => value[range].to_vec(),
            };
            self.state.set_tx(0, Some(Value::Bytes(captured)));
        }
        self.matched(link, variable, name, value);
        true
    }

    /// An expression with conditions, or whose groups go to TX.
    fn groups(
        &mut self,
        link: &Link,
        variable: Variable,
        name: &[u8],
        value: &[u8],
        Expression { regex, conditions, .. }: &Expression,
    ) -> bool {
        if link.negated
            && let Some(sure) = conditions.as_ref().and_then(|conditions| conditions.sure.as_ref())
            && sure
                .search_half_with(self.worker.cache(link.pattern + 1, sure), &Input::new(value).earliest(true))
                .is_some()
        {
            return false;
        }
        let mut slots = [None; 2 * GROUPS as usize];
        let cache = self.worker.cache(link.pattern, regex);
        let found = match conditions {
            None => {
                let count = slots.len().min(regex.captures_len() * 2);
                regex.search_slots_with(cache, &Input::new(value), &mut slots[..count]).is_some()
            }
            Some(conditions) => match conditions.search(regex, cache, value) {
                Ok(found) => {
                    slots = found.unwrap_or(slots);
                    found.is_some()
                }
                // Whatever the rule looks for, it counts as matched.
                Err(Excess) => !link.negated,
            },
        };
        if found == link.negated {
            return false;
        }
        let groups = match link.capture {
            _ if link.negated => 0,
            Capture::Nothing => 0,
            Capture::Whole => 1,
            Capture::Groups => GROUPS as usize,
        };
        for (group, pair) in slots.chunks(2).enumerate().take(groups) {
            if let [Some(start), Some(end)] = pair {
                self.state.set_tx(group as u32, Some(Value::Bytes(value[start.get()..end.get()].to_vec())));
            }
        }
        self.matched(link, variable, name, value);
        true
    }

    fn matched(&mut self, link: &Link, variable: Variable, name: &[u8], value: &[u8]) {
        self.state.matched.push(variable, name, value);
        self.sets(link);
    }

    fn sets(&mut self, link: &Link) {
        for set in &link.sets {
            self.set(set);
        }
    }

    fn set(&mut self, set: &SetVar) {
        let amount = |run: &Self, amount: &Amount| match amount {
            Amount::Number(number) => *number,
            Amount::Text(text) => crate::operator::number(&run.expand(text)),
        };
        let (number, dynamic) = match &set.name {
            MemberName::Tx(number) => (Some(*number), None),
            MemberName::Dynamic(collection, text) => {
                let mut name = self.expand(text);
                name.make_ascii_lowercase();
                (None, Some((*collection, name)))
            }
        };
        let old = || match (&number, &dynamic) {
            (Some(number), _) => self.state.tx(self.rules, *number).map_or(0, Value::number),
            (_, Some((collection, name))) => self.state.member(self.rules, *collection, name).map_or(0, Value::number),
            _ => 0,
        };
        let value = match &set.value {
            SetVarValue::Number(number) => Some(Value::Number(*number)),
            SetVarValue::Set(text) => Some(Value::Bytes(self.expand(text))),
            SetVarValue::Add(more) => Some(Value::Number(old().saturating_add(amount(self, more)))),
            SetVarValue::Subtract(less) => Some(Value::Number(old().saturating_sub(amount(self, less)))),
            SetVarValue::Remove => None,
        };
        match (number, dynamic) {
            (Some(number), _) => self.state.set_tx(number, value),
            (None, Some((collection, name))) => self.state.set_member(self.rules, collection, name, value),
            (None, None) => {}
        }
    }

    fn effect(&mut self, effect: &Effect) {
        let state = &mut *self.state;
        match effect {
            Effect::ForceRequestBodyVariable(forced) => state.force_body = *forced,
            Effect::RequestBodyAccess(access) => state.request_body = *access,
            Effect::RequestBodyProcessor(processor) => state.processor = Some(*processor),
            Effect::ResponseBodyAccess(access) => state.response_body = *access,
            Effect::RuleEngine(mode) => state.engine = *mode,
            Effect::RemoveRules(rules) => state.removed.get_or_insert_with(|| self.rules.no_rules()).extend(rules),
            Effect::RemoveTargets(rules, targets) => state.removed_targets.push((rules.clone(), targets.clone())),
            Effect::SetEnv(name, value) => {
                let (name, value) = (self.expand(name), Value::Bytes(self.expand(value)));
                self.state.set_member(self.rules, Variable::Env, name.to_ascii_lowercase(), Some(value));
            }
        }
    }

    /// A text with its macros in place; what has no value is nothing.
    pub(super) fn expand(&self, text: &Text) -> Vec<u8> {
        let mut expanded = Vec::new();
        self.expand_to(text, &mut expanded);
        expanded
    }

    fn expand_to(&self, text: &Text, expanded: &mut Vec<u8>) {
        for piece in &text.0 {
            match piece {
                Piece::Literal(literal) => expanded.extend_from_slice(literal),
                Piece::Tx(number) => {
                    if let Some(value) = self.state.tx(self.rules, *number) {
                        value.write(expanded);
                    }
                }
                Piece::Variable(variable, member) => self.write(*variable, member.as_deref(), expanded),
            }
        }
    }

    fn write(&self, variable: Variable, member: Option<&[u8]>, to: &mut Vec<u8>) {
        match (variable, member) {
            (Variable::MatchedVar, _) => to.extend(self.state.matched.last().iter().flat_map(|last| &last.value)),
            (Variable::MatchedVarName, _) => to.extend(self.state.matched.last().iter().flat_map(|last| &last.name)),
            (
                Variable::Env
                | Variable::Global
                | Variable::Ip
                | Variable::Resource
                | Variable::Session
                | Variable::User,
                Some(name),
            ) => {
                if let Some(value) = self.state.member(self.rules, variable, name) {
                    value.write(to);
                }
            }
            _ => {
                if let Some(value) = self.store.first(variable, member) {
                    to.extend_from_slice(value);
                } else if let Some(value) = self.about.value(variable, self.store, self.state) {
                    to.extend_from_slice(&value);
                }
            }
        }
    }
}

/// Whether a rule that compares a number, as most do that look at TX or count, does not match this one.
fn differs(link: &Link, number: impl FnOnce() -> i64) -> bool {
    match &link.matcher {
        Matcher::Number(order, other) if link.transformations.is_empty() => {
            order.holds(number(), *other) == link.negated
        }
        _ => false,
    }
}

/// Operators whose finding goes to TX.
fn captures(matcher: &Matcher) -> bool {
    matches!(matcher, Matcher::Regex(_) | Matcher::DynamicRegex(_) | Matcher::Words(_) | Matcher::Sqli | Matcher::Xss)
}
