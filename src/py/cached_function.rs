//! The native callable that stands in for a decorated function: its state.

use super::cache::Cache;
use super::entries::Entries;
use super::ffi::{self, Call, Entrance, Entry, Object, Raised};
use super::signature::Signature;
use super::thread;
use crate::options::{Flavour, Naming, Options, Settings};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// The state of a cached function. Its type in use is derived from this one: see [`super::cached_function_type`].
#[pyclass(frozen, immutable_type, subclass, dict, weakref, name = "_CachedFunction", module = "warp_cache")]
#[repr(C)]
#[derive(Debug)]
pub(crate) struct CachedFunction {
    /// Read by the interpreter, at the offset that the derived type declares.
    entry: Entry,
    cache: Cache,
    signature: Signature,
    settings: Settings,
    /// The user's function. It is not cleared by a garbage collection: a cycle through it has another link that was
    /// made later, and that one is cleared.
    function: Object,
    /// For a coroutine function, the function that runs in the end: what `inspect` on older Pythons looks at.
    runs: Option<Object>,
}

impl CachedFunction {
    /// The state of a callable in front of `function`, whose calls are answered by `entry`. For a coroutine function,
    /// `runs` is the function that runs in the end.
    pub(crate) fn new(
        entry: Entry,
        cache: Cache,
        signature: Signature,
        settings: Settings,
        function: Bound<'_, PyAny>,
        runs: Option<Bound<'_, PyAny>>,
    ) -> Self {
        let runs = runs.map(|runs| runs.unbind().into());
        Self { entry, cache, signature, settings, function: function.unbind().into(), runs }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether calls that miss the same key wait for one computation.
    pub(crate) fn is_single_flight(&self) -> bool {
        self.settings.options.single_flight.unwrap_or(self.cache.flights.is_some())
    }

    pub(crate) fn function(&self) -> &Py<PyAny> {
        &self.function
    }

    /// For a coroutine function, the function that runs in the end.
    pub(crate) fn runs<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.runs.as_ref().map(|runs| runs.bind(py).clone())
    }
}

/// The function behind a cached one, if the object is one.
pub(crate) fn function_of<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let cached = object.cast::<CachedFunction>().ok()?;
    Some(cached.get().function().bind(object.py()).clone())
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

/// Of an instance that nobody calls.
struct Uncalled;

impl Entrance for Uncalled {
    type Class = CachedFunction;

    fn call(_: &Py<CachedFunction>, _: Python<'_>, _: Call<'_>) -> Result<Object, Raised> {
        unreachable!("the instance is gone before Python sees it")
    }
}

/// Where in an instance its entry is, found on one made for the purpose.
pub(crate) fn entry_offset(py: Python<'_>) -> PyResult<isize> {
    let function = py.None().into_bound(py);
    let settings = Settings { options: Options::default(), naming: Naming::default(), flavour: Flavour::LruCache };
    let signature = Signature::of(&function, &settings)?;
    let cache = Cache { entries: Entries::new(&function, &settings, signature.rules, function_of)?, flights: None };
    let probe = CachedFunction::new(Entry::of::<Uncalled>(), cache, signature, settings, function, None);
    let probe = ffi::without_collection(py, || Bound::new(py, probe))?;
    let state = std::ptr::from_ref(probe.get()).addr() + std::mem::offset_of!(CachedFunction, entry);
    Ok((state - probe.as_ptr().addr()).cast_signed())
}
