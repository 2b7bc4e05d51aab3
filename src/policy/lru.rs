//! Least recently used: one list in order of last use, where a hit renews and the oldest goes.
//!
//! What was used lately is likely to be used again. Exact, and O(1) a hit; the list is the one of
//! CPython's `functools.lru_cache`. Weak against scans longer than the cache, which evict everything.

use super::{List, Policy, Slot};
use std::collections::TryReserveError;

/// Evicts the entry whose last use, a store or a hit, is oldest.
#[derive(Debug, Default)]
pub struct Lru {
    by_use: List,
}

impl Policy for Lru {
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
        self.by_use.oldest()
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
}
