//! A doubly linked list of slots, linked by number in one flat vector.
//!
//! Slot 0 is both ends, so no link is ever absent and no operation has a special case.

use super::{Slot, grow};
use std::collections::TryReserveError;

#[derive(Clone, Copy, Debug, Default)]
struct Link<M> {
    newer: Slot,
    older: Slot,
    mark: M,
}

/// Slots in an order from newest to oldest. Every operation is O(1); 8 bytes a slot, and a mark for each.
#[derive(Debug)]
pub(crate) struct List<M = ()> {
    links: Vec<Link<M>>,
}

impl<M: Copy + Default> Default for List<M> {
    fn default() -> Self {
        Self { links: vec![Link::default()] }
    }
}

impl<M: Copy + Default> List<M> {
    /// Makes room for all slots up to `last`.
    pub(crate) fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        grow(&mut self.links, last, Link::default())
    }

    /// Puts a slot that is not in the list at its new end.
    #[inline]
    pub(crate) fn push(&mut self, slot: Slot) {
        self.link_newest(slot);
    }

    /// Takes a slot that is in the list out of it.
    #[inline(always)]
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Link { newer, older, .. } = self.links[slot.index()];
        self.links[newer.index()].older = older;
        self.links[older.index()].newer = newer;
    }

    /// Puts a slot that is not in the list after `older`, or at the old end if that is `Slot::NONE`.
    #[inline(always)]
    pub(crate) fn push_after(&mut self, older: Slot, slot: Slot, mark: M) {
        let newer = std::mem::replace(&mut self.links[older.index()].newer, slot);
        self.links[newer.index()].older = slot;
        self.links[slot.index()] = Link { newer, older, mark };
    }

    /// Moves a slot that is in the list after `older`, which is another one or `Slot::NONE`.
    #[inline(always)]
    pub(crate) fn move_after(&mut self, older: Slot, slot: Slot, mark: M) {
        self.remove(slot);
        self.push_after(older, slot, mark);
    }

    /// The mark of a slot in the list. That of `Slot::NONE` is the default.
    #[inline(always)]
    pub(crate) fn mark(&self, slot: Slot) -> M {
        self.links[slot.index()].mark
    }

    /// The slot before this one in age, or `Slot::NONE` for the oldest.
    #[inline(always)]
    pub(crate) fn older(&self, slot: Slot) -> Slot {
        self.links[slot.index()].older
    }

    /// Moves a slot that is in the list to its new end.
    #[inline(always)]
    pub(crate) fn renew(&mut self, slot: Slot) {
        if self.links[0].older != slot {
            self.move_to_newest(slot);
        }
    }

    #[inline(never)]
    fn move_to_newest(&mut self, slot: Slot) {
        self.remove(slot);
        self.link_newest(slot);
    }

    /// The slot pushed or renewed last.
    #[inline]
    pub(crate) fn newest(&self) -> Option<Slot> {
        Some(self.links[0].older).filter(|&slot| slot != Slot::NONE)
    }

    /// The slot whose last push or renewal is longest ago.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<Slot> {
        Some(self.links[0].newer).filter(|&slot| slot != Slot::NONE)
    }

    #[inline]
    fn link_newest(&mut self, slot: Slot) {
        // Seen from the end marker, "older" leads into the list at its new end, and "newer" at its old end.
        let second = self.links[0].older;
        let link = &mut self.links[slot.index()];
        (link.newer, link.older) = (Slot::NONE, second);
        self.links[second.index()].newer = slot;
        self.links[0].older = slot;
    }

    /// The slots from oldest to newest, with both directions of every link checked.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut at = Slot::NONE;
        loop {
            let next = self.links[at.index()].newer;
            assert_eq!(self.links[next.index()].older, at, "links of {at:?} and {next:?} disagree");
            if next == Slot::NONE {
                return slots;
            }
            slots.push(next);
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_follows_pushes_renewals_and_removals() {
        let mut list: List = List::default();
        list.try_grow(Slot(4)).expect("memory for a few slots");
        assert_eq!((list.newest(), list.oldest()), (None, None));
        for slot in [1, 2, 3, 4].map(Slot) {
            list.push(slot);
        }
        list.renew(Slot(2));
        list.renew(Slot(2));
        list.remove(Slot(3));
        assert_eq!(list.slots(), [1, 4, 2].map(Slot));
        assert_eq!((list.newest(), list.oldest()), (Some(Slot(2)), Some(Slot(1))));
        list.push(Slot(3));
        assert_eq!(list.slots(), [1, 4, 2, 3].map(Slot));
    }

    #[test]
    fn a_list_of_one_is_its_own_newest_and_oldest() {
        let mut list: List = List::default();
        list.try_grow(Slot(7)).expect("memory for a few slots");
        list.push(Slot(7));
        list.renew(Slot(7));
        assert_eq!((list.newest(), list.oldest()), (Some(Slot(7)), Some(Slot(7))));
        list.remove(Slot(7));
        assert_eq!(list.slots(), []);
    }
}
