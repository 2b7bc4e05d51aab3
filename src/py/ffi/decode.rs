//! Objects of built-in types, to be made of what a decoder has read.

#![allow(unsafe_code)]

use super::object::{Object, owned};
use super::raised::Raised;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;

/// An int from a number to the base of 16, as `int(text, 16)` takes it.
pub(crate) fn new_int_of_hex(_: Python<'_>, text: &CStr) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the text ends with a zero.
    owned(unsafe { ffi::PyLong_FromString(text.as_ptr(), std::ptr::null_mut(), 16) })
}

/// A str of ASCII characters, more than one.
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

/// A str of these characters, among which there may be lone surrogates.
pub(crate) fn new_text_of(_: Python<'_>, points: &[u32]) -> Result<Object, Raised> {
    let kind = ffi::PyUnicode_4BYTE_KIND.cast_signed();
    // SAFETY: the thread is attached, and there are so many characters. One that there is not makes an exception.
    owned(unsafe { ffi::PyUnicode_FromKindAndData(kind, points.as_ptr().cast(), points.len().cast_signed()) })
}

/// A bytes object.
pub(crate) fn new_bytes(_: Python<'_>, bytes: &[u8]) -> Result<Object, Raised> {
    // SAFETY: the thread is attached, and the bytes are as many as said.
    owned(unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len().cast_signed()) })
}

/// A tuple of so many items, or nothing if one of them is nothing. `next` runs no foreign code.
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
