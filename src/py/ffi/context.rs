//! Context variables.

#![allow(unsafe_code)]

use super::object::{Object, owned};
use super::raised::{Raised, no_memory};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;

/// A variable whose value belongs to the context in which code runs: a `contextvars.ContextVar`.
#[derive(Debug)]
pub(crate) struct ContextVar(Py<PyAny>);

/// The token that `ContextVar::set` returns, and that takes the value back.
#[derive(Debug)]
pub(crate) struct ContextToken(Object);

impl ContextVar {
    /// A variable without a value.
    pub(crate) fn new(py: Python<'_>, name: &CStr) -> PyResult<Self> {
        // SAFETY: the thread is attached, and the name ends with a zero.
        let variable = unsafe { ffi::PyContextVar_New(name.as_ptr(), std::ptr::null_mut()) };
        owned(variable).map_err(|raised| raised.fetch(py)).map(|variable| Self((*variable).clone_ref(py)))
    }

    /// The value in the current context, if it has one there.
    pub(crate) fn get(&self, _: Python<'_>) -> Result<Option<Object>, Raised> {
        let mut value = std::ptr::null_mut();
        // SAFETY: the thread is attached, and this is a context variable.
        let result = unsafe { ffi::PyContextVar_Get(self.0.as_ptr(), std::ptr::null_mut(), &raw mut value) };
        if result < 0 {
            return Err(Raised(()));
        }
        (!value.is_null()).then(|| owned(value)).transpose()
    }

    /// Sets it in the current context.
    pub(crate) fn set(&self, py: Python<'_>, value: &Py<PyAny>) -> Result<ContextToken, Raised> {
        // Up to 3.13 the interpreter dies where there is memory for neither the token nor the context. So first a block of the
        // token's size is asked for: what is given back is what the token gets.
        if !cfg!(Py_3_14) {
            const TOKEN: usize = 64;
            // SAFETY: the thread is attached, and what is given back is what was got.
            unsafe {
                let block = ffi::PyObject_Malloc(TOKEN);
                if block.is_null() {
                    return Err(no_memory(py));
                }
                ffi::PyObject_Free(block);
            }
        }
        // SAFETY: the thread is attached, and this is a context variable.
        owned(unsafe { ffi::PyContextVar_Set(self.0.as_ptr(), value.as_ptr()) }).map(ContextToken)
    }

    /// Takes a setting back, if the context is still the one in which it was made.
    pub(crate) fn reset(&self, _: Python<'_>, token: &ContextToken) {
        // SAFETY: the thread is attached, and this is a context variable. No error is set where this is called.
        unsafe {
            if ffi::PyContextVar_Reset(self.0.as_ptr(), token.0.as_ptr()) < 0 {
                ffi::PyErr_Clear();
            }
        }
    }
}
