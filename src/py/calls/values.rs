//! A plain function: its calls return the values themselves.

use super::{Answer, Backend, Miss, Outcome};
use crate::backend::memory::Tally;
use crate::py::cached_function::CachedFunction;
use crate::py::ffi::{Call, Entrance, Object, Raised};
use crate::py::key::{CallKey, Lone};
use pyo3::prelude::*;

/// Caches what the function returns.
pub(super) struct Values;

impl Answer for Values {
    const TALLY: Tally = Tally::All;

    type Place<B: Backend> = B::Place;

    #[inline(always)]
    fn hit(_: Python<'_>, value: Object) -> Result<Object, Raised> {
        Ok(value)
    }

    #[inline(never)]
    fn miss<B: Backend, K: CallKey>(
        _: &Py<CachedFunction>,
        py: Python<'_>,
        _: Call<'_>,
        key: &K,
        missed: Miss<B::Search>,
        place: &mut B::Place,
    ) -> Result<Outcome, Raised> {
        B::hold(py, key, missed, place)?;
        Ok(Outcome::Compute)
    }

    #[inline(never)]
    fn miss_lone<B: Backend>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &Lone<'_>,
        missed: Miss<B::Search>,
    ) -> Result<Object, Raised> {
        let this = this.get();
        let value = call.forward(py, this.function())?;
        B::of(&this.cache().entries).keep_of(py, key, missed, &value)?;
        Ok(value)
    }

    #[inline(never)]
    fn compute<B: Backend>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        place: &mut B::Place,
    ) -> Result<Object, Raised> {
        let this = this.get();
        let value = call.forward(py, this.function())?;
        B::of(&this.cache().entries).keep(py, place, &value)?;
        Ok(value)
    }
}

/// Only counts: a cache of no entries.
pub(super) struct Counting;

impl Entrance for Counting {
    type Class = CachedFunction;

    fn call(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        let this = this.get();
        this.cache().entries.count_miss(py)?;
        call.forward(py, this.function())
    }
}
