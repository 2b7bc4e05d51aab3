//! The native callable that stands in for a decorated function.
//!
//! A pyclass holds the state and the methods. pyo3 can give it no vectorcall slot, so the type in use is one derived from
//! it when the module is imported; see [`super::ffi::derive_callable`].

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::async_flight::Flights;
use super::cache::{Cache, Contains, Flavour, Invalidate, Settings, WithKey};
use super::cached_coroutine::Coroutines;
use super::error::{name_of, shown};
use super::ffi::{self, Arg, Call, Entrance, Entry, Given, Object, Raised};
use super::key::{CallKey, Lone, Pair, Several};
use super::parameters::Unfit;
use super::shared::Shared;
#[cfg(unix)]
use super::shared_calls::{SharedCoroutines, SharedValues};
use super::{decorator, info};
use crate::backend::memory::{Lookup, Tally};
use crate::options::{Naming, Options, Version};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::Mutex;

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `types.MethodType`.
static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
/// See [`inspect_mark`].
static MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
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
    /// For a coroutine function, the function that runs in the end: what `inspect` on older Pythons looks at.
    runs: Option<Py<PyAny>>,
}

/// What kind of function is cached.
pub(crate) trait Mode: 'static {
    /// What looking a call's key up counts.
    const TALLY: Tally;

    /// Look up → hit, return | miss.
    fn answer<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
    ) -> Result<Object, Raised>;
}

/// A mode that looks into the memory of this process.
pub(crate) trait InMemory: Mode {
    /// What a call returns that finds `value` stored.
    fn hit(py: Python<'_>, value: Object) -> Result<Object, Raised>;

    /// What a call returns that finds nothing, when the store is of that generation.
    fn miss<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        generation: u64,
    ) -> Result<Object, Raised>;
}

/// The function is a plain one: what is cached is what it returns.
#[derive(Debug)]
pub(crate) struct Values;

impl Mode for Values {
    const TALLY: Tally = Tally::All;

    #[inline(always)]
    fn answer<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
    ) -> Result<Object, Raised> {
        answer::<Self, K>(this, py, call, key)
    }
}

impl InMemory for Values {
    #[inline(always)]
    fn hit(_: Python<'_>, value: Object) -> Result<Object, Raised> {
        Ok(value)
    }

    /// Compute → keep → drop what had to leave → return.
    #[inline(never)]
    fn miss<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        generation: u64,
    ) -> Result<Object, Raised> {
        let this = function.get();
        let value = call.forward(py, &this.function)?;
        this.cache.keep(py, key, generation, key.to_key(py)?, value.clone_ref(py), || true)?;
        Ok(value)
    }
}

/// Answers from the cache.
struct Caching<M>(PhantomData<M>);

impl<M: Mode> Entrance for Caching<M> {
    type Class = CachedFunction;

    #[inline(always)]
    fn call(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        let cache = &this.get().cache;
        if let (Some(value), true) = (call.lone(), cache.lone_is_key) {
            return M::answer(this, py, call, &Lone::new(value, cache.rules)?);
        }
        if let Some(values) = call.unnamed(cache.in_order) {
            return call_in_order::<M>(this, py, call, values);
        }
        call_with_any::<M>(this, py, call)
    }
}

/// Only counts: a cache of no entries, in front of a plain function.
struct Counting;

impl Entrance for Counting {
    type Class = CachedFunction;

    fn call(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        let this = this.get();
        this.cache.count_miss(py)?;
        call.forward(py, &this.function)
    }
}

#[inline(never)]
fn call_in_order<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    values: &[Arg<'_>],
) -> Result<Object, Raised> {
    let rules = this.get().cache.rules;
    if let Ok(values) = values.try_into() {
        return M::answer(this, py, call, &Pair::new(values, rules)?);
    }
    if values.is_empty() {
        // The same as below, with nothing left to compute.
        return M::answer(this, py, call, &Several::unnamed(&[], rules)?);
    }
    M::answer(this, py, call, &Several::unnamed(values, rules)?)
}

#[inline(never)]
fn call_with_any<M: Mode>(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
    let given = call.given();
    let cache = &this.get().cache;
    if cache.parameters.as_ref().is_some_and(|parameters| parameters.stand_in_order(&given)) {
        return match *given.values {
            [value] => M::answer(this, py, call, &Lone::new(value, cache.rules)?),
            _ => call_in_order::<M>(this, py, call, given.values),
        };
    }
    call_out_of_order::<M>(this, py, call, given)
}

#[inline(never)]
fn call_out_of_order<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    given: Given<'_>,
) -> Result<Object, Raised> {
    let cache = &this.get().cache;
    match cache.with_key(given, Answer { function: this, py, call, mode: PhantomData::<M> }) {
        Ok(value) => Ok(value),
        Err(Unfit::Raised(raised)) => Err(raised),
        Err(Unfit::Mismatch) => {
            // The function says what is wrong with these arguments.
            if M::TALLY == Tally::All {
                cache.count_miss(py)?;
            }
            call.forward(py, &this.get().function)
        }
    }
}

/// [`Mode::answer`], from the memory of this process.
#[inline(always)]
pub(crate) fn answer<M: InMemory, K: CallKey>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &K,
) -> Result<Object, Raised> {
    match this.get().cache.memory.look_up(py, key, M::TALLY, |value| value.clone_ref(py)) {
        Some(Lookup::Hit(value)) => M::hit(py, value),
        Some(Lookup::Miss { generation }) => M::miss(this, py, call, key, generation),
        None => answer_asking::<M, K>(this, py, call, key),
    }
}

#[cold]
#[inline(never)]
fn answer_asking<M: InMemory, K: CallKey>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &K,
) -> Result<Object, Raised> {
    match this.get().cache.memory.look_up_asking(py, key, M::TALLY, |value| value.clone_ref(py))? {
        Lookup::Hit(value) => M::hit(py, value),
        Lookup::Miss { generation } => M::miss(this, py, call, key, generation),
    }
}

/// What a call does with its key.
struct Answer<'a, 'py, M> {
    function: &'a Py<CachedFunction>,
    py: Python<'py>,
    call: Call<'a>,
    mode: PhantomData<M>,
}

impl<M: Mode> WithKey for Answer<'_, '_, M> {
    type Output = Object;

    #[inline(always)]
    fn run<K: CallKey>(self, key: &K) -> Result<Object, Raised> {
        M::answer(self.function, self.py, self.call, key)
    }
}

impl CachedFunction {
    /// A callable with an empty cache in front of a plain `function`, with the function's metadata.
    pub(crate) fn of_function<'py>(function: &Bound<'py, PyAny>, settings: Settings) -> PyResult<Bound<'py, PyAny>> {
        let cache = Cache::new(function, settings, None)?;
        let entry = match &cache {
            Cache { options: Options { max_size: Some(0), .. }, .. } => Entry::of::<Counting>(),
            #[cfg(unix)]
            Cache { shared: Some(_), .. } => Entry::of::<Caching<SharedValues>>(),
            _ => Entry::of::<Caching<Values>>(),
        };
        Self::create(function, entry, cache, None)
    }

    /// The same in front of a coroutine function, where `runs` is the function that runs in the end.
    pub(crate) fn of_coroutine_function<'py>(
        function: &Bound<'py, PyAny>,
        runs: Bound<'py, PyAny>,
        settings: Settings,
    ) -> PyResult<Bound<'py, PyAny>> {
        let cache = Cache::new(function, settings, Some(Flights::new()))?;
        let entry = match &cache.shared {
            #[cfg(unix)]
            Some(_) => Entry::of::<Caching<SharedCoroutines>>(),
            _ => Entry::of::<Caching<Coroutines>>(),
        };
        Self::create(function, entry, cache, Some(runs.unbind()))
    }

    fn create<'py>(
        function: &Bound<'py, PyAny>,
        entry: Entry,
        cache: Cache,
        runs: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let state = Self { entry, cache, function: function.clone().unbind(), runs };
        let blueprint = Bound::new(py, Blueprint(Mutex::new(Some(state))))?;
        let kind = cached_function_type(py)?;
        let wrapper = ffi::without_collection(py, || kind.call1((blueprint,)))?;
        carry_metadata(&wrapper, function)?;
        Ok(wrapper)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The shared backend, which `method` is for.
    fn shared(&self, method: &str) -> PyResult<&Shared> {
        self.cache.shared.as_ref().ok_or_else(|| {
            PyTypeError::new_err(format!(
                "{method}() is for backend=\"shared\": this cache is in the memory of this process"
            ))
        })
    }

    pub(crate) fn function(&self) -> &Py<PyAny> {
        &self.function
    }

    /// For a coroutine function, the function that runs in the end.
    pub(crate) fn runs<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.runs.as_ref().map(|runs| runs.bind(py).clone())
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

    /// For what functools.update_wrapper does not carry over.
    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        // From 3.14 on: it carries what makes the annotations.
        if cfg!(Py_3_14) && name == "__annotations__" {
            return slf.get().function.bind(py).getattr(name);
        }
        if let Some(runs) = &slf.get().runs
            && let Some(value) = coroutine_mark(runs.bind(py), name)?
        {
            return Ok(value);
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
    /// Entries whose time is over are dropped first, so current_size counts live ones. For the shared backend, the statistics of
    /// all processes.
    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(shared) = &self.cache.shared {
            return shared.info(py, self.cache.options.max_size);
        }
        let (stats, current_size) = self.cache.memory.info(py);
        info::cache_info(py, stats, self.cache.options.max_size, current_size)
    }

    /// Remove all entries and reset the statistics. For the shared backend, for all processes.
    fn cache_clear(&self, py: Python<'_>) -> PyResult<()> {
        self.cache.clear(py)
    }

    /// Remove the file of the shared backend, for all processes, and return whether there was one.
    ///
    /// The next call begins a new one. Raises TypeError for the memory backend, and OSError where the file can't be removed.
    fn cache_unlink(&self, py: Python<'_>) -> PyResult<bool> {
        self.shared("cache_unlink")?.unlink(py)
    }

    /// Return the state of the shared backend's region: SharedStats(path, bytes, steals, repairs, give_ups, checksum_failures).
    ///
    /// Raises TypeError for the memory backend.
    fn shared_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.shared("shared_stats")?.stats(py)
    }

    /// Return the parameters in force, as a new dict.
    fn cache_parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Options { strategy, max_size, ttl, backend, max_key_size, max_value_size, typed, single_flight: _ } =
            self.cache.options;
        let naming: &Naming = &self.cache.naming;
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
                parameters.set_item("single_flight", self.cache.is_single_flight())?;
                parameters.set_item("name", naming.name.as_deref())?;
                match &naming.version {
                    None => parameters.set_item("version", py.None())?,
                    Some(Version::Number(number)) => parameters.set_item("version", number)?,
                    Some(Version::Text(text)) => parameters.set_item("version", text)?,
                }
            }
        }
        Ok(parameters)
    }

    /// Drop the entry of these arguments and return whether there was one.
    ///
    /// Takes what the function takes; for a method, the instance first.
    #[pyo3(signature = (*args, **kwargs))]
    fn cache_invalidate(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        self.cache.with_key_of("cache_invalidate", args, kwargs, Invalidate(&self.cache, args.py()))
    }

    /// Return whether a call with these arguments would hit, without counting it or touching the entry.
    ///
    /// Takes what the function takes; for a method, the instance first.
    #[pyo3(signature = (*args, **kwargs))]
    fn cache_contains(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        self.cache.with_key_of("cache_contains", args, kwargs, Contains(&self.cache, args.py()))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let name = name_of(slf).unwrap_or_else(|| shown(slf.get().function.bind(slf.py())));
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
        if let Some(runs) = &self.runs {
            visit.call(runs)?;
        }
        self.cache.traverse(&visit)
    }

    fn __clear__(&self) {
        Python::attach(|py| self.cache.clear_here(py));
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
    let settings = Settings { options: Options::default(), naming: Naming::default(), flavour: Flavour::LruCache };
    let cache = Cache::new(function.bind(py), settings, None)?;
    let probe = CachedFunction { entry: Entry::of::<Counting>(), cache, function, runs: None };
    let probe = ffi::without_collection(py, || Bound::new(py, probe))?;
    let state = std::ptr::from_ref(probe.get()).addr() + std::mem::offset_of!(CachedFunction, entry);
    Ok((state - probe.as_ptr().addr()).cast_signed())
}

/// What `inspect.iscoroutinefunction` looks for on an object that is no function but is called like a coroutine function, which
/// `runs` is.
///
/// Neither is an attribute that `functools.wraps` would carry on to a wrapper of the wrapper.
fn coroutine_mark<'py>(runs: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = runs.py();
    if cfg!(Py_3_12) {
        if name != "_is_coroutine_marker" {
            return Ok(None);
        }
        return Ok(Some(inspect_mark(py)?.clone()));
    }
    // Before, there is no such mark, but what has all of these passes for a function.
    let name = name.to_str()?;
    match name {
        "__name__" | "__code__" | "__defaults__" | "__kwdefaults__" | "__annotations__" => runs.getattr_opt(name),
        _ => Ok(None),
    }
}

/// What `inspect.markcoroutinefunction` marks with.
pub(crate) fn inspect_mark(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let mark = MARK.get_or_try_init(py, || {
        let marked = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
        py.import("inspect")?.getattr("markcoroutinefunction")?.call1((&marked,))?;
        marked.getattr("_is_coroutine_marker").map(Bound::unbind)
    })?;
    Ok(mark.bind(py))
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
