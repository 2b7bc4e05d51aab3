//! Stands in for the shared backend on systems that have none. Nothing of its type is ever made.

#![allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "they are the functions of the module it stands for")]

use super::cache::Flavour;
use super::error::exception;
use super::ffi::{Object, Raised};
use super::key::{KeyRules, Parts};
use crate::backend::memory::{Lookup, Tally};
use crate::options::{Naming, Options};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// What there is none of.
#[derive(Debug)]
pub(crate) enum Shared {}

/// The bytes of a key.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) key: Vec<u8>,
}

impl Scratch {
    pub(crate) fn take(_: Python<'_>) -> Self {
        Self::default()
    }

    pub(crate) fn leave(self, _: Python<'_>) {}
}

impl Shared {
    pub(crate) fn new(_: &Bound<'_, PyAny>, _: &Options, _: Flavour, _: KeyRules, _: &Naming) -> PyResult<Self> {
        Err(exception::<PyRuntimeError>(
            "backend=\"shared\" needs Linux or macOS; use backend=\"memory\" on this system",
        ))
    }

    pub(crate) fn look_up_bytes_asking(
        &self,
        _: Python<'_>,
        _: Tally,
        _: &mut Scratch,
    ) -> Result<Lookup<Object>, Raised> {
        match *self {}
    }

    pub(crate) fn keep_of(
        &self,
        _: Python<'_>,
        _: &[u8],
        _: &Py<PyAny>,
        _: u64,
        _: impl Fn() -> bool + Sync,
    ) -> Result<(), Raised> {
        match *self {}
    }

    pub(crate) fn contains(&self, _: Python<'_>, _: &Parts<'_, '_>) -> Result<bool, Raised> {
        match *self {}
    }

    pub(crate) fn invalidate(&self, _: Python<'_>, _: &Parts<'_, '_>) -> Result<bool, Raised> {
        match *self {}
    }

    pub(crate) fn clear(&self, _: Python<'_>) -> PyResult<()> {
        match *self {}
    }

    pub(crate) fn info<'py>(&self, _: Python<'py>, _: Option<usize>) -> PyResult<Bound<'py, PyAny>> {
        match *self {}
    }

    pub(crate) fn stats<'py>(&self, _: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match *self {}
    }

    pub(crate) fn unlink(&self, _: Python<'_>) -> PyResult<bool> {
        match *self {}
    }

    pub(crate) fn count_hit(&self, _: Python<'_>) -> Result<(), Raised> {
        match *self {}
    }

    pub(crate) fn count_miss(&self, _: Python<'_>) -> Result<(), Raised> {
        match *self {}
    }
}

/// There are no regions.
pub(crate) fn regions(py: Python<'_>, _: bool) -> PyResult<Bound<'_, PyAny>> {
    Ok(PyList::empty(py).into_any())
}
