//! The exception that ends an iteration, and with it an `await` from 3.12 on: `StopIteration`, with the value.
//!
//! Making one costs more than all the rest of an await. So an awaitable has one of its own, which is used again, its value
//! replaced, as long as it looks as new and nobody else has it.

#![allow(unsafe_code)]

#[cfg(Py_3_12)]
use crate::plain::PLAIN;
use crate::py::awaiting::spare::own;
use crate::py::error::exception;
use crate::py::ffi::{self as bridge, Arg, Object, Raised};
use pyo3::exceptions::{PyImportError, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
#[cfg(Py_3_12)]
use std::sync::atomic::Ordering;

/// The place of an exception that is used again. Touched by the thread that steps the awaitable, and by the last that has it.
pub(super) type Place = AtomicPtr<ffi::PyObject>;

/// Ends an iteration with `value`, by the exception in `place`.
///
/// # Safety
/// `place` holds an exception that [`end`] has put there, and no other thread touches it.
#[cfg(Py_3_12)]
#[inline(always)]
pub(super) unsafe fn end(py: Python<'_>, place: &Place, value: Object) -> *mut ffi::PyObject {
    // SAFETY: the thread is attached. An iterator may end without an exception, which stands for None. The exception is
    // changed only when it is as new and this is the only reference to it, so that nobody sees that it is used again.
    unsafe {
        if value.as_ptr() == ffi::Py_None() {
            return null_mut();
        }
        if PLAIN {
            return end_plainly(py, &value);
        }
        let stop = place.load(Ordering::Relaxed).cast::<ffi::PyStopIterationObject>();
        if stop.is_null() || !is_as_new(stop) {
            return end_anew(py, place, value);
        }
        let before = std::mem::replace(&mut (*stop).value, value.into_ptr());
        ffi::Py_INCREF(stop.cast());
        if before != ffi::Py_None() {
            drop(own(before));
        }
        ffi::PyErr_SetRaisedException(stop.cast());
        null_mut()
    }
}

/// Whether nobody has the exception, nothing hangs on it but its value, and no garbage collection has emptied it.
///
/// # Safety
/// `stop` is alive.
#[cfg(Py_3_12)]
#[inline(always)]
unsafe fn is_as_new(stop: *mut ffi::PyStopIterationObject) -> bool {
    // SAFETY: the caller says that it is alive, and `check_layout` has seen that it looks like this.
    unsafe {
        ffi::Py_REFCNT(stop.cast()) == 1
            && !(*stop).value.is_null()
            && (*stop).traceback.is_null()
            && (*stop).context.is_null()
            && (*stop).cause.is_null()
            && (*stop).dict.is_null()
            && (*stop).notes.is_null()
    }
}

/// The same with an exception that is made for it, and put in the other's place.
///
/// # Safety
/// As for [`end`].
#[cfg(Py_3_12)]
#[cold]
#[inline(never)]
unsafe fn end_anew(py: Python<'_>, place: &Place, value: Object) -> *mut ffi::PyObject {
    let kind = py.get_type::<PyStopIteration>().into_any().unbind();
    let Ok(fresh) = bridge::call(py, &kind, &[], None) else { return null_mut() };
    let kept = fresh.clone_ref(py);
    // SAFETY: the exception is new, so nobody else has it; its value is an owned reference, and so is the one put there, and
    // what was in the place. The thread is attached, and the reference is handed over.
    unsafe {
        let stop = fresh.as_ptr().cast::<ffi::PyStopIterationObject>();
        let none = own(std::mem::replace(&mut (*stop).value, value.into_ptr()));
        let before = place.swap(kept.into_ptr(), Ordering::AcqRel);
        drop(none);
        if !before.is_null() {
            drop(own(before));
        }
        ffi::PyErr_SetRaisedException(fresh.into_ptr());
    }
    null_mut()
}

/// Ends an iteration with `value`. Only for `next()` by hand: `await` does not come here.
///
/// # Safety
/// As from 3.12 on.
#[cfg(not(Py_3_12))]
#[allow(clippy::needless_pass_by_value, reason = "as from 3.12 on")]
pub(super) unsafe fn end(py: Python<'_>, _: &Place, value: Object) -> *mut ffi::PyObject {
    end_plainly(py, &value)
}

/// Ends an iteration with an exception like any other, whose `args` are the value, too.
pub(super) fn end_plainly(py: Python<'_>, value: &Object) -> *mut ffi::PyObject {
    let kind = py.get_type::<PyStopIteration>().into_any().unbind();
    // Not by its type and a value: that would take a tuple for the arguments, and an exception for the one to raise.
    if let Ok(stop) = bridge::call(py, &kind, &[Arg::new(value)], None) {
        let _: Raised = PyErr::from_value(stop.into_bound(py)).into();
    }
    null_mut()
}

/// Makes the exception of a dead awaitable ready for the next await, and returns what it still has, to be dropped: the value must
/// not live longer than the await that it ended. An exception that somebody else has is left to them; one that a garbage
/// collection has emptied, since it died with the awaitable, is given up.
///
/// # Safety
/// As for [`end`], and the awaitable is dead.
#[inline(always)]
pub(super) unsafe fn recycle(place: &mut Place) -> Option<Object> {
    let stop = *place.get_mut();
    if stop.is_null() {
        return None;
    }
    // SAFETY: the exception is owned, and so alive. There is one from 3.12 on only, where None needs no counting.
    unsafe {
        let value = &mut (*stop.cast::<ffi::PyStopIterationObject>()).value;
        if ffi::Py_REFCNT(stop) != 1 || value.is_null() {
            *place.get_mut() = null_mut();
            return Some(own(stop));
        }
        (*value != ffi::Py_None()).then(|| own(std::mem::replace(value, ffi::Py_None())))
    }
}

/// Whether the interpreter lays a `StopIteration` out as it is changed here.
pub(crate) fn check_layout(py: Python<'_>) -> PyResult<()> {
    let marker = PyString::new(py, "marker");
    let stop = py.get_type::<PyStopIteration>().call1((&marker,))?;
    // SAFETY: the exception is alive, and at least as large as that.
    let value = unsafe { (*stop.as_ptr().cast::<ffi::PyStopIterationObject>()).value };
    if value != marker.as_ptr() {
        return Err(exception::<PyImportError>("warp_cache was built for another layout of exceptions"));
    }
    Ok(())
}
