//! When entries expire: a deadline for each slot, and the order in which the deadlines come.
//!
//! Where all entries live equally long, the order of storing is the order of expiry: a list, O(1) for each operation. Where
//! each entry has a time to live of its own, a binary heap of slots: O(log n) to store and to remove. The choice falls when
//! the store is made. A timer wheel would take O(1) for both, but it knows a deadline to a tick only, and the number of
//! live entries is exact here.
//!
//! An entry is fresh until its deadline. In a store with a stale window it then is stale for the length of the window, and
//! over after that. Without one it is over at its deadline.

use crate::clock::Clock;
use crate::options::Ttl;
use crate::policy::{List, Slot, grow};
use std::collections::TryReserveError;

/// The deadlines of a store's entries.
#[derive(Debug)]
pub struct Expiry {
    clock: Clock,
    /// The part of its time to live that an entry loses: twice the clock's lag, since a busy machine may miss a tick. An
    /// entry may go up to three ticks early, and is not returned late.
    slack: u64,
    /// The length of the stale window, 0 for none.
    stale: u64,
    /// The end of freshness by slot.
    deadlines: Vec<u64>,
    order: Order,
}

/// The slots that have a deadline, the earliest first.
#[derive(Debug)]
enum Order {
    /// One time to live for all: the order of storing.
    Age { ttl: u64, slots: List },
    /// A time to live for each.
    Deadline(Heap),
}

impl Expiry {
    /// Every entry lives for `ttl`. An entry's own time to live is not looked at.
    pub fn one_ttl(ttl: Ttl, clock: Clock) -> Self {
        let order = Order::Age { ttl: lifetime(ttl, slack(&clock)), slots: List::default() };
        Self::new(clock, order)
    }

    /// Every entry has a time to live of its own, or lives until it is evicted.
    pub fn ttl_each(clock: Clock) -> Self {
        Self::new(clock, Order::Deadline(Heap::default()))
    }

    /// The same with a stale window: so long after its deadline, a caller still finds the entry and learns that it is stale.
    #[must_use]
    pub fn with_stale_window(self, window: Ttl) -> Self {
        Self { stale: window.nanoseconds(), ..self }
    }

    fn new(clock: Clock, order: Order) -> Self {
        Self { slack: slack(&clock), clock, stale: 0, deadlines: vec![0], order }
    }

    /// Makes room for all slots up to `last`.
    pub(crate) fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        grow(&mut self.deadlines, last, 0)?;
        match &mut self.order {
            Order::Age { slots, .. } => slots.try_grow(last),
            Order::Deadline(heap) => heap.try_grow(last),
        }
    }

    /// An entry was stored in `slot`, for which there is room, and whose own time to live is `ttl`.
    pub(crate) fn insert(&mut self, slot: Slot, ttl: Option<Ttl>) {
        match &mut self.order {
            Order::Age { ttl, slots } => {
                self.deadlines[slot.index()] = self.clock.now().saturating_add(*ttl);
                slots.push(slot);
            }
            Order::Deadline(heap) => {
                self.deadlines[slot.index()] = match ttl {
                    Some(ttl) => self.clock.now().saturating_add(lifetime(ttl, self.slack)),
                    None => u64::MAX,
                };
                heap.insert(slot, &self.deadlines);
            }
        }
    }

    /// The value in `slot` was exchanged for one whose own time to live is `ttl`. With one time to live for all, the
    /// deadline stays: it is that of the entry.
    pub(crate) fn replace(&mut self, slot: Slot, ttl: Option<Ttl>) {
        if let Order::Deadline(_) = self.order {
            self.remove(slot);
            self.insert(slot, ttl);
        }
    }

    /// The entry in `slot` is gone.
    pub(crate) fn remove(&mut self, slot: Slot) {
        match &mut self.order {
            Order::Age { slots, .. } => slots.remove(slot),
            Order::Deadline(heap) => heap.remove(slot, &self.deadlines),
        }
    }

    /// Every entry is gone. Gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.deadlines = vec![0];
        match &mut self.order {
            Order::Age { slots, .. } => *slots = List::default(),
            Order::Deadline(heap) => *heap = Heap::default(),
        }
    }

    /// Whether the deadline of the entry in `slot` is yet to come.
    #[inline]
    pub(crate) fn is_fresh(&self, slot: Slot) -> bool {
        self.clock.now() < self.deadlines[slot.index()]
    }

    /// Whether the time of the entry in `slot` is over, its stale window included.
    #[inline]
    pub(crate) fn is_over(&self, slot: Slot) -> bool {
        self.clock.now() >= self.deadlines[slot.index()].saturating_add(self.stale)
    }

    /// The slot of the earliest deadline, if the time of its entry is over. Otherwise no entry's time is.
    #[inline]
    pub(crate) fn first_over(&self) -> Option<Slot> {
        let first = match &self.order {
            Order::Age { slots, .. } => slots.oldest(),
            Order::Deadline(heap) => heap.first(),
        };
        first.filter(|&slot| self.is_over(slot))
    }
}

fn slack(clock: &Clock) -> u64 {
    2 * clock.lag()
}

/// The time from storing to the deadline.
fn lifetime(ttl: Ttl, slack: u64) -> u64 {
    ttl.nanoseconds().saturating_sub(slack).max(1)
}

/// Slots by their deadlines, the earliest first. Slots without a deadline (`u64::MAX`) are not in it.
///
/// The deadlines themselves are the caller's: a slot's must not change while the slot is in.
#[derive(Debug)]
struct Heap {
    /// From position 1 on. No slot has an earlier deadline than the slot at half its position.
    slots: Vec<Slot>,
    /// The position of each slot; 0 for a slot that is not in the heap.
    positions: Vec<u32>,
}

impl Default for Heap {
    fn default() -> Self {
        Self { slots: vec![Slot::NONE], positions: vec![0] }
    }
}

impl Heap {
    fn try_grow(&mut self, last: Slot) -> Result<(), TryReserveError> {
        // At most as many are in it as there are slots.
        self.slots.try_reserve_exact((last.index() + 1).saturating_sub(self.slots.len()))?;
        grow(&mut self.positions, last, 0)
    }

    fn insert(&mut self, slot: Slot, deadlines: &[u64]) {
        if deadlines[slot.index()] == u64::MAX {
            return;
        }
        self.slots.push(slot);
        self.rise(self.slots.len() - 1, slot, deadlines);
    }

    fn remove(&mut self, slot: Slot, deadlines: &[u64]) {
        let position = self.position(slot);
        if position == 0 {
            return;
        }
        self.positions[slot.index()] = 0;
        // The heap is not empty: `slot` is in it.
        let last = self.slots.pop().unwrap_or(Slot::NONE);
        if last != slot {
            let position = self.rise(position, last, deadlines);
            self.sink(position, last, deadlines);
        }
    }

    #[inline]
    fn first(&self) -> Option<Slot> {
        self.slots.get(1).copied()
    }

    fn position(&self, slot: Slot) -> usize {
        self.positions[slot.index()] as usize
    }

    fn put(&mut self, position: usize, slot: Slot) {
        self.slots[position] = slot;
        // There are no more positions than slots, and slots are numbered by u32.
        self.positions[slot.index()] = u32::try_from(position).unwrap_or(0);
    }

    /// Puts `slot` at `position`, or nearer to the first as long as those there are later. Returns where it is.
    fn rise(&mut self, mut position: usize, slot: Slot, deadlines: &[u64]) -> usize {
        while position > 1 {
            let above = self.slots[position / 2];
            if deadlines[above.index()] <= deadlines[slot.index()] {
                break;
            }
            self.put(position, above);
            position /= 2;
        }
        self.put(position, slot);
        position
    }

    /// Moves `slot` from `position` away from the first as long as those there are earlier.
    fn sink(&mut self, mut position: usize, slot: Slot, deadlines: &[u64]) {
        let deadline = |slot: Slot| deadlines[slot.index()];
        while let Some(&left) = self.slots.get(2 * position) {
            let (below, earlier) = match self.slots.get(2 * position + 1) {
                Some(&right) if deadline(right) < deadline(left) => (2 * position + 1, right),
                _ => (2 * position, left),
            };
            if deadline(slot) <= deadline(earlier) {
                break;
            }
            self.put(position, earlier);
            position = below;
        }
        self.put(position, slot);
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use proptest::prelude::*;

    fn ttl(nanoseconds: u64) -> Ttl {
        #[allow(clippy::cast_precision_loss)]
        let seconds = nanoseconds as f64 * 1e-9;
        Ttl::from_seconds(seconds).expect("a time to live").expect("a finite one")
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// Store in a slot, with a time to live of its own or none.
        Insert(u32, Option<u64>),
        Replace(u32, Option<u64>),
        Remove(u32),
        Advance(u64),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        let own = || prop::option::weighted(0.8, 1..50_u64);
        prop_oneof![
            6 => (1..20_u32, own()).prop_map(|(slot, ttl)| Op::Insert(slot, ttl)),
            1 => (1..20_u32, own()).prop_map(|(slot, ttl)| Op::Replace(slot, ttl)),
            3 => (1..20_u32).prop_map(Op::Remove),
            3 => (0..20_u64).prop_map(Op::Advance),
            1 => (0..20_u32).prop_map(|dice| if dice == 0 { Op::Clear } else { Op::Advance(0) }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Both orders against a table of deadlines that is searched from end to end.
        #[test]
        fn the_first_to_expire_is_the_one_of_the_earliest_deadline(
            one in prop::option::of(1..50_u64),
            window in prop::option::of(1..30_u64),
            ops in prop::collection::vec(op(), 0..200),
        ) {
            let clock = ManualClock::default();
            let mut expiry = match one {
                Some(one) => Expiry::one_ttl(ttl(one), Clock::Manual(clock.clone())),
                None => Expiry::ttl_each(Clock::Manual(clock.clone())),
            };
            if let Some(window) = window {
                expiry = expiry.with_stale_window(ttl(window));
            }
            expiry.try_grow(Slot(19)).expect("memory for a few slots");
            let window = window.unwrap_or(0);
            let deadline = |own: Option<u64>| one.or(own).map_or(u64::MAX, |ttl| clock.now() + ttl);
            let mut model: [Option<u64>; 20] = [None; 20];
            for op in ops {
                match op {
                    Op::Insert(slot, own) if model[slot as usize].is_none() => {
                        expiry.insert(Slot(slot), own.map(ttl));
                        model[slot as usize] = Some(deadline(own));
                    }
                    Op::Replace(slot, own) if model[slot as usize].is_some() => {
                        expiry.replace(Slot(slot), own.map(ttl));
                        if one.is_none() {
                            model[slot as usize] = Some(deadline(own));
                        }
                    }
                    Op::Remove(slot) if model[slot as usize].is_some() => {
                        expiry.remove(Slot(slot));
                        model[slot as usize] = None;
                    }
                    Op::Insert(..) | Op::Replace(..) | Op::Remove(_) => {}
                    Op::Advance(nanoseconds) => clock.advance(nanoseconds),
                    Op::Clear => {
                        expiry.clear();
                        expiry.try_grow(Slot(19)).expect("memory for a few slots");
                        model = [None; 20];
                    }
                }
                for (slot, deadline) in (0..).zip(model) {
                    let Some(deadline) = deadline else { continue };
                    prop_assert_eq!(expiry.is_fresh(Slot(slot)), clock.now() < deadline);
                    prop_assert_eq!(expiry.is_over(Slot(slot)), clock.now() >= deadline.saturating_add(window));
                }
                let earliest = model.iter().flatten().min().copied();
                let expected = earliest.filter(|deadline| clock.now() >= deadline.saturating_add(window));
                let first = expiry.first_over();
                prop_assert_eq!(first.and_then(|slot| model[slot.index()]), expected);
            }
        }
    }

    #[test]
    fn a_coarse_clock_shortens_the_time_to_live_and_never_to_nothing() {
        assert_eq!(lifetime(ttl(100), 30), 70);
        assert_eq!(lifetime(ttl(100), 200), 1);
    }
}
