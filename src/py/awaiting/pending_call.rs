//! A call of a cached coroutine function that missed, from then until it has its value.
//!
//! ```text
//!             first step                                      the function returns, raises
//!   Fresh ──► looks again ──► nobody computes it ──► Running ─────────────────────────────► over
//!                 │ hit                                 ▲                                     ▲
//!                 ├───────────────────────────────────────────────────────────────────────────┤
//!                 │ somebody does                       │ the one who did has left            │
//!                 └─────────────────────► Waiting ──────┴─────────────────────────────────────┘
//!                                                         it has ended
//! ```
//!
//! The function's coroutine is made when the function is called, so that wrong arguments raise there and a coroutine that is
//! never awaited says so itself. Whoever finds the value, or has to wait, closes it unrun. Who takes over makes another.

mod part;
mod seat;

use crate::py::awaiting::arguments::Arguments;
use crate::py::awaiting::async_flight::{AsyncFlight, Entered};
use crate::py::awaiting::driven::{attribute_of_finished, close, close_quietly, is_suspended, throw_into};
use crate::py::cached_function::CachedFunction;
use crate::py::error::exception;
use crate::py::ffi::{self, Arg, Object, Raised, Sent};
use crate::py::key::{KeptKey, Stored};
use crate::sync::Exclusive;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use seat::Seat;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The result of a step.
#[derive(Debug)]
pub(crate) enum Step {
    /// The call is suspended, and whoever drives it gets this.
    Yield(Object),
    /// The call is over, with this value.
    Return(Object),
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Fresh,
    Begun,
    Done,
}

#[derive(Debug)]
enum Stage {
    /// Not stepped yet.
    Fresh,
    /// Waits for another call that computes, or for its turn to do so.
    Waiting(Seat),
    /// Computes.
    Running(Seat),
}

#[derive(Debug)]
struct State {
    /// The coroutine that the function returned, as long as it may run.
    coroutine: Option<Object>,
    /// The iterator that is driven: the coroutine's, or the signal's.
    iterator: Option<Object>,
    stage: Stage,
    /// The store's generation when the key was last looked for.
    generation: u64,
}

/// A call that missed.
#[pyclass(frozen, name = "_PendingCall", module = "warp_cache")]
#[derive(Debug)]
pub(crate) struct PendingCall {
    function: Object<CachedFunction>,
    arguments: Arguments,
    key: KeptKey,
    is_executing: AtomicBool,
    /// `None` when the call is over. Changed only by the thread that executes it, or when nobody has the call any more.
    state: Exclusive<Option<State>>,
}

/// The mark of a call that a thread executes, until this is dropped.
struct Executing<'a>(&'a AtomicBool);

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The state of a step before the function runs.
enum Next {
    /// It is over.
    Over(Step),
    /// The function is to be resumed, or to run for the first time.
    Run { iterator: Object, flight: Object<AsyncFlight>, is_first: bool },
}

/// The part of the state that a step needs while it runs foreign code.
enum Now {
    Fresh,
    Waiting(Object),
    Running(Object, Object<AsyncFlight>),
}

impl PendingCall {
    /// The call of `function` for which it has returned `coroutine`.
    pub(crate) fn new(function: Object<CachedFunction>, arguments: Arguments, key: KeptKey, coroutine: Object) -> Self {
        let state = State { coroutine: Some(coroutine), iterator: None, stage: Stage::Fresh, generation: 0 };
        Self { function, arguments, key, is_executing: AtomicBool::new(false), state: Exclusive::new(Some(state)) }
    }

    /// Resumes the call with `value`.
    pub(crate) fn send(&self, py: Python<'_>, value: Arg<'_>) -> Result<Step, Raised> {
        let _executing = self.execute()?;
        match self.next(py, value)? {
            Next::Over(step) => Ok(step),
            Next::Run { iterator, flight, is_first } => {
                let none = py.None();
                self.run(py, &flight, || ffi::send(py, &iterator, if is_first { Arg::new(&none) } else { value }))
            }
        }
    }

    /// The next thing to do. The frames that decide it have left the stack when the function runs, so that one that
    /// awaits itself can do so deeply.
    #[inline(never)]
    fn next(&self, py: Python<'_>, value: Arg<'_>) -> Result<Next, Raised> {
        match self.now(py)? {
            Now::Fresh if !value.is_none(py) => {
                Err(exception::<PyTypeError>("can't send non-None value to a just-started coroutine").into())
            }
            Now::Fresh => self.begin(py),
            Now::Waiting(iterator) => self.wait(py, ffi::send(py, &iterator, value)),
            Now::Running(iterator, flight) => Ok(Next::Run { iterator, flight, is_first: false }),
        }
    }

    /// Raises an exception where the call is suspended.
    pub(crate) fn throw(&self, py: Python<'_>, error: PyErr) -> Result<Step, Raised> {
        let _executing = self.execute()?;
        match self.now(py)? {
            Now::Fresh => match self.end(py).and_then(|state| state.coroutine) {
                // It raises what it is given, and knows that it was not forgotten.
                Some(coroutine) if ffi::is_coroutine(&coroutine) => match throw_into(py, &coroutine, error)? {
                    Sent::Yielded(value) => Ok(Step::Yield(value)),
                    Sent::Returned(value) => Ok(Step::Return(value)),
                },
                _ => Err(error.into()),
            },
            Now::Waiting(iterator) => match self.wait(py, throw_into(py, &iterator, error))? {
                Next::Over(step) => Ok(step),
                Next::Run { iterator, flight, .. } => {
                    self.run(py, &flight, || ffi::send(py, &iterator, Arg::new(&py.None())))
                }
            },
            Now::Running(iterator, flight) => self.run(py, &flight, || throw_into(py, &iterator, error)),
        }
    }

    /// Ends the call where it is suspended, and lets a waiter take over.
    pub(crate) fn close(&self, py: Python<'_>) -> Result<Object, Raised> {
        let _executing = self.execute()?;
        let driven = self.state.with(py, |state| {
            let state = state.as_ref()?;
            state.iterator.as_ref().or(state.coroutine.as_ref()).map(|driven| driven.clone_ref(py))
        });
        let Some(driven) = driven else { return Ok(py.None().into()) };
        let closed = close(py, &driven).map_err(|raised| raised.fetch(py));
        if closed.is_err() && is_suspended(py, &driven) {
            // It has ignored the GeneratorExit, and can go on.
            return Ok(closed?);
        }
        if let Some(state) = self.end(py) {
            self.dismiss(py, state);
        }
        Ok(closed?)
    }

    /// How far the call is.
    pub(crate) fn status(&self, py: Python<'_>) -> Status {
        self.state.with(py, |state| match state {
            None => Status::Done,
            Some(State { stage: Stage::Fresh, .. }) if !self.is_executing.load(Ordering::Acquire) => Status::Fresh,
            Some(_) => Status::Begun,
        })
    }

    /// An attribute that a coroutine has, as far as this call has it.
    pub(crate) fn attribute<'py>(&self, py: Python<'py>, name: &CStr) -> Result<Option<Bound<'py, PyAny>>, Raised> {
        let is_executing = self.is_executing.load(Ordering::Acquire);
        if name == c"cr_running" {
            return Ok(Some(ffi::truth(py, is_executing)));
        }
        if name == c"cr_suspended" {
            return Ok(Some(ffi::truth(py, !is_executing && self.status(py) == Status::Begun)));
        }
        if name == c"__name__" || name == c"__qualname__" {
            let function = self.function.bind(py).as_any().as_unbound();
            return Ok(ffi::attribute_called(py, Arg::new(function), name)?.map(|name| name.into_bound(py)));
        }
        let now = self.state.with(py, |state| {
            let state = state.as_ref()?;
            Some(state.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)))
        });
        match now {
            Some(Some(coroutine)) => {
                Ok(ffi::attribute_called(py, Arg::new(&coroutine), name)?.map(|value| value.into_bound(py)))
            }
            // A call that waits has no frame, and nothing that goes on from one.
            Some(None) => Ok(None),
            None => Ok(attribute_of_finished(py, name)),
        }
    }

    fn execute(&self) -> Result<Executing<'_>, Raised> {
        if self.is_executing.swap(true, Ordering::AcqRel) {
            return Err(exception::<PyValueError>("coroutine already executing").into());
        }
        Ok(Executing(&self.is_executing))
    }

    fn now(&self, py: Python<'_>) -> Result<Now, Raised> {
        let now = self.state.with(py, |state| {
            let state = state.as_ref()?;
            Some(match (&state.stage, &state.iterator) {
                (Stage::Waiting(_), Some(iterator)) => Now::Waiting(iterator.clone_ref(py)),
                (Stage::Running(seat), Some(iterator)) => {
                    Now::Running(iterator.clone_ref(py), seat.flight().clone_ref(py))
                }
                _ => Now::Fresh,
            })
        });
        now.ok_or_else(|| exception::<PyRuntimeError>("cannot reuse already awaited coroutine").into())
    }

    fn query(&self) -> Stored<'_> {
        self.key.query(self.function.get().signature().rules)
    }

    /// A step of the function.
    #[inline(never)]
    fn run(
        &self,
        py: Python<'_>,
        flight: &Object<AsyncFlight>,
        step: impl FnOnce() -> Result<Sent, Raised>,
    ) -> Result<Step, Raised> {
        match AsyncFlight::enter(py, flight) {
            Ok(entered) => {
                let sent = step();
                self.settle(py, entered, sent)
            }
            Err(raised) => {
                let error = raised.fetch(py);
                // Dropped before its first step, it would complain.
                self.close_unrun(py);
                Err(self.fail(py, error))
            }
        }
    }

    /// The result of a step of the function.
    #[inline(never)]
    fn settle(&self, py: Python<'_>, entered: Entered, sent: Result<Sent, Raised>) -> Result<Step, Raised> {
        // An error is set aside for the moment: none may be set while the context is changed back.
        let sent = sent.map_err(|raised| raised.fetch(py));
        drop(entered);
        match sent {
            Ok(Sent::Yielded(value)) => Ok(Step::Yield(value)),
            Ok(Sent::Returned(value)) => self.land(py, value),
            Err(error) => Err(self.fail(py, error)),
        }
    }

    /// Closes the coroutine that has not run, or must not run on: dropped, one that has not run would say that nobody has
    /// awaited it.
    fn close_unrun(&self, py: Python<'_>) {
        let coroutine = self.state.with(py, |state| state.as_mut().and_then(|state| state.coroutine.take()));
        if let Some(coroutine) = coroutine {
            close_quietly(py, &coroutine);
        }
    }

    fn set(&self, py: Python<'_>, stage: Stage, iterator: Option<Object>) {
        let before = self.state.with(py, |state| {
            state.as_mut().map(|state| {
                (std::mem::replace(&mut state.stage, stage), std::mem::replace(&mut state.iterator, iterator))
            })
        });
        drop(before);
    }

    fn end(&self, py: Python<'_>) -> Option<State> {
        self.state.with(py, Option::take)
    }

    /// Nobody has the call any more.
    fn abandon(&self, py: Python<'_>) {
        if let Some(state) = self.end(py) {
            // This runs when the interpreter drops an object, maybe on the way of an exception.
            let error = ffi::take_error(py);
            self.dismiss(py, state);
            if let Some(error) = error {
                error.restore(py);
            }
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        ffi::attached(|py| self.abandon(py));
    }
}

#[pymethods]
impl PendingCall {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.function)?;
        self.arguments.traverse(&visit)?;
        self.key.key.traverse(&visit)?;
        let state = self.state.peek(&visit, |state| {
            let Some(state) = state else { return Ok(()) };
            for object in [&state.coroutine, &state.iterator].into_iter().flatten() {
                visit.call(&**object)?;
            }
            let (Stage::Waiting(seat) | Stage::Running(seat)) = &state.stage else { return Ok(()) };
            seat.traverse(&visit)
        });
        state.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        ffi::attached(|py| self.abandon(py));
    }
}
