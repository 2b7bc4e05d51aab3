//! A doubly linked list of slots, linked by number in one flat vector.
//!
//! Slot 0 is both ends, so no link is ever absent and no operation has a special case.

use super::Slot;
use std::collections::TryReserveError;

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: Slot,
    older: Slot,
}

const ALONE: Link = Link { newer: Slot::NONE, older: Slot::NONE };

/// Slots in an order from newest to oldest. Every operation is O(1); 8 bytes a slot.
#[derive(Debug)]
pub(crate) struct List {
    links: Vec<Link>,
}

impl Default for List {
    fn default() -> Self {
        Self { links: vec![ALONE] }
    }
}

impl List {
    /// Makes room for the link of `slot`.
    pub(crate) fn try_reserve(&mut self, slot: Slot) -> Result<(), TryReserveError> {
        let needed = (slot.index() + 1).saturating_sub(self.links.len());
        self.links.try_reserve(needed)
    }

    /// Puts a slot that is not in the list at its new end.
    #[inline]
    pub(crate) fn push(&mut self, slot: Slot) {
        if slot.index() >= self.links.len() {
            self.grow(slot);
        }
        self.link_newest(slot);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, slot: Slot) {
        self.links.resize(slot.index() + 1, ALONE);
    }

    /// Takes a slot that is in the list out of it.
    #[inline]
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Link { newer, older } = self.links[slot.index()];
        self.links[newer.index()].older = older;
        self.links[older.index()].newer = newer;
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
        self.links[slot.index()] = Link { newer: Slot::NONE, older: second };
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
        let mut list = List::default();
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
        let mut list = List::default();
        list.push(Slot(7));
        list.renew(Slot(7));
        assert_eq!((list.newest(), list.oldest()), (Some(Slot(7)), Some(Slot(7))));
        list.remove(Slot(7));
        assert_eq!(list.slots(), []);
    }
}
