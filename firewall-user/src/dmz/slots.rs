//! Which rule owns which counter slot. The names live in a pinned table, so a rule that goes on over a reload or a restart
//! finds its counters again.

use std::collections::{BTreeMap, BTreeSet};

use firewall_common::counter::MAX_RULES;

/// Slots by name: `list/NAME`, `rate/NAME`, `size/SERVICES`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    taken: BTreeMap<String, u16>,
}

/// More rules than counter slots, those of the outgoing policy included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "more than {MAX_RULES} lists, size rules and rates, those of the policy being replaced included: rename fewer at \
             a time"
        )
    }
}

impl std::error::Error for Exhausted {}

impl Slots {
    /// As found in the pinned table: the name in each slot, empty where it is free.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let named = names.into_iter().zip(0..MAX_RULES).filter(|(name, _)| !name.is_empty());
        Self { taken: named.map(|(name, slot)| (name.to_owned(), slot)).collect() }
    }

    pub fn get(&self, name: &str) -> Option<u16> {
        self.taken.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.taken.iter().map(|(name, slot)| (name.as_str(), *slot))
    }

    pub fn name_of(&self, slot: u16) -> Option<&str> {
        self.iter().find(|(_, taken)| *taken == slot).map(|(name, _)| name)
    }

    /// These slots and one more for each name that has none: what an incoming policy needs while the outgoing one still
    /// counts.
    pub fn with<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, Exhausted> {
        let mut slots = self.clone();
        let used: BTreeSet<u16> = self.taken.values().copied().collect();
        let mut free = (0..MAX_RULES).filter(|slot| !used.contains(slot));
        for name in names {
            if !slots.taken.contains_key(name) {
                slots.taken.insert(name.to_owned(), free.next().ok_or(Exhausted)?);
            }
        }
        Ok(slots)
    }

    /// Only the slots of these names: once every link carries the incoming policy.
    pub fn only<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let taken = self.taken.iter().filter(|(name, _)| names.contains(name.as_str()));
        Self { taken: taken.map(|(name, slot)| (name.clone(), *slot)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_not_reused_before_its_rule_is_gone_from_every_link() {
        let before = Slots::default().with(["list/a", "rate/b"]).unwrap();
        let during = before.with(["rate/b", "size/c"]).unwrap();
        assert_eq!(during.get("list/a"), before.get("list/a"));
        assert_eq!(during.get("rate/b"), before.get("rate/b"));
        assert_eq!(during.get("size/c"), Some(2));
        let after = during.only(["rate/b", "size/c"]);
        assert_eq!(after.get("list/a"), None);
        assert_eq!(after.with(["list/d"]).unwrap().get("list/d"), Some(0));
        assert_eq!(Slots::from_names(["", "rate/b", "size/c"]), after);
    }

    #[test]
    fn running_out_is_said() {
        let names: Vec<String> = (0..=MAX_RULES).map(|n| format!("list/{n}")).collect();
        assert_eq!(Slots::default().with(names.iter().map(String::as_str)), Err(Exhausted));
    }
}
