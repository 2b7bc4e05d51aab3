//! Time that tests move by hand: a function that is decorated while a manual clock is entered keeps that clock.

use crate::clock::{Clock, ManualClock};
use crate::py::error::exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

static ENTERED: Mutex<Option<ManualClock>> = Mutex::new(None);

/// The clock that a test has chosen for a function that is decorated now.
pub(crate) fn chosen() -> Option<Clock> {
    ENTERED.lock().unwrap_or_else(PoisonError::into_inner).clone().map(Clock::Manual)
}

/// `with _ManualClock() as clock:` gives the functions decorated inside a time that moves only by `clock.advance(seconds)`.
#[pyclass(frozen, name = "_ManualClock", module = "warp_cache")]
pub(crate) struct PyManualClock(ManualClock);

#[pymethods]
impl PyManualClock {
    #[new]
    fn new() -> Self {
        Self(ManualClock::default())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        *ENTERED.lock().unwrap_or_else(PoisonError::into_inner) = Some(slf.0.clone());
        slf
    }

    #[pyo3(signature = (*_exception))]
    #[allow(clippy::unused_self, reason = "the protocol's")]
    fn __exit__(&self, _exception: &Bound<'_, PyAny>) {
        *ENTERED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Moves the time on.
    fn advance(&self, seconds: f64) -> PyResult<()> {
        let step =
            Duration::try_from_secs_f64(seconds).map_err(|error| exception::<PyValueError>(&error.to_string()))?;
        self.0.advance(u64::try_from(step.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }
}
