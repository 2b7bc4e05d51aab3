//! A backend that keeps bytes: keys and values that are encoded before they come and decoded after they left.
//!
//! A look-up that can be answered at once waits for nobody and takes no lock. Everything else may take time: it goes through
//! the caller, who lets others run meanwhile, and it is tried before anything is opened: [`NotNow`] says that
//! [`ByteBackend::open`] comes first. What an answer is put into is the caller's, so that a hit allocates nothing.
//!
//! No method runs foreign code. Warnings are the caller's to give: a backend returns the text.

use super::memory::{Lookup, Tally};
use crate::sync::Token;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The thread that asks, and its way to wait.
pub(crate) trait Caller {
    /// What proves that it may touch what is not to be touched by two.
    fn token(&self) -> Token<'_>;

    /// Runs what may take time, and lets others go on meanwhile. `body` has no token, and runs no foreign code.
    fn wait<R: Send>(&self, body: impl FnOnce() -> R) -> R;
}

/// There is no answer yet. [`ByteBackend::open`] is to be called, and then the method once more; if it still says so, there is
/// no backend, and the caller goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow;

/// A value that was found: the end of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Where in the buffer it begins.
    pub(crate) start: usize,
    /// As a miss would have it, for a value that turns out to be none.
    pub(crate) generation: u64,
}

/// An entry to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value.
    pub(crate) value: &'a [u8],
    /// The time; 0 where no entry's time is ever over.
    pub(crate) now: u64,
    /// The generation of the miss after which the value was computed: the entry is stored in that one only. `None`: in any.
    pub(crate) since: Option<u64>,
}

/// A cache of bytes, for one function.
///
/// `now` is the backend's time, and 0 where no entry's time is ever over.
pub(crate) trait ByteBackend {
    /// What the user is to be told, once.
    type Notice: fmt::Display;

    /// Opens what is not open. May take seconds. Does nothing if it is open, or could not be opened a moment ago.
    fn open(&self, caller: &impl Caller) -> Option<Self::Notice>;

    /// Opens what is not open, and opens it anew if somebody has removed it, or put another in its place: for what shows or
    /// clears all entries.
    fn refresh(&self, caller: &impl Caller) -> Option<Self::Notice>;

    /// Looks a key up at once, and counts what `tally` says. After a hit the value is in `entry`, whose capacity is used again.
    fn get(
        &self,
        token: Token<'_>,
        key: &[u8],
        now: u64,
        tally: Tally,
        entry: &mut Vec<u8>,
    ) -> Result<Lookup<Stored>, NotNow>;

    /// The same where the answer may take time, as from another machine. A backend that always answers at once has no other.
    fn get_waiting(
        &self,
        caller: &impl Caller,
        key: &[u8],
        now: u64,
        tally: Tally,
        entry: &mut Vec<u8>,
    ) -> Result<Lookup<Stored>, NotNow> {
        self.get(caller.token(), key, now, tally, entry)
    }

    /// Takes back that a hit was counted, since its value was none. It is a miss, which is counted if `tally` says so.
    fn retract(&self, token: Token<'_>, tally: Tally);

    /// Whether a look-up would hit, without counting or touching.
    fn contains(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow>;

    /// Stores an entry, in the place of one with the same key. Whether it is `is_wanted` is asked when nobody else can change
    /// the place. An entry that has no room, or cannot be stored in time, is not stored.
    fn put(
        &self,
        caller: &impl Caller,
        fresh: &Fresh<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Self::Notice>, NotNow>;

    /// Removes the entry of a key. Returns whether there was one whose time was not over. No look-up that begins afterwards
    /// finds it.
    fn remove(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow>;

    /// Removes all entries and resets the counters, also those of [`ByteBackend::count_apart`]. What was missed before is of an
    /// older generation.
    fn clear(&self, caller: &impl Caller) -> Result<(), NotNow>;

    /// Counts what no look-up has counted.
    fn count(&self, token: Token<'_>, count: Count) -> Result<(), NotNow>;

    /// Counts for this process, where nothing can be opened.
    fn count_apart(&self, count: Count);

    /// What has been counted, and how many entries there are whose time is not over. Of what is not open: what was counted apart.
    fn info(&self, caller: &impl Caller, now: u64) -> (Counts, usize);
}

/// What a backend counts.
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

/// What one process counts while it has no backend.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    hits: AtomicU64,
    misses: AtomicU64,
    skips: AtomicU64,
    unstorable: AtomicU64,
}

impl Tallies {
    fn of(&self, count: Count) -> &AtomicU64 {
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

/// What has been counted, all processes together where they share the entries.
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

#[cfg(all(test, unix, not(feature = "python"), not(loom)))]
mod tests;
