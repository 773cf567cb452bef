//! What looking at a transaction may cost: bytes that are read, each time that they are.
//!
//! A request of N bytes has some values with N bytes in all, which are transformed in a few ways and looked at by a few rules.
//! One that is made so that much more is to be done has the rest of it left undone, which [`Budget::is_spent`] tells.
//! Counted, not timed: the same request always comes to the same.

/// What any transaction may cost, and more for each of its bytes.
const FREE: u64 = 64 << 20;
const FOR_EACH_BYTE: u64 = 512;
/// What looking at a value costs, however short it is.
const FOR_EACH_VALUE: u64 = 32;

#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    spent: bool,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: FREE, spent: false }
    }

    /// So many bytes came.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(FOR_EACH_BYTE * bytes as u64);
    }

    /// So many bytes of a value are read: whether that may go on.
    pub(super) fn look(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(FOR_EACH_VALUE + bytes as u64) {
            Some(left) if !self.spent => self.left = left,
            _ => self.spent = true,
        }
        !self.spent
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let mut budget = Budget::new();
        assert!(budget.look((FREE - FOR_EACH_VALUE) as usize));
        budget.grant(1);
        assert!(budget.look((FOR_EACH_BYTE - FOR_EACH_VALUE) as usize) && !budget.is_spent());
        assert!(!budget.look(0) && budget.is_spent());
        budget.grant(1000);
        assert!(!budget.look(1) && budget.is_spent());
    }
}
