//! One cache for all processes of a user: a memory-mapped file for each function.
//!
//! ```text
//! Location ──open()──► Directory        checked at each open: ours alone, local, no symbolic link
//!                        ├─ dir.lock     locked while a file is created or removed (flock)
//!                        ├─ *.wc         one region each: files::open ─► Map, complete from the first moment it is visible
//!                        ├─ registry     4,096 incarnations, a region too
//!                        └─ live/<slot>  locked for life by the process that is member <slot> (flock)
//! ```
//!
//! The kernel's locks decide which processes live: no process number, no time-out. Other processes write mapped bytes at any
//! moment, so that only atomic operations touch them. An [`Error`](error::Error) means: cache in this process alone.
//!
//! `system` is the kernel's side: files and processes. `shard` is one table of entries in mapped words, and `region` is the file
//! that holds several. `handle` is the region that one function uses now, and `bytes` shows it as a backend.

mod atomic;
#[cfg(not(loom))]
mod bytes;
pub(crate) mod error;
#[cfg(not(loom))]
pub(crate) mod handle;
#[cfg(not(loom))]
pub(crate) mod region;
pub(crate) mod shard;
pub(crate) mod system;

#[cfg(test)]
pub(crate) mod tests;
