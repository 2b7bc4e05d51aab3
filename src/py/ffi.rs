//! Every call of Python's C API that pyo3 has no safe form for, each behind a function that is safe to call.
//!
//! Four things need it: the vectorcall protocol, by which a call reaches us as an array of borrowed references with no
//! tuple and no dict made; hashing and comparing the commonest types inline; reading and making objects of these types for
//! other processes; and dropping references on a path where pyo3 does not know that the thread is attached.

#![allow(unsafe_code)]

use super::thread;
use crate::backend::memory::Match;
use crate::reserve;
pub(crate) use crate::sync::FREE_THREADED;
use pyo3::exceptions::{PyBaseException, PyDeprecationWarning, PyImportError, PySystemError, PyTypeError};
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyBool, PyDict, PyString, PyTraceback, PyTuple, PyType};
use pyo3::{PyClass, PyTypeInfo};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

/// The error of a step after which Python's own error indicator is set.
///
/// On the call's path an exception stays where it was raised: it is neither fetched nor restored.
#[derive(Debug)]
pub(crate) struct Raised(());

impl From<PyErr> for Raised {
    #[cold]
    fn from(error: PyErr) -> Self {
        // SAFETY: an error only comes from an attached thread, in this crate.
        error.restore(unsafe { Python::assume_attached() });
        Raised(())
    }
}

impl Raised {
    /// The error that a function of the C API has just set.
    #[cold]
    pub(super) fn indicated(_: Python<'_>) -> Self {
        Raised(())
    }

    /// Raises an exception of that class.
    ///
    /// Where there is no memory for its text, what is raised is a `MemoryError`. pyo3's own errors are made when they are
    /// raised, and panic there.
    #[cold]
    pub(crate) fn new<T: PyTypeInfo>(py: Python<'_>, text: &str) -> Self {
        // SAFETY: the thread is attached, the text is as long as said, and the class is one of exceptions. Where there is no
        // text, the error is set already.
        unsafe {
            let text = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed());
            if !text.is_null() {
                ffi::PyErr_SetObject(T::type_object_raw(py).cast(), text);
                ffi::Py_DECREF(text);
            }
        }
        Raised(())
    }

    /// Takes the exception out of the error indicator.
    ///
    /// `PyErr::fetch` is no way to do so: it begins to panic when it meets a `PanicException`, which is a class like any
    /// other to whoever finds it.
    #[cold]
    #[allow(clippy::unused_self, reason = "having one is what says that there is an exception")]
    pub(crate) fn fetch(self, py: Python<'_>) -> PyErr {
        take_error(py).unwrap_or_else(|| PySystemError::new_err("an error was reported, and no exception was set"))
    }
}

/// Raises `MemoryError` where nothing that needs memory should be begun.
#[inline(always)]
pub(crate) fn check_memory(py: Python<'_>) -> Result<(), Raised> {
    if reserve::is_short() { Err(no_memory(py)) } else { Ok(()) }
}

#[cold]
fn no_memory(_: Python<'_>) -> Raised {
    // SAFETY: the thread is attached.
    unsafe { ffi::PyErr_NoMemory() };
    Raised(())
}

/// Runs `body`, and tells pyo3 that the thread is attached. Only called where it is: by what the interpreter calls, and by what
/// owns an [`Object`].
pub(crate) fn attached<R>(body: impl FnOnce(Python<'_>) -> R) -> R {
    // SAFETY: the thread is attached, so that the interpreter runs.
    unsafe { Python::attach_unchecked(body) }
}

/// Takes the exception that is set out of the error indicator.
pub(crate) fn take_error(py: Python<'_>) -> Option<PyErr> {
    // SAFETY: the thread is attached. What the indicator had is owned by whoever takes it, and it is an instance of an
    // exception once it has been normalized.
    unsafe {
        #[cfg(Py_3_12)]
        let exception = ffi::PyErr_GetRaisedException();
        #[cfg(not(Py_3_12))]
        let exception = {
            let (mut kind, mut exception, mut traceback) =
                (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
            ffi::PyErr_Fetch(&raw mut kind, &raw mut exception, &raw mut traceback);
            if kind.is_null() {
                return None;
            }
            ffi::PyErr_NormalizeException(&raw mut kind, &raw mut exception, &raw mut traceback);
            if !traceback.is_null() {
                ffi::PyException_SetTraceback(exception, traceback);
            }
            ffi::Py_XDECREF(traceback);
            ffi::Py_XDECREF(kind);
            exception
        };
        Bound::from_owned_ptr_or_opt(py, exception).map(PyErr::from_value)
    }
}

/// A reference that a cache owns.
///
/// Unlike `Py`, whose drop first asks pyo3 whether the thread is attached and else puts it off, this one is released at
/// once. A vectorcall does not pass through pyo3, so pyo3 would not know.
#[repr(transparent)]
pub(crate) struct Object<T = PyAny>(ManuallyDrop<Py<T>>);

impl<T> std::fmt::Debug for Object<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Object({:p})", self.as_ptr())
    }
}

impl<T> Object<T> {
    /// The same reference, as pyo3 has it while the thread is known to be attached.
    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, T> {
        // SAFETY: the reference is owned, is of that type, and is handed over.
        unsafe { Bound::from_owned_ptr(py, self.into_ptr()).cast_into_unchecked() }
    }

    /// Another owned reference to the same object.
    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self::from(self.0.clone_ref(py))
    }

    #[inline]
    pub(super) fn into_ptr(self) -> *mut ffi::PyObject {
        ManuallyDrop::new(self).as_ptr()
    }
}

impl<T> From<Py<T>> for Object<T> {
    #[inline]
    fn from(reference: Py<T>) -> Self {
        Self(ManuallyDrop::new(reference))
    }
}

impl<T> From<Bound<'_, T>> for Object<T> {
    #[inline]
    fn from(reference: Bound<'_, T>) -> Self {
        Self::from(reference.unbind())
    }
}

impl<T> Deref for Object<T> {
    type Target = Py<T>;

    #[inline]
    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> Drop for Object<T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this owns the reference. Objects live in a `CachedFunction` and on its methods' stacks, and both are
        // only ever dropped on an attached thread: the methods are called by Python, the rest by `tp_clear` or `tp_dealloc`.
        unsafe { python::release(self.0.as_ptr()) }
    }
}

/// An argument: a reference that the caller owns for as long as the call takes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Arg<'a>(NonNull<ffi::PyObject>, PhantomData<&'a Py<PyAny>>);

impl<'a> Arg<'a> {
    pub(crate) fn new(reference: &'a Py<PyAny>) -> Self {
        // SAFETY: a `Py` is never null.
        Self(unsafe { NonNull::new_unchecked(reference.as_ptr()) }, PhantomData)
    }
}

impl Deref for Arg<'_> {
    type Target = Py<PyAny>;

    #[inline]
    fn deref(&self) -> &Py<PyAny> {
        // SAFETY: `Py` is transparent over the same pointer, the object is alive for `'a`, and a shared reference to a `Py`
        // never drops it.
        unsafe { &*(&raw const self.0).cast::<Py<PyAny>>() }
    }
}

/// The values, if all are there.
#[inline]
pub(crate) fn all_present<'s, 'a>(values: &'s [Option<Arg<'a>>]) -> Option<&'s [Arg<'a>]> {
    // SAFETY: an `Arg` is transparent over a pointer that is never null, so an `Option` of one that is not `None` is an `Arg`.
    values.iter().all(Option::is_some).then(|| unsafe { &*(std::ptr::from_ref(values) as *const [Arg<'a>]) })
}

/// The items of a tuple, and of anything else none.
#[inline]
pub(crate) fn items<'a>(tuple: Arg<'a>) -> &'a [Arg<'a>] {
    let tuple = tuple.as_ptr();
    // SAFETY: the object is a tuple where its items are read. A tuple does not change once it is shared, it holds its items
    // for as long as it lives, which is `'a`, and `Arg` is transparent over a pointer that is never null.
    unsafe {
        if ffi::PyTuple_Check(tuple) == 0 {
            return &[];
        }
        let first = (&raw const (*tuple.cast::<ffi::PyTupleObject>()).ob_item).cast::<Arg<'a>>();
        std::slice::from_raw_parts(first, ffi::PyTuple_GET_SIZE(tuple).unsigned_abs())
    }
}

/// A call as the vectorcall protocol delivers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
    _caller: PhantomData<&'a ()>,
}

impl<'a> Call<'a> {
    /// The call of a method with `positional` arguments at `args`, and then those with names.
    ///
    /// # Safety
    /// The interpreter has called a method in this way, whose arguments it keeps alive for `'a`.
    pub(super) unsafe fn new(args: *const *mut ffi::PyObject, positional: usize, names: *mut ffi::PyObject) -> Self {
        Self { args, nargsf: positional, kwnames: names, _caller: PhantomData }
    }

    /// The argument, if there is just one and it has no name.
    #[inline(always)]
    pub(crate) fn lone(&self) -> Option<Arg<'a>> {
        if self.kwnames.is_null() && self.positional() == 1 {
            // SAFETY: the protocol gives `positional()` borrowed references at `args`, valid for the call, and `Arg` is
            // transparent over one.
            Some(unsafe { *self.args.cast::<Arg<'a>>() })
        } else {
            None
        }
    }

    /// How many of the values have no name.
    #[inline]
    fn positional(&self) -> usize {
        // The top bit says that the callee may use the place before the array. It is passed on, not used.
        self.nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET
    }

    /// The arguments, if none has a name and they are from `least` to `most`.
    #[inline(always)]
    pub(crate) fn unnamed(&self, (least, most): (usize, usize)) -> Option<&'a [Arg<'a>]> {
        let count = self.positional();
        if !self.kwnames.is_null() || count < least || count > most {
            return None;
        }
        // SAFETY: the protocol gives that many borrowed references at `args`, valid for the call, `Arg` is transparent over
        // one, and the pointer is not null where there are any.
        Some(if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.args.cast::<Arg<'a>>(), count) } })
    }

    /// The arguments.
    #[inline(always)]
    pub(crate) fn given(&self) -> Given<'a> {
        let tuple = NonNull::new(self.kwnames).map(|names| Arg(names, PhantomData));
        let names = tuple.map_or(&[][..], items);
        let positional = self.positional();
        let count = positional + names.len();
        let values = if count == 0 {
            &[]
        } else {
            // SAFETY: the protocol gives that many borrowed references at `args`, valid for the call, and `Arg` is
            // transparent over one.
            unsafe { std::slice::from_raw_parts(self.args.cast::<Arg<'a>>(), count) }
        };
        Given { values, positional, names, tuple: tuple.filter(|_| !names.is_empty()) }
    }

    /// Calls `function` with the same arguments.
    #[inline]
    pub(crate) fn forward(&self, py: Python<'_>, function: &Py<PyAny>) -> Result<Object, Raised> {
        let function = function.as_ptr();
        // SAFETY: the array, its length and the names are those that the caller vouches for until this call ends. What the
        // function's own slot holds is called as `PyObject_Vectorcall` would call it.
        let call = || unsafe { owned(python::vectorcall_of(function)(function, self.args, self.nargsf, self.kwnames)) };
        // From 3.12 on, a function of Python counts against a limit for C code, and itself.
        // SAFETY: the function is alive.
        if cfg!(Py_3_12) && unsafe { ffi::Py_TYPE(function) } == &raw mut ffi::PyFunction_Type {
            thread::check_stack(py)?;
            return call();
        }
        one_deeper(py, call)
    }
}

/// Runs `body`, which calls Python, one level deeper: as deep as a callable is that has no vectorcall slot, which
/// `functools.lru_cache` has none of. Raises `RecursionError` where that is too deep.
#[inline(always)]
pub(crate) fn one_deeper<R>(py: Python<'_>, body: impl FnOnce() -> Result<R, Raised>) -> Result<R, Raised> {
    thread::check_stack(py)?;
    // SAFETY: the thread is attached, the text ends with a zero, and what is entered is left.
    unsafe {
        if ffi::Py_EnterRecursiveCall(c" while calling a Python object".as_ptr()) != 0 {
            return Err(Raised(()));
        }
        let result = body();
        ffi::Py_LeaveRecursiveCall();
        result
    }
}

/// Calls `function` with `values`, the last of which have these names.
pub(crate) fn call(
    py: Python<'_>,
    function: &Py<PyAny>,
    values: &[Arg<'_>],
    names: Option<Arg<'_>>,
) -> Result<Object, Raised> {
    let function = function.as_ptr();
    let positional = values.len() - names.map_or(0, |names| items(names).len());
    let names = names.map_or(std::ptr::null_mut(), |names| names.as_ptr());
    thread::prepare(py);
    // SAFETY: the thread is attached; `Arg` is transparent over a borrowed reference, and there are as many without a name
    // as said, and then as many as there are names.
    owned(unsafe { python::vectorcall_of(function)(function, values.as_ptr().cast(), positional, names) })
}

/// The arguments of a call: values without a name, then values with one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    /// All values, those without a name first.
    pub(crate) values: &'a [Arg<'a>],
    /// How many have no name.
    pub(crate) positional: usize,
    /// The names of the rest.
    pub(crate) names: &'a [Arg<'a>],
    /// The tuple of the names, if there are any.
    pub(crate) tuple: Option<Arg<'a>>,
}

impl Given<'_> {
    /// No arguments.
    pub(crate) const NOTHING: Self = Self { values: &[], positional: 0, names: &[], tuple: None };
}

/// A new reference from the C API, or the error that it has set.
#[inline]
fn owned(result: *mut ffi::PyObject) -> Result<Object, Raised> {
    if result.is_null() {
        return Err(Raised(()));
    }
    // SAFETY: a function of the C API that returns a new reference returned this one, and it is not null.
    Ok(Object::from(unsafe { Bound::from_owned_ptr(Python::assume_attached(), result) }.unbind()))
}

/// How a class answers calls; a type of its own, so that one class can have several.
pub(crate) trait Entrance {
    /// The class whose instances are called.
    type Class: PyClass<Frozen = True> + Sync;

    /// Answers a call.
    fn call(callable: &Py<Self::Class>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised>;
}

/// What the vectorcall slot of an instance points to.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Entry(#[allow(dead_code, reason = "read by the interpreter")] ffi::vectorcallfunc);

impl Entry {
    /// The entry that answers by `E`. Only for instances of `E::Class` and of types derived from it.
    pub(crate) fn of<E: Entrance>() -> Self {
        Self(enter::<E>)
    }
}

unsafe extern "C" fn enter<E: Entrance>(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this, so the thread is attached.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter found this function in the instance's own slot, so the instance is one of the class, and the
    // caller keeps it alive for the call. `Py` is transparent over the pointer.
    let instance = unsafe { &*(&raw const callable).cast::<Py<E::Class>>() };
    let call = Call { args, nargsf, kwnames, _caller: PhantomData };
    match E::call(instance, py, call) {
        Ok(value) => value.into_ptr(),
        Err(Raised(())) => std::ptr::null_mut(),
    }
}

/// Runs `body` and turns a panic, a bug of ours or a failure that pyo3 has no error for, into an exception: it must not unwind
/// into C, and an exception says more than a dead process. Not for the work of a hit: it would make one a sixth slower.
#[inline(always)]
pub(crate) fn guarded<R>(py: Python<'_>, body: impl FnOnce() -> R) -> Result<R, Raised> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| panicked(py, payload.as_ref()))
}

#[cold]
#[inline(never)]
fn panicked(py: Python<'_>, payload: &(dyn std::any::Any + Send)) -> Raised {
    let text = text_of(payload);
    if text == NO_OBJECT {
        return no_memory(py);
    }
    Raised::new::<PanicException>(py, text)
}

/// What pyo3 panics with where the interpreter makes no object, which is for want of memory.
const NO_OBJECT: &str = "PyObject pointer is null";

fn text_of(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a bug in warp_cache")
}

/// Keeps panics from being reported that are exceptions a moment later; see [`panicked`].
pub(crate) fn report_bugs_only() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if text_of(panic.payload()) != NO_OBJECT {
            report(panic);
        }
    }));
}

/// Functions of the C API that may run foreign code. Each prepares the thread; see [`thread`].
mod python {
    use super::{ffi, thread};
    use crate::sync::FREE_THREADED;
    use pyo3::prelude::*;

    /// What the object's vectorcall slot holds, or what calls an object that has none. The exported function that finds it
    /// costs a call.
    ///
    /// # Safety
    /// `callable` is alive.
    #[inline(always)]
    pub(super) unsafe fn vectorcall_of(callable: *mut ffi::PyObject) -> ffi::vectorcallfunc {
        // SAFETY: the caller says that the object is alive. Its type has the flag only if its instances have the slot, at that
        // offset.
        unsafe {
            let kind = ffi::Py_TYPE(callable);
            if ffi::PyType_HasFeature(kind, ffi::Py_TPFLAGS_HAVE_VECTORCALL) != 0 {
                let slot = callable.byte_offset((*kind).tp_vectorcall_offset).cast::<Option<ffi::vectorcallfunc>>();
                if let Some(target) = *slot {
                    return target;
                }
            }
            make_call
        }
    }

    /// Calls an object that has no vectorcall slot.
    ///
    /// # Safety
    /// As for any vectorcall.
    #[cold]
    unsafe extern "C" fn make_call(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        kwnames: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject {
        // SAFETY: as the caller says. Up to 3.10 it is no function of the interpreter, but one of pyo3.
        unsafe { ffi::PyObject_Vectorcall(callable, args, nargsf, kwnames) }
    }

    /// `hash(object)`.
    ///
    /// # Safety
    /// `object` is alive.
    #[inline(always)]
    pub(super) unsafe fn hash(py: Python<'_>, object: *mut ffi::PyObject) -> ffi::Py_hash_t {
        thread::prepare(py);
        // SAFETY: as the caller says.
        unsafe { ffi::PyObject_Hash(object) }
    }

    /// `one is other or one == other`: 0, 1, or -1 with an exception.
    ///
    /// # Safety
    /// Both objects are alive.
    pub(super) unsafe fn are_equal(py: Python<'_>, one: *mut ffi::PyObject, other: *mut ffi::PyObject) -> i32 {
        thread::prepare(py);
        // SAFETY: as the caller says.
        unsafe { ffi::PyObject_RichCompareBool(one, other, ffi::Py_EQ) }
    }

    /// Gives up a reference.
    ///
    /// # Safety
    /// The thread is attached, and the reference is the caller's own.
    #[inline(always)]
    pub(super) unsafe fn release(object: *mut ffi::PyObject) {
        // SAFETY: as the caller says. Only the last reference leads into Python, and where another thread may give up the
        // others meanwhile, every one may be the last.
        unsafe {
            if FREE_THREADED || ffi::Py_REFCNT(object) == 1 {
                release_last(object);
            } else {
                ffi::Py_DECREF(object);
            }
        }
    }

    /// The same for what may be the last reference. Not inline, so that what drops references is.
    ///
    /// # Safety
    /// As above.
    #[inline(never)]
    unsafe fn release_last(object: *mut ffi::PyObject) {
        // SAFETY: as the caller says.
        unsafe {
            thread::prepare(Python::assume_attached());
            ffi::Py_DECREF(object);
        }
    }
}

/// Makes a type, of instances of that many bytes, or of as many as the base's.
///
/// # Safety
/// The slots end with an empty one, are functions of the kinds that they are for, and point to what lives for ever.
pub(super) unsafe fn make_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: &mut [ffi::PyType_Slot],
    base: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyType>> {
    let too_large = || PyImportError::new_err("the description of a type does not fit");
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size.try_into().map_err(|_| too_large())?,
        itemsize: 0,
        // A C long is as wide as an int on some systems.
        #[allow(clippy::useless_conversion)]
        flags: flags.try_into().map_err(|_| too_large())?,
        slots: slots.as_mut_ptr(),
    };
    let bases = base.map(|base| PyTuple::new(py, [base])).transpose()?;
    let bases = bases.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: the caller says that the slots are complete; spec and slots outlive this call, and the name is static.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&raw mut spec, bases))? };
    Ok(made.cast_into::<PyType>()?)
}

/// The layout of an int: where its digits are, and the word that has their number.
#[repr(C)]
struct Int {
    head: ffi::PyObject,
    tag: isize,
    digit: u32,
}

/// What the tag of an int says, which 3.12 changed.
mod int_tag {
    /// The value of an int of at most one digit, times that digit.
    #[cfg(Py_3_12)]
    #[inline]
    pub(super) fn sign_of_compact(tag: isize) -> Option<isize> {
        // Two bits of sign (0 positive, 1 zero, 2 negative), a bit that marks cached ints from 3.14 on, then the number of digits.
        (tag < 2 << 3).then_some(1 - (tag & 3))
    }

    /// The same.
    #[cfg(not(Py_3_12))]
    #[inline]
    pub(super) fn sign_of_compact(tag: isize) -> Option<isize> {
        (-1..=1).contains(&tag).then_some(tag)
    }

    /// Sign and number of digits, as one number.
    #[inline]
    pub(super) fn shape(tag: isize) -> isize {
        if cfg!(Py_3_12) { tag & !4 } else { tag }
    }

    /// Whether an int of several digits is less than 0.
    #[cfg(unix)]
    #[inline]
    pub(super) fn is_negative(tag: isize) -> bool {
        if cfg!(Py_3_12) { tag & 3 == 2 } else { tag < 0 }
    }

    /// The number of digits.
    #[inline]
    pub(super) fn digits(tag: isize) -> usize {
        if cfg!(Py_3_12) { tag.unsigned_abs() >> 3 } else { tag.unsigned_abs() }
    }
}

/// The value of an int of one digit, and nothing for larger ones.
///
/// # Safety
/// `object` is an int or a bool.
#[inline]
unsafe fn compact(object: *mut ffi::PyObject) -> Option<isize> {
    // SAFETY: the caller says that it is an int, and `check_layouts` has seen that ints look like this.
    let int = unsafe { &*object.cast::<Int>() };
    // A digit has at most 30 bits; an int of no digits still has the place of one.
    int_tag::sign_of_compact(int.tag).map(|sign| sign * int.digit.cast_signed() as isize)
}

/// `hash(object)`, inline for small ints and for strings that were hashed before.
#[inline(always)]
pub(crate) fn hash(object: Arg<'_>) -> Result<isize, Raised> {
    hash_telling(object).map(|(hash, _)| hash)
}

/// The same, and whether the hash tells the value: of all small ints, only the object's equals have it.
#[inline(always)]
pub(crate) fn hash_telling(object: Arg<'_>) -> Result<(isize, bool), Raised> {
    let object = object.as_ptr();
    // SAFETY: the object is alive, and its type is looked at before its layout is relied on.
    unsafe {
        let kind = ffi::Py_TYPE(object);
        if kind == &raw mut ffi::PyLong_Type {
            if let Some(value) = compact(object) {
                // As every hash, it is never -1, which stands for an error: -1 and -2 share theirs.
                return Ok(if value == -1 { (-2, false) } else { (value, value != -2) });
            }
        } else if kind == &raw mut ffi::PyUnicode_Type {
            let hash = std::sync::atomic::AtomicIsize::from_ptr(&raw mut (*object.cast::<ffi::PyASCIIObject>()).hash)
                .load(std::sync::atomic::Ordering::Relaxed);
            if hash != -1 {
                return Ok((hash, false));
            }
        }
        match python::hash(Python::assume_attached(), object) {
            -1 => Err(Raised(())),
            hash => Ok((hash, false)),
        }
    }
}

/// Whether the object is an int or a str and of no derived class.
#[inline]
pub(crate) fn is_exact_int_or_str(object: Arg<'_>) -> bool {
    // SAFETY: the object is alive.
    let kind = unsafe { ffi::Py_TYPE(object.as_ptr()) };
    kind == &raw mut ffi::PyLong_Type || kind == &raw mut ffi::PyUnicode_Type
}

/// Whether both objects are of one type.
#[inline]
pub(crate) fn are_of_one_type(one: Arg<'_>, other: Arg<'_>) -> bool {
    // SAFETY: both objects are alive.
    unsafe { ffi::Py_TYPE(one.as_ptr()) == ffi::Py_TYPE(other.as_ptr()) }
}

/// Types whose comparison cannot run foreign code, and all others.
#[derive(PartialEq, Eq)]
enum Kind {
    Int,
    Str,
    Float,
    Bytes,
    Tuple,
    None,
    Foreign,
}

/// How deep tuples in tuples are compared inline.
const DEEPEST: u32 = 4;

/// Compares as `one is other or one == other`, as far as that runs no foreign code.
#[inline]
pub(crate) fn compare(one: Arg<'_>, other: Arg<'_>) -> Match {
    if one.as_ptr() == other.as_ptr() { Match::Equal } else { compare_unlike(one, other, DEEPEST) }
}

/// The same for two objects that are not one.
#[inline(never)]
fn compare_unlike(one: Arg<'_>, other: Arg<'_>, depth: u32) -> Match {
    let (left, right) = (one.as_ptr(), other.as_ptr());
    // SAFETY: both objects are alive, and of the kinds whose layout is read.
    let equal = unsafe {
        match (kind(left), kind(right)) {
            (Kind::Foreign, _) | (_, Kind::Foreign) => return Match::Unsure,
            (Kind::Int, Kind::Int) => are_equal_ints(left, right),
            (Kind::Str, Kind::Str) => return compare_strs(left, right),
            (Kind::Float, Kind::Float) => is_equal(ffi::PyFloat_AS_DOUBLE(left), ffi::PyFloat_AS_DOUBLE(right)),
            (Kind::Int, Kind::Float) => return compare_to_float(left, right),
            (Kind::Float, Kind::Int) => return compare_to_float(right, left),
            (Kind::Bytes, Kind::Bytes) => bytes(left) == bytes(right),
            (Kind::Tuple, Kind::Tuple) => return compare_all(items(one), items(other), depth),
            _ => false,
        }
    };
    if equal { Match::Equal } else { Match::Different }
}

/// Compares item by item. Where one pair differs, nobody has to be asked about the others.
fn compare_all(left: &[Arg<'_>], right: &[Arg<'_>], depth: u32) -> Match {
    if left.len() != right.len() {
        return Match::Different;
    }
    if depth == 0 {
        return Match::Unsure;
    }
    let mut all = Match::Equal;
    for (&one, &other) in left.iter().zip(right) {
        if one.as_ptr() == other.as_ptr() {
            continue;
        }
        match compare_unlike(one, other, depth - 1) {
            Match::Equal => {}
            Match::Different => return Match::Different,
            Match::Unsure => all = Match::Unsure,
        }
    }
    all
}

/// `stored is other or stored == other`, by the objects' own methods.
pub(crate) fn ask(py: Python<'_>, stored: Arg<'_>, other: Arg<'_>) -> Result<bool, Raised> {
    // SAFETY: both objects are kept alive by the references given.
    match unsafe { python::are_equal(py, stored.as_ptr(), other.as_ptr()) } {
        -1 => Err(Raised(())),
        answer => Ok(answer == 1),
    }
}

/// # Safety
/// `object` is alive.
#[inline]
unsafe fn kind(object: *mut ffi::PyObject) -> Kind {
    // SAFETY: the caller says that the object is alive; of types and None, only the addresses are used.
    let (kind, none) = unsafe { (ffi::Py_TYPE(object), ffi::Py_None()) };
    if kind == &raw mut ffi::PyLong_Type || kind == &raw mut ffi::PyBool_Type {
        Kind::Int
    } else if kind == &raw mut ffi::PyUnicode_Type {
        Kind::Str
    } else if kind == &raw mut ffi::PyFloat_Type {
        Kind::Float
    } else if kind == &raw mut ffi::PyTuple_Type {
        Kind::Tuple
    } else if kind == &raw mut ffi::PyBytes_Type {
        Kind::Bytes
    } else if object == none {
        Kind::None
    } else {
        Kind::Foreign
    }
}

/// # Safety
/// Both are ints or bools.
#[inline]
unsafe fn are_equal_ints(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller says that they are ints, whose digits follow one another, as many as the tag says.
    unsafe {
        if let (Some(one), Some(other)) = (compact(left), compact(right)) {
            return one == other;
        }
        let (left, right) = (left.cast::<Int>(), right.cast::<Int>());
        let digits = |int: *mut Int| std::slice::from_raw_parts((&raw const (*int).digit), int_tag::digits((*int).tag));
        int_tag::shape((*left).tag) == int_tag::shape((*right).tag) && digits(left) == digits(right)
    }
}

/// # Safety
/// `int` is an int or a bool, and `float` a float.
unsafe fn compare_to_float(int: *mut ffi::PyObject, float: *mut ffi::PyObject) -> Match {
    // SAFETY: the caller says what they are.
    let (int, float) = unsafe { (compact(int), ffi::PyFloat_AS_DOUBLE(float)) };
    match int {
        // Thirty bits are exact in a double.
        #[allow(clippy::cast_precision_loss)]
        Some(int) if is_equal(int as f64, float) => Match::Equal,
        Some(_) => Match::Different,
        None => Match::Unsure,
    }
}

/// `==` of Python floats, which is that of Rust: NaN equals nothing, and the zeros are one.
#[allow(clippy::float_cmp)]
fn is_equal(one: f64, other: f64) -> bool {
    one == other
}

/// # Safety
/// Both are exact strs.
#[inline]
#[allow(deprecated, reason = "strs that are not ready exist up to 3.11")]
unsafe fn compare_strs(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> Match {
    // SAFETY: the caller says that they are strs, and they are seen to be ready before their text is read.
    unsafe {
        if ffi::PyUnicode_IS_READY(left) == 0 || ffi::PyUnicode_IS_READY(right) == 0 {
            return Match::Unsure;
        }
        let length = ffi::PyUnicode_GET_LENGTH(left).unsigned_abs();
        let width = ffi::PyUnicode_KIND(left);
        // The width is that of the widest character, so strs of two widths differ.
        if length != ffi::PyUnicode_GET_LENGTH(right).unsigned_abs() || width != ffi::PyUnicode_KIND(right) {
            return Match::Different;
        }
        let text =
            |object| std::slice::from_raw_parts(ffi::PyUnicode_DATA(object).cast::<u8>(), length * width as usize);
        if text(left) == text(right) { Match::Equal } else { Match::Different }
    }
}

/// # Safety
/// `object` is bytes and outlives the slice.
unsafe fn bytes<'a>(object: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: the caller says that it is bytes, which never change.
    unsafe {
        let length = ffi::PyBytes_Size(object).unsigned_abs();
        std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(object).cast::<u8>(), length)
    }
}

/// Runs `body`, which must not call Python, while other threads may run Python.
#[cfg(unix)]
pub(crate) fn detached<R: Send>(py: Python<'_>, body: impl FnOnce() -> R) -> R {
    thread::prepare(py);
    // SAFETY: the thread is attached, and is again before anything else here can touch Python.
    let state = unsafe { ffi::PyEval_SaveThread() };
    let result = catch_unwind(AssertUnwindSafe(body));
    // SAFETY: the state is that of this thread, which is not attached.
    unsafe { ffi::PyEval_RestoreThread(state) };
    result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// Runs `make`, which makes a pyclass instance, with no garbage collection in the middle.
///
/// CPython 3.11 gives a new object its dict when the collector knows the object already and pyo3 has not filled it in yet;
/// and up to 3.11, making that dict may start a collection.
pub(crate) fn without_collection<R>(_: Python<'_>, make: impl FnOnce() -> R) -> R {
    if cfg!(Py_3_12) {
        return make();
    }
    // SAFETY: the thread is attached. No other runs Python until `make` ends, since nothing in it gives up the GIL.
    let was_enabled = unsafe { ffi::PyGC_Disable() } != 0;
    let made = make();
    if was_enabled {
        // SAFETY: as above.
        unsafe { ffi::PyGC_Enable() };
    }
    made
}

/// Checks that this is the main interpreter: types, names and what else is made once belong to one interpreter.
pub(crate) fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached.
    if unsafe { ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() } {
        let text = "warp_cache cannot be imported in a subinterpreter, only in the main interpreter of a process";
        return Err(Raised::new::<PyImportError>(py, text).fetch(py));
    }
    Ok(())
}

/// Checks that this interpreter lays ints and strs out as they are read here.
pub(crate) fn check_layouts(py: Python<'_>) -> PyResult<()> {
    let one_digit: i64 = (1 << 30) - 1;
    let numbers =
        [0, 1, -1, -2, 256, 257, -6, one_digit, -one_digit, one_digit + 1, -one_digit - 1, i64::MAX, i64::MIN];
    for (number, digits) in
        numbers.iter().map(|&n| (n, if n.unsigned_abs() > one_digit.unsigned_abs() { 2 } else { 1 }))
    {
        let (int, twin) =
            (number.into_pyobject(py)?.into_any().unbind(), number.into_pyobject(py)?.into_any().unbind());
        let value = hash(Arg::new(&int)).map_err(|raised| raised.fetch(py))?;
        // SAFETY: the object is an int.
        let is_compact = unsafe { compact(int.as_ptr()) }.is_some();
        let is_read = value == int.bind(py).hash()? && is_compact == (digits == 1);
        #[cfg(unix)]
        let is_read = is_read && matches!(view(Arg::new(&int)), Some(View::Int(value)) if value == number);
        // SAFETY: both objects are ints.
        if !is_read || !unsafe { are_equal_ints(int.as_ptr(), twin.as_ptr()) } {
            return Err(PyImportError::new_err(format!("warp_cache was built for another layout of ints ({number})")));
        }
    }
    Ok(())
}

/// What came of resuming a coroutine or an iterator.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It suspended itself, and gave this to whoever drives it.
    Yielded(Object),
    /// It ended with this.
    Returned(Object),
}

/// Resumes what `await` drives: a coroutine, or the iterator of another awaitable.
///
/// The interpreter counts how deep coroutines are nested, and an awaitable between them does not count, as one that is written
/// in Python does not.
pub(crate) fn send(py: Python<'_>, iterator: &Py<PyAny>, value: Arg<'_>) -> Result<Sent, Raised> {
    thread::check_stack(py)?;
    let mut result = std::ptr::null_mut();
    // SAFETY: the thread is attached, and both objects are kept alive by the references given.
    let outcome = unsafe { ffi::PyIter_Send(iterator.as_ptr(), value.as_ptr(), &raw mut result) };
    match outcome {
        ffi::PySendResult::PYGEN_RETURN => owned(result).map(Sent::Returned),
        ffi::PySendResult::PYGEN_NEXT => owned(result).map(Sent::Yielded),
        ffi::PySendResult::PYGEN_ERROR => Err(Raised(())),
    }
}

/// The exception that `throw(exception)` or `throw(type[, value[, traceback]])` means.
pub(crate) fn thrown(py: Python<'_>, args: &[Arg<'_>]) -> PyResult<PyErr> {
    let given = |index: usize| args.get(index).map(|arg| arg.bind(py)).filter(|arg| !arg.is_none());
    let Some(exception) = given(0) else {
        return Err(PyTypeError::new_err(
            "exceptions must be classes or instances deriving from BaseException, not None",
        ));
    };
    let value = given(1);
    if cfg!(Py_3_12) && args.len() > 1 {
        let message = c"the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        PyErr::warn(py, &py.get_type::<PyDeprecationWarning>(), message, 1)?;
    }
    let error = if exception.is_instance_of::<PyBaseException>() {
        if value.is_some() {
            return Err(PyTypeError::new_err("instance exception may not have a separate value"));
        }
        PyErr::from_value(exception.clone())
    } else if let Ok(kind) = exception.cast::<PyType>()
        && kind.is_subclass_of::<PyBaseException>()?
    {
        match value {
            Some(value) if value.is_instance(kind)? => PyErr::from_value(value.clone()),
            Some(value) => match value.cast::<PyTuple>() {
                Ok(values) => PyErr::from_value(kind.call1(values)?),
                Err(_) => PyErr::from_value(kind.call1((value,))?),
            },
            None => PyErr::from_value(kind.call0()?),
        }
    } else {
        let kind = exception.get_type().name()?;
        let message = format!("exceptions must be classes or instances deriving from BaseException, not {kind}");
        return Err(PyTypeError::new_err(message));
    };
    if let Some(traceback) = given(2) {
        let traceback = traceback.cast::<PyTraceback>();
        let traceback =
            traceback.map_err(|_| PyTypeError::new_err("throw() third argument must be a traceback object"))?;
        error.set_traceback(py, Some(traceback.clone()));
    }
    Ok(error)
}

/// Whether `await` drives the object itself, and asks it for no iterator.
pub(crate) fn is_coroutine(object: &Py<PyAny>) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// Whether the object is a generator.
pub(crate) fn is_generator(object: &Py<PyAny>) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::PyGen_CheckExact(object.as_ptr()) != 0 }
}

/// The module of that name, if anybody has imported it.
pub(crate) fn imported<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the thread is attached. The interpreter owns the dict of its modules.
    let modules = unsafe { Borrowed::from_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) }?;
    modules.cast::<PyDict>().ok()?.get_item(name).ok()?
}

/// A variable whose value belongs to the context in which code runs: a `contextvars.ContextVar`.
#[derive(Debug)]
pub(crate) struct ContextVar(Py<PyAny>);

/// What `ContextVar::set` returns, to take it back with.
#[derive(Debug)]
pub(crate) struct ContextToken(Object);

impl ContextVar {
    /// A variable without a value.
    pub(crate) fn new(py: Python<'_>, name: &CStr) -> PyResult<Self> {
        // SAFETY: the thread is attached, and the name ends with a zero.
        let variable = unsafe { ffi::PyContextVar_New(name.as_ptr(), std::ptr::null_mut()) };
        owned(variable).map_err(|raised| raised.fetch(py)).map(|variable| Self((*variable).clone_ref(py)))
    }

    /// The value in the current context, if it has one there.
    pub(crate) fn get(&self, _: Python<'_>) -> Result<Option<Object>, Raised> {
        let mut value = std::ptr::null_mut();
        // SAFETY: the thread is attached, and this is a context variable.
        let result = unsafe { ffi::PyContextVar_Get(self.0.as_ptr(), std::ptr::null_mut(), &raw mut value) };
        if result < 0 {
            return Err(Raised(()));
        }
        (!value.is_null()).then(|| owned(value)).transpose()
    }

    /// Sets it in the current context.
    pub(crate) fn set(&self, py: Python<'_>, value: &Py<PyAny>) -> Result<ContextToken, Raised> {
        // Up to 3.13 the interpreter dies where there is memory for neither the token nor the context. So first a block of the
        // token's size is asked for: what is given back is what the token gets.
        if !cfg!(Py_3_14) {
            const TOKEN: usize = 64;
            // SAFETY: the thread is attached, and what is given back is what was got.
            unsafe {
                let block = ffi::PyObject_Malloc(TOKEN);
                if block.is_null() {
                    return Err(no_memory(py));
                }
                ffi::PyObject_Free(block);
            }
        }
        // SAFETY: the thread is attached, and this is a context variable.
        owned(unsafe { ffi::PyContextVar_Set(self.0.as_ptr(), value.as_ptr()) }).map(ContextToken)
    }

    /// Takes a setting back, if the context is still the one in which it was made.
    pub(crate) fn reset(&self, _: Python<'_>, token: &ContextToken) {
        // SAFETY: the thread is attached, and this is a context variable. No error is set where this is called.
        unsafe {
            if ffi::PyContextVar_Reset(self.0.as_ptr(), token.0.as_ptr()) < 0 {
                ffi::PyErr_Clear();
            }
        }
    }
}

/// Whether two names are the same text. A name is a str, or of a class derived from it; its text counts, as in a call.
pub(crate) fn are_equal_names(one: Arg<'_>, other: Arg<'_>) -> bool {
    // SAFETY: both objects are alive; the comparison takes any object, and sets an error for what is no str.
    unsafe {
        match ffi::PyUnicode_Compare(one.as_ptr(), other.as_ptr()) {
            0 => true,
            -1 => {
                if !ffi::PyErr_Occurred().is_null() {
                    ffi::PyErr_Clear();
                }
                false
            }
            _ => false,
        }
    }
}

/// What an object of one of the types that have bytes of their own is made of.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    None,
    Bool(bool),
    Int(i64),
    BigInt(Digits<'a>),
    Float(f64),
    Complex(f64, f64),
    Text(Text<'a>),
    Bytes(&'a [u8]),
    Tuple(&'a [Arg<'a>]),
    /// A list, which may change at any time.
    List,
}

/// The digits of an int, of 30 bits each, the least first.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits<'a> {
    pub(crate) is_negative: bool,
    pub(crate) digits: &'a [u32],
}

/// The characters of a str, each as wide as the widest needs.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text<'a> {
    /// None of them is beyond ASCII.
    Ascii(&'a [u8]),
    One(&'a [u8]),
    Two(&'a [u16]),
    Four(&'a [u32]),
}

/// What an object is made of, if it is of exactly one of the types that have bytes of their own. Runs no foreign code.
#[cfg(unix)]
#[inline]
pub(crate) fn view(object: Arg<'_>) -> Option<View<'_>> {
    let pointer = object.as_ptr();
    // SAFETY: the object is alive for the argument's lifetime, and its type is looked at before its layout is relied on.
    unsafe {
        let kind = ffi::Py_TYPE(pointer);
        if kind == &raw mut ffi::PyLong_Type {
            Some(view_int(pointer))
        } else if kind == &raw mut ffi::PyUnicode_Type {
            view_text(pointer).map(View::Text)
        } else if kind == &raw mut ffi::PyFloat_Type {
            Some(View::Float(ffi::PyFloat_AS_DOUBLE(pointer)))
        } else if pointer == ffi::Py_None() {
            Some(View::None)
        } else if kind == &raw mut ffi::PyBool_Type {
            Some(View::Bool(pointer == ffi::Py_True()))
        } else if kind == &raw mut ffi::PyTuple_Type {
            Some(View::Tuple(items(object)))
        } else if kind == &raw mut ffi::PyBytes_Type {
            Some(View::Bytes(bytes(pointer)))
        } else if kind == &raw mut ffi::PyList_Type {
            Some(View::List)
        } else if kind == &raw mut ffi::PyComplex_Type {
            Some(view_complex(pointer))
        } else {
            None
        }
    }
}

/// The same for an object of a derived class that leaves comparing and hashing to such a type: what equals the object is what
/// equals its base.
#[cfg(unix)]
#[cold]
pub(crate) fn view_of_base(object: Arg<'_>) -> Option<View<'_>> {
    let pointer = object.as_ptr();
    // SAFETY: the object is alive for the argument's lifetime. Whose class is derived from a type has that type's layout.
    unsafe {
        let kind = ffi::Py_TYPE(pointer);
        let is_a = |flag| ffi::PyType_FastSubclass(kind, flag) != 0;
        let follows = |base: *mut ffi::PyTypeObject| follows(kind, base);
        if is_a(ffi::Py_TPFLAGS_LONG_SUBCLASS) {
            follows(&raw mut ffi::PyLong_Type).then(|| view_int(pointer))
        } else if is_a(ffi::Py_TPFLAGS_UNICODE_SUBCLASS) {
            follows(&raw mut ffi::PyUnicode_Type).then(|| view_text(pointer).map(View::Text)).flatten()
        } else if is_a(ffi::Py_TPFLAGS_TUPLE_SUBCLASS) {
            follows(&raw mut ffi::PyTuple_Type).then(|| View::Tuple(items(object)))
        } else if is_a(ffi::Py_TPFLAGS_BYTES_SUBCLASS) {
            follows(&raw mut ffi::PyBytes_Type).then(|| View::Bytes(bytes(pointer)))
        } else if ffi::PyFloat_Check(pointer) != 0 {
            follows(&raw mut ffi::PyFloat_Type).then(|| View::Float(ffi::PyFloat_AS_DOUBLE(pointer)))
        } else if ffi::PyComplex_Check(pointer) != 0 {
            follows(&raw mut ffi::PyComplex_Type).then(|| view_complex(pointer))
        } else {
            None
        }
    }
}

/// Whether an object is a frozenset, and its class leaves comparing and hashing to that type.
#[cfg(unix)]
pub(crate) fn is_as_frozenset(object: Arg<'_>) -> bool {
    // SAFETY: the object is alive.
    unsafe {
        ffi::PyFrozenSet_Check(object.as_ptr()) != 0
            && follows(ffi::Py_TYPE(object.as_ptr()), &raw mut ffi::PyFrozenSet_Type)
    }
}

/// Whether the class leaves comparing and hashing to this type.
///
/// # Safety
/// Both are alive.
#[cfg(unix)]
unsafe fn follows(kind: *mut ffi::PyTypeObject, base: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: the caller says that the types are alive.
    unsafe {
        (*kind).tp_richcompare.map(|slot| slot as usize) == (*base).tp_richcompare.map(|slot| slot as usize)
            && (*kind).tp_hash.map(|slot| slot as usize) == (*base).tp_hash.map(|slot| slot as usize)
    }
}

/// # Safety
/// `object` is an int, and outlives the view.
#[cfg(unix)]
#[inline]
unsafe fn view_int<'a>(object: *mut ffi::PyObject) -> View<'a> {
    // SAFETY: the caller says that it is an int, whose digits follow one another, as many as the tag says, and never change.
    unsafe {
        if let Some(int) = compact(object) {
            return View::Int(int as i64);
        }
        let int = object.cast::<Int>();
        let digits = std::slice::from_raw_parts(&raw const (*int).digit, int_tag::digits((*int).tag));
        let digits = Digits { is_negative: int_tag::is_negative((*int).tag), digits };
        digits.to_i64().map_or(View::BigInt(digits), View::Int)
    }
}

#[cfg(unix)]
impl Digits<'_> {
    fn to_i64(self) -> Option<i64> {
        if self.digits.len() > 3 {
            return None;
        }
        let size = self.digits.iter().rev().fold(0, |size: i128, &digit| size << 30 | i128::from(digit));
        i64::try_from(if self.is_negative { -size } else { size }).ok()
    }
}

/// The text of a str; nothing if it is none yet, and there is no memory to make it one.
///
/// # Safety
/// `object` is a str, perhaps of a derived class, and outlives the text.
#[cfg(unix)]
#[inline]
#[allow(deprecated, reason = "strs that are not ready exist up to 3.11")]
unsafe fn view_text<'a>(object: *mut ffi::PyObject) -> Option<Text<'a>> {
    // SAFETY: the caller says that it is a str. Once it is ready, there are as many characters of that width, which never
    // change, and are aligned to it.
    unsafe {
        if ffi::PyUnicode_READY(object) != 0 {
            ffi::PyErr_Clear();
            return None;
        }
        let length = ffi::PyUnicode_GET_LENGTH(object).unsigned_abs();
        let data = ffi::PyUnicode_DATA(object);
        Some(match ffi::PyUnicode_KIND(object) {
            ffi::PyUnicode_1BYTE_KIND => {
                let bytes = std::slice::from_raw_parts(data.cast(), length);
                if is_ascii(object, bytes) { Text::Ascii(bytes) } else { Text::One(bytes) }
            }
            ffi::PyUnicode_2BYTE_KIND => Text::Two(std::slice::from_raw_parts(data.cast(), length)),
            _ => Text::Four(std::slice::from_raw_parts(data.cast(), length)),
        })
    }
}

/// Whether these bytes, the text of `object`, are all ASCII.
///
/// # Safety
/// `object` is a str that is ready.
#[cfg(unix)]
#[inline]
unsafe fn is_ascii(object: *mut ffi::PyObject, bytes: &[u8]) -> bool {
    // SAFETY: the caller says that it is a str.
    #[cfg(not(Py_3_14))]
    unsafe {
        let _ = bytes;
        ffi::PyUnicode_IS_ASCII(object) != 0
    }
    #[cfg(Py_3_14)]
    {
        let _ = object;
        bytes.is_ascii()
    }
}

/// # Safety
/// `object` is a complex.
#[cfg(unix)]
unsafe fn view_complex<'a>(object: *mut ffi::PyObject) -> View<'a> {
    // SAFETY: the caller says that it is a complex.
    unsafe { View::Complex(ffi::PyComplex_RealAsDouble(object), ffi::PyComplex_ImagAsDouble(object)) }
}

/// The text of a str, perhaps of a derived class.
#[cfg(unix)]
#[inline]
pub(crate) fn text(object: Arg<'_>) -> Option<Text<'_>> {
    // SAFETY: the object is alive for the argument's lifetime, and is seen to be a str.
    unsafe { if ffi::PyUnicode_Check(object.as_ptr()) == 0 { None } else { view_text(object.as_ptr()) } }
}

/// The length of a list, and its items if all of them are floats, and at most so many. `None` if it is not a list.
#[cfg(unix)]
pub(crate) fn list_of_floats(list: Arg<'_>, most: usize) -> Option<(usize, Option<Vec<f64>>)> {
    // SAFETY: the thread is attached, and the object is seen to be a list. With the GIL nobody changes it meanwhile, since
    // nothing here runs Python; without, a tuple of its items is read in its place, which is made of them all at once.
    unsafe {
        if ffi::PyList_Check(list.as_ptr()) == 0 {
            return None;
        }
        let length = ffi::PyList_Size(list.as_ptr()).unsigned_abs();
        if length == 0 || length > most {
            return Some((length, None));
        }
        if FREE_THREADED {
            let Ok(items) = owned(ffi::PyList_AsTuple(list.as_ptr())) else {
                ffi::PyErr_Clear();
                return Some((length, None));
            };
            let items = self::items(Arg::new(&items));
            return Some((items.len(), to_floats(items.iter().map(|item| item.as_ptr()), items.len())));
        }
        let items = (0..length.cast_signed()).map(|index| ffi::PyList_GET_ITEM(list.as_ptr(), index));
        Some((length, to_floats(items, length)))
    }
}

/// # Safety
/// The objects are alive.
#[cfg(unix)]
unsafe fn to_floats(objects: impl Iterator<Item = *mut ffi::PyObject>, count: usize) -> Option<Vec<f64>> {
    let mut floats = Vec::new();
    for object in objects {
        // SAFETY: the caller says that the object is alive, and it is seen to be a float.
        let float = unsafe {
            if ffi::Py_TYPE(object) != &raw mut ffi::PyFloat_Type {
                return None;
            }
            ffi::PyFloat_AS_DOUBLE(object)
        };
        if floats.is_empty() {
            floats.try_reserve_exact(count).ok()?;
        }
        floats.push(float);
    }
    (!floats.is_empty()).then_some(floats)
}

/// An int.
#[inline]
pub(crate) fn new_int(_: Python<'_>, value: i64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyLong_FromLongLong(value) })
}

/// An int from a number to the base of 16, as `int(text, 16)` takes it.
#[cfg(unix)]
pub(crate) fn new_int_of_hex(_: Python<'_>, text: &CStr) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the text ends with a zero.
    owned(unsafe { ffi::PyLong_FromString(text.as_ptr(), std::ptr::null_mut(), 16) })
}

/// A float.
#[inline]
pub(crate) fn new_float(_: Python<'_>, value: f64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyFloat_FromDouble(value) })
}

/// A str of ASCII characters, more than one.
#[cfg(unix)]
#[inline]
pub(crate) fn new_ascii(_: Python<'_>, text: &[u8]) -> Result<Object, Raised> {
    debug_assert!(text.is_ascii() && text.len() > 1);
    // SAFETY: the thread is attached. A new str of more than one character is nobody else's, so that it may be written; it is
    // said to have no character beyond ASCII, and then is laid out as one that has none, with as many bytes as asked for.
    unsafe {
        let made = owned(ffi::PyUnicode_New(text.len().cast_signed(), 0x7f))?;
        std::ptr::copy_nonoverlapping(text.as_ptr(), ffi::PyUnicode_DATA(made.as_ptr()).cast::<u8>(), text.len());
        Ok(made)
    }
}

/// A str.
#[inline]
pub(crate) fn new_text(_: Python<'_>, text: &str) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the text is as long as said, which is no more than an `isize` holds.
    owned(unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()) })
}

/// A str of these characters, among which there may be lone surrogates.
#[cfg(unix)]
pub(crate) fn new_text_of(_: Python<'_>, points: &[u32]) -> Result<Object, Raised> {
    let kind = ffi::PyUnicode_4BYTE_KIND.cast_signed();
    // SAFETY: the thread is attached, and there are so many characters. One that there is not makes an exception.
    owned(unsafe { ffi::PyUnicode_FromKindAndData(kind, points.as_ptr().cast(), points.len().cast_signed()) })
}

/// A bytes object.
#[cfg(unix)]
pub(crate) fn new_bytes(_: Python<'_>, bytes: &[u8]) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the bytes are as many as said.
    owned(unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len().cast_signed()) })
}

/// An int from a number of things.
#[inline]
pub(crate) fn new_count(_: Python<'_>, value: u64) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyLong_FromUnsignedLongLong(value) })
}

/// A tuple of these objects.
pub(crate) fn new_tuple_of(_: Python<'_>, items: &[Arg<'_>]) -> Result<Object, Raised> {
    // SAFETY: the thread is attached. Nobody else has the tuple until it is full, and each place is filled once, with a
    // reference of its own.
    unsafe {
        let tuple = owned(ffi::PyTuple_New(items.len().cast_signed()))?;
        for (index, item) in items.iter().enumerate() {
            ffi::Py_INCREF(item.as_ptr());
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index.cast_signed(), item.as_ptr());
        }
        Ok(tuple)
    }
}

/// True or False.
pub(crate) fn truth(py: Python<'_>, truth: bool) -> Bound<'_, PyAny> {
    PyBool::new(py, truth).to_owned().into_any()
}

unsafe extern "C" {
    /// Exported, and not declared by pyo3.
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// `types.MethodType(function, instance)`.
pub(crate) fn bound_method<'py>(
    function: &Bound<'py, PyAny>,
    instance: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    // SAFETY: the thread is attached, and both objects are alive.
    let method = owned(unsafe { PyMethod_New(function.as_ptr(), instance.as_ptr()) });
    method.map(|method| method.into_bound(py)).map_err(|raised| raised.fetch(py))
}

/// `types.GenericAlias(class, item)`.
pub(crate) fn generic_alias<'py>(class: &Bound<'py, PyType>, item: Arg<'_>) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    // SAFETY: the thread is attached, and both objects are alive.
    let alias = owned(unsafe { ffi::Py_GenericAlias(class.as_ptr(), item.as_ptr()) });
    alias.map(|alias| alias.into_bound(py)).map_err(|raised| raised.fetch(py))
}

/// An empty dict.
pub(crate) fn new_dict(_: Python<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached.
    owned(unsafe { ffi::PyDict_New() })
}

/// Puts a value into a dict.
pub(crate) fn put(_: Python<'_>, dict: &Object, name: &CStr, value: &Object) -> Result<(), Raised> {
    // SAFETY: the thread is attached, the name ends with a zero, and both objects are alive. What is no dict is refused.
    if unsafe { ffi::PyDict_SetItemString(dict.as_ptr(), name.as_ptr(), value.as_ptr()) } < 0 {
        return Err(Raised(()));
    }
    Ok(())
}

/// A tuple of so many items, or nothing if one of them is nothing. `next` runs no foreign code.
#[cfg(unix)]
pub(crate) fn new_tuple(
    _: Python<'_>,
    count: usize,
    mut next: impl FnMut() -> Option<Object>,
) -> Result<Option<Object>, Raised> {
    // SAFETY: the thread is attached. Nobody else has the tuple until it is full, and each place is filled once; one that is
    // given up may have empty places.
    unsafe {
        let tuple = owned(ffi::PyTuple_New(count.cast_signed()))?;
        for index in 0..count {
            let Some(item) = next() else { return Ok(None) };
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index.cast_signed(), item.into_ptr());
        }
        Ok(Some(tuple))
    }
}

/// A list of floats.
#[cfg(unix)]
pub(crate) fn new_list_of_floats(_: Python<'_>, floats: impl ExactSizeIterator<Item = f64>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached. Nobody else has the list until it is full, and each place is filled once; one that is
    // given up may have empty places.
    unsafe {
        let count = floats.len();
        let list = owned(ffi::PyList_New(count.cast_signed()))?;
        for (index, float) in floats.take(count).enumerate() {
            let item = owned(ffi::PyFloat_FromDouble(float))?;
            ffi::PyList_SET_ITEM(list.as_ptr(), index.cast_signed(), item.into_ptr());
        }
        Ok(list)
    }
}

/// The same where the name is a text.
pub(crate) fn attribute_called(py: Python<'_>, object: Arg<'_>, name: &CStr) -> Result<Option<Object>, Raised> {
    // SAFETY: the thread is attached, and the text ends with a zero.
    let name = owned(unsafe { ffi::PyUnicode_InternFromString(name.as_ptr()) })?;
    match name.bind(py).cast::<PyString>() {
        Ok(name) => attribute_if_any(py, object, name.as_unbound()),
        Err(_) => Ok(None),
    }
}

/// An object's attribute, if it has one of that name.
pub(crate) fn attribute_if_any(py: Python<'_>, object: Arg<'_>, name: &Py<PyString>) -> Result<Option<Object>, Raised> {
    match attribute(py, object, name) {
        Ok(value) => Ok(Some(value)),
        // SAFETY: the thread is attached, and an exception is set.
        Err(raised) => unsafe {
            if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                return Err(raised);
            }
            ffi::PyErr_Clear();
            Ok(None)
        },
    }
}

/// An object's attribute.
pub(crate) fn attribute(py: Python<'_>, object: Arg<'_>, name: &Py<PyString>) -> Result<Object, Raised> {
    thread::prepare(py);
    // SAFETY: the thread is attached, and both objects are alive.
    owned(unsafe { ffi::PyObject_GetAttr(object.as_ptr(), name.as_ptr()) })
}

/// `tuple(iterable)`: of a list all its items at one time.
#[cfg(unix)]
pub(crate) fn to_tuple(py: Python<'_>, iterable: Arg<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the object is alive.
    owned(unsafe {
        if ffi::PyList_CheckExact(iterable.as_ptr()) != 0 {
            ffi::PyList_AsTuple(iterable.as_ptr())
        } else {
            thread::prepare(py);
            ffi::PySequence_Tuple(iterable.as_ptr())
        }
    })
}

/// The pairs of a dict, as a tuple of tuples. An error if it is none.
#[cfg(unix)]
pub(crate) fn pairs(py: Python<'_>, dict: Arg<'_>) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, the object is alive, and what is no dict is refused.
    let items = owned(unsafe { ffi::PyDict_Items(dict.as_ptr()) })?;
    to_tuple(py, Arg::new(&items))
}

/// The class of an object.
#[cfg(unix)]
pub(crate) fn class_of(py: Python<'_>, object: Arg<'_>) -> Object {
    Object::from(object.bind(py).get_type().into_any())
}

/// Whether the object is of exactly this type.
#[cfg(unix)]
pub(crate) fn is_exactly<T: PyTypeInfo>(object: Arg<'_>) -> bool {
    // SAFETY: the object is alive, and arguments are used on attached threads.
    unsafe { ffi::Py_TYPE(object.as_ptr()) == T::type_object_raw(Python::assume_attached()) }
}

/// Drops the exception if it is an `Exception`, and hands on one that is meant to end more than what raised it.
#[cfg(unix)]
#[cold]
pub(crate) fn forgive(py: Python<'_>, raised: Raised) -> Result<(), Raised> {
    // SAFETY: the thread is attached, and an exception is set, as the argument says.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) == 0 {
            return Err(raised);
        }
        thread::prepare(py);
        ffi::PyErr_Clear();
    }
    Ok(())
}
