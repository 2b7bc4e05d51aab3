//! Awaiting: what a call of a coroutine function returns, and what becomes of it until it has its value.

pub(crate) mod arguments;
pub(crate) mod async_flight;
pub(crate) mod awaitable;
pub(crate) mod driven;
pub(crate) mod event_loop;
pub(crate) mod pending_call;
pub(crate) mod spare;
pub(crate) mod steps;
pub(crate) mod stop;
