//! Objects of the types that have bytes of their own, to be read.

#![allow(unsafe_code)]

use super::compare::bytes;
use super::int::{Int, compact, int_tag};
use super::object::{Arg, items, owned};
use crate::sync::FREE_THREADED;
use pyo3::ffi;

/// The content of an object of one of the types that have bytes of their own.
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits<'a> {
    pub(crate) is_negative: bool,
    pub(crate) digits: &'a [u32],
}

/// The characters of a str, each as wide as the widest needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Text<'a> {
    /// None of them is beyond ASCII.
    Ascii(&'a [u8]),
    One(&'a [u8]),
    Two(&'a [u16]),
    Four(&'a [u32]),
}

/// The content of an object that is of exactly one of the types that have bytes of their own. Runs no foreign code.
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
            Some(view_complex(object))
        } else {
            None
        }
    }
}

/// The same for an object of a derived class that leaves comparing and hashing to such a type: what equals the object is what
/// equals its base.
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
            follows(&raw mut ffi::PyComplex_Type).then(|| view_complex(object))
        } else {
            None
        }
    }
}

/// Whether an object is a frozenset, and its class leaves comparing and hashing to that type.
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
unsafe fn follows(kind: *mut ffi::PyTypeObject, base: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: the caller says that the types are alive.
    unsafe {
        (*kind).tp_richcompare.map(|slot| slot as usize) == (*base).tp_richcompare.map(|slot| slot as usize)
            && (*kind).tp_hash.map(|slot| slot as usize) == (*base).tp_hash.map(|slot| slot as usize)
    }
}

/// # Safety
/// `object` is an int, and outlives the view.
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
                let bytes: &[u8] = std::slice::from_raw_parts(data.cast(), length);
                #[cfg(not(Py_3_14))]
                let is_ascii = ffi::PyUnicode_IS_ASCII(object) != 0;
                #[cfg(Py_3_14)]
                let is_ascii = bytes.is_ascii();
                if is_ascii { Text::Ascii(bytes) } else { Text::One(bytes) }
            }
            ffi::PyUnicode_2BYTE_KIND => Text::Two(std::slice::from_raw_parts(data.cast(), length)),
            _ => Text::Four(std::slice::from_raw_parts(data.cast(), length)),
        })
    }
}

/// The parts of a complex.
fn view_complex(object: Arg<'_>) -> View<'_> {
    let object = object.as_ptr();
    // SAFETY: the object is alive. The functions take any object, and run foreign code for what is no complex only.
    unsafe { View::Complex(ffi::PyComplex_RealAsDouble(object), ffi::PyComplex_ImagAsDouble(object)) }
}

/// The text of a str, perhaps of a derived class.
#[inline]
pub(crate) fn text(object: Arg<'_>) -> Option<Text<'_>> {
    // SAFETY: the object is alive for the argument's lifetime, and is seen to be a str.
    unsafe { if ffi::PyUnicode_Check(object.as_ptr()) == 0 { None } else { view_text(object.as_ptr()) } }
}

/// The length of a list, and its items if all of them are floats, and at most so many. `None` if it is not a list.
pub(crate) fn list_of_floats(list: Arg<'_>, most: usize) -> Option<(usize, Option<Vec<f64>>)> {
    // SAFETY: the thread is attached, and the object is seen to be a list. With the GIL nobody changes it meanwhile, since
    // nothing here runs Python; without, a tuple of its items is read in its place, which is made of them all at once.
    unsafe {
        if ffi::PyList_Check(list.as_ptr()) == 0 {
            return None;
        }
        let float = |object| {
            let is_float = ffi::Py_TYPE(object) == &raw mut ffi::PyFloat_Type;
            is_float.then(|| ffi::PyFloat_AS_DOUBLE(object))
        };
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
            return Some((items.len(), all(items.iter().map(|item| float(item.as_ptr())), items.len())));
        }
        let floats = (0..length.cast_signed()).map(|index| float(ffi::PyList_GET_ITEM(list.as_ptr(), index)));
        Some((length, all(floats, length)))
    }
}

/// As many floats as said, if there are any, each is one, and there is memory for them.
fn all(floats: impl Iterator<Item = Option<f64>>, count: usize) -> Option<Vec<f64>> {
    let mut all = Vec::new();
    for float in floats {
        let float = float?;
        if all.is_empty() {
            all.try_reserve_exact(count).ok()?;
        }
        all.push(float);
    }
    (!all.is_empty()).then_some(all)
}
