//! The type of what a cached coroutine function returns: an object that passes for a coroutine.
//!
//! It is made by hand because pyo3 has no `am_send` slot and no free list that a hit could afford. A hit is such an object
//! with the value in it, ready; a miss has a [`PendingCall`], to which every operation is handed on. Everything that
//! decides something is there; here are the slots.
//!
//! Up to 3.11 `await` calls `am_send`, which returns the value as it is; from 3.12 on it calls `tp_iternext`, which must raise
//! `StopIteration`. asyncio's tasks call `am_send` everywhere.

#![allow(unsafe_code)]

use super::ffi::{self as bridge, Arg, Object, Raised};
use super::pending_call::{self, PendingCall, Status, Step};
use super::spare::{self, own};
use crate::sync::is_reachable_elsewhere;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, intern};
use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;
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
    /// What a miss does; an owned reference. Null for a hit.
    call: AtomicPtr<ffi::PyObject>,
    /// Whether the garbage collector knows the instance.
    is_tracked: bool,
    /// The weak references to the instance; the interpreter's affair.
    weak_references: *mut ffi::PyObject,
    /// Where the thread that made the instance keeps things.
    place: spare::Place,
}

impl Awaitable {
    /// Takes a reference out of its place. Where another thread may try to at this moment, only one gets it.
    #[inline(always)]
    fn take(&self, place: impl Fn(&Self) -> &AtomicPtr<ffi::PyObject>) -> Option<Object> {
        let place = place(self);
        let reference = if is_reachable_elsewhere(&self.head) {
            place.swap(null_mut(), Ordering::AcqRel)
        } else {
            let reference = place.load(Ordering::Relaxed);
            place.store(null_mut(), Ordering::Relaxed);
            reference
        };
        // SAFETY: what is not null there is an owned reference, and now it is nowhere else.
        (!reference.is_null()).then(|| unsafe { own(reference) })
    }
}

/// Takes a reference out of its place in an object that nobody can reach any more.
///
/// # Safety
/// Nobody can: it is dead.
#[inline(always)]
unsafe fn take_last(place: &mut AtomicPtr<ffi::PyObject>) -> Option<Object> {
    let reference = std::mem::replace(place.get_mut(), null_mut());
    // SAFETY: what is not null there is an owned reference, and now it is nowhere else.
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
    let (dead, place) = spare::revive(py);
    let instance = match dead {
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
        (&raw mut (*instance).place).write(place);
        if is_tracked {
            ffi::PyObject_GC_Track(instance.cast());
        }
        Ok(own(instance.cast()))
    }
}

#[cold]
#[inline(never)]
fn allocate(py: Python<'_>) -> Result<*mut Awaitable, Raised> {
    spare::release_orphans();
    let kind = awaitable_type(py)?;
    // SAFETY: the thread is attached, and the type is a complete one of a fixed size whose instances are collected.
    let instance = unsafe { ffi::PyObject_GC_New::<Awaitable>(kind.as_type_ptr()) };
    if instance.is_null() { Err(Raised::indicated(py)) } else { Ok(instance) }
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

impl Awaitable {
    /// What a miss does.
    #[inline(always)]
    fn call<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PendingCall>> {
        let call = NonNull::new(self.call.load(Ordering::Acquire))?;
        // SAFETY: only a `PendingCall` is ever put there, and it stays until the instance is cleared by a garbage
        // collection or dies. Either way nobody who could call this is left.
        Some(unsafe { Bound::from_borrowed_ptr(py, call.as_ptr()).cast_into_unchecked() })
    }

    /// Resumes the call. A hit that is ready was asked before.
    fn resume(&self, value: Arg<'_>) -> Result<Step, Raised> {
        Python::attach(|py| match self.call(py) {
            Some(call) => call.get().send(py, value),
            None => Err(reused()),
        })
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
    PyRuntimeError::new_err("cannot reuse already awaited coroutine").into()
}

unsafe extern "C-unwind" fn am_await(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot, so the thread is attached and the object is ours and alive.
    let (py, this) = unsafe { (Python::assume_attached(), instance(object)) };
    if this.value.load(Ordering::Relaxed).is_null() {
        let status = this.call(py).map_or(Status::Done, |call| call.get().status(py));
        let message = match status {
            Status::Fresh => None,
            Status::Begun => Some("coroutine is being awaited already"),
            Status::Done => Some("cannot reuse already awaited coroutine"),
        };
        if let Some(message) = message {
            PyRuntimeError::new_err(message).restore(py);
            return null_mut();
        }
    }
    // SAFETY: the object is alive.
    unsafe { ffi::Py_INCREF(object) };
    object
}

unsafe extern "C-unwind" fn am_send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: the interpreter calls this slot, so the thread is attached, both objects are alive, ours is ours, and the
    // result may be written.
    let (py, this, is_none, result) =
        unsafe { (Python::assume_attached(), instance(object), value == ffi::Py_None(), &mut *result) };
    if is_none && let Some(value) = this.take(|this| &this.value) {
        *result = value.into_ptr();
        return ffi::PySendResult::PYGEN_RETURN;
    }
    // SAFETY: the value is alive while the slot runs.
    match unsafe { send(py, this, value) } {
        Ok(Step::Yield(value)) => {
            *result = value.into_ptr();
            ffi::PySendResult::PYGEN_NEXT
        }
        Ok(Step::Return(value)) => {
            *result = value.into_ptr();
            ffi::PySendResult::PYGEN_RETURN
        }
        Err(_) => {
            *result = null_mut();
            ffi::PySendResult::PYGEN_ERROR
        }
    }
}

/// Resumes with any value.
///
/// # Safety
/// `value` is alive while this runs.
unsafe fn send(py: Python<'_>, this: &Awaitable, value: *mut ffi::PyObject) -> Result<Step, Raised> {
    // SAFETY: as the caller says.
    let value = unsafe { Borrowed::from_ptr(py, value) };
    let value = value.as_unbound();
    if this.value.load(Ordering::Relaxed).is_null() {
        return this.resume(Arg::new(value));
    }
    if !value.is_none(py) {
        return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine").into());
    }
    this.take(|this| &this.value).map(Step::Return).ok_or_else(reused)
}

unsafe extern "C-unwind" fn tp_iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot, so the thread is attached and the object is ours and alive.
    let (py, this) = unsafe { (Python::assume_attached(), instance(object)) };
    // SAFETY: the place is the one that was got when the object was made.
    let stop = |value| unsafe { spare::stop(py, &this.head, this.place, value) };
    if let Some(value) = this.take(|this| &this.value) {
        return stop(value);
    }
    // SAFETY: None is alive.
    match unsafe { send(py, this, ffi::Py_None()) } {
        Ok(Step::Yield(value)) => value.into_ptr(),
        Ok(Step::Return(value)) => stop(value),
        Err(_) => null_mut(),
    }
}

/// What a method that drives returns.
fn driven(py: Python<'_>, step: Result<Step, Raised>) -> *mut ffi::PyObject {
    match step {
        Ok(Step::Yield(value)) => value.into_ptr(),
        Ok(Step::Return(value)) => spare::stop_plainly(py, &value),
        Err(_) => null_mut(),
    }
}

unsafe extern "C-unwind" fn method_send(object: *mut ffi::PyObject, value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this method, so the thread is attached and both objects are alive and ours is ours.
    unsafe {
        let py = Python::assume_attached();
        driven(py, send(py, instance(object), value))
    }
}

unsafe extern "C-unwind" fn method_throw(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this method, so the thread is attached, our object is alive, and there are that many
    // arguments, alive for the call. `Arg` is transparent over the pointer.
    let (this, args) = unsafe {
        let count = count.unsigned_abs();
        (instance(object), if count == 0 { &[][..] } else { std::slice::from_raw_parts(args.cast::<Arg<'_>>(), count) })
    };
    Python::attach(|py| {
        if args.is_empty() || args.len() > 3 {
            let message = format!("throw expected 1 to 3 arguments, got {}", args.len());
            PyTypeError::new_err(message).restore(py);
            return null_mut();
        }
        match bridge::thrown(py, args) {
            Ok(error) => driven(py, this.throw(py, error)),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn method_await(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this method, so the thread is attached and the object is alive.
    let object = unsafe { Borrowed::from_ptr(Python::assume_attached(), object) };
    Python::attach(|py| match Bound::new(py, Steps(object.to_owned().unbind())) {
        Ok(steps) => steps.into_any().into_ptr(),
        Err(error) => {
            error.restore(py);
            null_mut()
        }
    })
}

/// What `__await__()` returns when it is called by name: `await` itself needs no iterator but the object.
///
/// The object is no iterator, as a coroutine is none; but `yield from f(x).__await__()` asks for one.
#[pyclass(frozen, name = "_CachedCoroutineSteps", module = "warp_cache")]
struct Steps(Py<PyAny>);

#[pymethods]
impl Steps {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.send(&py.None().into_bound(py))
    }

    fn send<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(value.py()).call_method1(intern!(value.py(), "send"), (value,))
    }

    #[pyo3(signature = (*args))]
    fn throw<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(args.py()).call_method1(intern!(args.py(), "throw"), args)
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).call_method0(intern!(py, "close"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

unsafe extern "C-unwind" fn method_close(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this method, so the thread is attached and the object is ours and alive.
    let this = unsafe { instance(object) };
    Python::attach(|py| {
        drop(this.take(|this| &this.value));
        let closed = this.call(py).map_or_else(|| Ok(py.None().into()), |call| call.get().close(py));
        closed.map_or(null_mut(), Object::into_ptr)
    })
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot, so the thread is attached and the object is ours and alive.
    let this = unsafe { instance(object) };
    Python::attach(|py| {
        let name = attribute(py, this, "__qualname__").ok().flatten();
        let name = name.map_or_else(String::new, |name| format!(" {name}"));
        let text = format!("<warp_cache.CachedCoroutine{name} at {object:p}>");
        PyString::new(py, &text).into_any().into_ptr()
    })
}

/// An attribute that coroutines have, as far as this one has it.
fn attribute<'py>(py: Python<'py>, this: &'py Awaitable, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(call) = this.call(py) {
        return call.get().attribute(py, name);
    }
    if name.ends_with("name__") {
        // A hit belongs to no function any more; whatever looks these two up wants to print them.
        return Ok(Some(PyString::new(py, "CachedCoroutine").into_any()));
    }
    // Until it is awaited a hit has none of the others: there is no frame, and what looks for one finds that it must wrap
    // the object into a coroutine of its own.
    let is_over = this.value.load(Ordering::Relaxed).is_null();
    Ok(if is_over { pending_call::attribute_of_finished(py, name) } else { None })
}

unsafe extern "C" fn get_attribute(object: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this getter, so the thread is attached and the object is ours and alive; the name is
    // the one that stands beside this function in `GETTERS`.
    let (this, name) = unsafe { (instance(object), CStr::from_ptr(name.cast_const().cast())) };
    let name = name.to_str().unwrap_or_default();
    Python::attach(|py| {
        let value = attribute(py, this, name).and_then(|value| {
            value
                .ok_or_else(|| PyAttributeError::new_err(format!("'CachedCoroutine' object has no attribute '{name}'")))
        });
        match value {
            Ok(value) => value.into_ptr(),
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    })
}

unsafe extern "C" fn tp_traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector calls this slot while nothing else runs, so our object and what it owns are alive.
    unsafe {
        let this = instance(object);
        for reference in
            [ffi::Py_TYPE(object).cast(), this.value.load(Ordering::Relaxed), this.call.load(Ordering::Relaxed)]
        {
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
    let this = unsafe { instance(object) };
    drop((this.take(|this| &this.value), this.take(|this| &this.call)));
    0
}

unsafe extern "C-unwind" fn tp_dealloc(object: *mut ffi::PyObject) {
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
            ffi::PyObject_ClearWeakRefs(object);
        }
        let owned = [take_last(&mut (*this).value), take_last(&mut (*this).call)];
        drop(spare::retire(py, object, (*this).place));
        // What the collector need not know cannot be part of a chain, either.
        if is_tracked {
            spare::release(py, owned);
        }
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
    type Plain = unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;
    type Fast =
        unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut *mut ffi::PyObject, ffi::Py_ssize_t) -> *mut ffi::PyObject;
    let method = |name: &'static CStr, meth, flags, doc: &'static CStr| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: meth,
        ml_flags: flags,
        ml_doc: doc.as_ptr(),
    };
    // SAFETY: the ABIs differ only in what may unwind; see `Entry`.
    let (send, throw, close) = unsafe {
        (
            transmute::<Plain, ffi::PyCFunction>(method_send),
            transmute::<Fast, ffi::PyCFunctionFast>(method_throw),
            transmute::<Plain, ffi::PyCFunction>(method_close),
        )
    };
    // The type has pointers into these for as long as it lives, which is for ever.
    let methods = Box::leak(Box::new([
        method(
            c"send",
            ffi::PyMethodDefPointer { PyCFunction: send },
            ffi::METH_O,
            c"send($self, value, /)\n--\n\nResume, as `await` does, and return what is yielded or raise StopIteration with the result.",
        ),
        method(
            c"throw",
            ffi::PyMethodDefPointer { PyCFunctionFast: throw },
            ffi::METH_FASTCALL,
            c"Raise an exception where the coroutine is suspended: throw(exception), or throw(type, value, traceback).",
        ),
        method(
            c"close",
            ffi::PyMethodDefPointer { PyCFunction: close },
            ffi::METH_NOARGS,
            c"close($self, /)\n--\n\nRaise GeneratorExit where the coroutine is suspended.",
        ),
        method(
            c"__await__",
            ffi::PyMethodDefPointer { PyCFunction: method_await },
            // In place of the one that calls the slot.
            ffi::METH_NOARGS | ffi::METH_COEXIST,
            c"__await__($self, /)\n--\n\nReturn an iterator over the steps.",
        ),
        ffi::PyMethodDef::zeroed(),
    ]));
    let mut getters: Vec<_> = ATTRIBUTES
        .iter()
        .map(|name| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get_attribute),
            set: None,
            doc: std::ptr::null(),
            closure: name.as_ptr().cast_mut().cast::<c_void>(),
        })
        .collect();
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
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getters.as_mut_ptr().cast()),
        slot(ffi::Py_tp_repr, tp_repr as *mut c_void),
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
