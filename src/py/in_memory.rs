//! The entries of one function in the memory of this process.

use super::ffi::{self, Object, Raised};
use super::key::{CallKey, KeptKey, Key, KeyRules, Stored};
use crate::backend::memory::{Lookup, Memory, Query, Tally};
use crate::clock::Clock;
use crate::options::Options;
use crate::reserve;
use crate::stats::Stats;
use crate::store::Entry;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// An entry as the memory of this process has it.
pub(crate) type StoredEntry = Entry<Key, Object>;

/// The memory backend of one function.
#[derive(Debug)]
pub(crate) struct InMemory {
    memory: Memory<Key, Object>,
    rules: KeyRules,
    /// Entries expire.
    is_timed: bool,
}

impl InMemory {
    /// No entries. Their times are read from `clock`, if one is given.
    pub(crate) fn new(options: &Options, rules: KeyRules, clock: Option<Clock>) -> Self {
        Self { memory: Memory::new(options, clock), rules, is_timed: options.ttl.is_some() }
    }

    /// Looks a key up and counts what `tally` says. Asks keys' own `__eq__` where nothing else can tell.
    #[inline(always)]
    pub(crate) fn look_up<Q: Query<Key, Error = Raised>>(
        &self,
        py: Python<'_>,
        query: &Q,
        tally: Tally,
    ) -> Result<Lookup<Object>, Raised> {
        self.memory.get(py, query, tally, |value| value.clone_ref(py))
    }

    /// Stores the entry in `place`, which was computed after a miss at `generation`, unless it is no longer wanted, and
    /// drops what had to leave. `hash` is that of the key as a query. Raises what comparing keys raises.
    #[inline(always)]
    pub(crate) fn keep(
        &self,
        py: Python<'_>,
        hash: u64,
        generation: u64,
        place: &mut Option<StoredEntry>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        if reserve::is_short() {
            return Ok(());
        }
        if ffi::guarded(py, || self.memory.keep(py, hash, generation, place, None, &is_wanted))? {
            *place = None;
        } else if let Some(late) = place.take() {
            self.keep_late(py, hash, late, is_wanted)?;
        }
        if self.is_timed {
            // One more than the one whose place was needed, so that expired entries leave faster than others come.
            drop(self.memory.expire(py));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn keep_late(
        &self,
        py: Python<'_>,
        hash: u64,
        late: StoredEntry,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        let key = late.key.clone_ref(py);
        drop(self.memory.keep_late(py, &Stored::new(&key, hash, self.rules), late, None, is_wanted)?);
        Ok(())
    }

    /// [`InMemory::look_up`] for a key that was not there before. A miss is not counted.
    pub(crate) fn look_up_again(&self, py: Python<'_>, key: &KeptKey) -> Result<Lookup<Object>, Raised> {
        self.look_up(py, &key.query(self.rules), Tally::Again)
    }

    /// [`InMemory::keep`] for a key that its caller keeps, too.
    pub(crate) fn keep_of(
        &self,
        py: Python<'_>,
        key: &KeptKey,
        value: &Object,
        generation: u64,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        let mut place = Some(Entry { key: key.key.clone_ref(py), value: value.clone_ref(py) });
        self.keep(py, key.hash, generation, &mut place, is_wanted)
    }

    pub(crate) fn count_hit(&self, py: Python<'_>) {
        self.memory.count_hit(py);
    }

    pub(crate) fn count_miss(&self, py: Python<'_>) {
        self.memory.count_miss(py);
    }

    /// Removes the entry of a key, and says whether there was one.
    pub(crate) fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        Ok(self.memory.take(py, key)?.is_some())
    }

    /// Whether a look-up would hit, which is neither counted nor touched.
    pub(crate) fn contains<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        self.memory.contains(py, key)
    }

    /// Removes all entries and resets the counters.
    pub(crate) fn clear(&self, py: Python<'_>) {
        drop(self.memory.clear(py));
    }

    /// The counters, and the number of entries that have not expired.
    pub(crate) fn info(&self, py: Python<'_>) -> (Stats, usize) {
        self.memory.info(py)
    }

    /// Shows the garbage collector all keys and values.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.memory.visit(visit, |entry| {
            entry.key.traverse(visit)?;
            visit.call(&*entry.value)
        })
    }
}
