//! Where a coroutine runs, and how it sleeps there until somebody wakes it.
//!
//! asyncio, with whatever loop, and trio are known by what they say of the running thread; neither is imported for it. A
//! coroutine that is driven by anything else runs nowhere, and never has to sleep.

use crate::py::ffi::{self, Object};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::{intern, wrap_pyfunction};

/// A running event loop.
#[derive(Debug)]
pub(crate) struct EventLoop {
    kind: Kind,
    /// The loop of asyncio, or the token of a run of trio.
    object: Object,
}

/// Where code runs.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) event_loop: EventLoop,
    /// The address of the task, for as long as that is known to run; 0 outside of any.
    pub(crate) task: usize,
}

impl Here {
    /// The event loop and the task that run in this thread, if there is a loop.
    pub(crate) fn find(py: Python<'_>) -> Option<Self> {
        let event_loop = EventLoop::running(py)?;
        let task = match event_loop.kind {
            Kind::Asyncio => CURRENT_TASK
                .import(py, "asyncio", "current_task")
                .and_then(|current_task| current_task.call1((event_loop.object.bind(py),))),
            Kind::Trio => lowlevel(py).and_then(|lowlevel| lowlevel.call_method0(intern!(py, "current_task"))),
        };
        let task = task.ok().filter(|task| !task.is_none()).map_or(0, |task| task.as_ptr().addr());
        Some(Self { event_loop, task })
    }
}

/// `asyncio.current_task`.
static CURRENT_TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

#[derive(Clone, Copy, Debug)]
enum Kind {
    Asyncio,
    Trio,
}

impl EventLoop {
    /// The one that runs in this thread, if there is one.
    pub(crate) fn running(py: Python<'_>) -> Option<Self> {
        // Trio first: it can run as a guest in a loop of asyncio, which then is not what its tasks can wait in.
        running_trio(py).or_else(|| running_asyncio(py))
    }

    /// Its address, which no other object has while anybody holds this one.
    pub(crate) fn address(&self) -> usize {
        self.object.as_ptr().addr()
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { kind: self.kind, object: self.object.clone_ref(py) }
    }

    /// A signal to sleep for, and the iterator to drive until it comes.
    pub(crate) fn signal(&self, py: Python<'_>) -> PyResult<(Signal, Object)> {
        let (object, iterator) = match self.kind {
            Kind::Asyncio => {
                let future = self.object.bind(py).call_method0(intern!(py, "create_future"))?;
                let iterator = future.call_method0(intern!(py, "__await__"))?;
                (future, iterator)
            }
            Kind::Trio => {
                let event = py.import("trio")?.getattr(intern!(py, "Event"))?.call0()?;
                let iterator = event.call_method0(intern!(py, "wait"))?;
                (event, iterator)
            }
        };
        Ok((Signal { event_loop: self.clone_ref(py), object: object.into() }, iterator.into()))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.object)
    }
}

fn running_trio(py: Python<'_>) -> Option<EventLoop> {
    ffi::imported(py, intern!(py, "trio"))?;
    let lowlevel = lowlevel(py).ok()?;
    // The token can also be had by the host of a guest run. Only trio's own tasks have a current one.
    lowlevel.call_method0(intern!(py, "current_task")).ok()?;
    let token = lowlevel.call_method0(intern!(py, "current_trio_token")).ok()?;
    Some(EventLoop { kind: Kind::Trio, object: token.into() })
}

fn lowlevel(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("trio")?.getattr(intern!(py, "lowlevel"))
}

fn running_asyncio(py: Python<'_>) -> Option<EventLoop> {
    ffi::imported(py, intern!(py, "asyncio"))?;
    let event_loop = pyo3_async_runtimes::get_running_loop(py).ok()?;
    Some(EventLoop { kind: Kind::Asyncio, object: event_loop.into() })
}

/// The alarm of one sleeper: a future of asyncio, or an event of trio.
#[derive(Debug)]
pub(crate) struct Signal {
    event_loop: EventLoop,
    object: Object,
}

/// `wake_future`, for a loop in another thread.
static WAKE_FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

impl Signal {
    /// Wakes the sleeper. If its loop has been closed it never wakes, and nobody else is to suffer for it.
    pub(crate) fn wake(&self, py: Python<'_>, here: Option<&EventLoop>) {
        let is_here = here.is_some_and(|here| here.address() == self.event_loop.address());
        if self.try_to_wake(py, is_here).is_err() {
            // Memory that was short may be there again. Nobody else would wake the sleeper.
            drop(self.try_to_wake(py, is_here));
        }
    }

    fn try_to_wake(&self, py: Python<'_>, is_here: bool) -> PyResult<()> {
        let event_loop = self.event_loop.object.bind(py);
        let object = self.object.bind(py);
        match (self.event_loop.kind, is_here) {
            (Kind::Asyncio, true) => wake_future(object),
            (Kind::Trio, true) => object.call_method0(intern!(py, "set")).map(drop),
            (Kind::Asyncio, false) => wake_future_function(py)
                .and_then(|wake| event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (wake, object)))
                .map(drop),
            (Kind::Trio, false) => object
                .getattr(intern!(py, "set"))
                .and_then(|set| event_loop.call_method1(intern!(py, "run_sync_soon"), (set,)))
                .map(drop),
        }
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.event_loop.traverse(visit)?;
        visit.call(&*self.object)
    }
}

/// Ends a future. One that was cancelled has ended already.
#[pyfunction]
fn wake_future(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

fn wake_future_function(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let function =
        WAKE_FUTURE.get_or_try_init(py, || wrap_pyfunction!(wake_future, py).map(|f| f.into_any().unbind()))?;
    Ok(function.bind(py))
}
