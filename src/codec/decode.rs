//! Reading a value from bytes that may be anything.
//!
//! A value borrows from the bytes. A tuple is read item by item. A walk along it, and the tuples in it, ends after at
//! most as many steps as there are bytes, and goes no deeper than [`MAX_DEPTH`].

use super::{LONG, MAX_DEPTH, SMALL, SMALL_OFFSET, is_padded, tag};
use std::fmt;

/// The bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the encoding is damaged")
    }
}

impl std::error::Error for Damaged {}

/// A value as it was encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// None.
    None,
    /// A bool.
    Bool(bool),
    /// An int that fits 64 bits.
    Int(i64),
    /// An int that does not, as two's complement with its least byte first.
    BigInt(&'a [u8]),
    /// A float.
    Float(f64),
    /// The UTF-8 of a str, unchecked: the bytes may be anything.
    Text(&'a [u8]),
    /// A bytes object.
    Bytes(&'a [u8]),
    /// A tuple.
    Tuple(Items<'a>),
    /// A list of floats.
    Floats(Floats<'a>),
    /// A pickle of anything else.
    Pickle(&'a [u8]),
}

/// The value that all of `bytes` is. The items of a tuple are looked at when their turn comes.
#[inline]
pub fn decode(mut bytes: &[u8]) -> Result<Value<'_>, Damaged> {
    let value = take_value(&mut bytes, 0)?;
    if bytes.is_empty() { Ok(value) } else { Err(Damaged) }
}

/// The items of a tuple, up to the first that is damaged.
#[derive(Clone, Debug, PartialEq)]
pub struct Items<'a> {
    rest: &'a [u8],
    /// At most as many as there are bytes.
    count: usize,
    /// How many tuples the items are in.
    depth: u8,
}

impl<'a> Items<'a> {
    fn take(bytes: &mut &'a [u8], depth: u8) -> Result<Self, Damaged> {
        let count = take_length(bytes)?;
        let size = u32::from_le_bytes(take_array(bytes)?);
        let items = take(bytes, size as usize)?;
        let fits = if count == 0 { items.is_empty() } else { count <= items.len() };
        if fits && depth < MAX_DEPTH { Ok(Self { rest: items, count, depth: depth + 1 }) } else { Err(Damaged) }
    }

    /// How many items are still to come, if none of them is damaged: never more than there are bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Value<'a>, Damaged>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let item = take_value(&mut self.rest, self.depth);
        // The last item ends where the tuple ends.
        if item.is_err() || self.count == 0 && !self.rest.is_empty() {
            self.count = 0;
            return Some(Err(Damaged));
        }
        Some(item)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count > 0), Some(self.count))
    }
}

/// A list of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floats<'a>(&'a [[u8; 8]]);

impl<'a> Floats<'a> {
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Damaged> {
        let size = take_length(bytes)?.checked_mul(size_of::<f64>()).ok_or(Damaged)?;
        Ok(Self(take(bytes, size)?.as_chunks().0))
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> + use<'a> {
        self.0.iter().map(|&bytes| f64::from_le_bytes(bytes))
    }
}

/// Takes the value at the start of `bytes`, which is inside `depth` tuples.
///
/// The rest of the bytes goes out through the argument. Returned together with the value, it made a scalar cost 14 ns in place of
/// 6 wherever the caller is not inlined.
#[inline]
fn take_value<'a>(bytes: &mut &'a [u8], depth: u8) -> Result<Value<'a>, Damaged> {
    let [tag] = take_array(bytes)?;
    Ok(match tag {
        tag::FIRST_SMALL.. => Value::Int(i64::from(tag) - SMALL_OFFSET),
        tag::NONE => Value::None,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::INT => {
            let int = i64::from_le_bytes(take_array(bytes)?);
            if SMALL.contains(&int) {
                return Err(Damaged);
            }
            Value::Int(int)
        }
        tag::FLOAT => Value::Float(f64::from_le_bytes(take_array(bytes)?)),
        tag::TEXT => Value::Text(take_sized(bytes)?),
        tag::BYTES => Value::Bytes(take_sized(bytes)?),
        tag::PICKLE => Value::Pickle(take_sized(bytes)?),
        tag::TUPLE => Value::Tuple(Items::take(bytes, depth)?),
        tag::FLOATS => Value::Floats(Floats::take(bytes)?),
        tag::BIG_INT => {
            let digits = take_sized(bytes)?;
            if digits.len() <= size_of::<i64>() || is_padded(digits) {
                return Err(Damaged);
            }
            Value::BigInt(digits)
        }
        _ => return Err(Damaged),
    })
}

/// Takes a length and so many bytes.
#[inline]
fn take_sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = take_length(bytes)?;
    take(bytes, length)
}

/// Takes a length or a count.
#[inline]
fn take_length(bytes: &mut &[u8]) -> Result<usize, Damaged> {
    let [short] = take_array(bytes)?;
    if short != LONG {
        return Ok(usize::from(short));
    }
    let length = u32::from_le_bytes(take_array(bytes)?);
    if length < u32::from(LONG) { Err(Damaged) } else { Ok(length as usize) }
}

#[inline]
fn take_array<const SIZE: usize>(bytes: &mut &[u8]) -> Result<[u8; SIZE], Damaged> {
    let (&array, rest) = bytes.split_first_chunk().ok_or(Damaged)?;
    *bytes = rest;
    Ok(array)
}

#[inline]
fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], Damaged> {
    let (taken, rest) = bytes.split_at_checked(size).ok_or(Damaged)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_has_its_value() {
        for (bytes, value) in [
            (&[0x01][..], Value::None),
            (&[0x02], Value::Bool(false)),
            (&[0x03], Value::Bool(true)),
            (&[0x80], Value::Int(-16)),
            (&[0x90], Value::Int(0)),
            (&[0xff], Value::Int(111)),
            (&[0x04, 112, 0, 0, 0, 0, 0, 0, 0], Value::Int(112)),
            (&[0x04, 0, 0, 0, 0, 0, 0, 0, 0x80], Value::Int(i64::MIN)),
            (&[0x05, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0], Value::BigInt(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0])),
            (&[0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f], Value::Float(1.0)),
            (&[0x07, 1, 0xff], Value::Text(&[0xff])),
            (&[0x08, 0], Value::Bytes(&[])),
            (&[0x0b, 2, b'N', b'.'], Value::Pickle(b"N.")),
        ] {
            assert_eq!(decode(bytes), Ok(value), "{bytes:02x?}");
        }
        let long = [&[0x07, 0xff, 255, 0, 0, 0][..], &[b'x'; 255]].concat();
        assert_eq!(decode(&long), Ok(Value::Text(&[b'x'; 255])));
    }

    #[test]
    fn a_float_keeps_its_bits() {
        for bits in [0x8000_0000_0000_0000, 0x7ff8_0000_0000_0000, 0xfff0_0000_0000_0001, 1] {
            let bytes = [&[0x06][..], &u64::to_le_bytes(bits)].concat();
            assert!(matches!(decode(&bytes), Ok(Value::Float(float)) if float.to_bits() == bits), "{bits:x}");
        }
    }

    #[test]
    fn floats_come_in_order() {
        let Ok(Value::Floats(floats)) = decode(&[0x0a, 2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0])
        else {
            panic!("no list of floats");
        };
        assert_eq!((floats.len(), floats.iter().collect::<Vec<_>>()), (2, vec![1.0, -2.0]));
    }

    #[test]
    fn the_items_of_a_tuple_come_in_order() {
        let bytes = [0x09, 3, 13, 0, 0, 0, 0x91, 0x09, 1, 1, 0, 0, 0, 0x03, 0x07, 3, b'a', b'b', b'c'];
        let Ok(Value::Tuple(mut items)) = decode(&bytes) else { panic!("no tuple") };
        assert_eq!((items.len(), items.size_hint()), (3, (1, Some(3))));
        assert_eq!(items.next(), Some(Ok(Value::Int(1))));
        let Some(Ok(Value::Tuple(inner))) = items.next() else { panic!("no tuple in it") };
        assert_eq!(inner.collect::<Vec<_>>(), [Ok(Value::Bool(true))]);
        assert_eq!(items.next(), Some(Ok(Value::Text(b"abc"))));
        assert_eq!((items.next(), items.is_empty()), (None, true));
        assert!(matches!(decode(&[0x09, 0, 0, 0, 0, 0]), Ok(Value::Tuple(items)) if items.is_empty()));
    }

    #[test]
    fn what_is_no_value_is_damaged() {
        for bytes in [
            &[][..],
            // No such tag.
            &[0x00],
            &[0x0c],
            &[0x7f],
            // More than a value.
            &[0x01, 0x01],
            &[0x07, 1, b'a', b'b'],
            // Less than a value.
            &[0x04, 0, 0, 0, 0, 0, 0, 1],
            &[0x07],
            &[0x07, 2, b'a'],
            &[0x07, 0xff, 255, 0, 0],
            &[0x08, 0xff, 255, 255, 255, 255],
            &[0x0a, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x0a, 0xff, 255, 255, 255, 255],
            // An encoding that is not the shortest.
            &[0x04, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x07, 0xff, 1, 0, 0, 0, b'a'],
            &[0x05, 8, 0, 0, 0, 0, 0, 0, 0, 0x80],
            &[0x05, 10, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0],
            &[0x05, 10, 0, 0, 0, 0, 0, 0, 0, 0x7f, 255, 255],
            // A tuple with more items than bytes, with bytes and no item, or with fewer bytes than it says.
            &[0x09, 2, 1, 0, 0, 0, 0x01],
            &[0x09, 0xff, 255, 255, 255, 255, 1, 0, 0, 0, 0x01],
            &[0x09, 0, 1, 0, 0, 0, 0x01],
            &[0x09, 1, 2, 0, 0, 0, 0x01],
            &[0x09, 1, 255, 255, 255, 255, 0x01],
        ] {
            assert_eq!(decode(bytes), Err(Damaged), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_tuple_ends_with_the_first_damaged_item() {
        let items = |bytes: &'static [u8]| match decode(bytes) {
            Ok(Value::Tuple(items)) => items.collect::<Vec<_>>(),
            other => panic!("no tuple: {other:?}"),
        };
        assert_eq!(items(&[0x09, 3, 3, 0, 0, 0, 0x01, 0x00, 0x01]), [Ok(Value::None), Err(Damaged)]);
        // The last item is followed by more bytes.
        assert_eq!(items(&[0x09, 2, 3, 0, 0, 0, 0x01, 0x01, 0x01]), [Ok(Value::None), Err(Damaged)]);
        // An item ends outside of the tuple.
        assert_eq!(items(&[0x09, 1, 2, 0, 0, 0, 0x07, 1]), [Err(Damaged)]);
    }

    #[test]
    fn tuples_nest_to_a_limit() {
        let nested = |levels: u8| {
            let mut bytes = vec![0x01];
            for _ in 0..levels {
                let size = u32::try_from(bytes.len()).expect("few bytes").to_le_bytes();
                bytes = [&[0x09, 1][..], &size, &bytes].concat();
            }
            bytes
        };
        let depth = |bytes: &[u8]| {
            let mut value = decode(bytes)?;
            let mut depth = 0;
            while let Value::Tuple(mut items) = value {
                depth += 1;
                value = items.next().ok_or(Damaged)??;
            }
            Ok(depth)
        };
        assert_eq!(depth(&nested(MAX_DEPTH)), Ok(MAX_DEPTH));
        assert_eq!(depth(&nested(MAX_DEPTH + 1)), Err(Damaged));
        assert_eq!(depth(&nested(255)), Err(Damaged));
    }
}
