//! A request and its answer before the rules of [`crate::rules`], phase by phase.
//!
//! In: the head of a request, its body, then those of the answer. Out: whether a rule ended it, and all rules that matched.
//! What one phase leaves (TX, scores, what is switched off) the next one finds. Between two phases a transaction waits for as
//! long as it takes; the memory that only running rules need belongs to the [`Worker`].
//!
//! What a variable holds is what libmodsecurity 3.0 gives it; `DIFFERENCES.md` of this crate has the exceptions.

mod about;
mod budget;
mod request;
mod response;
mod run;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use regex_automata::meta::{Cache, Regex};

pub use self::{about::About, request::BodyProblem, response::Answer};
use self::{
    run::{Ended, Run},
    state::State,
    store::Store,
};
use crate::{
    rules::{Rules, filter::Found},
    seclang::{EngineMode, Phase, Severity},
};

/// Bytes of memory for expressions that a worker keeps at most from one request to the next.
const CACHES: usize = 8 << 20;
/// Transactions after which a worker counts what it keeps.
const TIDY_EVERY: u32 = 16;
/// Bytes of a buffer that a worker keeps.
const BUFFER: usize = 64 << 10;
/// Expressions with macros that a worker keeps.
const DYNAMIC: usize = 64;

/// What a thread needs to run rules, and keeps.
#[derive(Debug, Default)]
pub struct Worker {
    /// Of each expression, by its number; of the rule set that was run last.
    caches: Vec<Option<Box<Cache>>>,
    /// As long as it is held, no other rule set has its address.
    owner: Weak<Rules>,
    /// Bytes that they take.
    taken: usize,
    dynamic: Vec<(Vec<u8>, Option<Regex>)>,
    /// A member of TX as text, an argument with its macros in place, and what transformations make.
    written: Vec<u8>,
    argument: Vec<u8>,
    buffers: [Vec<u8>; 2],
    /// Transactions, so that memory is not counted after each.
    finished: u32,
}

/// A rule that matched, with all of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub(crate) rule: u32,
    pub id: u32,
    pub phase: Phase,
    pub severity: Option<Severity>,
    pub message: Vec<u8>,
    pub data: Vec<u8>,
    pub tags: Vec<Vec<u8>>,
    /// The last value that matched: where it was, `ARGS:name`, and what it was after its transformations.
    pub variable: Vec<u8>,
    pub value: Vec<u8>,
    /// Where else it and its chain matched.
    pub also: Vec<Vec<u8>>,
}

/// A rule ended the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    pub rule: u32,
    /// 0: the connection is to be closed without an answer.
    pub status: u16,
    pub redirect: Option<Vec<u8>>,
}

/// A request and its answer on their way through the rules.
#[derive(Debug)]
pub struct Transaction {
    rules: Arc<Rules>,
    about: About,
    store: Store,
    state: State,
    found: Found,
    found_in_answer: Found,
    /// Entries that the filters have looked at.
    looked: usize,
    matches: Vec<Match>,
    phases: Vec<Phase>,
    /// Phases up to this are let through.
    allowed: Option<Phase>,
    interruption: Option<Interruption>,
}

impl Worker {
    /// For a rule set other than before, what was kept for that goes.
    fn serve(&mut self, rules: &Arc<Rules>) {
        if !std::ptr::eq(self.owner.as_ptr(), Arc::as_ptr(rules)) || self.taken > CACHES {
            self.owner = Arc::downgrade(rules);
            self.taken = 0;
            self.caches.clear();
            self.caches.resize_with(rules.patterns, || None);
        }
    }

    fn cache(&mut self, pattern: usize, regex: &Regex) -> &mut Cache {
        let slot = &mut self.caches[pattern];
        if slot.is_none() {
            self.taken += 4096;
        }
        slot.get_or_insert_with(|| Box::new(regex.create_cache()))
    }

    /// An expression that was put together for this request; `None` if it is none, and nothing matches it.
    fn dynamic(&mut self, expression: &[u8]) -> Option<&Regex> {
        let known = self.dynamic.iter().position(|(known, _)| known == expression);
        let at = known.unwrap_or_else(|| {
            if self.dynamic.len() == DYNAMIC {
                self.dynamic.clear();
            }
            let text = std::str::from_utf8(expression).ok();
            self.dynamic.push((expression.to_vec(), text.and_then(|text| crate::pattern::compile(text).ok())));
            self.dynamic.len() - 1
        });
        self.dynamic[at].1.as_ref()
    }

    /// Lets go of memory for expressions where it is more than a worker may keep.
    fn tidy(&mut self) {
        self.finished = self.finished.wrapping_add(1);
        if self.finished.is_multiple_of(TIDY_EVERY) {
            self.taken = self.caches.iter().flatten().map(|cache| cache.memory_usage()).sum();
        }
        for buffer in self.buffers.iter_mut().chain([&mut self.written, &mut self.argument]) {
            if buffer.capacity() > BUFFER {
                *buffer = Vec::new();
            }
        }
    }
}

impl Transaction {
    /// `engine`: what is done with what rules say, unless the rule set says otherwise.
    pub fn new(rules: Arc<Rules>, about: About, engine: EngineMode) -> Self {
        let state = State::new(&rules, rules.settings.engine.unwrap_or(engine));
        Self {
            about,
            store: Store::new(),
            state,
            found: Found::default(),
            found_in_answer: Found::default(),
            looked: 0,
            matches: Vec::new(),
            phases: Vec::new(),
            allowed: None,
            interruption: None,
            rules,
        }
    }

    /// All rules that matched so far and are to be told of, in their order.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// The phases that ran.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    pub fn interruption(&self) -> Option<&Interruption> {
        self.interruption.as_ref()
    }

    /// More was to be done than a request of this size may cost: what came after that was not looked at.
    pub fn is_over_budget(&self) -> bool {
        self.state.budget.is_spent()
    }

    /// A member of TX as a number; its name in lower case.
    pub fn tx(&self, name: &str) -> Option<i64> {
        self.state.member(&self.rules, crate::seclang::Variable::Tx, name.as_bytes()).map(crate::rules::Value::number)
    }

    /// Rules that were run on values because the filters found something, by their ids, once for each value.
    pub fn candidates(&self) -> impl Iterator<Item = u32> {
        self.found.hits.iter().chain(&self.found_in_answer.hits).map(|hit| self.rules.rules[hit.rule as usize].id)
    }

    /// The last phase, after the answer: nothing can be ended any more.
    pub fn finish(&mut self, worker: &mut Worker) {
        self.phase(worker, Phase::Logging);
        worker.tidy();
    }

    /// Runs a phase, unless one before it ended everything or let this through.
    fn phase(&mut self, worker: &mut Worker, phase: Phase) {
        let over = self.interruption.is_some() || self.allowed.is_some_and(|up_to| phase <= up_to);
        if self.state.engine == EngineMode::Off || self.state.budget.is_spent() || (over && phase != Phase::Logging) {
            return;
        }
        worker.serve(&self.rules);
        self.look();
        if self.state.budget.is_spent() {
            return;
        }
        self.phases.push(phase);
        let mut run = Run {
            rules: &self.rules,
            store: &self.store,
            state: &mut self.state,
            worker,
            about: &self.about,
            matches: &mut self.matches,
        };
        match run.phase(phase, &[&self.found, &self.found_in_answer]) {
            Ended::Through => {}
            Ended::Interrupted(interruption) if phase != Phase::Logging => self.interruption = Some(interruption),
            Ended::Interrupted(_) => {}
            Ended::Allowed(up_to) => self.allowed = Some(up_to),
        }
    }

    /// Shows the filters what came since they last looked.
    fn look(&mut self) {
        for entry in self.looked..self.store.entries.len() {
            let source = self.store.entries[entry].source;
            let value = self.store.entries[entry].value;
            let name = self.store.name(entry);
            let before = self.found.read + self.found_in_answer.read;
            for (filter, found) in
                [(&self.rules.request, &mut self.found), (&self.rules.response, &mut self.found_in_answer)]
            {
                filter.look(source, name, entry as u32, &self.store.bytes, value, found);
            }
            let read = self.found.read + self.found_in_answer.read - before;
            if !self.state.budget.look(read as usize) {
                break;
            }
        }
        self.looked = self.store.entries.len();
    }
}
