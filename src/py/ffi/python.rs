//! Functions of the C API that may run foreign code. Each prepares the thread; see [`thread`].

#![allow(unsafe_code)]

use super::object::Arg;
use crate::py::thread;
use crate::sync::FREE_THREADED;
use pyo3::ffi;
use pyo3::prelude::*;

/// The function in the object's vectorcall slot, or one that calls an object without the slot. The exported function
/// that finds it costs a call.
#[inline(always)]
pub(super) fn vectorcall_of(callable: Arg<'_>) -> ffi::vectorcallfunc {
    let callable = callable.as_ptr();
    // SAFETY: the object is alive. Its type has the flag only if its instances have the slot, at that offset.
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

/// `hash(object)`, or -1 with an exception.
#[inline(always)]
pub(super) fn hash(py: Python<'_>, object: Arg<'_>) -> ffi::Py_hash_t {
    thread::prepare(py);
    // SAFETY: the thread is attached, and the object is alive.
    unsafe { ffi::PyObject_Hash(object.as_ptr()) }
}

/// `one is other or one == other`: 0, 1, or -1 with an exception.
pub(super) fn are_equal(py: Python<'_>, one: Arg<'_>, other: Arg<'_>) -> i32 {
    thread::prepare(py);
    // SAFETY: the thread is attached, and both objects are alive.
    unsafe { ffi::PyObject_RichCompareBool(one.as_ptr(), other.as_ptr(), ffi::Py_EQ) }
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
