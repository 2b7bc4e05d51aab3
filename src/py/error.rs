//! Where errors of this crate become Python's exceptions.

use super::ffi::{self, Raised};
use crate::options::OptionsError;
#[cfg(unix)]
use pyo3::exceptions::PyException;
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyErr, PyTypeInfo};

pyo3::create_exception!(
    warp_cache,
    SharedCacheWarning,
    PyRuntimeWarning,
    "The values of a shared cache are not shared, or fewer are kept than asked for.\n\nGiven once for a function, which works all the same."
);

impl From<OptionsError> for PyErr {
    fn from(error: OptionsError) -> Self {
        exception::<PyValueError>(&error.to_string())
    }
}

/// An exception of that class, already made: pyo3's own are made when they are raised, and where there is no memory for one
/// that ends the process. Here a `MemoryError` takes its place.
#[cold]
pub(crate) fn exception<T: PyTypeInfo>(text: &str) -> PyErr {
    ffi::attached(|py| Raised::new::<T>(py, text).fetch(py))
}

/// The object as an error message shows it: its repr if that works and is short, else its type.
pub(crate) fn shown(object: &Bound<'_, PyAny>) -> String {
    const LONGEST: usize = 80;
    match object.repr() {
        Ok(repr) => {
            let repr = repr.to_string_lossy();
            match repr.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &repr[..end]),
                None => repr.into_owned(),
            }
        }
        Err(_) => format!("an object of type {}", type_name(object)),
    }
}

/// The type and the text of an `Exception`, in one line. Another `BaseException` is meant to end more, and is handed
/// on.
#[cfg(unix)]
#[cold]
pub(crate) fn forgiven(py: Python<'_>, raised: Raised) -> Result<String, Raised> {
    const LONGEST: usize = 200;
    let error = raised.fetch(py);
    if !error.is_instance_of::<PyException>(py) {
        return Err(error.into());
    }
    let kind = type_name(error.value(py));
    let text = match error.value(py).str() {
        Ok(text) => text.to_string_lossy().chars().take(LONGEST).collect(),
        Err(error) if error.is_instance_of::<PyException>(py) => String::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(if text.is_empty() { kind } else { format!("{kind}: {text}") })
}

/// The module and qualified name of a function, if it has a name.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> Option<String> {
    let text = |name: &str| {
        let text = function.getattr(name).ok()?.cast_into::<PyString>().ok()?;
        Some(text.to_string_lossy().into_owned())
    };
    let name = text("__qualname__")?;
    Some(text("__module__").map_or_else(|| name.clone(), |module| format!("{module}.{name}")))
}

/// The same with its type.
pub(crate) fn shown_with_type(object: &Bound<'_, PyAny>) -> String {
    match object.repr() {
        Ok(_) => format!("{} of type {}", shown(object), type_name(object)),
        Err(_) => shown(object),
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
