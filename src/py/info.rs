//! The public types that are made by Python's own factories when the module is imported: the enums are real `IntEnum`s,
//! the infos real named tuples.

use super::ffi::{self, Arg, Object, Raised};
use crate::options::{Backend, Choice, Strategy};
use crate::stats::Stats;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict, PyList};

static CACHE_INFO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static SHARED_CACHE_INFO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static SHARED_STATS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static SHARED_REGION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static STRATEGY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static BACKEND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

const MODULE: &str = "warp_cache";

/// The first fields of both kinds of statistics.
const COUNTS: [&str; 4] = ["hits", "misses", "max_size", "current_size"];

/// `CacheInfo`: what `cache_info()` of a cache in memory returns.
pub(crate) fn cache_info_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    named_tuple(
        py,
        &CACHE_INFO,
        "CacheInfo",
        &COUNTS,
        "Statistics of a cache: hits, misses, max_size, current_size.\n\nA named tuple; maxsize and currsize are other names \
         of the last two.",
    )
}

/// `SharedCacheInfo`: the same for a cache in shared memory.
pub(crate) fn shared_cache_info_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    named_tuple(
        py,
        &SHARED_CACHE_INFO,
        "SharedCacheInfo",
        &["hits", "misses", "max_size", "current_size", "oversize_skips"],
        "Statistics of a shared cache: hits, misses, max_size, current_size, oversize_skips.\n\nA named tuple; maxsize \
         and currsize are other names of max_size and current_size.",
    )
}

/// `SharedStats`: what `shared_stats()` returns.
pub(crate) fn shared_stats_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    named_tuple(
        py,
        &SHARED_STATS,
        "SharedStats",
        &["path", "bytes", "steals", "repairs", "give_ups", "checksum_failures", "unstorable", "unstorable_reason"],
        "The state of a shared cache: path, bytes, steals, repairs, give_ups, checksum_failures, unstorable, \
         unstorable_reason.\n\nA named tuple; path is None where the values are not in a file.",
    )
}

/// `SharedRegion`: what `shared_regions()` returns a list of.
pub(crate) fn shared_region_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    named_tuple(
        py,
        &SHARED_REGION,
        "SharedRegion",
        &["name", "path", "bytes", "entries", "max_size", "hits", "misses", "processes"],
        "A shared cache on this machine: name, path, bytes, entries, max_size, hits, misses, processes.\n\nA named tuple.",
    )
}

/// `Strategy`: which entry a full cache evicts.
pub(crate) fn strategy_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    int_enum::<Strategy>(
        py,
        &STRATEGY,
        "Which entry a full cache evicts.\n\nLRU: the least recently used. MRU: the most recently used. FIFO: the one stored \
         first. LFU: the least frequently used.",
    )
}

/// `Backend`: where the entries live.
pub(crate) fn backend_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    int_enum::<Backend>(
        py,
        &BACKEND,
        "Where the entries live.\n\nMEMORY: on the heap of this process. SHARED: in a memory-mapped file, one for all \
         processes.",
    )
}

/// A new `CacheInfo`.
pub(crate) fn cache_info(
    py: Python<'_>,
    stats: Stats,
    max_size: Option<usize>,
    current_size: usize,
) -> PyResult<Bound<'_, PyAny>> {
    let counts = counts(py, stats, max_size, current_size).map_err(|raised| raised.fetch(py))?;
    of_parts(py, cache_info_type(py)?, &counts)
}

/// A new `SharedCacheInfo`.
#[cfg(unix)]
pub(crate) fn shared_cache_info(
    py: Python<'_>,
    stats: Stats,
    max_size: Option<usize>,
    current_size: usize,
    oversize_skips: u64,
) -> PyResult<Bound<'_, PyAny>> {
    let fetch = |raised: Raised| raised.fetch(py);
    let [hits, misses, max_size, current_size] = counts(py, stats, max_size, current_size).map_err(fetch)?;
    let oversize_skips = ffi::new_count(py, oversize_skips).map_err(fetch)?;
    of_parts(py, shared_cache_info_type(py)?, &[hits, misses, max_size, current_size, oversize_skips])
}

fn counts(py: Python<'_>, stats: Stats, max_size: Option<usize>, current_size: usize) -> Result<[Object; 4], Raised> {
    let max_size = max_size.map_or_else(|| Ok(py.None().into()), |size| ffi::new_count(py, size as u64))?;
    Ok([
        ffi::new_count(py, stats.hits)?,
        ffi::new_count(py, stats.misses)?,
        max_size,
        ffi::new_count(py, current_size as u64)?,
    ])
}

/// A new named tuple of these.
pub(crate) fn of_parts<'py>(
    py: Python<'py>,
    kind: &Bound<'py, PyAny>,
    parts: &[Object],
) -> PyResult<Bound<'py, PyAny>> {
    let parts: Vec<Arg<'_>> = parts.iter().map(|part| Arg::new(part)).collect();
    let made = ffi::call(py, kind.as_unbound(), &parts, None).map_err(|raised| raised.fetch(py))?;
    Ok(made.into_bound(py))
}

/// The member of a `Choice`'s enum that has this number.
pub(crate) fn member(py: Python<'_>, kind: &Bound<'_, PyAny>, number: u64) -> Result<Object, Raised> {
    let number = ffi::new_count(py, number)?;
    ffi::call(py, kind.as_unbound(), &[Arg::new(&number)], None)
}

fn named_tuple<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
    fields: &[&str],
    doc: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || {
        let is_info = fields.starts_with(&COUNTS);
        let fields = PyList::new(py, fields)?;
        let options = [("module", MODULE)].into_py_dict(py)?;
        let kind = py.import("collections")?.getattr("namedtuple")?.call((name, fields), Some(&options))?;
        if is_info {
            for (alias, field) in [("maxsize", "max_size"), ("currsize", "current_size")] {
                kind.setattr(alias, kind.getattr(field)?)?;
            }
        }
        kind.setattr("__doc__", doc)?;
        Ok(kind.unbind())
    })
    .map(|kind| kind.bind(py))
}

fn int_enum<'py, C: Choice>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    doc: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || {
        let members = PyDict::new(py);
        for (number, (name, _)) in C::ALL.iter().enumerate() {
            members.set_item(name, number)?;
        }
        let options = [("module", MODULE)].into_py_dict(py)?;
        let kind = py.import("enum")?.getattr("IntEnum")?.call((C::TYPE, members), Some(&options))?;
        kind.setattr("__doc__", doc)?;
        Ok(kind.unbind())
    })
    .map(|kind| kind.bind(py))
}
