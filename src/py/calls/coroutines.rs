//! A coroutine function: its calls return an awaitable that has the value, or that will get it.

use super::{Answer, Backend, Miss, Outcome};
use crate::backend::memory::Tally;
use crate::py::awaiting::arguments::Arguments;
use crate::py::awaiting::awaitable;
use crate::py::awaiting::driven;
use crate::py::awaiting::pending_call::PendingCall;
use crate::py::cached_function::CachedFunction;
use crate::py::ffi::{self, Call, Object, Raised};
use crate::py::key::{CallKey, KeptKey, Lone};
use pyo3::prelude::*;

/// Caches what the function's coroutine returns.
pub(super) struct Coroutines;

impl Answer for Coroutines {
    /// A call that misses may still find the value when it is awaited.
    const TALLY: Tally = Tally::Hits;

    /// A call that misses is answered by an awaitable, too.
    type Place<B: Backend> = ();

    #[inline(always)]
    fn hit(py: Python<'_>, value: Object) -> Result<Object, Raised> {
        awaitable::ready(py, value)
    }

    #[inline(never)]
    fn miss<B: Backend, K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        missed: Miss<B::Search>,
        (): &mut (),
    ) -> Result<Outcome, Raised> {
        suspend(this, py, call, key, B::bytes(py, missed.search)).map(Outcome::Answer)
    }

    #[inline(never)]
    fn miss_lone<B: Backend>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &Lone<'_>,
        missed: Miss<B::Search>,
    ) -> Result<Object, Raised> {
        suspend(this, py, call, key, B::bytes(py, missed.search))
    }

    fn compute<B: Backend>(_: &Py<CachedFunction>, _: Python<'_>, _: Call<'_>, (): &mut ()) -> Result<Object, Raised> {
        unreachable!("a call that misses is answered")
    }
}

/// An awaitable for a call that missed, and the bytes of whose key are these.
fn suspend<K: CallKey>(
    function: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &K,
    bytes: Box<[u8]>,
) -> Result<Object, Raised> {
    ffi::check_memory(py)?;
    let coroutine = call.forward(py, function.get().function())?;
    let unrun = coroutine.clone_ref(py);
    let answered = ffi::guarded(py, || {
        let stored = key.to_key(py)?;
        let arguments = Arguments::new(py, &call.given(), &stored)?;
        let key = KeptKey { key: stored, hash: key.hash(), bytes };
        awaitable::pending(py, PendingCall::new(function.clone_ref(py).into(), arguments, key, coroutine))
    })
    .and_then(|answered| answered);
    // The caller can't await what it does not get: the coroutine is not to complain of it.
    answered.map_err(|raised| {
        let error = raised.fetch(py);
        driven::close_quietly(py, &unrun);
        error.into()
    })
}
