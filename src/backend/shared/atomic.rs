//! The words of shared memory. They are the standard library's; the tests have their own, where processes die: `tests/words.rs`.
//!
//! A shard has its words, fences and clock from [`shard`]. Under `cfg(loom)`, where the models run, they are loom's, and do what
//! a model asks of them: weaken one ordering, or stop as a killed process does.

#[cfg(all(test, not(loom)))]
pub(super) use super::tests::words::AtomicU64;
#[cfg(any(not(test), loom))]
pub(super) use std::sync::atomic::AtomicU64;
pub(super) use std::sync::atomic::Ordering;

/// Words, fences and the clock of a shard.
pub(super) mod shard {
    #[cfg(loom)]
    pub(in crate::backend::shared) use crate::backend::shared::tests::{
        weakened::{Instant, fence, sleep, spin_loop},
        words::AtomicU64,
    };
    #[cfg(not(loom))]
    pub(in crate::backend::shared) use {
        super::AtomicU64,
        std::{hint::spin_loop, sync::atomic::fence, thread::sleep, time::Instant},
    };
}
