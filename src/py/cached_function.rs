//! The native callable that stands in for a decorated function.
//!
//! A pyclass holds the state and the methods. pyo3 can give it no vectorcall slot, so the type in use is one derived from
//! it when the module is imported; see [`super::method::derive_function`].

#![allow(clippy::doc_markdown, reason = "help() shows these texts as they stand")]

use super::async_flight::Flights;
use super::cache::{Cache, Contains, Flavour, Invalidate, Settings, StoredEntry, WithKey};
use super::cached_coroutine::Coroutines;
use super::error::{exception, name_of, shown};
use super::ffi::{self, Arg, Call, Entrance, Entry, Given, Object, Raised};
use super::key::{CallKey, Lone, Pair, Several};
use super::method::{self, Behaviour, methods};
use super::parameters::Unfit;
use super::shared::Shared;
#[cfg(unix)]
use super::shared_calls::{SharedCoroutines, SharedValues};
use super::{decorator, info, names, thread};
use crate::backend::memory::{Lookup, Query, Tally};
use crate::options::{Backend, Naming, Options, Version};
use crate::sync;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::METH_CLASS;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFunction, PySet, PyString, PyType};
use std::ffi::CStr;
use std::marker::PhantomData;

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `functools._lru_cache_wrapper`: with no native part of functools, its wrappers are functions.
static WRAPPER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
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

/// What kind of function is cached.
pub(crate) trait Mode: Sized + 'static {
    /// What looking a call's key up counts.
    const TALLY: Tally;

    /// What a miss leaves to be computed; by default, nothing.
    type Missed: Default;

    /// Looks the key up. A miss puts into `missed` what [`Mode::compute`] needs.
    fn find<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        missed: &mut Self::Missed,
    ) -> Result<Found, Raised>;

    /// Answers a call whose only argument is its key. Such a key takes so little of the stack that it may stay there while the
    /// function runs.
    #[inline(always)]
    fn answer(function: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>, key: &Lone<'_>) -> Result<Object, Raised> {
        let mut missed = Self::Missed::default();
        let found = Self::find(function, py, call, key, &mut missed)?;
        settle::<Self>(function, py, call, found, &mut missed)
    }

    /// Compute → keep → return. Called when all that made the key has left the stack, so that a function that calls itself can do
    /// so as often as it could without a cache.
    fn compute(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        missed: &mut Self::Missed,
    ) -> Result<Object, Raised>;
}

/// What a look-up comes to.
pub(crate) enum Found {
    /// What the call returns.
    Answer(Object),
    /// Nothing is stored.
    Miss,
    /// The function takes no such arguments.
    Unfit,
}

/// A mode that looks into the memory of this process.
pub(crate) trait InMemory: Mode {
    /// What a call returns that finds `value` stored.
    fn hit(py: Python<'_>, value: Object) -> Result<Object, Raised>;

    /// What a call comes to that finds nothing, when the store is of that generation.
    fn miss<K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        generation: u64,
        missed: &mut Self::Missed,
    ) -> Result<Found, Raised>;
}

/// The function is a plain one: what is cached is what it returns.
#[derive(Debug)]
pub(crate) struct Values;

/// What a call that missed is to store. The entry is made once and never moved: a move of it, soon after it was written,
/// takes a tenth of the time of a miss.
#[derive(Default)]
pub(crate) struct Missed {
    /// The key, with `None` for a value that is not there yet.
    place: Option<StoredEntry>,
    hash: u64,
    /// That of the store when the call missed.
    generation: u64,
}

impl Mode for Values {
    const TALLY: Tally = Tally::All;

    type Missed = Missed;

    #[inline(always)]
    fn find<K: CallKey>(
        this: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        missed: &mut Missed,
    ) -> Result<Found, Raised> {
        find::<Self, K>(this, py, call, key, missed)
    }

    #[inline(always)]
    fn answer(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>, key: &Lone<'_>) -> Result<Object, Raised> {
        match this.get().cache.memory.look_up(py, key, Self::TALLY, |value| value.clone_ref(py)) {
            Some(Lookup::Hit(value)) => Ok(value),
            Some(Lookup::Miss { generation }) => compute_lone(this, py, call, key, generation),
            None => answer_asking(this, py, call, key),
        }
    }

    #[inline(never)]
    fn compute(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        missed: &mut Missed,
    ) -> Result<Object, Raised> {
        let this = function.get();
        let value = call.forward(py, &this.function)?;
        if let Some(entry) = &mut missed.place {
            entry.value = value.clone_ref(py);
        }
        this.cache.keep(py, missed.hash, missed.generation, &mut missed.place, || true)?;
        Ok(value)
    }
}

impl InMemory for Values {
    #[inline(always)]
    fn hit(_: Python<'_>, value: Object) -> Result<Object, Raised> {
        Ok(value)
    }

    #[inline(never)]
    fn miss<K: CallKey>(
        _: &Py<CachedFunction>,
        py: Python<'_>,
        _: Call<'_>,
        key: &K,
        generation: u64,
        missed: &mut Missed,
    ) -> Result<Found, Raised> {
        missed.place = Some(StoredEntry { key: key.to_key(py)?, value: py.None().into() });
        (missed.hash, missed.generation) = (key.hash(), generation);
        Ok(Found::Miss)
    }
}

/// [`Mode::compute`] for a call whose only argument is its key.
#[inline(never)]
fn compute_lone(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &Lone<'_>,
    generation: u64,
) -> Result<Object, Raised> {
    let this = this.get();
    let value = call.forward(py, &this.function)?;
    let mut place = Some(StoredEntry { key: key.to_key(py)?, value: value.clone_ref(py) });
    this.cache.keep(py, key.hash(), generation, &mut place, || true)?;
    Ok(value)
}

#[cold]
#[inline(never)]
fn answer_asking(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>, key: &Lone<'_>) -> Result<Object, Raised> {
    let mut missed = Missed::default();
    let found = find_asking::<Values, _>(this, py, call, key, &mut missed)?;
    settle::<Values>(this, py, call, found, &mut missed)
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
        let mut missed = M::Missed::default();
        let found = if let Some(values) = call.unnamed(cache.in_order) {
            find_in_order::<M>(this, py, call, values, &mut missed)?
        } else {
            find_with_any::<M>(this, py, call, &mut missed)?
        };
        settle::<M>(this, py, call, found, &mut missed)
    }
}

/// Makes an answer of what a look-up came to.
#[inline(always)]
fn settle<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    found: Found,
    missed: &mut M::Missed,
) -> Result<Object, Raised> {
    match found {
        Found::Answer(value) => Ok(value),
        Found::Miss => M::compute(this, py, call, missed),
        Found::Unfit => refuse::<M>(this, py, call),
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

/// Lets the function say what is wrong with its arguments.
#[cold]
#[inline(never)]
fn refuse<M: Mode>(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
    if M::TALLY == Tally::All {
        this.get().cache.count_miss(py)?;
    }
    call.forward(py, &this.get().function)
}

#[inline(never)]
fn find_in_order<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    values: &[Arg<'_>],
    missed: &mut M::Missed,
) -> Result<Found, Raised> {
    let rules = this.get().cache.rules;
    if let Ok(values) = values.try_into() {
        return M::find(this, py, call, &Pair::new(values, rules)?, missed);
    }
    if values.is_empty() {
        // The same as below, with nothing left to compute.
        return M::find(this, py, call, &Several::unnamed(&[], rules)?, missed);
    }
    M::find(this, py, call, &Several::unnamed(values, rules)?, missed)
}

#[inline(never)]
fn find_with_any<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    missed: &mut M::Missed,
) -> Result<Found, Raised> {
    let given = call.given();
    let cache = &this.get().cache;
    if cache.parameters.as_ref().is_some_and(|parameters| parameters.stand_in_order(&given)) {
        return match *given.values {
            [value] => M::find(this, py, call, &Lone::new(value, cache.rules)?, missed),
            _ => find_in_order::<M>(this, py, call, given.values, missed),
        };
    }
    find_out_of_order::<M>(this, py, call, given, missed)
}

#[inline(never)]
fn find_out_of_order<M: Mode>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    given: Given<'_>,
    missed: &mut M::Missed,
) -> Result<Found, Raised> {
    let cache = &this.get().cache;
    match cache.with_key(given, Find::<M> { function: this, py, call, missed }) {
        Ok(found) => Ok(found),
        Err(Unfit::Raised(raised)) => Err(raised),
        Err(Unfit::Mismatch) => Ok(Found::Unfit),
    }
}

/// [`Mode::find`], in the memory of this process.
#[inline(always)]
pub(crate) fn find<M: InMemory, K: CallKey>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &K,
    missed: &mut M::Missed,
) -> Result<Found, Raised> {
    match this.get().cache.memory.look_up(py, key, M::TALLY, |value| value.clone_ref(py)) {
        Some(Lookup::Hit(value)) => M::hit(py, value).map(Found::Answer),
        Some(Lookup::Miss { generation }) => M::miss(this, py, call, key, generation, missed),
        None => find_asking::<M, K>(this, py, call, key, missed),
    }
}

#[cold]
#[inline(never)]
fn find_asking<M: InMemory, K: CallKey>(
    this: &Py<CachedFunction>,
    py: Python<'_>,
    call: Call<'_>,
    key: &K,
    missed: &mut M::Missed,
) -> Result<Found, Raised> {
    match this.get().cache.memory.look_up_asking(py, key, M::TALLY, |value| value.clone_ref(py))? {
        Lookup::Hit(value) => M::hit(py, value).map(Found::Answer),
        Lookup::Miss { generation } => M::miss(this, py, call, key, generation, missed),
    }
}

/// What a call does with its key.
struct Find<'a, 'py, M: Mode> {
    function: &'a Py<CachedFunction>,
    py: Python<'py>,
    call: Call<'a>,
    missed: &'a mut M::Missed,
}

impl<M: Mode> WithKey for Find<'_, '_, M> {
    type Output = Found;

    #[inline(always)]
    fn run<K: CallKey>(self, key: &K) -> Result<Self::Output, Raised> {
        M::find(self.function, self.py, self.call, key, self.missed)
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
        if cfg!(Py_3_12) {
            // Now, while the files of Python's library are within reach. What asks for the mark has imported `inspect` itself.
            drop(inspect_mark(function.py()));
        }
        Self::create(function, entry, cache, Some(runs.unbind()))
    }

    fn create<'py>(
        function: &Bound<'py, PyAny>,
        entry: Entry,
        cache: Cache,
        runs: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        let state = Self { entry, cache, function: function.clone().unbind().into(), runs: runs.map(Object::from) };
        let kind = cached_function_type(py)?;
        let wrapper = method::adopt(ffi::without_collection(py, || Bound::new(py, state))?, kind);
        carry_metadata(&wrapper, function)?;
        if is_long_lived(function)? {
            sync::count_lazily(&wrapper);
        }
        Ok(wrapper)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The shared backend, which `method` is for.
    fn shared(&self, method: &str) -> PyResult<&Shared> {
        self.cache.shared.as_ref().ok_or_else(|| {
            exception::<PyTypeError>(&format!(
                "{method}() is for backend=\"shared\": this cache is in the memory of this process"
            ))
        })
    }

    pub(crate) fn function(&self) -> &Py<PyAny> {
        &self.function
    }

    /// What its `__class__` says.
    fn passes_for(&self, py: Python<'_>) -> PassesFor {
        let Options { ttl, backend, .. } = self.cache.options;
        let is_plain = self.runs.is_none() && ttl.is_none() && backend == Backend::Memory;
        if is_plain && self.cache.flavour == Flavour::LruCache {
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
        self.cache.traverse(&visit)
    }

    fn __clear__(&self) {
        ffi::attached(|py| self.cache.clear_here(py));
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
    let py = this.py();
    let cache = &this.get().cache;
    if let Some(shared) = &cache.shared {
        return shared.info(py, cache.options.max_size);
    }
    let (stats, current_size) = cache.memory.info(py);
    info::cache_info(py, stats, cache.options.max_size, current_size)
}

fn cache_clear<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_clear", &given)?;
    this.get().cache.clear(this.py())?;
    Ok(this.py().None().into_bound(this.py()))
}

fn cache_unlink<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_unlink", &given)?;
    let removed = this.get().shared("cache_unlink")?.unlink(this.py())?;
    Ok(ffi::truth(this.py(), removed))
}

fn shared_stats<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("shared_stats", &given)?;
    this.get().shared("shared_stats")?.stats(this.py())
}

fn cache_parameters<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    method::nothing("cache_parameters", &given)?;
    parameters_in_force(this.py(), &this.get().cache).map_err(|raised| raised.fetch(this.py()))
}

fn parameters_in_force<'py>(py: Python<'py>, cache: &Cache) -> Result<Bound<'py, PyAny>, Raised> {
    let Options { strategy, max_size, ttl, backend, max_key_size, max_value_size, typed, single_flight: _ } =
        cache.options;
    let naming: &Naming = &cache.naming;
    let none = || Object::from(py.None());
    let truth = |truth| Object::from(ffi::truth(py, truth));
    let text = |text: &Option<String>| text.as_ref().map_or_else(|| Ok(none()), |text| ffi::new_text(py, text));
    let max_size = max_size.map_or_else(|| Ok(none()), |size| ffi::new_count(py, size as u64))?;
    let parameters = ffi::new_dict(py)?;
    let put = |name, value| ffi::put(py, &parameters, name, &value);
    match cache.flavour {
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
            put(c"single_flight", truth(cache.is_single_flight()))?;
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
    let (py, cache) = (this.py(), &this.get().cache);
    let invalidated = cache.with_key_of(py, "cache_invalidate", given, Invalidate(cache, py))?;
    Ok(ffi::truth(py, invalidated))
}

fn cache_contains<'py>(this: This<'_, 'py>, given: Given<'_>) -> Answered<'py> {
    let (py, cache) = (this.py(), &this.get().cache);
    let contained = cache.with_key_of(py, "cache_contains", given, Contains(cache, py))?;
    Ok(ffi::truth(py, contained))
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

/// Where in an instance its entry is, found on one made for the purpose.
fn entry_offset(py: Python<'_>) -> PyResult<isize> {
    let function = py.None();
    let settings = Settings { options: Options::default(), naming: Naming::default(), flavour: Flavour::LruCache };
    let cache = Cache::new(function.bind(py), settings, None)?;
    let probe = CachedFunction { entry: Entry::of::<Counting>(), cache, function: function.into(), runs: None };
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
    for name in decorator::CACHE_METHODS {
        if carried.contains(name)? {
            carried.del_item(name)?;
        }
    }
    Ok(())
}
