//! A computation of a coroutine function while it runs: who waits for it, and what it waits for itself.
//!
//! A call that waited for a computation of which it is part would wait for ever. So the context in which a computation runs
//! carries it, and the tasks that it starts inherit it; and each flight knows the others that calls made in its context
//! lead or wait for. Before a call waits, it follows these from where it is going, and does not go where it came from.

use super::event_loop::{EventLoop, Signal};
use super::ffi::{self, ContextToken, ContextVar, Object, Raised};
use super::key::Key;
use crate::backend::memory::{Lookup, Match, Memory, Query, Tally};
use crate::flight::{Farewell, Flight, Missed, Ticket, Turn};
use crate::options::{Options, Strategy};
use crate::sync::Exclusive;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The flight in whose computation code runs.
static CURRENT: PyOnceLock<ContextVar> = PyOnceLock::new();

/// How a computation ended.
#[derive(Debug)]
pub(crate) enum Landing {
    /// The function returned this.
    Value(Object),
    /// The function raised this, with that traceback.
    Failure {
        /// The exception.
        exception: Object,
        /// Its traceback, where it had one.
        traceback: Option<Object>,
    },
}

impl Landing {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.clone_ref(py)),
            Self::Failure { exception, traceback } => Self::Failure {
                exception: exception.clone_ref(py),
                traceback: traceback.as_ref().map(|traceback| traceback.clone_ref(py)),
            },
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Value(value) => visit.call(&**value),
            Self::Failure { exception, traceback } => {
                visit.call(&**exception)?;
                traceback.as_ref().map_or(Ok(()), |traceback| visit.call(&**traceback))
            }
        }
    }
}

/// A flight as Python's garbage collector and context variables know it.
#[pyclass(frozen, name = "_Flight", module = "warp_cache")]
#[derive(Debug)]
pub(crate) struct AsyncFlight {
    flight: Exclusive<Flight<Landing, Signal>>,
    /// The cache was cleared, or the key's entry dropped, since it began: its value is not to be stored.
    is_stale: AtomicBool,
    /// The address of the task in which its leader began to compute.
    task: AtomicUsize,
    /// The flight in whose computation its leader was called.
    parent: Exclusive<Option<Object<AsyncFlight>>>,
    /// The flights that calls made in its computation lead or wait for, by their addresses, and how many calls.
    awaits: Exclusive<BTreeMap<usize, (Object<AsyncFlight>, usize)>>,
}

impl AsyncFlight {
    /// A flight whose leader has the ticket that is returned, and runs in that task and in the computation `parent`.
    pub(crate) fn begin(
        py: Python<'_>,
        task: usize,
        parent: Option<&Object<AsyncFlight>>,
    ) -> Result<(Object<AsyncFlight>, Ticket), Raised> {
        let (flight, ticket) = Flight::begin();
        let flight = Self {
            flight: Exclusive::new(flight),
            is_stale: AtomicBool::new(false),
            task: AtomicUsize::new(task),
            parent: Exclusive::new(parent.map(|parent| parent.clone_ref(py))),
            awaits: Exclusive::new(BTreeMap::new()),
        };
        Ok((Bound::new(py, flight)?.into(), ticket))
    }

    /// The flight in whose computation this code runs.
    pub(crate) fn current(py: Python<'_>) -> Result<Option<Object<AsyncFlight>>, Raised> {
        let Some(flight) = current_flight(py)?.get(py)? else { return Ok(None) };
        // Only flights are set, but the context is open to all.
        Ok(flight.bind(py).cast::<AsyncFlight>().ok().map(|flight| flight.clone().into()))
    }

    /// Says that from here on code runs in the computation `flight`.
    pub(crate) fn enter(py: Python<'_>, flight: &Object<AsyncFlight>) -> Result<Entered, Raised> {
        Ok(Entered(current_flight(py)?.set(py, flight.bind(py).as_any().as_unbound())?))
    }

    pub(crate) fn join(&self, py: Python<'_>, signal: Signal) -> Result<Ticket, Missed<Landing>> {
        let joined = self.flight.with(py, |flight| flight.join(signal, |landing| landing.clone_ref(py)));
        joined.map_err(|(signal, missed)| {
            drop(signal);
            missed
        })
    }

    pub(crate) fn turn(&self, py: Python<'_>, ticket: Ticket) -> Turn<Landing> {
        self.flight.with(py, |flight| flight.turn(ticket, |landing| landing.clone_ref(py)))
    }

    pub(crate) fn wait_again(&self, py: Python<'_>, ticket: Ticket, signal: Signal) {
        drop(self.flight.with(py, |flight| flight.wait_again(ticket, signal)));
    }

    /// Takes a caller out and wakes whoever has to take over. Returns whether nobody is left.
    pub(crate) fn leave(&self, py: Python<'_>, ticket: Ticket) -> bool {
        match self.flight.with(py, |flight| flight.leave(ticket)) {
            Farewell::Unnoticed(signal) => {
                drop(signal);
                false
            }
            Farewell::Handover(signal) => {
                signal.wake(py, EventLoop::running(py).as_ref());
                false
            }
            Farewell::Deserted => true,
        }
    }

    /// Ends the flight and wakes all waiters.
    ///
    /// A task that the computation has started may keep the flight, in its context, for as long as it runs. So what nobody
    /// needs any more does not stay.
    pub(crate) fn land(&self, py: Python<'_>, landing: Landing) {
        drop(self.parent.with(py, Option::take));
        match self.flight.with(py, |flight| flight.land(landing)) {
            Ok(signals) => {
                let here = EventLoop::running(py);
                for signal in signals {
                    signal.wake(py, here.as_ref());
                }
            }
            Err(landing) => drop(landing),
        }
    }

    /// Whether the value must not be stored.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    fn make_stale(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// From now on its leader is one that runs in that task and in the computation `parent`.
    pub(crate) fn adopt(&self, py: Python<'_>, task: usize, parent: Option<&Object<AsyncFlight>>) {
        self.task.store(task, Ordering::Relaxed);
        let parent = parent.map(|parent| parent.clone_ref(py));
        drop(self.parent.with(py, |place| std::mem::replace(place, parent)));
    }

    /// A call made in this computation leads or waits for `other` from now on.
    pub(crate) fn awaits(&self, py: Python<'_>, other: &Object<AsyncFlight>) {
        self.awaits.with(py, |awaits| {
            awaits.entry(other.as_ptr().addr()).or_insert_with(|| (other.clone_ref(py), 0)).1 += 1;
        });
    }

    /// It does so no longer.
    pub(crate) fn awaits_no_more(&self, py: Python<'_>, other: &Object<AsyncFlight>) {
        let address = other.as_ptr().addr();
        let gone = self.awaits.with(py, |awaits| {
            let (_, calls) = awaits.get_mut(&address)?;
            *calls -= 1;
            if *calls == 0 { awaits.remove(&address) } else { None }
        });
        drop(gone);
    }

    /// Whether a call made in that task and in the computation `current` must not wait for `target`, since `target` waits for a
    /// computation that the call is part of, or is one that the task steps by hand.
    pub(crate) fn would_wait_for_itself(
        py: Python<'_>,
        task: usize,
        current: Option<&Object<AsyncFlight>>,
        target: &Object<AsyncFlight>,
    ) -> bool {
        if task == 0 || task == target.get().task.load(Ordering::Relaxed) {
            return true;
        }
        let Some(current) = current else { return false };
        let mut ancestors = BTreeSet::new();
        let mut next = Some(current.clone_ref(py));
        while let Some(flight) = next {
            // An address twice would be a circle, which only a leader in its own computation could have made.
            if !ancestors.insert(flight.as_ptr().addr()) {
                break;
            }
            next = flight.get().parent.with(py, |parent| parent.as_ref().map(|parent| parent.clone_ref(py)));
        }
        let mut seen = BTreeSet::new();
        let mut ahead = vec![target.clone_ref(py)];
        while let Some(flight) = ahead.pop() {
            if ancestors.contains(&flight.as_ptr().addr()) {
                return true;
            }
            if seen.insert(flight.as_ptr().addr()) {
                flight.get().awaits.with(py, |awaits| {
                    ahead.extend(awaits.values().map(|(flight, _)| flight.clone_ref(py)));
                });
            }
        }
        false
    }
}

/// Makes the context variable.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    current_flight(py).map(drop).map_err(|raised| raised.fetch(py))
}

fn current_flight(py: Python<'_>) -> Result<&'static ContextVar, Raised> {
    Ok(CURRENT.get_or_try_init(py, || ContextVar::new(py, c"warp_cache_flight"))?)
}

/// That code runs in a computation, until this is dropped. No error may be set then.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered(ContextToken);

impl Drop for Entered {
    fn drop(&mut self) {
        ffi::attached(|py| {
            if let Ok(current) = current_flight(py) {
                current.reset(py, &self.0);
            }
        });
    }
}

#[pymethods]
impl AsyncFlight {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let flight = self.flight.peek(&visit, |flight| {
            flight.landing().map_or(Ok(()), |landing| landing.traverse(&visit))?;
            flight.signals().try_for_each(|signal| signal.traverse(&visit))
        });
        flight.unwrap_or(Ok(()))?;
        let parent = self.parent.peek(&visit, |parent| parent.as_ref().map_or(Ok(()), |parent| visit.call(&**parent)));
        parent.unwrap_or(Ok(()))?;
        let awaits =
            self.awaits.peek(&visit, |awaits| awaits.values().try_for_each(|(flight, _)| visit.call(&**flight)));
        awaits.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        ffi::attached(|py| {
            drop(self.parent.with(py, Option::take));
            drop(self.awaits.with(py, std::mem::take));
        });
    }
}

/// What a flight is found by.
#[derive(Debug)]
struct FlightKey {
    key: Key,
    /// The loop whose callers may join, if any may. Held, so that no other loop takes its address.
    home: Option<EventLoop>,
    /// The flight's own address.
    address: usize,
}

/// The flights of one function.
#[derive(Debug)]
pub(crate) struct Flights(Memory<FlightKey, Object<AsyncFlight>>);

impl Flights {
    /// None.
    pub(crate) fn new() -> Self {
        let options = Options { max_size: None, strategy: Strategy::Fifo, ..Options::default() };
        Self(Memory::new(&options, None))
    }

    /// The flight of the key that callers in `home` may join.
    pub(crate) fn find<Q: Query<Key, Error = Raised>>(
        &self,
        py: Python<'_>,
        query: &Q,
        home: &EventLoop,
    ) -> Result<Option<Object<AsyncFlight>>, Raised> {
        let query = At { query, home: Some(home.address()) };
        let read = |flight: &Object<AsyncFlight>| flight.clone_ref(py);
        let lookup = self.0.get(py, &query, Tally::Hits, read)?;
        Ok(match lookup {
            Lookup::Hit(flight) | Lookup::Stale(flight) => Some(flight),
            Lookup::Miss { .. } => None,
        })
    }

    /// Adds a flight, which callers in `home` may join.
    pub(crate) fn add(
        &self,
        py: Python<'_>,
        key: Key,
        hash: u64,
        home: Option<EventLoop>,
        flight: &Object<AsyncFlight>,
    ) {
        let key = FlightKey { key, home, address: flight.as_ptr().addr() };
        drop(self.0.add(py, hash, key, flight.clone_ref(py)));
    }

    /// Removes a flight, if it is still there.
    pub(crate) fn remove(&self, py: Python<'_>, hash: u64, flight: &Object<AsyncFlight>) {
        let Ok(removed) = self.0.take(py, &Itself { hash, address: flight.as_ptr().addr() });
        drop(removed);
    }

    /// Keeps the values of all flights of the key from being stored, and lets nobody join them any more.
    pub(crate) fn forget<Q: Query<Key, Error = Raised>>(&self, py: Python<'_>, query: &Q) -> Result<(), Raised> {
        while let Some(entry) = self.0.take(py, &At { query, home: None })? {
            entry.value.get().make_stale();
        }
        Ok(())
    }

    /// The same for all keys.
    pub(crate) fn forget_all(&self, py: Python<'_>) {
        let all = self.0.clear(py);
        for entry in all.entries() {
            entry.value.get().make_stale();
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.visit(visit, |entry| {
            entry.key.key.traverse(visit)?;
            entry.key.home.as_ref().map_or(Ok(()), |home| home.traverse(visit))?;
            visit.call(&*entry.value)
        })
    }
}

/// The flights of a key, everywhere or at the loop of that address.
struct At<'a, Q> {
    query: &'a Q,
    home: Option<usize>,
}

impl<Q: Query<Key, Error = Raised>> Query<FlightKey> for At<'_, Q> {
    type Error = Raised;

    fn hash(&self) -> u64 {
        self.query.hash()
    }

    fn compare(&self, py: Python<'_>, stored: &FlightKey) -> Match {
        if self.home.is_some() && self.home != stored.home.as_ref().map(EventLoop::address) {
            return Match::Different;
        }
        self.query.compare(py, &stored.key)
    }

    fn hold(&self, py: Python<'_>, stored: &FlightKey) -> FlightKey {
        let home = stored.home.as_ref().map(|home| home.clone_ref(py));
        FlightKey { key: stored.key.clone_ref(py), home, address: stored.address }
    }

    fn is_same(&self, one: &FlightKey, other: &FlightKey) -> bool {
        one.address == other.address
    }

    fn ask(&self, py: Python<'_>, stored: &FlightKey) -> Result<bool, Raised> {
        self.query.ask(py, &stored.key)
    }
}

/// One flight.
struct Itself {
    hash: u64,
    address: usize,
}

impl Query<FlightKey> for Itself {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn compare(&self, _: Python<'_>, stored: &FlightKey) -> Match {
        if stored.address == self.address { Match::Equal } else { Match::Different }
    }

    fn hold(&self, _: Python<'_>, _: &FlightKey) -> FlightKey {
        unreachable!("an address is never in doubt")
    }

    fn is_same(&self, one: &FlightKey, other: &FlightKey) -> bool {
        one.address == other.address
    }

    fn ask(&self, _: Python<'_>, _: &FlightKey) -> Result<bool, Infallible> {
        unreachable!("an address is never in doubt")
    }
}
