//! A slot: its words, and how an entry is written to them and copied out while others write.

use super::geometry::Geometry;
use super::{Draft, Shard};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::{AtomicU64, fence};

/// Words of a slot's header.
pub(super) mod header {
    /// Odd while the slot is written.
    pub(crate) const SEQ: usize = 0;
    pub(crate) const HASH: usize = 1;
    /// When the entry expires, on the region's clock; 0: never.
    pub(crate) const EXPIRES: usize = 2;
    /// Bytes of the key in the lower half, of the value in the upper, and `OCCUPIED`.
    pub(crate) const LENGTHS: usize = 3;
    /// The number of the first chunk, + 1.
    pub(crate) const CHUNK: usize = 4;
    pub(crate) const CHECKSUM: usize = 5;
}

/// In a slot's lengths: there is an entry.
const OCCUPIED: u64 = 1 << 63;

/// The outcome of copying a slot.
pub(super) enum Copied {
    /// An entry of another key, or none.
    Other,
    /// An entry with a wrong checksum or impossible lengths.
    Damaged,
    Entry,
}

impl<'a> Shard<'a> {
    /// Writes an entry into a slot.
    pub(super) fn write(&self, slot: usize, draft: &Draft<'_>, chain: &[usize]) {
        let seq = self.begin_write(slot);
        let lengths = OCCUPIED | (draft.value.len() as u64) << 32 | draft.key.len() as u64;
        let entry = [draft.key, draft.value].concat();
        let first = chain.first().map_or(0, |&chunk| chunk as u64 + 1);
        for (word, value) in [
            (header::HASH, draft.hash),
            (header::EXPIRES, draft.expires),
            (header::LENGTHS, lengths),
            (header::CHUNK, first),
            (header::CHECKSUM, checksum(draft.hash, lengths, draft.expires, &entry)),
        ] {
            self.header(slot, word).store(value, Ordering::Relaxed);
        }
        let mut bytes = &entry[..];
        fill(self.inline(slot), &mut bytes);
        for (place, &chunk) in chain.iter().enumerate() {
            let next = chain.get(place + 1).map_or(0, |&next| next as u64 + 1);
            self.chunk_link(chunk).store((slot as u64 + 1) << 32 | next, Ordering::Relaxed);
            fill(self.chunk(chunk), &mut bytes);
        }
        self.end_write(slot, seq);
    }

    /// Marks a slot as empty.
    pub(super) fn unwrite(&self, slot: usize) {
        let seq = self.begin_write(slot);
        self.header(slot, header::LENGTHS).store(0, Ordering::Relaxed);
        self.end_write(slot, seq);
    }

    pub(super) fn begin_write(&self, slot: usize) -> u64 {
        let seq = self.header(slot, header::SEQ);
        // Odd already where a writer has died.
        let odd = seq.load(Ordering::Relaxed) | 1;
        seq.store(odd, Ordering::Relaxed);
        // No word of the entry may be seen before it.
        fence(Ordering::Release);
        odd
    }

    fn end_write(&self, slot: usize, seq: u64) {
        self.header(slot, header::SEQ).store(seq.wrapping_add(1), Ordering::Release);
    }

    /// Copies a slot's key and value into `buffer`, if its entry has this hash and a key of that length.
    #[inline(always)]
    pub(super) fn copy(&self, slot: usize, hash: u64, key_len: usize, buffer: &mut Vec<u8>) -> Copied {
        let stored = lengths(self.header(slot, header::LENGTHS).load(Ordering::Relaxed));
        let is_it = self.header(slot, header::HASH).load(Ordering::Relaxed) == hash
            && stored.is_some_and(|(key, _)| key == key_len);
        if is_it { self.copy_any(slot, buffer) } else { Copied::Other }
    }

    #[inline(always)]
    pub(super) fn copy_any(&self, slot: usize, buffer: &mut Vec<u8>) -> Copied {
        let word = |word| self.header(slot, word).load(Ordering::Relaxed);
        let (lengths, expires) = (word(header::LENGTHS), word(header::EXPIRES));
        let Some(bytes) = self.bytes_of(slot) else { return Copied::Damaged };
        buffer.resize(bytes, 0);
        let rest = drain(self.inline(slot), buffer);
        if !rest.is_empty() && !self.drain_chunks(word(header::CHUNK), rest) {
            return Copied::Damaged;
        }
        if checksum(word(header::HASH), lengths, expires, buffer) == word(header::CHECKSUM) {
            Copied::Entry
        } else {
            Copied::Damaged
        }
    }

    pub(super) fn is_occupied(&self, slot: usize) -> bool {
        self.header(slot, header::LENGTHS).load(Ordering::Relaxed) & OCCUPIED != 0
    }

    /// The bytes of a slot's entry, if there is one and it is no larger than any.
    pub(super) fn bytes_of(&self, slot: usize) -> Option<usize> {
        let (key, value) = lengths(self.header(slot, header::LENGTHS).load(Ordering::Relaxed))?;
        Some(key + value).filter(|&bytes| bytes <= self.geometry.most_bytes)
    }

    #[inline(always)]
    pub(super) fn header(&self, slot: usize, word: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.slots_start() + slot * Geometry::SLOT + word]
    }

    pub(super) fn inline(&self, slot: usize) -> &'a [AtomicU64] {
        let start = self.geometry.slots_start() + slot * Geometry::SLOT;
        &self.words[start + Geometry::HEADER..start + Geometry::SLOT]
    }
}

/// The lengths of key and value, if there is an entry.
fn lengths(word: u64) -> Option<(usize, usize)> {
    let key = usize::try_from(word & u64::from(u32::MAX)).ok()?;
    let value = usize::try_from((word & !OCCUPIED) >> 32).ok()?;
    (word & OCCUPIED != 0).then_some((key, value))
}

/// The checksum of all parts of an entry. A changed word changes it, since multiplying by an odd number loses nothing.
#[inline(always)]
fn checksum(hash: u64, lengths: u64, expires: u64, bytes: &[u8]) -> u64 {
    if cfg!(loom) {
        // The models do without.
        return 0;
    }
    xxhash_rust::xxh3::xxh3_64(bytes)
        ^ hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ lengths.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ expires.wrapping_mul(0x1656_67b1_9e37_79f9)
}

/// Stores the next bytes, as far as there are any, in words.
fn fill(words: &[AtomicU64], bytes: &mut &[u8]) {
    let (now, later) = bytes.split_at(bytes.len().min(size_of_val(words)));
    let (whole, rest) = now.as_chunks();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_le_bytes(last), Ordering::Relaxed);
    }
    *bytes = later;
}

/// Copies words to the start of `bytes`, as far as both go, and returns the rest of `bytes`.
#[inline(always)]
pub(super) fn drain<'b>(words: &[AtomicU64], bytes: &'b mut [u8]) -> &'b mut [u8] {
    let most = bytes.len().min(size_of_val(words));
    let (now, later) = bytes.split_at_mut(most);
    let (whole, rest) = now.as_chunks_mut();
    for (chunk, word) in whole.iter_mut().zip(words) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
    if !rest.is_empty() {
        let last = words[whole.len()].load(Ordering::Relaxed).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
    later
}
