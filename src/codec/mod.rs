//! Keys and values as bytes, for a cache that is not in this process alone. They are a format: other processes read them.
//!
//! Nothing here knows Python, nor where the bytes lie. An encoding is checked against a limit. The decoder trusts no bytes:
//! none make it panic, recurse or allocate. A value has one encoding, so that bytes that decode are encoded as the same bytes
//! again.
//!
//! ```text
//! first byte   value                   after it
//! 01           None
//! 02           False
//! 03           True
//! 04           int                     i64
//! 05           int beyond an i64       length, two's complement in as few bytes as hold it and its sign
//! 06           float                   its 64 bits
//! 07           str                     length, UTF-8 in which there may be lone surrogates
//! 08           bytes                   length, bytes
//! 09           tuple                   count, size of its items in bytes as u32, items
//! 0a           list of floats          count, 64 bits of each
//! 0b           anything else           length, a pickle
//! 80 to ff     int from -16 to 111     (the byte less 90)
//!
//! length, count: one byte, or from 255 on the byte ff and a u32
//! key:           count of the values without a name, count of those with one, the former, then name (a str) and value of each
//! ```
//!
//! Numbers are little-endian. No value begins with 00, so memory that was never written is none.
//!
//! In a key, values that are equal in Python have the same bytes: there 1, 1.0 and True are the int.

mod decode;
mod encode;

pub use decode::{Damaged, Floats, Items, Value, decode};
pub use encode::{EncodeError, Encoder};

use std::ops::RangeInclusive;

/// The number of the format above. A change of one byte of it changes this number, too, so that other builds keep to other
/// files.
pub const FORMAT: u32 = 1;

/// How deep tuples nest. A walk along a value recurses so far and no farther; a deeper tuple is pickled.
pub const MAX_DEPTH: u8 = 32;

mod tag {
    pub(super) const NONE: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const INT: u8 = 0x04;
    pub(super) const BIG_INT: u8 = 0x05;
    pub(super) const FLOAT: u8 = 0x06;
    pub(super) const TEXT: u8 = 0x07;
    pub(super) const BYTES: u8 = 0x08;
    pub(super) const TUPLE: u8 = 0x09;
    pub(super) const FLOATS: u8 = 0x0a;
    pub(super) const PICKLE: u8 = 0x0b;
    /// The least int that is its own tag.
    pub(super) const FIRST_SMALL: u8 = 0x80;
}

/// Ints that are their own tags.
const SMALL: RangeInclusive<i64> = -16..=111;

/// The distance of a tag from the small int that it stands for.
const SMALL_OFFSET: i64 = 0x90;

/// The byte in front of a length that does not fit one byte.
const LONG: u8 = 0xff;

/// How many bytes a size in front of a tuple's items takes.
const SIZE_BYTES: usize = size_of::<u32>();

/// Whether the last byte of a two's complement says nothing that the byte before it does not say.
fn is_padded(digits: &[u8]) -> bool {
    matches!(digits, [.., 0..=0x7f, 0x00] | [.., 0x80..=0xff, 0xff])
}
