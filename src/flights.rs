//! The flights of one function by their keys, and a caller's seat in one, for callers that sleep in any way.
//!
//! ```text
//!               ┌─ none ──► list one of its own ──► Seat that leads ──► compute ──► land
//! key ─► Flights│                                          ▲
//!               └─ one ───► join it ──► Seat that waits ───┤ the leader has left
//!                                                          └──────────────────────► take the landing
//! ```
//!
//! A [`Seat`] leaves its flight when it is dropped, by whichever end of its call: so no waiter waits for a caller that is gone.
//! A caller sleeps until its [`Signal`] wakes it: a future of an event loop, or a parked thread. Signals are woken, and handles
//! dropped, when no section is entered.

use crate::backend::memory::{Lookup, Match, Memory, Query, Tally};
use crate::flight::{Farewell, Flight, Missed, Ticket, Turn};
use crate::options::{Options, Strategy};
use crate::store::Entry;
use crate::sync::{Exclusive, Token};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

/// The end of a computation, for all its waiters.
pub trait Landing: Sized {
    /// Another handle on the same. Called inside a section.
    #[must_use]
    fn hold(&self, token: Token<'_>) -> Self;
}

/// The alarm of one sleeper.
pub trait Signal: Sized {
    /// Wakes the sleepers, none of whom may be left asleep because of another. Called outside any section.
    fn wake(signals: impl Iterator<Item = Self>, token: Token<'_>);
}

/// A place whose callers may wait for each other: an event loop, or the whole process.
pub trait Home: Sized {
    /// Another handle on the same. Called inside a section.
    #[must_use]
    fn hold(&self, token: Token<'_>) -> Self;
    /// Whether callers in one may join a flight of the other.
    fn is_same(&self, other: &Self) -> bool;
}

/// Threads may wait for each other wherever they are.
impl Home for () {
    fn hold(&self, _: Token<'_>) -> Self {}

    fn is_same(&self, (): &Self) -> bool {
        true
    }
}

/// A flight as its callers hold it.
pub trait Handle: Sized {
    /// Its end.
    type Landing: Landing;
    /// The alarm of each of its waiters.
    type Signal: Signal;
    /// The place of its callers.
    type Home: Home;

    /// The flight.
    fn flight(&self) -> &LockedFlight<Self::Landing, Self::Signal>;
    /// Another handle on it. Called inside a section.
    #[must_use]
    fn hold(&self, token: Token<'_>) -> Self;
    /// Runs `body` where a seat is dropped, maybe on the way of an exception, which must survive it.
    fn attached(body: impl FnOnce(Token<'_>));

    /// A number that no other flight has while this one is held.
    fn address(&self) -> usize {
        std::ptr::from_ref(self.flight()).addr()
    }
}

/// A flight that callers on several threads touch.
#[derive(Debug)]
pub struct LockedFlight<L, S> {
    flight: Exclusive<Flight<L, S>>,
    /// The cache was cleared, or the key's entry dropped, since it began: its value is not to be stored.
    is_stale: AtomicBool,
}

impl<L: Landing, S: Signal> LockedFlight<L, S> {
    /// A flight, and the ticket of its first leader.
    pub fn begin() -> (Self, Ticket) {
        let (flight, ticket) = Flight::begin();
        (Self { flight: Exclusive::new(flight), is_stale: AtomicBool::new(false) }, ticket)
    }

    /// Adds a waiter, whom `signal` wakes.
    pub fn join(&self, token: Token<'_>, signal: S) -> Result<Ticket, Missed<L>> {
        let joined = self.flight.with(token, |flight| flight.join(signal, |landing| landing.hold(token)));
        joined.map_err(|(signal, missed)| {
            drop(signal);
            missed
        })
    }

    /// The next step of the holder of `ticket`, after its signal has woken it.
    pub fn turn(&self, token: Token<'_>, ticket: Ticket) -> Turn<L> {
        self.flight.with(token, |flight| flight.turn(ticket, |landing| landing.hold(token)))
    }

    /// Gives a waiter that was woken before its turn another signal to wait for. False if its turn has come meanwhile: then
    /// nobody would wake it again.
    pub fn wait_again(&self, token: Token<'_>, ticket: Ticket, signal: S) -> bool {
        let (waits, signal) = self.flight.with(token, |flight| match flight.turn(ticket, |_| ()) {
            Turn::Wait => (true, flight.wait_again(ticket, signal)),
            Turn::Take(()) | Turn::Lead => (false, Some(signal)),
        });
        drop(signal);
        waits
    }

    /// Takes a caller out and wakes the waiter that has to take over, if any. Returns whether nobody is left.
    pub fn leave(&self, token: Token<'_>, ticket: Ticket) -> bool {
        match self.flight.with(token, |flight| flight.leave(ticket)) {
            Farewell::Unnoticed(signal) => {
                drop(signal);
                false
            }
            Farewell::Handover(signal) => {
                S::wake(std::iter::once(signal), token);
                false
            }
            Farewell::Deserted => true,
        }
    }

    /// Ends the flight and wakes all waiters.
    pub fn land(&self, token: Token<'_>, landing: L) {
        match self.flight.with(token, |flight| flight.land(landing)) {
            Ok(signals) => S::wake(signals, token),
            Err(landing) => drop(landing),
        }
    }

    /// Whether the value must not be stored.
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    /// Keeps the value from being stored.
    pub fn make_stale(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// Lends the flight to a garbage collection, or nothing while it is lent already.
    #[cfg(feature = "python")]
    pub fn peek<R>(&self, collection: &pyo3::PyVisit<'_>, body: impl FnOnce(&Flight<L, S>) -> R) -> Option<R> {
        self.flight.peek(collection, body)
    }
}

/// The key and the home by which a search finds a flight.
#[derive(Debug)]
pub struct Listed<K, H> {
    /// The key that is computed.
    pub key: K,
    /// The home of the callers that may join, if any may. Held, so that no other home takes its address.
    pub home: Option<H>,
    address: usize,
}

/// The flights of one function.
#[derive(Debug)]
pub struct Flights<K, F: Handle>(Memory<Listed<K, F::Home>, F>);

impl<K, F: Handle> Default for Flights<K, F> {
    fn default() -> Self {
        let options = Options { max_size: None, strategy: Strategy::Fifo, ..Options::default() };
        Self(Memory::new(&options, None))
    }
}

impl<K, F: Handle> Flights<K, F> {
    /// The flight of the key that callers in `home` may join.
    pub fn find<Q: Query<K>>(&self, token: Token<'_>, query: &Q, home: &F::Home) -> Result<Option<F>, Q::Error> {
        let query = At { query, home: Some(home) };
        let read = |flight: &F| flight.hold(token);
        let lookup = self.0.get(token, &query, Tally::Hits, read)?;
        Ok(match lookup {
            Lookup::Hit(flight) | Lookup::Stale(flight) => Some(flight),
            Lookup::Miss { .. } => None,
        })
    }

    /// Adds a flight, which callers in `home` may join, if any may.
    pub fn add(&self, token: Token<'_>, key: K, hash: u64, home: Option<F::Home>, flight: &F) {
        let listed = Listed { key, home, address: flight.address() };
        drop(self.0.add(token, hash, listed, flight.hold(token)));
    }

    /// The flight of the key that callers in `home` may join; if there is none, `flight` is added. Of threads that come at the
    /// same time, one is told of none.
    pub fn find_or_add<Q: Query<K>>(
        &self,
        token: Token<'_>,
        query: &Q,
        key: K,
        home: &F::Home,
        flight: &F,
    ) -> Result<Option<F>, Q::Error> {
        let listed = Listed { key, home: Some(home.hold(token)), address: flight.address() };
        let newcomer = Entry { key: listed, value: flight.hold(token) };
        let query = At { query, home: Some(home) };
        let (found, left) = self.0.find_or_add(token, &query, newcomer, |flight| flight.hold(token))?;
        drop(left);
        Ok(found)
    }

    /// Removes a flight, if it is still there.
    pub fn remove(&self, token: Token<'_>, hash: u64, flight: &F) {
        let Ok(removed) = self.0.take(token, &Itself { hash, address: flight.address() });
        drop(removed);
    }

    /// Keeps the values of all flights of the key from being stored, and lets nobody join them any more.
    pub fn forget<Q: Query<K>>(&self, token: Token<'_>, query: &Q) -> Result<(), Q::Error> {
        while let Some(entry) = self.0.take(token, &At { query, home: None })? {
            entry.value.flight().make_stale();
        }
        Ok(())
    }

    /// The same for all keys.
    pub fn forget_all(&self, token: Token<'_>) {
        let all = self.0.clear(token);
        for entry in all.entries() {
            entry.value.flight().make_stale();
        }
    }

    /// Lends every flight to a garbage collection.
    #[cfg(feature = "python")]
    pub fn visit<E>(
        &self,
        collection: &pyo3::PyVisit<'_>,
        visit: impl FnMut(&Entry<Listed<K, F::Home>, F>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.visit(collection, visit)
    }
}

/// The flights of a key, everywhere or at one home.
struct At<'a, Q, H> {
    query: &'a Q,
    home: Option<&'a H>,
}

impl<K, H: Home, Q: Query<K>> Query<Listed<K, H>> for At<'_, Q, H> {
    type Error = Q::Error;

    fn hash(&self) -> u64 {
        self.query.hash()
    }

    fn compare(&self, token: Token<'_>, stored: &Listed<K, H>) -> Match {
        if self.home.is_some_and(|home| !stored.home.as_ref().is_some_and(|other| home.is_same(other))) {
            return Match::Different;
        }
        self.query.compare(token, &stored.key)
    }

    fn hold(&self, token: Token<'_>, stored: &Listed<K, H>) -> Listed<K, H> {
        let home = stored.home.as_ref().map(|home| home.hold(token));
        Listed { key: self.query.hold(token, &stored.key), home, address: stored.address }
    }

    fn is_same(&self, one: &Listed<K, H>, other: &Listed<K, H>) -> bool {
        one.address == other.address
    }

    fn ask(&self, token: Token<'_>, stored: &Listed<K, H>) -> Result<bool, Q::Error> {
        self.query.ask(token, &stored.key)
    }
}

/// One flight.
struct Itself {
    hash: u64,
    address: usize,
}

impl<K, H> Query<Listed<K, H>> for Itself {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn compare(&self, _: Token<'_>, stored: &Listed<K, H>) -> Match {
        if stored.address == self.address { Match::Equal } else { Match::Different }
    }

    fn hold(&self, _: Token<'_>, _: &Listed<K, H>) -> Listed<K, H> {
        unreachable!("an address is never in doubt")
    }

    fn is_same(&self, one: &Listed<K, H>, other: &Listed<K, H>) -> bool {
        one.address == other.address
    }

    fn ask(&self, _: Token<'_>, _: &Listed<K, H>) -> Result<bool, Infallible> {
        unreachable!("an address is never in doubt")
    }
}

/// The table that lists a seat's flight.
pub trait Table<F> {
    /// Lets nobody join the flight any more.
    fn hide(&self, token: Token<'_>, hash: u64, flight: &F);
}

impl<K, F: Handle> Table<F> for &Flights<K, F> {
    fn hide(&self, token: Token<'_>, hash: u64, flight: &F) {
        self.remove(token, hash, flight);
    }
}

/// A caller's place in a flight, which it leaves when this is dropped. If the caller led, the waiter that came first leads from
/// then on and is woken; if nobody waits, nobody finds the flight any more.
#[derive(Debug)]
#[must_use = "dropped, it leaves its flight"]
pub struct Seat<T: Table<F>, F: Handle> {
    table: T,
    /// The key's hash as a query.
    hash: u64,
    flight: F,
    ticket: Ticket,
}

impl<T: Table<F>, F: Handle> Seat<T, F> {
    /// The place in `flight` that the ticket is for.
    pub fn new(table: T, hash: u64, flight: F, ticket: Ticket) -> Self {
        Self { table, hash, flight, ticket }
    }

    /// The flight.
    pub fn flight(&self) -> &F {
        &self.flight
    }

    /// The table that lists the flight.
    pub fn table(&self) -> &T {
        &self.table
    }

    /// The ticket for the place.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The caller's next step, after its signal has woken it.
    pub fn turn(&self, token: Token<'_>) -> Turn<F::Landing> {
        self.flight.flight().turn(token, self.ticket)
    }

    /// Another signal to wait for, for a caller that was woken before its turn. False if its turn has come.
    pub fn wait_again(&self, token: Token<'_>, signal: F::Signal) -> bool {
        self.flight.flight().wait_again(token, self.ticket, signal)
    }

    /// Ends the flight of a caller that leads, for all waiters. The caller stores the value before, so that another caller that
    /// no longer finds the flight finds the value.
    pub fn land(self, token: Token<'_>, landing: F::Landing) {
        self.table.hide(token, self.hash, &self.flight);
        self.flight.flight().land(token, landing);
    }
}

impl<T: Table<F>, F: Handle> Drop for Seat<T, F> {
    fn drop(&mut self) {
        F::attached(|token| {
            if self.flight.flight().leave(token, self.ticket) {
                self.table.hide(token, self.hash, &self.flight);
            }
        });
    }
}

#[cfg(all(test, not(feature = "python")))]
mod tests;
