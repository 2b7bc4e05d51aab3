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
pub mod boot;
pub mod directory;
pub mod error;
pub mod facts;
pub mod files;
pub mod fork;
pub mod geometry;
#[cfg(not(loom))]
pub mod handle;
pub mod liveness;
pub mod map;
pub mod parameters;
#[cfg(not(loom))]
pub mod region;
pub mod shard;

#[cfg(all(test, not(feature = "python"), not(loom)))]
mod faults;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod mortal;
#[cfg(test)]
#[cfg_attr(loom, allow(dead_code, reason = "what needs it is not compiled"))]
mod testing;
#[cfg(all(test, not(loom)))]
mod torture;
