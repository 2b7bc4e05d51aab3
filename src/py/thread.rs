//! The needs of a thread in which foreign code may run: an end at which nothing of ours is unwound, and a stack that
//! does not run over.
//!
//! **The end.** Up to 3.13 an interpreter that exits ends every other thread by `pthread_exit`, at the place where the thread
//! next takes the GIL: deep in foreign code that was called from here. glibc then unwinds the thread's stack. Frames that
//! own something would drop references without the GIL, and a `catch_unwind`, such as the one that pyo3 puts round every
//! method, would abort the process. So no thread is unwound at all: each has a clean-up handler that glibc calls before it
//! looks at the first frame, and which never returns while the interpreter exits. That is how 3.14 ends threads, by itself.
//! Where there is no glibc, `pthread_exit` unwinds nothing.
//!
//! **The stack.** Up to 3.13 the interpreter counts calls and does not look at the stack, whose end a recursion limit that
//! somebody has raised lets a thread run over. So a call of the user's function first looks how much is left. From 3.14 on
//! the interpreter does.
//!
//! Both are prepared when a thread comes here for the first time, and one comparison tells whether it has. The rule, which
//! `tests/test_exit.py` checks place by place: whatever may run foreign code calls [`prepare`] or [`check_stack`] before.

#![allow(unsafe_code)]

pub(crate) use implementation::{check_stack, prepare};

#[cfg(Py_3_14)]
mod implementation {
    use super::super::ffi::raised::Raised;
    use pyo3::prelude::*;

    /// Nothing is to be prepared.
    #[inline(always)]
    pub(crate) fn prepare(_: Python<'_>) {}

    /// The interpreter looks at the stack itself.
    #[inline(always)]
    #[allow(clippy::unnecessary_wraps, reason = "as up to 3.13")]
    pub(crate) fn check_stack(_: Python<'_>) -> Result<(), Raised> {
        Ok(())
    }
}

#[cfg(not(Py_3_14))]
mod implementation {
    use super::super::ffi::raised::Raised;
    use crate::plain::PLAIN;
    use pyo3::exceptions::PyRecursionError;
    use pyo3::prelude::*;
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    /// No stack reaches so high: the thread has not been here.
    const UNPREPARED: usize = usize::MAX;

    /// The part of a stack that must be free when the user's function is called: enough for the calls between two
    /// looks, and for the exception.
    const MARGIN: usize = 40 << 10;

    thread_local! {
        /// How far down the thread's stack may be used; 0 where nobody knows.
        static LIMIT: Cell<usize> = const { Cell::new(UNPREPARED) };
    }

    /// The part of the process's first stack that may be used, once the thread on it is prepared: its lowest address, and its
    /// length. No other thread ever gets that memory for its stack, so an address tells, and the thread's own value need not be
    /// looked up, which takes a call.
    static FIRST: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

    #[inline(always)]
    fn is_on_first(here: usize) -> bool {
        !PLAIN && here.wrapping_sub(FIRST.0.load(Relaxed)) < FIRST.1.load(Relaxed)
    }

    /// Where the stack has got to: an address in it is as good as the stack pointer.
    #[inline(always)]
    fn here() -> usize {
        let here = 0_u8;
        (&raw const here).addr()
    }

    /// Prepares the thread, if it has not been here before.
    #[inline(always)]
    pub(crate) fn prepare(_: Python<'_>) {
        if !is_on_first(here()) {
            prepare_another();
        }
    }

    /// Not inline: the compiler would look the thread's own value up before the branch.
    #[inline(never)]
    fn prepare_another() {
        if LIMIT.get() == UNPREPARED {
            prepare_anew();
        }
    }

    /// Prepares the thread, if it has not been here before, and raises `RecursionError` where its stack is nearly used up.
    #[inline(always)]
    pub(crate) fn check_stack(py: Python<'_>) -> Result<(), Raised> {
        let here = here();
        if is_on_first(here) { Ok(()) } else { check_another(py, here) }
    }

    /// Not inline, either.
    #[inline(never)]
    fn check_another(py: Python<'_>, here: usize) -> Result<(), Raised> {
        if here < LIMIT.get() { look_closer(py) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn look_closer(py: Python<'_>) -> Result<(), Raised> {
        if LIMIT.get() == UNPREPARED {
            prepare_anew();
            return check_another(py, here());
        }
        Err(Raised::new::<PyRecursionError>(py, "maximum recursion depth exceeded: the thread's stack is used up"))
    }

    #[cold]
    #[inline(never)]
    fn prepare_anew() {
        super::end::stay_at_the_end();
        let limit = super::stack::lowest().map_or(0, |lowest| lowest + MARGIN);
        LIMIT.set(limit);
        if let Some(first) = super::stack::first(here()) {
            let lowest = limit.max(first.start);
            FIRST.0.store(lowest, Relaxed);
            FIRST.1.store(first.end.saturating_sub(lowest), Relaxed);
        }
    }
}

#[cfg(all(not(Py_3_14), target_os = "linux", target_env = "gnu"))]
mod end {
    use std::ffi::{c_int, c_void};
    use std::ptr::null_mut;
    use std::sync::OnceLock;

    /// glibc's `struct _pthread_cleanup_buffer`.
    #[repr(C)]
    struct Handler {
        routine: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
        cancel_type: c_int,
        previous: *mut Handler,
    }

    type Push = unsafe extern "C" fn(*mut Handler, unsafe extern "C" fn(*mut c_void), *mut c_void);
    type Pop = unsafe extern "C" fn(*mut Handler, c_int);

    /// `_pthread_cleanup_push` and `_pthread_cleanup_pop`, which glibc has for programs that were built long ago. A handler
    /// that they add runs when the frame is left that the handler is in. One that lies in no frame, but on the heap, is
    /// taken to be in a frame that has been left already: it runs before any frame is unwound.
    static FUNCTIONS: OnceLock<Option<(Push, Pop)>> = OnceLock::new();

    fn functions() -> Option<(Push, Pop)> {
        *FUNCTIONS.get_or_init(|| {
            // SAFETY: the names end with a zero. What glibc has under these names are functions of these types.
            unsafe {
                let push = libc::dlsym(libc::RTLD_DEFAULT, c"_pthread_cleanup_push".as_ptr());
                let pop = libc::dlsym(libc::RTLD_DEFAULT, c"_pthread_cleanup_pop".as_ptr());
                if push.is_null() || pop.is_null() {
                    return None;
                }
                Some((std::mem::transmute::<*mut c_void, Push>(push), std::mem::transmute::<*mut c_void, Pop>(pop)))
            }
        })
    }

    unsafe extern "C" {
        #[cfg_attr(not(Py_3_13), link_name = "_Py_IsFinalizing")]
        fn Py_IsFinalizing() -> c_int;
    }

    /// Waits for the end of the process, if it is the interpreter that ends the thread.
    unsafe extern "C" fn stay(_: *mut c_void) {
        // SAFETY: the function may be called by any thread at any time. A thread that is ended has no lock of the
        // interpreter's, nor one of ours, since foreign code was running in it.
        unsafe {
            while Py_IsFinalizing() != 0 {
                libc::pause();
            }
        }
    }

    /// The handler of a thread, for as long as that lives.
    struct Added(Box<Handler>, Pop);

    impl Drop for Added {
        fn drop(&mut self) {
            // SAFETY: the handler was added by this thread, which now ends, and no other one was added after it and is
            // still there.
            unsafe { (self.1)(&raw mut *self.0, 0) }
        }
    }

    thread_local! {
        static ADDED: std::cell::Cell<Option<Added>> = const { std::cell::Cell::new(None) };
    }

    /// From now on, an interpreter that exits makes this thread wait and unwinds none of its frames.
    pub(super) fn stay_at_the_end() {
        let Some((push, pop)) = functions() else { return };
        let mut handler =
            Box::new(Handler { routine: None, argument: null_mut(), cancel_type: 0, previous: null_mut() });
        // SAFETY: the handler stays where it is until the thread has ended or taken it out.
        unsafe { push(&raw mut *handler, stay, null_mut()) };
        // Foreign code may come here from a destructor of another thread-local value, when this one is gone. The thread has
        // not long to live then, and its handler is left where it is.
        let mut added = Some(Added(handler, pop));
        if ADDED.try_with(|place| place.set(added.take())).is_err() {
            std::mem::forget(added);
        }
    }
}

#[cfg(all(not(Py_3_14), not(all(target_os = "linux", target_env = "gnu"))))]
mod end {
    /// `pthread_exit` unwinds no frames here.
    pub(super) fn stay_at_the_end() {}
}

#[cfg(all(not(Py_3_14), any(target_os = "linux", target_os = "macos")))]
mod stack {
    /// The lowest address of this thread's stack, if it can be told.
    #[cfg_attr(target_os = "macos", allow(clippy::unnecessary_wraps, reason = "as on Linux"))]
    pub(super) fn lowest() -> Option<usize> {
        #[cfg(target_os = "linux")]
        // SAFETY: the attributes are filled in before they are read, and destroyed once. Of the main thread, whose stack
        // grows as it is used, glibc tells how far it may.
        unsafe {
            let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
            if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
                return None;
            }
            let mut attributes = attributes.assume_init();
            let (mut lowest, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
            let told = libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut size) == 0
                && libc::pthread_attr_getguardsize(&raw const attributes, &raw mut guard) == 0;
            libc::pthread_attr_destroy(&raw mut attributes);
            told.then(|| lowest.addr() + guard)
        }
        #[cfg(target_os = "macos")]
        // SAFETY: a thread may ask this of itself.
        unsafe {
            let this = libc::pthread_self();
            Some(libc::pthread_get_stackaddr_np(this).addr() - libc::pthread_get_stacksize_np(this))
        }
    }

    /// The addresses of the process's first stack that nothing else ever uses, if `here` is one of that stack.
    pub(super) fn first(here: usize) -> Option<std::ops::Range<usize>> {
        #[cfg(target_os = "linux")]
        {
            // Linux keeps much more free below that stack than this.
            const KEPT: usize = 8 << 20;
            // SAFETY: the function only reads. What it tells lies at the upper end of the first stack, above all frames.
            let end = unsafe { libc::getauxval(libc::AT_RANDOM) };
            let end = usize::try_from(end).ok().filter(|&end| end > KEPT)?;
            Some(end - KEPT..end).filter(|first| first.contains(&here))
        }
        #[cfg(target_os = "macos")]
        {
            let _ = here;
            None
        }
    }
}

#[cfg(all(not(Py_3_14), not(any(target_os = "linux", target_os = "macos"))))]
mod stack {
    /// Nobody knows.
    pub(super) fn lowest() -> Option<usize> {
        None
    }

    /// Nor this.
    pub(super) fn first(_: usize) -> Option<std::ops::Range<usize>> {
        None
    }
}
