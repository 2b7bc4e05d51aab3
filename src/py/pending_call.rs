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

use super::arguments::Arguments;
use super::async_flight::{AsyncFlight, Entered, Landing};
use super::cached_function::CachedFunction;
use super::error::exception;
use super::event_loop::{EventLoop, Here};
use super::ffi::{self, Arg, Object, Raised, Sent};
use super::key::{KeptKey, Stored};
use super::names;
use crate::backend::memory::Lookup;
use crate::flight::{Missed, Ticket, Turn};
use crate::flights::{self, Handle, Table};
use crate::sync::Exclusive;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a step came to.
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

impl Table<Object<AsyncFlight>> for Object<CachedFunction> {
    fn hide(&self, py: Python<'_>, hash: u64, flight: &Object<AsyncFlight>) {
        if let Some(flights) = &self.get().cache().flights {
            flights.remove(py, hash, flight);
        }
    }
}

/// A call's place in a flight, which it leaves when this is dropped.
#[derive(Debug)]
struct Seat {
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
    fn new(
        py: Python<'_>,
        call: &PendingCall,
        flight: Object<AsyncFlight>,
        ticket: Ticket,
        parent: Option<Object<AsyncFlight>>,
    ) -> Self {
        let awaits = parent.map(|parent| {
            parent.get().awaits(py, &flight);
            Awaits { parent, flight: flight.clone_ref(py) }
        });
        Self { place: flights::Seat::new(call.function.clone_ref(py), call.key.hash, flight, ticket), awaits }
    }

    fn flight(&self) -> &Object<AsyncFlight> {
        self.place.flight()
    }

    fn parent(&self) -> Option<&Object<AsyncFlight>> {
        self.awaits.as_ref().map(|awaits| &awaits.parent)
    }
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
    /// What the function returned, as long as it may run.
    coroutine: Option<Object>,
    /// What is driven: the coroutine's iterator, or that of the signal.
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

/// That a thread executes a call, until this is dropped.
struct Executing<'a>(&'a AtomicBool);

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What a step comes to before the function runs.
enum Next {
    /// It is over.
    Over(Step),
    /// The function is to be resumed, or to run for the first time.
    Run { iterator: Object, flight: Object<AsyncFlight>, is_first: bool },
}

/// What a step needs of the state while it runs foreign code.
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

    /// What is to be done. All that decides it has left the stack when the function runs, so that one that awaits itself can do
    /// so deeply.
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

    /// The first step: looks again, since another call may have stored the value or begun to compute it meanwhile.
    fn begin(&self, py: Python<'_>) -> Result<Next, Raised> {
        self.try_to_begin(py).map_err(|raised| {
            let error = raised.fetch(py);
            // Raised before there was a flight, such as by a key's `__eq__`.
            self.close_unrun(py);
            drop(self.end(py));
            error.into()
        })
    }

    fn try_to_begin(&self, py: Python<'_>) -> Result<Next, Raised> {
        let cache = self.function.get().cache();
        let parent = AsyncFlight::current(py)?;
        loop {
            match self.look_again(py)? {
                Lookup::Hit(value) | Lookup::Stale(value) => {
                    self.close_unrun(py);
                    drop(self.end(py));
                    return Ok(Next::Over(Step::Return(value)));
                }
                Lookup::Miss { generation } => self.state.with(py, |state| {
                    if let Some(state) = state {
                        state.generation = generation;
                    }
                }),
            }
            let Some(flights) = cache.flights.as_ref() else { unreachable!("a coroutine function has flights") };
            let here = if self.function.get().is_single_flight() { Here::find(py) } else { None };
            let Some(Here { event_loop, task }) = here else { return self.lead(py, None, 0, parent) };
            match flights.find(py, &self.query(), &event_loop)? {
                None => return self.lead(py, Some(event_loop), task, parent),
                Some(flight) if AsyncFlight::would_wait_for_itself(py, task, parent.as_ref(), &flight) => {
                    return self.lead(py, None, task, parent);
                }
                Some(flight) => {
                    let (signal, iterator) = event_loop.signal(py)?;
                    match flight.flight().join(py, signal) {
                        Ok(ticket) => {
                            let seat = Seat::new(py, self, flight, ticket, parent);
                            let sent = ffi::send(py, &iterator, Arg::new(&py.None()));
                            self.set(py, Stage::Waiting(seat), Some(iterator));
                            self.close_unrun(py);
                            return self.wait(py, sent);
                        }
                        Err(missed) => {
                            close_quietly(py, &iterator);
                            if let Missed::Landed(landing) = missed {
                                return self.take(py, landing).map(Next::Over);
                            }
                        }
                    }
                }
            }
        }
    }

    fn look_again(&self, py: Python<'_>) -> Result<Lookup<Object>, Raised> {
        self.function.get().cache().entries.look_up_again(py, &self.key)
    }

    /// Computes, in a flight of its own that callers in `home` may join.
    fn lead(
        &self,
        py: Python<'_>,
        home: Option<EventLoop>,
        task: usize,
        parent: Option<Object<AsyncFlight>>,
    ) -> Result<Next, Raised> {
        let (flight, ticket) = AsyncFlight::begin(py, task, parent.as_ref())?;
        let seat = Seat::new(py, self, flight, ticket, parent);
        if let Some(flights) = &self.function.get().cache().flights {
            flights.add(py, self.key.key.clone_ref(py), self.key.hash, home, seat.flight());
        }
        self.prepare(py, seat)
    }

    /// Makes the function ready to run, whose coroutine has not run yet.
    fn prepare(&self, py: Python<'_>, seat: Seat) -> Result<Next, Raised> {
        if let Err(raised) = self.function.get().cache().entries.count_miss(py) {
            let error = raised.fetch(py);
            self.close_unrun(py);
            drop((self.end(py), seat));
            return Err(error.into());
        }
        let flight = seat.flight().clone_ref(py);
        self.set(py, Stage::Running(seat), None);
        let made =
            self.state.with(py, |state| state.as_ref()?.coroutine.as_ref().map(|coroutine| coroutine.clone_ref(py)));
        let iterator = match made {
            Some(coroutine) if ffi::is_coroutine(&coroutine) => Ok(coroutine),
            made => self.iterator_in(py, &flight, made),
        };
        match iterator {
            Ok(iterator) => {
                let before = self.state.with(py, |state| state.as_mut()?.iterator.replace(iterator.clone_ref(py)));
                drop(before);
                Ok(Next::Run { iterator, flight, is_first: true })
            }
            Err(raised) => Err(self.fail(py, raised.fetch(py))),
        }
    }

    /// What drives the function's awaitable, or that of another call of the function where the first was closed because the
    /// call had to wait. Either may be foreign code, which runs in the flight's context.
    fn iterator_in(
        &self,
        py: Python<'_>,
        flight: &Object<AsyncFlight>,
        made: Option<Object>,
    ) -> Result<Object, Raised> {
        let entered = AsyncFlight::enter(py, flight)?;
        let iterator = match made {
            Some(coroutine) => awaited(py, coroutine),
            None => self.arguments.call(py, self.function.get().function(), &self.key.key).and_then(|coroutine| {
                let kept = coroutine.clone_ref(py);
                let before = self.state.with(py, |state| state.as_mut()?.coroutine.replace(kept));
                drop(before);
                awaited(py, coroutine)
            }),
        };
        // An error is set aside for the moment: none may be set while the context is changed back.
        let iterator = iterator.map_err(|raised| raised.fetch(py));
        drop(entered);
        Ok(iterator?)
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

    /// What a step of the function comes to.
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

    /// A step of the signal.
    fn wait(&self, py: Python<'_>, mut sent: Result<Sent, Raised>) -> Result<Next, Raised> {
        loop {
            match sent {
                Ok(Sent::Yielded(value)) => return Ok(Next::Over(Step::Yield(value))),
                Ok(Sent::Returned(_)) => {}
                Err(raised) => {
                    let error = raised.fetch(py);
                    if let Some(state) = self.end(py) {
                        self.dismiss(py, state);
                    }
                    return Err(error.into());
                }
            }
            let Some((flight, ticket)) = self.state.with(py, |state| match state {
                Some(State { stage: Stage::Waiting(seat), .. }) => {
                    Some((seat.flight().clone_ref(py), seat.place.ticket()))
                }
                _ => None,
            }) else {
                unreachable!("only the thread that executes a call ends it")
            };
            match flight.flight().turn(py, ticket) {
                Turn::Take(landing) => return self.take(py, landing).map(Next::Over),
                Turn::Lead => return self.take_over(py, &flight),
                Turn::Wait => {
                    // Somebody else has woken the call.
                    sent = self.sleep_again(py, &flight, ticket);
                }
            }
        }
    }

    fn sleep_again(&self, py: Python<'_>, flight: &Object<AsyncFlight>, ticket: Ticket) -> Result<Sent, Raised> {
        let home = EventLoop::running(py).ok_or_else(|| exception::<PyRuntimeError>("no running event loop"))?;
        let (signal, iterator) = home.signal(py)?;
        let before = self
            .state
            .with(py, |state| state.as_mut().and_then(|state| state.iterator.replace(iterator.clone_ref(py))));
        drop(before);
        if !flight.flight().wait_again(py, ticket, signal) {
            // Its turn has come meanwhile, and nobody would wake it.
            close_quietly(py, &iterator);
            return Ok(Sent::Returned(py.None().into()));
        }
        ffi::send(py, &iterator, Arg::new(&py.None()))
    }

    /// The one who computed has left before the end, and it is this call's turn.
    fn take_over(&self, py: Python<'_>, flight: &Object<AsyncFlight>) -> Result<Next, Raised> {
        match self.look_again(py) {
            // Stored meanwhile, by a loop in another thread or a computation inside the one that was left.
            Ok(Lookup::Hit(value) | Lookup::Stale(value)) => {
                if let Some(state) = self.end(py) {
                    Self::finish(py, state, Landing::Value(value.clone_ref(py)));
                }
                Ok(Next::Over(Step::Return(value)))
            }
            Ok(Lookup::Miss { generation }) => {
                let seat = self.state.with(py, |state| match state {
                    Some(state) => {
                        state.generation = generation;
                        match std::mem::replace(&mut state.stage, Stage::Fresh) {
                            Stage::Waiting(seat) | Stage::Running(seat) => Some(seat),
                            Stage::Fresh => None,
                        }
                    }
                    None => None,
                });
                let Some(seat) = seat else { unreachable!("only the thread that executes a call ends it") };
                let task = Here::find(py).map_or(0, |here| here.task);
                flight.get().adopt(py, task, seat.parent());
                self.prepare(py, seat)
            }
            Err(raised) => {
                // What a key's `__eq__` raises concerns this caller. Another one takes over.
                let error = raised.fetch(py);
                if let Some(state) = self.end(py) {
                    self.dismiss(py, state);
                }
                Err(error.into())
            }
        }
    }

    /// The function has returned.
    fn land(&self, py: Python<'_>, value: Object) -> Result<Step, Raised> {
        let Some(state) = self.end(py) else { return Ok(Step::Return(value)) };
        let function = self.function.get();
        let kept = match &state.stage {
            Stage::Running(seat) if function.settings().options.max_size != Some(0) => {
                let flight = seat.flight().flight();
                function.cache().entries.keep(py, &self.key, &value, state.generation, || !flight.is_stale())
            }
            _ => Ok(()),
        };
        // What a key's `__eq__` raises concerns this caller. The others get what they have waited for.
        let kept = kept.map_err(|raised| raised.fetch(py));
        Self::finish(py, state, Landing::Value(value.clone_ref(py)));
        kept?;
        Ok(Step::Return(value))
    }

    /// The function has raised.
    fn fail(&self, py: Python<'_>, error: PyErr) -> Raised {
        if let Some(state) = self.end(py) {
            // What is no `Exception` does not speak of the function, but ends this caller: cancellation, exit.
            if error.is_instance_of::<PyException>(py) {
                let landing = Landing::Failure {
                    exception: error.value(py).clone().into_any().into(),
                    traceback: error.traceback(py).map(|traceback| traceback.into_any().into()),
                };
                Self::finish(py, state, landing);
            } else {
                self.dismiss(py, state);
            }
        }
        error.into()
    }

    /// Ends the flight of a call that led it.
    fn finish(py: Python<'_>, state: State, landing: Landing) {
        let State { coroutine, iterator, stage, .. } = state;
        if let Stage::Running(seat) | Stage::Waiting(seat) = stage {
            let Seat { place, awaits } = seat;
            place.flight().get().forget_parent(py);
            place.land(py, landing);
            drop(awaits);
        }
        drop((coroutine, iterator));
    }

    /// Takes a call out that ends before its flight does.
    fn dismiss(&self, py: Python<'_>, state: State) {
        let State { coroutine, iterator, stage, .. } = state;
        if let Stage::Waiting(_) = stage {
            // This caller leaves because of something else, which is what it is to hear of.
            if let Err(raised) = self.function.get().cache().entries.count_miss(py) {
                drop(raised.fetch(py));
            }
        }
        drop((coroutine, iterator));
        // Last, since it wakes others.
        drop(stage);
    }

    /// The call that computed has ended.
    fn take(&self, py: Python<'_>, landing: Landing) -> Result<Step, Raised> {
        self.close_unrun(py);
        drop(self.end(py));
        let cache = self.function.get().cache();
        match landing {
            Landing::Value(value) => {
                cache.entries.count_hit(py)?;
                Ok(Step::Return(value))
            }
            Landing::Failure { exception, traceback } => {
                cache.entries.count_miss(py)?;
                let error = PyErr::from_value(exception.bind(py).clone());
                // Each waiter adds its own frames to it, and not to those of the others.
                let traceback = traceback.as_ref().and_then(|traceback| traceback.bind(py).clone().cast_into().ok());
                error.set_traceback(py, traceback);
                Err(error.into())
            }
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
            visit.call(&**seat.place.table())?;
            visit.call(&**seat.flight())?;
            let Some(Awaits { parent, flight }) = &seat.awaits else { return Ok(()) };
            visit.call(&**parent)?;
            visit.call(&**flight)
        });
        state.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        ffi::attached(|py| self.abandon(py));
    }
}

/// What drives an awaitable.
fn awaited(py: Python<'_>, awaitable: Object) -> Result<Object, Raised> {
    if ffi::is_coroutine(&awaitable) {
        return Ok(awaitable);
    }
    match ffi::attribute_if_any(py, Arg::new(&awaitable), &names::of(py).await_)? {
        Some(method) => ffi::call(py, &method, &[], None),
        // A generator that types.coroutine has made awaitable.
        None if ffi::is_generator(&awaitable) => Ok(awaitable),
        None => {
            let kind = awaitable.bind(py).get_type().name()?;
            let text = format!("object {kind} can't be used in 'await' expression");
            Err(Raised::new::<PyTypeError>(py, &text))
        }
    }
}

/// An attribute that a coroutine still has when it is over.
pub(crate) fn attribute_of_finished<'py>(py: Python<'py>, name: &CStr) -> Option<Bound<'py, PyAny>> {
    if name == c"cr_running" || name == c"cr_suspended" {
        Some(ffi::truth(py, false))
    } else if name == c"cr_await" || name == c"cr_frame" || name == c"cr_origin" {
        Some(py.None().into_bound(py))
    } else {
        None
    }
}

/// Raises an exception where `iterator` is suspended.
fn throw_into(py: Python<'_>, iterator: &Object, error: PyErr) -> Result<Sent, Raised> {
    let Some(throw) = ffi::attribute_if_any(py, Arg::new(iterator), &names::of(py).throw)? else {
        return Err(error.into());
    };
    let error = error.into_value(py).into_any();
    let raised = match ffi::one_deeper(py, || ffi::call(py, &throw, &[Arg::new(&error)], None)) {
        Ok(value) => return Ok(Sent::Yielded(value)),
        Err(raised) => raised,
    };
    let error = raised.fetch(py);
    if error.is_instance_of::<PyStopIteration>(py) {
        let value = error.value(py).as_any().as_unbound();
        return ffi::attribute(py, Arg::new(value), &names::of(py).value).map(Sent::Returned);
    }
    Err(error.into())
}

/// Whether a coroutine can go on.
fn is_suspended(py: Python<'_>, coroutine: &Object) -> bool {
    match ffi::attribute_if_any(py, Arg::new(coroutine), &names::of(py).cr_frame) {
        Ok(frame) => frame.is_some_and(|frame| !frame.is_none(py)),
        Err(raised) => {
            drop(raised.fetch(py));
            false
        }
    }
}

/// Closes what can be closed.
fn close(py: Python<'_>, iterator: &Object) -> Result<Object, Raised> {
    match ffi::attribute_if_any(py, Arg::new(iterator), &names::of(py).close)? {
        Some(close) => ffi::call(py, &close, &[], None),
        None => Ok(py.None().into()),
    }
}

/// The same for what has not run: nothing in it can raise.
pub(crate) fn close_quietly(py: Python<'_>, coroutine: &Object) {
    if let Err(raised) = close(py, coroutine) {
        raised.fetch(py).write_unraisable(py, Some(coroutine.bind(py)));
    }
}
