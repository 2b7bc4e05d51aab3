//! References to objects: owned ones, and those that a caller lends.

#![allow(unsafe_code)]

use super::python;
use super::raised::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

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
    pub(crate) fn into_ptr(self) -> *mut ffi::PyObject {
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
pub(crate) struct Arg<'a>(pub(super) NonNull<ffi::PyObject>, pub(super) PhantomData<&'a Py<PyAny>>);

impl<'a> Arg<'a> {
    pub(crate) fn new(reference: &'a Py<PyAny>) -> Self {
        // SAFETY: a `Py` is never null.
        Self(unsafe { NonNull::new_unchecked(reference.as_ptr()) }, PhantomData)
    }

    /// The object's type, by its address.
    #[inline(always)]
    pub(super) fn kind(self) -> *mut ffi::PyTypeObject {
        // SAFETY: the object is alive for `'a`.
        unsafe { ffi::Py_TYPE(self.as_ptr()) }
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

/// A new reference from the C API, or the error that it has set.
#[inline]
pub(super) fn owned(result: *mut ffi::PyObject) -> Result<Object, Raised> {
    if result.is_null() {
        return Err(Raised(()));
    }
    // SAFETY: a function of the C API that returns a new reference returned this one, and it is not null.
    Ok(Object::from(unsafe { Bound::from_owned_ptr(Python::assume_attached(), result) }.unbind()))
}

/// Whether both objects are of one type.
#[inline]
pub(crate) fn are_of_one_type(one: Arg<'_>, other: Arg<'_>) -> bool {
    one.kind() == other.kind()
}
