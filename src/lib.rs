//! Caching decorators for Python whose every call is native.
//!
//! ```text
//!                  f(x, k=1)                          foreign code that may run, with no lock or borrow of ours held
//!                      │
//!  py/ffi              ▼  vectorcall: the caller's own array
//!  py/signature, key   key ────────────────────────►  __hash__
//!  backend/memory      look up ────────────────────►  __eq__, where identity and built-in types do not decide
//!  store, policy       ├─ hit ──► return the value
//!  py/calls            └─ miss ─► call the function ─►  the user's function
//!  backend/memory                 keep the value
//!                                 drop what left ───►  __del__
//!                                 return the value
//! ```
//!
//! One direction: `py → backend → store → policy`. Without the feature `python` the crate is everything but `py`, and
//! its tests need no interpreter.

// Crates of their own need these: the model tests, the benchmarks and the fuzzer. They are no interface for others.
#[doc(hidden)]
pub mod backend;
#[doc(hidden)]
pub mod clock;
#[cfg(unix)]
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod expiry;
#[doc(hidden)]
pub mod flight;
#[doc(hidden)]
pub mod flights;
#[doc(hidden)]
pub mod options;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod sync;

mod index;
#[cfg(feature = "python")]
mod plain;
#[cfg(any(feature = "python", test))]
mod reserve;

#[cfg(feature = "python")]
mod py;

#[cfg(feature = "python")]
use pyo3::prelude::*;

/// Caching decorators written in Rust.
///
/// cache: cache a function's results, under any Strategy, with or without a time to live.
/// lru_cache: the same as functools.lru_cache does it, only faster.
#[cfg(feature = "python")]
#[allow(clippy::doc_markdown, reason = "help() shows this text as it stands")]
#[pymodule(gil_used = false)]
fn warp_cache(module: &Bound<'_, PyModule>) -> PyResult<()> {
    py::register(module)
}
