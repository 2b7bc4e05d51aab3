//! The words of shared memory. They are the standard library's; in the tests, where processes die, they are mortal.

#[cfg(test)]
pub(super) use super::mortal::AtomicU64;
#[cfg(not(test))]
pub(super) use std::sync::atomic::AtomicU64;
pub(super) use std::sync::atomic::Ordering;
