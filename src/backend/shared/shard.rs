//! One shard of a region: slots, which are the truth, and an index, an order and counts, which are derived from them.
//!
//! ```text
//! control   lock | dirty | count | tick | tombs | free chunk | chunks | –        one line
//! events    steals | repairs | damaged | give-ups | …                            one line
//! index     a word a place: the hash's upper half, the slot's number + 1
//! stamps    a word a slot: its place in the order of eviction; 0: the slot is empty
//! slots     seq | hash | expires | lengths | first chunk | checksum | – | –       then the first 192 bytes
//! chunks    owner + 1, next + 1                                                  then 504 bytes
//! ```
//!
//! A reader takes no lock and waits for nobody. It copies an entry out, word by word, and believes the copy if the slot's
//! sequence number is even and the same before and after, and the checksum is right. It tries four times and then says
//! that it has found nothing, which a cache may always say.
//!
//! A writer holds the lock, a word that names its process. Before its first change it sets the dirty mark, after its last
//! it takes it away. Whoever finds the mark, or had to take the lock from a dead process, first rebuilds all that is
//! derived: an entry that was being written is dropped, and all others stay.

use super::geometry::Geometry;
use super::liveness::Owner;
use crate::options::Strategy;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// How often a reader tries before it says that there is nothing.
const TRIES: usize = 4;
/// How long anybody waits for a shard.
pub const BUDGET: Duration = Duration::from_millis(100);
/// So many chunks get room at a time: 64 kB.
const GROUP: usize = 128;
/// For how long an owner is believed to be at work before it is asked whether it lives.
const PATIENCE: Duration = Duration::from_millis(1);

/// Words of the control line.
mod control {
    pub(super) const LOCK: usize = 0;
    pub(super) const DIRTY: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const TICK: usize = 3;
    pub(super) const TOMBS: usize = 4;
    /// The number of the first free chunk, + 1.
    pub(super) const FREE_CHUNK: usize = 5;
    /// How many chunks there is room for on the file system. No other may be touched.
    pub(super) const CHUNKS: usize = 6;
}

/// What a shard counts for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The lock was taken from a dead process.
    Steal = 8,
    /// The shard was rebuilt.
    Repair,
    /// A checksum, or something else that must agree, was wrong.
    Damage,
    /// The lock could not be had in time.
    GiveUp,
}

/// Words of a slot's header.
mod header {
    /// Odd while the slot is written.
    pub(super) const SEQ: usize = 0;
    pub(super) const HASH: usize = 1;
    /// When the entry's time is over, on the region's clock; 0: never.
    pub(super) const EXPIRES: usize = 2;
    /// Bytes of the key in the lower half, of the value in the upper, and `OCCUPIED`.
    pub(super) const LENGTHS: usize = 3;
    /// The number of the first chunk, + 1.
    pub(super) const CHUNK: usize = 4;
    pub(super) const CHECKSUM: usize = 5;
}

/// In a slot's lengths: there is an entry.
const OCCUPIED: u64 = 1 << 63;
/// In the index: there was an entry, and the search goes on.
const TOMB: u64 = u64::MAX;

/// Knows this process, and who else lives.
pub trait Census {
    /// The word of this process.
    fn me(&self) -> Owner;
    /// Whether the process still lives. It may be asked of this one, too.
    fn is_alive(&self, owner: Owner) -> bool;
}

/// Makes room on the file system.
pub trait Room {
    /// Makes room for the chunks of these numbers, which nobody uses yet. Returns whether there is.
    fn extend(&self, chunks: Range<usize>) -> bool;
}

/// What an entry is made of.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The hash of the key.
    pub hash: u64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// When its time is over, on the region's clock; 0: never.
    pub expires: u64,
}

/// What came of storing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored, in a place of its own or that of an entry with the same key.
    Stored,
    /// It is stored in the place of this many others.
    Evicted(usize),
    /// It is larger than any may be.
    TooLarge,
    /// The file system has no room for it, and no other entry could make any.
    NoRoom,
}

/// Nobody waits longer than `BUDGET`: the shard could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaveUp;

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The slot in which it is.
    slot: usize,
    /// The slot's sequence number then.
    seq: u64,
    /// Where in the buffer the value begins. It goes on to the end.
    pub value_start: usize,
}

/// A shard, as this process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    words: &'a [AtomicU64],
    geometry: Geometry,
    strategy: Strategy,
    /// Keeps the threads of this process apart, so that only processes meet at the lock word.
    local: &'a Mutex<()>,
}

/// A shard that this process holds.
struct Held<'a, 's> {
    shard: &'s Shard<'a>,
    owner: Owner,
    _local: MutexGuard<'a, ()>,
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        // Whatever else is in the word, the shard was taken from us: another process thinks that this one is dead.
        let lock = self.shard.control(control::LOCK);
        let _ = lock.compare_exchange(self.owner.word(), 0, Ordering::Release, Ordering::Relaxed);
    }
}

impl<'a> Shard<'a> {
    /// The shard in `words`, which must be all zero if it is new. `None` if there are not as many as the geometry says.
    pub fn new(words: &'a [AtomicU64], geometry: Geometry, strategy: Strategy, local: &'a Mutex<()>) -> Option<Self> {
        (words.len() == geometry.words()).then_some(Self { words, geometry, strategy, local })
    }

    /// How often something has happened, in all processes.
    pub fn events(&self, event: Event) -> u64 {
        self.control(event as usize).load(Ordering::Relaxed)
    }

    fn note(&self, event: Event) {
        self.control(event as usize).fetch_add(1, Ordering::Relaxed);
    }

    /// Looks a key up and copies key and value into `buffer`, whose capacity is used again.
    pub fn read(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Option<Found> {
        for _ in 0..TRIES {
            match self.try_read(hash, key, buffer) {
                Ok(found) => return found,
                Err(Changed) => std::hint::spin_loop(),
            }
        }
        None
    }

    fn try_read(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Result<Option<Found>, Changed> {
        for slot in self.candidates(hash) {
            let seq = self.header(slot, header::SEQ).load(Ordering::Acquire);
            if seq & 1 == 1 {
                return Err(Changed);
            }
            let copied = self.copy(slot, hash, key.len(), buffer);
            fence(Ordering::Acquire);
            if self.header(slot, header::SEQ).load(Ordering::Relaxed) != seq {
                return Err(Changed);
            }
            match copied {
                Copied::Other => {}
                Copied::Damaged => self.note(Event::Damage),
                Copied::Entry => {
                    if buffer.get(..key.len()) == Some(key) {
                        return Ok(Some(Found { slot, seq, value_start: key.len() }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// When the time of an entry that was found is over; 0: never.
    pub fn expires(&self, found: &Found) -> u64 {
        self.header(found.slot, header::EXPIRES).load(Ordering::Relaxed)
    }

    /// Notes a hit in the order of eviction.
    pub fn touch(&self, found: &Found) {
        if self.strategy == Strategy::Fifo {
            return;
        }
        let stamp = self.stamp(found.slot);
        let now = stamp.load(Ordering::Relaxed);
        let newest = self.control(control::TICK).load(Ordering::Relaxed);
        if now == 0 || (self.strategy != Strategy::Lfu && now == newest) {
            return;
        }
        let next = self.next_stamp(now);
        // Only if the slot has not been emptied or used again meanwhile.
        if self.header(found.slot, header::SEQ).load(Ordering::Relaxed) == found.seq {
            let _ = stamp.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Stores an entry, in the place of one with the same key if there is one.
    pub fn keep(&self, draft: &Draft<'_>, census: &impl Census, room: &impl Room) -> Result<Kept, GaveUp> {
        if draft.key.len() + draft.value.len() > self.geometry.most_bytes {
            return Ok(Kept::TooLarge);
        }
        let held = self.lock(census)?;
        Ok(held.change(|| self.insert(draft, room)))
    }

    /// Removes the entry of a key. Returns whether there was one, and when its time was over.
    pub fn remove(&self, hash: u64, key: &[u8], census: &impl Census) -> Result<Option<u64>, GaveUp> {
        let held = self.lock(census)?;
        let mut buffer = Vec::new();
        let Some(slot) = self.find(hash, key, &mut buffer) else { return Ok(None) };
        let expires = self.header(slot, header::EXPIRES).load(Ordering::Relaxed);
        held.change(|| self.empty(slot));
        Ok(Some(expires))
    }

    /// Removes all entries.
    pub fn clear(&self, census: &impl Census) -> Result<(), GaveUp> {
        let held = self.lock(census)?;
        held.change(|| {
            for slot in 0..self.geometry.slots {
                if self.is_occupied(slot) {
                    self.unwrite(slot);
                }
            }
            self.rebuild();
        });
        Ok(())
    }

    /// How many entries there are, those whose time is over among them.
    pub fn len(&self) -> usize {
        usize::try_from(self.control(control::COUNT).load(Ordering::Relaxed)).unwrap_or(0).min(self.geometry.slots)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // The lock

    fn lock<'s>(&'s self, census: &impl Census) -> Result<Held<'a, 's>, GaveUp> {
        let deadline = Instant::now() + BUDGET;
        let local = self.lock_local(deadline).inspect_err(|GaveUp| self.note(Event::GiveUp))?;
        let owner = census.me();
        let lock = self.control(control::LOCK);
        let mut pause = Pause::default();
        let mut seen: Option<(u64, Instant)> = None;
        let was_stolen = loop {
            let free = lock.compare_exchange(0, owner.word(), Ordering::Acquire, Ordering::Relaxed);
            let Err(holder) = free else { break false };
            let now = Instant::now();
            match seen {
                Some((word, since)) if word == holder => {
                    let is_dead = now - since > PATIENCE && !census.is_alive(Owner::from_word(holder));
                    // The very word that was asked about: nobody else's lock is taken, and none is taken twice.
                    if is_dead
                        && lock.compare_exchange(holder, owner.word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
                    {
                        break true;
                    }
                }
                _ => seen = Some((holder, now)),
            }
            if now > deadline {
                self.note(Event::GiveUp);
                return Err(GaveUp);
            }
            pause.wait();
        };
        let held = Held { shard: self, owner, _local: local };
        if was_stolen {
            self.note(Event::Steal);
        }
        if was_stolen || self.control(control::DIRTY).load(Ordering::Relaxed) != 0 {
            self.note(Event::Repair);
            held.change(|| self.rebuild());
        }
        Ok(held)
    }

    fn lock_local(&self, deadline: Instant) -> Result<MutexGuard<'a, ()>, GaveUp> {
        let mut pause = Pause::default();
        loop {
            match self.local.try_lock() {
                Ok(guard) => return Ok(guard),
                // What it guards is in shared memory, where the dirty mark says all.
                Err(TryLockError::Poisoned(guard)) => return Ok(guard.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(GaveUp),
                Err(TryLockError::WouldBlock) => pause.wait(),
            }
        }
    }

    // Under the lock

    fn insert(&self, draft: &Draft<'_>, room: &impl Room) -> Kept {
        let mut evicted = 0;
        let mut buffer = Vec::new();
        let slot = match self.find(draft.hash, draft.key, &mut buffer) {
            Some(slot) => {
                // No reader may follow a chain that is taken apart.
                self.begin_write(slot);
                self.free_chunks(slot);
                slot
            }
            None => match self.vacant().or_else(|| self.evict(None, &mut evicted)) {
                Some(slot) => slot,
                None => return Kept::NoRoom,
            },
        };
        let is_new = !self.is_occupied(slot);
        let needed = Geometry::chunks_for(draft.key.len() + draft.value.len());
        let mut chain = Vec::with_capacity(needed);
        while chain.len() < needed {
            if let Some(chunk) = self.pop_chunk() {
                chain.push(chunk);
            } else if !self.extend(room) && self.evict(Some(slot), &mut evicted).is_none() {
                for chunk in chain {
                    self.push_chunk(chunk);
                }
                if !is_new {
                    self.empty(slot);
                }
                return Kept::NoRoom;
            }
        }
        self.write(slot, draft, &chain);
        if is_new {
            if self.index_insert(draft.hash, slot).is_none() {
                self.rebuild();
            }
            let count = self.control(control::COUNT);
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.stamp(slot).store(self.next_stamp(0), Ordering::Relaxed);
        if evicted > 0 { Kept::Evicted(evicted) } else { Kept::Stored }
    }

    /// Empties the victim's slot, which is not `but`.
    fn evict(&self, but: Option<usize>, evicted: &mut usize) -> Option<usize> {
        let victim = self.victim(but)?;
        self.empty(victim);
        *evicted += 1;
        Some(victim)
    }

    /// Makes room for more chunks.
    fn extend(&self, room: &impl Room) -> bool {
        let now = self.chunks();
        let then = (now + GROUP).min(self.geometry.chunks);
        if now == then || !room.extend(now..then) {
            return false;
        }
        self.control(control::CHUNKS).store(then as u64, Ordering::Relaxed);
        for chunk in (now..then).rev() {
            self.push_chunk(chunk);
        }
        true
    }

    /// The slot of a key.
    fn find(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Option<usize> {
        self.candidates(hash).find(|&slot| {
            matches!(self.copy(slot, hash, key.len(), buffer), Copied::Entry) && buffer.get(..key.len()) == Some(key)
        })
    }

    /// The first empty slot.
    fn vacant(&self) -> Option<usize> {
        if self.len() >= self.geometry.slots {
            return None;
        }
        (0..self.geometry.slots).find(|&slot| self.stamp(slot).load(Ordering::Relaxed) == 0)
    }

    /// The slot whose entry has to go, which is not `but`.
    fn victim(&self, but: Option<usize>) -> Option<usize> {
        let stamps = (0..self.geometry.slots).map(|slot| (self.stamp(slot).load(Ordering::Relaxed), slot));
        let occupied = stamps.filter(|&(stamp, slot)| stamp != 0 && Some(slot) != but);
        let victim = if self.strategy == Strategy::Mru { occupied.max() } else { occupied.min() };
        victim.map(|(_, slot)| slot)
    }

    /// Empties an occupied slot and takes it out of all that is derived.
    fn empty(&self, slot: usize) {
        let hash = self.header(slot, header::HASH).load(Ordering::Relaxed);
        self.index_remove(hash, slot);
        self.begin_write(slot);
        self.free_chunks(slot);
        self.unwrite(slot);
        self.stamp(slot).store(0, Ordering::Relaxed);
        let count = self.control(control::COUNT);
        count.store(count.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Writes an entry into a slot.
    fn write(&self, slot: usize, draft: &Draft<'_>, chain: &[usize]) {
        let seq = self.begin_write(slot);
        let lengths = OCCUPIED | (draft.value.len() as u64) << 32 | draft.key.len() as u64;
        let first = chain.first().map_or(0, |&chunk| chunk as u64 + 1);
        for (word, value) in [
            (header::HASH, draft.hash),
            (header::EXPIRES, draft.expires),
            (header::LENGTHS, lengths),
            (header::CHUNK, first),
            (header::CHECKSUM, checksum(draft.hash, lengths, draft.expires, &[draft.key, draft.value])),
        ] {
            self.header(slot, word).store(value, Ordering::Relaxed);
        }
        let mut bytes = draft.key.iter().chain(draft.value).copied();
        fill(self.inline(slot), &mut bytes);
        for (place, &chunk) in chain.iter().enumerate() {
            let next = chain.get(place + 1).map_or(0, |&next| next as u64 + 1);
            self.chunk_link(chunk).store((slot as u64 + 1) << 32 | next, Ordering::Relaxed);
            fill(self.chunk(chunk), &mut bytes);
        }
        self.end_write(slot, seq);
    }

    /// Marks a slot as empty.
    fn unwrite(&self, slot: usize) {
        let seq = self.begin_write(slot);
        self.header(slot, header::LENGTHS).store(0, Ordering::Relaxed);
        self.end_write(slot, seq);
    }

    fn begin_write(&self, slot: usize) -> u64 {
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

    /// Makes all that is derived anew, from the slots.
    fn rebuild(&self) {
        for place in self.index() {
            place.store(0, Ordering::Relaxed);
        }
        self.control(control::TOMBS).store(0, Ordering::Relaxed);
        let mut owners = vec![false; self.chunks()];
        let (mut count, mut newest) = (0, 0);
        let mut buffer = Vec::new();
        for slot in 0..self.geometry.slots {
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
                continue;
            }
            count += 1;
            let stamp = self.stamp(slot);
            if stamp.load(Ordering::Relaxed) == 0 {
                // It was stored a moment ago, and its stamp was not.
                stamp.store(self.next_stamp(0), Ordering::Relaxed);
            }
            newest = newest.max(tick_of(self.strategy, stamp.load(Ordering::Relaxed)));
        }
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

    // Chunks

    fn pop_chunk(&self) -> Option<usize> {
        let head = self.control(control::FREE_CHUNK);
        let chunk = place_of(head.load(Ordering::Relaxed), self.chunks())?;
        let link = self.chunk_link(chunk).load(Ordering::Relaxed);
        // A free one has no owner.
        (link >> 32 == 0).then(|| {
            head.store(link, Ordering::Relaxed);
            chunk
        })
    }

    fn push_chunk(&self, chunk: usize) {
        let head = self.control(control::FREE_CHUNK);
        self.chunk_link(chunk).store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        head.store(chunk as u64 + 1, Ordering::Relaxed);
    }

    fn free_chunks(&self, slot: usize) {
        for chunk in self.chain(slot).unwrap_or_default() {
            self.push_chunk(chunk);
        }
    }

    /// How many chunks there are.
    fn chunks(&self) -> usize {
        let chunks = self.control(control::CHUNKS).load(Ordering::Relaxed);
        usize::try_from(chunks).unwrap_or(usize::MAX).min(self.geometry.chunks)
    }

    /// The chunks of a slot's entry, if they are its own and as many as it needs.
    fn chain(&self, slot: usize) -> Option<Vec<usize>> {
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

    // The index

    /// The slots that may have an entry of this hash.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let index = self.index();
        let mask = index.len() - 1;
        let first = place_in_index(hash, mask);
        (0..index.len())
            .map(move |step| index[(first + step) & mask].load(Ordering::Acquire))
            .take_while(|&word| word != 0)
            .filter(move |&word| word != TOMB && word >> 32 == hash >> 32)
            .filter_map(|word| place_of(word & u64::from(u32::MAX), self.geometry.slots))
    }

    fn index_insert(&self, hash: u64, slot: usize) -> Option<()> {
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

    fn index_remove(&self, hash: u64, slot: usize) {
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
                    let many = tombs.load(Ordering::Relaxed) + 1;
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
        for slot in (0..self.geometry.slots).filter(|&slot| slot != without && self.is_occupied(slot)) {
            let _ = self.index_insert(self.header(slot, header::HASH).load(Ordering::Relaxed), slot);
        }
    }

    /// Panics where what is derived does not agree with the slots. For tests.
    #[doc(hidden)]
    pub fn validate(&self) {
        let occupied: Vec<_> = (0..self.geometry.slots).filter(|&slot| self.is_occupied(slot)).collect();
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

    // Words

    fn control(&self, word: usize) -> &'a AtomicU64 {
        &self.words[word]
    }

    fn index(&self) -> &'a [AtomicU64] {
        let start = Geometry::INDEX_START;
        &self.words[start..start + self.geometry.index_places()]
    }

    fn stamp(&self, slot: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.stamps_start() + slot]
    }

    fn header(&self, slot: usize, word: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.slots_start() + slot * Geometry::SLOT + word]
    }

    fn inline(&self, slot: usize) -> &'a [AtomicU64] {
        let start = self.geometry.slots_start() + slot * Geometry::SLOT;
        &self.words[start + Geometry::HEADER..start + Geometry::SLOT]
    }

    fn chunk_link(&self, chunk: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.chunks_start() + chunk * Geometry::CHUNK]
    }

    fn chunk(&self, chunk: usize) -> &'a [AtomicU64] {
        let start = self.geometry.chunks_start() + chunk * Geometry::CHUNK;
        &self.words[start + 1..start + Geometry::CHUNK]
    }

    fn is_occupied(&self, slot: usize) -> bool {
        self.header(slot, header::LENGTHS).load(Ordering::Relaxed) & OCCUPIED != 0
    }

    /// The bytes of a slot's entry, if there is one and it is no larger than any.
    fn bytes_of(&self, slot: usize) -> Option<usize> {
        let (key, value) = lengths(self.header(slot, header::LENGTHS).load(Ordering::Relaxed))?;
        Some(key + value).filter(|&bytes| bytes <= self.geometry.most_bytes)
    }

    /// Copies a slot's key and value into `buffer`, if its entry has this hash and a key of that length.
    fn copy(&self, slot: usize, hash: u64, key_len: usize, buffer: &mut Vec<u8>) -> Copied {
        let stored = lengths(self.header(slot, header::LENGTHS).load(Ordering::Relaxed));
        let is_it = self.header(slot, header::HASH).load(Ordering::Relaxed) == hash
            && stored.is_some_and(|(key, _)| key == key_len);
        if is_it { self.copy_any(slot, buffer) } else { Copied::Other }
    }

    fn copy_any(&self, slot: usize, buffer: &mut Vec<u8>) -> Copied {
        let word = |word| self.header(slot, word).load(Ordering::Relaxed);
        let (lengths, expires) = (word(header::LENGTHS), word(header::EXPIRES));
        let Some(bytes) = self.bytes_of(slot) else { return Copied::Damaged };
        buffer.clear();
        drain(self.inline(slot), bytes, buffer);
        let mut next = word(header::CHUNK);
        while buffer.len() < bytes {
            let Some(chunk) = place_of(next, self.chunks()) else { return Copied::Damaged };
            next = self.chunk_link(chunk).load(Ordering::Relaxed) & u64::from(u32::MAX);
            drain(self.chunk(chunk), bytes, buffer);
        }
        if checksum(word(header::HASH), lengths, expires, &[buffer]) == word(header::CHECKSUM) {
            Copied::Entry
        } else {
            Copied::Damaged
        }
    }

    // The order

    /// The stamp of an entry that is stored (`before` is 0) or hit.
    fn next_stamp(&self, before: u64) -> u64 {
        let tick = self.control(control::TICK).fetch_add(1, Ordering::Relaxed) + 1;
        if self.strategy == Strategy::Lfu {
            let uses = (before >> USES).saturating_add(1).min(u64::MAX >> USES);
            (uses << USES) | (tick & TICKS)
        } else {
            tick
        }
    }
}

/// Where in the stamp of an LFU cache the number of uses begins. The rest says when the last was.
const USES: u32 = 40;
const TICKS: u64 = (1 << USES) - 1;

fn tick_of(strategy: Strategy, stamp: u64) -> u64 {
    if strategy == Strategy::Lfu { stamp & TICKS } else { stamp }
}

impl Held<'_, '_> {
    /// Changes the shard: whoever finds the mark that stands meanwhile knows that the change was not finished.
    fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let dirty = self.shard.control(control::DIRTY);
        dirty.store(self.owner.word(), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        dirty.store(0, Ordering::Release);
        result
    }
}

/// A slot was written while it was read.
struct Changed;

/// What was copied out of a slot.
enum Copied {
    /// An entry of another key, or none.
    Other,
    /// Something whose checksum is wrong.
    Damaged,
    /// An entry.
    Entry,
}

/// Waits a little longer each time.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    /// For so many times, it only spins.
    const SPINS: u32 = 200;
    const SHORTEST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_micros(500);

    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 <= Self::SPINS {
            std::hint::spin_loop();
        } else {
            let doublings = (self.0 - Self::SPINS - 1).min(8);
            std::thread::sleep((Self::SHORTEST * (1 << doublings)).min(Self::LONGEST));
        }
    }
}

/// The place that a number in shared memory names: one less, and 0 names none.
fn place_of(number: u64, places: usize) -> Option<usize> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    (place < places).then_some(place)
}

#[allow(clippy::cast_possible_truncation, reason = "the mask keeps the lower bits only")]
fn place_in_index(hash: u64, mask: usize) -> usize {
    hash as usize & mask
}

/// The lengths of key and value, if there is an entry.
fn lengths(word: u64) -> Option<(usize, usize)> {
    let key = usize::try_from(word & u64::from(u32::MAX)).ok()?;
    let value = usize::try_from((word & !OCCUPIED) >> 32).ok()?;
    (word & OCCUPIED != 0).then_some((key, value))
}

fn checksum(hash: u64, lengths: u64, expires: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(hash ^ lengths.rotate_left(17) ^ expires.rotate_left(31));
    for part in parts {
        hasher.update(part);
    }
    hasher.digest()
}

/// Stores the next bytes, as far as there are any, in words.
fn fill(words: &[AtomicU64], bytes: &mut impl Iterator<Item = u8>) {
    for word in words {
        let mut value = [0; 8];
        let mut filled = 0;
        for (place, byte) in value.iter_mut().zip(&mut *bytes) {
            *place = byte;
            filled += 1;
        }
        if filled == 0 {
            return;
        }
        word.store(u64::from_le_bytes(value), Ordering::Relaxed);
    }
}

/// Appends the bytes of words until there are `most`.
fn drain(words: &[AtomicU64], most: usize, buffer: &mut Vec<u8>) {
    for word in words {
        let wanted = (most - buffer.len()).min(8);
        if wanted == 0 {
            return;
        }
        buffer.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..wanted]);
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests {
    use super::*;
    // Not the trait of that name.
    use crate::options::Strategy;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, HashSet};

    /// Processes of a test: words, and which of them are dead.
    struct Processes {
        me: u64,
        dead: RefCell<HashSet<u64>>,
    }

    impl Processes {
        fn alone() -> Self {
            Self { me: 7, dead: RefCell::default() }
        }
    }

    impl Census for Processes {
        fn me(&self) -> Owner {
            Owner::from_word(self.me)
        }

        fn is_alive(&self, owner: Owner) -> bool {
            !self.dead.borrow().contains(&owner.word())
        }
    }

    /// Room that is always there.
    struct Memory;

    impl Room for Memory {
        fn extend(&self, _: Range<usize>) -> bool {
            true
        }
    }

    struct Region {
        words: Vec<AtomicU64>,
        geometry: Geometry,
        strategy: Strategy,
        local: Mutex<()>,
        census: Processes,
    }

    impl Region {
        fn new(strategy: Strategy, slots: usize, most_bytes: usize) -> Self {
            let geometry = Geometry::new(slots, most_bytes).expect("small");
            Self {
                words: (0..geometry.words()).map(|_| AtomicU64::new(0)).collect(),
                geometry,
                strategy,
                local: Mutex::new(()),
                census: Processes::alone(),
            }
        }

        fn shard(&self) -> Shard<'_> {
            Shard::new(&self.words, self.geometry, self.strategy, &self.local).expect("as many words as it takes")
        }

        fn keep(&self, key: u64, value: &[u8]) -> Kept {
            let key_bytes = key.to_le_bytes();
            let draft = Draft { hash: spread(key), key: &key_bytes, value, expires: 0 };
            self.shard().keep(&draft, &self.census, &Memory).expect("nobody else is there")
        }

        fn get(&self, key: u64) -> Option<Vec<u8>> {
            let mut buffer = Vec::new();
            let shard = self.shard();
            let found = shard.read(spread(key), &key.to_le_bytes(), &mut buffer)?;
            shard.touch(&found);
            Some(buffer.split_off(found.value_start))
        }

        fn remove(&self, key: u64) -> bool {
            let removed = self.shard().remove(spread(key), &key.to_le_bytes(), &self.census);
            removed.expect("nobody else is there").is_some()
        }

        /// Every word, to compare.
        fn image(&self) -> Vec<u64> {
            self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
        }
    }

    fn spread(key: u64) -> u64 {
        // Few upper halves and few places, so that searches meet other keys.
        ((key % 3) << 32) | (key % 5) | (key << 40)
    }

    fn value_of(key: u64, version: u64) -> Vec<u8> {
        let length = usize::try_from((key * 131 + version * 17) % 900).expect("small");
        (0..length).map(|place| (place as u64 ^ key ^ version).to_le_bytes()[0]).collect()
    }

    #[test]
    fn an_entry_of_any_size_comes_back() {
        let region = Region::new(Strategy::Lru, 8, 2000);
        for size in [0, 1, 7, 8, 183, 184, 185, 688, 689, 1991, 1992] {
            let value: Vec<u8> = (0_usize..size).map(|place| place.to_le_bytes()[0]).collect();
            region.keep(1, &value);
            assert_eq!(region.get(1), Some(value), "{size} bytes");
        }
        assert_eq!(region.keep(2, &[0; 1993]), Kept::TooLarge);
        assert_eq!((region.get(2), region.shard().len()), (None, 1));
    }

    #[test]
    fn every_bit_that_is_flipped_in_an_entry_costs_that_entry_alone() {
        let region = Region::new(Strategy::Lru, 4, 600);
        for key in 0..4 {
            region.keep(key, &value_of(key, 1)[..]);
        }
        let image = region.image();
        let values: Vec<_> = (0..4).map(|key| region.get(key)).collect();
        for place in Geometry::INDEX_START..region.words.len() {
            for bit in [0, 31, 63] {
                region.words[place].fetch_xor(1 << bit, Ordering::Relaxed);
                for key in 0..4 {
                    let found = region.get(key);
                    let expected = values[usize::try_from(key).expect("small")].clone();
                    assert!(found.is_none() || found == expected, "word {place}, bit {bit}, key {key}");
                }
                for (word, &before) in region.words.iter().zip(&image) {
                    word.store(before, Ordering::Relaxed);
                }
            }
        }
    }

    #[test]
    fn a_lock_whose_owner_is_dead_is_taken_and_the_shard_rebuilt() {
        let region = Region::new(Strategy::Lru, 4, 600);
        for key in 0..4 {
            region.keep(key, &value_of(key, 1));
        }
        region.words[control::LOCK].store(99, Ordering::Relaxed);
        region.census.dead.borrow_mut().insert(99);
        region.keep(0, b"new");
        assert_eq!(region.get(0).as_deref(), Some(&b"new"[..]));
        assert_eq!((region.shard().events(Event::Steal), region.shard().events(Event::Repair)), (1, 1));
        assert_eq!(region.words[control::LOCK].load(Ordering::Relaxed), 0);
        for key in 1..4 {
            assert_eq!(region.get(key), Some(value_of(key, 1)));
        }
    }

    #[test]
    fn a_lock_whose_owner_lives_is_waited_for_no_longer_than_the_budget() {
        let region = Region::new(Strategy::Lru, 4, 600);
        region.keep(1, b"one");
        region.words[control::LOCK].store(99, Ordering::Relaxed);
        let start = Instant::now();
        let draft = Draft { hash: 1, key: b"key", value: b"value", expires: 0 };
        assert_eq!(region.shard().keep(&draft, &region.census, &Memory), Err(GaveUp));
        assert!(start.elapsed() >= BUDGET);
        assert_eq!(region.shard().events(Event::GiveUp), 1);
        // Readers do not notice.
        assert_eq!(region.get(1).as_deref(), Some(&b"one"[..]));
        assert_eq!(region.words[control::LOCK].load(Ordering::Relaxed), 99);
    }

    /// Stops a writer before its `left`th store, as a kill would.
    fn die_after(region: &Region, writes: usize, act: impl Fn(&Region)) -> bool {
        let before = region.image();
        act(region);
        let after = region.image();
        let changed: Vec<_> = (0..before.len()).filter(|&place| before[place] != after[place]).collect();
        if writes >= changed.len() {
            return false;
        }
        // Any subset of the changed words may be what another process finds: here those of a prefix, by address.
        for &place in &changed[writes..] {
            region.words[place].store(before[place], Ordering::Relaxed);
        }
        region.words[control::LOCK].store(99, Ordering::Relaxed);
        region.words[control::DIRTY].store(99, Ordering::Relaxed);
        region.census.dead.borrow_mut().insert(99);
        true
    }

    #[test]
    fn whatever_a_dead_writer_leaves_is_repaired_with_no_wrong_value() {
        type Act = fn(&Region);
        let acts: [(&str, Act); 4] = [
            ("insert", |region| assert!(region.keep(50, &value_of(50, 9)) == Kept::Evicted(1))),
            ("update", |region| assert!(region.keep(1, &value_of(1, 9)) == Kept::Stored)),
            ("remove", |region| assert!(region.remove(2))),
            ("clear", |region| region.shard().clear(&region.census).expect("nobody else is there")),
        ];
        for (name, act) in acts {
            for writes in 0.. {
                let region = Region::new(Strategy::Lru, 6, 1000);
                for key in 0..6 {
                    region.keep(key, &value_of(key, 1));
                }
                if !die_after(&region, writes, act) {
                    break;
                }
                // The next writer repairs.
                region.keep(70, b"next");
                region.shard().validate();
                for key in 0..6 {
                    let found = region.get(key);
                    let may_be = [None, Some(value_of(key, 1)), Some(value_of(key, 9))];
                    assert!(may_be.contains(&found), "{name}, {writes} words, key {key}");
                }
                assert_eq!(region.get(70).as_deref(), Some(&b"next"[..]), "{name}, {writes} words");
            }
        }
    }

    /// What the shard is to hold: by key the value, the tick of its last use (or of its storing) and how often it was used.
    #[derive(Default)]
    struct Model {
        entries: BTreeMap<u64, (Vec<u8>, u64, u64)>,
        tick: u64,
    }

    impl Model {
        fn keep(&mut self, strategy: Strategy, slots: usize, key: u64, value: Vec<u8>) {
            self.tick += 1;
            if !self.entries.contains_key(&key) && self.entries.len() == slots {
                let order = |entry: &(&u64, &(Vec<u8>, u64, u64))| match strategy {
                    Strategy::Lfu => (entry.1.2, entry.1.1),
                    _ => (0, entry.1.1),
                };
                let victim = if strategy == Strategy::Mru {
                    self.entries.iter().max_by_key(order)
                } else {
                    self.entries.iter().min_by_key(order)
                };
                let victim = *victim.expect("full").0;
                self.entries.remove(&victim);
            }
            self.entries.insert(key, (value, self.tick, 1));
        }

        fn get(&mut self, strategy: Strategy, key: u64) -> Option<Vec<u8>> {
            self.tick += 1;
            let (value, tick, uses) = self.entries.get_mut(&key)?;
            if strategy != Strategy::Fifo {
                (*tick, *uses) = (self.tick, *uses + 1);
            }
            Some(value.clone())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// One process finds in a shard exactly what the strategy says, after every operation.
        #[test]
        fn a_shard_holds_what_a_plain_model_holds(
            strategy in prop::sample::select(vec![Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu]),
            slots in 1_usize..12,
            acts in prop::collection::vec((0_u8..10, 0_u64..20), 1..150),
        ) {
            let region = Region::new(strategy, slots, 1000);
            let mut model = Model::default();
            for (version, (act, key)) in acts.into_iter().enumerate() {
                match act {
                    0..4 => {
                        let value = value_of(key, version as u64);
                        region.keep(key, &value);
                        model.keep(strategy, slots, key, value);
                    }
                    4..8 => prop_assert_eq!(region.get(key), model.get(strategy, key)),
                    8 => prop_assert_eq!(region.remove(key), model.entries.remove(&key).is_some()),
                    _ if key == 0 => {
                        region.shard().clear(&region.census).expect("nobody else is there");
                        model.entries.clear();
                    }
                    _ => {}
                }
                region.shard().validate();
                prop_assert_eq!(region.shard().len(), model.entries.len());
            }
            let mut kept: Vec<_> = (0..20).filter(|&key| region.get(key).is_some()).collect();
            kept.sort_unstable();
            prop_assert_eq!(kept, model.entries.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(region.shard().events(Event::Damage), 0);
        }

        /// Any words whatever: nothing panics, nothing is found that was not stored, and the next writer makes order.
        #[test]
        fn arbitrary_words_are_no_danger(seed in prop::collection::vec(any::<u64>(), 64), slots in 1_usize..6) {
            let region = Region::new(Strategy::Lru, slots, 700);
            for (place, word) in region.words.iter().enumerate().skip(1) {
                word.store(seed[place % seed.len()].rotate_left(u32::try_from(place).expect("small")), Ordering::Relaxed);
            }
            for key in 0..20 {
                prop_assert_eq!(region.get(key), None);
            }
            region.keep(3, b"three");
            region.shard().validate();
            let found = region.get(3);
            prop_assert_eq!(found.as_deref(), Some(&b"three"[..]));
        }
    }
}
