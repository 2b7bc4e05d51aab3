//! Which entry goes when the cache is full, and which newcomer comes in.
//!
//! A policy moves slot numbers about and may remember hashes. It knows no keys, no values, no clock and no Python, so each
//! one is tested with a trace of numbers. The store calls it; it calls nobody.

mod fifo;
mod lfu;
mod list;
mod recency;

pub use fifo::Fifo;
pub use lfu::Lfu;
pub(crate) use list::List;
pub use recency::{Lru, Mru, Recency};

use crate::options::{Options, Strategy};
use std::collections::TryReserveError;

/// The number of a place in the store's slab.
///
/// Slot 0 is nobody's: the store keeps no entry there, and lists use it as both their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot that never holds an entry.
    pub const NONE: Slot = Slot(0);

    /// The slot as an index.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Lengthens a vector with a value for each slot, so that `last` has one.
pub(crate) fn grow<T: Clone>(each: &mut Vec<T>, last: Slot, value: T) -> Result<(), TryReserveError> {
    let needed = (last.index() + 1).saturating_sub(each.len());
    each.try_reserve_exact(needed)?;
    each.resize(each.len() + needed, value);
    Ok(())
}

/// An eviction algorithm over slots.
///
/// The caller keeps the membership: a slot is inserted once, may be hit while it is in, and is removed once. `victim` and
/// `admit` never change membership. `reuse` follows them, or `remove` before the newcomer is inserted, so that no policy can
/// choose the newcomer.
///
/// A policy that needs no hash leaves out [`record`](Policy::record) and [`admit`](Policy::admit), and pays nothing for
/// them. A policy that counts every request, such as W-TinyLFU, learns in `record`, remembers the hash that comes with
/// `insert`, and refuses in `admit`.
pub trait Policy {
    /// Makes room for all slots up to `last`, so that nothing else needs memory.
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError>;
    /// A call has asked for a key of this hash. Comes once for each call, before its hit or its insertion, and for a call
    /// whose key is never stored, too.
    #[inline(always)]
    fn record(&mut self, hash: u64) {
        let _ = hash;
    }
    /// Whether a newcomer of this hash may take the place of the entry in `victim`. Where the answer is no, the newcomer is
    /// not stored. Asked only where an entry must go whose time is not over.
    #[inline(always)]
    fn admit(&mut self, hash: u64, victim: Slot) -> bool {
        let _ = (hash, victim);
        true
    }
    /// An entry of this hash was stored in `slot`, for which there is room.
    fn insert(&mut self, slot: Slot, hash: u64);
    /// The entry in `slot` was returned to a caller.
    fn hit(&mut self, slot: Slot);
    /// The entry in `slot` is gone.
    fn remove(&mut self, slot: Slot);
    /// The entry in `slot` is gone, and another of this hash was stored in its place.
    #[inline]
    fn reuse(&mut self, slot: Slot, hash: u64) {
        self.remove(slot);
        self.insert(slot, hash);
    }
    /// The entry to evict next, or `None` when there is none to choose.
    fn victim(&self) -> Option<Slot>;
    /// The slot of the victim, with a newcomer of this hash in its place; `None` if there is no victim or the newcomer is
    /// refused.
    #[inline(always)]
    fn evict(&mut self, hash: u64) -> Option<Slot> {
        let victim = self.victim()?;
        if !self.admit(hash, victim) {
            return None;
        }
        self.reuse(victim, hash);
        Some(victim)
    }
    /// Every entry is gone. Gives the memory back.
    fn clear(&mut self);
}

/// One of the policies, chosen when a function is decorated.
///
/// A closed enum and not a `dyn Policy`: a hit then costs one predicted branch, and the compiler lists every place that
/// a new policy touches. A byte of its own says which: to find it out from the fields took six instructions more.
#[derive(Debug)]
#[repr(u8)]
pub enum AnyPolicy {
    /// No bound, so no order and nobody to evict.
    Unbounded,
    /// Least recently used.
    Lru(Lru),
    /// Most recently used.
    Mru(Mru),
    /// Oldest insertion.
    Fifo(Fifo),
    /// Least frequently used.
    Lfu(Lfu),
}

impl AnyPolicy {
    /// The policy for these options, with nothing in it.
    pub fn new(options: &Options) -> Self {
        if options.max_size.is_none() {
            return Self::Unbounded;
        }
        match options.strategy {
            Strategy::Lru => Self::Lru(Lru::default()),
            Strategy::Mru => Self::Mru(Mru::default()),
            Strategy::Fifo => Self::Fifo(Fifo::default()),
            Strategy::Lfu => Self::Lfu(Lfu::default()),
        }
    }
}

macro_rules! each {
    ($policy:expr, $inner:ident => $call:expr, $unbounded:expr) => {
        match $policy {
            AnyPolicy::Unbounded => $unbounded,
            AnyPolicy::Lru($inner) => $call,
            AnyPolicy::Mru($inner) => $call,
            AnyPolicy::Fifo($inner) => $call,
            AnyPolicy::Lfu($inner) => $call,
        }
    };
}

impl Policy for AnyPolicy {
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        each!(self, policy => policy.try_grow(last), Ok(()))
    }

    #[inline(always)]
    fn record(&mut self, hash: u64) {
        each!(self, policy => policy.record(hash), ());
    }

    #[inline(always)]
    fn admit(&mut self, hash: u64, victim: Slot) -> bool {
        each!(self, policy => policy.admit(hash, victim), true)
    }

    #[inline(always)]
    fn insert(&mut self, slot: Slot, hash: u64) {
        each!(self, policy => policy.insert(slot, hash), ());
    }

    #[inline(always)]
    fn hit(&mut self, slot: Slot) {
        each!(self, policy => policy.hit(slot), ());
    }

    #[inline(always)]
    fn remove(&mut self, slot: Slot) {
        each!(self, policy => policy.remove(slot), ());
    }

    #[inline(always)]
    fn reuse(&mut self, slot: Slot, hash: u64) {
        each!(self, policy => policy.reuse(slot, hash), ());
    }

    #[inline(always)]
    fn victim(&self) -> Option<Slot> {
        each!(self, policy => policy.victim(), None)
    }

    #[inline(always)]
    fn evict(&mut self, hash: u64) -> Option<Slot> {
        each!(self, policy => policy.evict(hash), None)
    }

    fn clear(&mut self) {
        each!(self, policy => policy.clear(), ());
    }
}

/// A cache of numbers for the tests of every policy, with only the policy to decide.
#[cfg(test)]
mod testing {
    use super::{Policy, Slot};

    /// Plays `trace` against a cache of `capacity` keys and returns the keys evicted, in order.
    pub(super) fn evicted(mut policy: impl Policy, capacity: usize, trace: &[u32]) -> Vec<u32> {
        policy.try_grow(slot(capacity)).expect("memory for a few slots");
        let mut slots: Vec<Option<u32>> = vec![None; capacity + 1];
        let mut evicted = Vec::new();
        for &key in trace {
            if let Some(index) = slots.iter().position(|&held| held == Some(key)) {
                policy.hit(slot(index));
                continue;
            }
            let free = (1..=capacity).find(|&index| slots[index].is_none()).unwrap_or_else(|| {
                let victim = policy.victim().expect("a full cache has a victim");
                policy.remove(victim);
                evicted.extend(slots[victim.index()]);
                victim.index()
            });
            policy.insert(slot(free), key.into());
            slots[free] = Some(key);
        }
        evicted
    }

    pub(super) fn slot(index: usize) -> Slot {
        Slot(u32::try_from(index).expect("a small index"))
    }
}
