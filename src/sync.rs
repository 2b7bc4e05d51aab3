//! Who may touch a cache's state: the one file where the builds of Python differ.
//!
//! | build | what keeps others out | token |
//! | --- | --- | --- |
//! | with the GIL | the GIL itself; a flag turns re-entry, which would be a bug of ours, into a panic | `Python<'py>` |
//! | free-threaded | a `PyMutex`, which detaches while it waits, so that a stop-the-world pause cannot deadlock with it | `Python<'py>` |
//! | no Python (`cargo test --no-default-features`) | a `std` mutex | nothing |
//!
//! State is lent to a closure by `with`, so that it cannot be kept across a call into Python by mistake; on the hot path,
//! where a closure is not always inlined, by `lend` to the end of a scope, which must be as short. While it is lent, no
//! Python code may run, no Python object be allocated and no reference to one dropped; the free-threaded garbage collector
//! relies on this as much as the GIL build does, since no thread is ever paused while state is lent to it.

#![allow(unsafe_code)]

/// Whether threads run Python code at the same time.
#[cfg(feature = "python")]
pub const FREE_THREADED: bool = cfg!(Py_GIL_DISABLED);

#[cfg(feature = "python")]
pub use pyo3::Python as Token;

/// Stands where a `Python<'py>` stands in the other builds.
#[cfg(not(feature = "python"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Token<'a>(std::marker::PhantomData<&'a ()>);

#[cfg(unix)]
pub use published::Published;
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

    // SAFETY: `busy` and `state` are only touched by `lend` and `peek`, whose token proves that this thread holds the GIL.
    unsafe impl<T: Send> Sync for Exclusive<T> {}

    /// State on loan, given back when this is dropped.
    pub struct Lent<'a, T>(&'a Exclusive<T>);

    impl<T> Lent<'_, T> {
        #[inline(always)]
        pub(super) fn state(&self) -> *mut T {
            self.0.state.get()
        }
    }

    impl<T> Drop for Lent<'_, T> {
        #[inline(always)]
        fn drop(&mut self) {
            self.0.busy.set(false);
        }
    }

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub const fn new(state: T) -> Self {
            Self { busy: Cell::new(false), state: UnsafeCell::new(state) }
        }

        /// Lends the state for the length of a scope that must not call Python.
        #[inline(always)]
        pub fn lend(&self, _: Token<'_>) -> Lent<'_, T> {
            if self.busy.replace(true) {
                reentered();
            }
            Lent(self)
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
    use crate::plain::PLAIN;
    use pyo3::ffi::{PyMutex, PyMutex_Lock, PyMutex_Unlock};
    use std::cell::UnsafeCell;
    use std::sync::atomic::{AtomicU8, Ordering};

    /// The byte of a free mutex, and of a locked one for which nobody waits.
    const FREE: u8 = 0;
    const LOCKED: u8 = 1;

    /// State that one thread at a time may touch.
    #[derive(Debug)]
    pub struct Exclusive<T> {
        mutex: UnsafeCell<PyMutex>,
        state: UnsafeCell<T>,
    }

    // SAFETY: `state` is touched only through a `Lent`, while `mutex` is held, and by `peek`, while every other thread is paused.
    unsafe impl<T: Send> Sync for Exclusive<T> {}
    // SAFETY: an unlocked `PyMutex` belongs to no thread.
    unsafe impl<T: Send> Send for Exclusive<T> {}

    /// State on loan, given back when this is dropped.
    pub struct Lent<'a, T>(&'a Exclusive<T>);

    impl<T> Lent<'_, T> {
        #[inline(always)]
        pub(super) fn state(&self) -> *mut T {
            self.0.state.get()
        }
    }

    impl<T> Drop for Lent<'_, T> {
        #[inline(always)]
        fn drop(&mut self) {
            if PLAIN || self.0.bits().compare_exchange(LOCKED, FREE, Ordering::Release, Ordering::Relaxed).is_err() {
                // SAFETY: `lend` locked this mutex on this thread, and nobody else unlocks it.
                unsafe { PyMutex_Unlock(self.0.mutex.get()) }
            }
        }
    }

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub fn new(state: T) -> Self {
            Self { mutex: UnsafeCell::new(PyMutex::new()), state: UnsafeCell::new(state) }
        }

        /// Lends the state for the length of a scope that must not call Python.
        #[inline(always)]
        pub fn lend(&self, _: Token<'_>) -> Lent<'_, T> {
            if PLAIN || self.bits().compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
                // SAFETY: the mutex is initialised, does not move while it is lent, and the token proves that this thread is
                // attached, as `PyMutex_Lock` asks.
                unsafe { PyMutex_Lock(self.mutex.get()) };
            }
            Lent(self)
        }

        /// The mutex as its two functions see it. They begin as this file does, and do the rest: what the interpreter's
        /// headers put in line, its functions need not be called for.
        #[inline(always)]
        fn bits(&self) -> &AtomicU8 {
            // SAFETY: a `PyMutex` is one byte that is only touched by atomic operations.
            unsafe { AtomicU8::from_ptr(self.mutex.get().cast::<u8>()) }
        }

        /// Lends the state to a garbage collection.
        pub fn peek<R>(&self, _: &pyo3::PyVisit<'_>, body: impl FnOnce(&T) -> R) -> Option<R> {
            // SAFETY: a `PyVisit` exists only inside `tp_traverse`, while every other thread is paused. While state
            // is lent there is no point at which its thread could be paused, so no borrow is alive, even if the mutex is held.
            Some(body(unsafe { &*self.state.get() }))
        }
    }
}

#[cfg(feature = "python")]
mod lent {
    use super::seam::Lent;
    use std::ops::{Deref, DerefMut};

    impl<T> Deref for Lent<'_, T> {
        type Target = T;

        #[inline(always)]
        fn deref(&self) -> &T {
            // SAFETY: nobody else has the state while a `Lent` exists; see `lend` and `peek`.
            unsafe { &*self.state() }
        }
    }

    impl<T> DerefMut for Lent<'_, T> {
        #[inline(always)]
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: as above, and this borrow is the only one of this `Lent`.
            unsafe { &mut *self.state() }
        }
    }
}

/// Whether another thread may call a method of the object while one of it runs here.
///
/// Where the caller's reference is the only one, nobody else can call anything. It is if the object belongs to this thread,
/// which alone changes the count of its own references, and no other thread has ever had one.
#[cfg(feature = "python")]
#[inline(always)]
pub(crate) fn is_reachable_elsewhere(object: &pyo3::ffi::PyObject) -> bool {
    #[cfg(Py_GIL_DISABLED)]
    {
        use std::sync::atomic::Ordering::Relaxed;
        let is_alone = object.ob_ref_local.load(Relaxed) == 1 && object.ob_ref_shared.load(Relaxed) == 0;
        !(is_alone && is_own(object))
    }
    #[cfg(not(Py_GIL_DISABLED))]
    {
        let _ = object;
        false
    }
}

/// Whether this thread has made the object. Where that cannot be told, the answer is no.
#[cfg(all(feature = "python", Py_GIL_DISABLED))]
#[inline(always)]
fn is_own(object: &pyo3::ffi::PyObject) -> bool {
    if crate::plain::PLAIN {
        return false;
    }
    let this: usize;
    // The interpreter marks a thread's objects with the address of the thread's own block.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the word at the start of the block is the block's address, on this system.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) this, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    // SAFETY: the register has the block's address, on this system.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) this, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux")))]
    {
        this = 0;
    }
    this != 0 && object.ob_tid == this
}

/// Spares threads that call the same object the contention on its reference count. Such an object dies at a garbage collection,
/// no longer with its last reference. Without effect with the GIL.
#[cfg(feature = "python")]
pub(crate) fn count_lazily(object: &pyo3::Bound<'_, pyo3::PyAny>) {
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    {
        unsafe extern "C" {
            /// Exported from 3.14 on, and not declared by pyo3.
            fn PyUnstable_Object_EnableDeferredRefcount(object: *mut pyo3::ffi::PyObject) -> std::ffi::c_int;
        }
        if !crate::plain::PLAIN {
            // SAFETY: the thread is attached, and the object alive. It says no where the object cannot be counted so.
            let _ = unsafe { PyUnstable_Object_EnableDeferredRefcount(object.as_ptr()) };
        }
    }
    #[cfg(not(all(Py_GIL_DISABLED, Py_3_14)))]
    let _ = object;
}

/// A static of which every thread that can run at the same time has its own: with the GIL one, without it one a thread.
#[cfg(feature = "python")]
macro_rules! each_thread {
    (static $name:ident: $type:ty = $init:expr) => {
        #[cfg(not(Py_GIL_DISABLED))]
        static $name: crate::sync::EachThread<$type> = crate::sync::EachThread::new($init);
        #[cfg(Py_GIL_DISABLED)]
        static $name: crate::sync::EachThread<$type> = {
    thread_local!(static OWN: std::cell::UnsafeCell<$type> = const { std::cell::UnsafeCell::new($init) });
            crate::sync::EachThread::new(&OWN)
        };
    };
}
#[cfg(feature = "python")]
pub(crate) use each_thread;

/// See [`each_thread`].
#[cfg(all(feature = "python", not(Py_GIL_DISABLED)))]
pub(crate) type EachThread<T> = Exclusive<T>;

/// See [`each_thread`].
#[cfg(all(feature = "python", Py_GIL_DISABLED))]
pub(crate) struct EachThread<T: 'static>(&'static std::thread::LocalKey<std::cell::UnsafeCell<T>>);

#[cfg(all(feature = "python", Py_GIL_DISABLED))]
impl<T> EachThread<T> {
    pub(crate) const fn new(own: &'static std::thread::LocalKey<std::cell::UnsafeCell<T>>) -> Self {
        Self(own)
    }

    /// Lends this thread's state to `body`, which must not call Python.
    #[inline(always)]
    pub(crate) fn with<R>(&self, _: Token<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: no other thread can get at this one's state, and what borrows it ends before anything else runs here.
        self.0.with(|own| body(unsafe { &mut *own.get() }))
    }
}

impl<T> Exclusive<T> {
    /// Lends the state to `body`, which must not call Python.
    #[inline]
    pub fn with<R>(&self, token: Token<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        body(&mut self.lend(token))
    }
}

#[cfg(not(feature = "python"))]
mod seam {
    use super::Token;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// State that one thread at a time may touch.
    #[derive(Debug)]
    pub struct Exclusive<T>(Mutex<T>);

    impl<T> Exclusive<T> {
        /// Takes ownership of the state.
        pub fn new(state: T) -> Self {
            Self(Mutex::new(state))
        }

        /// Lends the state for the length of a scope.
        pub fn lend(&self, _: Token<'_>) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// With the GIL, nobody waits for anybody.
#[cfg(all(unix, feature = "python", not(Py_GIL_DISABLED)))]
mod published {
    use super::{Exclusive, Token};
    use std::sync::Arc;

    /// A value that is read far more often than it is replaced. Readers wait neither for each other nor for a writer.
    #[derive(Debug)]
    pub struct Published<T>(Exclusive<Option<Arc<T>>>);

    impl<T> Published<T> {
        /// Nothing yet.
        pub fn empty() -> Self {
            Self(Exclusive::new(None))
        }

        /// Lends what is published to `body`, which must not call Python.
        #[inline(always)]
        pub fn read<R>(&self, token: Token<'_>, body: impl FnOnce(Option<&Arc<T>>) -> R) -> R {
            body(self.0.lend(token).as_ref())
        }

        /// Publishes `next` if `is_due` says so of what is published now. Returns what was.
        ///
        /// # Errors
        /// If it is not due: what stays published.
        pub fn replace_if(
            &self,
            token: Token<'_>,
            next: Option<&Arc<T>>,
            is_due: impl Fn(Option<&Arc<T>>) -> bool,
        ) -> Result<Option<Arc<T>>, Option<Arc<T>>> {
            let published = &mut *self.0.lend(token);
            if is_due(published.as_ref()) {
                Ok(std::mem::replace(published, next.cloned()))
            } else {
                Err(published.clone())
            }
        }
    }
}

#[cfg(all(unix, any(not(feature = "python"), Py_GIL_DISABLED)))]
mod published {
    use super::Token;
    use arc_swap::ArcSwapOption;
    use std::sync::Arc;

    /// A value that is read far more often than it is replaced. Readers wait neither for each other nor for a writer.
    #[derive(Debug)]
    pub struct Published<T>(ArcSwapOption<T>);

    impl<T> Published<T> {
        /// Nothing yet.
        pub fn empty() -> Self {
            Self(ArcSwapOption::empty())
        }

        /// Lends what is published to `body`, which must not call Python.
        #[inline(always)]
        pub fn read<R>(&self, _: Token<'_>, body: impl FnOnce(Option<&Arc<T>>) -> R) -> R {
            body(self.0.load().as_ref())
        }

        /// Publishes `next` if `is_due` says so of what is published now. Returns what was.
        ///
        /// # Errors
        /// If it is not due: what stays published.
        pub fn replace_if(
            &self,
            _: Token<'_>,
            next: Option<&Arc<T>>,
            is_due: impl Fn(Option<&Arc<T>>) -> bool,
        ) -> Result<Option<Arc<T>>, Option<Arc<T>>> {
            loop {
                let published = self.0.load_full();
                if !is_due(published.as_ref()) {
                    return Err(published);
                }
                let before = self.0.compare_and_swap(&published, next.cloned());
                let is_replaced = match (&*before, &published) {
                    (Some(before), Some(published)) => Arc::ptr_eq(before, published),
                    (None, None) => true,
                    _ => false,
                };
                if is_replaced {
                    return Ok(published);
                }
            }
        }
    }
}
