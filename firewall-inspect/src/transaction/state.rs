//! What rules remember from one to the next.

use std::collections::BTreeMap;

use super::budget::Budget;
use crate::{
    rules::{Rules, Value, bits::Bits, rule::Target},
    seclang::{BodyProcessor, EngineMode, Severity, Variable},
};

/// A value that matched.
#[derive(Clone, Debug, Default)]
pub(super) struct Matched {
    /// `ARGS:name`.
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Values that matched, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct AllMatched {
    entries: Vec<Matched>,
    count: usize,
}

impl AllMatched {
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    pub(super) fn push(&mut self, variable: Variable, member: &[u8], value: &[u8]) {
        if self.count == self.entries.len() {
            self.entries.push(Matched::default());
        }
        let Matched { name, value: kept } = &mut self.entries[self.count];
        self.count += 1;
        name.clear();
        name.extend_from_slice(variable.name().as_bytes());
        if !member.is_empty() {
            name.push(b':');
            name.extend_from_slice(member);
        }
        kept.clear();
        kept.extend_from_slice(value);
    }
}

impl std::ops::Deref for AllMatched {
    type Target = [Matched];

    fn deref(&self) -> &[Matched] {
        &self.entries[..self.count]
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// By the number of the name, where its value is, counted from 1; 0: as [`Rules::begin`] has it.
    places: Vec<u32>,
    tx: Vec<Option<Value>>,
    /// Members of TX whose names came with the request, and all of the other collections, by variable and name.
    pub(super) members: BTreeMap<Variable, BTreeMap<Vec<u8>, Value>>,
    /// Of the rule at hand and its chain.
    pub(super) matched: AllMatched,
    pub(super) removed: Option<Bits>,
    pub(super) removed_targets: Vec<(Bits, std::sync::Arc<[Target]>)>,
    pub(super) engine: EngineMode,
    pub(super) processor: Option<BodyProcessor>,
    pub(super) force_body: bool,
    pub(super) request_body: bool,
    pub(super) response_body: bool,
    pub(super) highest_severity: Option<Severity>,
    pub(super) budget: Budget,
}

impl State {
    pub(super) fn new(rules: &Rules, engine: EngineMode) -> Self {
        Self {
            places: vec![0; rules.tx.len()],
            tx: Vec::with_capacity(32),
            members: BTreeMap::new(),
            matched: AllMatched::default(),
            removed: None,
            removed_targets: Vec::new(),
            engine,
            processor: None,
            force_body: false,
            request_body: rules.settings.request_body.inspected,
            response_body: rules.settings.response_body.inspected,
            highest_severity: None,
            budget: Budget::new(),
        }
    }

    pub(super) fn tx<'s>(&'s self, rules: &'s Rules, number: u32) -> Option<&'s Value> {
        let number = number as usize;
        match self.places[number].checked_sub(1) {
            Some(place) => self.tx[place as usize].as_ref(),
            None => rules.begin[number].as_ref(),
        }
    }

    pub(super) fn set_tx(&mut self, number: u32, value: Option<Value>) {
        let place = &mut self.places[number as usize];
        match place.checked_sub(1) {
            Some(place) => self.tx[place as usize] = value,
            None => {
                self.tx.push(value);
                *place = self.tx.len() as u32;
            }
        }
    }

    /// Of a name in lower case.
    pub(super) fn member<'s>(&'s self, rules: &'s Rules, collection: Variable, name: &[u8]) -> Option<&'s Value> {
        if collection == Variable::Tx
            && let Some(number) = rules.tx.find(name)
        {
            return self.tx(rules, number);
        }
        self.members.get(&collection)?.get(name)
    }

    /// Changes a member, whose name is in lower case. `None`: it is no more.
    pub(super) fn set_member(&mut self, rules: &Rules, collection: Variable, name: Vec<u8>, value: Option<Value>) {
        if collection == Variable::Tx
            && let Some(number) = rules.tx.find(&name)
        {
            self.set_tx(number, value);
            return;
        }
        match value {
            Some(value) => {
                self.members.entry(collection).or_default().insert(name, value);
            }
            None => {
                if let Some(members) = self.members.get_mut(&collection) {
                    members.remove(&name);
                }
            }
        }
    }
}
