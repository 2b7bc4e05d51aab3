//! The switch for what relies on the interpreter's private surface: its memory layouts, its unexported habits.
//!
//! With the feature `plain` each of these goes the long way, by documented functions alone, and does the same. So one build
//! tells whether a new version of CPython has broken one of them, and what each is worth:
//!
//! | | where |
//! | --- | --- |
//! | a dead awaitable is brought to life (`_Py_NewReference`) | `py/awaiting/spare.rs` |
//! | the `StopIteration` that ends an await is used again | `py/awaiting/stop.rs` |
//! | small ints are read and compared in place | `py/ffi/int.rs` |
//! | the first stack's addresses tell its thread | `py/thread.rs` |
//! | a `PyMutex` is taken and given back in line, without the GIL | `sync.rs` |
//! | a register tells whose object it is, without the GIL | `sync.rs` |
//! | callables count their references lazily, without the GIL | `sync.rs` |

/// Whether all of them are off.
pub(crate) const PLAIN: bool = cfg!(feature = "plain");
