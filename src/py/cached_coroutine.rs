//! How a cached coroutine function answers a call: with an awaitable that has the value, or that will get it.

use super::arguments::Arguments;
use super::awaitable;
use super::cached_function::{CachedFunction, Found, InMemory, Mode, find};
use super::ffi::{self, Call, Object, Raised};
use super::key::CallKey;
use super::pending_call::{self, PendingCall};
use crate::backend::memory::Tally;
use pyo3::prelude::*;

/// The function is a coroutine function: what is cached is what its coroutine returns.
#[derive(Debug)]
pub(crate) struct Coroutines;

impl Mode for Coroutines {
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
        find::<Self, K>(this, py, call, key, &mut ())
    }

    fn compute(_: &Py<CachedFunction>, _: Python<'_>, _: Call<'_>, (): &mut ()) -> Result<Object, Raised> {
        unreachable!("a call that misses is answered")
    }
}

impl InMemory for Coroutines {
    #[inline(always)]
    fn hit(py: Python<'_>, value: Object) -> Result<Object, Raised> {
        awaitable::ready(py, value)
    }

    #[inline(never)]
    fn miss<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        _: u64,
        (): &mut (),
    ) -> Result<Found, Raised> {
        suspend(function, py, call, key, Box::default()).map(Found::Answer)
    }
}

/// An awaitable for a call that missed, whose key is `bytes` in a shared cache.
pub(crate) fn suspend<K: CallKey>(
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
        let call = PendingCall::new(function.clone_ref(py).into(), arguments, stored, key.hash(), bytes, coroutine);
        awaitable::pending(py, call)
    })
    .and_then(|answered| answered);
    // The caller can't await what it does not get: the coroutine is not to complain of it.
    answered.map_err(|raised| {
        let error = raised.fetch(py);
        pending_call::close_quietly(py, &unrun);
        error.into()
    })
}
