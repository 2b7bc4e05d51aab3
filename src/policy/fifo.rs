//! First in, first out: one list in order of storing, which hits do not touch.
//!
//! The cheapest order to keep. Right where age decides and not use.

use super::{List, Policy, Slot};
use std::collections::TryReserveError;

/// Evicts the entry that was stored first.
#[derive(Debug, Default)]
pub struct Fifo {
    by_age: List,
}

impl Policy for Fifo {
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        self.by_age.try_grow(last)
    }

    #[inline]
    fn insert(&mut self, slot: Slot, _hash: u64) {
        self.by_age.push(slot);
    }

    #[inline]
    fn hit(&mut self, _slot: Slot) {}

    #[inline]
    fn remove(&mut self, slot: Slot) {
        self.by_age.remove(slot);
    }

    #[inline]
    fn reuse(&mut self, slot: Slot, _hash: u64) {
        self.by_age.renew(slot);
    }

    #[inline]
    fn victim(&self) -> Option<Slot> {
        self.by_age.oldest()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::evicted;
    use super::*;

    #[test]
    fn the_first_stored_goes_whatever_was_hit() {
        assert_eq!(evicted(Fifo::default(), 3, &[1, 2, 3, 1, 1, 4, 5]), [1, 2]);
    }
}
