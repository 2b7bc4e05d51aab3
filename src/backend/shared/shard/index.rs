//! The index: from a hash to the slots that may have its entry. Open addressing, place after place.
//!
//! Readers search it while the owner of the lock changes it. They trust a slot's own words alone.

use super::chunks::place_of;
use super::slots::header;
use super::{Shard, control};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::AtomicU64;

/// In the index: there was an entry, and the search goes on.
const TOMB: u64 = u64::MAX;

impl<'a> Shard<'a> {
    /// The slots that may have an entry of this hash.
    #[inline(always)]
    pub(super) fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (index, slots) = (self.index(), self.slots());
        let mask = index.len() - 1;
        let first = place_in_index(hash, mask);
        (0..index.len())
            .map(move |step| index[(first + step) & mask].load(Ordering::Acquire))
            .take_while(|&word| word != 0)
            .filter(move |&word| word != TOMB && word >> 32 == hash >> 32)
            .filter_map(move |word| place_of(word & u64::from(u32::MAX), slots))
    }

    pub(super) fn index_insert(&self, hash: u64, slot: usize) -> Option<()> {
        let index = self.index();
        let mask = index.len() - 1;
        let first = place_in_index(hash, mask);
        let places = (0..index.len()).map(|step| &index[(first + step) & mask]);
        let place = places.into_iter().find(|place| matches!(place.load(Ordering::Relaxed), 0 | TOMB))?;
        if place.load(Ordering::Relaxed) == TOMB {
            let tombs = self.control(control::TOMBS);
            tombs.store(tombs.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
        place.store((hash >> 32 << 32) | (slot as u64 + 1), Ordering::Release);
        Some(())
    }

    pub(super) fn index_remove(&self, hash: u64, slot: usize) {
        let index = self.index();
        let mask = index.len() - 1;
        let first = place_in_index(hash, mask);
        let word = (hash >> 32 << 32) | (slot as u64 + 1);
        for step in 0..index.len() {
            let at = (first + step) & mask;
            match index[at].load(Ordering::Relaxed) {
                0 => return,
                found if found == word => {
                    // Nothing is behind it: then there is nothing that a search has to go on for.
                    if index[(at + 1) & mask].load(Ordering::Relaxed) == 0 {
                        index[at].store(0, Ordering::Release);
                        return;
                    }
                    index[at].store(TOMB, Ordering::Release);
                    let tombs = self.control(control::TOMBS);
                    let many = tombs.load(Ordering::Relaxed).saturating_add(1);
                    tombs.store(many, Ordering::Relaxed);
                    if many > index.len() as u64 / 4 {
                        self.reindex(slot);
                    }
                    return;
                }
                _ => {}
            }
        }
    }

    /// Makes the index anew without one slot.
    fn reindex(&self, without: usize) {
        for place in self.index() {
            place.store(0, Ordering::Relaxed);
        }
        self.control(control::TOMBS).store(0, Ordering::Relaxed);
        for slot in (0..self.slots()).filter(|&slot| slot != without && self.is_occupied(slot)) {
            let _ = self.index_insert(self.header(slot, header::HASH).load(Ordering::Relaxed), slot);
        }
    }

    pub(super) fn index(&self) -> &'a [AtomicU64] {
        &self.words[..self.geometry.index_places()]
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the mask keeps the lower bits only")]
fn place_in_index(hash: u64, mask: usize) -> usize {
    hash as usize & mask
}
