//! The words of shared memory. They are the standard library's; in the tests, where processes die, they are mortal.
//!
//! A shard has its words, fences and clock from [`shard`]. Under `cfg(loom)`, where the models run, they are loom's, and do what
//! a model asks of them: weaken one ordering, or stop as a killed process does.

#[cfg(all(test, not(loom)))]
pub(super) use super::mortal::AtomicU64;
#[cfg(any(not(test), loom))]
pub(super) use std::sync::atomic::AtomicU64;
pub(super) use std::sync::atomic::Ordering;

/// What a shard is made of.
pub(super) mod shard {
    #[cfg(loom)]
    pub(in crate::backend::shared) use super::modelled::{AtomicU64, Instant, fence, sleep, spin_loop};
    #[cfg(not(loom))]
    pub(in crate::backend::shared) use {
        super::AtomicU64,
        std::{hint::spin_loop, sync::atomic::fence, thread::sleep, time::Instant},
    };
}

#[cfg(loom)]
pub(super) mod modelled {
    use super::Ordering;
    use loom::sync::atomic as real;
    use std::cell::Cell;
    use std::ops::{Add, Sub};
    use std::time::Duration;

    /// What a word is for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Role {
        Lock,
        Dirty,
        Index,
        Seq,
        /// Any other.
        Plain,
    }

    /// What is weaker than the code says. Each is one place of the code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Mutant {
        /// The release fence behind a store to such a word is left out.
        ReleaseFence(Role),
        /// The acquire fence is left out.
        AcquireFence,
        /// A load of such a word is relaxed.
        Load(Role),
        /// A store to such a word is relaxed.
        Store(Role),
        /// The lock is taken with a relaxed operation.
        Take,
        /// The lock is given back with a relaxed operation.
        Give,
        /// The lock is taken in two steps, a load and a store.
        Steps,
        /// The census does not order what the dead one did before what the asker does.
        Census,
    }

    /// What becomes of a process.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fate {
        Lives,
        /// It has the lock and is killed before its store number so many, from 0 on: that one and all later ones are not
        /// done.
        Dies(usize),
        /// It panics there: the same, but that the lock is given back.
        Panics(usize),
    }

    std::thread_local! {
        // All threads of a model run on one thread of the system.
        static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    loom::thread_local! {
        static FATE: Cell<Fate> = Cell::new(Fate::Lives);
        static STORES: Cell<usize> = Cell::new(0);
        static LAST: Cell<Role> = Cell::new(Role::Plain);
        static CLOCK: Cell<Duration> = Cell::new(Duration::ZERO);
    }

    /// Weakens whatever this thread of the system models from now on.
    pub(crate) fn mutate(mutant: Option<Mutant>) {
        MUTANT.set(mutant);
    }

    pub(crate) fn is_mutant(mutant: Mutant) -> bool {
        MUTANT.get() == Some(mutant)
    }

    /// Says what becomes of this thread of the model.
    pub(crate) fn meet(fate: Fate) {
        FATE.with(|cell| cell.set(fate));
    }

    /// Whether this thread of the model was stopped.
    pub(crate) fn is_stopped() -> bool {
        let stores = STORES.with(Cell::get);
        match FATE.with(Cell::get) {
            Fate::Lives => false,
            Fate::Dies(before) | Fate::Panics(before) => stores > before,
        }
    }

    fn weaken(ordering: Ordering, mutant: Mutant) -> Ordering {
        if is_mutant(mutant) { Ordering::Relaxed } else { ordering }
    }

    /// A word of a shard.
    #[derive(Debug)]
    pub(crate) struct AtomicU64 {
        word: real::AtomicU64,
        role: Role,
        /// Never written.
        turn: real::AtomicU64,
    }

    impl AtomicU64 {
        pub(crate) fn new(role: Role) -> Self {
            Self { word: real::AtomicU64::new(0), role, turn: real::AtomicU64::new(0) }
        }

        /// Has loom try every order of this access and those of others. It would not know of a load by one thread and a
        /// store by another if that other had loaded the word itself before the store. Nothing is ordered by this, since
        /// the exchange never succeeds.
        fn turn(&self) {
            let _ = self.turn.compare_exchange(1, 1, Ordering::Relaxed, Ordering::Relaxed);
        }

        /// Whether a store is done, which is counted.
        fn is_done(&self) -> bool {
            self.turn();
            LAST.with(|last| last.set(self.role));
            STORES.with(|stores| stores.set(stores.get() + 1));
            !is_stopped() || (self.role == Role::Lock && matches!(FATE.with(Cell::get), Fate::Panics(_)))
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u64 {
            self.turn();
            self.word.load(weaken(ordering, Mutant::Load(self.role)))
        }

        pub(crate) fn store(&self, value: u64, ordering: Ordering) {
            if self.is_done() {
                self.word.store(value, weaken(ordering, Mutant::Store(self.role)));
            }
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let is_taken = self.role == Role::Lock && new != 0;
            if !is_taken && !self.is_done() {
                return Ok(current);
            }
            if is_taken {
                self.turn();
            }
            if is_taken && is_mutant(Mutant::Steps) {
                let found = self.word.load(success);
                if found == current {
                    self.word.store(new, Ordering::Relaxed);
                }
                return if found == current { Ok(found) } else { Err(found) };
            }
            let success = match self.role {
                Role::Lock if is_taken => weaken(success, Mutant::Take),
                Role::Lock => weaken(success, Mutant::Give),
                _ => success,
            };
            self.word.compare_exchange(current, new, success, failure)
        }

        pub(crate) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            change: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            self.word.fetch_update(set, fetch, change)
        }

        pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
            if self.is_done() { self.word.fetch_add(value, ordering) } else { self.word.load(ordering) }
        }

        pub(crate) fn fetch_max(&self, value: u64, ordering: Ordering) -> u64 {
            if self.is_done() { self.word.fetch_max(value, ordering) } else { self.word.load(ordering) }
        }
    }

    /// A fence, which is known by what stands before it.
    pub(crate) fn fence(ordering: Ordering) {
        let mutant = match ordering {
            Ordering::Acquire => Mutant::AcquireFence,
            _ => Mutant::ReleaseFence(LAST.with(Cell::get)),
        };
        if !is_mutant(mutant) {
            real::fence(ordering);
        }
    }

    pub(crate) fn spin_loop() {
        loom::thread::yield_now();
    }

    pub(crate) fn sleep(_: Duration) {
        loom::thread::yield_now();
    }

    /// A time of this thread's own clock. Whenever it is looked at, two milliseconds are over.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    /// How far the clock goes on.
    pub(crate) const STEP: Duration = Duration::from_millis(2);

    impl Instant {
        pub(crate) fn now() -> Self {
            CLOCK.with(|clock| {
                clock.set(clock.get() + STEP);
                Self(clock.get())
            })
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, by: Duration) -> Self {
            Self(self.0 + by)
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }
}
