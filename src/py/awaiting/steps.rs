//! The result of an awaitable's `__await__()` when it is called by name: `await` itself needs no iterator but the
//! object.
//!
//! The object is no iterator, as a coroutine is none; but `yield from f(x).__await__()` asks for one.

use crate::py::ffi::{Arg, Given};
use crate::py::method::{self, methods};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::CStr;

/// An iterator over the steps of an awaitable.
#[pyclass(frozen, immutable_type, subclass, name = "_Steps", module = "warp_cache")]
pub(crate) struct Steps {
    awaitable: Py<PyAny>,
    protocol: &'static Protocol,
}

/// A method of an awaitable.
type Method = for<'py> fn(&Bound<'py, PyAny>, Given<'_>) -> PyResult<Bound<'py, PyAny>>;

/// How an awaitable is driven.
pub(crate) struct Protocol {
    pub(crate) send: Method,
    pub(crate) throw: Method,
    pub(crate) close: Method,
}

#[pymethods]
impl Steps {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.awaitable)
    }
}

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The type of what [`new`] returns.
pub(crate) fn steps_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    const NAME: &CStr = c"warp_cache._CachedCoroutineSteps";
    const DOC: &CStr = c"An iterator over the steps of a cached coroutine.";
    TYPE.get_or_try_init(py, || {
        let methods = [method::definition::<Send>(), method::definition::<Throw>(), method::definition::<Close>()];
        method::derive_iterator::<Next>(py, NAME, DOC, &methods).map(Bound::unbind)
    })
    .map(|kind| kind.bind(py))
}

/// An iterator over the steps of `awaitable`, which are made by `protocol`.
pub(crate) fn new<'py>(awaitable: &Bound<'py, PyAny>, protocol: &'static Protocol) -> PyResult<Bound<'py, PyAny>> {
    let py = awaitable.py();
    let steps = Bound::new(py, Steps { awaitable: awaitable.clone().unbind(), protocol })?;
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
    (this.get().protocol.send)(this.get().awaitable.bind(this.py()), given)
}

fn throw<'py>(this: &Bound<'py, Steps>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    (this.get().protocol.throw)(this.get().awaitable.bind(this.py()), given)
}

fn close<'py>(this: &Bound<'py, Steps>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    (this.get().protocol.close)(this.get().awaitable.bind(this.py()), given)
}
