//! Hashing and comparing the commonest types inline.

#![allow(unsafe_code)]

use super::int::{are_equal_ints, compact};
use super::object::{Arg, items};
use super::python;
use super::raised::Raised;
use crate::backend::memory::Match;
use pyo3::ffi;
use pyo3::prelude::*;

/// `hash(object)`, inline for small ints and for strings that were hashed before.
#[inline(always)]
pub(crate) fn hash(object: Arg<'_>) -> Result<isize, Raised> {
    hash_telling(object).map(|(hash, _)| hash)
}

/// The same, and whether the hash tells the value: of all small ints, only the object's equals have it.
#[inline(always)]
pub(crate) fn hash_telling(object: Arg<'_>) -> Result<(isize, bool), Raised> {
    let pointer = object.as_ptr();
    // SAFETY: the object is alive, and its type is looked at before its layout is relied on.
    unsafe {
        let kind = ffi::Py_TYPE(pointer);
        if kind == &raw mut ffi::PyLong_Type {
            if let Some(value) = compact(pointer) {
                // As every hash, it is never -1, which stands for an error: -1 and -2 share theirs.
                return Ok(if value == -1 { (-2, false) } else { (value, value != -2) });
            }
        } else if kind == &raw mut ffi::PyUnicode_Type {
            let hash = std::sync::atomic::AtomicIsize::from_ptr(&raw mut (*pointer.cast::<ffi::PyASCIIObject>()).hash)
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
    let kind = object.kind();
    kind == &raw mut ffi::PyLong_Type || kind == &raw mut ffi::PyUnicode_Type
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
        match (kind(one), kind(other)) {
            (Kind::Foreign, _) | (_, Kind::Foreign) => return Match::Unsure,
            (Kind::Int, Kind::Int) => are_equal_ints(left, right),
            (Kind::Str, Kind::Str) => return compare_strs(left, right),
            (Kind::Float, Kind::Float) => is_equal(ffi::PyFloat_AS_DOUBLE(left), ffi::PyFloat_AS_DOUBLE(right)),
            (Kind::Int, Kind::Float) => return compare_to_float(compact(left), ffi::PyFloat_AS_DOUBLE(right)),
            (Kind::Float, Kind::Int) => return compare_to_float(compact(right), ffi::PyFloat_AS_DOUBLE(left)),
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
    match python::are_equal(py, stored, other) {
        -1 => Err(Raised(())),
        answer => Ok(answer == 1),
    }
}

#[inline]
fn kind(object: Arg<'_>) -> Kind {
    let kind = object.kind();
    // SAFETY: of None, only the address is used.
    let none = unsafe { ffi::Py_None() };
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
    } else if object.as_ptr() == none {
        Kind::None
    } else {
        Kind::Foreign
    }
}

/// Compares an int with a float. `int` is `None` for one of several digits.
fn compare_to_float(int: Option<isize>, float: f64) -> Match {
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
pub(super) unsafe fn bytes<'a>(object: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: the caller says that it is bytes, which never change.
    unsafe {
        let length = ffi::PyBytes_Size(object).unsigned_abs();
        std::slice::from_raw_parts(ffi::PyBytes_AS_STRING(object).cast::<u8>(), length)
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
