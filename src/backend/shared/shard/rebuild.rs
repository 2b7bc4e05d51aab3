//! Repair: the index, the order, the counts and the free chunks, made anew from the slots.

#[cfg(test)]
use super::chunks::place_of;
use super::insert::earlier;
use super::order::tick_of;
use super::slots::{Copied, header};
use super::{Shard, control};
use crate::backend::shared::atomic::Ordering;

impl Shard<'_> {
    /// Rebuilds everything derived, from the slots.
    pub(super) fn rebuild(&self) {
        if self.slots() == 0 {
            self.control(control::COUNT).store(0, Ordering::Relaxed);
            return;
        }
        for place in self.index() {
            place.store(0, Ordering::Relaxed);
        }
        self.control(control::TOMBS).store(0, Ordering::Relaxed);
        let mut owners = vec![false; self.chunks()];
        let (mut count, mut newest, mut earliest) = (0, 0, 0);
        let mut buffer = Vec::new();
        for slot in 0..self.slots() {
            let is_whole = self.header(slot, header::SEQ).load(Ordering::Relaxed) & 1 == 0
                && self.is_occupied(slot)
                && matches!(self.copy_any(slot, &mut buffer), Copied::Entry)
                && self.chain(slot).is_some_and(|chain| chain.iter().all(|&chunk| !owners[chunk]));
            if !is_whole {
                if self.is_occupied(slot) || self.header(slot, header::SEQ).load(Ordering::Relaxed) & 1 == 1 {
                    self.unwrite(slot);
                }
                self.stamp(slot).store(0, Ordering::Relaxed);
                continue;
            }
            for chunk in self.chain(slot).unwrap_or_default() {
                owners[chunk] = true;
            }
            let hash = self.header(slot, header::HASH).load(Ordering::Relaxed);
            if self.index_insert(hash, slot).is_none() {
                // The index has more places than there are slots. It is full only if another process writes as well, since it
                // took this one for dead.
                self.unwrite(slot);
                self.stamp(slot).store(0, Ordering::Relaxed);
                continue;
            }
            count += 1;
            let stamp = self.stamp(slot);
            if stamp.load(Ordering::Relaxed) == 0 {
                // It was stored a moment ago, and its stamp was not.
                stamp.store(self.next_stamp(0), Ordering::Relaxed);
            }
            newest = newest.max(tick_of(self.strategy, stamp.load(Ordering::Relaxed)));
            earliest = earlier(earliest, self.header(slot, header::EXPIRES).load(Ordering::Relaxed));
        }
        self.control(control::EARLIEST).store(earliest, Ordering::Relaxed);
        self.control(control::COUNT).store(count, Ordering::Relaxed);
        self.control(control::TICK).fetch_max(newest, Ordering::Relaxed);
        let mut free = 0;
        for chunk in (0..self.chunks()).rev() {
            if !owners[chunk] {
                self.chunk_link(chunk).store(free, Ordering::Relaxed);
                free = chunk as u64 + 1;
            }
        }
        self.control(control::FREE_CHUNK).store(free, Ordering::Relaxed);
    }

    /// Panics if anything derived disagrees with the slots.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let occupied: Vec<_> = (0..self.slots()).filter(|&slot| self.is_occupied(slot)).collect();
        assert_eq!(self.len(), occupied.len(), "the count");
        assert_eq!(self.control(control::DIRTY).load(Ordering::Relaxed), 0, "the dirty mark");
        let mut taken = vec![false; self.chunks()];
        for &slot in &occupied {
            let hash = self.header(slot, header::HASH).load(Ordering::Relaxed);
            assert_eq!(self.candidates(hash).filter(|&found| found == slot).count(), 1, "slot {slot} in the index");
            assert_ne!(self.stamp(slot).load(Ordering::Relaxed), 0, "slot {slot} in the order");
            for chunk in self.chain(slot).expect("a whole chain") {
                assert!(!std::mem::replace(&mut taken[chunk], true), "chunk {chunk} has one owner");
            }
        }
        let mut next = self.control(control::FREE_CHUNK).load(Ordering::Relaxed);
        while let Some(chunk) = place_of(next, self.chunks()) {
            assert!(!std::mem::replace(&mut taken[chunk], true), "chunk {chunk} is free once");
            next = self.chunk_link(chunk).load(Ordering::Relaxed);
        }
        assert!(taken.iter().all(|&taken| taken), "every chunk is someone's, or free");
    }
}
