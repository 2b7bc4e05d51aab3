//! Errors on the call's path, and panics that become errors.

#![allow(unsafe_code)]

use crate::reserve;
use pyo3::PyTypeInfo;
use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// The error of a step after which Python's own error indicator is set.
///
/// On the call's path an exception stays where it was raised: it is neither fetched nor restored.
#[derive(Debug)]
pub(crate) struct Raised(pub(super) ());

impl From<PyErr> for Raised {
    #[cold]
    fn from(error: PyErr) -> Self {
        // SAFETY: an error only comes from an attached thread, in this crate.
        error.restore(unsafe { Python::assume_attached() });
        Raised(())
    }
}

impl Raised {
    /// The error that a function of the C API has just set.
    #[cold]
    pub(crate) fn indicated(_: Python<'_>) -> Self {
        Raised(())
    }

    /// Raises an exception of that class.
    ///
    /// Where there is no memory for its text, what is raised is a `MemoryError`. pyo3's own errors are made when they are
    /// raised, and panic there.
    #[cold]
    pub(crate) fn new<T: PyTypeInfo>(py: Python<'_>, text: &str) -> Self {
        // SAFETY: the thread is attached, the text is as long as said, and the class is one of exceptions. Where there is no
        // text, the error is set already.
        unsafe {
            let text = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed());
            if !text.is_null() {
                ffi::PyErr_SetObject(T::type_object_raw(py).cast(), text);
                ffi::Py_DECREF(text);
            }
        }
        Raised(())
    }

    /// Takes the exception out of the error indicator.
    ///
    /// `PyErr::fetch` is no way to do so: it begins to panic when it meets a `PanicException`, which is a class like any
    /// other to whoever finds it.
    #[cold]
    #[allow(clippy::unused_self, reason = "having one is what says that there is an exception")]
    pub(crate) fn fetch(self, py: Python<'_>) -> PyErr {
        take_error(py).unwrap_or_else(|| PySystemError::new_err("an error was reported, and no exception was set"))
    }
}

/// Raises `MemoryError` where nothing that needs memory should be begun.
#[inline(always)]
pub(crate) fn check_memory(py: Python<'_>) -> Result<(), Raised> {
    if reserve::is_short() { Err(no_memory(py)) } else { Ok(()) }
}

#[cold]
pub(super) fn no_memory(_: Python<'_>) -> Raised {
    // SAFETY: the thread is attached.
    unsafe { ffi::PyErr_NoMemory() };
    Raised(())
}

/// Runs `body`, and tells pyo3 that the thread is attached. Only called where it is: by what the interpreter calls, and by what
/// owns an [`Object`](super::Object).
pub(crate) fn attached<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    // SAFETY: the thread is attached, so that the interpreter runs.
    unsafe { Python::attach_unchecked(body) }
}

/// Takes the exception that is set out of the error indicator.
pub(crate) fn take_error(py: Python<'_>) -> Option<PyErr> {
    // SAFETY: the thread is attached. What the indicator had is owned by whoever takes it, and it is an instance of an
    // exception once it has been normalized.
    unsafe {
        #[cfg(Py_3_12)]
        let exception = ffi::PyErr_GetRaisedException();
        #[cfg(not(Py_3_12))]
        let exception = {
            let (mut kind, mut exception, mut traceback) =
                (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
            ffi::PyErr_Fetch(&raw mut kind, &raw mut exception, &raw mut traceback);
            if kind.is_null() {
                return None;
            }
            ffi::PyErr_NormalizeException(&raw mut kind, &raw mut exception, &raw mut traceback);
            if !traceback.is_null() {
                ffi::PyException_SetTraceback(exception, traceback);
            }
            ffi::Py_XDECREF(traceback);
            ffi::Py_XDECREF(kind);
            exception
        };
        Bound::from_owned_ptr_or_opt(py, exception).map(PyErr::from_value)
    }
}

/// Runs `body` and turns a panic, a bug of ours or a failure that pyo3 has no error for, into an exception: it must not unwind
/// into C, and an exception says more than a dead process. Not for the work of a hit: it would make one a sixth slower.
#[inline(always)]
pub(crate) fn guarded<R>(py: Python<'_>, body: impl FnOnce() -> R) -> Result<R, Raised> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| panicked(py, payload.as_ref()))
}

#[cold]
#[inline(never)]
fn panicked(py: Python<'_>, payload: &(dyn std::any::Any + Send)) -> Raised {
    let text = text_of(payload);
    if text == NO_OBJECT {
        return no_memory(py);
    }
    Raised::new::<PanicException>(py, text)
}

/// The text of pyo3's panic where the interpreter makes no object, which is for want of memory.
const NO_OBJECT: &str = "PyObject pointer is null";

fn text_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a bug in warp_cache")
}

/// Keeps panics from being reported that are exceptions a moment later; see [`panicked`].
pub(crate) fn report_bugs_only() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if text_of(panic.payload()) != NO_OBJECT {
            report(panic);
        }
    }));
}
