//! Chunks, for entries that do not fit into a slot: a chain for each of these, and a chain of the free ones.

use super::geometry::Geometry;
use super::slots::{drain, header};
use super::{Room, Shard, control};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::AtomicU64;

/// So many chunks get room at a time: 64 kB.
const CHUNK_GROUP: usize = 128;

impl<'a> Shard<'a> {
    /// Makes room for more chunks.
    pub(super) fn extend_chunks(&self, room: &impl Room) -> bool {
        let now = self.chunks();
        let then = (now + CHUNK_GROUP).min(self.geometry.chunks);
        let start = |chunks: usize| self.geometry.chunks_start() + chunks * Geometry::CHUNK;
        if now == then || !room.extend(start(now)..start(then)) {
            return false;
        }
        self.control(control::CHUNKS).store(then as u64, Ordering::Relaxed);
        for chunk in (now..then).rev() {
            self.push_chunk(chunk);
        }
        true
    }

    pub(super) fn pop_chunk(&self) -> Option<usize> {
        let head = self.control(control::FREE_CHUNK);
        let chunk = place_of(head.load(Ordering::Relaxed), self.chunks())?;
        let link = self.chunk_link(chunk).load(Ordering::Relaxed);
        // A free one has no owner.
        (link >> 32 == 0).then(|| {
            head.store(link, Ordering::Relaxed);
            chunk
        })
    }

    pub(super) fn push_chunk(&self, chunk: usize) {
        let head = self.control(control::FREE_CHUNK);
        self.chunk_link(chunk).store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        head.store(chunk as u64 + 1, Ordering::Relaxed);
    }

    pub(super) fn free_chunks(&self, slot: usize) {
        for chunk in self.chain(slot).unwrap_or_default() {
            self.push_chunk(chunk);
        }
    }

    /// The chunks of a slot's entry, if they are its own and as many as it needs.
    pub(super) fn chain(&self, slot: usize) -> Option<Vec<usize>> {
        let needed = Geometry::chunks_for(self.bytes_of(slot)?);
        let mut chain = Vec::with_capacity(needed);
        let mut next = self.header(slot, header::CHUNK).load(Ordering::Relaxed);
        for _ in 0..needed {
            let chunk = place_of(next, self.chunks())?;
            let link = self.chunk_link(chunk).load(Ordering::Relaxed);
            if link >> 32 != slot as u64 + 1 {
                return None;
            }
            chain.push(chunk);
            next = link & u64::from(u32::MAX);
        }
        (next == 0).then_some(chain)
    }

    /// Copies a chain of chunks. False if it ends too early.
    pub(super) fn drain_chunks(&self, mut next: u64, mut rest: &mut [u8]) -> bool {
        while !rest.is_empty() {
            let Some(chunk) = place_of(next, self.chunks()) else { return false };
            next = self.chunk_link(chunk).load(Ordering::Relaxed) & u64::from(u32::MAX);
            rest = drain(self.chunk(chunk), rest);
        }
        true
    }

    pub(super) fn chunk_link(&self, chunk: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.chunks_start() + chunk * Geometry::CHUNK]
    }

    pub(super) fn chunk(&self, chunk: usize) -> &'a [AtomicU64] {
        let start = self.geometry.chunks_start() + chunk * Geometry::CHUNK;
        &self.words[start + 1..start + Geometry::CHUNK]
    }
}

/// The place that a number in shared memory names: one less, and 0 names none. A damaged number is beyond `places`, and names
/// none.
pub(super) fn place_of(number: u64, places: usize) -> Option<usize> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    (place < places).then_some(place)
}
