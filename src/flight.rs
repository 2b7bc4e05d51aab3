//! One computation that several callers wait for.
//!
//! Pure bookkeeping: the leader, the waiters, the end. A caller sleeps until its signal wakes it, and this module never looks
//! into a signal. Whatever leaves a flight is handed out, so that a caller can drop it, and wake it, outside of any lock.

use std::collections::BTreeMap;

/// A caller's place in a flight. Tickets are numbered as they are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A caller's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn<R> {
    /// It is over, with this read from its end.
    Take(R),
    /// Nobody else computes.
    Lead,
    /// Somebody else does.
    Wait,
}

/// The state of a flight that a caller has left before its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Farewell<S> {
    /// Others are left and notice nothing. The signal is the caller's own, if it was waiting.
    Unnoticed(Option<S>),
    /// Waiters, the first of whom leads from now on: wake it.
    Handover(S),
    /// Nobody. The flight takes no more callers.
    Deserted,
}

/// Why a flight can't be joined.
#[derive(Debug, PartialEq, Eq)]
pub enum Missed<R> {
    /// It is over, with this read from its end.
    Landed(R),
    /// Everybody has left it.
    Deserted,
}

/// A computation with one leader, which computes, and any number of waiters. `L` is its end, `S` the alarm of a waiter.
///
/// When the leader leaves, the waiter that came first takes over. Each operation takes O(log n) in the number of waiters.
#[derive(Debug)]
pub struct Flight<L, S> {
    landing: Option<L>,
    leader: Option<Ticket>,
    waiters: BTreeMap<Ticket, S>,
    next: u64,
}

impl<L, S> Flight<L, S> {
    /// A flight, and the ticket of its first leader.
    pub fn begin() -> (Self, Ticket) {
        let leader = Ticket(0);
        (Self { landing: None, leader: Some(leader), waiters: BTreeMap::new(), next: 1 }, leader)
    }

    /// Adds a waiter. If there is nothing to wait for, its signal is returned with the reason.
    pub fn join<R>(&mut self, signal: S, read: impl FnOnce(&L) -> R) -> Result<Ticket, (S, Missed<R>)> {
        if let Some(landing) = &self.landing {
            return Err((signal, Missed::Landed(read(landing))));
        }
        if self.leader.is_none() {
            return Err((signal, Missed::Deserted));
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiters.insert(ticket, signal);
        Ok(ticket)
    }

    /// The next step of the holder of `ticket`, after the signal has woken it.
    pub fn turn<R>(&self, ticket: Ticket, read: impl FnOnce(&L) -> R) -> Turn<R> {
        match &self.landing {
            Some(landing) => Turn::Take(read(landing)),
            None if self.leader == Some(ticket) => Turn::Lead,
            None => Turn::Wait,
        }
    }

    /// Gives a waiter that was woken before its turn another signal to wait for, and returns the one before.
    pub fn wait_again(&mut self, ticket: Ticket, signal: S) -> Option<S> {
        self.waiters.insert(ticket, signal)
    }

    /// Takes the holder of `ticket` out before the end.
    pub fn leave(&mut self, ticket: Ticket) -> Farewell<S> {
        if self.leader != Some(ticket) || self.landing.is_some() {
            return Farewell::Unnoticed(self.waiters.remove(&ticket));
        }
        let Some((next, signal)) = self.waiters.pop_first() else {
            self.leader = None;
            return Farewell::Deserted;
        };
        self.leader = Some(next);
        Farewell::Handover(signal)
    }

    /// Ends the flight and returns every waiter's signal, in the order in which they came: wake them. If nobody waits there is
    /// nobody to land for: the landing comes back, and the flight is deserted.
    pub fn land(&mut self, landing: L) -> Result<impl Iterator<Item = S> + use<L, S>, L> {
        self.leader = None;
        if self.waiters.is_empty() {
            return Err(landing);
        }
        self.landing = Some(landing);
        Ok(std::mem::take(&mut self.waiters).into_values())
    }

    /// Whether it is still going on.
    #[cfg(test)]
    pub fn is_pending(&self) -> bool {
        self.landing.is_none() && self.leader.is_some()
    }

    /// The end of the flight, if it has come.
    pub fn landing(&self) -> Option<&L> {
        self.landing.as_ref()
    }

    /// Every waiter's signal.
    pub fn signals(&self) -> impl Iterator<Item = &S> {
        self.waiters.values()
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Plain = Flight<&'static str, u32>;

    #[test]
    fn waiters_are_woken_in_the_order_in_which_they_came() {
        let (mut flight, _) = Plain::begin();
        for signal in 0..5 {
            flight.join(signal, |&landing| landing).expect("pending");
        }
        assert_eq!(flight.land("value").map(Iterator::collect), Ok(vec![0, 1, 2, 3, 4]));
        assert_eq!(flight.join(9, |&landing| landing), Err((9, Missed::Landed("value"))));
    }

    #[test]
    fn the_first_waiter_takes_over_from_a_leader_that_leaves() {
        let (mut flight, leader) = Plain::begin();
        let first = flight.join(1, |&landing| landing).expect("pending");
        let second = flight.join(2, |&landing| landing).expect("pending");
        assert_eq!(
            (flight.turn(leader, |&landing| landing), flight.turn(first, |&landing| landing)),
            (Turn::Lead, Turn::Wait)
        );
        assert_eq!(flight.leave(leader), Farewell::Handover(1));
        assert_eq!(
            (flight.turn(first, |&landing| landing), flight.turn(second, |&landing| landing)),
            (Turn::Lead, Turn::Wait)
        );
        assert_eq!(flight.leave(first), Farewell::Handover(2));
        assert_eq!(flight.leave(second), Farewell::Deserted);
        assert_eq!(flight.join(3, |&landing| landing), Err((3, Missed::Deserted)));
        assert!(!flight.is_pending());
    }

    #[test]
    fn a_waiter_leaves_unnoticed() {
        let (mut flight, leader) = Plain::begin();
        let waiter = flight.join(1, |&landing| landing).expect("pending");
        assert_eq!(flight.leave(waiter), Farewell::Unnoticed(Some(1)));
        assert_eq!(flight.leave(waiter), Farewell::Unnoticed(None));
        assert_eq!(flight.turn(leader, |&landing| landing), Turn::Lead);
    }

    #[test]
    fn every_waiter_takes_the_landing() {
        let (mut flight, _) = Plain::begin();
        let waiters = [1, 2].map(|signal| flight.join(signal, |&landing| landing).expect("pending"));
        assert_eq!(flight.land("value").map(Iterator::count), Ok(2));
        assert!(!flight.is_pending());
        for waiter in waiters {
            assert_eq!(flight.turn(waiter, |&landing| landing), Turn::Take("value"));
        }
    }

    #[test]
    fn a_landing_for_nobody_is_not_kept() {
        let (mut flight, _) = Plain::begin();
        assert_eq!(flight.land("value").map(Iterator::count), Err("value"));
        assert_eq!(flight.landing(), None);
        assert_eq!(flight.join(1, |&landing| landing), Err((1, Missed::Deserted)));
    }

    #[test]
    fn a_waiter_that_was_woken_too_early_waits_again() {
        let (mut flight, leader) = Plain::begin();
        let waiter = flight.join(1, |&landing| landing).expect("pending");
        assert_eq!(flight.wait_again(waiter, 2), Some(1));
        assert_eq!(flight.leave(leader), Farewell::Handover(2));
    }

    proptest! {
        /// While anybody is left in a flight that has not landed, exactly one of them leads: nobody waits for nobody.
        #[test]
        fn somebody_always_leads(acts in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60)) {
            let (mut flight, leader) = Plain::begin();
            let mut inside = vec![leader];
            for (joins, index) in acts {
                if joins {
                    match flight.join(0, |&landing| landing) {
                        Ok(ticket) => inside.push(ticket),
                        Err(missed) => prop_assert!(inside.is_empty() && missed == (0, Missed::Deserted)),
                    }
                } else if !inside.is_empty() {
                    let ticket = inside.remove(index.index(inside.len()));
                    let was_leading = flight.turn(ticket, |&landing| landing) == Turn::Lead;
                    let farewell = flight.leave(ticket);
                    prop_assert_eq!(was_leading, !matches!(farewell, Farewell::Unnoticed(_)));
                }
                let leading = inside.iter().filter(|&&ticket| flight.turn(ticket, |&landing| landing) == Turn::Lead).count();
                prop_assert_eq!(leading, usize::from(!inside.is_empty()));
                prop_assert_eq!(flight.is_pending(), !inside.is_empty());
            }
        }
    }
}
