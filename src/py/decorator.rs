//! `cache` and `lru_cache`: from arguments to options, and from a function to its cached stand-in.

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::decorate::{decorate, not_callable};
use super::entries;
use super::error::exception;
use super::ffi::{self, Arg, Given};
use super::method::{self, methods};
use super::settings::{
    boolean, bytes, choice, flight, functools_size, region_name, region_version, size, time_to_live,
};
use crate::options::{Backend, Flavour, Naming, Options, Settings, Strategy};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::CStr;

/// An argument of a decorator: `None` is a value that a user gives, so its absence is another thing.
enum Argument<'py> {
    Absent,
    Given(Bound<'py, PyAny>),
}

impl<'py> Argument<'py> {
    fn new(py: Python<'py>, value: Option<Arg<'_>>) -> Self {
        value.map_or(Self::Absent, |value| Self::Given(value.bind(py).clone()))
    }

    /// The argument as parsed by `parse`, or the default if there is none.
    fn or<T>(self, default: T, parse: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>) -> PyResult<T> {
        match self {
            Self::Absent => Ok(default),
            Self::Given(value) => parse(&value),
        }
    }
}

/// The parameters of `cache`. The first, which is the function or the strategy, has no name.
const CACHE_PARAMETERS: [&str; 11] = [
    "",
    "max_size",
    "ttl",
    "backend",
    "max_key_size",
    "max_value_size",
    "strategy",
    "typed",
    "single_flight",
    "name",
    "version",
];

/// The parameters of `lru_cache`.
const LRU_CACHE_PARAMETERS: [&str; 10] = [
    "maxsize",
    "typed",
    "max_size",
    "ttl",
    "backend",
    "max_key_size",
    "max_value_size",
    "single_flight",
    "name",
    "version",
];

methods! {
    Cache(PyModule, 0) = "cache" "(strategy=Strategy.LRU, max_size=128, ttl=None, backend='memory', max_key_size=512, \
max_value_size=4096, *, typed=False, single_flight=None, name=None, version=None)" "Cache a function's results.

Use it bare, `@cache`, or with arguments, `@cache(max_size=1000, ttl=60)`. Calls with equal arguments run the function
once; the arguments must be hashable, and are matched to the function's signature, so that for `def f(a, b=2)` the
calls f(1), f(1, 2) and f(b=2, a=1) are one entry. Safe to call from any number of threads.

A coroutine function stays one: awaiting a hit never suspends, and calls that miss one key at the same time in one event
loop wait for one computation, in which one that waits takes over when the one that runs is cancelled.

strategy: which entry a full cache evicts: a Strategy, its number, or its name in any case.
max_size: the most entries kept, at least 0, or None for no bound. 0 keeps nothing.
ttl: seconds for which a value stays valid, more than 0: an int, a float, or a timedelta. None: for ever.
backend: where the entries live: a Backend, its number, or its name in any case. \"shared\" is one cache for all processes.
max_key_size, max_value_size: the most bytes of a key and of a value in shared memory, 1 to 2147483647. Without effect on the
    memory backend.
typed: whether equal arguments of different types, as 1 and 1.0, are different entries.
single_flight: whether calls that miss one key at the same time wait for one computation. None: for coroutine functions only.
name: names the cache in shared memory in place of the function's module and qualified name. Its code counts all the same.
version: a str or an int that tells caches of one name apart. With a name as well, the two stand for the code, too: change
    it when the code changes. Both without effect on the memory backend.

The decorated function has cache_info(), cache_clear(), cache_parameters(), cache_invalidate(*args, **kwargs) and
cache_contains(*args, **kwargs); for the shared backend cache_unlink() and shared_stats(), too; __wrapped__ is the function
itself.

Raises TypeError or ValueError for an argument of a wrong type or value, and TypeError when what is decorated is not callable or is
a generator function. Raises RuntimeError for backend=\"shared\" where there is no such backend, and NotImplementedError for
single_flight=True with a plain function." cache;

    LruCache(PyModule, 0) = "lru_cache" "(maxsize=128, typed=False, *, max_size=..., ttl=None, backend='memory', \
max_key_size=512, max_value_size=4096, single_flight=None, name=None, version=None)" "Cache a function's results, exactly as functools.lru_cache does, only faster.

Use it bare, `@lru_cache`, or with arguments, `@lru_cache(maxsize=1000)`, `@lru_cache(None)`. Keyword order, and whether an
argument is given by position or by name, make different entries.

maxsize: the most entries kept; None for no bound; 0 or less keeps nothing. May be spelled max_size.
typed: whether equal arguments of different types, as 1 and 1.0, are different entries.
ttl, backend, max_key_size, max_value_size, single_flight, name, version: as for cache().

The decorated function has cache_info(), cache_clear(), cache_parameters(), cache_invalidate(*args, **kwargs) and
cache_contains(*args, **kwargs); for the shared backend cache_unlink() and shared_stats(), too; __wrapped__ is the function
itself.

Raises TypeError or ValueError for an argument of a wrong type or value, and TypeError when what is decorated is not callable.
Raises RuntimeError for backend=\"shared\" where there is no such backend, and NotImplementedError for single_flight=True with a
plain function." lru_cache;

    SharedRegions(PyModule, 0) = "shared_regions" "(*, remove_unused=False)" "List the shared caches on this machine that belong to this user: name, path, bytes, entries, max_size, hits, misses, processes.

remove_unused: first remove those that no living process has open.

They are those in the folder of the environment variable WARP_CACHE_DIR, else in this user's own folder in memory.

Raises OSError where the folder is not this user's alone. On systems without the shared backend the list is empty." shared_regions;

    Decorate(CacheDecorator, 0) = "CacheDecorator" "(function, /)" "Put a cache of its own in front of a function." decorate_one;
}

fn cache<'py>(module: &Bound<'py, PyModule>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let bound = method::bind(py, "cache", &CACHE_PARAMETERS, 6, &given)?;
    let [first, max_size, ttl, backend, max_key_size, max_value_size, strategy, typed, single_flight, name, version] =
        bound.map(|value| Argument::new(py, value));
    let default = Options::default();
    // Only in the first place may a callable stand for the function: a strategy that is named is one, or wrong.
    let (strategy, function) = match (first, strategy) {
        (Argument::Given(function), strategy) if function.is_callable() => (strategy, Some(function)),
        // A wrapped method binds to a class but cannot be called.
        (Argument::Given(wrapped), _) if wrapped.get_type().hasattr("__get__")? => {
            return Err(not_callable(&wrapped, Flavour::Cache));
        }
        (Argument::Given(_), Argument::Given(_)) => {
            return Err(exception::<PyTypeError>("cache() got multiple values for argument 'strategy'"));
        }
        (Argument::Absent, given) | (given, Argument::Absent) => (given, None),
    };
    let options = Options {
        strategy: strategy.or(default.strategy, choice)?,
        max_size: max_size.or(default.max_size, |value| {
            if value.is_none() { Ok(None) } else { Ok(Some(size(value, "max_size")?)) }
        })?,
        ttl: ttl.or(default.ttl, time_to_live)?,
        backend: backend.or(default.backend, choice)?,
        max_key_size: max_key_size.or(default.max_key_size, |value| bytes(value, "max_key_size"))?,
        max_value_size: max_value_size.or(default.max_value_size, |value| bytes(value, "max_value_size"))?,
        typed: typed.or(default.typed, |value| boolean(value, "typed", "True or False"))?,
        single_flight: single_flight.or(default.single_flight, flight)?,
    };
    let naming = Naming { name: name.or(None, region_name)?, version: version.or(None, region_version)? };
    finish(py, Settings { options, naming, flavour: Flavour::Cache }, function)
}

fn lru_cache<'py>(module: &Bound<'py, PyModule>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let bound = method::bind(py, "lru_cache", &LRU_CACHE_PARAMETERS, 2, &given)?;
    let [maxsize, typed, max_size, ttl, backend, max_key_size, max_value_size, single_flight, name, version] =
        bound.map(|value| Argument::new(py, value));
    let default = Options::default();
    let (maxsize, function) = match maxsize {
        Argument::Given(function) if function.is_callable() => (Argument::Absent, Some(function)),
        Argument::Given(wrapped) if wrapped.get_type().hasattr("__get__")? => {
            return Err(not_callable(&wrapped, Flavour::LruCache));
        }
        maxsize => (maxsize, None),
    };
    let max_size = match (maxsize, max_size) {
        (Argument::Given(_), Argument::Given(_)) => {
            return Err(exception::<PyTypeError>("maxsize and max_size are one argument, and both were given"));
        }
        (Argument::Absent, given) | (given, Argument::Absent) => given,
    };
    let options = Options {
        strategy: Strategy::Lru,
        max_size: max_size.or(default.max_size, functools_size)?,
        ttl: ttl.or(default.ttl, time_to_live)?,
        backend: backend.or(default.backend, choice)?,
        max_key_size: max_key_size.or(default.max_key_size, |value| bytes(value, "max_key_size"))?,
        max_value_size: max_value_size.or(default.max_value_size, |value| bytes(value, "max_value_size"))?,
        typed: typed.or(default.typed, Bound::is_truthy)?,
        single_flight: single_flight.or(default.single_flight, flight)?,
    };
    let naming = Naming { name: name.or(None, region_name)?, version: version.or(None, region_version)? };
    finish(py, Settings { options, naming, flavour: Flavour::LruCache }, function)
}

/// The result of `cache(...)` and `lru_cache(...)` without a function: a decorator with its options settled.
#[pyclass(frozen, immutable_type, subclass, name = "_CacheDecorator", module = "warp_cache")]
pub(crate) struct CacheDecorator(Settings);

static DECORATOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn decorator_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    const DOC: &CStr = c"What cache(...) and lru_cache(...) return: a decorator with its options settled.";
    let made = || method::derive_callable::<Decorate>(py, c"warp_cache.CacheDecorator", DOC).map(Bound::unbind);
    DECORATOR.get_or_try_init(py, made).map(|kind| kind.bind(py))
}

/// Puts a cache of its own in front of a function.
fn decorate_one<'py>(this: &Bound<'py, CacheDecorator>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    ffi::check_memory(this.py()).map_err(|raised| raised.fetch(this.py()))?;
    let function = method::only("CacheDecorator", &given)?;
    decorate(function.bind(this.py()), this.get().0.clone())
}

fn shared_regions<'py>(module: &Bound<'py, PyModule>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let [removes_unused] = method::bind(py, "shared_regions", &["remove_unused"], 0, &given)?;
    let removes_unused = match removes_unused {
        Some(value) => boolean(value.bind(py), "remove_unused", "True or False")?,
        None => false,
    };
    entries::regions(py, removes_unused)
}

/// Adds the decorators to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let functions =
        [method::definition::<Cache>(), method::definition::<LruCache>(), method::definition::<SharedRegions>()];
    method::add_functions(module, functions)?;
    module.add("CacheDecorator", decorator_type(module.py())?)
}

fn finish<'py>(
    py: Python<'py>,
    settings: Settings,
    function: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    ffi::check_memory(py).map_err(|raised| raised.fetch(py))?;
    if settings.options.backend == Backend::Shared {
        settings.options.check_shared()?;
    }
    match function {
        Some(function) => decorate(&function, settings),
        None => Ok(method::adopt(Bound::new(py, CacheDecorator(settings))?, decorator_type(py)?)),
    }
}
