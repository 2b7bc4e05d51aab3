//! A computation of a coroutine function while it runs: who waits for it, and what it waits for itself.
//!
//! A call that waited for a computation of which it is part would wait for ever. So the context in which a computation runs
//! carries it, and the tasks that it starts inherit it; and each flight knows the others that calls made in its context
//! lead or wait for. Before a call waits, it follows these from where it is going, and does not go where it came from.

use crate::flight::Ticket;
use crate::flights::{self, Handle, Home, LockedFlight};
use crate::py::awaiting::event_loop::{EventLoop, Signal};
use crate::py::ffi::{self, ContextToken, ContextVar, Object, Raised};
use crate::py::key::Key;
use crate::sync::Exclusive;
use hashbrown::{HashMap, HashSet};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

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

impl flights::Landing for Landing {
    fn hold(&self, py: Python<'_>) -> Self {
        match self {
            Self::Value(value) => Self::Value(value.clone_ref(py)),
            Self::Failure { exception, traceback } => Self::Failure {
                exception: exception.clone_ref(py),
                traceback: traceback.as_ref().map(|traceback| traceback.clone_ref(py)),
            },
        }
    }
}

impl flights::Signal for Signal {
    fn wake(signals: impl Iterator<Item = Self>, py: Python<'_>) {
        let here = EventLoop::running(py);
        for signal in signals {
            signal.wake(py, here.as_ref());
        }
    }
}

impl Home for EventLoop {
    fn hold(&self, py: Python<'_>) -> Self {
        self.clone_ref(py)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Handle for Object<AsyncFlight> {
    type Landing = Landing;
    type Signal = Signal;
    type Home = EventLoop;

    fn flight(&self) -> &LockedFlight<Landing, Signal> {
        &self.get().flight
    }

    fn hold(&self, py: Python<'_>) -> Self {
        self.clone_ref(py)
    }

    /// A seat may be dropped on the way of an exception, and to wake somebody is to call Python.
    fn attached(body: impl FnOnce(Python<'_>)) {
        ffi::attached(|py| {
            let error = ffi::take_error(py);
            body(py);
            if let Some(error) = error {
                error.restore(py);
            }
        });
    }
}

impl Landing {
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
    flight: LockedFlight<Landing, Signal>,
    /// The address of the task in which its leader began to compute.
    task: AtomicUsize,
    /// The flight in whose computation its leader was called.
    parent: Exclusive<Option<Object<AsyncFlight>>>,
    /// The flights that calls made in its computation lead or wait for, by their addresses, and how many calls.
    awaits: Exclusive<HashMap<usize, (Object<AsyncFlight>, usize)>>,
}

impl AsyncFlight {
    /// A flight whose leader has the ticket that is returned, and runs in that task and in the computation `parent`.
    pub(crate) fn begin(
        py: Python<'_>,
        task: usize,
        parent: Option<&Object<AsyncFlight>>,
    ) -> Result<(Object<AsyncFlight>, Ticket), Raised> {
        let (flight, ticket) = LockedFlight::begin();
        let flight = Self {
            flight,
            task: AtomicUsize::new(task),
            parent: Exclusive::new(parent.map(|parent| parent.clone_ref(py))),
            awaits: Exclusive::new(HashMap::new()),
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

    /// Forgets the computation in which it began, when it ends.
    ///
    /// A task that the computation has started may keep the flight, in its context, for as long as it runs. So nothing stays
    /// that nobody needs any more.
    pub(crate) fn forget_parent(&self, py: Python<'_>) {
        drop(self.parent.with(py, Option::take));
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
        let mut ancestors = HashSet::new();
        let mut next = Some(current.clone_ref(py));
        while let Some(flight) = next {
            // An address twice would be a circle, which only a leader in its own computation could have made.
            if !ancestors.insert(flight.as_ptr().addr()) {
                break;
            }
            next = flight.get().parent.with(py, |parent| parent.as_ref().map(|parent| parent.clone_ref(py)));
        }
        let mut seen = HashSet::new();
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

/// The mark of a thread whose code runs in a computation, until this is dropped. No error may be set then.
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

/// The flights of one function.
pub(crate) type Flights = flights::Flights<Key, Object<AsyncFlight>>;

/// Shows the garbage collector everything that a function's flights hold.
pub(crate) fn traverse(flights: &Flights, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
    flights.visit(visit, |entry| {
        entry.key.key.traverse(visit)?;
        entry.key.home.as_ref().map_or(Ok(()), |home| home.traverse(visit))?;
        visit.call(&*entry.value)
    })
}
