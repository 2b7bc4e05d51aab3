//! How calls of a function whose cache is shared are answered.

use super::awaitable;
use super::cached_coroutine::suspend;
use super::cached_function::{CachedFunction, Found, Mode};
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

    /// What has the key's bytes.
    type Missed = Scratch;

    #[inline(always)]
    fn find<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        _: Call<'_>,
        key: &K,
        missed: &mut Scratch,
    ) -> Result<Found, Raised> {
        let mut scratch = Scratch::take(py);
        match look_up(this, py, key, Self::TALLY, &mut scratch)? {
            Lookup::Hit(value) => {
                scratch.leave(py);
                Ok(Found::Answer(value))
            }
            Lookup::Miss { .. } => {
                *missed = scratch;
                Ok(Found::Miss)
            }
        }
    }

    #[inline(never)]
    fn compute(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        missed: &mut Scratch,
    ) -> Result<Object, Raised> {
        let value = call.forward(py, this.get().function())?;
        keep(this, py, missed, &value)?;
        Ok(value)
    }
}

/// Not a part of what is on the stack while the function runs.
#[inline(never)]
fn keep(this: &Py<CachedFunction>, py: Python<'_>, scratch: &mut Scratch, value: &Object) -> Result<(), Raised> {
    slowly(py, || shared(this).keep(py, scratch, value, |_| true))??;
    std::mem::take(scratch).leave(py);
    Ok(())
}

/// The function is a coroutine function.
#[derive(Debug)]
pub(crate) struct SharedCoroutines;

impl Mode for SharedCoroutines {
    /// A call that misses may still find the value when it is awaited.
    const TALLY: Tally = Tally::Hits;

    /// A call that misses is answered by an awaitable, too.
    type Missed = ();

    #[inline(always)]
    fn find<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        (): &mut (),
    ) -> Result<Found, Raised> {
        let mut scratch = Scratch::take(py);
        let answer = match look_up(this, py, key, Self::TALLY, &mut scratch)? {
            Lookup::Hit(value) => {
                scratch.leave(py);
                awaitable::ready(py, value)
            }
            Lookup::Miss { .. } => {
                let bytes = scratch.key.as_slice().into();
                scratch.leave(py);
                suspend(this, py, call, key, bytes)
            }
        };
        answer.map(Found::Answer)
    }

    fn compute(_: &Py<CachedFunction>, _: Python<'_>, _: Call<'_>, (): &mut ()) -> Result<Object, Raised> {
        unreachable!("a call that misses is answered")
    }
}

/// Does what is not the work of a hit. pyo3 is told that the thread is attached: else it would not drop exceptions at once.
fn slowly<R>(py: Python<'_>, body: impl FnOnce() -> R) -> Result<R, Raised> {
    ffi::attached(|_| ffi::guarded(py, body))
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
        Quick::Pickled(found) => slowly(py, || shared(this).unpickle(py, tally, scratch, found))?,
        Quick::Unsure => slowly(py, || shared(this).look_up_asking(py, &parts, tally, scratch))?,
    }
}
