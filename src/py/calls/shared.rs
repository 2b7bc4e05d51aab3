//! Calls of functions whose entries are bytes.

use super::{Backend, Lookup, Miss};
use crate::backend::memory::{self, Tally};
use crate::py::encoded::{Scratch, slowly};
use crate::py::entries::Entries;
use crate::py::ffi::{Object, Raised};
use crate::py::key::{CallKey, KeyRules};
use crate::py::shared::Shared;
use pyo3::prelude::*;

impl Backend for Shared {
    /// The buffer with the key's bytes.
    type Search = Scratch;
    type Place = Scratch;

    #[inline(always)]
    fn of(entries: &Entries) -> &Self {
        match entries {
            Entries::Shared(shared) => shared,
            Entries::Memory(_) => unreachable!("a call path is chosen by its entries"),
        }
    }

    #[inline(always)]
    fn look_up<K: CallKey>(
        &self,
        py: Python<'_>,
        key: &K,
        rules: KeyRules,
        tally: Tally,
    ) -> Result<Lookup<Scratch>, Raised> {
        let mut scratch = Scratch::take(py);
        Ok(match self.look_up(py, &key.parts(rules), tally, &mut scratch)? {
            memory::Lookup::Hit(value) | memory::Lookup::Stale(value) => {
                scratch.leave(py);
                Lookup::Hit(value)
            }
            memory::Lookup::Miss { generation } => Lookup::Miss(Miss { generation, search: scratch }),
        })
    }

    #[inline(always)]
    fn hold<K: CallKey>(_: Python<'_>, _: &K, missed: Miss<Scratch>, place: &mut Scratch) -> Result<(), Raised> {
        *place = missed.search;
        Ok(())
    }

    /// Not a part of what is on the stack while the function runs.
    #[inline(never)]
    fn keep(&self, py: Python<'_>, scratch: &mut Scratch, value: &Object) -> Result<(), Raised> {
        slowly(py, || self.keep(py, scratch, value))??;
        std::mem::take(scratch).leave(py);
        Ok(())
    }

    fn bytes(py: Python<'_>, search: Scratch) -> Box<[u8]> {
        let bytes = search.key.as_slice().into();
        search.leave(py);
        bytes
    }
}
