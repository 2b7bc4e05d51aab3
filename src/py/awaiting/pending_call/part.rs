//! A call's part in a flight: it looks again, leads or waits, takes over, and ends the flight or leaves it.

use super::seat::Seat;
use super::{Next, PendingCall, Stage, State, Step};
use crate::backend::memory::Lookup;
use crate::flight::{Missed, Ticket, Turn};
use crate::flights::Handle;
use crate::py::awaiting::async_flight::{AsyncFlight, Landing};
use crate::py::awaiting::driven::{awaited, close_quietly};
use crate::py::awaiting::event_loop::{EventLoop, Here};
use crate::py::error::exception;
use crate::py::ffi::{self, Arg, Object, Raised, Sent};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::prelude::*;

impl PendingCall {
    /// The first step: looks again, since another call may have stored the value or begun to compute it meanwhile.
    pub(super) fn begin(&self, py: Python<'_>) -> Result<Next, Raised> {
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
                            let seat = Seat::new(py, &self.function, self.key.hash, flight, ticket, parent);
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
        let seat = Seat::new(py, &self.function, self.key.hash, flight, ticket, parent);
        if let Some(flights) = &self.function.get().cache().flights {
            flights.add(py, self.key.key.clone_ref(py), self.key.hash, home, seat.flight());
        }
        self.prepare(py, seat)
    }

    /// Makes the function ready to run, whose coroutine has not run yet.
    pub(super) fn prepare(&self, py: Python<'_>, seat: Seat) -> Result<Next, Raised> {
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

    /// The driver of the function's awaitable, or of another call's where the first was closed because the call had to wait.
    /// Either may be foreign code, which runs in the flight's context.
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

    /// A step of the signal.
    pub(super) fn wait(&self, py: Python<'_>, mut sent: Result<Sent, Raised>) -> Result<Next, Raised> {
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
                Some(State { stage: Stage::Waiting(seat), .. }) => Some((seat.flight().clone_ref(py), seat.ticket())),
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
                // An exception of a key's `__eq__` concerns this caller alone. Another one takes over.
                let error = raised.fetch(py);
                if let Some(state) = self.end(py) {
                    self.dismiss(py, state);
                }
                Err(error.into())
            }
        }
    }

    /// The function has returned.
    pub(super) fn land(&self, py: Python<'_>, value: Object) -> Result<Step, Raised> {
        let Some(state) = self.end(py) else { return Ok(Step::Return(value)) };
        let function = self.function.get();
        let kept = match &state.stage {
            Stage::Running(seat) if function.settings().options.max_size != Some(0) => {
                let flight = seat.flight().flight();
                function.cache().entries.keep(py, &self.key, &value, state.generation, || !flight.is_stale())
            }
            _ => Ok(()),
        };
        // An exception of a key's `__eq__` concerns this caller alone. The others get the value that they have waited
        // for.
        let kept = kept.map_err(|raised| raised.fetch(py));
        Self::finish(py, state, Landing::Value(value.clone_ref(py)));
        kept?;
        Ok(Step::Return(value))
    }

    /// The function has raised.
    pub(super) fn fail(&self, py: Python<'_>, error: PyErr) -> Raised {
        if let Some(state) = self.end(py) {
            // A `BaseException` that is no `Exception` is not the function's result. It ends this caller: cancellation,
            // exit.
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
            seat.land(py, landing);
        }
        drop((coroutine, iterator));
    }

    /// Takes a call out that ends before its flight does.
    pub(super) fn dismiss(&self, py: Python<'_>, state: State) {
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
}
