//! A region: the entries of one function, in a file that all processes map, or in memory that only forks share.
//!
//! ```text
//! header    what the region was made for; never changed once others see it               512 bytes
//!           retired | clears | total | total is stale                                    a line each
//! counters  64 stripes of hits | misses | skips | unstorable                             a page
//! members   the processes that have it open                                              a page
//! controls  the control words of each shard                                              a line and another each
//! shards    each from a page on: index, stamps, slots, chunks; no room before it is needed
//! ```
//!
//! Everything up to the shards has room from the beginning, so that it can always be read. Where things lie is computed from
//! the parameters, which the header must confirm; see [`super::geometry`].

use super::atomic::{AtomicU64, Ordering};
use super::error::{Error, Reason};
use super::parameters::{self, Parameters};
use super::shard::geometry::Geometry;
use super::shard::{Census, Draft, Event, Found, GaveUp, Kept, Local, MOST_LOCALS, Room, Shard, Total};
use super::system::boot::BootId;
use super::system::directory::Location;
use super::system::facts::Identity;
use super::system::files::{self, Size};
use super::system::fork::{self, PerProcess};
use super::system::liveness::{Member, Membership, Owner};
use super::system::map::{Map, WORD};
use crate::options::{Choice, Strategy};
use rustix::io::Errno;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The number of the layout. Whoever changes one word of it, of a shard or of the codec changes this, so that other builds keep
/// to other files.
pub(crate) const LAYOUT: u32 = 2;

/// Up to so many entries, all are in one shard, and the order of eviction is exact.
const EXACT: usize = 1024;
/// The most shards.
const MOST_SHARDS: usize = MOST_LOCALS;

const PAGE: usize = 4096;
const LINE: usize = 64;

/// Where the words lie that change: each on a line of its own, but for those that hardly ever do.
const RETIRED: usize = 512;
const CLEARS: usize = RETIRED + WORD;
const TOTAL: usize = RETIRED + LINE;
const STALE: usize = TOTAL + LINE;
const COUNTERS: usize = PAGE;
const STRIPES: usize = PAGE / LINE;
const MEMBERS: usize = COUNTERS + PAGE;
const CONTROLS: usize = MEMBERS + PAGE;

/// What a region is for: who opens one must want the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// The function, for people.
    pub(crate) label: String,
    /// The function, for the machine: different for different ones.
    pub(crate) digest: u128,
    /// The parameters of the cache.
    pub(crate) parameters: Parameters,
}

impl Purpose {
    const READABLE: usize = 40;

    /// The name of the region's file: the label as far as it fits, and a hash of all that makes it another region.
    pub(crate) fn file_name(&self) -> String {
        let plain = |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
        let readable: String = self.label.chars().map(plain).collect();
        let start = readable.len().saturating_sub(Self::READABLE);
        let readable = readable[start..].trim_start_matches(['.', '-']);
        let readable = if readable.is_empty() || readable.starts_with("tmp-") { "_" } else { readable };
        let parameters = parameters::encode(&self.parameters).unwrap_or_default();
        let hash = xxhash_rust::xxh3::xxh3_128(&[&self.digest.to_le_bytes()[..], &parameters].concat());
        format!("{readable}-{hash:032x}{}", files::SUFFIX)
    }
}

/// Where the parts of a region lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    shards: usize,
    geometry: Geometry,
    /// Where the first shard begins.
    start: usize,
    /// From one shard to the next.
    stride: usize,
    len: usize,
}

impl Layout {
    /// `None` if so much can't be addressed.
    fn new(parameters: &Parameters) -> Option<Self> {
        let most = usize::try_from(parameters.max_size).ok()?;
        let bytes = usize::try_from(parameters.max_key_size).ok()?.checked_add(parameters.max_value_size as usize)?;
        let shards = match most {
            0 => 0,
            1..=EXACT => 1,
            _ => most.div_ceil(EXACT).checked_next_power_of_two()?.min(MOST_SHARDS),
        };
        let slots = match shards {
            0 | 1 => most,
            // Keys do not fall into the shards evenly.
            _ => most.div_ceil(shards).checked_mul(5)? / 4 + 1,
        };
        let geometry = Geometry::new(slots, bytes)?;
        let start = (CONTROLS + shards * Geometry::CONTROL * WORD).next_multiple_of(PAGE);
        let stride = geometry.words().checked_mul(WORD)?.checked_next_multiple_of(PAGE)?;
        let len = stride.checked_mul(shards)?.checked_add(start)?;
        // What mappings and files can be at most.
        isize::try_from(len).is_ok().then_some(Self { shards, geometry, start, stride, len })
    }

    /// The bytes that have room from the beginning. Of a single shard, the first slots do: where not even they fit, it is better to
    /// know at once.
    fn allocated(&self) -> usize {
        if self.shards == 1 { self.start + Shard::first_words(&self.geometry) * WORD } else { self.start }
    }

    fn shard_of(&self, hash: u64) -> usize {
        // The index takes the lower bits, and compares the upper half.
        (hash >> 24) as usize & (self.shards - 1)
    }
}

/// What the header says, in front of its checksum.
const MAGIC: u64 = u64::from_be_bytes(*b"WRPCACHE");
const CHECKED: usize = RETIRED - WORD;
const SEED: usize = 32;
const DIGEST: usize = 40;
const RECORD: usize = 56;
const LABEL: usize = 128;
const MOST_LABEL: usize = CHECKED - LABEL;

/// The header of a region for this purpose: 504 bytes and their checksum.
fn header(purpose: &Purpose, boot: BootId, seed: u64) -> [u8; RETIRED] {
    let mut bytes = [0; RETIRED];
    let mut put = |at: usize, from: &[u8]| bytes[at..at + from.len()].copy_from_slice(from);
    put(0, &MAGIC.to_ne_bytes());
    put(8, &LAYOUT.to_ne_bytes());
    put(12, &0x0102_0304_u32.to_ne_bytes());
    put(16, &boot.0);
    put(SEED, &seed.to_ne_bytes());
    put(DIGEST, &purpose.digest.to_ne_bytes());
    let record = parameters::encode(&purpose.parameters).unwrap_or_default();
    put(RECORD, &[record.len().to_le_bytes()[0]]);
    put(RECORD + 1, &record);
    let label = beginning(&purpose.label).as_bytes();
    put(LABEL, &label.len().to_le_bytes()[..2]);
    put(LABEL + 2, label);
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..CHECKED]);
    bytes[CHECKED..].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

/// The purpose that a header speaks of, if it is whole, of this start of the machine and of this layout.
fn read_header(map: &Map) -> Option<(Purpose, u64)> {
    let mut bytes = [0; RETIRED];
    map.read_bytes(0, &mut bytes)?;
    let seed = u64::from_ne_bytes(*bytes[SEED..].first_chunk()?);
    let digest = u128::from_ne_bytes(*bytes[DIGEST..].first_chunk()?);
    let boot = BootId(*bytes[16..].first_chunk()?);
    let record = bytes[RECORD + 1..LABEL].get(..usize::from(bytes[RECORD]))?;
    let parameters = parameters::decode(record).ok()?;
    let label = bytes[LABEL + 2..CHECKED].get(..usize::from(u16::from_le_bytes([bytes[LABEL], bytes[LABEL + 1]])))?;
    let purpose = Purpose { label: std::str::from_utf8(label).ok()?.to_owned(), digest, parameters };
    let is_ours = header(&purpose, boot, seed) == bytes && boot.agrees(BootId::current());
    is_ours.then_some((purpose, seed))
}

/// What a region counts for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// A call that was answered from the cache.
    Hit = 0,
    /// A call that ran the function.
    Miss = 1,
    /// A call whose value was not stored, since it or its key is too large or has no bytes.
    Skip = 2,
    /// A skip for another reason than size; counted beside it.
    Unstorable = 3,
}

/// What is counted where there is no region, by one process.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    hits: std::sync::atomic::AtomicU64,
    misses: std::sync::atomic::AtomicU64,
    skips: std::sync::atomic::AtomicU64,
    unstorable: std::sync::atomic::AtomicU64,
}

impl Tallies {
    fn of(&self, count: Count) -> &std::sync::atomic::AtomicU64 {
        match count {
            Count::Hit => &self.hits,
            Count::Miss => &self.misses,
            Count::Skip => &self.skips,
            Count::Unstorable => &self.unstorable,
        }
    }

    /// Counts.
    pub(crate) fn count(&self, count: Count) {
        self.of(count).fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted.
    pub(crate) fn counts(&self) -> Counts {
        let of = |count| self.of(count).load(Ordering::Relaxed);
        Counts {
            hits: of(Count::Hit),
            misses: of(Count::Miss),
            skips: of(Count::Skip),
            unstorable: of(Count::Unstorable),
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        for count in [Count::Hit, Count::Miss, Count::Skip, Count::Unstorable] {
            self.of(count).store(0, Ordering::Relaxed);
        }
    }
}

/// What a region counts, all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Calls that were answered from the cache.
    pub(crate) hits: u64,
    /// Calls that ran the function.
    pub(crate) misses: u64,
    /// Calls whose value was not stored, since it or its key is too large or has no bytes.
    pub(crate) skips: u64,
    /// How many of those skips had another reason than size.
    pub(crate) unstorable: u64,
}

/// What has happened to a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// Locks that were taken from dead processes.
    pub(crate) steals: u64,
    /// Shards that were rebuilt.
    pub(crate) repairs: u64,
    /// Locks that could not be had in time.
    pub(crate) give_ups: u64,
    /// Checksums that were wrong.
    pub(crate) damaged: u64,
}

/// Where a region's bytes are.
#[derive(Debug)]
enum Place {
    /// In the file of this name, as long as it is this file.
    File { location: Location, name: String, identity: Identity },
    /// In memory that belongs to no file.
    Memory,
}

/// This process's standing in a region.
#[derive(Debug, Default)]
struct Standing {
    member: Option<Arc<Member>>,
    /// Stores until the membership is looked at again.
    due: u32,
    /// Where this process is listed among the members.
    listed: Option<usize>,
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
    place: Place,
    /// `None` where nothing can tell who lives: then no other process has the region.
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

/// Times that lie farther ahead than any could have been set are no times.
const SLACK: u64 = 1_000_000_000;

/// How long one call may still wait, however many shards it needs. The clock is only read where it may wait at all.
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

/// After so many stores a process looks whether others still see it as a member.
const STORES_A_LOOK: u32 = 32;

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
        // Who can be no member could take no lock.
        let _member = members.current()?;
        let size = Size { len: layout.len, allocated: layout.allocated() };
        let verify = |map: &Map| {
            let is_retired = map.word(RETIRED).is_none_or(|word| word.load(Ordering::Acquire) != 0);
            !is_retired && read_header(map).is_some_and(|(found, _)| found == truncated(purpose))
        };
        let opened = files::open(&directory, &name, size, verify, |map| initialise(map, &layout, purpose))?;
        let place = Place::File { location: location.clone(), name, identity: opened.file.identity() };
        Self::new(opened.map, layout, purpose, place, Some(members))
            .ok_or_else(|| Error::refused(location.path(), Reason::Content))
    }

    /// A region in memory, for this process. With a location, for processes that fork from it as well, if those can tell there
    /// which of them live. Where memory is short it is for fewer entries, and if need be for none, so that it counts the calls
    /// at least: see [`Region::shortage`].
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
        Self::new(map, layout, purpose, Place::Memory, members).ok_or_else(too_large)
    }

    fn new(map: Map, layout: Layout, purpose: &Purpose, place: Place, members: Option<Membership>) -> Option<Self> {
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
            place,
            members,
            generation: fork::generation(),
            locals: PerProcess::new(|| std::array::from_fn(|_| Mutex::new(()))),
            standing: PerProcess::new(Mutex::default),
            stripe: AtomicUsize::new(0),
            has_lacked_room: AtomicBool::new(false),
            shortage: None,
        })
    }

    /// Whether it may be used: nobody has retired it, and it is not another process's own.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.header_word(RETIRED).load(Ordering::Relaxed) == 0
            && (self.members.is_some() || self.generation == fork::generation())
    }

    /// Whether its file still has its name, as far as can be seen: a process that has changed its root or its user may no longer
    /// reach the file, and must not take it from those who do. A few calls of the system.
    pub(crate) fn is_in_place(&self) -> bool {
        match &self.place {
            Place::File { location, name, identity } => {
                location.open().map_or(true, |directory| files::is_still(&directory, name, *identity))
            }
            Place::Memory => true,
        }
    }

    /// Its file; `None` if it is in memory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.place {
            Place::File { location, name, .. } => Some(location.path().join(name)),
            Place::Memory => None,
        }
    }

    /// How many bytes of it have room.
    pub(crate) fn bytes(&self) -> usize {
        committed(&self.map, &self.layout)
    }

    /// Looks a key up, and copies key and value into `buffer`. A hit is noted in the order of eviction. `now` is the machine's
    /// time where entries have one.
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

    /// Whether an entry whose time is over at `expires` is to be returned.
    #[inline]
    fn is_live(&self, expires: u64, now: u64) -> bool {
        match self.ttl {
            None => true,
            Some(ttl) => now < expires && expires - now <= ttl.saturating_add(SLACK),
        }
    }

    /// Stores an entry, and waits for no longer than `patience`, for the shard and for all others that a recount of the total
    /// needs together. `is_wanted` is asked when nobody else can change the shard.
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
        let kept = shard.keep(&draft, &here, &Floor { region: self, number }, is_wanted, wait.left())?;
        self.recount_if_stale(&here, wait);
        Ok(kept)
    }

    /// Removes the entry of a key. Returns whether there was one whose time was not over.
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
        // One that is stuck does not keep the others: first those that nobody has.
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

    /// Counts.
    #[inline(always)]
    pub(crate) fn count(&self, count: Count) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + count as usize * WORD) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes back that a call was counted as answered: it turned out not to be.
    pub(crate) fn uncount_hit(&self) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + Count::Hit as usize * WORD) {
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hits| hits.checked_sub(1));
        }
    }

    /// What has been counted, by all processes.
    pub(crate) fn counts(&self) -> Counts {
        counts(&self.map)
    }

    /// How many entries there are whose time is not over.
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

    /// What has happened, to all processes.
    pub(crate) fn events(&self) -> Events {
        let of = |event| self.shards().map(|shard| shard.events(event)).sum();
        Events {
            steals: of(Event::Steal),
            repairs: of(Event::Repair),
            give_ups: of(Event::GiveUp),
            damaged: of(Event::Damage),
        }
    }

    /// Makes all processes leave it, and removes its file if it still has the name. Returns whether there was a file to remove.
    pub(crate) fn retire(&self) -> Result<bool, Error> {
        self.header_word(RETIRED).store(1, Ordering::Release);
        match &self.place {
            Place::File { location, name, identity } => files::retire(&location.open()?, name, *identity),
            Place::Memory => Ok(false),
        }
    }

    /// How many entries it may have if memory was too short for as many as were asked for, and what the system said.
    pub(crate) fn shortage(&self) -> Option<(u64, &Error)> {
        self.shortage.as_ref().map(|error| (self.max_size, error))
    }

    /// Whether, since it was asked last, an entry was not stored or another one had to go because the file system had no room.
    pub(crate) fn has_lacked_room(&self) -> bool {
        self.has_lacked_room.swap(false, Ordering::Relaxed)
    }

    /// Panics where what is derived does not agree with the slots. To be called while nobody writes.
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

    /// Counts all entries, while nobody can change any, if a dead process has left the total too high.
    #[inline]
    fn recount_if_stale(&self, here: &Here<'_>, wait: Wait) {
        if self.layout.shards > 1 && self.header_word(STALE).load(Ordering::Relaxed) != 0 {
            self.recount(here, wait, || ());
        }
    }

    /// Does so. `meanwhile` is called when all are counted and the mark still stands: for tests.
    #[cold]
    #[inline(never)]
    fn recount(&self, here: &Here<'_>, wait: Wait, meanwhile: impl FnOnce()) {
        let shards: Vec<_> = self.shards().collect();
        // From the first on, by everybody: nobody waits for one that is before one that he has.
        let held: Result<Vec<_>, _> = shards.iter().map(|shard| shard.lock(here, wait.left())).collect();
        let Ok(_held) = held else { return };
        let stale = self.header_word(STALE);
        let marks = stale.load(Ordering::Acquire);
        let total: usize = shards.iter().map(Shard::len).sum();
        self.header_word(TOTAL).store(total as u64, Ordering::Relaxed);
        meanwhile();
        // Last of all, so that a process that is killed before leaves the mark. Each mark is another number: one that was set
        // after the count, by a process that is taken for dead and is not, stays.
        let _ = stale.compare_exchange(marks, 0, Ordering::Release, Ordering::Relaxed);
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

    /// This process, as a member that others see.
    fn here(&self) -> Here<'_> {
        let Some(members) = &self.members else { return Here { region: self, member: None } };
        let mut standing = self.standing.get().lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = standing.due == 0;
        standing.due = if is_due { STORES_A_LOOK } else { standing.due - 1 };
        if is_due || !standing.member.as_ref().is_some_and(|member| member.is_current()) {
            let before = standing.member.take();
            standing.member = members.current().ok();
            if let Some(member) = &standing.member
                && before.is_none_or(|before| !Arc::ptr_eq(&before, member))
            {
                let owner = member.owner();
                self.stripe.store(usize::from(member.slot()), Ordering::Relaxed);
                standing.listed = self.enlist(members, owner);
            }
        }
        Here { region: self, member: standing.member.clone() }
    }

    /// Makes the next store look whether this process is still a member, as it may not be when the folder cannot be opened.
    fn look_again(&self) {
        self.standing.get().lock().unwrap_or_else(PoisonError::into_inner).due = 0;
    }

    /// Lists this process among those that have the region open, in the place of one that has ended.
    fn enlist(&self, members: &Membership, owner: Owner) -> Option<usize> {
        let list = self.words(MEMBERS..MEMBERS + PAGE);
        let take = |is_free: &dyn Fn(u64) -> bool| {
            list.iter().position(|place| {
                let word = place.load(Ordering::Relaxed);
                is_free(word) && place.compare_exchange(word, owner.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            })
        };
        take(&|word| word == 0).or_else(|| take(&|word| !members.is_alive(Owner::from_word(word))))
    }

    /// Says that this process uses it, before its first store does. False if it can't, as when it has become another user's.
    pub(crate) fn attend(&self) -> bool {
        self.here().me() != Owner::NOBODY
    }
}

/// For a word that is not in the map, which each map of a region's length has.
static NOTHING: AtomicU64 = AtomicU64::new(0);

impl Drop for Region {
    fn drop(&mut self) {
        let standing = self.standing.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(place), Some(member)) = (standing.listed, &standing.member)
            && let Some(word) = self.words(MEMBERS..MEMBERS + PAGE).get(place)
        {
            let _ = word.compare_exchange(member.owner().word(), 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// The label as the header has room for it.
fn truncated(purpose: &Purpose) -> Purpose {
    Purpose { label: beginning(&purpose.label).to_owned(), ..purpose.clone() }
}

fn beginning(label: &str) -> &str {
    let mut end = label.len().min(MOST_LABEL - 2);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    &label[..end]
}

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

/// The control words of each shard.
fn controls<'m>(map: &'m Map, layout: &Layout) -> impl Iterator<Item = &'m [AtomicU64]> {
    let bytes = layout.shards * Geometry::CONTROL * WORD;
    map.words(CONTROLS, bytes).unwrap_or_default().chunks_exact(Geometry::CONTROL)
}

/// How many bytes have room: those up to the shards, and of each shard what its control words say.
fn committed(map: &Map, layout: &Layout) -> usize {
    let words: usize = controls(map, layout).map(|control| Shard::committed_in(control, &layout.geometry)).sum();
    layout.start + words * WORD
}

fn counts(map: &Map) -> Counts {
    let mut counts = Counts::default();
    for stripe in map.words(COUNTERS, PAGE).unwrap_or_default().chunks_exact(LINE / WORD) {
        let of = |count: Count| stripe[count as usize].load(Ordering::Relaxed);
        counts.hits = counts.hits.wrapping_add(of(Count::Hit));
        counts.misses = counts.misses.wrapping_add(of(Count::Miss));
        counts.skips = counts.skips.wrapping_add(of(Count::Skip));
        counts.unstorable = counts.unstorable.wrapping_add(of(Count::Unstorable));
    }
    counts
}

/// This process in a region.
struct Here<'a> {
    region: &'a Region,
    /// Held for as long as a lock may name it.
    member: Option<Arc<Member>>,
}

/// Who alone has a region.
const ALONE: u64 = 0x0001_0000_0000_0001;

impl Census for Here<'_> {
    fn me(&self) -> Owner {
        match (&self.member, &self.region.members) {
            (Some(member), _) => member.owner(),
            // Nobody else is there, and so nobody takes this process for dead.
            (None, None) => Owner::from_word(ALONE),
            (None, Some(_)) => Owner::NOBODY,
        }
    }

    fn is_alive(&self, owner: Owner) -> bool {
        match &self.region.members {
            Some(members) => members.is_alive(owner),
            None => owner.word() == ALONE,
        }
    }
}

/// Room for a shard of a region.
struct Floor<'a> {
    region: &'a Region,
    number: usize,
}

impl Room for Floor<'_> {
    fn extend(&self, words: Range<usize>) -> bool {
        let Region { place, layout, .. } = self.region;
        let Place::File { location, name, identity } = place else { return true };
        let start = layout.start + self.number * layout.stride;
        let Ok(directory) = location.open() else {
            self.region.look_again();
            return false;
        };
        let extended = files::reopen(&directory, name, *identity)
            .and_then(|file| file.extend(start + words.start * WORD, start + words.end * WORD));
        match extended {
            Ok(()) => {}
            // Its name is gone, or another file's: others have left it, or will when they look.
            Err(Errno::NOENT | Errno::STALE) => self.region.header_word(RETIRED).store(1, Ordering::Release),
            Err(_) => self.region.has_lacked_room.store(true, Ordering::Relaxed),
        }
        extended.is_ok()
    }
}

/// What tells processes for which the machine's clock shows another time, as in a container of its own. 0 where there are none.
pub(crate) fn clock_space() -> u64 {
    if cfg!(target_os = "linux") {
        std::fs::metadata("/proc/self/ns/time").map_or(0, |space| std::os::unix::fs::MetadataExt::ino(&space))
    } else {
        0
    }
}

/// What is known of a region from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Its file.
    pub(crate) path: PathBuf,
    /// How many bytes of it have room.
    pub(crate) bytes: usize,
    /// How many entries it has, those whose time is over among them.
    pub(crate) entries: usize,
    /// What its users have counted.
    pub(crate) counts: Counts,
    /// How many living processes have it open.
    pub(crate) processes: usize,
}

/// All regions in a folder, of this build's layout; before that, if asked to, removes those that no living process has open. An
/// error if the folder is not to be trusted; where there is none there are no regions.
pub(crate) fn list(location: &Location, removes_unused: bool) -> Result<Vec<Seen>, Error> {
    if !location.exists() {
        return Ok(Vec::new());
    }
    let directory = location.open()?;
    let members = Membership::new(location.clone());
    // Where this process can be no member, all count as living.
    let _member = members.current();
    let mut regions = Vec::new();
    for listed in files::list(&directory)? {
        let len = |map: &Map| Some(Layout::new(&read_header(map)?.0.parameters)?.len);
        let Some((map, identity)) = files::inspect(&directory, &listed.name, CONTROLS, len)? else { continue };
        let Some((purpose, _)) = read_header(&map) else { continue };
        let Some(layout) = Layout::new(&purpose.parameters) else { continue };
        // A process is listed once for each function that has the region open.
        let listed_owners =
            map.words(MEMBERS, PAGE).unwrap_or_default().iter().map(|word| word.load(Ordering::Relaxed));
        let owners: HashSet<u64> = listed_owners.filter(|&word| word != 0).collect();
        let processes = owners.into_iter().filter(|&word| members.is_alive(Owner::from_word(word))).count();
        if removes_unused && processes == 0 {
            if let Some(retired) = map.word(RETIRED) {
                retired.store(1, Ordering::Release);
            }
            files::retire(&directory, &listed.name, identity)?;
            continue;
        }
        regions.push(Seen {
            path: directory.path_of(&listed.name),
            bytes: committed(&map, &layout),
            entries: controls(&map, &layout).map(|control| Shard::count_in(control, &layout.geometry)).sum(),
            counts: counts(&map),
            processes,
            purpose,
        });
    }
    Ok(regions)
}

#[cfg(all(test, not(feature = "python")))]
mod tests {
    use super::super::mortal::die_before;
    use super::super::shard::BUDGET;
    use super::super::tests::actors::place;
    use super::*;
    // Not the trait of that name.
    use crate::options::Strategy;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::FileExt;

    fn purpose(max_size: u64, strategy: Strategy) -> Purpose {
        let parameters = Parameters {
            max_size,
            max_key_size: 64,
            max_value_size: 2000,
            ttl_ns: None,
            strategy: strategy as u8,
            typed: false,
            pickle_protocol: 5,
            python: (3, 13),
            layout: LAYOUT,
        };
        Purpose { label: "module.function".into(), digest: 7, parameters }
    }

    fn keep(region: &Region, key: u64, value: &[u8]) -> Kept {
        region.keep(&key.to_le_bytes(), value, 0, || true, BUDGET).expect("nobody else is there")
    }

    fn get(region: &Region, key: u64) -> Option<Vec<u8>> {
        let mut buffer = Vec::new();
        let found = region.look_up(&key.to_le_bytes(), 0, &mut buffer)?;
        Some(buffer.split_off(found.value_start))
    }

    #[test]
    fn what_one_has_stored_another_finds_and_both_count() {
        let (_place, location) = place();
        let purpose = purpose(128, Strategy::Lru);
        let (one, other) = (Region::open(&location, &purpose), Region::open(&location, &purpose));
        let (one, other) = (one.expect("a region"), other.expect("the same"));
        assert_eq!(one.path(), other.path());
        keep(&one, 1, b"one");
        assert_eq!(get(&other, 1).as_deref(), Some(&b"one"[..]));
        other.count(Count::Hit);
        one.count(Count::Miss);
        one.count(Count::Miss);
        assert_eq!(other.counts(), Counts { hits: 1, misses: 2, skips: 0, unstorable: 0 });
        other.clear(BUDGET).expect("nobody else is there");
        assert_eq!((get(&one, 1), one.len(0), one.counts()), (None, 0, Counts::default()));
    }

    #[test]
    fn regions_for_other_purposes_are_other_files() {
        let base = purpose(128, Strategy::Lru);
        let mut others = vec![base.clone(), Purpose { digest: 8, ..base.clone() }, purpose(128, Strategy::Mru)];
        for change in [
            |it: &mut Parameters| it.max_size = 129,
            |it: &mut Parameters| it.max_key_size = 65,
            |it: &mut Parameters| it.max_value_size = 2001,
            |it: &mut Parameters| it.ttl_ns = Some(1),
            |it: &mut Parameters| it.typed = true,
            |it: &mut Parameters| it.python = (3, 14),
            |it: &mut Parameters| it.layout = LAYOUT + 1,
        ] {
            let mut other = base.clone();
            change(&mut other.parameters);
            others.push(other);
        }
        let mut names: Vec<_> = others.iter().map(Purpose::file_name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), others.len());
        let odd = Purpose { label: "../tmp-é/../\0".repeat(30), ..base };
        let name = odd.file_name();
        assert!(name.len() < 100 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'), "{name}");
        let (_place, location) = place();
        let region = Region::open(&location, &odd).expect("a region of any label");
        drop(region);
        Region::open(&location, &odd).expect("and again");
    }

    #[test]
    fn a_large_region_takes_no_room_before_it_has_entries_and_little_for_small_ones() {
        let (_place, location) = place();
        let region = Region::open(&location, &purpose(100_000, Strategy::Lru)).expect("a region");
        assert!(region.bytes() < 64 << 10, "{}", region.bytes());
        for key in 0..100_000 {
            keep(&region, key, b"value");
        }
        assert_eq!(region.len(0), 100_000);
        let each = region.bytes() / 100_000;
        assert!(each < 300, "{each}");
        region.validate();
    }

    #[test]
    fn a_header_that_is_damaged_or_retired_is_replaced() {
        let (_place, location) = place();
        let purpose = purpose(16, Strategy::Lru);
        let region = Region::open(&location, &purpose).expect("a region");
        keep(&region, 1, b"one");
        let path = region.path().expect("a file");
        for place in [0, 8, 12, 16, 33, 41, 57, 130, 505, RETIRED] {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("our file");
            let mut byte = [0];
            file.read_exact_at(&mut byte, place as u64).expect("a byte");
            file.write_all_at(&[byte[0] ^ 1], place as u64).expect("room");
            let fresh = Region::open(&location, &purpose).expect("another");
            assert!(fresh.is_in_place() && fresh.is_empty(0) && !region.is_in_place(), "byte {place}");
        }
        // Who had it, has it.
        assert_eq!(get(&region, 1).as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn a_retired_region_is_left_by_all() {
        let (_place, location) = place();
        let purpose = purpose(16, Strategy::Lru);
        let (one, other) = (Region::open(&location, &purpose), Region::open(&location, &purpose));
        let (one, other) = (one.expect("a region"), other.expect("the same"));
        assert_eq!((one.retire(), other.retire()), (Ok(true), Ok(false)));
        assert!(!one.is_current() && !other.is_current() && !one.path().expect("a path").exists());
        assert!(Region::open(&location, &purpose).expect("another").is_current());
    }

    #[test]
    fn a_list_shows_every_region_and_removes_those_that_nobody_has_open() {
        let (_place, location) = place();
        assert_eq!(list(&location, true), Ok(Vec::new()));
        assert!(!location.exists());
        let (small, large) = (purpose(16, Strategy::Lru), purpose(5000, Strategy::Fifo));
        let (one, other) = (Region::open(&location, &small), Region::open(&location, &large));
        let (one, other) = (one.expect("a region"), other.expect("a region"));
        for key in 0..3 {
            keep(&one, key, b"value");
            keep(&other, key, b"value");
        }
        one.count(Count::Hit);
        let seen = list(&location, true).expect("a folder");
        assert_eq!(seen.len(), 2);
        let of = |purpose: &Purpose| seen.iter().find(|seen| seen.purpose == *purpose).expect("listed").clone();
        assert_eq!((of(&small).entries, of(&large).entries), (3, 3));
        assert_eq!((of(&small).counts.hits, of(&small).processes, of(&small).bytes), (1, 1, one.bytes()));
        drop(one);
        fs::write(location.path().join("foreign.wc"), b"not ours").expect("room");
        let seen = list(&location, false).expect("a folder");
        assert_eq!(seen.iter().map(|seen| seen.processes).sum::<usize>(), 1);
        let seen = list(&location, true).expect("a folder");
        assert_eq!(seen.iter().map(|seen| &seen.purpose).collect::<Vec<_>>(), [&large]);
        assert!(other.is_current());
    }

    #[test]
    fn the_time_of_an_entry_counts_from_when_it_was_stored_and_no_entry_lives_for_ever() {
        let mut timed = purpose(16, Strategy::Lru);
        timed.parameters.ttl_ns = Some(1000);
        let region = Region::private(None, &timed).expect("memory");
        let store = |now: u64| region.keep(b"key", b"value", now, || true, BUDGET).expect("nobody else is there");
        let finds = |now: u64| (region.contains(b"key", now), region.len(now));
        store(5000);
        assert_eq!((finds(5000), finds(5999), finds(6000)), ((true, 1), (true, 1), (false, 0)));
        store(6500);
        assert_eq!((finds(7499), finds(7500)), ((true, 1), (false, 0)));
        // A clock that has gone back by more than a second.
        store(10 * SLACK);
        assert_eq!(finds(8 * SLACK), (false, 0));
        assert_eq!(finds(10 * SLACK - 5), (true, 1));
    }

    #[test]
    fn what_is_no_longer_wanted_is_not_stored() {
        let region = Region::private(None, &purpose(16, Strategy::Lru)).expect("memory");
        assert_eq!(region.keep(b"key", b"value", 0, || false, BUDGET), Ok(Kept::Unwanted));
        assert!(!region.contains(b"key", 0));
    }

    #[test]
    fn a_region_of_no_entries_counts_only() {
        let region = Region::private(None, &purpose(0, Strategy::Lru)).expect("memory");
        assert_eq!(keep(&region, 1, b"one"), Kept::NoRoom);
        region.count(Count::Miss);
        assert_eq!((get(&region, 1), region.len(0), region.counts().misses), (None, 0, 1));
    }

    /// A region of several shards whose total is too high, and which knows that.
    fn stale(max_size: u64) -> Region {
        let region = Region::private(None, &purpose(max_size, Strategy::Lru)).expect("memory");
        (0..10).for_each(|key| _ = keep(&region, key, b"value"));
        region.header_word(TOTAL).store(15, Ordering::Relaxed);
        region.header_word(STALE).store(1, Ordering::Relaxed);
        region
    }

    fn total_and_mark(region: &Region) -> (u64, u64) {
        let word = |at| region.header_word(at).load(Ordering::Relaxed);
        (word(TOTAL), word(STALE))
    }

    #[test]
    fn whatever_store_a_process_dies_before_the_total_is_right_or_marked_as_stale() {
        for stores in 0.. {
            let region = stale(1100);
            let has_died = die_before(stores, || region.recount_if_stale(&region.here(), Wait::begin(BUDGET)));
            let (total, mark) = total_and_mark(&region);
            assert!(total == 10 || mark != 0, "{stores} stores");
            if !has_died {
                assert!((total, mark) == (10, 0) && stores > 4, "{stores} stores");
                break;
            }
        }
    }

    #[test]
    fn a_total_that_is_marked_while_it_is_counted_stays_marked() {
        let region = stale(1100);
        let mark = || region.shard(0).and_then(|shard| shard.total()).expect("several shards").mark();
        region.recount(&region.here(), Wait::begin(BUDGET), mark);
        assert_ne!(total_and_mark(&region).1, 0);
        keep(&region, 1, b"value");
        assert_eq!(total_and_mark(&region), (10, 0));
    }

    #[test]
    fn a_store_waits_for_all_shards_together_no_longer_than_for_one() {
        let region = stale(8 * EXACT as u64);
        let (is_held, holds) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let region = &region;
            scope.spawn(move || {
                let mut all: Vec<_> = region.locals.get().iter().map(|local| local.lock()).collect();
                is_held.send(()).expect("a listener");
                // One shard after the other can be had, each before the budget of who waits for it alone is over.
                for _ in 0..8 {
                    std::thread::sleep(BUDGET / 2);
                    all.drain(..1);
                }
            });
            holds.recv().expect("a word");
            let start = Instant::now();
            region.recount_if_stale(&region.here(), Wait::begin(BUDGET));
            assert!(start.elapsed() < BUDGET * 2, "{:?}", start.elapsed());
            assert_eq!(total_and_mark(region), (15, 1));
        });
        keep(&region, 1, b"value");
        assert_eq!(total_and_mark(&region), (10, 0));
    }

    #[test]
    fn a_clear_waits_for_all_shards_together_no_longer_than_for_one_and_clears_those_that_it_can_have() {
        let region = Region::private(None, &purpose(32 * EXACT as u64, Strategy::Lru)).expect("memory");
        (0..1000).for_each(|key| _ = keep(&region, key, b"value"));
        let stuck: Vec<_> = region.locals.get().iter().take(31).map(|local| local.lock()).collect();
        let start = Instant::now();
        assert_eq!(region.clear(BUDGET), Err(GaveUp));
        assert!(start.elapsed() < BUDGET * 4, "{:?}", start.elapsed());
        assert_eq!(region.shard(31).map(|shard| shard.len()), Some(0));
        assert_ne!(region.len(0), 0);
        drop(stuck);
        assert_eq!((region.clear(BUDGET), region.len(0)), (Ok(()), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

        /// However the keys fall into the shards, the total is at most the size, and is it as soon as so many keys have come.
        #[test]
        fn several_shards_have_exactly_so_many_entries_together(
            max_size in 1025_u64..5000,
            keys in prop::collection::vec((0_u64..8000, 0_u8..8), 1..9000),
        ) {
            let region = Region::private(None, &purpose(max_size, Strategy::Lru)).expect("memory");
            let mut stored = std::collections::HashSet::new();
            let mut removed = false;
            for (key, act) in keys {
                if act == 0 {
                    removed |= region.remove(&key.to_le_bytes(), 0, BUDGET).expect("nobody else is there");
                } else {
                    keep(&region, key, &key.to_le_bytes());
                    stored.insert(key);
                }
                prop_assert!(region.len(0) as u64 <= max_size);
            }
            if !removed {
                prop_assert_eq!(region.len(0), stored.len().min(usize::try_from(max_size).expect("small")));
            }
            region.validate();
            for key in stored {
                if let Some(value) = get(&region, key) {
                    prop_assert_eq!(value, key.to_le_bytes());
                }
            }
        }
    }
}
