//! The values that rules look at, as they came: bytes in one place, and where each value is among them.

use crate::{rules::rule::Source, seclang::Variable};

#[derive(Debug)]
pub(super) struct Store {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Of each source, the first of its entries and the one behind the last.
    ranges: Box<[(u32, u32); Source::COUNT]>,
}

/// A value, and the member's name; of what has no members, that is empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) source: Source,
    name: (u32, u32),
    pub(super) value: (u32, u32),
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(4096),
            entries: Vec::with_capacity(96),
            ranges: Box::new([(0, 0); Source::COUNT]),
        }
    }

    fn text(&mut self, text: &[u8]) -> (u32, u32) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        (start, self.bytes.len() as u32)
    }

    /// Adds a value behind those that its source has. All values of a source come one after another.
    pub(super) fn put(&mut self, source: Source, name: &[u8], value: &[u8]) {
        let (name, value) = (self.text(name), self.text(value));
        self.enter(Entry { source, name, value });
    }

    fn enter(&mut self, entry: Entry) {
        let next = self.entries.len() as u32;
        let range = &mut self.ranges[entry.source.index()];
        if range.0 == range.1 {
            *range = (next, next);
        }
        debug_assert_eq!(range.1, next, "values of a source come one after another");
        range.1 = next + 1;
        self.entries.push(entry);
    }

    /// Adds the value of what has no members; none if it is empty.
    pub(super) fn put_one(&mut self, variable: Variable, value: &[u8]) {
        if !value.is_empty() {
            self.put(Source::of(variable), b"", value);
        }
    }

    /// Adds the names of a source's members as values of another.
    pub(super) fn put_names(&mut self, of: Variable, to: Variable) {
        for index in self.range(Source::of(of)) {
            let name = self.entries[index].name;
            self.enter(Entry { source: Source::of(to), name, value: name });
        }
    }

    pub(super) fn range(&self, source: Source) -> std::ops::Range<usize> {
        let (start, end) = self.ranges[source.index()];
        start as usize..end as usize
    }

    /// The bytes of all names and values of a source, and perhaps others.
    pub(super) fn all_of(&self, source: Source) -> &[u8] {
        let entries = &self.entries[self.range(source)];
        let ends = entries.first().zip(entries.last()).map(|(first, last)| (first.name.0, last.value.1));
        ends.map_or(b"", |(start, end)| &self.bytes[start as usize..end as usize])
    }

    pub(super) fn name(&self, entry: usize) -> &[u8] {
        let (start, end) = self.entries[entry].name;
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn value(&self, entry: usize) -> &[u8] {
        let (start, end) = self.entries[entry].value;
        &self.bytes[start as usize..end as usize]
    }

    /// The first value of a variable, of the member with this name in any case if there is one.
    pub(super) fn first(&self, variable: Variable, member: Option<&[u8]>) -> Option<&[u8]> {
        let sources = crate::rules::rule::Sources::of(variable);
        let mut entries = sources.iter().flat_map(|source| self.range(source));
        entries
            .find(|entry| member.is_none_or(|member| self.name(*entry).eq_ignore_ascii_case(member)))
            .map(|entry| self.value(entry))
    }
}
