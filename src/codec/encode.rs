//! Writing a key or a value item by item, with no tree in between.
//!
//! Each method writes one whole item or, when it fails, nothing: the caller may go on with another one in its place.

use super::{LONG, MAX_DEPTH, SIZE_BYTES, SMALL, SMALL_OFFSET, is_padded, tag};
use std::fmt;

/// Why an item was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// It would take more bytes than there may be, or than there is memory for.
    Oversize,
    /// It is a tuple inside as many tuples as there may be.
    TooDeep,
    /// More or fewer items came than were announced.
    Miscounted,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oversize => "the encoding is too large",
            Self::TooDeep => "tuples are nested too deep",
            Self::Miscounted => "more or fewer items came than were announced",
        })
    }
}

impl std::error::Error for EncodeError {}

/// The encoding of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It comes back as it is, to the bit.
    Exact,
    /// It keeps its type. Equal numbers of one type become the same.
    Typed,
    /// It becomes the int that it equals, if any.
    Equal,
}

/// The writer of one key or one value.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// Never longer than `limit`.
    out: &'a mut Vec<u8>,
    limit: usize,
    /// How many items are still to come, in the innermost tuple that is open.
    due: usize,
    /// How many tuples are open.
    depth: u8,
    rule: Rule,
}

impl<'a> Encoder<'a> {
    /// Begins a value of at most `limit` bytes, in place of what is in `out`: one item.
    #[inline]
    pub fn for_value(out: &'a mut Vec<u8>, limit: u32) -> Self {
        out.clear();
        Self { out, limit: limit as usize, due: 1, depth: 0, rule: Rule::Exact }
    }

    /// Begins a key of at most `limit` bytes, in place of what is in `out`: `positional` items, then for each named value
    /// its name as a text and the value. The order of names is part of the key.
    ///
    /// With `typed`, a value keeps its type. The items of a tuple do not, as with `functools.lru_cache`.
    #[inline]
    pub fn for_key(
        out: &'a mut Vec<u8>,
        limit: u32,
        positional: usize,
        named: usize,
        typed: bool,
    ) -> Result<Self, EncodeError> {
        let due = positional.saturating_add(named.saturating_mul(2));
        let mut key = Self::for_value(out, limit);
        // Every item takes a byte or more.
        key.room(due.saturating_add(length_size(positional) + length_size(named)))?;
        key.put_length(positional);
        key.put_length(named);
        key.due = due;
        key.rule = if typed { Rule::Typed } else { Rule::Equal };
        Ok(key)
    }

    /// Goes on with one item more, of a value or of an untyped key, for a caller that puts items into an order of its own. All of
    /// `out` takes at most `limit` bytes.
    #[inline]
    pub fn for_item(out: &'a mut Vec<u8>, limit: u32, is_exact: bool) -> Result<Self, EncodeError> {
        let limit = limit as usize;
        if out.len() > limit {
            return Err(EncodeError::Oversize);
        }
        let rule = if is_exact { Rule::Exact } else { Rule::Equal };
        Ok(Self { out, limit, due: 1, depth: 0, rule })
    }

    /// How many bytes may still come.
    #[inline]
    pub fn left(&self) -> usize {
        self.limit - self.out.len()
    }

    /// The whole encoding, if every item announced has come.
    #[inline]
    pub fn finish(self) -> Result<&'a [u8], EncodeError> {
        if self.due == 0 { Ok(self.out) } else { Err(EncodeError::Miscounted) }
    }

    /// Python's `None`.
    #[inline]
    pub fn none(&mut self) -> Result<(), EncodeError> {
        self.put([tag::NONE])
    }

    /// A bool, in a key perhaps the int that it equals.
    #[inline]
    pub fn bool(&mut self, value: bool) -> Result<(), EncodeError> {
        match self.rule {
            Rule::Equal => self.int(i64::from(value)),
            Rule::Exact | Rule::Typed => self.put([if value { tag::TRUE } else { tag::FALSE }]),
        }
    }

    /// An int that fits 64 bits.
    #[inline]
    pub fn int(&mut self, value: i64) -> Result<(), EncodeError> {
        if SMALL.contains(&value) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0x80 to 0xff")]
            return self.put([(value + SMALL_OFFSET) as u8]);
        }
        self.put_tagged(tag::INT, value.to_le_bytes())
    }

    /// Any int, as two's complement with its least byte first. No bytes at all are 0.
    pub fn big_int(&mut self, mut digits: &[u8]) -> Result<(), EncodeError> {
        while is_padded(digits) {
            digits = &digits[..digits.len() - 1];
        }
        if digits.len() > size_of::<i64>() {
            return self.put_sized(tag::BIG_INT, digits);
        }
        let is_negative = digits.last().is_some_and(|&last| last >= 0x80);
        let mut bytes = [if is_negative { 0xff } else { 0 }; size_of::<i64>()];
        bytes[..digits.len()].copy_from_slice(digits);
        self.int(i64::from_le_bytes(bytes))
    }

    /// A float, in a key perhaps the int that it equals. There, zero has no sign, and there is one NaN.
    #[inline]
    pub fn float(&mut self, value: f64) -> Result<(), EncodeError> {
        match self.rule {
            Rule::Exact => self.put_float(value),
            Rule::Typed => self.put_float(without_variants(value)),
            Rule::Equal => match to_i64(value) {
                Some(int) => self.int(int),
                None => self.float_beyond_i64(value),
            },
        }
    }

    /// The UTF-8 of a str; a lone surrogate has three bytes, as if UTF-8 had them.
    #[inline]
    pub fn text(&mut self, text: &[u8]) -> Result<(), EncodeError> {
        self.put_sized(tag::TEXT, text)
    }

    /// A str of these characters. A lone surrogate becomes three bytes, as if UTF-8 had them.
    pub fn code_points(&mut self, points: impl ExactSizeIterator<Item = u32> + Clone) -> Result<(), EncodeError> {
        if points.len() > self.left() {
            return Err(EncodeError::Oversize);
        }
        let size = points.clone().map(utf8_size).fold(0, usize::saturating_add);
        let start = self.out.len();
        self.item(size.saturating_add(1 + length_size(size)))?;
        self.out.push(tag::TEXT);
        self.put_length(size);
        let body = self.out.len();
        for point in points {
            let (bytes, size) = to_utf8(point);
            self.out.extend_from_slice(&bytes[4 - size..]);
        }
        if self.out.len() != body + size {
            self.out.truncate(start);
            return Err(EncodeError::Miscounted);
        }
        self.due -= 1;
        Ok(())
    }

    /// A bytes object.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.put_sized(tag::BYTES, bytes)
    }

    /// The pickle of anything else. In a key, the caller sees to it that equal objects have equal pickles.
    pub fn pickle(&mut self, pickle: &[u8]) -> Result<(), EncodeError> {
        self.put_sized(tag::PICKLE, pickle)
    }

    /// A list of floats, which come back to the bit.
    pub fn floats(&mut self, values: impl ExactSizeIterator<Item = f64>) -> Result<(), EncodeError> {
        let (start, count) = (self.out.len(), values.len());
        let size = count.saturating_mul(size_of::<f64>()).saturating_add(1 + length_size(count));
        self.item(size)?;
        self.out.push(tag::FLOATS);
        self.put_length(count);
        for value in values.take(count) {
            self.out.extend_from_slice(&value.to_le_bytes());
        }
        if self.out.len() != start + size {
            self.out.truncate(start);
            return Err(EncodeError::Miscounted);
        }
        self.due -= 1;
        Ok(())
    }

    /// A tuple of `count` items, which `items` writes.
    pub fn tuple<E: From<EncodeError>>(
        &mut self,
        count: usize,
        items: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.can_nest() {
            return Err(EncodeError::TooDeep.into());
        }
        let (start, due, rule) = (self.out.len(), self.due, self.rule);
        // Every item takes a byte or more.
        self.item(count.saturating_add(1 + length_size(count) + SIZE_BYTES))?;
        self.out.push(tag::TUPLE);
        self.put_length(count);
        self.out.extend_from_slice(&[0; SIZE_BYTES]);
        let body = self.out.len();

        self.depth += 1;
        self.due = count;
        if rule == Rule::Typed {
            self.rule = Rule::Equal;
        }
        let written = items(self);
        let is_complete = self.due == 0;
        self.depth -= 1;
        self.due = due;
        self.rule = rule;

        if written.is_err() || !is_complete {
            self.out.truncate(start);
            return written.and(Err(EncodeError::Miscounted.into()));
        }
        let size = to_u32(self.out.len() - body);
        self.out[body - SIZE_BYTES..body].copy_from_slice(&size.to_le_bytes());
        self.due -= 1;
        Ok(())
    }

    /// Whether the next item may be a tuple.
    #[inline]
    pub fn can_nest(&self) -> bool {
        self.depth < MAX_DEPTH
    }

    /// A float that no i64 equals, as the int that it does equal or, if there is none, as itself.
    fn float_beyond_i64(&mut self, value: f64) -> Result<(), EncodeError> {
        // From 2^63 on, all are whole.
        if value.is_finite() && value.abs() >= -I64_MIN {
            self.big_int(&digits(value))
        } else {
            self.put_float(without_variants(value))
        }
    }

    #[inline]
    fn put_float(&mut self, value: f64) -> Result<(), EncodeError> {
        self.put_tagged(tag::FLOAT, value.to_le_bytes())
    }

    #[inline]
    fn put_tagged(&mut self, tag: u8, bytes: [u8; 8]) -> Result<(), EncodeError> {
        let mut item = [tag; 9];
        item[1..].copy_from_slice(&bytes);
        self.put(item)
    }

    #[inline]
    fn put<const SIZE: usize>(&mut self, item: [u8; SIZE]) -> Result<(), EncodeError> {
        self.item(SIZE)?;
        self.out.extend_from_slice(&item);
        self.due -= 1;
        Ok(())
    }

    #[inline]
    fn put_sized(&mut self, tag: u8, bytes: &[u8]) -> Result<(), EncodeError> {
        self.item(bytes.len() + 1 + length_size(bytes.len()))?;
        self.out.push(tag);
        self.put_length(bytes.len());
        self.out.extend_from_slice(bytes);
        self.due -= 1;
        Ok(())
    }

    /// Writes a length or a count for which there is room.
    #[inline]
    fn put_length(&mut self, length: usize) {
        match u8::try_from(length) {
            Ok(short) if short != LONG => self.out.push(short),
            _ => {
                self.out.push(LONG);
                self.out.extend_from_slice(&to_u32(length).to_le_bytes());
            }
        }
    }

    /// Makes room for an item, if there may be one.
    #[inline]
    fn item(&mut self, size: usize) -> Result<(), EncodeError> {
        if self.due == 0 { Err(EncodeError::Miscounted) } else { self.room(size) }
    }

    #[inline]
    fn room(&mut self, size: usize) -> Result<(), EncodeError> {
        if size > self.limit - self.out.len() {
            return Err(EncodeError::Oversize);
        }
        self.out.try_reserve(size).map_err(|_| EncodeError::Oversize)
    }
}

/// How many bytes a length takes.
#[inline]
fn length_size(length: usize) -> usize {
    if length < LONG as usize { 1 } else { 1 + size_of::<u32>() }
}

/// A size below the limit, which is below 2^32.
#[inline]
fn to_u32(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[inline]
fn utf8_size(point: u32) -> usize {
    match point {
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x1_0000 => 3,
        _ => 4,
    }
}

/// The UTF-8 of a character at the end of four bytes, and its size.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the bits above are masked")]
fn to_utf8(point: u32) -> ([u8; 4], usize) {
    let size = utf8_size(point);
    let lead = [0, 0, 0xc0, 0xe0, 0xf0][size];
    let mut bytes = [18, 12, 6, 0].map(|shift| 0x80 | (point >> shift) as u8 & 0x3f);
    let first = 4 - size;
    bytes[first] = if size == 1 { point as u8 } else { lead | (bytes[first] & 0x3f) };
    (bytes, size)
}

/// -2^63.
#[allow(clippy::cast_precision_loss, reason = "a power of two")]
const I64_MIN: f64 = i64::MIN as f64;

/// The i64 that a float equals.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "this is what is asked"
)]
fn to_i64(value: f64) -> Option<i64> {
    let int = value as i64;
    // 2^63 is cast to the greatest i64, which is cast to 2^63.
    (int as f64 == value && value < -I64_MIN).then_some(int)
}

/// The two's complement of a whole float from 2^52 on, or of its negative.
fn digits(value: f64) -> [u8; 130] {
    const FRACTION_BITS: u64 = 52;
    let bits = value.to_bits();
    let significand = bits & ((1 << FRACTION_BITS) - 1) | 1 << FRACTION_BITS;
    let exponent = (bits >> FRACTION_BITS & 0x7ff).saturating_sub(1023 + FRACTION_BITS);
    // At most 971 bits up, which is 121 bytes and 3 bits: the last byte is left for the sign.
    #[allow(clippy::cast_possible_truncation, reason = "at most 121")]
    let place = (exponent / 8) as usize;
    let mut digits = [0; 130];
    digits[place..place + 8].copy_from_slice(&(significand << (exponent % 8)).to_le_bytes());
    if value.is_sign_negative() {
        negate(&mut digits);
    }
    digits
}

fn negate(digits: &mut [u8]) {
    let mut carry = true;
    for digit in digits {
        (*digit, carry) = (!*digit).overflowing_add(u8::from(carry));
    }
}

/// A float with its zero unsigned and its NaN the usual one.
#[inline]
fn without_variants(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { value + 0.0 }
}

#[cfg(test)]
#[allow(clippy::redundant_closure_for_method_calls, reason = "Encoder::none is a method of an encoder of one lifetime")]
mod tests;
