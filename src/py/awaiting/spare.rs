//! Dead awaitables that one `await` leaves for the next, each with the exception that ends its await from 3.12 on.
//!
//! Together they make awaiting a hit cheaper than awaiting an empty `async def`. Whatever is kept here is owned by nobody
//! else: a list of dead objects, one a thread where threads run at the same time.

#![allow(unsafe_code)]

use crate::plain::PLAIN;
use crate::py::ffi::Object;
use crate::sync::each_thread;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::{NonNull, null_mut};

/// An owned reference from the C API.
///
/// # Safety
/// `reference` is an owned one, and not null.
#[inline(always)]
pub(super) unsafe fn own(reference: *mut ffi::PyObject) -> Object {
    // SAFETY: as the caller says; whoever has a reference is attached.
    Object::from(unsafe { Bound::from_owned_ptr(Python::assume_attached(), reference) })
}

/// The objects that are kept.
pub(super) struct Spare {
    /// Dead awaitables, which are unknown to the garbage collector, and own nothing but their type and an exception without a
    /// value.
    dead: [*mut ffi::PyObject; Self::MOST],
    count: usize,
    /// How many awaitables are being given up, one inside the other, and what is still to be dropped after them.
    depth: usize,
    later: Vec<Object>,
}

impl Spare {
    /// As many as are usually awaited at one time, and no more than 15 KB.
    const MOST: usize = 64;
    /// How deep awaitables that have one another are dropped one inside the other: a long chain would fill the stack.
    const DEEPEST: usize = 50;
    const NONE: Self = Self { dead: [null_mut(); Self::MOST], count: 0, depth: 0, later: Vec::new() };

    #[inline(always)]
    fn pop(&mut self) -> Option<NonNull<ffi::PyObject>> {
        self.count = self.count.checked_sub(1)?;
        NonNull::new(*self.dead.get(self.count)?)
    }

    /// Keeps the object, or returns that there is no place for it.
    #[inline(always)]
    fn push(&mut self, dead: *mut ffi::PyObject) -> bool {
        let Some(place) = self.dead.get_mut(self.count) else { return false };
        *place = dead;
        self.count += 1;
        true
    }
}

// SAFETY: whoever has a `Spare` owns all that it points to, and nothing else points there.
unsafe impl Send for Spare {}

each_thread!(static SPARE: Spare = Spare::NONE);

unsafe extern "C" {
    /// Brings a dead object to life: what every allocation ends with. Exported, and not declared by pyo3.
    fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// Brings a dead awaitable to life, if one is kept.
#[inline(always)]
pub(super) fn revive(py: Python<'_>) -> Option<NonNull<ffi::PyObject>> {
    if PLAIN {
        return None;
    }
    let object = SPARE.with(py, Spare::pop)?;
    // SAFETY: the object is dead, all its memory is there, and its reference to its type has been kept.
    unsafe { _Py_NewReference(object.as_ptr()) };
    Some(object)
}

/// Keeps a dead awaitable, or says that there is no place for it.
///
/// # Safety
/// The object is one of the awaitables' type, dead and not tracked, owns nothing else than its type and an exception without
/// a value, and nobody else has it.
#[inline(always)]
pub(super) unsafe fn keep(py: Python<'_>, dead: *mut ffi::PyObject) -> bool {
    !PLAIN && SPARE.with(py, |spare| spare.push(dead))
}

/// Drops what a dead awaitable had: at once or, if that happens deep inside the dropping of another, after that.
pub(super) fn release(py: Python<'_>, owned: [Option<Object>; 2]) {
    let depth = SPARE.with(py, |spare| {
        spare.depth += 1;
        spare.depth
    });
    if depth > Spare::DEEPEST {
        SPARE.with(py, |spare| spare.later.extend(owned.into_iter().flatten()));
    } else {
        drop(owned);
    }
    if depth == 1 {
        while let Some(object) = SPARE.with(py, |spare| spare.later.pop()) {
            drop(object);
        }
    }
    SPARE.with(py, |spare| spare.depth -= 1);
}

/// Gives back what threads have kept that ended.
#[cfg(not(Py_GIL_DISABLED))]
pub(super) fn release_orphans(_: impl Fn(NonNull<ffi::PyObject>)) {
    // With the GIL there is one list, which never ends.
}

#[cfg(Py_GIL_DISABLED)]
pub(super) use orphans::release_orphans;

/// The objects that ended threads have left behind: a thread is no longer attached at its end, and can release nothing.
#[cfg(Py_GIL_DISABLED)]
mod orphans {
    use super::{NonNull, Spare, ffi, null_mut};
    use std::sync::atomic::{AtomicPtr, Ordering};

    struct Orphan {
        spare: Spare,
        next: *mut Orphan,
    }

    /// The last one, which knows the one before. No lock: one that a thread has while another forks would stay locked in the
    /// child for ever.
    static LAST: AtomicPtr<Orphan> = AtomicPtr::new(null_mut());

    impl Drop for Spare {
        fn drop(&mut self) {
            if self.count == 0 {
                return;
            }
            let spare = std::mem::replace(self, Self::NONE);
            let orphan = Box::into_raw(Box::new(Orphan { spare, next: null_mut() }));
            let mut last = LAST.load(Ordering::Relaxed);
            loop {
                // SAFETY: nobody else knows the orphan until it is the last one.
                unsafe { (*orphan).next = last };
                match LAST.compare_exchange_weak(last, orphan, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => return,
                    Err(other) => last = other,
                }
            }
        }
    }

    /// Hands out what threads have kept that ended, to be given back.
    pub(in super::super) fn release_orphans(free: impl Fn(NonNull<ffi::PyObject>)) {
        let mut last = LAST.swap(null_mut(), Ordering::Acquire);
        while let Some(orphan) = NonNull::new(last) {
            // SAFETY: it was made by `drop`, and whoever takes the last one out has all of them for itself.
            let mut orphan = unsafe { Box::from_raw(orphan.as_ptr()) };
            last = orphan.next;
            while let Some(dead) = orphan.spare.pop() {
                free(dead);
            }
        }
    }
}
