//! Puts a cache in front of a function.

use super::awaiting::async_flight::Flights;
use super::cache::Cache;
use super::cached_function::{self, CachedFunction};
use super::cached_function_type::{CACHE_METHODS, cached_function_type};
use super::calls;
use super::entries::Entries;
use super::error::{exception, shown};
use super::ffi::{self, Entry};
use super::function_kind::{self, Calls};
use super::method;
use super::signature::Signature;
use crate::options::{Flavour, Options, Settings};
use crate::sync;
use pyo3::exceptions::{PyNotImplementedError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction};

/// A callable with a cache of its own in front of `function`. Raises `TypeError` for what can't be cached.
pub(crate) fn decorate<'py>(function: &Bound<'py, PyAny>, settings: Settings) -> PyResult<Bound<'py, PyAny>> {
    if !function.is_callable() {
        return Err(not_callable(function, settings.flavour));
    }
    match Calls::of(function)? {
        Calls::Coroutine(runs) => {
            if cfg!(Py_3_12) {
                // Now, while the files of Python's library are within reach. What asks for the mark has imported `inspect` itself.
                drop(function_kind::inspect_mark(function.py()));
            }
            create(function, settings, Some(runs), |entries, _| calls::of_coroutine_function(entries))
        }
        Calls::Generator if settings.flavour == Flavour::Cache => Err(exception::<PyTypeError>(&format!(
            "a generator function cannot be cached: its first caller would exhaust the generator for all others; cache a \
             function that returns a list or a tuple of the items instead, got {}",
            shown(function)
        ))),
        _ if settings.options.single_flight == Some(true) => Err(exception::<PyNotImplementedError>(&format!(
            "single_flight=True is implemented for coroutine functions only as yet; use single_flight=False or leave it out \
             for {}",
            shown(function)
        ))),
        _ => create(function, settings, None, calls::of_function),
    }
}

/// The error for an object that can't be decorated, with what to write instead.
pub(crate) fn not_callable(got: &Bound<'_, PyAny>, flavour: Flavour) -> PyErr {
    let decorator = match flavour {
        Flavour::Cache => "cache",
        Flavour::LruCache => "lru_cache",
    };
    let instead = if is_partial_method(got).unwrap_or(false) {
        format!(
            "; a functools.partialmethod is none: cache the function in it, as in functools.partialmethod({decorator}(function), \
             ...)"
        )
    } else if got.get_type().hasattr("__get__").unwrap_or(false) {
        "; put this decorator below the other".to_owned()
    } else {
        String::new()
    };
    exception::<PyTypeError>(&format!("only a callable can be decorated, got {}{instead}", shown(got)))
}

fn is_partial_method(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.is_instance(&object.py().import("functools")?.getattr("partialmethod")?)
}

/// Makes the callable. `choose` picks how its calls are answered. For a coroutine function, `runs` is the function that
/// runs in the end.
fn create<'py>(
    function: &Bound<'py, PyAny>,
    settings: Settings,
    runs: Option<Bound<'py, PyAny>>,
    choose: impl FnOnce(&Entries, &Options) -> Entry,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let signature = Signature::of(function, &settings)?;
    let entries = Entries::new(function, &settings, signature.rules, cached_function::function_of)?;
    let entry = choose(&entries, &settings.options);
    let cache = Cache { entries, flights: runs.is_some().then(Flights::default) };
    let state = CachedFunction::new(entry, cache, signature, settings, function.clone(), runs);
    let made = ffi::without_collection(py, || Bound::new(py, state))?;
    let wrapper = method::adopt(made, cached_function_type(py)?);
    carry_metadata(&wrapper, function)?;
    if is_long_lived(function)? {
        sync::count_lazily(&wrapper);
    }
    Ok(wrapper)
}

/// Whether a function is no inner one, which each run of the outer one would make anew. CPython goes by the same line.
fn is_long_lived(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    const NESTED: u32 = 0x10;
    let Ok(function) = function.cast::<PyFunction>() else { return Ok(false) };
    let flags: u32 = function.getattr("__code__")?.getattr("co_flags")?.extract()?;
    Ok(flags & NESTED == 0)
}

/// Makes the wrapper look like the function, as `functools.update_wrapper` does.
fn carry_metadata(wrapper: &Bound<'_, PyAny>, function: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = wrapper.py();
    py.import("functools")?.getattr("update_wrapper")?.call1((wrapper, function))?;
    // The function may itself be cached, by a decorator that keeps these in the function's dict. They speak of its cache.
    let carried = wrapper.getattr("__dict__")?.cast_into::<PyDict>()?;
    for name in CACHE_METHODS {
        if carried.contains(name)? {
            carried.del_item(name)?;
        }
    }
    Ok(())
}
