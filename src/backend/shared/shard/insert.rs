//! Storing and removing, under the lock: find a slot, expire, evict, make room.

use super::geometry::Geometry;
use super::slots::{Copied, header};
use super::{Draft, Kept, Room, Shard, control};
use crate::backend::shared::atomic::Ordering;

/// So many slots get room at a time: a page.
pub(super) const SLOT_GROUP: usize = 16;

impl Shard<'_> {
    pub(super) fn insert(&self, draft: &Draft<'_>, room: &impl Room) -> Kept {
        let mut evicted = 0;
        let mut buffer = Vec::new();
        let found = if self.slots() == 0 { None } else { self.find(draft.hash, draft.key, &mut buffer) };
        let slot = if let Some(slot) = found {
            // No reader may follow a chain that is taken apart.
            self.begin_write(slot);
            self.free_chunks(slot);
            slot
        } else if let Some(slot) = self.place_for_one_more(draft.now, room, &mut evicted) {
            slot
        } else {
            return Kept::NoRoom;
        };
        let needed = Geometry::chunks_for(draft.key.len() + draft.value.len());
        let mut chain = Vec::with_capacity(needed);
        while chain.len() < needed {
            if let Some(chunk) = self.pop_chunk() {
                chain.push(chunk);
            } else if !self.extend_chunks(room) {
                if self.evict(Some(slot), &mut evicted).is_some() {
                    self.release(1);
                    continue;
                }
                for chunk in chain {
                    self.push_chunk(chunk);
                }
                if found.is_some() {
                    self.empty(slot);
                }
                self.release(1);
                return Kept::NoRoom;
            }
        }
        self.write(slot, draft, &chain);
        if found.is_none() {
            if self.index_insert(draft.hash, slot).is_none() {
                self.rebuild();
            }
            let count = self.control(control::COUNT);
            count.store(self.len() as u64 + 1, Ordering::Relaxed);
        }
        let earliest = self.control(control::EARLIEST);
        earliest.store(earlier(earliest.load(Ordering::Relaxed), draft.expires), Ordering::Relaxed);
        self.stamp(slot).store(self.next_stamp(0), Ordering::Relaxed);
        if evicted > 0 { Kept::Evicted(evicted) } else { Kept::Stored }
    }

    /// An empty slot for a newcomer, which the total counts already: one that was empty, or that of an expired entry, or the
    /// victim's.
    fn place_for_one_more(&self, now: u64, room: &impl Room, evicted: &mut usize) -> Option<usize> {
        if let Some(slot) = self.reserve_vacant(room) {
            return Some(slot);
        }
        if self.expire(now)
            && let Some(slot) = self.reserve_vacant(room)
        {
            return Some(slot);
        }
        // The victim's place in the total is the newcomer's.
        let slot = self.evict(None, evicted);
        if let (None, Some(total)) = (slot, &self.total) {
            // It is unlikely that all entries are elsewhere: the total may be wrong.
            total.mark();
        }
        slot
    }

    fn reserve_vacant(&self, room: &impl Room) -> Option<usize> {
        if self.len() >= self.geometry.slots || !self.total.is_none_or(|total| total.reserve()) {
            return None;
        }
        let slot = self.vacant().or_else(|| self.extend_slots(room));
        if slot.is_none() {
            self.release(1);
        }
        slot
    }

    pub(super) fn release(&self, entries: u64) {
        if let Some(total) = &self.total {
            total.release(entries);
        }
    }

    /// Empties the victim's slot, which is not `but`.
    fn evict(&self, but: Option<usize>, evicted: &mut usize) -> Option<usize> {
        let victim = self.victim(but)?;
        self.empty(victim);
        *evicted += 1;
        Some(victim)
    }

    /// Empties the slots of expired entries. Returns whether there were any.
    fn expire(&self, now: u64) -> bool {
        let hint = self.control(control::EARLIEST);
        let earliest = hint.load(Ordering::Relaxed);
        if earliest == 0 || now < earliest {
            return false;
        }
        let (mut expired, mut earliest) = (0, 0);
        for slot in 0..self.slots() {
            if self.stamp(slot).load(Ordering::Relaxed) == 0 {
                continue;
            }
            let expires = self.header(slot, header::EXPIRES).load(Ordering::Relaxed);
            if expires != 0 && expires <= now {
                self.empty(slot);
                expired += 1;
            } else {
                earliest = earlier(earliest, expires);
            }
        }
        hint.store(earliest, Ordering::Relaxed);
        self.release(expired);
        expired > 0
    }

    /// Makes room for more slots, and returns the first of them.
    fn extend_slots(&self, room: &impl Room) -> Option<usize> {
        let now = self.slots();
        let then = (now + SLOT_GROUP).min(self.geometry.slots);
        let start = |slots: usize| self.geometry.slots_start() + slots * Geometry::SLOT;
        // The index and the stamps come with the first slots.
        let from = if now == 0 { 0 } else { start(now) };
        if now == then || !room.extend(from..start(then)) {
            return None;
        }
        self.control(control::SLOTS).store(then as u64, Ordering::Release);
        Some(now)
    }

    /// The slot of a key.
    pub(super) fn find(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Option<usize> {
        self.candidates(hash).find(|&slot| {
            matches!(self.copy(slot, hash, key.len(), buffer), Copied::Entry) && buffer.get(..key.len()) == Some(key)
        })
    }

    /// The first empty slot.
    fn vacant(&self) -> Option<usize> {
        if self.len() >= self.slots() {
            return None;
        }
        (0..self.slots()).find(|&slot| self.stamp(slot).load(Ordering::Relaxed) == 0)
    }

    /// Empties an occupied slot and takes it out of all that is derived.
    pub(super) fn empty(&self, slot: usize) {
        let hash = self.header(slot, header::HASH).load(Ordering::Relaxed);
        self.index_remove(hash, slot);
        self.begin_write(slot);
        self.free_chunks(slot);
        self.unwrite(slot);
        self.stamp(slot).store(0, Ordering::Relaxed);
        let count = self.control(control::COUNT);
        count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// The earlier of two times, of which 0 is none.
pub(super) fn earlier(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one | other } else { one.min(other) }
}
