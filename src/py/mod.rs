//! The bridge to Python: nothing outside this folder but the module itself and the lock names it.

pub(crate) mod awaiting;
pub(crate) mod cache;
pub(crate) mod cached_function;
pub(crate) mod cached_function_type;
pub(crate) mod calls;
pub(crate) mod clock;
pub(crate) mod decorate;
pub(crate) mod decorator;
#[cfg(unix)]
pub(crate) mod encoded;
#[cfg(unix)]
pub(crate) mod encoding;
pub(crate) mod entries;
pub(crate) mod error;
pub(crate) mod ffi;
pub(crate) mod function_kind;
#[cfg(unix)]
pub(crate) mod identity;
pub(crate) mod in_memory;
pub(crate) mod info;
pub(crate) mod key;
pub(crate) mod method;
pub(crate) mod names;
pub(crate) mod parameters;
pub(crate) mod settings;
#[cfg(unix)]
pub(crate) mod shared;
pub(crate) mod signature;
#[cfg(feature = "testing")]
pub(crate) mod testing;
pub(crate) mod thread;

use pyo3::prelude::*;

/// Fills the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    ffi::check_interpreter(py)?;
    ffi::report_bugs_only();
    ffi::check_layouts(py)?;
    awaiting::stop::check_layout(py)?;
    make_now(py)?;
    decorator::register(module)?;
    module.add("Strategy", info::strategy_type(py)?)?;
    module.add("Backend", info::backend_type(py)?)?;
    module.add("CacheInfo", info::cache_info_type(py)?)?;
    module.add("SharedCacheInfo", info::shared_cache_info_type(py)?)?;
    module.add("SharedStats", info::shared_stats_type(py)?)?;
    module.add("SharedRegion", info::shared_region_type(py)?)?;
    module.add("SharedCacheWarning", py.get_type::<error::SharedCacheWarning>())?;
    module.add("CachedFunction", cached_function_type::cached_function_type(py)?)?;
    #[cfg(feature = "testing")]
    testing::register(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}

/// Makes what would else be made when it is first needed: by then, memory may have run out, or the files of Python's library be
/// out of reach.
fn make_now(py: Python<'_>) -> PyResult<()> {
    names::of(py);
    awaiting::awaitable::awaitable_type(py)?;
    awaiting::steps::steps_type(py)?;
    let _ = (
        py.get_type::<awaiting::async_flight::AsyncFlight>(),
        py.get_type::<parameters::Unhashable>(),
        py.get_type::<awaiting::pending_call::PendingCall>(),
        py.get_type::<pyo3::panic::PanicException>(),
    );
    awaiting::async_flight::prepare(py)
}
