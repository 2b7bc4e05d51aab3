//! The native callable that stands in for a decorated function.
//!
//! A pyclass holds the state and the methods. pyo3 can give it no vectorcall slot, so the type in use is one derived from
//! it when the module is imported; see [`super::method::derive_function`].

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::async_flight::Flights;
use super::cache::Cache;
use super::entries::Entries;
use super::error::{exception, name_of, shown};
use super::ffi::{self, Call, Entrance, Entry, Given, Object, Raised};
use super::key::CallKey;
use super::method::{self, Behaviour, methods};
use super::signature::{Signature, WithKey};
use super::{info, names, thread};
use crate::options::{Backend, Flavour, Naming, Options, Settings, Version};
use crate::sync;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::METH_CLASS;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFunction, PySet, PyString, PyType};
use std::ffi::CStr;

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `functools._lru_cache_wrapper`: with no native part of functools, its wrappers are functions.
static WRAPPER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
/// The attributes that a cached function has besides the function's own.
const CACHE_METHODS: [&str; 7] = [
    "cache_info",
    "cache_clear",
    "cache_parameters",
    "cache_invalidate",
    "cache_contains",
    "cache_unlink",
    "shared_stats",
];

/// See [`inspect_mark`].
static MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What a function has that an object which passes for one must have, too, and `functools.update_wrapper` does not carry over.
const OF_A_FUNCTION: [&str; 6] =
    ["__code__", "__globals__", "__closure__", "__defaults__", "__kwdefaults__", "__builtins__"];

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
    signature: Signature,
    options: Options,
    naming: Naming,
    flavour: Flavour,
    /// The user's function. It is not cleared by a garbage collection: a cycle through it has another link that was
    /// made later, and that one is cleared.
    function: Object,
    /// For a coroutine function, the function that runs in the end: what `inspect` on older Pythons looks at.
    runs: Option<Object>,
}

/// The type that an object says it is of.
#[derive(Clone, Copy, Debug)]
enum PassesFor {
    LruCache,
    Function,
    Itself,
}

impl CachedFunction {
    /// A callable with a cache in front of `function` and with the function's metadata. `choose` picks how its calls are answered. For
    /// a coroutine function, `runs` is the function that runs in the end.
    pub(crate) fn create<'py>(
        function: &Bound<'py, PyAny>,
        settings: Settings,
        runs: Option<Bound<'py, PyAny>>,
        choose: impl FnOnce(&Entries, &Options) -> Entry,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let signature = Signature::of(function, &settings)?;
        let entries = Entries::new(function, &settings, signature.rules)?;
        let entry = choose(&entries, &settings.options);
        let flights = runs.is_some().then(Flights::new);
        let state = Self::new(entry, Cache { entries, flights }, signature, settings, function.clone(), runs);
        let kind = cached_function_type(py)?;
        let wrapper = method::adopt(ffi::without_collection(py, || Bound::new(py, state))?, kind);
        carry_metadata(&wrapper, function)?;
        if is_long_lived(function)? {
            sync::count_lazily(&wrapper);
        }
        Ok(wrapper)
    }

    fn new(
        entry: Entry,
        cache: Cache,
        signature: Signature,
        Settings { options, naming, flavour }: Settings,
        function: Bound<'_, PyAny>,
        runs: Option<Bound<'_, PyAny>>,
    ) -> Self {
        let runs = runs.map(|runs| runs.unbind().into());
        Self { entry, cache, signature, options, naming, flavour, function: function.unbind().into(), runs }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether calls that miss the same key wait for one computation.
    pub(crate) fn is_single_flight(&self) -> bool {
        self.options.single_flight.unwrap_or(self.cache.flights.is_some())
    }

    pub(crate) fn function(&self) -> &Py<PyAny> {
        &self.function
    }

    /// What its `__class__` says.
    fn passes_for(&self, py: Python<'_>) -> PassesFor {
        let Options { ttl, backend, .. } = self.options;
        let is_plain = self.runs.is_none() && ttl.is_none() && backend == Backend::Memory;
        if is_plain && self.flavour == Flavour::LruCache {
            PassesFor::LruCache
        } else if self.function.bind(py).is_exact_instance_of::<PyFunction>() {
            PassesFor::Function
        } else {
            PassesFor::Itself
        }
    }

    /// For a coroutine function, the function that runs in the end.
    pub(crate) fn runs<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.runs.as_ref().map(|runs| runs.bind(py).clone())
    }
}

impl Drop for CachedFunction {
    fn drop(&mut self) {
        // Its dict is dropped next, by pyo3.
        ffi::attached(thread::prepare);
    }
}

#[pymethods]
impl CachedFunction {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.function)?;
        if let Some(runs) = &self.runs {
            visit.call(&**runs)?;
        }
        self.signature.traverse(&visit)?;
        self.cache.traverse(&visit)
    }

    fn __clear__(&self) {
        ffi::attached(|py| self.cache.clear_objects(py));
    }
}

impl Behaviour for CachedFunction {
    /// For what functools.update_wrapper does not carry over.
    fn attribute<'py>(this: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        // From 3.14 on: it carries what makes the annotations.
        if cfg!(Py_3_14) && name == "__annotations__" {
            return this.get().function.bind(py).getattr(name).map(Some);
        }
        if let Some(runs) = &this.get().runs
            && let Some(value) = coroutine_mark(runs.bind(py), name)?
        {
            return Ok(Some(value));
        }
        if let PassesFor::Function = this.get().passes_for(py)
            && OF_A_FUNCTION.iter().any(|&of_a_function| name == of_a_function)
        {
            return this.get().function.bind(py).getattr(name).map(Some);
        }
        Ok(None)
    }

    /// What the object passes for, to programs that go by a list of types; `type()` and `isinstance` tell its own as well.
    ///
    /// `functools._lru_cache_wrapper` where functools could take its place. Elsewhere a program that knows that type may put
    /// functools' own cache in the place of this one, and lose the strategy, the time to live and the sharing, or keep a
    /// coroutine. So there it is a function, as it is with other decorators whose wrappers are transparent.
    fn class<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyType>> {
        let py = this.py();
        match this.get().passes_for(py) {
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
        let name = name_of(this).unwrap_or_else(|| shown(this.get().function.bind(this.py())));
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
    this.get().cache.entries.info(this.py(), this.get().options.max_size)
}

fn cache_clear<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_clear", &given)?;
    this.get().cache.clear(this.py())?;
    Ok(this.py().None().into_bound(this.py()))
}

fn cache_unlink<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_unlink", &given)?;
    let removed = this.get().cache.entries.unlink(this.py())?;
    Ok(ffi::truth(this.py(), removed))
}

fn shared_stats<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("shared_stats", &given)?;
    this.get().cache.entries.stats(this.py())
}

fn cache_parameters<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_parameters", &given)?;
    parameters_in_force(this.py(), this.get()).map_err(|raised| raised.fetch(this.py()))
}

fn parameters_in_force<'py>(py: Python<'py>, function: &CachedFunction) -> Result<Bound<'py, PyAny>, Raised> {
    let Options { strategy, max_size, ttl, backend, max_key_size, max_value_size, typed, single_flight: _ } =
        function.options;
    let naming = &function.naming;
    let none = || Object::from(py.None());
    let truth = |truth| Object::from(ffi::truth(py, truth));
    let text = |text: &Option<String>| text.as_ref().map_or_else(|| Ok(none()), |text| ffi::new_text(py, text));
    let max_size = max_size.map_or_else(|| Ok(none()), |size| ffi::new_count(py, size as u64))?;
    let parameters = ffi::new_dict(py)?;
    let put = |name, value| ffi::put(py, &parameters, name, &value);
    match function.flavour {
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
        this.get().signature.with_key(given, Invalidate(this)).map_err(|raised| raised.fetch(this.py()))?;
    Ok(ffi::truth(this.py(), invalidated))
}

/// Drops the entry of a key.
struct Invalidate<'a, 'py>(This<'a, 'py>);

impl WithKey for Invalidate<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.get().cache.invalidate(self.0.py(), key)
    }

    fn mismatch(self) -> Result<bool, Raised> {
        Err(no_such_arguments("cache_invalidate"))
    }
}

fn cache_contains<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    let contained = this.get().signature.with_key(given, Contains(this)).map_err(|raised| raised.fetch(this.py()))?;
    Ok(ffi::truth(this.py(), contained))
}

/// Says whether a call would hit.
struct Contains<'a, 'py>(This<'a, 'py>);

impl WithKey for Contains<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.get().cache.entries.contains(self.0.py(), key)
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
        let offset = entry_offset(py)?;
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
        let derived = method::derive_function::<CachedFunction, _>(py, NAME, DOC, offset, methods)?;
        Ok(derived.unbind())
    })
    .map(|kind| kind.bind(py))
}

/// Of an instance that nobody calls.
struct Uncalled;

impl Entrance for Uncalled {
    type Class = CachedFunction;

    fn call(_: &Py<CachedFunction>, _: Python<'_>, _: Call<'_>) -> Result<Object, Raised> {
        unreachable!("the instance is gone before Python sees it")
    }
}

/// Where in an instance its entry is, found on one made for the purpose.
fn entry_offset(py: Python<'_>) -> PyResult<isize> {
    let function = py.None().into_bound(py);
    let settings = Settings { options: Options::default(), naming: Naming::default(), flavour: Flavour::LruCache };
    let signature = Signature::of(&function, &settings)?;
    let cache = Cache { entries: Entries::new(&function, &settings, signature.rules)?, flights: None };
    let probe = CachedFunction::new(Entry::of::<Uncalled>(), cache, signature, settings, function, None);
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
    let name = name.to_str()?;
    if cfg!(Py_3_12) {
        return match name {
            "_is_coroutine_marker" => Ok(Some(inspect_mark(py)?.clone())),
            // What unittest.mock looks at first.
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

/// What `inspect.markcoroutinefunction` marks with.
pub(crate) fn inspect_mark(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let mark = MARK.get_or_try_init(py, || {
        let marked = py.import("types")?.getattr("SimpleNamespace")?.call0()?;
        py.import("inspect")?.getattr("markcoroutinefunction")?.call1((&marked,))?;
        marked.getattr("_is_coroutine_marker").map(Bound::unbind)
    })?;
    Ok(mark.bind(py))
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
