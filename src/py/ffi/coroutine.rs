//! Coroutines, and what `await` drives.

#![allow(unsafe_code)]

use super::object::{Arg, Object, owned};
use super::raised::Raised;
use crate::py::thread;
use pyo3::exceptions::PyBaseException;
use pyo3::exceptions::PyDeprecationWarning;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTraceback;
use pyo3::types::PyTuple;
use pyo3::types::PyType;

/// The result of resuming a coroutine or an iterator.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It suspended itself, and gave this to whoever drives it.
    Yielded(Object),
    /// It ended with this.
    Returned(Object),
}

/// Resumes what `await` drives: a coroutine, or the iterator of another awaitable.
///
/// The interpreter counts how deep coroutines are nested, and an awaitable between them does not count, as one that is written
/// in Python does not.
pub(crate) fn send(py: Python<'_>, iterator: &Py<PyAny>, value: Arg<'_>) -> Result<Sent, Raised> {
    thread::check_stack(py)?;
    let mut result = std::ptr::null_mut();
    // SAFETY: the thread is attached, and both objects are kept alive by the references given.
    let outcome = unsafe { ffi::PyIter_Send(iterator.as_ptr(), value.as_ptr(), &raw mut result) };
    match outcome {
        ffi::PySendResult::PYGEN_RETURN => owned(result).map(Sent::Returned),
        ffi::PySendResult::PYGEN_NEXT => owned(result).map(Sent::Yielded),
        ffi::PySendResult::PYGEN_ERROR => Err(Raised(())),
    }
}

/// The exception that `throw(exception)` or `throw(type[, value[, traceback]])` means.
pub(crate) fn thrown(py: Python<'_>, args: &[Arg<'_>]) -> PyResult<PyErr> {
    let given = |index: usize| args.get(index).map(|arg| arg.bind(py)).filter(|arg| !arg.is_none());
    let Some(exception) = given(0) else {
        return Err(PyTypeError::new_err(
            "exceptions must be classes or instances deriving from BaseException, not None",
        ));
    };
    let value = given(1);
    if cfg!(Py_3_12) && args.len() > 1 {
        let message = c"the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
    }
    let error = if exception.is_instance_of::<PyBaseException>() {
        if value.is_some() {
            return Err(PyTypeError::new_err("instance exception may not have a separate value"));
        }
        PyErr::from_value(exception.clone())
    } else if let Ok(kind) = exception.cast::<PyType>()
        && kind.is_subclass_of::<PyBaseException>()?
    {
        match value {
            Some(value) if value.is_instance(kind)? => PyErr::from_value(value.clone()),
            Some(value) => match value.cast::<PyTuple>() {
                Ok(values) => PyErr::from_value(kind.call1(values)?),
                Err(_) => PyErr::from_value(kind.call1((value,))?),
            },
            None => PyErr::from_value(kind.call0()?),
        }
    } else {
        let kind = exception.get_type().name()?;
        let message = format!("exceptions must be classes or instances deriving from BaseException, not {kind}");
        return Err(PyTypeError::new_err(message));
    };
    if let Some(traceback) = given(2) {
        let traceback = traceback.cast::<PyTraceback>();
        let traceback =
            traceback.map_err(|_| PyTypeError::new_err("throw() third argument must be a traceback object"))?;
        error.set_traceback(py, Some(traceback.clone()));
    }
    Ok(error)
}

/// Whether `await` drives the object itself, and asks it for no iterator.
pub(crate) fn is_coroutine(object: &Py<PyAny>) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// Whether the object is a generator.
pub(crate) fn is_generator(object: &Py<PyAny>) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::PyGen_CheckExact(object.as_ptr()) != 0 }
}
