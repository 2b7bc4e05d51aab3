//! Slots by hash: an array of buckets, each the first of a chain of slots that are linked by number.
//!
//! The hashes are the caller's, and so are the keys: the index says where to look. A look at a bucket and one at an entry
//! are all that most look-ups take, hits and misses; to insert is to write two numbers, and nothing is left behind by a
//! removal. Knuth, "The Art of Computer Programming", volume 3, 6.4, algorithm C.
//!
//! The low bits of a hash choose its bucket, so they must be spread well.

use crate::policy::{Slot, grow};
use std::collections::TryReserveError;

/// More slots than this are in no cache of the processor.
const LARGE: usize = 1 << 16;

/// The slots that may have a hash.
#[derive(Debug)]
pub(crate) struct Index {
    /// The first slot of each chain. Their number is a power of two.
    buckets: Box<[Slot]>,
    /// The slot after each in its chain. After `Slot::NONE` comes `Slot::NONE`.
    next: Vec<Slot>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { buckets: Box::new([Slot::NONE]), next: vec![Slot::NONE], len: 0 }
    }
}

impl Index {
    /// The number of slots in it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first slot that may have this hash. None is [`Slot::NONE`].
    #[inline(always)]
    pub(crate) fn first(&self, hash: u64) -> Slot {
        self.buckets[self.bucket(hash)]
    }

    /// The slot after `slot` that may have the same hash. The order changes only with the slots that are in.
    #[inline(always)]
    pub(crate) fn next(&self, slot: Slot) -> Slot {
        self.next[slot.index()]
    }

    /// Makes room for all slots up to `last`.
    pub(crate) fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        grow(&mut self.next, last, Slot::NONE)
    }

    /// Adds a slot that is not in, as the last of its hash: among equal hashes the order is that of coming, as in a `dict`.
    #[inline(always)]
    pub(crate) fn insert(&mut self, hash: u64, slot: Slot) {
        self.len += 1;
        self.next[slot.index()] = Slot::NONE;
        let bucket = self.bucket(hash);
        let mut at = self.buckets[bucket];
        if at == Slot::NONE {
            self.buckets[bucket] = slot;
            return;
        }
        loop {
            let next = &mut self.next[at.index()];
            if *next == Slot::NONE {
                *next = slot;
                return;
            }
            at = *next;
        }
    }

    /// Takes out a slot that was added with this hash.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, slot: Slot) {
        let after = self.next[slot.index()];
        let bucket = self.bucket(hash);
        self.len -= 1;
        let mut at = self.buckets[bucket];
        if at == slot {
            self.buckets[bucket] = after;
            return;
        }
        while at != Slot::NONE {
            let next = self.next[at.index()];
            if next == slot {
                self.next[at.index()] = after;
                return;
            }
            at = next;
        }
    }

    /// Spreads all slots, `held` with their hashes, over as many buckets as `slots` need: four for three, or more, and twice as
    /// many where all that a chain leads to is in no cache. Without memory for them the chains stay as they are, and get longer.
    ///
    /// In the order of their numbers, so that the caller's hashes are read one after another: from chain to chain, each would
    /// be a look at memory that is in no cache.
    pub(crate) fn spread(&mut self, slots: usize, held: impl Iterator<Item = (u64, Slot)>) {
        let wanted = (slots + slots / 3).next_power_of_two() << usize::from(slots > LARGE);
        let mut buckets = Vec::new();
        if wanted <= self.buckets.len() || buckets.try_reserve_exact(wanted).is_err() {
            return;
        }
        buckets.resize(wanted, Slot::NONE);
        self.buckets = buckets.into();
        self.len = 0;
        for (hash, slot) in held {
            self.insert(hash, slot);
        }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SLOTS: u32 = 40;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a `Vec` of hashes and slots in the order in which they came.
        #[test]
        fn slots_of_a_hash_are_found_in_the_order_in_which_they_came(
            hashes in prop::collection::vec(0..12_u64, SLOTS as usize + 1),
            steps in prop::collection::vec((1..=SLOTS, 0..10_u32), 0..200),
        ) {
            let hash = |slot: Slot| hashes[slot.index()];
            let mut index = Index::default();
            index.try_grow(Slot(SLOTS)).expect("memory for a few slots");
            let mut model: Vec<Slot> = Vec::new();
            for (slot, dice) in steps {
                let slot = Slot(slot);
                if dice == 0 {
                    let before = index.buckets.len();
                    let mut held = model.clone();
                    held.sort_unstable();
                    index.spread(model.len() + 1, held.iter().map(|&slot| (hash(slot), slot)));
                    if index.buckets.len() > before {
                        model = held;
                    }
                } else if let Some(place) = model.iter().position(|&held| held == slot) {
                    index.remove(hash(slot), slot);
                    model.remove(place);
                } else {
                    index.insert(hash(slot), slot);
                    model.push(slot);
                }
                prop_assert_eq!(index.len(), model.len());
                for wanted in 0..12 {
                    let chain = std::iter::successors(Some(index.first(wanted)), |&slot| Some(index.next(slot)));
                    let chain = chain.take_while(|&slot| slot != Slot::NONE).filter(|&slot| hash(slot) == wanted);
                    let expected = model.iter().copied().filter(|&slot| hash(slot) == wanted);
                    prop_assert!(chain.eq(expected));
                }
            }
        }
    }
}
