//! A call's seat in a flight.

use crate::flight::Ticket;
use crate::flights::{self, Handle, Table};
use crate::py::awaiting::async_flight::{AsyncFlight, Landing};
use crate::py::cached_function::CachedFunction;
use crate::py::ffi::Object;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

impl Table<Object<AsyncFlight>> for Object<CachedFunction> {
    fn hide(&self, py: Python<'_>, hash: u64, flight: &Object<AsyncFlight>) {
        if let Some(flights) = &self.get().cache().flights {
            flights.remove(py, hash, flight);
        }
    }
}

/// A call's place in a flight, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    place: flights::Seat<Object<CachedFunction>, Object<AsyncFlight>>,
    awaits: Option<Awaits>,
}

/// A call made in the computation `parent` leads or waits for `flight`, until this is dropped.
#[derive(Debug)]
struct Awaits {
    parent: Object<AsyncFlight>,
    flight: Object<AsyncFlight>,
}

impl Drop for Awaits {
    fn drop(&mut self) {
        Object::<AsyncFlight>::attached(|py| self.parent.get().awaits_no_more(py, &self.flight));
    }
}

impl Seat {
    /// The place in `flight` that the ticket is for, in which the computation `parent` is part of what waits.
    pub(super) fn new(
        py: Python<'_>,
        function: &Object<CachedFunction>,
        hash: u64,
        flight: Object<AsyncFlight>,
        ticket: Ticket,
        parent: Option<Object<AsyncFlight>>,
    ) -> Self {
        let awaits = parent.map(|parent| {
            parent.get().awaits(py, &flight);
            Awaits { parent, flight: flight.clone_ref(py) }
        });
        Self { place: flights::Seat::new(function.clone_ref(py), hash, flight, ticket), awaits }
    }

    pub(super) fn flight(&self) -> &Object<AsyncFlight> {
        self.place.flight()
    }

    pub(super) fn parent(&self) -> Option<&Object<AsyncFlight>> {
        self.awaits.as_ref().map(|awaits| &awaits.parent)
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.place.ticket()
    }

    /// Ends the flight, which this caller leads.
    pub(super) fn land(self, py: Python<'_>, landing: Landing) {
        let Self { place, awaits } = self;
        place.flight().get().forget_parent(py);
        place.land(py, landing);
        drop(awaits);
    }

    /// Shows the garbage collector the objects that the seat holds.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&**self.place.table())?;
        visit.call(&**self.flight())?;
        let Some(Awaits { parent, flight }) = &self.awaits else { return Ok(()) };
        visit.call(&**parent)?;
        visit.call(&**flight)
    }
}
