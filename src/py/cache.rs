//! The cache of one function: its entries, and the computations that are on the way to become some.

use super::awaiting::async_flight::{self, Flights};
use super::entries::Entries;
use super::ffi::Raised;
use super::key::CallKey;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// Entries, and the flights of a coroutine function.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) entries: Entries,
    /// The computations that run at the moment, if the function is a coroutine function.
    pub(crate) flights: Option<Flights>,
}

impl Cache {
    /// Drops the key's entry, and keeps what is being computed for it from being stored.
    pub(crate) fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        if let Some(flights) = &self.flights {
            flights.forget(py, key)?;
        }
        self.entries.invalidate(py, key)
    }

    /// Drops all entries, keeps what is being computed from being stored, and resets the statistics.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.forget_flights(py);
        self.entries.clear(py)
    }

    /// Lets go of every object: what the garbage collector asks for.
    pub(crate) fn clear_objects(&self, py: Python<'_>) {
        self.forget_flights(py);
        self.entries.clear_objects(py);
    }

    fn forget_flights(&self, py: Python<'_>) {
        if let Some(flights) = &self.flights {
            flights.forget_all(py);
        }
    }

    /// Shows the garbage collector everything that the cache holds.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(flights) = &self.flights {
            async_flight::traverse(flights, visit)?;
        }
        self.entries.traverse(visit)
    }
}
