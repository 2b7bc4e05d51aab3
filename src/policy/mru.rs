//! Most recently used: the list of LRU, read from its other end.
//!
//! For loops over more keys than fit: what was used last is needed last. Chou and DeWitt, "An evaluation of buffer
//! management strategies for relational database systems", VLDB 1985.

use super::{List, Policy, Slot};
use std::collections::TryReserveError;

/// Evicts the entry whose last use, a store or a hit, is newest.
#[derive(Debug, Default)]
pub struct Mru {
    by_use: List,
}

impl Policy for Mru {
    fn try_reserve(&mut self, slot: Slot) -> Result<(), TryReserveError> {
        self.by_use.try_reserve(slot)
    }

    #[inline]
    fn insert(&mut self, slot: Slot) {
        self.by_use.push(slot);
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot) {
        self.by_use.renew(slot);
    }

    #[inline]
    fn remove(&mut self, slot: Slot) {
        self.by_use.remove(slot);
    }

    #[inline]
    fn reuse(&mut self, slot: Slot) {
        self.by_use.renew(slot);
    }

    #[inline]
    fn victim(&self) -> Option<Slot> {
        self.by_use.newest()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::evicted;
    use super::*;

    #[test]
    fn the_most_recently_used_goes_and_never_the_newcomer() {
        assert_eq!(evicted(Mru::default(), 3, &[1, 2, 3, 1, 4, 5]), [1, 4]);
    }

    #[test]
    fn a_loop_longer_than_the_cache_keeps_hitting() {
        assert_eq!(evicted(Mru::default(), 2, &[1, 2, 3, 1, 2, 3, 1]), [2, 1, 3]);
    }
}
