//! The native callable that stands in for a decorated function: what Python sees of it.
//!
//! A pyclass holds the state. pyo3 can give it no vectorcall slot, so the type in use is one derived from it when the module is
//! imported; see [`super::method::derive_function`].

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::cached_function::{self, CachedFunction};
use super::error::{exception, name_of, shown};
use super::ffi::{self, Given, Object, Raised};
use super::function_kind;
use super::key::CallKey;
use super::method::{self, Behaviour, methods};
use super::signature::WithKey;
use super::{info, names};
use crate::options::{Backend, Flavour, Options, Settings, Version};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::METH_CLASS;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFunction, PySet, PyString, PyType};
use std::ffi::CStr;

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `functools._lru_cache_wrapper`: with no native part of functools, its wrappers are functions.
static WRAPPER: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The attributes that a cached function has besides the function's own.
pub(crate) const CACHE_METHODS: [&str; 7] = [
    "cache_info",
    "cache_clear",
    "cache_parameters",
    "cache_invalidate",
    "cache_contains",
    "cache_unlink",
    "shared_stats",
];

/// The attributes of a function that an object which passes for one needs, too, and `functools.update_wrapper` does not
/// set.
const OF_A_FUNCTION: [&str; 6] =
    ["__code__", "__globals__", "__closure__", "__defaults__", "__kwdefaults__", "__builtins__"];

const NAME: &CStr = c"warp_cache.CachedFunction";
const DOC: &CStr = c"A function with a cache in front of it: what cache() and lru_cache() return.";

/// The type that an object says it is of.
#[derive(Clone, Copy, Debug)]
enum PassesFor {
    LruCache,
    Function,
    Itself,
}

impl PassesFor {
    /// The `__class__` of `function`.
    fn of(function: &CachedFunction, py: Python<'_>) -> Self {
        let Settings { options: Options { ttl, backend, .. }, flavour, .. } = function.settings();
        let is_plain = function.runs(py).is_none() && ttl.is_none() && *backend == Backend::Memory;
        if is_plain && *flavour == Flavour::LruCache {
            Self::LruCache
        } else if function.function().bind(py).is_exact_instance_of::<PyFunction>() {
            Self::Function
        } else {
            Self::Itself
        }
    }
}

impl Behaviour for CachedFunction {
    /// For what functools.update_wrapper does not carry over.
    fn attribute<'py>(this: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        // From 3.14 on: it carries what makes the annotations.
        if cfg!(Py_3_14) && name == "__annotations__" {
            return this.get().function().bind(py).getattr(name).map(Some);
        }
        if let Some(runs) = this.get().runs(py)
            && let Some(value) = function_kind::coroutine_mark(&runs, name)?
        {
            return Ok(Some(value));
        }
        if let PassesFor::Function = PassesFor::of(this.get(), py)
            && OF_A_FUNCTION.iter().any(|&of_a_function| name == of_a_function)
        {
            return this.get().function().bind(py).getattr(name).map(Some);
        }
        Ok(None)
    }

    /// The object's `__class__`, for programs that go by a list of types; `type()` and `isinstance` see its own type as
    /// well.
    ///
    /// `functools._lru_cache_wrapper` where functools could take its place. Elsewhere a program that knows that type may put
    /// functools' own cache in the place of this one, and lose the strategy, the time to live and the sharing, or keep a
    /// coroutine. So there it is a function, as it is with other decorators whose wrappers are transparent.
    fn class<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyType>> {
        let py = this.py();
        match PassesFor::of(this.get(), py) {
            PassesFor::Function => Ok(py.get_type::<PyFunction>()),
            PassesFor::LruCache => {
                WRAPPER.get(py).map_or_else(|| Ok(this.get_type()), |kind| Ok(kind.bind(py).clone()))
            }
            PassesFor::Itself => Ok(this.get_type()),
        }
    }

    /// Binds to an instance, as a function does.
    fn bind<'py>(this: &Bound<'py, Self>, instance: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        match instance {
            Some(instance) => ffi::bound_method(this.as_any(), instance),
            None => Ok(this.clone().into_any()),
        }
    }

    fn represent(this: &Bound<'_, Self>) -> PyResult<String> {
        let name = name_of(this).unwrap_or_else(|| shown(this.get().function().bind(this.py())));
        Ok(format!("<warp_cache.CachedFunction {name} at {:p}>", this.as_ptr()))
    }
}

type This<'a, 'py> = &'a Bound<'py, CachedFunction>;
type Answered<'py> = PyResult<Bound<'py, PyAny>>;

methods! {
    CacheInfo(CachedFunction, 0) = "cache_info" "($self, /)" "Return the cache's statistics.

Entries whose time is over are dropped first, so current_size counts live ones. For the shared backend, the statistics of
all processes." cache_info;

    CacheClear(CachedFunction, 0) = "cache_clear" "($self, /)"
        "Remove all entries and reset the statistics. For the shared backend, for all processes." cache_clear;

    CacheUnlink(CachedFunction, 0) = "cache_unlink" "($self, /)"
        "Remove the file of the shared backend, for all processes, and return whether there was one.

The next call begins a new one. Raises TypeError for the memory backend, and OSError where the file can't be removed."
        cache_unlink;

    SharedStats(CachedFunction, 0) = "shared_stats" "($self, /)"
        "Return the state of the shared backend's region: SharedStats(path, bytes, steals, repairs, give_ups, checksum_failures).

Raises TypeError for the memory backend." shared_stats;

    CacheParameters(CachedFunction, 0) = "cache_parameters" "($self, /)"
        "Return the parameters in force, as a new dict." cache_parameters;

    CacheInvalidate(CachedFunction, 0) = "cache_invalidate" "($self, /, *args, **kwargs)"
        "Drop the entry of these arguments and return whether there was one.

Takes what the function takes; for a method, the instance first." cache_invalidate;

    CacheContains(CachedFunction, 0) = "cache_contains" "($self, /, *args, **kwargs)"
        "Return whether a call with these arguments would hit, without counting it or touching the entry.

Takes what the function takes; for a method, the instance first." cache_contains;

    Reduce(CachedFunction, 0) = "__reduce__" "($self, /)" "Pickled by name, as a function is." reduce;

    Copy(CachedFunction, 0) = "__copy__" "($self, /)" "A copy is the object itself, as for a function." copy;

    DeepCopy(CachedFunction, 0) = "__deepcopy__" "($self, memo, /)"
        "A copy is the object itself, as for a function." deep_copy;

    Dir(CachedFunction, 0) = "__dir__" "($self, /)"
        "The attributes of its own type, not of the one that it passes for." dir;

    ClassGetItem(PyType, METH_CLASS) = "__class_getitem__" "($type, item, /)"
        "CachedFunction[[int], str], for annotations." class_get_item;
}

fn cache_info<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_info", &given)?;
    this.get().cache().entries.info(this.py(), this.get().settings().options.max_size)
}

fn cache_clear<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_clear", &given)?;
    this.get().cache().clear(this.py())?;
    Ok(this.py().None().into_bound(this.py()))
}

fn cache_unlink<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_unlink", &given)?;
    let removed = this.get().cache().entries.unlink(this.py())?;
    Ok(ffi::truth(this.py(), removed))
}

fn shared_stats<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("shared_stats", &given)?;
    this.get().cache().entries.stats(this.py())
}

fn cache_parameters<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_parameters", &given)?;
    parameters_in_force(this.py(), this.get()).map_err(|raised| raised.fetch(this.py()))
}

fn parameters_in_force<'py>(py: Python<'py>, function: &CachedFunction) -> Result<Bound<'py, PyAny>, Raised> {
    let Settings { options, naming, flavour } = function.settings();
    let Options { strategy, max_size, ttl, backend, max_key_size, max_value_size, typed, single_flight: _ } = *options;
    let none = || Object::from(py.None());
    let truth = |truth| Object::from(ffi::truth(py, truth));
    let text = |text: &Option<String>| text.as_ref().map_or_else(|| Ok(none()), |text| ffi::new_text(py, text));
    let max_size = max_size.map_or_else(|| Ok(none()), |size| ffi::new_count(py, size as u64))?;
    let parameters = ffi::new_dict(py)?;
    let put = |name, value| ffi::put(py, &parameters, name, &value);
    match flavour {
        Flavour::LruCache => {
            put(c"maxsize", max_size)?;
            put(c"typed", truth(typed))?;
        }
        Flavour::Cache => {
            put(c"strategy", info::member(py, info::strategy_type(py)?, strategy as u64)?)?;
            put(c"max_size", max_size)?;
            put(c"ttl", ttl.map_or_else(|| Ok(none()), |ttl| ffi::new_float(py, ttl.seconds()))?)?;
            put(c"backend", info::member(py, info::backend_type(py)?, backend as u64)?)?;
            put(c"max_key_size", ffi::new_count(py, max_key_size.into())?)?;
            put(c"max_value_size", ffi::new_count(py, max_value_size.into())?)?;
            put(c"typed", truth(typed))?;
            put(c"single_flight", truth(function.is_single_flight()))?;
            put(c"name", text(&naming.name)?)?;
            put(
                c"version",
                match &naming.version {
                    None => none(),
                    Some(Version::Number(number)) => ffi::new_int(py, *number)?,
                    Some(Version::Text(text)) => ffi::new_text(py, text)?,
                },
            )?;
        }
    }
    Ok(parameters.into_bound(py))
}

fn cache_invalidate<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    let invalidated =
        this.get().signature().with_key(given, Invalidate(this)).map_err(|raised| raised.fetch(this.py()))?;
    Ok(ffi::truth(this.py(), invalidated))
}

/// Drops the entry of a key.
struct Invalidate<'a, 'py>(This<'a, 'py>);

impl WithKey for Invalidate<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.get().cache().invalidate(self.0.py(), key)
    }

    fn mismatch(self) -> Result<bool, Raised> {
        Err(no_such_arguments("cache_invalidate"))
    }
}

fn cache_contains<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    let contained = this.get().signature().with_key(given, Contains(this)).map_err(|raised| raised.fetch(this.py()))?;
    Ok(ffi::truth(this.py(), contained))
}

/// Says whether a call would hit.
struct Contains<'a, 'py>(This<'a, 'py>);

impl WithKey for Contains<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.get().cache().entries.contains(self.0.py(), key)
    }

    fn mismatch(self) -> Result<bool, Raised> {
        Err(no_such_arguments("cache_contains"))
    }
}

#[cold]
fn no_such_arguments(method: &str) -> Raised {
    exception::<PyTypeError>(&format!(
        "{method}() takes the arguments that the function takes, self or cls included: these do not fit its signature"
    ))
    .into()
}

fn reduce<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("__reduce__", &given)?;
    this.getattr(names::of(this.py()).qualname.bind(this.py()))
}

fn copy<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("__copy__", &given)?;
    Ok(this.clone().into_any())
}

fn deep_copy<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::only("__deepcopy__", &given)?;
    Ok(this.clone().into_any())
}

fn dir<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("__dir__", &given)?;
    let names = PySet::empty(this.py())?;
    let update = |attributes: Bound<'py, PyAny>| names.call_method1("update", (attributes,));
    update(this.get_type().dir()?.into_any())?;
    update(this.getattr("__dict__")?)?;
    Ok(names.into_any())
}

fn class_get_item<'py>(this: &Bound<'py, PyType>, given: Given<'_>) -> Answered<'py> {
    let item = method::only("__class_getitem__", &given)?;
    ffi::generic_alias(this, item)
}

/// The type of decorated functions.
pub(crate) fn cached_function_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    TYPE.get_or_try_init(py, || {
        WRAPPER.get_or_try_init(py, || {
            let kind = py.import("functools")?.getattr("_lru_cache_wrapper")?.cast_into::<PyType>();
            PyResult::Ok(kind.unwrap_or_else(|_| py.get_type::<PyFunction>()).unbind())
        })?;
        let offset = cached_function::entry_offset(py)?;
        let methods = [
            method::definition::<CacheInfo>(),
            method::definition::<CacheClear>(),
            method::definition::<CacheUnlink>(),
            method::definition::<SharedStats>(),
            method::definition::<CacheParameters>(),
            method::definition::<CacheInvalidate>(),
            method::definition::<CacheContains>(),
            method::definition::<Reduce>(),
            method::definition::<Copy>(),
            method::definition::<DeepCopy>(),
            method::definition::<Dir>(),
            method::definition::<ClassGetItem>(),
        ];
        let derived = method::derive_function::<CachedFunction>(py, NAME, DOC, offset, &methods)?;
        Ok(derived.unbind())
    })
    .map(|kind| kind.bind(py))
}
