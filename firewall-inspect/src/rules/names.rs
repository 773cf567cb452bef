//! The names of TX, each with a number, so that nobody looks them up while a request waits.

use std::collections::HashMap;

/// `TX:0` to `TX:9`, which are the first ten.
pub(crate) const GROUPS: u32 = 10;

#[derive(Debug)]
pub(crate) struct Names {
    numbers: HashMap<Box<[u8]>, u32>,
    names: Vec<Box<[u8]>>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self { numbers: HashMap::new(), names: Vec::new() };
        for group in 0..GROUPS {
            names.number(group.to_string().as_bytes());
        }
        names
    }
}

impl Names {
    /// Of a name in any case, which is made known.
    pub(crate) fn number(&mut self, name: &[u8]) -> u32 {
        let name = name.to_ascii_lowercase().into_boxed_slice();
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    /// Of a name in lower case, if it is known.
    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn name(&self, number: u32) -> &[u8] {
        &self.names[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}
