//! A coroutine, or another awaitable, as the one who drives it sees it.

use crate::py::ffi::{self, Arg, Object, Raised, Sent};
use crate::py::names;
use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use std::ffi::CStr;

/// A driver of an awaitable.
pub(crate) fn awaited(py: Python<'_>, awaitable: Object) -> Result<Object, Raised> {
    if ffi::is_coroutine(&awaitable) {
        return Ok(awaitable);
    }
    match ffi::attribute_if_any(py, Arg::new(&awaitable), &names::of(py).await_)? {
        Some(method) => ffi::call(py, &method, &[], None),
        // A generator that types.coroutine has made awaitable.
        None if ffi::is_generator(&awaitable) => Ok(awaitable),
        None => {
            let kind = awaitable.bind(py).get_type().name()?;
            let text = format!("object {kind} can't be used in 'await' expression");
            Err(Raised::new::<PyTypeError>(py, &text))
        }
    }
}

/// An attribute that a coroutine still has when it is over.
pub(crate) fn attribute_of_finished<'py>(py: Python<'py>, name: &CStr) -> Option<Bound<'py, PyAny>> {
    if name == c"cr_running" || name == c"cr_suspended" {
        Some(ffi::truth(py, false))
    } else if name == c"cr_await" || name == c"cr_frame" || name == c"cr_origin" {
        Some(py.None().into_bound(py))
    } else {
        None
    }
}

/// Raises an exception where `iterator` is suspended.
pub(crate) fn throw_into(py: Python<'_>, iterator: &Object, error: PyErr) -> Result<Sent, Raised> {
    let Some(throw) = ffi::attribute_if_any(py, Arg::new(iterator), &names::of(py).throw)? else {
        return Err(error.into());
    };
    let error = error.into_value(py).into_any();
    let raised = match ffi::one_deeper(py, || ffi::call(py, &throw, &[Arg::new(&error)], None)) {
        Ok(value) => return Ok(Sent::Yielded(value)),
        Err(raised) => raised,
    };
    let error = raised.fetch(py);
    if error.is_instance_of::<PyStopIteration>(py) {
        let value = error.value(py).as_any().as_unbound();
        return ffi::attribute(py, Arg::new(value), &names::of(py).value).map(Sent::Returned);
    }
    Err(error.into())
}

/// Whether a coroutine can go on.
pub(crate) fn is_suspended(py: Python<'_>, coroutine: &Object) -> bool {
    match ffi::attribute_if_any(py, Arg::new(coroutine), &names::of(py).cr_frame) {
        Ok(frame) => frame.is_some_and(|frame| !frame.is_none(py)),
        Err(raised) => {
            drop(raised.fetch(py));
            false
        }
    }
}

/// Closes what can be closed.
pub(crate) fn close(py: Python<'_>, iterator: &Object) -> Result<Object, Raised> {
    match ffi::attribute_if_any(py, Arg::new(iterator), &names::of(py).close)? {
        Some(close) => ffi::call(py, &close, &[], None),
        None => Ok(py.None().into()),
    }
}

/// The same for what has not run: nothing in it can raise.
pub(crate) fn close_quietly(py: Python<'_>, coroutine: &Object) {
    if let Err(raised) = close(py, coroutine) {
        raised.fetch(py).write_unraisable(py, Some(coroutine.bind(py)));
    }
}
