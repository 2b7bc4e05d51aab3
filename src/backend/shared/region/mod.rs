//! A region: the entries of one function, in a file that all processes map, or in memory that only forks share.
//!
//! ```text
//! header    the region's purpose; never changed once others see it                       512 bytes
//!           retired | clears | total | total is stale                                    a line each
//! counters  64 stripes of hits | misses | skips | unstorable                             a page
//! members   the processes that have it open                                              a page
//! controls  the control words of each shard                                              a line and another each
//! shards    each from a page on: index, stamps, slots, chunks; no room before it is needed
//! ```
//!
//! Everything up to the shards has room from the beginning, so that it can always be read. All places are computed
//! from the parameters, which the header must confirm; see [`layout`].

mod counters;
mod header;
mod layout;
mod listing;
mod members;
mod parameters;
mod purpose;
mod room;
mod total;

pub(crate) use layout::LAYOUT;
pub(crate) use listing::{Seen, list};
pub(crate) use parameters::Parameters;
pub(crate) use purpose::Purpose;

use super::atomic::{AtomicU64, Ordering};
use super::error::{Error, Reason};
use super::shard::geometry::Geometry;
use super::shard::{Draft, Event, Found, GaveUp, Kept, Local, Shard, Total};
use super::system::boot::BootId;
use super::system::directory::Location;
use super::system::facts::FileId;
use super::system::files::{self, Size};
use super::system::fork::{self, PerProcess};
use super::system::liveness::Membership;
use super::system::map::{Map, WORD};
use crate::options::{Choice, Strategy};
use header::{header, read_header, truncated};
use layout::{CLEARS, CONTROLS, COUNTERS, Layout, MOST_SHARDS, PAGE, RETIRED, STALE, TOTAL, committed};
use members::Standing;
use room::FileRoom;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

/// The memory of a region.
#[derive(Debug)]
enum Backing {
    /// In the file of this name, as long as it is this file.
    File { location: Location, name: String, identity: FileId },
    /// In memory that belongs to no file.
    Memory,
}

/// A region that this process has open.
#[derive(Debug)]
pub(crate) struct Region {
    map: Map,
    layout: Layout,
    strategy: Strategy,
    ttl: Option<u64>,
    max_size: u64,
    seed: u64,
    backing: Backing,
    /// `None` if nothing can tell which processes live: then no other process has the region.
    members: Option<Membership>,
    /// The fork in which it was opened.
    generation: u64,
    locals: PerProcess<[Mutex<()>; MOST_SHARDS]>,
    standing: PerProcess<Mutex<Standing>>,
    stripe: AtomicUsize,
    has_lacked_room: AtomicBool,
    /// Why it is for fewer entries than were asked for, if it is.
    shortage: Option<Error>,
}

/// An expiry this much farther ahead than the ttl was never set: it is damage, or a clock that went back.
const SLACK: u64 = 1_000_000_000;

/// How long one call may still wait, however many shards it needs. The clock is not read for a call that may not wait.
#[derive(Clone, Copy, Debug)]
struct Wait(Option<Instant>);

impl Wait {
    fn begin(patience: Duration) -> Self {
        Self((!patience.is_zero()).then(|| Instant::now() + patience))
    }

    fn left(self) -> Duration {
        self.0.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }
}

impl Region {
    /// Whether a region can be so large.
    pub(crate) fn can_be(parameters: &Parameters) -> bool {
        Layout::new(parameters).is_some()
    }

    /// Opens the region for this purpose, or makes it.
    pub(crate) fn open(location: &Location, purpose: &Purpose) -> Result<Self, Error> {
        let name = purpose.file_name();
        let directory = location.open()?;
        let too_large = || Error::Full { path: directory.path_of(&name), bytes: u64::MAX };
        let layout = Layout::new(&purpose.parameters).ok_or_else(too_large)?;
        let members = Membership::new(location.clone());
        // A process that cannot be a member could take no lock.
        let _member = members.current()?;
        let size = Size { len: layout.len, allocated: layout.allocated() };
        let verify = |map: &Map| {
            let is_retired = map.word(RETIRED).is_none_or(|word| word.load(Ordering::Acquire) != 0);
            !is_retired && read_header(map).is_some_and(|(found, _)| found == truncated(purpose))
        };
        let opened = files::open(&directory, &name, size, verify, |map| initialise(map, &layout, purpose))?;
        let backing = Backing::File { location: location.clone(), name, identity: opened.file.identity() };
        Self::new(opened.map, layout, purpose, backing, Some(members))
            .ok_or_else(|| Error::refused(location.path(), Reason::Content))
    }

    /// A region in memory, for this process. With a location, for processes that fork from it as well, if members of that
    /// folder can tell which of them live. If memory is short it is for fewer entries, or even for none, so that it counts the
    /// calls at least: see [`Region::shortage`].
    pub(crate) fn private(location: Option<&Location>, purpose: &Purpose) -> Result<Self, Error> {
        let shortage = match Self::private_of(location, purpose) {
            Ok(region) => return Ok(region),
            Err(error) => error,
        };
        let mut smaller = purpose.clone();
        loop {
            smaller.parameters.max_size /= 2;
            let is_last = smaller.parameters.max_size == 0;
            // Three quarters of the memory that is left are for the program.
            let leaves_enough = || {
                let len = Layout::new(&smaller.parameters).and_then(|layout| layout.len.checked_mul(4));
                len.is_some_and(|len| Map::anonymous(len).is_ok())
            };
            if is_last || leaves_enough() {
                match Self::private_of(location, &smaller) {
                    Ok(mut region) => {
                        region.shortage = Some(shortage);
                        return Ok(region);
                    }
                    Err(_) if is_last => return Err(shortage),
                    Err(_) => {}
                }
            }
        }
    }

    fn private_of(location: Option<&Location>, purpose: &Purpose) -> Result<Self, Error> {
        let path = PathBuf::from("memory");
        let too_large = || Error::Full { path: path.clone(), bytes: u64::MAX };
        let layout = Layout::new(&purpose.parameters).ok_or_else(too_large)?;
        let members = location.map(|location| Membership::new(location.clone()));
        let members = members.filter(|members| members.current().is_ok());
        let (map, members) = match members.map(|members| (Map::inherited(layout.len), members)) {
            Some((Ok(map), members)) => (Ok(map), Some(members)),
            _ => (Map::anonymous(layout.len), None),
        };
        let map = map.map_err(|errno| Error::system("map", &path, errno))?;
        initialise(&map, &layout, purpose);
        Self::new(map, layout, purpose, Backing::Memory, members).ok_or_else(too_large)
    }

    fn new(map: Map, layout: Layout, purpose: &Purpose, backing: Backing, members: Option<Membership>) -> Option<Self> {
        let (found, seed) = read_header(&map)?;
        let Parameters { ttl_ns, max_size, strategy, .. } = found.parameters;
        (found == truncated(purpose)).then_some(())?;
        Some(Self {
            map,
            layout,
            strategy: Strategy::from_number(i64::from(strategy))?,
            ttl: ttl_ns,
            max_size,
            seed,
            backing,
            members,
            generation: fork::generation(),
            locals: PerProcess::new(|| std::array::from_fn(|_| Mutex::new(()))),
            standing: PerProcess::new(Mutex::default),
            stripe: AtomicUsize::new(0),
            has_lacked_room: AtomicBool::new(false),
            shortage: None,
        })
    }

    /// Whether it may be used: no process has retired it, and it is not another process's own.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.header_word(RETIRED).load(Ordering::Relaxed) == 0
            && (self.members.is_some() || self.generation == fork::generation())
    }

    /// Whether its file still has its name. True if that cannot be seen: a process that has changed its root or its user may no
    /// longer reach the file, and must not take it from the others. A few calls of the system.
    pub(crate) fn is_in_place(&self) -> bool {
        match &self.backing {
            Backing::File { location, name, identity } => {
                location.open().map_or(true, |directory| files::is_still(&directory, name, *identity))
            }
            Backing::Memory => true,
        }
    }

    /// Its file; `None` if it is in memory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.backing {
            Backing::File { location, name, .. } => Some(location.path().join(name)),
            Backing::Memory => None,
        }
    }

    /// How many bytes of it have room.
    pub(crate) fn bytes(&self) -> usize {
        committed(&self.map, &self.layout)
    }

    /// Looks a key up, and copies key and value into `buffer`. A hit is noted in the order of eviction. `now` is the machine's
    /// time, or 0 if no entry expires.
    #[inline]
    pub(crate) fn look_up(&self, key: &[u8], now: u64, buffer: &mut Vec<u8>) -> Option<Found> {
        let (shard, found) = self.find(key, now, buffer)?;
        shard.touch(&found);
        Some(found)
    }

    /// Whether there is an entry of this key, without touching it.
    pub(crate) fn contains(&self, key: &[u8], now: u64) -> bool {
        self.find(key, now, &mut Vec::new()).is_some()
    }

    #[inline(always)]
    fn find(&self, key: &[u8], now: u64, buffer: &mut Vec<u8>) -> Option<(Shard<'_>, Found)> {
        let hash = self.hash(key);
        let shard = self.shard_of(hash)?;
        let found = shard.read(hash, key, buffer)?;
        self.is_live(found.expires, now).then_some((shard, found))
    }

    /// Whether an entry that expires at `expires` is to be returned.
    #[inline]
    fn is_live(&self, expires: u64, now: u64) -> bool {
        match self.ttl {
            None => true,
            Some(ttl) => now < expires && expires - now <= ttl.saturating_add(SLACK),
        }
    }

    /// Stores an entry, and waits for no longer than `patience`, for the shard and for all others that a recount of the total
    /// needs together. `is_wanted` is asked under the lock.
    pub(crate) fn keep(
        &self,
        key: &[u8],
        value: &[u8],
        now: u64,
        is_wanted: impl Fn() -> bool,
        patience: Duration,
    ) -> Result<Kept, GaveUp> {
        let hash = self.hash(key);
        let Some(shard) = self.shard_of(hash) else { return Ok(Kept::NoRoom) };
        let expires = self.ttl.map_or(0, |ttl| now.saturating_add(ttl).max(1));
        let draft = Draft { hash, key, value, expires, now };
        let here = self.here();
        let number = self.layout.shard_of(hash);
        let wait = Wait::begin(patience);
        let kept = shard.keep(&draft, &here, &FileRoom { region: self, number }, is_wanted, wait.left())?;
        self.recount_if_stale(&here, wait);
        Ok(kept)
    }

    /// Removes the entry of a key. Returns whether there was one that had not expired.
    pub(crate) fn remove(&self, key: &[u8], now: u64, patience: Duration) -> Result<bool, GaveUp> {
        let hash = self.hash(key);
        let Some(shard) = self.shard_of(hash) else { return Ok(false) };
        let removed = shard.remove(hash, key, &self.here(), patience)?;
        Ok(removed.is_some_and(|expires| self.is_live(expires, now)))
    }

    /// Removes all entries, and sets the counters to zero. Waits for no longer than `patience`, for all shards together.
    pub(crate) fn clear(&self, patience: Duration) -> Result<(), GaveUp> {
        self.header_word(CLEARS).fetch_add(1, Ordering::AcqRel);
        let here = self.here();
        let wait = Wait::begin(patience);
        // A stuck shard must not keep the others: those with a free lock come first.
        let busy: Vec<_> = self.shards().filter(|shard| shard.clear(&here, Duration::ZERO).is_err()).collect();
        let mut cleared = Ok(());
        for shard in &busy {
            cleared = shard.clear(&here, wait.left()).and(cleared);
        }
        for word in self.words(COUNTERS..COUNTERS + PAGE) {
            word.store(0, Ordering::Relaxed);
        }
        self.recount_if_stale(&here, wait);
        cleared
    }

    /// How often the region has been cleared.
    #[inline]
    pub(crate) fn clears(&self) -> u64 {
        self.header_word(CLEARS).load(Ordering::Acquire)
    }

    /// How many entries there are that have not expired.
    pub(crate) fn len(&self, now: u64) -> usize {
        let live = |shard: Shard<'_>| match self.ttl {
            None => shard.len(),
            Some(_) => shard.count_live(|expires| self.is_live(expires, now)),
        };
        self.shards().map(live).sum()
    }

    /// Whether there are none.
    #[cfg(test)]
    pub(crate) fn is_empty(&self, now: u64) -> bool {
        self.len(now) == 0
    }

    /// The events of all shards, in all processes.
    pub(crate) fn events(&self) -> Events {
        let of = |event| self.shards().map(|shard| shard.events(event)).sum();
        Events {
            steals: of(Event::Steal),
            repairs: of(Event::Repair),
            give_ups: of(Event::GiveUp),
            damaged: of(Event::Damage),
        }
    }

    /// Makes all processes leave it, and removes its file if that still has its name. Returns whether it removed one.
    pub(crate) fn retire(&self) -> Result<bool, Error> {
        self.header_word(RETIRED).store(1, Ordering::Release);
        match &self.backing {
            Backing::File { location, name, identity } => files::retire(&location.open()?, name, *identity),
            Backing::Memory => Ok(false),
        }
    }

    /// If memory was too short for all entries: how many it may have, and the system's error.
    pub(crate) fn shortage(&self) -> Option<(u64, &Error)> {
        self.shortage.as_ref().map(|error| (self.max_size, error))
    }

    /// Whether, since the last question, an entry was not stored or another one evicted because the file system had no room.
    pub(crate) fn has_lacked_room(&self) -> bool {
        self.has_lacked_room.swap(false, Ordering::Relaxed)
    }

    /// Panics if anything derived disagrees with the slots. To be called while no process writes.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        self.shards().for_each(|shard| shard.validate());
        let len: usize = self.shards().map(|shard| shard.len()).sum();
        if self.layout.shards > 1 && self.header_word(STALE).load(Ordering::Relaxed) == 0 {
            assert_eq!(self.header_word(TOTAL).load(Ordering::Relaxed), len as u64, "the total");
        }
        assert!(len as u64 <= self.max_size, "{len} entries");
    }

    /// The words that have room in a region of one shard; of several, those up to the shards.
    #[cfg(test)]
    pub(super) fn committed_words_for_tests(&self) -> &[AtomicU64] {
        let end = if self.layout.shards == 1 { self.bytes().min(self.layout.len) } else { self.layout.start };
        self.words(0..end)
    }

    #[inline(always)]
    fn hash(&self, key: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(key, self.seed)
    }

    #[inline(always)]
    fn shard_of(&self, hash: u64) -> Option<Shard<'_>> {
        if self.layout.shards == 0 { None } else { self.shard(self.layout.shard_of(hash)) }
    }

    fn shards(&self) -> impl Iterator<Item = Shard<'_>> {
        (0..self.layout.shards).filter_map(|number| self.shard(number))
    }

    #[inline(always)]
    fn shard(&self, number: usize) -> Option<Shard<'_>> {
        let control = self.map.words(CONTROLS + number * Geometry::CONTROL * WORD, Geometry::CONTROL * WORD)?;
        let len = self.layout.geometry.words() * WORD;
        let words = self.map.words(self.layout.start + number * self.layout.stride, len)?;
        let total = (self.layout.shards > 1).then(|| Total {
            count: self.header_word(TOTAL),
            is_stale: self.header_word(STALE),
            most: self.max_size,
        });
        Shard::new(control, words, self.layout.geometry, self.strategy, total, Local::Of(&self.locals, number))
    }

    #[inline]
    fn header_word(&self, at: usize) -> &AtomicU64 {
        self.map.word(at).unwrap_or(&NOTHING)
    }

    fn words(&self, bytes: Range<usize>) -> &[AtomicU64] {
        self.map.words(bytes.start, bytes.len()).unwrap_or_default()
    }
}

/// Stands for a word beyond the map. A map of a region's length has all words, so that it is never used; it spares a panic.
static NOTHING: AtomicU64 = AtomicU64::new(0);

fn initialise(map: &Map, layout: &Layout, purpose: &Purpose) {
    let seed = RandomState::new().hash_one(std::process::id());
    let _ = map.write_bytes(0, &header(purpose, BootId::current(), seed));
    if layout.shards == 1
        && let (Some(control), Some(words)) =
            (map.words(CONTROLS, Geometry::CONTROL * WORD), map.words(layout.start, layout.geometry.words() * WORD))
        && let Some(shard) =
            Shard::new(control, words, layout.geometry, Strategy::Lru, None, Local::One(&Mutex::new(())))
    {
        shard.begin();
    }
}

/// The events of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Locks that were taken from dead processes.
    pub(crate) steals: u64,
    /// Shards that were rebuilt.
    pub(crate) repairs: u64,
    /// Locks that a process gave up waiting for.
    pub(crate) give_ups: u64,
    /// Checksums that were wrong.
    pub(crate) damaged: u64,
}

/// A number of the name space of time: processes in different ones, as in containers, read different times from the machine's
/// clock. 0 on systems without such name spaces.
pub(crate) fn clock_space() -> u64 {
    if cfg!(target_os = "linux") {
        std::fs::metadata("/proc/self/ns/time").map_or(0, |space| std::os::unix::fs::MetadataExt::ino(&space))
    } else {
        0
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests;
