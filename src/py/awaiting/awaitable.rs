//! The type of what a cached coroutine function returns: an object that passes for a coroutine.
//!
//! It is made by hand because pyo3 has no `am_send` slot and no free list that a hit could afford. A hit is such an object
//! with the value in it, ready; a miss has a [`PendingCall`], to which every operation is handed on. Everything that
//! decides something is there; here are the slots.
//!
//! Up to 3.11 `await` calls `am_send`, which returns the value as it is; from 3.12 on it calls `tp_iternext`, which must raise
//! `StopIteration`. asyncio's tasks call `am_send` everywhere.

#![allow(unsafe_code)]

use crate::py::awaiting::driven::attribute_of_finished;
use crate::py::awaiting::pending_call::{PendingCall, Status, Step};
use crate::py::awaiting::spare::{self, own};
use crate::py::awaiting::steps::{self, Protocol};
use crate::py::awaiting::stop;
use crate::py::error::exception;
use crate::py::ffi::{self as bridge, Arg, Given, Object, Raised};
use crate::py::method::{self, Answer, Getter, methods, slot};
use crate::py::{names, thread};
use crate::sync::is_reachable_elsewhere;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &CStr = c"warp_cache.CachedCoroutine";
const DOC: &CStr = c"What a call of a cached coroutine function returns: await it, as a coroutine.";

static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// An instance as it lies in memory.
#[repr(C)]
struct Awaitable {
    head: ffi::PyObject,
    /// The value of a hit until it is taken; an owned reference. Null for a miss.
    value: AtomicPtr<ffi::PyObject>,
    /// The call of a miss; an owned reference. Null for a hit.
    call: AtomicPtr<ffi::PyObject>,
    /// The exception that ends an await; an owned reference, or null. It stays with a dead instance.
    stop: stop::Place,
    /// Whether the garbage collector knows the instance.
    is_tracked: bool,
    /// The weak references to the instance; the interpreter's affair.
    weak_references: *mut ffi::PyObject,
}

impl Awaitable {
    /// Takes a reference out of its place. Where another thread may try to at this moment, only one gets it.
    ///
    /// The caller's own reference may be borrowed from an object that others reach: asyncio's tasks do so.
    fn take(&self, place: impl Fn(&Self) -> &AtomicPtr<ffi::PyObject>) -> Option<Object> {
        let place = place(self);
        if bridge::FREE_THREADED {
            return taken(place.swap(null_mut(), Ordering::AcqRel));
        }
        take_alone(place)
    }

    /// The same for a caller that has a reference of its own, as the interpreter's stack has while it awaits. If that is the only
    /// one, no other thread can try to.
    #[inline(always)]
    fn take_owned(&self, place: impl Fn(&Self) -> &AtomicPtr<ffi::PyObject>) -> Option<Object> {
        if is_reachable_elsewhere(&self.head) { self.take(place) } else { take_alone(place(self)) }
    }
}

/// Takes a reference out of its place, when no other thread can try to.
#[inline(always)]
fn take_alone(place: &AtomicPtr<ffi::PyObject>) -> Option<Object> {
    let reference = place.load(Ordering::Relaxed);
    place.store(null_mut(), Ordering::Relaxed);
    taken(reference)
}

/// Takes a reference out of its place in an object that nobody else can reach.
#[inline(always)]
fn take_last(place: &mut AtomicPtr<ffi::PyObject>) -> Option<Object> {
    taken(std::mem::replace(place.get_mut(), null_mut()))
}

/// The owned reference that was taken out of its place, if it was not null.
#[inline(always)]
fn taken(reference: *mut ffi::PyObject) -> Option<Object> {
    // SAFETY: only owned references are put into the places, and this one is nowhere else now.
    (!reference.is_null()).then(|| unsafe { own(reference) })
}

/// An instance with a hit's value, ready.
#[inline(always)]
pub(crate) fn ready(py: Python<'_>, value: Object) -> Result<Object, Raised> {
    make(py, Some(value), None)
}

/// An instance that does what `call` does.
pub(crate) fn pending(py: Python<'_>, call: PendingCall) -> Result<Object, Raised> {
    let call = Bound::new(py, call)?;
    make(py, None, Some(Object::from(call.into_any())))
}

#[inline(always)]
fn make(py: Python<'_>, value: Option<Object>, call: Option<Object>) -> Result<Object, Raised> {
    let instance = match spare::revive(py) {
        Some(instance) => instance.as_ptr().cast::<Awaitable>(),
        None => allocate(py)?,
    };
    // SAFETY: the instance is new, and nobody else knows it. What may be part of a cycle is shown to the collector last,
    // when the instance is complete. Of a value that is not collected itself, an instance cannot be part of one.
    unsafe {
        let is_tracked = match &value {
            Some(value) => ffi::PyType_IS_GC(ffi::Py_TYPE(value.as_ptr())) != 0,
            None => true,
        };
        (&raw mut (*instance).value).write(AtomicPtr::new(value.map_or(null_mut(), Object::into_ptr)));
        (&raw mut (*instance).call).write(AtomicPtr::new(call.map_or(null_mut(), Object::into_ptr)));
        (&raw mut (*instance).is_tracked).write(is_tracked);
        (&raw mut (*instance).weak_references).write(null_mut());
        if is_tracked {
            ffi::PyObject_GC_Track(instance.cast());
        }
        Ok(own(instance.cast()))
    }
}

#[cold]
#[inline(never)]
fn allocate(py: Python<'_>) -> Result<*mut Awaitable, Raised> {
    // SAFETY: the object is a dead instance, and only the list of an ended thread had it.
    spare::release_orphans(|dead| unsafe { free(dead.as_ptr()) });
    let kind = awaitable_type(py)?;
    // SAFETY: the thread is attached, and the type is a complete one of a fixed size whose instances are collected.
    unsafe {
        let instance = ffi::PyObject_GC_New::<Awaitable>(kind.as_type_ptr());
        if instance.is_null() {
            return Err(Raised::indicated(py));
        }
        (&raw mut (*instance).stop).write(AtomicPtr::new(null_mut()));
        Ok(instance)
    }
}

/// The instance behind the pointer that a slot gets.
///
/// # Safety
/// The interpreter has given `object` to a slot of our type, whose caller keeps it alive for `'a`.
#[inline(always)]
unsafe fn instance<'a>(object: *mut ffi::PyObject) -> &'a Awaitable {
    // SAFETY: as the caller says. Its places are only changed by atomics, or when nobody else has it.
    unsafe { &*object.cast::<Awaitable>() }
}

/// The instance that a method is called of.
fn of<'a>(this: &'a Bound<'_, PyAny>) -> &'a Awaitable {
    // SAFETY: the type's methods are called of its instances only, which the interpreter sees to, and this is alive.
    unsafe { instance(this.as_ptr()) }
}

impl Awaitable {
    /// The call of a miss.
    #[inline(always)]
    fn call<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PendingCall>> {
        let call = NonNull::new(self.call.load(Ordering::Acquire))?;
        // SAFETY: only a `PendingCall` is ever put there, and it stays until the instance is cleared by a garbage
        // collection or dies. Either way nobody who could call this is left.
        Some(unsafe { Bound::from_borrowed_ptr(py, call.as_ptr()).cast_into_unchecked() })
    }

    /// Resumes with any value.
    fn send(&self, py: Python<'_>, value: Arg<'_>) -> Result<Step, Raised> {
        if self.value.load(Ordering::Relaxed).is_null() {
            return match self.call(py) {
                Some(call) => call.get().send(py, value),
                None => Err(reused()),
            };
        }
        if !value.is_none(py) {
            return Err(exception::<PyTypeError>("can't send non-None value to a just-started coroutine").into());
        }
        self.take(|this| &this.value).map(Step::Return).ok_or_else(reused)
    }

    fn throw(&self, py: Python<'_>, error: PyErr) -> Result<Step, Raised> {
        if let Some(value) = self.take(|this| &this.value) {
            drop(value);
            return Err(error.into());
        }
        match self.call(py) {
            Some(call) => call.get().throw(py, error),
            None => Err(reused()),
        }
    }
}

#[cold]
fn reused() -> Raised {
    exception::<PyRuntimeError>("cannot reuse already awaited coroutine").into()
}

unsafe extern "C" fn am_await(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot, so the thread is attached and the object is ours and alive.
    unsafe {
        if instance(object).value.load(Ordering::Relaxed).is_null() {
            return slot(|py| {
                let status = instance(object).call(py).map_or(Status::Done, |call| call.get().status(py));
                match status {
                    Status::Fresh => Ok(Borrowed::from_ptr(py, object).to_owned().into_ptr()),
                    Status::Begun => Err(exception::<PyRuntimeError>("coroutine is being awaited already")),
                    Status::Done => Err(exception::<PyRuntimeError>("cannot reuse already awaited coroutine")),
                }
            });
        }
        ffi::Py_INCREF(object);
    }
    object
}

impl Answer for ffi::PySendResult {
    const RAISED: Self = ffi::PySendResult::PYGEN_ERROR;
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: the interpreter calls this slot, so the thread is attached, both objects are alive, ours is ours, and the
    // result may be written.
    unsafe {
        let this = instance(object);
        if value == ffi::Py_None()
            && let Some(value) = this.take(|this| &this.value)
        {
            *result = value.into_ptr();
            return ffi::PySendResult::PYGEN_RETURN;
        }
        *result = null_mut();
        slot(|py| {
            let value = Borrowed::from_ptr(py, value);
            let (sent, value) = match this.send(py, Arg::new(value.as_unbound()))? {
                Step::Yield(value) => (ffi::PySendResult::PYGEN_NEXT, value),
                Step::Return(value) => (ffi::PySendResult::PYGEN_RETURN, value),
            };
            *result = value.into_ptr();
            Ok::<_, Raised>(sent)
        })
    }
}

unsafe extern "C" fn tp_iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot, so the thread is attached and the object is ours and alive. Only one thread
    // gets a value to end the iteration with.
    unsafe {
        let this = instance(object);
        if let Some(value) = this.take_owned(|this| &this.value) {
            return stop::end(Python::assume_attached(), &this.stop, value);
        }
        slot(|py| {
            let none = py.None();
            Ok::<_, Raised>(match this.send(py, Arg::new(&none))? {
                Step::Yield(value) => value.into_ptr(),
                Step::Return(value) => stop::end(py, &this.stop, value),
            })
        })
    }
}

/// A step, as a method that drives returns it.
fn driven(py: Python<'_>, step: Result<Step, Raised>) -> PyResult<Bound<'_, PyAny>> {
    let raised = match step {
        Ok(Step::Yield(value)) => return Ok(value.into_bound(py)),
        Ok(Step::Return(value)) => {
            stop::end_plainly(py, &value);
            Raised::indicated(py)
        }
        Err(raised) => raised,
    };
    Err(raised.fetch(py))
}

methods! {
    Send(PyAny, 0) = "send" "($self, value, /)"
        "Resume, as `await` does, and return what is yielded or raise StopIteration with the result." send;
    Throw(PyAny, 0) = "throw" "($self, /, *args)"
        "Raise an exception where the coroutine is suspended: throw(exception), or throw(type, value, traceback)." throw;
    Close(PyAny, 0) = "close" "($self, /)" "Raise GeneratorExit where the coroutine is suspended." close;
    Represent(PyAny, 0) = "__repr__" "($self, /)" "Return repr(self)." represent;
    Await(PyAny, ffi::METH_COEXIST) = "__await__" "($self, /)" "Return an iterator over the steps." steps_of;
}

/// The method `send` of an awaitable.
fn send<'py>(this: &Bound<'py, PyAny>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let value = method::only("send", &given)?;
    driven(this.py(), of(this).send(this.py(), value))
}

/// The method `throw` of an awaitable.
fn throw<'py>(this: &Bound<'py, PyAny>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if given.values.is_empty() || given.values.len() > 3 || given.tuple.is_some() {
        let text = format!("throw expected 1 to 3 arguments, got {}", given.values.len());
        return Err(exception::<PyTypeError>(&text));
    }
    driven(py, of(this).throw(py, bridge::thrown(py, given.values)?))
}

/// The method `close` of an awaitable.
fn close<'py>(this: &Bound<'py, PyAny>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    method::nothing("close", &given)?;
    let py = this.py();
    drop(of(this).take(|this| &this.value));
    match of(this).call(py) {
        Some(call) => call.get().close(py).map(|closed| closed.into_bound(py)).map_err(|raised| raised.fetch(py)),
        None => Ok(py.None().into_bound(py)),
    }
}

fn steps_of<'py>(this: &Bound<'py, PyAny>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    method::nothing("__await__", &given)?;
    steps::new(this, &Protocol { send, throw, close })
}

/// The representation of an awaitable.
fn represent<'py>(this: &Bound<'py, PyAny>, _: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let name = attribute(py, of(this), c"__qualname__").map_err(|raised| raised.fetch(py)).ok().flatten();
    let name = name.map_or_else(String::new, |name| format!(" {name}"));
    method::new_text(py, &format!("<warp_cache.CachedCoroutine{name} at {:p}>", this.as_ptr()))
}

/// An attribute that coroutines have, as far as this one has it.
fn attribute<'py>(py: Python<'py>, this: &Awaitable, name: &CStr) -> Result<Option<Bound<'py, PyAny>>, Raised> {
    if let Some(call) = this.call(py) {
        return call.get().attribute(py, name);
    }
    if name == c"__name__" || name == c"__qualname__" {
        // A hit belongs to no function any more; whatever looks these two up wants to print them.
        return Ok(Some(names::of(py).cached_coroutine.bind(py).clone().into_any()));
    }
    // Until it is awaited a hit has none of the others: there is no frame, and what looks for one finds that it must wrap
    // the object into a coroutine of its own.
    let is_over = this.value.load(Ordering::Relaxed).is_null();
    Ok(if is_over { attribute_of_finished(py, name) } else { None })
}

/// The attributes of coroutines, on an awaitable.
struct Attributes;

impl Getter for Attributes {
    type Of = PyAny;

    fn get<'py>(this: &Bound<'py, PyAny>, name: &CStr) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let value = attribute(py, of(this), name).map_err(|raised| raised.fetch(py))?;
        value.ok_or_else(|| {
            let text = format!("'CachedCoroutine' object has no attribute '{}'", name.to_string_lossy());
            exception::<PyAttributeError>(&text)
        })
    }
}

unsafe extern "C" fn tp_traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector calls this slot while nothing else runs, so our object and what it owns are alive.
    unsafe {
        let this = instance(object);
        for reference in [
            ffi::Py_TYPE(object).cast(),
            this.value.load(Ordering::Relaxed),
            this.call.load(Ordering::Relaxed),
            this.stop.load(Ordering::Relaxed),
        ] {
            if !reference.is_null() {
                let result = visit(reference, arg);
                if result != 0 {
                    return result;
                }
            }
        }
        0
    }
}

unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector calls this slot on an attached thread with our object alive, which nothing else can reach.
    unsafe {
        slot(|_| {
            let this = instance(object);
            drop((this.take(|this| &this.value), this.take(|this| &this.call), this.take(|this| &this.stop)));
            Ok::<_, Raised>(0)
        })
    }
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this slot on an attached thread when nobody has a reference left. What the object
    // owns is taken out before the object is kept for another use, and dropped after that: it may be foreign code.
    unsafe {
        let py = Python::assume_attached();
        let this = object.cast::<Awaitable>();
        let is_tracked = (*this).is_tracked;
        if is_tracked {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        if !(*this).weak_references.is_null() {
            thread::prepare(py);
            ffi::PyObject_ClearWeakRefs(object);
        }
        let owned = [take_last(&mut (*this).value), take_last(&mut (*this).call)];
        let stopped = stop::recycle(&mut (*this).stop);
        if !spare::keep(py, object) {
            free(object);
        }
        drop(stopped);
        // An object that the collector need not know cannot be part of a chain, either.
        if is_tracked {
            spare::release(py, owned);
        }
    }
}

/// Gives the memory of a dead instance back, and its references to its type and its exception.
///
/// # Safety
/// The instance is dead and not tracked, owns nothing else, and nobody else has it.
#[cold]
unsafe fn free(dead: *mut ffi::PyObject) {
    // SAFETY: as the caller says.
    unsafe {
        let stop = take_last(&mut (*dead.cast::<Awaitable>()).stop);
        let kind = ffi::Py_TYPE(dead);
        ffi::PyObject_GC_Del(dead.cast());
        ffi::Py_DECREF(kind.cast());
        drop(stop);
    }
}

/// The attributes that a debugger, or asyncio, looks for on a coroutine.
const ATTRIBUTES: [&CStr; 8] =
    [c"__name__", c"__qualname__", c"cr_await", c"cr_code", c"cr_frame", c"cr_origin", c"cr_running", c"cr_suspended"];

/// The type, made when it is first asked for.
pub(crate) fn awaitable_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    TYPE.get_or_try_init(py, || make_type(py).map(Bound::unbind)).map(|kind| kind.bind(py))
}

fn make_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let methods = method::table(&[
        method::definition::<Send>(),
        method::definition::<Throw>(),
        method::definition::<Close>(),
        // In place of the one that calls the slot.
        method::definition::<Await>(),
    ]);
    let mut getters: Vec<_> = ATTRIBUTES.iter().map(|name| method::getter::<Attributes>(name, None)).collect();
    getters.push(ffi::PyGetSetDef::default());
    let getters = Box::leak(getters.into_boxed_slice());
    let members = Box::leak(Box::new([
        ffi::PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: std::mem::offset_of!(Awaitable, weak_references).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        ffi::PyMemberDef::default(),
    ]));
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast_mut().cast::<c_void>()),
        slot(ffi::Py_tp_methods, methods.cast()),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getters.as_mut_ptr().cast()),
        slot(ffi::Py_tp_repr, method::enter_alone::<Represent> as *mut c_void),
        slot(ffi::Py_tp_iternext, tp_iternext as *mut c_void),
        slot(ffi::Py_tp_traverse, tp_traverse as *mut c_void),
        slot(ffi::Py_tp_clear, tp_clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
        slot(ffi::Py_am_await, am_await as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    // SAFETY: the slots are complete; what they point to is static.
    unsafe { bridge::make_type(py, NAME, size_of::<Awaitable>(), flags, &mut slots, None) }
}
