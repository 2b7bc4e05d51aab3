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
pub mod codec;
pub mod directory;
pub mod error;
pub mod facts;
pub mod files;
pub mod fork;
pub mod geometry;
pub mod handle;
pub mod liveness;
pub mod map;
pub mod region;
pub mod shard;

#[cfg(all(test, not(feature = "python")))]
mod faults;
#[cfg(test)]
mod mortal;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod torture;
