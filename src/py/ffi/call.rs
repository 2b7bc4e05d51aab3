//! The vectorcall protocol, by which a call reaches us as an array of borrowed references with no tuple and no dict made.

#![allow(unsafe_code)]

use super::object::{Arg, Object, items, owned};
use super::python;
use super::raised::Raised;
use crate::py::thread;
use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use std::marker::PhantomData;
use std::ptr::NonNull;

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
    pub(crate) unsafe fn new(args: *const *mut ffi::PyObject, positional: usize, names: *mut ffi::PyObject) -> Self {
        Self { args, nargsf: positional, kwnames: names, _caller: PhantomData }
    }

    /// The argument, if there is just one and it has no name.
    #[inline(always)]
    pub(crate) fn lone(&self) -> Option<Arg<'a>> {
        if self.kwnames.is_null() && self.positional() == 1 { self.values(0).first().copied() } else { None }
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
        Some(self.values(0))
    }

    /// The values: those without a name, and then `named` others, which is no more than there are names.
    #[inline(always)]
    fn values(&self, named: usize) -> &'a [Arg<'a>] {
        let count = self.positional() + named;
        // SAFETY: the protocol gives that many borrowed references at `args`, valid for the call, `Arg` is transparent over
        // one, and the pointer is not null where there are any.
        if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.args.cast::<Arg<'a>>(), count) } }
    }

    /// The arguments.
    #[inline(always)]
    pub(crate) fn given(&self) -> Given<'a> {
        let tuple = NonNull::new(self.kwnames).map(|names| Arg(names, PhantomData));
        let names = tuple.map_or(&[][..], items);
        let (values, positional) = (self.values(names.len()), self.positional());
        Given { values, positional, names, tuple: tuple.filter(|_| !names.is_empty()) }
    }

    /// Calls `function` with the same arguments.
    #[inline]
    pub(crate) fn forward(&self, py: Python<'_>, function: &Py<PyAny>) -> Result<Object, Raised> {
        let function = Arg::new(function);
        let target = python::vectorcall_of(function);
        // SAFETY: the array, its length and the names are those that the caller vouches for until this call ends. What the
        // function's own slot holds is called as `PyObject_Vectorcall` would call it.
        let call = || owned(unsafe { target(function.as_ptr(), self.args, self.nargsf, self.kwnames) });
        // From 3.12 on, a function of Python counts against a limit for C code, and itself.
        if cfg!(Py_3_12) && function.kind() == &raw mut ffi::PyFunction_Type {
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
    let function = Arg::new(function);
    let target = python::vectorcall_of(function);
    let positional = values.len() - names.map_or(0, |names| items(names).len());
    let names = names.map_or(std::ptr::null_mut(), |names| names.as_ptr());
    thread::prepare(py);
    // SAFETY: the thread is attached; `Arg` is transparent over a borrowed reference, and there are as many without a name
    // as said, and then as many as there are names.
    owned(unsafe { target(function.as_ptr(), values.as_ptr().cast(), positional, names) })
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

/// How a class answers calls; a type of its own, so that one class can have several.
pub(crate) trait Entrance {
    /// The class whose instances are called.
    type Class: PyClass<Frozen = True> + Sync;

    /// Answers a call.
    fn call(callable: &Py<Self::Class>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised>;
}

/// The function in an instance's vectorcall slot.
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
    // SAFETY: the interpreter calls this, so the thread is attached. It found this function in the instance's own slot, so the
    // instance is one of the class, and the caller keeps it alive for the call. `Py` is transparent over the pointer.
    let (py, instance) = unsafe { (Python::assume_attached(), &*(&raw const callable).cast::<Py<E::Class>>()) };
    let call = Call { args, nargsf, kwnames, _caller: PhantomData };
    match E::call(instance, py, call) {
        Ok(value) => value.into_ptr(),
        Err(Raised(())) => std::ptr::null_mut(),
    }
}
