//! The entries of one function, wherever they live: the only place that tells one backend from another.
//!
//! A call does not come here on its way to a hit: its path is made for one backend, see [`super::calls`].

#![cfg_attr(not(unix), allow(unused_variables, clippy::unnecessary_wraps, reason = "one backend needs less than two"))]

use super::error::exception;
use super::ffi::{Object, Raised};
use super::in_memory::InMemory;
use super::key::{CallKey, KeptKey, KeyRules};
#[cfg(unix)]
use super::shared::{self, Shared};
use super::{clock, info};
use crate::backend::memory::Lookup;
use crate::options::{Backend, Settings};
use pyo3::PyTraverseError;
#[cfg(not(unix))]
use pyo3::exceptions::PyRuntimeError;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// One function's entries.
#[derive(Debug)]
pub(crate) enum Entries {
    /// Objects in the memory of this process.
    Memory(InMemory),
    /// Bytes in memory that processes share.
    #[cfg(unix)]
    Shared(Shared),
}

impl Entries {
    /// No entries, or those that other processes have stored for `function`, which may be a cached one: `unwrap` looks
    /// into it. Raises `RuntimeError` where the system has no such backend.
    pub(crate) fn new(
        function: &Bound<'_, PyAny>,
        settings: &Settings,
        rules: KeyRules,
        unwrap: for<'a> fn(&Bound<'a, PyAny>) -> Option<Bound<'a, PyAny>>,
    ) -> PyResult<Self> {
        match settings.options.backend {
            Backend::Memory => Ok(Self::Memory(InMemory::new(&settings.options, rules, clock::chosen()))),
            #[cfg(unix)]
            Backend::Shared => Shared::new(function, settings, rules, unwrap).map(Self::Shared),
            #[cfg(not(unix))]
            Backend::Shared => Err(exception::<PyRuntimeError>(
                "backend=\"shared\" needs Linux or macOS; use backend=\"memory\" on this system",
            )),
        }
    }

    /// Looks up a key again that was not there before. A miss is not counted.
    pub(crate) fn look_up_again(&self, py: Python<'_>, key: &KeptKey) -> Result<Lookup<Object>, Raised> {
        match self {
            Self::Memory(memory) => memory.look_up_again(py, key),
            #[cfg(unix)]
            Self::Shared(shared) => shared.look_up_again(py, key),
        }
    }

    /// Stores what was computed after a miss at `generation`, unless it is no longer wanted. Raises what comparing or pickling
    /// raises.
    pub(crate) fn keep(
        &self,
        py: Python<'_>,
        key: &KeptKey,
        value: &Object,
        generation: u64,
        is_wanted: impl Fn() -> bool + Sync,
    ) -> Result<(), Raised> {
        match self {
            Self::Memory(memory) => memory.keep_of(py, key, value, generation, is_wanted),
            #[cfg(unix)]
            Self::Shared(shared) => shared.keep_of(py, key, value, generation, is_wanted),
        }
    }

    /// Counts a call that was answered by the value that another one computed.
    pub(crate) fn count_hit(&self, py: Python<'_>) -> Result<(), Raised> {
        match self {
            Self::Memory(memory) => {
                memory.count_hit(py);
                Ok(())
            }
            #[cfg(unix)]
            Self::Shared(shared) => shared.count_hit(py),
        }
    }

    /// Counts a miss that no look-up has counted.
    pub(crate) fn count_miss(&self, py: Python<'_>) -> Result<(), Raised> {
        match self {
            Self::Memory(memory) => {
                memory.count_miss(py);
                Ok(())
            }
            #[cfg(unix)]
            Self::Shared(shared) => shared.count_miss(py),
        }
    }

    /// Removes the key's entry, and says whether there was one.
    pub(crate) fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        match self {
            Self::Memory(memory) => memory.invalidate(py, key),
            #[cfg(unix)]
            Self::Shared(shared) => shared.invalidate(py, key),
        }
    }

    /// Whether a look-up would hit, which is neither counted nor touched.
    pub(crate) fn contains<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        match self {
            Self::Memory(memory) => memory.contains(py, key),
            #[cfg(unix)]
            Self::Shared(shared) => shared.contains(py, key),
        }
    }

    /// Removes all entries and resets the counters, for all that share them.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Memory(memory) => {
                memory.clear(py);
                Ok(())
            }
            #[cfg(unix)]
            Self::Shared(shared) => shared.clear(py),
        }
    }

    /// Removes the entries that hold objects of this process: what the garbage collector asks for.
    pub(crate) fn clear_objects(&self, py: Python<'_>) {
        match self {
            Self::Memory(memory) => memory.clear(py),
            #[cfg(unix)]
            Self::Shared(_) => {}
        }
    }

    /// `CacheInfo` or `SharedCacheInfo`.
    pub(crate) fn info<'py>(&self, py: Python<'py>, max_size: Option<usize>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Memory(memory) => {
                let (stats, current_size) = memory.info(py);
                info::cache_info(py, stats, max_size, current_size)
            }
            #[cfg(unix)]
            Self::Shared(shared) => shared.info(py, max_size),
        }
    }

    /// `SharedStats`. Raises `TypeError` for the memory backend.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Memory(_) => Err(for_shared(py, "shared_stats")),
            #[cfg(unix)]
            Self::Shared(shared) => shared.stats(py),
        }
    }

    /// Removes the file of the entries, for all processes, and says whether there was one. Raises `TypeError` for the memory
    /// backend.
    pub(crate) fn unlink(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Memory(_) => Err(for_shared(py, "cache_unlink")),
            #[cfg(unix)]
            Self::Shared(shared) => shared.unlink(py),
        }
    }

    /// Shows the garbage collector the objects of all entries.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Memory(memory) => memory.traverse(visit),
            #[cfg(unix)]
            Self::Shared(_) => Ok(()),
        }
    }
}

#[cold]
fn for_shared(_: Python<'_>, method: &str) -> PyErr {
    exception::<PyTypeError>(&format!(
        "{method}() is for backend=\"shared\": this cache is in the memory of this process"
    ))
}

/// `shared_regions`: the regions in the folder that functions decorated now would use, none where the system has no such backend.
pub(crate) fn regions(py: Python<'_>, removes_unused: bool) -> PyResult<Bound<'_, PyAny>> {
    #[cfg(unix)]
    return shared::regions(py, removes_unused);
    #[cfg(not(unix))]
    Ok(pyo3::types::PyList::empty(py).into_any())
}
