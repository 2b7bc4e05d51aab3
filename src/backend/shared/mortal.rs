//! Words for the tests: a thread can be told to die before one of its stores to them. It goes on, and nothing that it stores is
//! seen any more, as after SIGKILL.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64 as Word, Ordering};

thread_local! {
    /// How many stores are left to this thread.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `body` in a thread that dies before its store number `stores`, from 0 on. Returns whether it has died.
pub(super) fn die_before(stores: usize, body: impl FnOnce()) -> bool {
    LEFT.set(Some(stores));
    body();
    LEFT.take() == Some(0)
}

/// Whether a store is seen.
fn lives() -> bool {
    match LEFT.get() {
        None => true,
        Some(0) => false,
        Some(left) => {
            LEFT.set(Some(left - 1));
            true
        }
    }
}

/// The standard library's, as far as it is used.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicU64(Word);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(Word::new(value))
    }

    #[inline]
    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        if lives() {
            self.0.store(value, ordering);
        }
    }

    pub(crate) fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        if lives() { self.0.swap(value, ordering) } else { self.load(Ordering::Relaxed) }
    }

    pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
        if lives() { self.0.fetch_add(value, ordering) } else { self.load(Ordering::Relaxed) }
    }

    pub(crate) fn fetch_xor(&self, value: u64, ordering: Ordering) -> u64 {
        if lives() { self.0.fetch_xor(value, ordering) } else { self.load(Ordering::Relaxed) }
    }

    pub(crate) fn fetch_max(&self, value: u64, ordering: Ordering) -> u64 {
        if lives() { self.0.fetch_max(value, ordering) } else { self.load(Ordering::Relaxed) }
    }

    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        if lives() { self.0.fetch_update(success, failure, update) } else { Ok(self.load(Ordering::Relaxed)) }
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if lives() { self.0.compare_exchange(current, new, success, failure) } else { Ok(current) }
    }
}
