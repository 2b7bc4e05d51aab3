//! One shard of a region: slots, which are the truth, and an index, an order and counts, which are derived from them.
//!
//! ```text
//! control   lock | dirty | count | tombs | free chunk | chunks | slots | earliest   one line
//!           steals | repairs | damaged | give-ups | tick | …                        one line, which hits write
//! index     a word a place: the hash's upper half, the slot's number + 1
//! stamps    a word a slot: its place in the order of eviction; 0: the slot is empty
//! slots     seq | hash | expires | lengths | first chunk | checksum | – | –       then the first 192 bytes
//! chunks    owner + 1, next + 1                                                  then 504 bytes
//! ```
//!
//! A reader takes no lock and waits for nobody. It copies an entry out, word by word, and believes the copy if the slot's
//! sequence number is even and the same before and after, and the checksum is right. After four tries the look-up is a
//! miss, which a cache may always have.
//!
//! A writer holds the lock, a word that names its process. Before its first change it sets the dirty mark, after its last
//! it takes it away. A writer that finds the mark, or has taken the lock from a dead process, first rebuilds
//! everything derived: an entry that was half written is dropped, and all others stay.

mod chunks;
pub(crate) mod geometry;
mod index;
mod insert;
mod lock;
mod order;
mod rebuild;
mod slots;
mod total;

pub(crate) use total::Total;

use super::atomic::Ordering;
use super::atomic::shard::{AtomicU64, fence};
use super::system::fork::PerProcess;
use super::system::liveness::Owner;
use crate::options::Strategy;
use geometry::Geometry;
use insert::SLOT_GROUP;
use slots::{Copied, header};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

/// How often a reader tries before the look-up is a miss.
const TRIES: usize = if cfg!(loom) { 1 } else { 4 };

/// How long anybody waits for a shard.
pub(crate) const BUDGET: Duration = Duration::from_millis(100);

/// Words of the control line.
mod control {
    pub(super) const LOCK: usize = 0;
    pub(super) const DIRTY: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const TOMBS: usize = 3;
    /// The number of the first free chunk, + 1.
    pub(super) const FREE_CHUNK: usize = 4;
    /// How many chunks there is room for on the file system. No other may be touched.
    pub(super) const CHUNKS: usize = 5;
    /// How many slots there is room for, and if there are any, for the index and the stamps. No other may be touched.
    pub(super) const SLOTS: usize = 6;
    /// No entry expires before this time; 0: no entry expires.
    pub(super) const EARLIEST: usize = 7;
    /// On a line of its own, apart from the lock: hits write it.
    pub(super) const TICK: usize = 12;
}

/// An event that a shard counts for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The lock was taken from a dead process.
    Steal = 8,
    /// The shard was rebuilt.
    Repair,
    /// A checksum was wrong, or another number that must agree.
    Damage,
    /// A process gave up waiting for the lock.
    GiveUp,
}

/// This process, and which of the others live.
pub(crate) trait Census {
    /// The word of this process.
    fn me(&self) -> Owner;
    /// Whether the process still lives. It may be asked of this one, too.
    fn is_alive(&self, owner: Owner) -> bool;
}

/// Makes room on the file system.
pub(crate) trait Room {
    /// Makes room for these words of the shard, which no entry uses yet. Returns whether it could: then they are zeros.
    fn extend(&self, words: Range<usize>) -> bool;
}

/// An entry to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    /// The hash of the key.
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// When it expires, on the region's clock; 0: never.
    pub(crate) expires: u64,
    /// The time of the region's clock; 0 if no entry expires.
    pub(crate) now: u64,
}

/// The outcome of storing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is stored, in an empty slot or in the place of an entry with the same key.
    Stored,
    /// It is stored, and this many others were evicted for it.
    Evicted(usize),
    /// It is larger than an entry may be.
    TooLarge,
    /// The file system has no room for it, and no other entry could make any.
    NoRoom,
    /// The caller does not want it any more.
    Unwanted,
}

/// The lock of the shard was not free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The slot in which it is.
    slot: usize,
    /// The slot's sequence number then.
    seq: u64,
    /// The value's first byte in the buffer. It goes on to the end.
    pub(crate) value_start: usize,
    /// When the entry expires; 0: never.
    pub(crate) expires: u64,
}

/// A shard, as this process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shard<'a> {
    control: &'a [AtomicU64],
    words: &'a [AtomicU64],
    geometry: Geometry,
    strategy: Strategy,
    /// The entries of all shards together; `None` for the only shard of a region.
    total: Option<Total<'a>>,
    local: Local<'a>,
}

/// A mutex that keeps the threads of this process apart, so that only processes meet at the lock word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Local<'a> {
    /// This one.
    One(&'a Mutex<()>),
    /// The one of that number. A writer looks it up; a reader never does.
    Of(&'a PerProcess<[Mutex<()>; MOST_LOCALS]>, usize),
}

/// As many as there can be shards.
pub(crate) const MOST_LOCALS: usize = 256;

impl<'a> Local<'a> {
    fn mutex(self) -> &'a Mutex<()> {
        match self {
            Self::One(mutex) => mutex,
            Self::Of(mutexes, number) => &mutexes.get()[number % MOST_LOCALS],
        }
    }
}

impl<'a> Shard<'a> {
    /// The shard in these words, which must be all zero if it is new. `None` if there are not as many as the geometry says.
    pub(crate) fn new(
        control: &'a [AtomicU64],
        words: &'a [AtomicU64],
        geometry: Geometry,
        strategy: Strategy,
        total: Option<Total<'a>>,
        local: Local<'a>,
    ) -> Option<Self> {
        let fits = control.len() == Geometry::CONTROL && words.len() == geometry.words();
        fits.then_some(Self { control, words, geometry, strategy, total, local })
    }

    /// Notes that the first slots have room. The creator of the region calls it, after making [`Shard::first_words`] of room.
    pub(crate) fn begin(&self) {
        self.control(control::SLOTS).store(SLOT_GROUP.min(self.geometry.slots) as u64, Ordering::Relaxed);
    }

    /// How many words a shard needs to store its first entries, if they are small.
    pub(crate) fn first_words(geometry: &Geometry) -> usize {
        geometry.slots_start() + SLOT_GROUP.min(geometry.slots) * Geometry::SLOT
    }

    /// The entries of all shards together; `None` for the only shard of a region.
    #[cfg(all(test, not(loom)))]
    pub(super) fn total(&self) -> Option<Total<'a>> {
        self.total
    }

    /// How often something has happened, in all processes.
    pub(crate) fn events(&self, event: Event) -> u64 {
        self.control(event as usize).load(Ordering::Relaxed)
    }

    fn note(&self, event: Event) {
        self.control(event as usize).fetch_add(1, Ordering::Relaxed);
    }

    /// Looks a key up and copies key and value into `buffer`, whose capacity is used again.
    #[inline(always)]
    pub(crate) fn read(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Option<Found> {
        if self.slots() == 0 {
            return None;
        }
        for _ in 0..TRIES {
            match self.try_read(hash, key, buffer) {
                Ok(found) => return found,
                Err(Changed) => std::hint::spin_loop(),
            }
        }
        None
    }

    #[inline(always)]
    fn try_read(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Result<Option<Found>, Changed> {
        for slot in self.candidates(hash) {
            let seq = self.header(slot, header::SEQ).load(Ordering::Acquire);
            if seq & 1 == 1 {
                return Err(Changed);
            }
            let expires = self.header(slot, header::EXPIRES).load(Ordering::Relaxed);
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
                        return Ok(Some(Found { slot, seq, value_start: key.len(), expires }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Notes a hit in the order of eviction.
    #[inline]
    pub(crate) fn touch(&self, found: &Found) {
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

    /// Stores an entry, in the place of one with the same key if there is one. Waits for no longer than `patience`. `is_wanted`
    /// is asked under the lock, so that a value that has become stale is not stored after its removal.
    pub(crate) fn keep(
        &self,
        draft: &Draft<'_>,
        census: &impl Census,
        room: &impl Room,
        is_wanted: impl Fn() -> bool,
        patience: Duration,
    ) -> Result<Kept, GaveUp> {
        if draft.key.len() + draft.value.len() > self.geometry.most_bytes {
            return Ok(Kept::TooLarge);
        }
        let held = self.lock(census, patience)?;
        if !is_wanted() {
            return Ok(Kept::Unwanted);
        }
        Ok(held.change(|| self.insert(draft, room)))
    }

    /// Removes the entry of a key. Returns when it expires (0: never), if there was one.
    pub(crate) fn remove(
        &self,
        hash: u64,
        key: &[u8],
        census: &impl Census,
        patience: Duration,
    ) -> Result<Option<u64>, GaveUp> {
        let held = self.lock(census, patience)?;
        let mut buffer = Vec::new();
        let Some(slot) = self.find(hash, key, &mut buffer) else { return Ok(None) };
        let expires = self.header(slot, header::EXPIRES).load(Ordering::Relaxed);
        held.change(|| {
            self.empty(slot);
            self.release(1);
        });
        Ok(Some(expires))
    }

    pub(crate) fn clear(&self, census: &impl Census, patience: Duration) -> Result<(), GaveUp> {
        let held = self.lock(census, patience)?;
        held.change(|| {
            let count = self.len();
            for slot in 0..self.slots() {
                if self.is_occupied(slot) {
                    self.unwrite(slot);
                }
            }
            self.rebuild();
            self.release(count as u64);
        });
        Ok(())
    }

    /// How many entries there are whose time is not over, read one by one without a lock.
    pub(crate) fn count_live(&self, is_live: impl Fn(u64) -> bool) -> usize {
        let live = |slot: &usize| {
            self.stamp(*slot).load(Ordering::Relaxed) != 0
                && self.is_occupied(*slot)
                && is_live(self.header(*slot, header::EXPIRES).load(Ordering::Relaxed))
        };
        (0..self.slots()).filter(live).count()
    }

    /// How many entries the shard of these control words has.
    pub(crate) fn count_in(control: &[AtomicU64], geometry: &Geometry) -> usize {
        number(control, control::COUNT, geometry.slots)
    }

    /// How many words of the shard of these control words have room.
    pub(crate) fn committed_in(control: &[AtomicU64], geometry: &Geometry) -> usize {
        let slots = number(control, control::SLOTS, geometry.slots);
        let chunks = number(control, control::CHUNKS, geometry.chunks);
        let derived = if slots == 0 { 0 } else { geometry.slots_start() };
        derived + slots * Geometry::SLOT + chunks * Geometry::CHUNK
    }

    /// How many entries there are, expired ones among them.
    pub(crate) fn len(&self) -> usize {
        Self::count_in(self.control, &self.geometry)
    }

    /// How many slots there are.
    fn slots(&self) -> usize {
        number(self.control, control::SLOTS, self.geometry.slots)
    }

    /// How many chunks there are.
    fn chunks(&self) -> usize {
        number(self.control, control::CHUNKS, self.geometry.chunks)
    }

    fn control(&self, word: usize) -> &'a AtomicU64 {
        &self.control[word]
    }
}

/// A slot was written while it was read.
struct Changed;

/// A control word that is a number, and at most `most`.
fn number(control: &[AtomicU64], word: usize, most: usize) -> usize {
    let number = control.get(word).map_or(0, |word| word.load(Ordering::Acquire));
    usize::try_from(number).unwrap_or(usize::MAX).min(most)
}

#[cfg(all(test, not(feature = "python"), not(loom)))]
mod tests;
