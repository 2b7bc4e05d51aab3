//! The arguments of a call, kept to call the function again.

use crate::py::ffi::{self, Arg, Given, Object, Raised};
use crate::py::key::Key;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// The arguments of a call whose key is kept, too.
#[derive(Debug)]
pub(crate) enum Arguments {
    /// They are the parts of the key as they stand.
    Key,
    /// They were arranged to make the key.
    Own {
        /// A tuple of all values.
        values: Object,
        /// The names of the last ones.
        names: Option<Object>,
    },
}

impl Arguments {
    /// The arguments `given`, of which `key` was made.
    pub(crate) fn new(py: Python<'_>, given: &Given<'_>, key: &Key) -> Result<Self, Raised> {
        let is_key = key.with_parts(|values, names| {
            values.len() == given.values.len()
                && values.iter().zip(given.values).all(|(value, given)| value.is(&**given))
                && names.is_some() == given.tuple.is_some()
        });
        if is_key {
            return Ok(Self::Key);
        }
        let values = ffi::new_tuple_of(py, given.values)?;
        let names = given.tuple.map(|names| Object::from(names.clone_ref(py)));
        Ok(Self::Own { values, names })
    }

    /// Calls `function` with them.
    pub(crate) fn call(&self, py: Python<'_>, function: &Py<PyAny>, key: &Key) -> Result<Object, Raised> {
        match self {
            Self::Key => key.with_parts(|values, names| ffi::call(py, function, values, names)),
            Self::Own { values, names } => {
                let names = names.as_ref().map(|names| Arg::new(names));
                ffi::call(py, function, ffi::items(Arg::new(values)), names)
            }
        }
    }

    /// Shows the garbage collector what they hold.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Self::Own { values, names } = self else { return Ok(()) };
        visit.call(&**values)?;
        names.as_ref().map_or(Ok(()), |names| visit.call(&**names))
    }
}
