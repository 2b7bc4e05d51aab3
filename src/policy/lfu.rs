//! Least frequently used, exact and O(1): one list of slots in order of hit count, and among equals in order of use.
//!
//! The slots of one count are a group, which knows its newest slot: a hit moves a slot behind the newest of the next group,
//! and the victim is the oldest slot of the list. Shah, Mitra and Matani, "An O(1) algorithm for implementing the LFU cache
//! eviction scheme", 2010, whose list of lists is flat here.

use super::{List, Policy, Slot};
use std::collections::TryReserveError;

/// The number of a group. Group 0 is the one of the list's ends.
type GroupId = u32;

/// The slots that have the same number of hits: neighbours in the list. Never empty while it is in use.
#[derive(Clone, Copy, Debug)]
struct Group {
    hits: u64,
    newest: Slot,
    /// The next group, of more hits; of a group not in use, the next such group.
    more: GroupId,
}

/// The ends have no slot's number of hits and one more, so that no slot joins them.
const ENDS: Group = Group { hits: 0, newest: Slot::NONE, more: 0 };

/// Evicts the entry with the fewest hits since it was stored; among equals, the one used longest ago.
#[derive(Debug)]
pub struct Lfu {
    /// Each marked with its group.
    by_hits: List<GroupId>,
    groups: Vec<Group>,
    /// The first group not in use, 0 for none.
    spare: GroupId,
}

impl Default for Lfu {
    fn default() -> Self {
        Self { by_hits: List::default(), groups: vec![ENDS], spare: 0 }
    }
}

impl Policy for Lfu {
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        self.by_hits.try_grow(last)?;
        // A hit may make a group, and must not fail: there is one for each slot, one for the slot that moves, and the ends.
        self.groups.try_reserve_exact((last.index() + 2).saturating_sub(self.groups.len()))
    }

    #[inline(never)]
    fn insert(&mut self, slot: Slot, _hash: u64) {
        let first = self.groups[0].more;
        let (group, newest) = match self.groups[first as usize] {
            Group { hits: 0, newest, .. } if first != 0 => (first, newest),
            _ => (self.new_group(0, 0), Slot::NONE),
        };
        self.groups[group as usize].newest = slot;
        self.by_hits.push_after(newest, slot, group);
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot) {
        let from = self.by_hits.mark(slot);
        let Group { hits, newest, more } = self.groups[from as usize];
        if self.groups[more as usize].hits == hits + 1 {
            if newest == slot {
                self.join_as_newest(slot, from);
            } else {
                self.join(slot, more);
            }
        } else if newest == slot && self.by_hits.mark(self.by_hits.older(slot)) != from {
            // Alone in its group: the group goes with it.
            self.groups[from as usize].hits = hits + 1;
        } else {
            self.part(slot, from);
        }
    }

    #[inline(never)]
    fn remove(&mut self, slot: Slot) {
        let group = self.by_hits.mark(slot);
        if self.groups[group as usize].newest == slot {
            self.take_newest(slot, group);
        }
        self.by_hits.remove(slot);
    }

    #[inline]
    fn reuse(&mut self, slot: Slot, hash: u64) {
        let group = self.by_hits.mark(slot);
        let Group { hits, newest, .. } = self.groups[group as usize];
        if hits != 0 {
            self.remove(slot);
            self.insert(slot, hash);
        } else if newest != slot {
            // The usual case: the victim has never been hit, and is among equals.
            self.groups[group as usize].newest = slot;
            self.by_hits.move_after(newest, slot, group);
        }
    }

    #[inline]
    fn victim(&self) -> Option<Slot> {
        self.by_hits.oldest()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Lfu {
    /// Moves a slot to the next group, which is not the newest of its own.
    #[inline(always)]
    fn join(&mut self, slot: Slot, next: GroupId) {
        let newest_of_next = std::mem::replace(&mut self.groups[next as usize].newest, slot);
        self.by_hits.move_after(newest_of_next, slot, next);
    }

    /// Moves the newest slot of a group to the next group.
    #[inline(never)]
    fn join_as_newest(&mut self, slot: Slot, from: GroupId) {
        let next = self.groups[from as usize].more;
        self.take_newest(slot, from);
        self.join(slot, next);
    }

    /// Moves `slot` out of a group of several, one hit ahead, where no group is.
    #[inline(never)]
    fn part(&mut self, slot: Slot, from: GroupId) {
        let Group { hits, newest, .. } = self.groups[from as usize];
        let newest = if newest == slot { self.by_hits.older(slot) } else { newest };
        self.groups[from as usize].newest = newest;
        let to = self.new_group(hits + 1, from);
        self.groups[to as usize].newest = slot;
        self.by_hits.move_after(newest, slot, to);
    }

    /// Takes the newest slot out of its group, before it leaves its place in the list.
    fn take_newest(&mut self, slot: Slot, group: GroupId) {
        let older = self.by_hits.older(slot);
        let fewer = self.by_hits.mark(older);
        if fewer == group {
            self.groups[group as usize].newest = older;
        } else {
            // It was alone.
            let more = std::mem::replace(&mut self.groups[group as usize].more, self.spare);
            self.groups[fewer as usize].more = more;
            self.spare = group;
        }
    }

    /// An empty group for `hits`, after the one of fewer hits.
    fn new_group(&mut self, hits: u64, fewer: GroupId) -> GroupId {
        let group = Group { hits, newest: Slot::NONE, more: self.groups[fewer as usize].more };
        let mut id = self.spare;
        if id == 0 {
            self.groups.push(group);
            // There are at most two groups more than slots, and slots are numbered by u32.
            id = GroupId::try_from(self.groups.len() - 1).unwrap_or(0);
        } else {
            self.spare = std::mem::replace(&mut self.groups[id as usize], group).more;
        }
        self.groups[fewer as usize].more = id;
        id
    }

    /// Checks that the groups are those of the slots. For tests.
    #[cfg(test)]
    fn validate(&self) {
        let slots = self.by_hits.slots();
        let mut in_use = std::collections::BTreeSet::new();
        let mut before = 0;
        for neighbours in slots.chunk_by(|&one, &other| self.by_hits.mark(one) == self.by_hits.mark(other)) {
            let id = self.by_hits.mark(neighbours[0]);
            let group = self.groups[id as usize];
            assert!(id != 0 && in_use.insert(id), "{id} is in two places");
            assert_eq!(Some(&group.newest), neighbours.last());
            assert_eq!(self.groups[before as usize].more, id);
            assert!(before == 0 || self.groups[before as usize].hits < group.hits);
            before = id;
        }
        assert_eq!(self.groups[before as usize].more, 0);
        let mut spare = self.spare;
        while spare != 0 {
            assert!(in_use.insert(spare), "{spare} is in use and spare");
            spare = self.groups[spare as usize].more;
        }
        assert_eq!(in_use.len() + 1, self.groups.len(), "a group is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{evicted, slot};
    use super::*;

    #[test]
    fn the_fewest_hits_go() {
        assert_eq!(evicted(Lfu::default(), 3, &[1, 2, 3, 1, 1, 2, 4, 5]), [3, 4]);
    }

    #[test]
    fn among_equals_the_one_used_longest_ago_goes() {
        assert_eq!(evicted(Lfu::default(), 3, &[1, 2, 3, 2, 1, 3, 4, 5, 6]), [2, 4, 5]);
    }

    #[test]
    fn hits_are_forgotten_with_the_entry() {
        assert_eq!(evicted(Lfu::default(), 1, &[1, 1, 1, 2, 1, 3]), [1, 2, 1]);
    }

    #[test]
    fn hits_allocate_nothing_once_the_slots_are_reserved() {
        let mut policy = Lfu::default();
        policy.try_grow(slot(64)).expect("memory for a few slots");
        for index in 1..=64 {
            policy.insert(slot(index), 0);
        }
        let reserved = policy.groups.capacity();
        for round in 1..=64 {
            for index in round..=64 {
                policy.hit(slot(index));
                policy.validate();
            }
        }
        assert_eq!(policy.groups.capacity(), reserved);
        assert!(policy.groups.len() <= 66, "{} groups for 64 slots", policy.groups.len());
        assert_eq!(policy.victim(), Some(slot(1)));
    }
}
