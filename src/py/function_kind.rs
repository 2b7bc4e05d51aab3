//! Coroutine function, generator function or neither: what calling a callable gives, and how a cached one shows it.

use super::cached_function::CachedFunction;
use super::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFunction, PyString};

/// See [`inspect_mark`].
static MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The kind of a call's result.
pub(crate) enum Calls<'py> {
    Value,
    Generator,
    /// A coroutine, of this function in the end.
    Coroutine(Bound<'py, PyAny>),
}

impl<'py> Calls<'py> {
    const GENERATOR: u32 = 0x20;
    const COROUTINE: u32 = 0x80;
    const ASYNC_GENERATOR: u32 = 0x200;

    /// Looks through partials, methods and objects with `__call__` for the function that runs.
    pub(crate) fn of(callable: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = callable.py();
        let partial = py.import("functools")?.getattr("partial")?;
        let method = py.import("types")?.getattr("MethodType")?;
        let static_method = py.import("builtins")?.getattr("staticmethod")?;
        let mut function = callable.clone();
        loop {
            let inner = if function.is_instance(&partial)? {
                "func"
            } else if function.is_exact_instance(&method) || function.is_instance(&static_method)? {
                "__func__"
            } else {
                break;
            };
            function = function.getattr(inner)?;
        }
        if let Ok(cached) = function.cast::<CachedFunction>() {
            let runs = cached.get().runs(py);
            return Ok(runs.map_or(Self::Value, Self::Coroutine));
        }
        if is_marked(&function)? {
            return Ok(Self::Coroutine(function));
        }
        let is_function = |object: &Bound<'_, PyAny>| object.cast::<PyFunction>().is_ok();
        if !is_function(&function) {
            match function.get_type().getattr("__call__") {
                Ok(call) if is_function(&call) => function = call,
                _ => return Ok(Self::Value),
            }
        }
        let flags: u32 = function.getattr("__code__")?.getattr("co_flags")?.extract()?;
        Ok(match flags {
            flags if flags & Self::COROUTINE != 0 => Self::Coroutine(function),
            flags if flags & (Self::GENERATOR | Self::ASYNC_GENERATOR) != 0 => Self::Generator,
            _ => Self::Value,
        })
    }
}

/// Whether somebody has marked the object as a coroutine function, as `inspect` or as older `asyncio` does.
fn is_marked(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    if cfg!(Py_3_12)
        && let Some(mark) = object.getattr_opt("_is_coroutine_marker")?
        && mark.is(inspect_mark(py)?)
    {
        return Ok(true);
    }
    if let Some(mark) = object.getattr_opt("_is_coroutine")?
        && let Some(coroutines) = ffi::imported(py, &PyString::new(py, "asyncio.coroutines"))
        && let Some(asyncio_mark) = coroutines.getattr_opt("_is_coroutine")?
    {
        return Ok(mark.is(&asyncio_mark));
    }
    Ok(false)
}

/// The mark by which `inspect.iscoroutinefunction` knows an object that is no function but is called like a coroutine
/// function, as `runs` is.
///
/// Neither is an attribute that `functools.wraps` would carry on to a wrapper of the wrapper.
pub(crate) fn coroutine_mark<'py>(
    runs: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = runs.py();
    let name = name.to_str()?;
    if cfg!(Py_3_12) {
        return match name {
            "_is_coroutine_marker" => Ok(Some(inspect_mark(py)?.clone())),
            // unittest.mock looks at this first.
            "__code__" => runs.getattr_opt(name),
            _ => Ok(None),
        };
    }
    // Before, there is no such mark, but what has all of these passes for a function.
    match name {
        "__name__" | "__code__" | "__defaults__" | "__kwdefaults__" | "__annotations__" => runs.getattr_opt(name),
        _ => Ok(None),
    }
}

/// The mark that `inspect.markcoroutinefunction` sets.
pub(crate) fn inspect_mark(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let mark = MARK.get_or_try_init(py, || {
        let marked = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
        py.import("inspect")?.getattr("markcoroutinefunction")?.call1((&marked,))?;
        marked.getattr("_is_coroutine_marker").map(Bound::unbind)
    })?;
    Ok(mark.bind(py))
}
