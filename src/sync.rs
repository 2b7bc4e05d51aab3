//! Who may touch a cache's state: the one file where the builds of Python differ.
//!
//! | build | what keeps others out | token |
//! | --- | --- | --- |
//! | with the GIL | the GIL itself; a flag turns re-entry, which would be a bug of ours, into a panic | `Python<'py>` |
//! | free-threaded | a `PyMutex`, which detaches while it waits, so that a stop-the-world pause cannot deadlock with it | `Python<'py>` |
//! | no Python (`cargo test --no-default-features`) | a `std` mutex | nothing |
//!
//! State is lent to a closure, never as a guard: it cannot be kept across a call into Python. No closure given to
//! [`Exclusive::with`] may run Python code, allocate a Python object or drop a reference to one; the free-threaded
//! garbage collector relies on this as much as the GIL build does, since no thread is ever paused inside such a closure.

#[cfg(feature = "python")]
pub use pyo3::Python as Token;

/// Stands where a `Python<'py>` stands in the other builds.
#[cfg(not(feature = "python"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Token<'a>(std::marker::PhantomData<&'a ()>);

pub use seam::Exclusive;

#[cfg(all(feature = "python", not(Py_GIL_DISABLED)))]
mod seam {
    use super::Token;
    use std::cell::{Cell, UnsafeCell};

    /// State that one thread at a time may touch.
    #[derive(Debug)]
    pub struct Exclusive<T> {
        busy: Cell<bool>,
        state: UnsafeCell<T>,
    }

    // SAFETY: `busy` and `state` are only touched by `with` and `peek`, whose token proves that this thread holds the GIL.
    unsafe impl<T: Send> Sync for Exclusive<T> {}

    /// Gives the state back when the closure returns or panics.
    struct Lent<'a>(&'a Cell<bool>);

    impl Drop for Lent<'_> {
        #[inline]
        fn drop(&mut self) {
            self.0.set(false);
        }
    }

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub fn new(state: T) -> Self {
            Self { busy: Cell::new(false), state: UnsafeCell::new(state) }
        }

        /// Lends the state to `body`, which must not call Python.
        #[inline(always)]
        pub fn with<R>(&self, _: Token<'_>, body: impl FnOnce(&mut T) -> R) -> R {
            if self.busy.replace(true) {
                reentered();
            }
            let _lent = Lent(&self.busy);
            // SAFETY: the token proves that this thread holds the GIL, and `busy` that no other borrow is alive.
            body(unsafe { &mut *self.state.get() })
        }

        /// Lends the state to a garbage collection, or nothing while it is lent already.
        pub fn peek<R>(&self, _: &pyo3::PyVisit<'_>, body: impl FnOnce(&T) -> R) -> Option<R> {
            // SAFETY: a `PyVisit` exists only inside `tp_traverse`, which runs with the GIL held; `busy` says that no
            // other borrow is alive, and a traversal can start none.
            (!self.busy.get()).then(|| body(unsafe { &*self.state.get() }))
        }
    }

    #[cold]
    #[inline(never)]
    fn reentered() -> ! {
        panic!("the cache was entered again while its state was lent out")
    }
}

#[cfg(all(feature = "python", Py_GIL_DISABLED))]
mod seam {
    use super::Token;
    use pyo3::ffi::{PyMutex, PyMutex_Lock, PyMutex_Unlock};
    use std::cell::UnsafeCell;

    /// State that one thread at a time may touch.
    #[derive(Debug)]
    pub struct Exclusive<T> {
        mutex: UnsafeCell<PyMutex>,
        state: UnsafeCell<T>,
    }

    // SAFETY: `state` is touched only by `with`, while `mutex` is held, and by `peek`, while every other thread is paused.
    unsafe impl<T: Send> Sync for Exclusive<T> {}
    // SAFETY: an unlocked `PyMutex` belongs to no thread.
    unsafe impl<T: Send> Send for Exclusive<T> {}

    /// Unlocks when the closure returns or panics.
    struct Lent<'a>(&'a UnsafeCell<PyMutex>);

    impl Drop for Lent<'_> {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: `with` locked this mutex on this thread, and nobody else unlocks it.
            unsafe { PyMutex_Unlock(self.0.get()) }
        }
    }

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub fn new(state: T) -> Self {
            Self { mutex: UnsafeCell::new(PyMutex::new()), state: UnsafeCell::new(state) }
        }

        /// Lends the state to `body`, which must not call Python.
        #[inline(always)]
        pub fn with<R>(&self, _: Token<'_>, body: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: the mutex is initialised, does not move while it is lent, and the token proves that this thread is
            // attached, as `PyMutex_Lock` asks.
            unsafe { PyMutex_Lock(self.mutex.get()) };
            let _lent = Lent(&self.mutex);
            // SAFETY: the mutex is held until `_lent` is dropped.
            body(unsafe { &mut *self.state.get() })
        }

        /// Lends the state to a garbage collection.
        pub fn peek<R>(&self, _: &pyo3::PyVisit<'_>, body: impl FnOnce(&T) -> R) -> Option<R> {
            // SAFETY: a `PyVisit` exists only inside `tp_traverse`, while every other thread is paused. A closure given to
            // `with` has no point at which its thread could be paused, so no borrow is alive, even if the mutex is held.
            Some(body(unsafe { &*self.state.get() }))
        }
    }
}

#[cfg(not(feature = "python"))]
mod seam {
    use super::Token;
    use std::sync::{Mutex, PoisonError};

    /// State that one thread at a time may touch.
    #[derive(Debug)]
    pub struct Exclusive<T>(Mutex<T>);

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub fn new(state: T) -> Self {
            Self(Mutex::new(state))
        }

        /// Lends the state to `body`.
        pub fn with<R>(&self, _: Token<'_>, body: impl FnOnce(&mut T) -> R) -> R {
            body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}
