//! A word of shared memory for the tests. A process can be told to stop before one of its stores: it goes on, and nothing that
//! it stores from there on is seen, as after SIGKILL.
//!
//! In the models, a word is loom's and has a [`Part`] in them, by which one ordering at a time is weakened. Elsewhere it is the
//! standard library's, and its part is nothing.

#![allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes none")]

use crate::backend::shared::atomic::Ordering;
#[cfg(loom)]
use crate::backend::shared::tests::weakened::{Part, Role};
#[cfg(loom)]
use loom::{sync::atomic as real, thread_local};
#[cfg(not(loom))]
use plain::Part;
use std::cell::Cell;
#[cfg(not(loom))]
use std::{sync::atomic as real, thread_local};

/// What becomes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// It has the lock and is killed before its store number so many, from 0 on: that one and all later ones are not
    /// done.
    Dies(usize),
    #[cfg(loom)]
    /// It panics there: the same, but that the lock is given back.
    Panics(usize),
}

thread_local! {
    static FATE: Cell<Fate> = Cell::new(Fate::Lives);
    static STORES: Cell<usize> = Cell::new(0);
}

/// Says what becomes of this thread, which is a process of the test.
pub(crate) fn meet(fate: Fate) {
    FATE.with(|cell| cell.set(fate));
}

/// What becomes of this thread.
pub(super) fn fate() -> Fate {
    FATE.with(Cell::get)
}

/// Whether this thread was stopped.
pub(crate) fn is_stopped() -> bool {
    let stores = STORES.with(Cell::get);
    match fate() {
        Fate::Lives => false,
        Fate::Dies(before) => stores > before,
        #[cfg(loom)]
        Fate::Panics(before) => stores > before,
    }
}

/// Runs `body` in a process that dies before its store number `stores`, from 0 on. Returns whether it has died.
#[cfg(not(loom))]
pub(crate) fn die_before(stores: usize, body: impl FnOnce()) -> bool {
    STORES.set(0);
    meet(Fate::Dies(stores));
    body();
    meet(Fate::Lives);
    STORES.get() >= stores
}

/// The standard library's, as far as it is used.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct AtomicU64 {
    word: real::AtomicU64,
    part: Part,
}

impl AtomicU64 {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: u64) -> Self {
        Self { word: real::AtomicU64::new(value), part: Part }
    }

    #[cfg(loom)]
    pub(crate) fn new(role: Role) -> Self {
        Self { word: real::AtomicU64::new(0), part: Part::new(role) }
    }

    /// Counts a store, and says whether it is seen.
    fn is_seen(&self) -> bool {
        self.part.store();
        STORES.with(|stores| stores.set(stores.get() + 1));
        !is_stopped() || self.part.outlives(fate())
    }

    #[inline]
    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.part.turn();
        self.word.load(self.part.of_load(ordering))
    }

    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        if self.is_seen() {
            self.word.store(value, self.part.of_store(ordering));
        }
    }

    pub(crate) fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        if self.is_seen() { self.word.swap(value, ordering) } else { self.unchanged() }
    }

    pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
        if self.is_seen() { self.word.fetch_add(value, ordering) } else { self.unchanged() }
    }

    pub(crate) fn fetch_xor(&self, value: u64, ordering: Ordering) -> u64 {
        if self.is_seen() { self.word.fetch_xor(value, ordering) } else { self.unchanged() }
    }

    pub(crate) fn fetch_max(&self, value: u64, ordering: Ordering) -> u64 {
        if self.is_seen() { self.word.fetch_max(value, ordering) } else { self.unchanged() }
    }

    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        if self.is_seen() { self.word.fetch_update(success, failure, update) } else { Ok(self.unchanged()) }
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if self.part.takes_the_lock(new) {
            self.part.turn();
        } else if !self.is_seen() {
            return Ok(current);
        }
        self.part.exchange(&self.word, current, new, success, failure)
    }

    /// What an operation returns that is not done.
    fn unchanged(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
}

#[cfg(not(loom))]
mod plain {
    use super::{Fate, Ordering, real};

    /// Nothing: see [`super::AtomicU64`].
    #[derive(Debug)]
    pub(super) struct Part;

    #[allow(clippy::unused_self, reason = "they are the methods of a word's part in a model")]
    impl Part {
        pub(super) fn turn(&self) {}

        pub(super) fn store(&self) {}

        pub(super) fn outlives(&self, _: Fate) -> bool {
            false
        }

        #[inline]
        pub(super) fn of_load(&self, ordering: Ordering) -> Ordering {
            ordering
        }

        #[inline]
        pub(super) fn of_store(&self, ordering: Ordering) -> Ordering {
            ordering
        }

        pub(super) fn takes_the_lock(&self, _: u64) -> bool {
            false
        }

        pub(super) fn exchange(
            &self,
            word: &real::AtomicU64,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            word.compare_exchange(current, new, success, failure)
        }
    }
}
