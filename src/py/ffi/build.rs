//! Objects of built-in types, to be made.

#![allow(unsafe_code)]

use super::object::{Arg, Object, owned};
use super::raised::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use pyo3::types::PyType;
use std::ffi::CStr;

/// An int.
#[inline]
pub(crate) fn new_int(_: Python<'_>, value: i64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyLong_FromLongLong(value) })
}

/// A float.
#[inline]
pub(crate) fn new_float(_: Python<'_>, value: f64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyFloat_FromDouble(value) })
}

/// A str.
#[inline]
pub(crate) fn new_text(_: Python<'_>, text: &str) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the text is as long as said, which is no more than an `isize` holds.
    owned(unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()) })
}

/// An int from a number of things.
#[inline]
pub(crate) fn new_count(_: Python<'_>, value: u64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyLong_FromUnsignedLongLong(value) })
}

/// A tuple of these objects.
pub(crate) fn new_tuple_of(_: Python<'_>, items: &[Arg<'_>]) -> Result<Object, Raised> {
    // SAFETY: the thread is attached. Nobody else has the tuple until it is full, and each place is filled once, with a
    // reference of its own.
    unsafe {
        let tuple = owned(ffi::PyTuple_New(items.len().cast_signed()))?;
        for (index, item) in items.iter().enumerate() {
            ffi::Py_INCREF(item.as_ptr());
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index.cast_signed(), item.as_ptr());
        }
        Ok(tuple)
    }
}

/// True or False.
pub(crate) fn truth(py: Python<'_>, truth: bool) -> Bound<'_, PyAny> {
    PyBool::new(py, truth).to_owned().into_any()
}

unsafe extern "C" {
    /// Exported, and not declared by pyo3.
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// `types.MethodType(function, instance)`.
pub(crate) fn bound_method<'py>(
    function: &Bound<'py, PyAny>,
    instance: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    // SAFETY: the thread is attached, and both objects are alive.
    let method = owned(unsafe { PyMethod_New(function.as_ptr(), instance.as_ptr()) });
    method.map(|method| method.into_bound(py)).map_err(|raised| raised.fetch(py))
}

/// `types.GenericAlias(class, item)`.
pub(crate) fn generic_alias<'py>(class: &Bound<'py, PyType>, item: Arg<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    // SAFETY: the thread is attached, and both objects are alive.
    let alias = owned(unsafe { ffi::Py_GenericAlias(class.as_ptr(), item.as_ptr()) });
    alias.map(|alias| alias.into_bound(py)).map_err(|raised| raised.fetch(py))
}

/// An empty dict.
pub(crate) fn new_dict(_: Python<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyDict_New() })
}

/// Puts a value into a dict.
pub(crate) fn put(_: Python<'_>, dict: &Object, name: &CStr, value: &Object) -> Result<(), Raised> {
    // SAFETY: the thread is attached, the name ends with a zero, and both objects are alive. What is no dict is refused.
    if unsafe { ffi::PyDict_SetItemString(dict.as_ptr(), name.as_ptr(), value.as_ptr()) } < 0 {
        return Err(Raised(()));
    }
    Ok(())
}
