//! Ints, as far as their layout is read here.

#![allow(unsafe_code)]

use crate::plain::PLAIN;
use pyo3::ffi;

/// The layout of an int: where its digits are, and the word that has their number.
#[repr(C)]
pub(super) struct Int {
    head: ffi::PyObject,
    pub(super) tag: isize,
    pub(super) digit: u32,
}

/// The meaning of an int's tag, which 3.12 changed.
pub(super) mod int_tag {
    /// The value of an int of at most one digit, times that digit.
    #[cfg(Py_3_12)]
    #[inline]
    pub(in crate::py::ffi) fn sign_of_compact(tag: isize) -> Option<isize> {
        // Two bits of sign (0 positive, 1 zero, 2 negative), a bit that marks cached ints from 3.14 on, then the number of digits.
        (tag < 2 << 3).then_some(1 - (tag & 3))
    }

    /// The same.
    #[cfg(not(Py_3_12))]
    #[inline]
    pub(in crate::py::ffi) fn sign_of_compact(tag: isize) -> Option<isize> {
        (-1..=1).contains(&tag).then_some(tag)
    }

    /// Sign and number of digits, as one number.
    #[inline]
    pub(in crate::py::ffi) fn shape(tag: isize) -> isize {
        if cfg!(Py_3_12) { tag & !4 } else { tag }
    }

    /// Whether an int of several digits is less than 0.
    #[cfg(unix)]
    #[inline]
    pub(in crate::py::ffi) fn is_negative(tag: isize) -> bool {
        if cfg!(Py_3_12) { tag & 3 == 2 } else { tag < 0 }
    }

    /// The number of digits.
    #[inline]
    pub(in crate::py::ffi) fn digits(tag: isize) -> usize {
        if cfg!(Py_3_12) { tag.unsigned_abs() >> 3 } else { tag.unsigned_abs() }
    }
}

/// The value of an int of one digit, and nothing for larger ones.
///
/// # Safety
/// `object` is an int or a bool.
#[inline]
pub(super) unsafe fn compact(object: *mut ffi::PyObject) -> Option<isize> {
    if PLAIN {
        let mut overflow = 0;
        // SAFETY: the thread is attached, and the caller says that it is an int: nothing foreign runs.
        let value = unsafe { ffi::PyLong_AsLongAndOverflow(object, &raw mut overflow) };
        return isize::try_from(value).ok().filter(|value| overflow == 0 && value.unsigned_abs() < 1 << 30);
    }
    // SAFETY: the caller says that it is an int, and `check_layouts` has seen that ints look like this.
    let int = unsafe { &*object.cast::<Int>() };
    // A digit has at most 30 bits; an int of no digits still has the place of one.
    int_tag::sign_of_compact(int.tag).map(|sign| sign * int.digit.cast_signed() as isize)
}

/// # Safety
/// Both are ints or bools.
#[inline]
pub(super) unsafe fn are_equal_ints(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller says that they are ints, whose digits follow one another, as many as the tag says.
    unsafe {
        if let (Some(one), Some(other)) = (compact(left), compact(right)) {
            return one == other;
        }
        if PLAIN {
            return ffi::PyObject_RichCompareBool(left, right, ffi::Py_EQ) == 1;
        }
        let (left, right) = (left.cast::<Int>(), right.cast::<Int>());
        let digits = |int: *mut Int| std::slice::from_raw_parts((&raw const (*int).digit), int_tag::digits((*int).tag));
        int_tag::shape((*left).tag) == int_tag::shape((*right).tag) && digits(left) == digits(right)
    }
}
