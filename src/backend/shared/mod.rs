//! One cache for all processes of a user: a memory-mapped file for each function.
//!
//! ```text
//! Location ──open()──► Directory        checked at each open: ours alone, local, no symbolic link
//!                        ├─ dir.lock     who creates or removes a file (flock)
//!                        ├─ *.wc         one region each: files::open ─► Map, complete from the first moment it is visible
//!                        ├─ registry     4,096 incarnations, a region too
//!                        └─ live/<slot>  locked for life by the process that is member <slot> (flock)
//! ```
//!
//! The kernel's locks decide who lives: no process number, no time-out. What is mapped is touched by atomic operations
//! alone, since other processes write it at the same time. An [`Error`](error::Error) means: cache in this process alone.

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
