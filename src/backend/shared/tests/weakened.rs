//! What a word does in a model besides: it has loom try every order, and its orderings can be weakened. And the fences and the
//! clock of the models.

use super::words::Fate;
use crate::backend::shared::atomic::Ordering;
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

std::thread_local! {
    // All threads of a model run on one thread of the system.
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

loom::thread_local! {
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

fn weaken(ordering: Ordering, mutant: Mutant) -> Ordering {
    if is_mutant(mutant) { Ordering::Relaxed } else { ordering }
}

/// A word's part in a model.
#[derive(Debug)]
pub(super) struct Part {
    role: Role,
    /// Never written.
    turn: real::AtomicU64,
}

impl Part {
    pub(super) fn new(role: Role) -> Self {
        Self { role, turn: real::AtomicU64::new(0) }
    }

    /// Has loom try every order of this access and those of others. It would not know of a load by one thread and a
    /// store by another if that other had loaded the word itself before the store. Nothing is ordered by this, since
    /// the exchange never succeeds.
    pub(super) fn turn(&self) {
        let _ = self.turn.compare_exchange(1, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A store begins.
    pub(super) fn store(&self) {
        self.turn();
        LAST.with(|last| last.set(self.role));
    }

    /// Whether a store to the word is seen even if the process has stopped in this way.
    pub(super) fn outlives(&self, fate: Fate) -> bool {
        self.role == Role::Lock && matches!(fate, Fate::Panics(_))
    }

    pub(super) fn of_load(&self, ordering: Ordering) -> Ordering {
        weaken(ordering, Mutant::Load(self.role))
    }

    pub(super) fn of_store(&self, ordering: Ordering) -> Ordering {
        weaken(ordering, Mutant::Store(self.role))
    }

    /// Whether an exchange for this value takes the lock. Only what happens under the lock counts as a store.
    pub(super) fn takes_the_lock(&self, new: u64) -> bool {
        self.role == Role::Lock && new != 0
    }

    pub(super) fn exchange(
        &self,
        word: &real::AtomicU64,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        let is_taken = self.takes_the_lock(new);
        if is_taken && is_mutant(Mutant::Steps) {
            let found = word.load(success);
            if found == current {
                word.store(new, Ordering::Relaxed);
            }
            return if found == current { Ok(found) } else { Err(found) };
        }
        let success = match self.role {
            Role::Lock if is_taken => weaken(success, Mutant::Take),
            Role::Lock => weaken(success, Mutant::Give),
            _ => success,
        };
        word.compare_exchange(current, new, success, failure)
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
