//! Compiles allow and block lists into the entries of a longest-prefix-match table.
//!
//! The longest match alone answers, so each entry says what the shorter prefixes around it say, too: a host that one list
//! names and another list's network contains is still judged by both.

use firewall_common::{address::Addr, counter::NO_RULE, prefix::ListEntry};

/// An entry of the table: address, prefix length in the 128-bit space, what the lists say.
pub type Entry = (Addr, u8, ListEntry);

/// A prefix of one list: address and length as in [`Entry`], and what that list alone says.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub address: Addr,
    pub length: u8,
    pub says: ListEntry,
}

/// Table entries of `members`, which may come in any order and repeat; where lists name the same prefix, the earlier one is
/// credited. Entries that change nothing against the prefix around them are left out.
pub fn compile(mut members: Vec<Member>) -> Vec<Entry> {
    // Networks before what they contain; the sort is stable, so equal prefixes keep the order of the lists.
    members.sort_by_key(|member| (member.address.halves(), member.length));
    let mut entries: Vec<Entry> = Vec::with_capacity(members.len());
    // Prefixes around the current one, each within the one before.
    let mut around: Vec<Entry> = Vec::new();
    let mut rest = members.as_slice();
    while let Some(first) = rest.first() {
        let same =
            rest.iter().take_while(|other| (other.address, other.length) == (first.address, first.length)).count();
        let own = rest[..same].iter().fold(ListEntry::NONE, |own, member| overlay(own, member.says));
        rest = &rest[same..];
        while around.pop_if(|(address, length, _)| first.address.masked(*length) != *address).is_some() {}
        let outer = around.last().map_or(ListEntry::NONE, |(_, _, says)| *says);
        let entry = (first.address, first.length, overlay(own, outer));
        if entry.2 != outer {
            entries.push(entry);
        }
        around.push(entry);
    }
    entries
}

/// `near`, completed by what `far` says beside it. An allow list ends the question.
fn overlay(near: ListEntry, far: ListEntry) -> ListEntry {
    let pick = |near: u16, far: u16| if near == NO_RULE { far } else { near };
    let allow = pick(near.allow, far.allow);
    if allow != NO_RULE {
        return ListEntry { allow, ..ListEntry::NONE };
    }
    ListEntry { block: pick(near.block, far.block), monitor: pick(near.monitor, far.monitor), ..ListEntry::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn says(kind: u8, slot: u16) -> ListEntry {
        match kind {
            0 => ListEntry { allow: slot, ..ListEntry::NONE },
            1 => ListEntry { block: slot, ..ListEntry::NONE },
            _ => ListEntry { monitor: slot, ..ListEntry::NONE },
        }
    }

    fn member(high: u64, length: u8, says: ListEntry) -> Member {
        Member { address: Addr::from_halves(high, 0).masked(length), length, says }
    }

    /// Longest match in the compiled table.
    fn lookup(entries: &[Entry], address: Addr) -> ListEntry {
        entries
            .iter()
            .filter(|(prefix, length, _)| address.masked(*length) == *prefix)
            .max_by_key(|(_, length, _)| *length)
            .map_or(ListEntry::NONE, |(_, _, says)| *says)
    }

    /// Every list asked on its own.
    fn plain(members: &[Member], address: Addr) -> ListEntry {
        let longest = |pick: fn(&ListEntry) -> u16| {
            members
                .iter()
                .filter(|member| address.masked(member.length) == member.address && pick(&member.says) != NO_RULE)
                .rev()
                .max_by_key(|member| member.length)
                .map_or(NO_RULE, |member| pick(&member.says))
        };
        let allow = longest(|says| says.allow);
        if allow != NO_RULE {
            return ListEntry { allow, ..ListEntry::NONE };
        }
        ListEntry { block: longest(|says| says.block), monitor: longest(|says| says.monitor), ..ListEntry::NONE }
    }

    proptest! {
        /// Addresses of few bits, so that prefixes nest and repeat.
        #[test]
        fn answers_as_every_list_would(
            lists in prop::collection::vec((0u64..16, 0u8..=6, 0u8..3, 0u16..8), 0..24),
            probes in prop::collection::vec(0u64..64, 1..32),
        ) {
            let members: Vec<Member> =
                lists.iter().map(|(bits, length, kind, slot)| member(bits << 60, *length, says(*kind, *slot))).collect();
            let entries = compile(members.clone());
            for probe in probes {
                let address = Addr::from_halves(probe << 58, 7);
                prop_assert_eq!(lookup(&entries, address), plain(&members, address), "{:?}", address);
            }
        }
    }

    #[test]
    fn a_monitored_host_in_a_blocked_network_is_blocked() {
        let entries = compile(vec![
            member(1 << 63, 2, says(1, 5)),
            member(3 << 62, 8, says(2, 6)),
            member(1 << 63, 9, says(2, 7)),
        ]);
        let inside = lookup(&entries, Addr::from_halves(1 << 63, 1));
        assert_eq!((inside.block, inside.monitor), (5, 7));
    }

    #[test]
    fn what_an_allow_list_covers_takes_no_room() {
        let entries = compile(vec![member(1 << 63, 2, says(0, 1)), member(1 << 63, 9, says(1, 2))]);
        assert_eq!(entries.len(), 1);
    }
}
