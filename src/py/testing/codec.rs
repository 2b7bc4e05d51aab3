//! The codec as tests see it: `_codec`, a namespace of functions.

use crate::py::encoding::{self, TooLarge, Undecoded, Unencoded};
use crate::py::ffi::{self, Arg};
use crate::py::key::Parts;
use pyo3::exceptions::{PyLookupError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule, PyTuple};

/// Makes the namespace.
pub(super) fn namespace(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    let module = PyModule::new(py, "_codec")?;
    module.add_function(wrap_pyfunction!(encode_key, &module)?)?;
    module.add_function(wrap_pyfunction!(encode_native_key, &module)?)?;
    module.add_function(wrap_pyfunction!(encode_value, &module)?)?;
    module.add_function(wrap_pyfunction!(decode_value, &module)?)?;
    module.add_function(wrap_pyfunction!(decode_native, &module)?)?;
    Ok(module)
}

fn too_large() -> PyErr {
    PyOverflowError::new_err("too large")
}

fn raise(py: Python<'_>, error: Unencoded) -> PyErr {
    match error {
        Unencoded::TooLarge => too_large(),
        Unencoded::Unstorable(reason) => PyTypeError::new_err(format!("cannot be encoded: {reason}")),
        Unencoded::Raised(raised) => raised.fetch(py),
    }
}

fn with_parts<R>(
    args: &Bound<'_, PyTuple>,
    names: Option<&Bound<'_, PyTuple>>,
    is_apart: bool,
    body: impl FnOnce(&Parts<'_, '_>) -> R,
) -> R {
    let (args, names) = (args.clone().into_any().unbind(), names.map(|names| names.clone().into_any().unbind()));
    body(&Parts { values: ffi::items(Arg::new(&args)), names: names.as_ref().map(Arg::new), is_apart })
}

/// The bytes of a key. OverflowError: too many; TypeError: there are none.
#[pyfunction]
#[pyo3(signature = (args, names=None, *, typed=false, limit=u32::MAX, is_apart=false))]
#[allow(clippy::doc_markdown, reason = "help() shows this text as it stands")]
fn encode_key<'py>(
    args: &Bound<'py, PyTuple>,
    names: Option<&Bound<'py, PyTuple>>,
    typed: bool,
    limit: u32,
    is_apart: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = args.py();
    let mut out = Vec::new();
    with_parts(args, names, is_apart, |parts| encoding::encode_key(py, parts, typed, limit, &mut out))
        .map_err(|error| raise(py, error))?;
    Ok(PyBytes::new(py, &out))
}

/// The same where no foreign code has to run, and else None.
#[pyfunction]
#[pyo3(signature = (args, names=None, *, typed=false, limit=u32::MAX, is_apart=false))]
fn encode_native_key<'py>(
    args: &Bound<'py, PyTuple>,
    names: Option<&Bound<'py, PyTuple>>,
    typed: bool,
    limit: u32,
    is_apart: bool,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut out = Vec::new();
    let written = with_parts(args, names, is_apart, |parts| encoding::encode_native_key(parts, typed, limit, &mut out));
    let written = written.map_err(|TooLarge| too_large())?;
    Ok(written.then(|| PyBytes::new(args.py(), &out)))
}

/// The bytes of a value. OverflowError: too many; TypeError: there are none.
#[pyfunction]
#[pyo3(signature = (value, *, limit=u32::MAX))]
#[allow(clippy::doc_markdown, reason = "help() shows this text as it stands")]
fn encode_value<'py>(value: &Bound<'py, PyAny>, limit: u32) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    let mut out = Vec::new();
    encoding::encode_value(py, value.as_unbound(), limit, &mut out).map_err(|error| raise(py, error))?;
    Ok(PyBytes::new(py, &out))
}

/// The value of these bytes. LookupError: they are none.
#[pyfunction]
#[allow(clippy::doc_markdown, reason = "help() shows this text as it stands")]
fn decode_value(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    match encoding::decode_value(py, bytes) {
        Ok(value) => Ok((*value).clone_ref(py)),
        Err(Undecoded::Damaged) => Err(PyLookupError::new_err("damaged")),
        Err(Undecoded::Raised(raised)) => Err(raised.fetch(py)),
    }
}

/// The same, as one item of a tuple, where no foreign code has to run, and else an empty tuple.
#[pyfunction]
fn decode_native<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    match encoding::decode_native(py, bytes) {
        Some(value) => PyTuple::new(py, [value.bind(py)]),
        None => Ok(PyTuple::empty(py)),
    }
}
