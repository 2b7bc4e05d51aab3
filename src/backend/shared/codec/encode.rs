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

/// What becomes of a number.
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

    /// Goes on with one item more, of a value or of an untyped key, for what keeps items in an order of its own. All of
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

    /// None.
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

    /// The UTF-8 of a str, or what stands for it where a str has no UTF-8.
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

    /// The pickle of anything else. In a key, nothing makes the pickles of equal objects equal but who pickled them.
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

/// What has room below the limit has a size below 2^32.
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
mod tests {
    use super::*;

    type Encoded = Result<Vec<u8>, EncodeError>;

    fn value(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>) -> Encoded {
        let mut out = vec![0xee; 3];
        let mut encoder = Encoder::for_value(&mut out, 1 << 20);
        write(&mut encoder)?;
        encoder.finish().map(<[u8]>::to_vec)
    }

    /// The key of a call with one argument, without its two counts.
    fn argument(typed: bool, write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>) -> Encoded {
        let mut out = Vec::new();
        let mut encoder = Encoder::for_key(&mut out, 1 << 20, 1, 0, typed)?;
        write(&mut encoder)?;
        let key = encoder.finish()?;
        assert_eq!(key[..2], [1, 0]);
        Ok(key[2..].to_vec())
    }

    #[test]
    fn none_and_bools_are_one_byte() {
        assert_eq!(value(|it| it.none()), Ok(vec![0x01]));
        assert_eq!(value(|it| it.bool(false)), Ok(vec![0x02]));
        assert_eq!(value(|it| it.bool(true)), Ok(vec![0x03]));
    }

    #[test]
    fn ints_are_one_byte_or_nine() {
        for (int, byte) in [(-16, 0x80), (-1, 0x8f), (0, 0x90), (1, 0x91), (111, 0xff)] {
            assert_eq!(value(|it| it.int(int)), Ok(vec![byte]));
        }
        assert_eq!(value(|it| it.int(112)), Ok(vec![0x04, 112, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(value(|it| it.int(-17)), Ok(vec![0x04, 0xef, 255, 255, 255, 255, 255, 255, 255]));
        assert_eq!(value(|it| it.int(i64::MIN)), Ok(vec![0x04, 0, 0, 0, 0, 0, 0, 0, 0x80]));
        assert_eq!(value(|it| it.int(i64::MAX)), Ok(vec![0x04, 255, 255, 255, 255, 255, 255, 255, 0x7f]));
    }

    #[test]
    fn a_big_int_is_as_short_as_it_can_be() {
        for digits in [&[][..], &[0], &[0; 40]] {
            assert_eq!(value(|it| it.big_int(digits)), value(|it| it.int(0)));
        }
        for digits in [&[0xff][..], &[0xff; 40]] {
            assert_eq!(value(|it| it.big_int(digits)), value(|it| it.int(-1)));
        }
        assert_eq!(value(|it| it.big_int(&[0x80])), value(|it| it.int(-128)));
        assert_eq!(value(|it| it.big_int(&[0x80, 0])), value(|it| it.int(128)));
        assert_eq!(value(|it| it.big_int(&[0, 0, 0, 0, 0, 0, 0, 0x80, 255, 255])), value(|it| it.int(i64::MIN)));
        // 2^63, and what is one less than the least i64.
        assert_eq!(
            value(|it| it.big_int(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0])),
            Ok(vec![0x05, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0])
        );
        assert_eq!(
            value(|it| it.big_int(&[255, 255, 255, 255, 255, 255, 255, 0x7f, 255, 255])),
            Ok(vec![0x05, 9, 255, 255, 255, 255, 255, 255, 255, 0x7f, 255])
        );
    }

    #[test]
    fn a_float_is_its_bits() {
        assert_eq!(value(|it| it.float(1.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]));
        assert_eq!(value(|it| it.float(-0.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0, 0x80]));
        let nan = f64::from_bits(0xfff8_0000_0000_0001);
        assert_eq!(value(|it| it.float(nan)), Ok(vec![0x06, 1, 0, 0, 0, 0, 0, 0xf8, 0xff]));
    }

    #[test]
    fn texts_bytes_and_pickles_have_a_length() {
        assert_eq!(value(|it| it.text(b"")), Ok(vec![0x07, 0]));
        assert_eq!(value(|it| it.text("aé".as_bytes())), Ok(vec![0x07, 3, b'a', 0xc3, 0xa9]));
        assert_eq!(value(|it| it.text(b"\xed\xa0\x80")), Ok(vec![0x07, 3, 0xed, 0xa0, 0x80]));
        assert_eq!(value(|it| it.bytes(b"\x00\xff")), Ok(vec![0x08, 2, 0, 0xff]));
        assert_eq!(value(|it| it.pickle(b"N.")), Ok(vec![0x0b, 2, b'N', b'.']));
    }

    #[test]
    fn characters_become_utf_8() {
        for text in ["", "a", "\u{7f}\u{80}\u{7ff}\u{800}", "\u{ffff}\u{10000}\u{10ffff}", "añ€😀"] {
            let points: Vec<u32> = text.chars().map(u32::from).collect();
            assert_eq!(
                value(|it| it.code_points(points.iter().copied())),
                value(|it| it.text(text.as_bytes())),
                "{text}"
            );
        }
        let surrogates = [0xd800, 0xdfff];
        let bytes = b"\xed\xa0\x80\xed\xbf\xbf";
        assert_eq!(value(|it| it.code_points(surrogates.iter().copied())), value(|it| it.text(bytes)));
        let mut out = Vec::new();
        for (limit, written) in [(4, Err(EncodeError::Oversize)), (5, Ok(()))] {
            assert_eq!(Encoder::for_value(&mut out, limit).code_points([0x20ac].into_iter()), written);
        }
    }

    #[test]
    fn an_item_goes_behind_what_is_there() {
        let mut out = vec![7; 3];
        let mut item = Encoder::for_item(&mut out, 4, false).expect("room");
        assert_eq!((item.left(), item.float(1.0), item.left()), (1, Ok(()), 0));
        assert_eq!(out, [7, 7, 7, 0x91]);
        let item = Encoder::for_item(&mut out, 13, true).expect("room").float(1.0);
        assert_eq!((item, &out[4..]), (Ok(()), &[0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..]));
        assert_eq!(Encoder::for_item(&mut out, 12, true).map(|_| ()), Err(EncodeError::Oversize));
    }

    #[test]
    fn a_length_is_one_byte_or_five() {
        for (length, head) in [
            (254, &[0x08, 254][..]),
            (255, &[0x08, 0xff, 255, 0, 0, 0]),
            (256, &[0x08, 0xff, 0, 1, 0, 0]),
            (70_000, &[0x08, 0xff, 0x70, 0x11, 1, 0]),
        ] {
            let bytes = vec![7; length];
            assert_eq!(value(|it| it.bytes(&bytes)), Ok([head, &bytes].concat()), "{length}");
        }
    }

    #[test]
    fn a_tuple_has_a_count_and_the_size_of_its_items() {
        assert_eq!(value(|it| it.tuple(0, |_| Ok(()))), Ok(vec![0x09, 0, 0, 0, 0, 0]));
        let nested = value(|it| {
            it.tuple(2, |it| {
                it.text(b"a")?;
                it.tuple(1, Encoder::none)
            })
        });
        assert_eq!(nested, Ok(vec![0x09, 2, 10, 0, 0, 0, 0x07, 1, b'a', 0x09, 1, 1, 0, 0, 0, 0x01]));
    }

    #[test]
    fn a_list_of_floats_has_one_tag() {
        assert_eq!(value(|it| it.floats([].into_iter())), Ok(vec![0x0a, 0]));
        assert_eq!(
            value(|it| it.floats([1.0, -0.0].into_iter())),
            Ok(vec![0x0a, 2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x80])
        );
        assert_eq!(value(|it| it.floats([0.5; 100].into_iter())).map(|bytes| bytes.len()), Ok(802));
    }

    #[test]
    fn a_key_has_two_counts_and_then_its_items() {
        let mut out = Vec::new();
        let key = Encoder::for_key(&mut out, 100, 0, 0, false).and_then(Encoder::finish);
        assert_eq!(key, Ok(&[0, 0][..]));
        // f(1, a=None)
        let mut key = Encoder::for_key(&mut out, 100, 1, 1, false).expect("room");
        key.int(1).and_then(|()| key.text(b"a")).and_then(|()| key.none()).expect("room");
        assert_eq!(key.finish(), Ok(&[1, 1, 0x91, 0x07, 1, b'a', 0x01][..]));
    }

    #[test]
    fn in_a_key_a_number_is_the_int_that_it_equals() {
        for (float, int) in [(1.0, 1), (-0.0, 0), (-9_007_199_254_740_992.0, -(1 << 53)), (I64_MIN, i64::MIN)] {
            assert_eq!(argument(false, |it| it.float(float)), argument(false, |it| it.int(int)), "{float}");
        }
        assert_eq!(argument(false, |it| it.bool(true)), Ok(vec![0x91]));
        assert_eq!(argument(false, |it| it.bool(false)), Ok(vec![0x90]));
        let two_to_63 = Ok(vec![0x05, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0]);
        assert_eq!(argument(false, |it| it.float(-I64_MIN)), two_to_63);
        let below = Ok(vec![0x05, 9, 0, 0xf8, 255, 255, 255, 255, 255, 0x7f, 0xff]);
        assert_eq!(argument(false, |it| it.float(I64_MIN - 2048.0)), below);
        let greatest = argument(false, |it| it.float(f64::MAX)).expect("room");
        assert_eq!((greatest[..2].to_vec(), greatest.len()), (vec![0x05, 129], 131));
        assert_eq!(
            (&greatest[2..122], &greatest[122..]),
            (&[0; 120][..], &[0, 0xf8, 255, 255, 255, 255, 255, 255, 0][..])
        );
    }

    #[test]
    fn in_a_key_a_float_that_is_no_int_is_a_float() {
        assert_eq!(argument(false, |it| it.float(0.5)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]));
        assert_eq!(argument(false, |it| it.float(f64::INFINITY)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f]));
        for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)] {
            for typed in [false, true] {
                assert_eq!(argument(typed, |it| it.float(nan)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]));
            }
        }
    }

    #[test]
    fn in_a_typed_key_an_argument_keeps_its_type_and_the_items_of_a_tuple_do_not() {
        assert_eq!(argument(true, |it| it.bool(true)), Ok(vec![0x03]));
        assert_eq!(argument(true, |it| it.float(1.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]));
        assert_eq!(argument(true, |it| it.float(-0.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0, 0]));
        let pair = |it: &mut Encoder<'_>| {
            it.bool(true)?;
            it.float(1.0)
        };
        assert_eq!(argument(true, |it| it.tuple(2, pair)), Ok(vec![0x09, 2, 2, 0, 0, 0, 0x91, 0x91]));
        assert_eq!(value(|it| it.tuple(2, pair)).map(|bytes| bytes.len()), Ok(16));
    }

    #[test]
    fn nothing_is_written_past_the_limit() {
        let mut out = Vec::new();
        let mut encoder = Encoder::for_value(&mut out, 10);
        assert_eq!(encoder.bytes(&[0; 9]), Err(EncodeError::Oversize));
        assert_eq!(encoder.floats([0.0, 0.0].into_iter()), Err(EncodeError::Oversize));
        assert_eq!(encoder.tuple(5, |_| Ok(())), Err(EncodeError::Oversize));
        assert_eq!(encoder.tuple(usize::MAX, |_| Ok(())), Err(EncodeError::Oversize));
        assert_eq!(encoder.tuple(2, |it| it.none().and_then(|()| it.float(0.5))), Err(EncodeError::Oversize));
        assert_eq!(encoder.bytes(&[7; 8]), Ok(()));
        assert_eq!(encoder.finish(), Ok(&[0x08, 8, 7, 7, 7, 7, 7, 7, 7, 7][..]));
        for (limit, counts) in [(1, (0, 0)), (2, (1, 0)), (3, (0, 1)), (100, (usize::MAX, 0)), (100, (0, usize::MAX))] {
            let key = Encoder::for_key(&mut out, limit, counts.0, counts.1, false);
            assert_eq!(key.map(|_| ()), Err(EncodeError::Oversize), "{limit}, {counts:?}");
        }
        assert_eq!(out, []);
    }

    #[test]
    fn the_items_are_as_many_as_announced() {
        let mut out = Vec::new();
        assert_eq!(Encoder::for_value(&mut out, 100).finish(), Err(EncodeError::Miscounted));
        let mut encoder = Encoder::for_value(&mut out, 100);
        assert_eq!(encoder.tuple(2, Encoder::none), Err(EncodeError::Miscounted));
        assert_eq!(encoder.tuple(0, Encoder::none), Err(EncodeError::Miscounted));
        assert_eq!(encoder.none(), Ok(()));
        assert_eq!(encoder.none(), Err(EncodeError::Miscounted));
        assert_eq!(encoder.finish(), Ok(&[0x01][..]));
    }

    #[test]
    fn tuples_nest_to_a_limit() {
        fn nest(encoder: &mut Encoder<'_>, levels: u8) -> Result<(), EncodeError> {
            if levels == 0 { encoder.none() } else { encoder.tuple(1, |inner| nest(inner, levels - 1)) }
        }
        assert_eq!(value(|it| nest(it, MAX_DEPTH)).map(|bytes| bytes.len()), Ok(6 * usize::from(MAX_DEPTH) + 1));
        assert_eq!(value(|it| nest(it, MAX_DEPTH + 1)), Err(EncodeError::TooDeep));
        // Side by side, there may be any number of them.
        assert!(value(|it| it.tuple(100, |it| (0..100).try_for_each(|_| nest(it, 1)))).is_ok());
    }
}
