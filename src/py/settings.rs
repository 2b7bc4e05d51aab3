//! The arguments of the decorators, from objects to the plain values that [`crate::options`] has rules for.
//!
//! Each raises `TypeError` or `ValueError` with the argument's name, what is accepted, and what was given.

use super::error::{exception, shown, shown_with_type};
use super::ffi;
use crate::options::{Choice, Options, OptionsError, Ttl, Version};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};
use std::borrow::Cow;

fn wrong_type(argument: &str, accepted: &str, got: &Bound<'_, PyAny>) -> PyErr {
    exception::<PyTypeError>(&format!("{argument} must be {accepted}, got {}", shown_with_type(got)))
}

/// A whole number that is no bool. `None` when it is beyond 64 bits.
fn whole(value: &Bound<'_, PyAny>, argument: &str, accepted: &str) -> PyResult<Option<i64>> {
    if value.is_instance_of::<PyBool>() || !value.get_type().hasattr("__index__")? {
        return Err(wrong_type(argument, accepted, value));
    }
    match value.extract::<i64>() {
        Ok(number) => Ok(Some(number)),
        Err(error) if value.is_instance_of::<PyInt>() && error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn size(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<usize> {
    let number = whole(value, argument, "an int or None")?;
    let number = number.ok_or_else(|| OptionsError::MaxSize { got: shown(value) })?;
    Ok(Options::size(number)?)
}

/// A size as `functools.lru_cache` takes it: a negative one is 0, and a bool is an int.
pub(crate) fn functools_size(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Some(usize::from(flag.is_true())));
    }
    if !value.get_type().hasattr("__index__")? {
        let message = format!("Expected first argument to be an integer, a callable, or None, got {}", shown(value));
        return Err(exception::<PyTypeError>(&message));
    }
    match whole(value, "maxsize", "an int or None")? {
        Some(number) => Ok(Some(Options::size(number.max(0))?)),
        None if value.lt(0)? => Ok(Some(0)),
        None => Err(OptionsError::MaxSize { got: shown(value) }.into()),
    }
}

pub(crate) fn bytes(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<u32> {
    let number = whole(value, argument, "an int")?;
    let number = number.ok_or_else(|| OptionsError::Bytes { argument, got: shown(value) })?;
    Ok(Options::bytes(argument, number)?)
}

pub(crate) fn boolean(value: &Bound<'_, PyAny>, argument: &str, accepted: &str) -> PyResult<bool> {
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => Err(wrong_type(argument, accepted, value)),
    }
}

pub(crate) fn flight(value: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    if value.is_none() { Ok(None) } else { boolean(value, "single_flight", "True, False or None").map(Some) }
}

pub(crate) fn region_name(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if value.is_none() {
        return Ok(None);
    }
    let name = value.cast::<PyString>().map_err(|_| wrong_type("name", "a str or None", value))?;
    match name.to_str() {
        Ok(name) if !name.is_empty() => Ok(Some(name.to_owned())),
        _ => Err(OptionsError::Name { got: shown(value) }.into()),
    }
}

pub(crate) fn region_version(value: &Bound<'_, PyAny>) -> PyResult<Option<Version>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|_| OptionsError::Version { got: shown(value) })?;
        return Ok(Some(Version::Text(text.to_owned())));
    }
    let number = whole(value, "version", "a str, an int or None")?;
    let number = number.ok_or_else(|| OptionsError::Version { got: shown(value) })?;
    Ok(Some(Version::Number(number)))
}

fn is_timedelta(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    // Without the module there can be none.
    let Some(datetime) = ffi::imported(object.py(), &PyString::new(object.py(), "datetime")) else { return Ok(false) };
    object.is_instance(&datetime.getattr("timedelta")?)
}

pub(crate) fn time_to_live(value: &Bound<'_, PyAny>) -> PyResult<Option<Ttl>> {
    if value.is_none() {
        return Ok(None);
    }
    let py = value.py();
    let wrong = || wrong_type("ttl", "a number of seconds, a datetime.timedelta, or None", value);
    let kind = value.get_type();
    let seconds = if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    } else if kind.hasattr("__float__")? || kind.hasattr("__index__")? {
        Cow::Borrowed(value)
    } else if is_timedelta(value)? {
        Cow::Owned(value.call_method0("total_seconds")?)
    } else {
        return Err(wrong());
    };
    let number = match seconds.extract::<f64>() {
        Ok(number) => number,
        // An int beyond all floats, on one side or the other.
        Err(error) if seconds.is_instance_of::<PyInt>() && error.is_instance_of::<PyOverflowError>(py) => {
            if seconds.lt(0)? { f64::MIN } else { f64::MAX }
        }
        Err(error) => return Err(error),
    };
    Ok(Ttl::from_seconds(number).map_err(|_| OptionsError::Ttl { got: shown(value) })?)
}

pub(crate) fn choice<C: Choice>(value: &Bound<'_, PyAny>) -> PyResult<C> {
    let refused = || Err(exception::<PyValueError>(&C::refuse(shown(value)).to_string()));
    if let Ok(name) = value.cast::<PyString>() {
        return C::from_name(&name.to_string_lossy()).map_or_else(refused, Ok);
    }
    let is_number = !value.is_instance_of::<PyBool>()
        && !value.is_instance_of::<PyFloat>()
        && value.get_type().hasattr("__index__")?;
    if !is_number {
        return refused();
    }
    whole(value, C::ARGUMENT, C::TYPE)?.and_then(C::from_number).map_or_else(refused, Ok)
}
