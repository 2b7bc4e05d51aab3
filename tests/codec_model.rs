//! The codec against trees of plain values: what is encoded comes back, equal keys alone have equal bytes, and bytes that
//! nobody encoded do no harm.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::sync::LazyLock;
use warp_cache::codec::{Damaged, EncodeError, Encoder, MAX_DEPTH, Value, decode};

/// A value. Floats are their bits, so that equal trees are the same to the bit.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    None,
    Bool(bool),
    Int(i64),
    BigInt(Vec<u8>),
    Float(u64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Tuple(Vec<Tree>),
    Floats(Vec<u64>),
    Pickle(Vec<u8>),
}

impl Tree {
    fn write(&self, encoder: &mut Encoder<'_>) -> Result<(), EncodeError> {
        match self {
            Self::None => encoder.none(),
            Self::Bool(value) => encoder.bool(*value),
            Self::Int(value) => encoder.int(*value),
            Self::BigInt(digits) => encoder.big_int(digits),
            Self::Float(bits) => encoder.float(f64::from_bits(*bits)),
            Self::Text(text) => encoder.text(text),
            Self::Bytes(bytes) => encoder.bytes(bytes),
            Self::Tuple(items) => {
                encoder.tuple(items.len(), |encoder| items.iter().try_for_each(|it| it.write(encoder)))
            }
            Self::Floats(floats) => encoder.floats(floats.iter().map(|&bits| f64::from_bits(bits))),
            Self::Pickle(pickle) => encoder.pickle(pickle),
        }
    }

    fn encode(&self, limit: u32) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        let mut encoder = Encoder::for_value(&mut out, limit);
        let written = self.write(&mut encoder).and_then(|()| encoder.finish().map(|_| ()));
        assert!(out.len() <= limit as usize, "{} bytes where {limit} were allowed", out.len());
        written.map(|()| out)
    }

    fn read(value: Value<'_>) -> Result<Self, Damaged> {
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::BigInt(digits) => Self::BigInt(digits.to_vec()),
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Text(text) => Self::Text(text.to_vec()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::Tuple(items) => {
                let count = items.len();
                let items = items.map(|item| Self::read(item?)).collect::<Result<Vec<_>, _>>()?;
                assert_eq!(items.len(), count);
                Self::Tuple(items)
            }
            Value::Floats(floats) => Self::Floats(floats.iter().map(f64::to_bits).collect()),
            Value::Pickle(pickle) => Self::Pickle(pickle.to_vec()),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        decode(bytes).and_then(Self::read)
    }

    fn number(&self) -> Option<Number> {
        match self {
            Self::Bool(value) => Some(Number::whole(&u8::from(*value).to_string())),
            Self::Int(value) => Some(Number::whole(&value.to_string())),
            Self::BigInt(digits) => Some(Number::from_digits(digits)),
            Self::Float(bits) => Some(match f64::from_bits(*bits) {
                nan if nan.is_nan() => Number::Nan,
                float if float.is_finite() && float.fract() == 0.0 => Number::whole(&format!("{float:.0}")),
                float => Number::Other(float),
            }),
            _ => None,
        }
    }

    fn type_of_number(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Float(_) => "float",
            _ => "int",
        }
    }

    /// `==`, by Python's rules; but every NaN is the same one.
    fn equals(&self, other: &Self, typed: bool) -> bool {
        match (self, other) {
            (Self::Tuple(items), Self::Tuple(others)) => {
                items.len() == others.len() && items.iter().zip(others).all(|(item, other)| item.equals(other, false))
            }
            _ => match (self.number(), other.number()) {
                (Some(number), Some(another)) => {
                    number == another && (!typed || self.type_of_number() == other.type_of_number())
                }
                _ => self == other,
            },
        }
    }

    /// The same with other spellings of its numbers.
    fn respell(&self, dice: &mut impl Iterator<Item = Index>) -> Self {
        match self {
            Self::Tuple(items) => Self::Tuple(items.iter().map(|item| item.respell(dice)).collect()),
            _ => match (SPELLINGS.iter().find(|class| class.contains(self)), dice.next()) {
                (Some(class), Some(index)) => index.get(class).clone(),
                _ => self.clone(),
            },
        }
    }
}

/// A number's exact value.
#[derive(Clone, Debug, PartialEq)]
enum Number {
    /// Sign and magnitude, the least byte first, without zeros at the end.
    Whole(bool, Vec<u8>),
    Other(f64),
    Nan,
}

impl Number {
    /// From decimal digits with or without a minus.
    fn whole(decimal: &str) -> Self {
        let mut magnitude = Vec::new();
        for digit in decimal.trim_start_matches('-').bytes() {
            let mut carry = u32::from(digit - b'0');
            for byte in &mut magnitude {
                carry += 10 * u32::from(*byte);
                *byte = carry.to_le_bytes()[0];
                carry >>= 8;
            }
            magnitude.push(carry.to_le_bytes()[0]);
        }
        Self::from_magnitude(decimal.starts_with('-'), magnitude)
    }

    fn from_digits(digits: &[u8]) -> Self {
        let is_negative = digits.last().is_some_and(|&last| last >= 0x80);
        Self::from_magnitude(is_negative, if is_negative { negative(digits) } else { digits.to_vec() })
    }

    fn from_magnitude(is_negative: bool, mut magnitude: Vec<u8>) -> Self {
        while magnitude.last() == Some(&0) {
            magnitude.pop();
        }
        Self::Whole(is_negative && !magnitude.is_empty(), magnitude)
    }

    fn to_digits(&self) -> Vec<u8> {
        let Self::Whole(is_negative, magnitude) = self else { panic!("{self:?} is no int") };
        let digits = [&magnitude[..], &[0]].concat();
        if *is_negative { negative(&digits) } else { digits }
    }
}

/// The two's complement of as many bytes: subtracted from zero, byte by byte.
fn negative(digits: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let subtract = |&digit: &u8| {
        let difference = 256 - u16::from(digit) - borrow;
        borrow = u16::from(difference < 256);
        difference.to_le_bytes()[0]
    };
    digits.iter().map(subtract).collect()
}

/// Numbers at which something changes, each with what equals it.
static SPELLINGS: LazyLock<Vec<Vec<Tree>>> = LazyLock::new(|| {
    let float = |value: f64| Tree::Float(value.to_bits());
    let big = |decimal: &str| Tree::BigInt(Number::whole(decimal).to_digits());
    let both = |value: f64| vec![float(value), big(&format!("{value:.0}"))];
    let mut classes = vec![
        vec![Tree::Bool(false), Tree::Int(0), float(0.0), float(-0.0), Tree::BigInt(vec![]), Tree::BigInt(vec![0; 12])],
        vec![Tree::Bool(true), Tree::Int(1), float(1.0), big("1")],
        vec![Tree::Int(-1), float(-1.0), Tree::BigInt(vec![0xff; 20])],
        vec![Tree::Int(-16), float(-16.0)],
        vec![Tree::Int(-17), float(-17.0)],
        vec![Tree::Int(111), float(111.0)],
        vec![Tree::Int(112), float(112.0)],
        vec![Tree::Int(1 << 53), float(9_007_199_254_740_992.0), big("9007199254740992")],
        vec![Tree::Int((1 << 53) + 1), big("9007199254740993")],
        vec![Tree::Int(i64::MAX - 1023), float(9_223_372_036_854_774_784.0)],
        vec![Tree::Int(i64::MAX), big("9223372036854775807")],
        vec![Tree::Int(i64::MIN), float(-9_223_372_036_854_775_808.0), big("-9223372036854775808")],
        vec![big("9223372036854775809"), Tree::BigInt(vec![1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0])],
        vec![big("-9223372036854775809")],
        vec![float(f64::NAN), float(-f64::NAN), Tree::Float(0x7ff0_0000_0000_0001)],
    ];
    let powers = (63..=1023).step_by(40).flat_map(|exponent| [2f64.powi(exponent), -(2f64.powi(exponent))]);
    let wholes = [9_223_372_036_854_777_856.0, -9_223_372_036_854_777_856.0, 1e300, -1e300, f64::MAX, f64::MIN];
    classes.extend(powers.chain(wholes).map(both));
    for other in [0.5, -0.5, 1.5, 4_503_599_627_370_495.5, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY]
    {
        classes.push(vec![float(other)]);
    }
    classes
});

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..6),
        1 => prop::collection::vec(any::<u8>(), 250..260),
    ]
}

/// An int that fits no i64, as short as it can be.
fn big_int() -> impl Strategy<Value = Tree> {
    (prop::collection::vec(any::<u8>(), 8..300), prop_oneof![0x01..=0x7f_u8, 0x80..=0xfe_u8])
        .prop_map(|(digits, last)| Tree::BigInt([digits, vec![last]].concat()))
}

/// Any value, as the decoder gives it.
fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        1 => Just(Tree::None),
        1 => any::<bool>().prop_map(Tree::Bool),
        2 => any::<i64>().prop_map(Tree::Int),
        2 => (-20_i64..120).prop_map(Tree::Int),
        1 => big_int(),
        2 => any::<u64>().prop_map(Tree::Float),
        2 => some_bytes().prop_map(Tree::Text),
        1 => some_bytes().prop_map(Tree::Bytes),
        1 => some_bytes().prop_map(Tree::Pickle),
        1 => prop::collection::vec(any::<u64>(), 0..40).prop_map(Tree::Floats),
    ];
    leaf.prop_recursive(6, 60, 8, |item| prop::collection::vec(item, 0..8).prop_map(Tree::Tuple))
}

/// The arguments of a call.
#[derive(Clone, Debug)]
struct Call {
    positional: Vec<Tree>,
    named: Vec<(&'static str, Tree)>,
}

impl Call {
    fn key(&self, typed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut key = Encoder::for_key(&mut out, 1 << 20, self.positional.len(), self.named.len(), typed).unwrap();
        for value in &self.positional {
            value.write(&mut key).unwrap();
        }
        for (name, value) in &self.named {
            key.text(name.as_bytes()).unwrap();
            value.write(&mut key).unwrap();
        }
        key.finish().unwrap().to_vec()
    }

    fn equals(&self, other: &Self, typed: bool) -> bool {
        self.positional.len() == other.positional.len()
            && self.named.len() == other.named.len()
            && self.positional.iter().zip(&other.positional).all(|(value, other)| value.equals(other, typed))
            && self.named.iter().zip(&other.named).all(|(one, other)| one.0 == other.0 && one.1.equals(&other.1, typed))
    }

    fn respell(&self, dice: Vec<Index>) -> Self {
        let dice = &mut dice.into_iter();
        Self {
            positional: self.positional.iter().map(|value| value.respell(dice)).collect(),
            named: self.named.iter().map(|(name, value)| (*name, value.respell(dice))).collect(),
        }
    }
}

/// An argument out of few, so that two of them are often equal or nearly so.
fn argument() -> impl Strategy<Value = Tree> {
    let texts = [&b""[..], b"a", b"b", b"\x90", b"\xed\xa0\x80"];
    let texts = select(texts.map(<[u8]>::to_vec).to_vec());
    let leaf = prop_oneof![
        1 => Just(Tree::None),
        8 => select(SPELLINGS.concat()),
        8 => select(SPELLINGS[..3].concat()),
        2 => texts.clone().prop_map(Tree::Text),
        1 => texts.clone().prop_map(Tree::Bytes),
        1 => texts.prop_map(Tree::Pickle),
    ];
    leaf.prop_recursive(3, 8, 2, |item| prop::collection::vec(item, 0..3).prop_map(Tree::Tuple))
}

fn call() -> impl Strategy<Value = Call> {
    let named = prop::collection::vec((select(vec!["a", "b"]), argument()), 0..3);
    (prop::collection::vec(argument(), 0..3), named).prop_map(|(positional, named)| Call { positional, named })
}

/// Two calls: any, or the same with its numbers spelled otherwise, and perhaps one argument exchanged.
fn calls() -> impl Strategy<Value = (Call, Call)> {
    let dice = prop::collection::vec(any::<Index>(), 20);
    let respelled =
        (call(), dice, prop::option::of((any::<Index>(), argument()))).prop_map(|(call, dice, exchange)| {
            let mut other = call.respell(dice);
            if let Some((index, argument)) = exchange {
                let count = other.positional.len();
                if count > 0 {
                    other.positional[index.index(count)] = argument;
                }
            }
            (call, other)
        });
    prop_oneof![1 => (call(), call()), 3 => respelled]
}

/// Bytes that look like an encoding here and there.
fn lookalike() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => 0x01..=0x0b_u8,
        4 => Just(0x09),
        3 => Just(0x00),
        2 => 0x00..=0x20_u8,
        1 => Just(0xff),
        1 => any::<u8>(),
    ];
    let tuple = (0..4_u8, prop::collection::vec(byte.clone(), 0..30)).prop_map(|(count, rest)| {
        let size = u32::try_from(rest.len()).unwrap().to_le_bytes();
        [&[0x09, count][..], &size, &rest].concat()
    });
    prop_oneof![prop::collection::vec(byte, 0..60), tuple, prop::collection::vec(any::<u8>(), 0..60)]
}

/// Walks along all that `bytes` decode to, and counts the steps and the depth.
fn walk(bytes: &[u8]) -> (usize, u8) {
    fn go(value: Result<Value<'_>, Damaged>, depth: u8, totals: &mut (usize, u8)) {
        totals.0 += 1;
        totals.1 = totals.1.max(depth);
        match value {
            Ok(Value::Tuple(items)) => items.for_each(|item| go(item, depth + 1, totals)),
            Ok(Value::Floats(floats)) => assert_eq!(floats.iter().count(), floats.len()),
            _ => {}
        }
    }
    let mut totals = (0, 0);
    go(decode(bytes), 0, &mut totals);
    totals
}

/// What holds for any bytes: reading them ends soon, and if they are a value, they are its only encoding.
fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (steps, depth) = walk(bytes);
    prop_assert!(steps <= bytes.len() + 1 && depth <= MAX_DEPTH, "{steps} steps, {depth} deep");
    if let Ok(tree) = Tree::decode(bytes) {
        prop_assert_eq!(tree.encode(u32::MAX), Ok(bytes.to_vec()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_encoded_comes_back(tree in tree()) {
        let bytes = tree.encode(u32::MAX).unwrap();
        prop_assert_eq!(Tree::decode(&bytes), Ok(tree));
    }

    #[test]
    fn keys_are_the_same_bytes_if_and_only_if_they_are_equal((one, other) in calls(), typed in any::<bool>()) {
        let (key, another) = (one.key(typed), other.key(typed));
        prop_assert_eq!(key == another, one.equals(&other, typed));
        prop_assert!(key == another || !(key.starts_with(&another) || another.starts_with(&key)));
    }

    #[test]
    fn any_float_has_the_key_of_the_int_that_it_equals(bits in any::<u64>(), exponent in 1075..2047_u64) {
        // One in two of these is whole, and beyond an i64 mostly.
        let float = f64::from_bits(if bits % 2 == 0 { bits } else { bits & !(0x7ff << 52) | exponent << 52 });
        let float_key = Call { positional: vec![Tree::Float(float.to_bits())], named: vec![] }.key(false);
        if float.is_finite() && float.fract() == 0.0 {
            let int = Tree::BigInt(Number::whole(&format!("{float:.0}")).to_digits());
            prop_assert_eq!(Call { positional: vec![int], named: vec![] }.key(false), float_key);
        } else {
            prop_assert_eq!(float_key[2], 0x06);
        }
    }

    #[test]
    fn a_limit_is_kept_to_the_byte(tree in tree(), cut in any::<Index>()) {
        let bytes = tree.encode(u32::MAX).unwrap();
        let size = u32::try_from(bytes.len()).unwrap();
        prop_assert_eq!(tree.encode(size), Ok(bytes));
        let less = u32::try_from(cut.index(size as usize)).unwrap();
        prop_assert_eq!(tree.encode(less), Err(EncodeError::Oversize));
    }

    #[test]
    fn a_part_of_an_encoding_is_damaged(tree in tree()) {
        let bytes = tree.encode(u32::MAX).unwrap();
        for size in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..size]), Err(Damaged), "{} of {}", size, bytes.len());
        }
    }

    #[test]
    fn an_encoding_with_more_behind_it_is_damaged(tree in tree(), more in prop::collection::vec(any::<u8>(), 1..9)) {
        let bytes = [tree.encode(u32::MAX).unwrap(), more].concat();
        prop_assert_eq!(decode(&bytes), Err(Damaged));
    }

    #[test]
    fn changed_encodings_do_no_harm(tree in tree(), flips in prop::collection::vec((any::<Index>(), 1..=255_u8), 1..4)) {
        let mut bytes = tree.encode(u32::MAX).unwrap();
        for (index, flip) in flips {
            let place = index.index(bytes.len());
            bytes[place] ^= flip;
        }
        check_any(&bytes)?;
    }

    #[test]
    fn spliced_encodings_do_no_harm(one in tree(), other in tree(), cuts in any::<(Index, Index)>()) {
        let (one, other) = (one.encode(u32::MAX).unwrap(), other.encode(u32::MAX).unwrap());
        check_any(&[&one[..cuts.0.index(one.len())], &other[cuts.1.index(other.len())..]].concat())?;
    }

    #[test]
    fn bytes_that_nobody_encoded_do_no_harm(bytes in lookalike()) {
        check_any(&bytes)?;
    }
}

#[test]
fn calls_that_look_alike_have_different_keys() {
    let text = |text: &str| Tree::Text(text.into());
    let one_a_2 = Call { positional: vec![Tree::Int(1)], named: vec![("a", Tree::Int(2))] };
    let pair = Tree::Tuple(vec![text("a"), Tree::Int(2)]);
    let tuples = vec![Tree::Tuple(vec![Tree::Int(1)]), Tree::Tuple(vec![pair])];
    let calls = [
        Call { positional: vec![], named: vec![] },
        Call { positional: vec![Tree::Int(1)], named: vec![] },
        Call { positional: vec![Tree::Tuple(vec![Tree::Int(1)])], named: vec![] },
        Call { positional: vec![Tree::Tuple(vec![])], named: vec![] },
        Call { positional: vec![Tree::Int(1), text("a"), Tree::Int(2)], named: vec![] },
        Call { positional: vec![text("a"), Tree::Int(1)], named: vec![] },
        Call { positional: vec![], named: vec![("a", Tree::Int(1))] },
        Call { positional: vec![], named: vec![("a", Tree::Int(1)), ("b", Tree::Int(2))] },
        Call { positional: vec![], named: vec![("b", Tree::Int(2)), ("a", Tree::Int(1))] },
        Call { positional: tuples, named: vec![] },
        one_a_2,
    ];
    for typed in [false, true] {
        let keys: Vec<_> = calls.iter().map(|call| call.key(typed)).collect();
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(place), "{:?}", calls[place]);
        }
    }
}

#[test]
fn a_tuple_that_cannot_be_written_leaves_room_for_something_else() {
    let mut out = Vec::new();
    let mut encoder = Encoder::for_value(&mut out, 10);
    let tuple = encoder.tuple(2, |encoder| {
        encoder.none()?;
        Err(EncodeError::TooDeep)
    });
    assert_eq!(tuple, Err(EncodeError::TooDeep));
    encoder.pickle(b"N.").unwrap();
    assert_eq!(encoder.finish(), Ok(&[0x0b, 2, b'N', b'.'][..]));
}
