//! Calls of functions whose entries are objects in the memory of this process.

use super::{Backend, Lookup, Miss};
use crate::backend::memory::{self, Tally};
use crate::py::entries::Entries;
use crate::py::ffi::{Object, Raised};
use crate::py::in_memory::{InMemory, StoredEntry};
use crate::py::key::{CallKey, KeyRules};
use pyo3::prelude::*;

/// The place of a value that is being computed. The entry is made once and never moved: a move of it, soon after it was written,
/// takes a tenth of the time of a miss.
#[derive(Default)]
pub(super) struct Place {
    /// The key, with `None` for a value that is not there yet.
    entry: Option<StoredEntry>,
    hash: u64,
    /// The generation of the store when the call missed.
    generation: u64,
}

impl Backend for InMemory {
    type Search = ();
    type Place = Place;

    #[inline(always)]
    fn of(entries: &Entries) -> &Self {
        match entries {
            Entries::Memory(memory) => memory,
            #[cfg(unix)]
            Entries::Shared(_) => unreachable!("a call path is chosen by its entries"),
        }
    }

    #[inline(always)]
    fn look_up<K: CallKey>(&self, py: Python<'_>, key: &K, _: KeyRules, tally: Tally) -> Result<Lookup<()>, Raised> {
        Ok(match self.look_up(py, key, tally)? {
            memory::Lookup::Hit(value) | memory::Lookup::Stale(value) => Lookup::Hit(value),
            memory::Lookup::Miss { generation } => Lookup::Miss(Miss { generation, search: () }),
        })
    }

    #[inline(always)]
    fn hold<K: CallKey>(py: Python<'_>, key: &K, missed: Miss<()>, place: &mut Place) -> Result<(), Raised> {
        place.entry = Some(StoredEntry { key: key.to_key(py)?, value: py.None().into() });
        (place.hash, place.generation) = (key.hash(), missed.generation);
        Ok(())
    }

    #[inline(always)]
    fn keep(&self, py: Python<'_>, place: &mut Place, value: &Object) -> Result<(), Raised> {
        if let Some(entry) = &mut place.entry {
            entry.value = value.clone_ref(py);
        }
        self.keep(py, place.hash, place.generation, &mut place.entry, || true)
    }

    #[inline(always)]
    fn keep_of<K: CallKey>(&self, py: Python<'_>, key: &K, missed: Miss<()>, value: &Object) -> Result<(), Raised> {
        let mut entry = Some(StoredEntry { key: key.to_key(py)?, value: value.clone_ref(py) });
        self.keep(py, key.hash(), missed.generation, &mut entry, || true)
    }

    #[inline(always)]
    fn bytes(_: Python<'_>, (): ()) -> Box<[u8]> {
        Box::default()
    }
}
