//! A backend that keeps bytes: keys and values are encoded before they come here and decoded after they leave.
//!
//! A look-up that can be answered at once takes no lock and waits for nobody. An operation that may take time goes through its
//! [`Caller`], who lets other threads run meanwhile. Nothing opens by itself: a method that finds the backend closed says
//! [`NotNow`], the caller opens it, gives the user its warning if there is one, and calls again. A value is copied into the
//! caller's buffer, so that a hit allocates nothing.
//!
//! No method runs foreign code.

use super::memory::{Lookup, Tally};
use crate::sync::Token;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The calling thread, and its way to wait.
pub(crate) trait Caller {
    /// The proof that this thread may touch state that threads take turns at.
    fn token(&self) -> Token<'_>;

    /// Runs `body`, which may take time, while other threads go on. `body` has no token, and runs no foreign code.
    fn wait<R: Send>(&self, body: impl FnOnce() -> R) -> R;
}

/// There is no answer yet. After [`ByteBackend::open`] the caller tries once more, by [`ByteBackend::get_waiting`] in place of
/// `get`. If there is still no answer, there is no backend, and the caller goes on without a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow;

/// A value that was found: the end of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Where in the buffer it begins.
    pub(crate) start: usize,
    /// The generation of a miss in its place, for a value that turns out to be none.
    pub(crate) generation: u64,
}

/// An entry to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The backend's time; 0 if no entry expires.
    pub(crate) now: u64,
    /// The generation of the miss after which the value was computed: the entry is stored in that one only. `None`: in any. It is
    /// opaque to the caller: a backend may hand out a number with each miss, and store only what brings it back.
    pub(crate) since: Option<u64>,
}

/// A cache of bytes, for one function.
///
/// `now` is the backend's time, and 0 if no entry expires.
pub(crate) trait ByteBackend {
    /// A warning for the user.
    type Notice: fmt::Display;

    /// Opens the backend, if it is closed. May take seconds. Does nothing if it is open, or could not be opened a moment ago.
    fn open(&self, caller: &impl Caller) -> Option<Self::Notice>;

    /// The same, and opens it anew if another process has removed the entries' file or put another in its place. To be called
    /// before [`ByteBackend::info`] and [`ByteBackend::clear`].
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

    /// The same if the answer may take time, as from another machine. By default it is [`ByteBackend::get`].
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

    /// Takes back the count of a hit whose value turned out to be none. The look-up was a miss, which is counted if `tally` says
    /// so.
    fn retract(&self, token: Token<'_>, tally: Tally);

    /// Whether a look-up would hit, without counting or touching.
    fn contains(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow>;

    /// Stores an entry, in the place of one with the same key. `is_wanted` is asked when no other thread or process can change
    /// that place, so that a stale value is not stored after its removal. An entry that has no room, or cannot be stored in time,
    /// is not stored.
    fn put(
        &self,
        caller: &impl Caller,
        fresh: &Fresh<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Self::Notice>, NotNow>;

    /// Removes the entry of a key. Returns whether there was one that had not expired. No look-up that begins afterwards
    /// finds it.
    fn remove(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow>;

    /// Removes all entries and resets the counters, also those of [`ByteBackend::count_apart`]. A miss before
    /// it is of an older generation.
    fn clear(&self, caller: &impl Caller) -> Result<(), NotNow>;

    /// Counts a call that no look-up has counted.
    fn count(&self, token: Token<'_>, count: Count) -> Result<(), NotNow>;

    /// Counts for this process, if the backend cannot be opened.
    fn count_apart(&self, count: Count);

    /// The counts, and how many entries there are that have not expired. While the backend is closed: the counts apart.
    fn info(&self, caller: &impl Caller, now: u64) -> (Counts, usize);
}

/// An event that a backend counts.
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

/// The counts of one process while it has no backend.
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

    pub(crate) fn count(&self, count: Count) {
        self.of(count).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let of = |count| self.of(count).load(Ordering::Relaxed);
        Counts {
            hits: of(Count::Hit),
            misses: of(Count::Miss),
            skips: of(Count::Skip),
            unstorable: of(Count::Unstorable),
        }
    }

    /// Sets all to zero.
    pub(crate) fn clear(&self) {
        for count in [Count::Hit, Count::Miss, Count::Skip, Count::Unstorable] {
            self.of(count).store(0, Ordering::Relaxed);
        }
    }
}

/// Counts; of all processes together, if they share the entries.
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
