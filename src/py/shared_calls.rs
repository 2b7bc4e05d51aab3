//! How calls of a function whose cache is shared are answered.

use super::awaitable;
use super::cached_coroutine::suspend;
use super::cached_function::{CachedFunction, Mode};
use super::ffi::{self, Call, Object, Raised};
use super::key::CallKey;
use super::shared::{Quick, Scratch, Shared};
use crate::backend::memory::{Lookup, Tally};
use pyo3::prelude::*;

/// The function is a plain one.
#[derive(Debug)]
pub(crate) struct SharedValues;

impl Mode for SharedValues {
    const TALLY: Tally = Tally::All;

    #[inline(always)]
    fn answer<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
    ) -> Result<Object, Raised> {
        let mut scratch = Scratch::take(py);
        match look_up(this, py, key, Self::TALLY, &mut scratch)? {
            Lookup::Hit(value) => {
                scratch.leave(py);
                Ok(value)
            }
            Lookup::Miss { .. } => compute(this, py, call, scratch),
        }
    }
}

/// The function is a coroutine function.
#[derive(Debug)]
pub(crate) struct SharedCoroutines;

impl Mode for SharedCoroutines {
    /// A call that misses may still find the value when it is awaited.
    const TALLY: Tally = Tally::Hits;

    #[inline(always)]
    fn answer<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
    ) -> Result<Object, Raised> {
        let mut scratch = Scratch::take(py);
        match look_up(this, py, key, Self::TALLY, &mut scratch)? {
            Lookup::Hit(value) => {
                scratch.leave(py);
                awaitable::ready(py, value)
            }
            Lookup::Miss { .. } => {
                let bytes = scratch.key.as_slice().into();
                scratch.leave(py);
                suspend(this, py, call, key, bytes)
            }
        }
    }
}

fn shared(this: &Py<CachedFunction>) -> &Shared {
    let Some(shared) = &this.get().cache().shared else { unreachable!("only a shared cache is answered from so") };
    shared
}

#[inline(always)]
fn look_up<K: CallKey>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    key: &K,
    tally: Tally,
    scratch: &mut Scratch,
) -> Result<Lookup<Object>, Raised> {
    let parts = key.parts(this.get().cache().rules);
    match shared(this).look_up(py, &parts, tally, scratch) {
        Quick::Hit(value) => Ok(Lookup::Hit(value)),
        Quick::Miss { generation } => Ok(Lookup::Miss { generation }),
        Quick::Pickled(found) => ffi::guarded(py, || shared(this).unpickle(py, tally, scratch, found))?,
        Quick::Unsure => ffi::guarded(py, || shared(this).look_up_asking(py, &parts, tally, scratch))?,
    }
}

/// Compute → keep → return.
#[inline(never)]
fn compute(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>, mut scratch: Scratch) -> Result<Object, Raised> {
    let value = call.forward(py, this.get().function())?;
    ffi::guarded(py, || shared(this).keep(py, &mut scratch, &value, |_| true))??;
    scratch.leave(py);
    Ok(value)
}
