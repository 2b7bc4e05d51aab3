//! Least and most recently used: one list in order of last use, whose oldest or newest slot goes.
//!
//! LRU: an entry used lately is likely to be used again. Exact, and O(1) a hit; the list is the one of CPython's
//! `functools.lru_cache`. Weak against scans longer than the cache, which evict everything.
//!
//! MRU: for loops over more keys than fit, where the entry used last is needed last. Chou and DeWitt, "An evaluation of
//! buffer management strategies for relational database systems", VLDB 1985.

use super::{List, Policy, Slot};
use std::collections::TryReserveError;

/// Evicts the entry whose last use, a store or a hit, is oldest.
pub type Lru = Recency<false>;

/// Evicts the entry whose last use, a store or a hit, is newest.
pub type Mru = Recency<true>;

/// Evicts from one end of the order of last use.
#[derive(Debug, Default)]
pub struct Recency<const NEWEST_FIRST: bool> {
    by_use: List,
}

impl<const NEWEST_FIRST: bool> Policy for Recency<NEWEST_FIRST> {
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        self.by_use.try_grow(last)
    }

    #[inline]
    fn insert(&mut self, slot: Slot, _hash: u64) {
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
    fn reuse(&mut self, slot: Slot, _hash: u64) {
        self.by_use.renew(slot);
    }

    #[inline]
    fn victim(&self) -> Option<Slot> {
        if NEWEST_FIRST { self.by_use.newest() } else { self.by_use.oldest() }
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
    fn the_least_recently_used_goes() {
        assert_eq!(evicted(Lru::default(), 3, &[1, 2, 3, 1, 4, 5]), [2, 3]);
    }

    #[test]
    fn a_scan_longer_than_the_cache_evicts_everything() {
        assert_eq!(evicted(Lru::default(), 2, &[1, 2, 3, 1, 2, 3]), [1, 2, 3, 1]);
    }

    #[test]
    fn the_most_recently_used_goes_and_never_the_newcomer() {
        assert_eq!(evicted(Mru::default(), 3, &[1, 2, 3, 1, 4, 5]), [1, 4]);
    }

    #[test]
    fn a_loop_longer_than_the_cache_keeps_hitting() {
        assert_eq!(evicted(Mru::default(), 2, &[1, 2, 3, 1, 2, 3, 1]), [2, 1, 3]);
    }
}
