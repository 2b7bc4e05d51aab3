//! Functions of the C API that may run foreign code. Each prepares the thread; see [`thread`].

#![allow(unsafe_code)]

use crate::py::thread;
use crate::sync::FREE_THREADED;
use pyo3::ffi;
use pyo3::prelude::*;

/// The function in the object's vectorcall slot, or one that calls an object without the slot. The exported function
/// that finds it costs a call.
///
/// # Safety
/// `callable` is alive.
#[inline(always)]
pub(super) unsafe fn vectorcall_of(callable: *mut ffi::PyObject) -> ffi::vectorcallfunc {
    // SAFETY: the caller says that the object is alive. Its type has the flag only if its instances have the slot, at that
    // offset.
    unsafe {
        let kind = ffi::Py_TYPE(callable);
        if ffi::PyType_HasFeature(kind, ffi::Py_TPFLAGS_HAVE_VECTORCALL) != 0 {
            let slot = callable.byte_offset((*kind).tp_vectorcall_offset).cast::<Option<ffi::vectorcallfunc>>();
            if let Some(target) = *slot {
                return target;
            }
        }
        make_call
    }
}

/// Calls an object that has no vectorcall slot.
///
/// # Safety
/// As for any vectorcall.
#[cold]
unsafe extern "C" fn make_call(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller says. Up to 3.10 it is no function of the interpreter, but one of pyo3.
    unsafe { ffi::PyObject_Vectorcall(callable, args, nargsf, kwnames) }
}

/// `hash(object)`.
///
/// # Safety
/// `object` is alive.
#[inline(always)]
pub(super) unsafe fn hash(py: Python<'_>, object: *mut ffi::PyObject) -> ffi::Py_hash_t {
    thread::prepare(py);
    // SAFETY: as the caller says.
    unsafe { ffi::PyObject_Hash(object) }
}

/// `one is other or one == other`: 0, 1, or -1 with an exception.
///
/// # Safety
/// Both objects are alive.
pub(super) unsafe fn are_equal(py: Python<'_>, one: *mut ffi::PyObject, other: *mut ffi::PyObject) -> i32 {
    thread::prepare(py);
    // SAFETY: as the caller says.
    unsafe { ffi::PyObject_RichCompareBool(one, other, ffi::Py_EQ) }
}

/// Gives up a reference.
///
/// # Safety
/// The thread is attached, and the reference is the caller's own.
#[inline(always)]
pub(super) unsafe fn release(object: *mut ffi::PyObject) {
    // SAFETY: as the caller says. Only the last reference leads into Python, and where another thread may give up the
    // others meanwhile, every one may be the last.
    unsafe {
        if FREE_THREADED || ffi::Py_REFCNT(object) == 1 {
            release_last(object);
        } else {
            ffi::Py_DECREF(object);
        }
    }
}

/// The same for what may be the last reference. Not inline, so that what drops references is.
///
/// # Safety
/// As above.
#[inline(never)]
unsafe fn release_last(object: *mut ffi::PyObject) {
    // SAFETY: as the caller says.
    unsafe {
        thread::prepare(Python::assume_attached());
        ffi::Py_DECREF(object);
    }
}
