//! Questions of an encoder to an object that it walks.

#![allow(unsafe_code)]

use super::object::{Arg, Object, owned};
use super::raised::Raised;
use crate::py::thread;
use pyo3::PyTypeInfo;
use pyo3::ffi;
use pyo3::prelude::*;

/// `tuple(iterable)`: of a list all its items at one time.
pub(crate) fn to_tuple(py: Python<'_>, iterable: Arg<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the object is alive.
    owned(unsafe {
        if ffi::PyList_CheckExact(iterable.as_ptr()) != 0 {
            ffi::PyList_AsTuple(iterable.as_ptr())
        } else {
            thread::prepare(py);
            ffi::PySequence_Tuple(iterable.as_ptr())
        }
    })
}

/// The pairs of a dict, as a tuple of tuples. An error if it is none.
pub(crate) fn pairs(py: Python<'_>, dict: Arg<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, the object is alive, and what is no dict is refused.
    let items = owned(unsafe { ffi::PyDict_Items(dict.as_ptr()) })?;
    to_tuple(py, Arg::new(&items))
}

/// The class of an object.
pub(crate) fn class_of(py: Python<'_>, object: Arg<'_>) -> Object {
    Object::from(object.bind(py).get_type().into_any())
}

/// Whether the object is of exactly this type.
pub(crate) fn is_exactly<T: PyTypeInfo>(object: Arg<'_>) -> bool {
    // SAFETY: the object is alive, and arguments are used on attached threads.
    unsafe { ffi::Py_TYPE(object.as_ptr()) == T::type_object_raw(Python::assume_attached()) }
}

/// Drops the exception if it is an `Exception`, and hands on one that is meant to end more than what raised it.
#[cold]
pub(crate) fn forgive(py: Python<'_>, raised: Raised) -> Result<(), Raised> {
    // SAFETY: the thread is attached, and an exception is set, as the argument says.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) == 0 {
            return Err(raised);
        }
        thread::prepare(py);
        ffi::PyErr_Clear();
    }
    Ok(())
}
