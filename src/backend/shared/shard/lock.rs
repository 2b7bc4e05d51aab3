//! The lock of a shard: a word that names its owner, taken from a dead one, waited for no longer than the caller says.
//!
//! No two processes are under it at a time, as long as the census is right about who is dead. Where it is not, the
//! sequence numbers and the checksums still keep a reader from a wrong value.

use super::{Census, Event, GaveUp, Shard, control};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::{Instant, fence, sleep, spin_loop};
use crate::backend::shared::system::liveness::Owner;
use std::sync::{MutexGuard, TryLockError};
use std::time::Duration;

/// For how long an owner is believed to be at work before it is asked whether it lives.
const PATIENCE: Duration = Duration::from_millis(1);

/// A shard that this process holds.
pub(crate) struct Locked<'a, 's> {
    shard: &'s Shard<'a>,
    owner: Owner,
    _local: MutexGuard<'a, ()>,
}

impl Drop for Locked<'_, '_> {
    fn drop(&mut self) {
        // Another word means that the lock was stolen: another process took this one for dead.
        let lock = self.shard.control(control::LOCK);
        let _ = lock.compare_exchange(self.owner.word(), 0, Ordering::Release, Ordering::Relaxed);
    }
}

impl<'a> Shard<'a> {
    /// Takes the lock, and repairs the shard if its last owner could not. A `patience` of zero tries once, and giving up then
    /// is no event.
    pub(crate) fn lock<'s>(&'s self, census: &impl Census, patience: Duration) -> Result<Locked<'a, 's>, GaveUp> {
        let owner = census.me();
        if owner == Owner::NOBODY {
            return Err(GaveUp);
        }
        let lock = self.control(control::LOCK);
        let attempt = || lock.compare_exchange(0, owner.word(), Ordering::Acquire, Ordering::Relaxed);
        let (local, was_stolen) = if let Ok(local) = self.local.mutex().try_lock()
            && attempt().is_ok()
        {
            (local, false)
        } else if patience.is_zero() {
            return Err(GaveUp);
        } else {
            self.wait_for_lock(census, owner, patience).inspect_err(|GaveUp| self.note(Event::GiveUp))?
        };
        let held = Locked { shard: self, owner, _local: local };
        if was_stolen {
            self.note(Event::Steal);
        }
        if was_stolen || self.control(control::DIRTY).load(Ordering::Relaxed) != 0 {
            self.note(Event::Repair);
            held.change(|| self.rebuild());
            if let Some(total) = &self.total {
                total.mark();
            }
        }
        Ok(held)
    }

    #[cold]
    #[inline(never)]
    fn wait_for_lock(
        &self,
        census: &impl Census,
        owner: Owner,
        patience: Duration,
    ) -> Result<(MutexGuard<'a, ()>, bool), GaveUp> {
        let deadline = Instant::now() + patience;
        let local = self.lock_local(deadline)?;
        let lock = self.control(control::LOCK);
        let mut pause = Pause::default();
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let free = lock.compare_exchange(0, owner.word(), Ordering::Acquire, Ordering::Relaxed);
            let Err(holder) = free else { return Ok((local, false)) };
            let now = Instant::now();
            match seen {
                Some((word, since)) if word == holder => {
                    let is_dead = now - since > PATIENCE && !census.is_alive(Owner::from_word(holder));
                    // The exchange is for the very word that the census called dead: a living owner's lock is never stolen,
                    // and a dead one's only once.
                    if is_dead
                        && lock.compare_exchange(holder, owner.word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
                    {
                        return Ok((local, true));
                    }
                }
                _ => seen = Some((holder, now)),
            }
            if now > deadline {
                return Err(GaveUp);
            }
            pause.wait();
        }
    }

    fn lock_local(&self, deadline: Instant) -> Result<MutexGuard<'a, ()>, GaveUp> {
        let mut pause = Pause::default();
        loop {
            match self.local.mutex().try_lock() {
                Ok(guard) => return Ok(guard),
                // A panic under the mutex leaves the dirty mark in shared memory, and the repair follows from that.
                Err(TryLockError::Poisoned(guard)) => return Ok(guard.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Err(GaveUp),
                Err(TryLockError::WouldBlock) => pause.wait(),
            }
        }
    }
}

impl Locked<'_, '_> {
    /// Changes the shard, with the dirty mark set meanwhile. The next owner of the lock that finds the mark repairs.
    pub(super) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let dirty = self.shard.control(control::DIRTY);
        dirty.store(self.owner.word(), Ordering::Relaxed);
        fence(Ordering::Release);
        let result = change();
        dirty.store(0, Ordering::Release);
        result
    }
}

/// Waits a little longer each time.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    /// For so many times, it only spins.
    const SPINS: u32 = 200;
    const SHORTEST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_micros(500);

    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 <= Self::SPINS {
            spin_loop();
        } else {
            let doublings = (self.0 - Self::SPINS - 1).min(8);
            sleep((Self::SHORTEST * (1 << doublings)).min(Self::LONGEST));
        }
    }
}
