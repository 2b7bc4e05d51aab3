//! What an awaitable's `__await__()` returns when it is called by name: `await` itself needs no iterator but the object.
//!
//! The object is no iterator, as a coroutine is none; but `yield from f(x).__await__()` asks for one.

use super::awaitable;
use super::ffi::{Arg, Given};
use super::method::{self, methods};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::CStr;

/// An iterator over the steps of an awaitable.
#[pyclass(frozen, immutable_type, subclass, name = "_Steps", module = "warp_cache")]
pub(crate) struct Steps(Py<PyAny>);

#[pymethods]
impl Steps {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The type of what [`new`] returns.
pub(crate) fn steps_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    const NAME: &CStr = c"warp_cache._CachedCoroutineSteps";
    const DOC: &CStr = c"An iterator over the steps of a cached coroutine.";
    TYPE.get_or_try_init(py, || {
        let methods = [method::definition::<Send>(), method::definition::<Throw>(), method::definition::<Close>()];
        method::derive_iterator::<Next, _>(py, NAME, DOC, methods).map(Bound::unbind)
    })
    .map(|kind| kind.bind(py))
}

/// An iterator over the steps of `awaitable`.
pub(crate) fn new<'py>(awaitable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = awaitable.py();
    let steps = Bound::new(py, Steps(awaitable.clone().unbind()))?;
    Ok(method::adopt(steps, steps_type(py)?))
}

methods! {
    Next(Steps, 0) = "__next__" "($self, /)" "Resume, as `await` does." next;
    Send(Steps, 0) = "send" "($self, value, /)" "Resume with a value." send;
    Throw(Steps, 0) = "throw" "($self, /, *args)" "Raise an exception where the coroutine is suspended." throw;
    Close(Steps, 0) = "close" "($self, /)" "Raise GeneratorExit where the coroutine is suspended." close;
}

fn next<'py>(this: &Bound<'py, Steps>, _: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let none = this.py().None();
    send(this, Given { values: &[Arg::new(&none)], positional: 1, ..Given::NOTHING })
}

fn send<'py>(this: &Bound<'py, Steps>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    awaitable::send(this.get().0.bind(this.py()), given)
}

fn throw<'py>(this: &Bound<'py, Steps>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    awaitable::throw(this.get().0.bind(this.py()), given)
}

fn close<'py>(this: &Bound<'py, Steps>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    awaitable::close(this.get().0.bind(this.py()), given)
}
