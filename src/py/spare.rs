//! What one `await` leaves for the next: dead awaitables, and the exception that ends it from 3.12 on.
//!
//! Together they make awaiting a hit cheaper than awaiting an empty `async def`. Whatever is kept here is owned by nobody
//! else: a list of dead objects, and an exception that is used again only while it looks as new.

#![allow(unsafe_code)]

use super::ffi::Object;
use crate::sync::each_thread;
use pyo3::exceptions::{PyImportError, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};

/// An owned reference from the C API.
///
/// # Safety
/// `reference` is an owned one, and not null.
#[inline(always)]
pub(super) unsafe fn own(reference: *mut ffi::PyObject) -> Object {
    // SAFETY: as the caller says; whoever has a reference is attached.
    Object::from(unsafe { Bound::from_owned_ptr(Python::assume_attached(), reference) })
}

/// What is kept.
pub(super) struct Spare {
    /// Dead awaitables, which own nothing but their type and are unknown to the garbage collector.
    dead: [*mut ffi::PyObject; Self::MOST],
    count: usize,
    /// The exception that ends an `await`.
    stop: *mut ffi::PyStopIterationObject,
    /// How many awaitables are being given up, one inside the other, and what is still to be dropped after them.
    depth: usize,
    later: Vec<Object>,
}

// SAFETY: whoever has a `Spare` owns all that it points to, and nothing else points there.
unsafe impl Send for Spare {}

impl Spare {
    /// As many as are usually awaited at one time, and no more than 5 KB.
    const MOST: usize = 64;
    /// How deep awaitables that have one another are dropped one inside the other: a long chain would fill the stack.
    const DEEPEST: usize = 50;
    const NONE: Self = Self { dead: [null_mut(); Self::MOST], count: 0, stop: null_mut(), depth: 0, later: Vec::new() };

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

    /// Takes the value out of the exception if nobody but us has it: it must not live longer than the await it ended.
    #[inline(always)]
    fn take_stopped(&mut self) -> Option<Object> {
        if self.stop.is_null() {
            return None;
        }
        // SAFETY: the exception is ours, and so alive. There is one from 3.12 on only, where None needs no counting.
        unsafe {
            if (*self.stop).value == ffi::Py_None() || ffi::Py_REFCNT(self.stop.cast()) != 1 {
                return None;
            }
            Some(own(std::mem::replace(&mut (*self.stop).value, ffi::Py_None())))
        }
    }
}

each_thread!(static SPARE: Spare = Spare::NONE);

/// What threads have left behind that ended: they are no longer attached then, and can release nothing.
static ORPHANS: Mutex<Vec<Spare>> = Mutex::new(Vec::new());

impl Drop for Spare {
    fn drop(&mut self) {
        if self.count > 0 || !self.stop.is_null() {
            let left = std::mem::replace(self, Spare::NONE);
            ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(left);
        }
    }
}

/// Releases what ended threads have left.
pub(super) fn release_orphans() {
    let orphans = std::mem::take(&mut *ORPHANS.lock().unwrap_or_else(PoisonError::into_inner));
    for mut spare in orphans {
        while let Some(dead) = spare.pop() {
            // SAFETY: the object is dead, and only the list of the ended thread had it.
            unsafe { free(dead.as_ptr()) };
        }
        let stop = std::mem::replace(&mut spare.stop, null_mut());
        if !stop.is_null() {
            // SAFETY: it was the ended thread's own reference.
            drop(unsafe { own(stop.cast()) });
        }
    }
}

unsafe extern "C" {
    /// Brings a dead object to life: what every allocation ends with. Exported, and not declared by pyo3.
    fn _Py_NewReference(object: *mut ffi::PyObject);
}

/// Where the thread that made an awaitable keeps things.
pub(super) type Place = crate::sync::Place<Spare>;

/// Brings a dead awaitable to life, if one is kept, and says where this thread keeps things.
#[inline(always)]
pub(super) fn revive(py: Python<'_>) -> (Option<NonNull<ffi::PyObject>>, Place) {
    let (object, place) = SPARE.with_place(py, Spare::pop);
    if let Some(object) = object {
        // SAFETY: the object is dead, all its memory is there, and its reference to its type has been kept.
        unsafe { _Py_NewReference(object.as_ptr()) };
    }
    (object, place)
}

/// Keeps a dead awaitable, or gives its memory back. Returns what the exception still has, to be dropped.
///
/// # Safety
/// The object is one of our type, dead and not tracked, owns nothing else, and nobody else has it. `place` is what the thread
/// got that made it.
#[inline(always)]
pub(super) unsafe fn retire(py: Python<'_>, dead: *mut ffi::PyObject, place: Place) -> Option<Object> {
    // SAFETY: the memory of a dead object is still there; the rest is as the caller says.
    let (stopped, is_kept) =
        unsafe { SPARE.with_at(py, place, &*dead, |spare| (spare.take_stopped(), spare.push(dead))) };
    if !is_kept {
        // SAFETY: as the caller says.
        unsafe { free(dead) };
    }
    stopped
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

/// Gives the memory of a dead object back, and its reference to its type.
///
/// # Safety
/// As for [`retire`].
#[cold]
unsafe fn free(dead: *mut ffi::PyObject) {
    // SAFETY: as the caller says.
    unsafe {
        let kind = ffi::Py_TYPE(dead);
        ffi::PyObject_GC_Del(dead.cast());
        ffi::Py_DECREF(kind.cast());
    }
}

/// Ends the iteration of `object` with `value`.
///
/// # Safety
/// `place` is what the thread got that made the object.
#[cfg(Py_3_12)]
#[inline(always)]
pub(super) unsafe fn stop(py: Python<'_>, object: &ffi::PyObject, place: Place, value: Object) -> *mut ffi::PyObject {
    // SAFETY: the thread is attached. An iterator may end without an exception, which stands for None. The exception is
    // changed only when it is as new and this is the only reference to it, so that nobody sees that it is used again.
    unsafe {
        if value.as_ptr() == ffi::Py_None() {
            return null_mut();
        }
        let before = SPARE.with_at(py, place, object, |spare| {
            if spare.stop.is_null() || !is_as_new(spare.stop) {
                return None;
            }
            let before = std::mem::replace(&mut (*spare.stop).value, value.as_ptr());
            ffi::Py_INCREF(spare.stop.cast());
            Some((spare.stop, before))
        });
        let Some((stop, before)) = before else { return stop_anew(py, value) };
        std::mem::forget(value);
        if before != ffi::Py_None() {
            drop(own(before));
        }
        ffi::PyErr_SetRaisedException(stop.cast());
        null_mut()
    }
}

/// Whether nobody has the exception, and nothing hangs on it but its value.
///
/// # Safety
/// `stop` is alive.
#[cfg(Py_3_12)]
#[inline(always)]
unsafe fn is_as_new(stop: *mut ffi::PyStopIterationObject) -> bool {
    // SAFETY: the caller says that it is alive, and `check_stop` has seen that it looks like this.
    unsafe {
        ffi::Py_REFCNT(stop.cast()) == 1
            && (*stop).traceback.is_null()
            && (*stop).context.is_null()
            && (*stop).cause.is_null()
            && (*stop).dict.is_null()
            && (*stop).notes.is_null()
    }
}

/// The same with an exception that is made for it, and kept in the other's place.
#[cfg(Py_3_12)]
#[cold]
#[inline(never)]
fn stop_anew(py: Python<'_>, value: Object) -> *mut ffi::PyObject {
    let fresh = match py.get_type::<PyStopIteration>().call0() {
        Ok(fresh) => Object::from(fresh),
        Err(error) => {
            error.restore(py);
            return null_mut();
        }
    };
    let kept = fresh.clone_ref(py);
    // SAFETY: the exception is new, so nobody else has it; its value is an owned reference, and so is the one put there.
    let (before, none) = unsafe {
        let stop = fresh.as_ptr().cast::<ffi::PyStopIterationObject>();
        let none = own(std::mem::replace(&mut (*stop).value, value.into_ptr()));
        (SPARE.with(py, |spare| std::mem::replace(&mut spare.stop, kept.into_ptr().cast())), none)
    };
    drop(none);
    if !before.is_null() {
        // SAFETY: it was the reference that was kept.
        drop(unsafe { own(before.cast()) });
    }
    // SAFETY: the thread is attached, and the reference is handed over.
    unsafe { ffi::PyErr_SetRaisedException(fresh.into_ptr()) };
    null_mut()
}

/// Ends the iteration of `object` with `value`. Only for `next()` by hand: `await` does not come here.
///
/// # Safety
/// As from 3.12 on.
#[cfg(not(Py_3_12))]
#[allow(clippy::needless_pass_by_value, reason = "as from 3.12 on")]
pub(super) unsafe fn stop(py: Python<'_>, _: &ffi::PyObject, _: Place, value: Object) -> *mut ffi::PyObject {
    stop_plainly(py, &value)
}

/// Ends an iteration with an exception like any other, whose `args` are the value, too.
pub(super) fn stop_plainly(py: Python<'_>, value: &Object) -> *mut ffi::PyObject {
    // Not by its type and a value: that would take a tuple for the arguments, and an exception for the one to raise.
    match py.get_type::<PyStopIteration>().call1((value.bind(py),)) {
        Ok(stop) => PyErr::from_value(stop).restore(py),
        Err(error) => error.restore(py),
    }
    null_mut()
}

/// Whether the interpreter lays a `StopIteration` out as it is changed here.
pub(crate) fn check_stop(py: Python<'_>) -> PyResult<()> {
    let marker = PyString::new(py, "marker");
    let stop = py.get_type::<PyStopIteration>().call1((&marker,))?;
    // SAFETY: the exception is alive, and at least as large as that.
    let value = unsafe { (*stop.as_ptr().cast::<ffi::PyStopIterationObject>()).value };
    if value != marker.as_ptr() {
        return Err(PyImportError::new_err("warp_cache was built for another layout of exceptions"));
    }
    Ok(())
}
