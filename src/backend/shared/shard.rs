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
//! sequence number is even and the same before and after, and the checksum is right. It tries four times and then says
//! that it has found nothing, which a cache may always say.
//!
//! A writer holds the lock, a word that names its process. Before its first change it sets the dirty mark, after its last
//! it takes it away. Whoever finds the mark, or had to take the lock from a dead process, first rebuilds all that is
//! derived: an entry that was being written is dropped, and all others stay.

use super::atomic::Ordering;
use super::atomic::shard::{AtomicU64, Instant, fence, sleep, spin_loop};
use super::geometry::Geometry;
use super::system::fork::PerProcess;
use super::system::liveness::Owner;
use crate::options::Strategy;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// How often a reader tries before it says that there is nothing.
const TRIES: usize = if cfg!(loom) { 1 } else { 4 };
/// How long anybody waits for a shard.
pub(crate) const BUDGET: Duration = Duration::from_millis(100);
/// So many chunks get room at a time: 64 kB.
const CHUNK_GROUP: usize = 128;
/// So many slots get room at a time: a page.
const SLOT_GROUP: usize = 16;
/// For how long an owner is believed to be at work before it is asked whether it lives.
const PATIENCE: Duration = Duration::from_millis(1);

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
    /// The time of no entry is over before; 0: no entry has one.
    pub(super) const EARLIEST: usize = 7;
    /// On a line of its own, apart from the lock: hits write it.
    pub(super) const TICK: usize = 12;
}

/// What a shard counts for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
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
pub(crate) trait Census {
    /// The word of this process.
    fn me(&self) -> Owner;
    /// Whether the process still lives. It may be asked of this one, too.
    fn is_alive(&self, owner: Owner) -> bool;
}

/// Makes room on the file system.
pub(crate) trait Room {
    /// Makes room for these words of the shard, which nobody uses yet and which are zeros then. Returns whether there is.
    fn extend(&self, words: Range<usize>) -> bool;
}

/// How many entries several shards have together, and may have.
///
/// It is raised before an entry is there and lowered when one is gone, so that it is never too low. Whoever is killed in
/// between leaves it too high, until it is counted anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total<'a> {
    /// How many there are.
    pub(crate) count: &'a AtomicU64,
    /// Not zero: it is to be counted anew. It is raised by each who finds that, so that who has counted sees whether it was
    /// found again meanwhile.
    pub(crate) is_stale: &'a AtomicU64,
    /// The most.
    pub(crate) most: u64,
}

impl Total<'_> {
    /// Takes the place of one more, if there is any.
    fn reserve(&self) -> bool {
        let taken = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < self.most).then_some(count + 1));
        taken.is_ok()
    }

    /// Has it counted anew.
    pub(super) fn mark(&self) {
        self.is_stale.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self, entries: u64) {
        let _ =
            self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(entries)));
    }
}

/// What an entry is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    /// The hash of the key.
    pub(crate) hash: u64,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value.
    pub(crate) value: &'a [u8],
    /// When its time is over, on the region's clock; 0: never.
    pub(crate) expires: u64,
    /// What the region's clock shows; 0 where no entry's time is ever over.
    pub(crate) now: u64,
}

/// What came of storing an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is stored, in a place of its own or that of an entry with the same key.
    Stored,
    /// It is stored in the place of this many others.
    Evicted(usize),
    /// It is larger than any may be.
    TooLarge,
    /// The file system has no room for it, and no other entry could make any.
    NoRoom,
    /// It is not to be stored any more.
    Unwanted,
}

/// The shard could not be had in the time that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp;

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The slot in which it is.
    slot: usize,
    /// The slot's sequence number then.
    seq: u64,
    /// Where in the buffer the value begins. It goes on to the end.
    pub(crate) value_start: usize,
    /// When the entry's time is over; 0: never.
    pub(crate) expires: u64,
}

/// A shard, as this process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shard<'a> {
    control: &'a [AtomicU64],
    words: &'a [AtomicU64],
    geometry: Geometry,
    strategy: Strategy,
    /// Where there are other shards, all entries together.
    total: Option<Total<'a>>,
    local: Local<'a>,
}

/// What keeps the threads of this process apart, so that only processes meet at the lock word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Local<'a> {
    /// This one.
    One(&'a Mutex<()>),
    /// The one of that number. It is found only when it is needed, which is not to read.
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

/// A shard that this process holds.
pub(super) struct Held<'a, 's> {
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

    /// Says that the words up to the end of the first slots have room: for who makes the shard. How many words that are is
    /// for [`Shard::first_words`] to say.
    pub(crate) fn begin(&self) {
        self.control(control::SLOTS).store(SLOT_GROUP.min(self.geometry.slots) as u64, Ordering::Relaxed);
    }

    /// How many words a shard needs to store its first entries, if they are small.
    pub(crate) fn first_words(geometry: &Geometry) -> usize {
        geometry.slots_start() + SLOT_GROUP.min(geometry.slots) * Geometry::SLOT
    }

    /// All entries together, where there are other shards.
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
    /// is asked when nobody else can change the shard.
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

    /// Removes the entry of a key. Returns whether there was one, and when its time was over.
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

    /// Removes all entries.
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

    /// How many entries there are, those whose time is over among them.
    pub(crate) fn len(&self) -> usize {
        Self::count_in(self.control, &self.geometry)
    }

    // The lock

    /// Takes the lock, and repairs the shard if its last owner could not. A `patience` of zero tries once, and giving up then
    /// is no event.
    pub(super) fn lock<'s>(&'s self, census: &impl Census, patience: Duration) -> Result<Held<'a, 's>, GaveUp> {
        let owner = census.me();
        if owner == Owner::NOBODY {
            return Err(GaveUp);
        }
        let lock = self.control(control::LOCK);
        let attempt = || lock.compare_exchange(0, owner.word(), Ordering::Acquire, Ordering::Relaxed);
        let (local, was_stolen) = if let Ok(local) = self.local.mutex().try_lock()
            && attempt().is_ok()
        {
            (local, false)
        } else if patience.is_zero() {
            return Err(GaveUp);
        } else {
            self.wait_for_lock(census, owner, patience).inspect_err(|GaveUp| self.note(Event::GiveUp))?
        };
        let held = Held { shard: self, owner, _local: local };
        if was_stolen {
            self.note(Event::Steal);
        }
        if was_stolen || self.control(control::DIRTY).load(Ordering::Relaxed) != 0 {
            self.note(Event::Repair);
            held.change(|| self.rebuild());
            if let Some(total) = &self.total {
                total.mark();
            }
        }
        Ok(held)
    }

    #[cold]
    #[inline(never)]
    fn wait_for_lock(
        &self,
        census: &impl Census,
        owner: Owner,
        patience: Duration,
    ) -> Result<(MutexGuard<'a, ()>, bool), GaveUp> {
        let deadline = Instant::now() + patience;
        let local = self.lock_local(deadline)?;
        let lock = self.control(control::LOCK);
        let mut pause = Pause::default();
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let free = lock.compare_exchange(0, owner.word(), Ordering::Acquire, Ordering::Relaxed);
            let Err(holder) = free else { return Ok((local, false)) };
            let now = Instant::now();
            match seen {
                Some((word, since)) if word == holder => {
                    let is_dead = now - since > PATIENCE && !census.is_alive(Owner::from_word(holder));
                    // The very word that was asked about: nobody else's lock is taken, and none is taken twice.
                    if is_dead
                        && lock.compare_exchange(holder, owner.word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
                    {
                        return Ok((local, true));
                    }
                }
                _ => seen = Some((holder, now)),
            }
            if now > deadline {
                return Err(GaveUp);
            }
            pause.wait();
        }
    }

    fn lock_local(&self, deadline: Instant) -> Result<MutexGuard<'a, ()>, GaveUp> {
        let mut pause = Pause::default();
        loop {
            match self.local.mutex().try_lock() {
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

    /// An empty slot for a newcomer, for which the total has been raised: one that was empty, or that of an entry whose time is
    /// over, or the victim's.
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

    fn release(&self, entries: u64) {
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

    /// Empties the slots of entries whose time is over. Returns whether there were any.
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

    /// Makes room for more chunks.
    fn extend_chunks(&self, room: &impl Room) -> bool {
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

    /// The slot of a key.
    fn find(&self, hash: u64, key: &[u8], buffer: &mut Vec<u8>) -> Option<usize> {
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

    /// The slot whose entry has to go, which is not `but`.
    fn victim(&self, but: Option<usize>) -> Option<usize> {
        let start = self.geometry.stamps_start();
        let stamps = &self.words[start..start + self.slots()];
        let first = |stamps: &[AtomicU64]| match self.strategy {
            Strategy::Mru => first_by(stamps, |stamp| !stamp),
            Strategy::Lru | Strategy::Fifo | Strategy::Lfu => first_by(stamps, |stamp| stamp.wrapping_sub(1)),
        };
        let Some(but) = but else { return first(stamps).map(|(_, slot)| slot) };
        let (before, after) = (stamps.get(..but)?, stamps.get(but + 1..)?);
        let (before, after) = (first(before), first(after).map(|(order, slot)| (order, but + 1 + slot)));
        before.into_iter().chain(after).min().map(|(_, slot)| slot)
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
                // There are more places than slots: somebody else is writing, who takes this process for dead.
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

    /// How many slots there are.
    fn slots(&self) -> usize {
        number(self.control, control::SLOTS, self.geometry.slots)
    }

    /// How many chunks there are.
    fn chunks(&self) -> usize {
        number(self.control, control::CHUNKS, self.geometry.chunks)
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
    #[inline(always)]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (index, slots) = (self.index(), self.slots());
        let mask = index.len() - 1;
        let first = place_in_index(hash, mask);
        (0..index.len())
            .map(move |step| index[(first + step) & mask].load(Ordering::Acquire))
            .take_while(|&word| word != 0)
            .filter(move |&word| word != TOMB && word >> 32 == hash >> 32)
            .filter_map(move |word| place_of(word & u64::from(u32::MAX), slots))
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

    /// Panics where what is derived does not agree with the slots.
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

    // Words

    fn control(&self, word: usize) -> &'a AtomicU64 {
        &self.control[word]
    }

    fn index(&self) -> &'a [AtomicU64] {
        &self.words[..self.geometry.index_places()]
    }

    fn stamp(&self, slot: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.stamps_start() + slot]
    }

    #[inline(always)]
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
    #[inline(always)]
    fn copy(&self, slot: usize, hash: u64, key_len: usize, buffer: &mut Vec<u8>) -> Copied {
        let stored = lengths(self.header(slot, header::LENGTHS).load(Ordering::Relaxed));
        let is_it = self.header(slot, header::HASH).load(Ordering::Relaxed) == hash
            && stored.is_some_and(|(key, _)| key == key_len);
        if is_it { self.copy_any(slot, buffer) } else { Copied::Other }
    }

    #[inline(always)]
    fn copy_any(&self, slot: usize, buffer: &mut Vec<u8>) -> Copied {
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

    /// Copies a chain of chunks. False if it ends too early.
    fn drain_chunks(&self, mut next: u64, mut rest: &mut [u8]) -> bool {
        while !rest.is_empty() {
            let Some(chunk) = place_of(next, self.chunks()) else { return false };
            next = self.chunk_link(chunk).load(Ordering::Relaxed) & u64::from(u32::MAX);
            rest = drain(self.chunk(chunk), rest);
        }
        true
    }

    // The order

    /// The stamp of an entry that is stored (`before` is 0) or hit.
    fn next_stamp(&self, before: u64) -> u64 {
        let tick = self.control(control::TICK).fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if self.strategy == Strategy::Lfu {
            let uses = (before >> USES).saturating_add(1).min(u64::MAX >> USES);
            (uses << USES) | (tick & TICKS)
        } else {
            tick
        }
    }
}

/// Where in the stamp of an LFU cache the number of uses begins. The rest says when the last was.
const USES: u32 = 44;
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
            spin_loop();
        } else {
            let doublings = (self.0 - Self::SPINS - 1).min(8);
            sleep((Self::SHORTEST * (1 << doublings)).min(Self::LONGEST));
        }
    }
}

/// The stamp that comes first in an order, as its place there and its own; one that is the last in the order is none.
///
/// Block by block, and in each without regard to where it is: that is looked for in the one block that has it.
#[inline(always)]
fn first_by(stamps: &[AtomicU64], order: impl Fn(u64) -> u64) -> Option<(u64, usize)> {
    const BLOCK: usize = 64;
    let order = |stamp: &AtomicU64| order(stamp.load(Ordering::Relaxed));
    let mut first = (u64::MAX, 0);
    for (number, block) in stamps.chunks(BLOCK).enumerate() {
        let (quads, rest) = block.as_chunks::<4>();
        let mut least = [u64::MAX; 4];
        for quad in quads {
            for (least, stamp) in least.iter_mut().zip(quad) {
                *least = (*least).min(order(stamp));
            }
        }
        let least = rest.iter().map(order).chain(least).min().unwrap_or(u64::MAX);
        if least < first.0 {
            first = (least, number * BLOCK);
        }
    }
    if first.0 == u64::MAX {
        return None;
    }
    let block = stamps[first.1..].iter().take(BLOCK);
    // A hit may have moved it meanwhile: then any of the block's is as good.
    let place = block.enumerate().min_by_key(|(_, stamp)| order(stamp))?;
    Some((first.0, first.1 + place.0))
}

/// A control word that is a number, and at most `most`.
fn number(control: &[AtomicU64], word: usize, most: usize) -> usize {
    let number = control.get(word).map_or(0, |word| word.load(Ordering::Acquire));
    usize::try_from(number).unwrap_or(usize::MAX).min(most)
}

/// The earlier of two times, of which 0 is none.
fn earlier(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one | other } else { one.min(other) }
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

/// Of what an entry consists of. A changed word changes it, since multiplying by an odd number loses nothing.
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

/// Copies words to the start of `bytes`, as far as both go, and returns what is left of it.
#[inline(always)]
fn drain<'b>(words: &[AtomicU64], bytes: &'b mut [u8]) -> &'b mut [u8] {
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

#[cfg(all(test, not(feature = "python"), not(loom)))]
mod tests {
    use super::*;
    // Not the trait of that name.
    use crate::backend::shared::mortal::die_before;
    use crate::backend::shared::tests::actors::Dice;
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
        /// The control words, then all others.
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
                words: (0..Geometry::CONTROL + geometry.words()).map(|_| AtomicU64::new(0)).collect(),
                geometry,
                strategy,
                local: Mutex::new(()),
                census: Processes::alone(),
            }
        }

        fn shard(&self) -> Shard<'_> {
            let (control, words) = self.words.split_at(Geometry::CONTROL);
            let shard = Shard::new(control, words, self.geometry, self.strategy, None, Local::One(&self.local));
            shard.expect("as many words as it takes")
        }

        fn keep(&self, key: u64, value: &[u8]) -> Kept {
            let key_bytes = key.to_le_bytes();
            let draft = Draft { hash: spread(key), key: &key_bytes, value, expires: 0, now: 0 };
            self.shard().keep(&draft, &self.census, &Memory, || true, BUDGET).expect("nobody else is there")
        }

        fn get(&self, key: u64) -> Option<Vec<u8>> {
            let mut buffer = Vec::new();
            let shard = self.shard();
            let found = shard.read(spread(key), &key.to_le_bytes(), &mut buffer)?;
            shard.touch(&found);
            Some(buffer.split_off(found.value_start))
        }

        fn remove(&self, key: u64) -> bool {
            let removed = self.shard().remove(spread(key), &key.to_le_bytes(), &self.census, BUDGET);
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
        for place in Geometry::CONTROL..region.words.len() {
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
        let draft = Draft { hash: 1, key: b"key", value: b"value", expires: 0, now: 0 };
        assert_eq!(region.shard().keep(&draft, &region.census, &Memory, || true, BUDGET), Err(GaveUp));
        assert!(start.elapsed() >= BUDGET);
        assert_eq!(region.shard().events(Event::GiveUp), 1);
        // Readers do not notice.
        assert_eq!(region.get(1).as_deref(), Some(&b"one"[..]));
        assert_eq!(region.words[control::LOCK].load(Ordering::Relaxed), 99);
    }

    /// An operation, and which keys may be lost if the process dies in it.
    type Act = (&'static str, fn(&Region), fn(u64) -> bool);

    const ACTS: [Act; 10] = [
        ("insert", |region| assert_eq!(region.keep(50, &value_of(50, 9)), Kept::Stored), |_| false),
        ("insert and evict", |region| _ = region.keep_in_full(50, &value_of(50, 9)), |key| key == 0),
        ("update to a large one", |region| _ = region.keep(1, &vec![1; 990]), |key| key == 1),
        ("update to a small one", |region| _ = region.keep(6, b"small"), |key| key == 6),
        ("update of one of the same size", |region| _ = region.keep(3, &value_of(3, 9)), |key| key == 3),
        ("remove", |region| assert!(region.remove(6)), |key| key == 6),
        ("expire", |region| _ = region.keep_at(50, &value_of(50, 9), 2000), |key| (20..24).contains(&key)),
        ("clear", |region| region.shard().clear(&region.census, BUDGET).expect("nobody else is there"), |_| true),
        ("first store of all", |region| _ = region.keep(50, b"first"), |_| true),
        (
            "repair",
            |region| {
                region.words[control::DIRTY].store(99, Ordering::Relaxed);
                region.remove(99);
            },
            |_| false,
        ),
    ];

    impl Region {
        fn keep_at(&self, key: u64, value: &[u8], now: u64) -> Kept {
            let key_bytes = key.to_le_bytes();
            let draft = Draft { hash: spread(key), key: &key_bytes, value, expires: now + 1000, now };
            self.shard().keep(&draft, &self.census, &Memory, || true, BUDGET).expect("nobody else is there")
        }

        fn keep_in_full(&self, key: u64, value: &[u8]) -> Kept {
            while self.shard().len() < self.geometry.slots {
                self.keep(100 + self.shard().len() as u64, b"filler");
            }
            self.keep(key, value)
        }
    }

    /// What the acts find: entries with and without chunks, some of whose time will be over.
    fn scene(act: &str) -> Region {
        let region = Region::new(Strategy::Lru, if act == "expire" { 12 } else { 24 }, 1000);
        if act != "first store of all" {
            (0..8).for_each(|key| _ = region.keep(key, &value_of(key, 1)));
            (20..24).for_each(|key| _ = region.keep_at(key, &value_of(key, 1), 1));
        }
        if act == "insert and evict" {
            // So that what is told to die evicts and does nothing else.
            (100..112).for_each(|key| _ = region.keep(key, b"filler"));
        }
        region
    }

    #[test]
    fn whatever_store_a_process_dies_before_its_shard_is_repaired_and_one_entry_is_lost_at_most() {
        let mut deaths = 0;
        for (name, act, may_be_lost) in ACTS {
            for stores in 0.. {
                let region = scene(name);
                let before: Vec<u64> = (0..24).filter(|&key| region.get(key).is_some()).collect();
                if !die_before(stores, || act(&region)) {
                    assert!(stores > 4, "{name}: {stores} stores");
                    break;
                }
                deaths += 1;
                region.census.dead.borrow_mut().insert(region.census.me);
                let heir = Region { census: Processes { me: 8, ..region.census }, ..region };
                // Before it is repaired, a reader finds what is there, or nothing.
                let may_be = |key| [None, Some(value_of(key, 1)), Some(value_of(key, 9)), Some(vec![1; 990])];
                for key in (0..24).filter(|&key| key != 6) {
                    assert!(may_be(key).contains(&heir.get(key)), "{name}, {stores} stores, key {key}");
                }
                assert!(!heir.remove(77));
                heir.shard().validate();
                for key in before {
                    let found = heir.get(key);
                    let is_whole = may_be(key).contains(&found) || found.as_deref() == Some(b"small");
                    assert!(is_whole, "{name}, {stores} stores, key {key}");
                    assert!(found.is_some() || may_be_lost(key), "{name}, {stores} stores: key {key} is lost");
                }
                // All goes on.
                assert_ne!(heir.keep(70, b"next"), Kept::NoRoom);
                assert_eq!(heir.get(70).as_deref(), Some(&b"next"[..]), "{name}, {stores} stores");
                heir.shard().validate();
            }
        }
        assert!(deaths > 500, "{deaths} deaths");
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

    #[test]
    fn a_shard_of_any_size_holds_what_a_plain_model_holds_after_any_number_of_operations() {
        for strategy in [Strategy::Lru, Strategy::Mru, Strategy::Fifo, Strategy::Lfu] {
            for slots in [1, 2, 13, 128, 1024] {
                let region = Region::new(strategy, slots, 1000);
                let (mut model, mut dice) = (Model::default(), Dice::new(slots as u64));
                for version in 0..40_000 {
                    // Half of them are looked up again and again.
                    let spread = dice.pick(&[slots as u64, slots as u64 * 3]);
                    let key = dice.roll(spread + 1);
                    let found = region.get(key);
                    assert_eq!(found, model.get(strategy, key), "{strategy:?}, {slots} slots, step {version}");
                    if found.is_none() || dice.roll(20) == 0 {
                        let value = value_of(key, version % 50);
                        region.keep(key, &value);
                        model.keep(strategy, slots, key, value);
                    }
                }
                region.shard().validate();
                let kept: Vec<u64> = (0..=slots as u64 * 3).filter(|&key| region.get(key).is_some()).collect();
                assert_eq!(kept, model.entries.keys().copied().collect::<Vec<_>>());
            }
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
                        region.shard().clear(&region.census, BUDGET).expect("nobody else is there");
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
