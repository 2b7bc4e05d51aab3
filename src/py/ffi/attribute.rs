//! Attributes of any object.

#![allow(unsafe_code)]

use super::object::{Arg, Object, owned};
use super::raised::Raised;
use crate::py::thread;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ffi::CStr;

/// The same where the name is a text.
pub(crate) fn attribute_called(py: Python<'_>, object: Arg<'_>, name: &CStr) -> Result<Option<Object>, Raised> {
    // SAFETY: the thread is attached, and the text ends with a zero.
    let name = owned(unsafe { ffi::PyUnicode_InternFromString(name.as_ptr()) })?;
    match name.bind(py).cast::<PyString>() {
        Ok(name) => attribute_if_any(py, object, name.as_unbound()),
        Err(_) => Ok(None),
    }
}

/// An object's attribute, if it has one of that name.
pub(crate) fn attribute_if_any(py: Python<'_>, object: Arg<'_>, name: &Py<PyString>) -> Result<Option<Object>, Raised> {
    match attribute(py, object, name) {
        Ok(value) => Ok(Some(value)),
        // SAFETY: the thread is attached, and an exception is set.
        Err(raised) => unsafe {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return Err(raised);
            }
            ffi::PyErr_Clear();
            Ok(None)
        },
    }
}

/// An object's attribute.
pub(crate) fn attribute(py: Python<'_>, object: Arg<'_>, name: &Py<PyString>) -> Result<Object, Raised> {
    thread::prepare(py);
    // SAFETY: the thread is attached, and both objects are alive.
    owned(unsafe { ffi::PyObject_GetAttr(object.as_ptr(), name.as_ptr()) })
}
