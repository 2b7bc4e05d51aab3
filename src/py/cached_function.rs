//! The native callable that stands in for a decorated function.
//!
//! A pyclass holds the state and the methods. pyo3 can give it no vectorcall slot, so the type in use is one derived from
//! it when the module is imported; see [`super::ffi::derive_callable`].

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::cache::{Cache, Flavour, WithKey};
use super::error::shown;
use super::ffi::{self, Arg, Call, Entrance, Entry, Given, Object, Raised};
use super::key::{CallKey, Key, Lone, Pair, Several};
use super::parameters::Unfit;
use super::{decorator, info};
use crate::backend::memory::{Lookup, Memory};
use crate::options::Options;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use std::ffi::CStr;
use std::sync::Mutex;

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `types.MethodType`.
static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
/// `types.GenericAlias`.
static ALIAS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

const NAME: &CStr = c"warp_cache.CachedFunction";
const DOC: &CStr = c"A function with a cache in front of it: what cache() and lru_cache() return.";

/// What `CachedFunction` is derived from.
#[pyclass(frozen, immutable_type, subclass, dict, weakref, name = "_CachedFunction", module = "warp_cache")]
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CachedFunction {
    /// Read by the interpreter, at the offset that the derived type declares.
    entry: Entry,
    cache: Cache,
    /// The user's function. It is not cleared by a garbage collection: a cycle through it has another link that was
    /// made later, and that one is cleared.
    function: Py<PyAny>,
}

/// Answers from the cache.
struct Caching;

impl Entrance for Caching {
    type Class = CachedFunction;

    #[inline(always)]
    fn call(this: &CachedFunction, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        if let (Some(value), true) = (call.lone(), this.cache.lone_is_key) {
            return this.answer(py, call, &Lone::new(value, this.cache.rules)?);
        }
        if let Some(values) = call.unnamed(this.cache.in_order) {
            return this.call_in_order(py, call, values);
        }
        this.call_with_any(py, call)
    }
}

/// Only counts: a cache of no entries.
struct Counting;

impl Entrance for Counting {
    type Class = CachedFunction;

    fn call(this: &CachedFunction, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        this.cache.memory.count_miss(py);
        call.forward(py, &this.function)
    }
}

impl CachedFunction {
    /// A callable with an empty cache in front of `function`, with the function's metadata.
    pub(crate) fn create<'py>(
        function: &Bound<'py, PyAny>,
        options: Options,
        flavour: Flavour,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let cache = Cache::new(function, options, flavour)?;
        let entry = if options.max_size == Some(0) { Entry::of::<Counting>() } else { Entry::of::<Caching>() };
        let state = Self { entry, cache, function: function.clone().unbind() };
        let blueprint = Bound::new(py, Blueprint(Mutex::new(Some(state))))?;
        let kind = cached_function_type(py)?;
        let wrapper = ffi::without_collection(py, || kind.call1((blueprint,)))?;
        carry_metadata(&wrapper, function)?;
        Ok(wrapper)
    }

    #[inline(never)]
    fn call_in_order(&self, py: Python<'_>, call: Call<'_>, values: &[Arg<'_>]) -> Result<Object, Raised> {
        if let Ok(values) = values.try_into() {
            return self.answer(py, call, &Pair::new(values, self.cache.rules)?);
        }
        if values.is_empty() {
            // The same as below, with nothing left to compute.
            return self.answer(py, call, &Several::unnamed(&[], self.cache.rules)?);
        }
        self.answer(py, call, &Several::unnamed(values, self.cache.rules)?)
    }

    #[inline(never)]
    fn call_with_any(&self, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        let given = call.given();
        if self.cache.parameters.as_ref().is_some_and(|parameters| parameters.stand_in_order(&given)) {
            return match *given.values {
                [value] => self.answer(py, call, &Lone::new(value, self.cache.rules)?),
                _ => self.call_in_order(py, call, given.values),
            };
        }
        self.call_out_of_order(py, call, given)
    }

    #[inline(never)]
    fn call_out_of_order(&self, py: Python<'_>, call: Call<'_>, given: Given<'_>) -> Result<Object, Raised> {
        match self.cache.with_key(given, Answer { function: self, py, call }) {
            Ok(value) => Ok(value),
            Err(Unfit::Raised(raised)) => Err(raised),
            Err(Unfit::Mismatch) => {
                // The function says what is wrong with these arguments.
                self.cache.memory.count_miss(py);
                call.forward(py, &self.function)
            }
        }
    }

    /// Look up → hit, return | miss → compute → keep → drop what had to leave → return.
    #[inline(always)]
    fn answer<K: CallKey>(&self, py: Python<'_>, call: Call<'_>, key: &K) -> Result<Object, Raised> {
        match self.cache.memory.look_up(py, key, |value| value.clone_ref(py)) {
            Some(Lookup::Hit(value)) => Ok(value),
            Some(Lookup::Miss { generation }) => self.compute(py, call, key, generation),
            None => self.answer_asking(py, call, key),
        }
    }

    #[cold]
    #[inline(never)]
    fn answer_asking<K: CallKey>(&self, py: Python<'_>, call: Call<'_>, key: &K) -> Result<Object, Raised> {
        match self.cache.memory.look_up_asking(py, key, |value| value.clone_ref(py))? {
            Lookup::Hit(value) => Ok(value),
            Lookup::Miss { generation } => self.compute(py, call, key, generation),
        }
    }

    #[inline(never)]
    fn compute<K: CallKey>(&self, py: Python<'_>, call: Call<'_>, key: &K, generation: u64) -> Result<Object, Raised> {
        let value = call.forward(py, &self.function)?;
        let stored = key.to_key(py)?;
        let copy = value.clone_ref(py);
        match ffi::guarded(py, || self.cache.memory.keep(py, key, generation, stored, copy))? {
            Ok(evicted) => drop(evicted),
            Err(late) => drop(self.cache.memory.keep_late(py, key, late)?),
        }
        if self.cache.options.ttl.is_some() {
            // One more than the one whose place was needed, so that expired entries leave faster than others come.
            drop(self.cache.memory.expire(py));
        }
        Ok(value)
    }
}

/// What a call does with its key.
struct Answer<'a, 'py> {
    function: &'a CachedFunction,
    py: Python<'py>,
    call: Call<'a>,
}

impl WithKey for Answer<'_, '_> {
    type Output = Object;

    #[inline(always)]
    fn run<K: CallKey>(self, key: &K) -> Result<Object, Raised> {
        self.function.answer(self.py, self.call, key)
    }
}

struct Invalidate<'a, 'py>(&'a Memory<Key, Object>, Python<'py>);

impl WithKey for Invalidate<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.invalidate(self.1, key)
    }
}

struct Contains<'a, 'py>(&'a Memory<Key, Object>, Python<'py>);

impl WithKey for Contains<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.contains(self.1, key)
    }
}

/// Carries the state of a new callable through Python's constructor protocol.
#[pyclass(frozen, name = "_Blueprint", module = "warp_cache")]
struct Blueprint(Mutex<Option<CachedFunction>>);

#[pymethods]
impl CachedFunction {
    #[new]
    #[pyo3(signature = (*args, **_kwargs), text_signature = None)]
    fn new(args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let state = args.iter().next().and_then(|first| {
            let blueprint = first.cast_into::<Blueprint>().ok()?;
            blueprint.get().0.lock().ok()?.take()
        });
        state
            .ok_or_else(|| PyTypeError::new_err("a CachedFunction is made by warp_cache.cache or warp_cache.lru_cache"))
    }

    /// `CachedFunction[[int], str]`, for annotations.
    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        ALIAS.import(cls.py(), "types", "GenericAlias")?.call1((cls, item))
    }

    /// For `__annotations__`, which functools.update_wrapper no longer carries over from 3.14 on: it carries what makes them.
    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        if cfg!(Py_3_14) && name == "__annotations__" {
            return slf.get().function.bind(slf.py()).getattr(name);
        }
        Err(PyAttributeError::new_err(format!("'CachedFunction' object has no attribute {}", shown(name))))
    }

    /// Bind to an instance, as a function does.
    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: Option<&Bound<'py, PyAny>>,
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = owner;
        let Some(instance) = instance.filter(|instance| !instance.is_none()) else {
            return Ok(slf.clone().into_any());
        };
        METHOD.import(slf.py(), "types", "MethodType")?.call1((slf, instance))
    }

    /// Return the cache's statistics.
    ///
    /// Entries whose time is over are dropped first, so current_size counts live ones.
    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (stats, current_size) = self.cache.memory.info(py);
        info::cache_info(py, stats, self.cache.options.max_size, current_size)
    }

    /// Remove all entries and reset the statistics.
    fn cache_clear(&self, py: Python<'_>) {
        drop(self.cache.memory.clear(py));
    }

    /// Return the parameters in force, as a new dict.
    fn cache_parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Options { strategy, max_size, ttl, backend, max_key_size, max_value_size, typed, single_flight } =
            self.cache.options;
        let parameters = PyDict::new(py);
        match self.cache.flavour {
            Flavour::LruCache => {
                parameters.set_item("maxsize", max_size)?;
                parameters.set_item("typed", typed)?;
            }
            Flavour::Cache => {
                parameters.set_item("strategy", info::member(info::strategy_type(py)?, strategy as usize)?)?;
                parameters.set_item("max_size", max_size)?;
                parameters.set_item("ttl", ttl.map(crate::options::Ttl::seconds))?;
                parameters.set_item("backend", info::member(info::backend_type(py)?, backend as usize)?)?;
                parameters.set_item("max_key_size", max_key_size)?;
                parameters.set_item("max_value_size", max_value_size)?;
                parameters.set_item("typed", typed)?;
                parameters.set_item("single_flight", single_flight.unwrap_or(false))?;
            }
        }
        Ok(parameters)
    }

    /// Drop the entry of these arguments and return whether there was one.
    ///
    /// Takes what the function takes; for a method, the instance first.
    #[pyo3(signature = (*args, **kwargs))]
    fn cache_invalidate(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        self.cache.with_key_of("cache_invalidate", args, kwargs, Invalidate(&self.cache.memory, args.py()))
    }

    /// Return whether a call with these arguments would hit, without counting it or touching the entry.
    ///
    /// Takes what the function takes; for a method, the instance first.
    #[pyo3(signature = (*args, **kwargs))]
    fn cache_contains(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        self.cache.with_key_of("cache_contains", args, kwargs, Contains(&self.cache.memory, args.py()))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let text = |name: &str| {
            slf.getattr(name)
                .ok()
                .and_then(|text| Some(text.cast_into::<PyString>().ok()?.to_string_lossy().into_owned()))
        };
        let name = match (text("__module__"), text("__qualname__")) {
            (Some(module), Some(name)) => format!("{module}.{name}"),
            (None, Some(name)) => name,
            _ => shown(slf.get().function.bind(slf.py())),
        };
        format!("<warp_cache.CachedFunction {name} at {:p}>", slf.as_ptr())
    }

    /// Pickled by name, as a function is.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.getattr("__qualname__")
    }

    /// A copy is the object itself, as for a function.
    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// A copy is the object itself, as for a function.
    #[pyo3(signature = (memo, /))]
    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        let _ = memo;
        slf.clone()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        self.cache.traverse(&visit)
    }

    fn __clear__(&self) {
        Python::attach(|py| drop(self.cache.memory.clear(py)));
    }
}

/// The type of decorated functions.
pub(crate) fn cached_function_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    TYPE.get_or_try_init(py, || {
        let offset = entry_offset(py)?;
        let derived = ffi::derive_callable::<CachedFunction>(py, NAME, DOC, offset)?;
        Ok(derived.unbind())
    })
    .map(|kind| kind.bind(py))
}

/// Where in an instance its entry is, found on one made for the purpose.
fn entry_offset(py: Python<'_>) -> PyResult<isize> {
    let function = py.None();
    let cache = Cache::new(function.bind(py), Options::default(), Flavour::LruCache)?;
    let probe = CachedFunction { entry: Entry::of::<Caching>(), cache, function };
    let probe = ffi::without_collection(py, || Bound::new(py, probe))?;
    let state = std::ptr::from_ref(probe.get()).addr() + std::mem::offset_of!(CachedFunction, entry);
    Ok((state - probe.as_ptr().addr()).cast_signed())
}

/// Makes the wrapper look like the function, as `functools.update_wrapper` does.
fn carry_metadata(wrapper: &Bound<'_, PyAny>, function: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = wrapper.py();
    py.import("functools")?.getattr("update_wrapper")?.call1((wrapper, function))?;
    // The function may itself be cached, by a decorator that keeps these in the function's dict. They speak of its cache.
    let carried = wrapper.getattr("__dict__")?.cast_into::<PyDict>()?;
    for name in decorator::CACHE_METHODS {
        if carried.contains(name)? {
            carried.del_item(name)?;
        }
    }
    Ok(())
}
