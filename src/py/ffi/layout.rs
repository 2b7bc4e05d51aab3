//! The check that this interpreter lays ints out as they are read here.

#![allow(unsafe_code)]

use super::compare::hash;
use super::int::{are_equal_ints, compact};
use super::object::Arg;
#[cfg(unix)]
use super::view::{View, view};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Checks that this interpreter lays ints and strs out as they are read here.
pub(crate) fn check_layouts(py: Python<'_>) -> PyResult<()> {
    let one_digit: i64 = (1 << 30) - 1;
    let numbers =
        [0, 1, -1, -2, 256, 257, -6, one_digit, -one_digit, one_digit + 1, -one_digit - 1, i64::MAX, i64::MIN];
    for (number, digits) in
        numbers.iter().map(|&n| (n, if n.unsigned_abs() > one_digit.unsigned_abs() { 2 } else { 1 }))
    {
        let (int, twin) =
            (number.into_pyobject(py)?.into_any().unbind(), number.into_pyobject(py)?.into_any().unbind());
        let value = hash(Arg::new(&int)).map_err(|raised| raised.fetch(py))?;
        // SAFETY: the object is an int.
        let is_compact = unsafe { compact(int.as_ptr()) }.is_some();
        let is_read = value == int.bind(py).hash()? && is_compact == (digits == 1);
        #[cfg(unix)]
        let is_read = is_read && matches!(view(Arg::new(&int)), Some(View::Int(value)) if value == number);
        // SAFETY: both objects are ints.
        if !is_read || !unsafe { are_equal_ints(int.as_ptr(), twin.as_ptr()) } {
            return Err(PyImportError::new_err(format!("warp_cache was built for another layout of ints ({number})")));
        }
    }
    Ok(())
}
