//! Least frequently used, exact and O(1): a list of groups in order of hit count, each a list of slots in order of use.
//!
//! A hit moves a slot from its group to the one of the next count; the victim is the oldest slot of the first group.
//! Shah, Mitra and Matani, "An O(1) algorithm for implementing the LFU cache eviction scheme", 2010.

use super::{Policy, Slot};
use std::collections::TryReserveError;

/// The number of a group. Group 0 is both ends of the list of groups.
type GroupId = u32;

#[derive(Clone, Copy, Debug)]
struct Link {
    /// The slot used next after this one in its group, or `NONE` for the newest.
    newer: Slot,
    /// The slot used last before this one in its group, or `NONE` for the oldest.
    older: Slot,
    group: GroupId,
}

/// The slots that have the same number of hits. Never empty while it is in use.
#[derive(Clone, Copy, Debug)]
struct Group {
    hits: u64,
    newest: Slot,
    oldest: Slot,
    /// The group with fewer hits.
    fewer: GroupId,
    /// The group with more hits; of a group not in use, the next such group.
    more: GroupId,
}

const ENDS: Group = Group { hits: 0, newest: Slot::NONE, oldest: Slot::NONE, fewer: 0, more: 0 };
const ALONE: Link = Link { newer: Slot::NONE, older: Slot::NONE, group: 0 };

/// Evicts the entry with the fewest hits since it was stored; among equals, the one used longest ago.
#[derive(Debug)]
pub struct Lfu {
    links: Vec<Link>,
    groups: Vec<Group>,
    /// The first group not in use, 0 for none.
    spare: GroupId,
}

impl Default for Lfu {
    fn default() -> Self {
        Self { links: vec![ALONE], groups: vec![ENDS], spare: 0 }
    }
}

impl Policy for Lfu {
    fn try_reserve(&mut self, slot: Slot) -> Result<(), TryReserveError> {
        let needed = (slot.index() + 1).saturating_sub(self.links.len());
        self.links.try_reserve(needed)?;
        // A hit may make a group, and must not fail: there is one for each slot, one for the slot that moves, and the ends.
        let most = slot.index().max(self.links.len()) + 2;
        self.groups.try_reserve(most.saturating_sub(self.groups.len()))
    }

    #[inline(never)]
    fn insert(&mut self, slot: Slot, _hash: u64) {
        if slot.index() >= self.links.len() {
            self.links.resize(slot.index() + 1, ALONE);
        }
        let first = self.groups[0].more;
        let group =
            if first != 0 && self.groups[first as usize].hits == 0 { first } else { self.new_group(0, 0, first) };
        self.link(slot, group);
    }

    #[inline]
    fn hit(&mut self, slot: Slot) {
        let from = self.links[slot.index()].group;
        let Group { hits, newest, oldest, more, .. } = self.groups[from as usize];
        let joins_next = more != 0 && self.groups[more as usize].hits == hits + 1;
        if newest == oldest && !joins_next {
            // Alone in its group, and nobody has one hit more: the group moves with it.
            self.groups[from as usize].hits = hits + 1;
        } else {
            self.move_up(slot, from, joins_next);
        }
    }

    #[inline(never)]
    fn remove(&mut self, slot: Slot) {
        let group = self.links[slot.index()].group;
        self.unlink(slot, group);
        if self.groups[group as usize].newest == Slot::NONE {
            self.free_group(group);
        }
    }

    fn victim(&self) -> Option<Slot> {
        let fewest = self.groups[0].more;
        (fewest != 0).then(|| self.groups[fewest as usize].oldest)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Lfu {
    /// Moves `slot` from its group to the next, which may have to be made.
    #[inline(never)]
    fn move_up(&mut self, slot: Slot, from: GroupId, joins_next: bool) {
        let Group { hits, more, .. } = self.groups[from as usize];
        self.unlink(slot, from);
        let to = if joins_next { more } else { self.new_group(hits + 1, from, more) };
        self.link(slot, to);
        if self.groups[from as usize].newest == Slot::NONE {
            self.free_group(from);
        }
    }

    /// Makes `slot` the newest of `group`.
    #[inline]
    fn link(&mut self, slot: Slot, group: GroupId) {
        let into = &mut self.groups[group as usize];
        let second = std::mem::replace(&mut into.newest, slot);
        if second == Slot::NONE {
            into.oldest = slot;
        } else {
            self.links[second.index()].newer = slot;
        }
        self.links[slot.index()] = Link { newer: Slot::NONE, older: second, group };
    }

    /// Takes `slot` out of `group`, which may be left empty.
    #[inline]
    fn unlink(&mut self, slot: Slot, group: GroupId) {
        let Link { newer, older, .. } = self.links[slot.index()];
        let from = &mut self.groups[group as usize];
        if newer == Slot::NONE {
            from.newest = older;
        } else {
            self.links[newer.index()].older = older;
        }
        if older == Slot::NONE {
            from.oldest = newer;
        } else {
            self.links[older.index()].newer = newer;
        }
    }

    /// An empty group for `hits`, linked between two neighbours.
    fn new_group(&mut self, hits: u64, fewer: GroupId, more: GroupId) -> GroupId {
        let group = Group { hits, newest: Slot::NONE, oldest: Slot::NONE, fewer, more };
        let id = self.spare;
        let id = if id == 0 {
            self.groups.push(group);
            // There are at most two groups more than slots, and slots are numbered by u32.
            GroupId::try_from(self.groups.len() - 1).unwrap_or(0)
        } else {
            self.spare = self.groups[id as usize].more;
            self.groups[id as usize] = group;
            id
        };
        self.groups[fewer as usize].more = id;
        self.groups[more as usize].fewer = id;
        id
    }

    /// Unlinks an empty group and keeps it for reuse.
    fn free_group(&mut self, id: GroupId) {
        let Group { fewer, more, .. } = self.groups[id as usize];
        self.groups[fewer as usize].more = more;
        self.groups[more as usize].fewer = fewer;
        self.groups[id as usize].more = self.spare;
        self.spare = id;
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
        for index in 1..=64 {
            policy.try_reserve(slot(index)).expect("memory for a few slots");
            policy.insert(slot(index), 0);
        }
        let reserved = policy.groups.capacity();
        for round in 1..=64 {
            for index in round..=64 {
                policy.hit(slot(index));
            }
        }
        assert_eq!(policy.groups.capacity(), reserved);
        assert!(policy.groups.len() <= 66, "{} groups for 64 slots", policy.groups.len());
        assert_eq!(policy.victim(), Some(slot(1)));
    }
}
