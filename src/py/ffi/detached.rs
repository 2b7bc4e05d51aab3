//! Work beside other threads that run Python.

#![allow(unsafe_code)]

use crate::py::thread;
use pyo3::ffi;
use pyo3::prelude::*;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// Runs `body`, which must not call Python, while other threads may run Python.
pub(crate) fn detached<R: Send>(py: Python<'_>, body: impl FnOnce() -> R) -> R {
    thread::prepare(py);
    // SAFETY: the thread is attached, and is again before anything else here can touch Python.
    let state = unsafe { ffi::PyEval_SaveThread() };
    let result = catch_unwind(AssertUnwindSafe(body));
    // SAFETY: the state is that of this thread, which is not attached.
    unsafe { ffi::PyEval_RestoreThread(state) };
    result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}
