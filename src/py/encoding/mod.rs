//! Keys and values as bytes, and values back: the bridge between Python's objects and the codec of the shared backend.
//!
//! Objects that the codec has a form for are read from their own memory and written in one pass, with no foreign code.
//! The rest of the values are pickled. The rest of the keys are walked along, as `structure` says: equal objects have
//! equal pickles only by chance, and the bytes of equal keys must be equal.

mod structure;

use super::error;
use super::ffi::{self, Arg, Digits, Object, Raised, Text, View};
use super::key::Parts;
use super::names;
use super::parameters::Unhashable;
use crate::codec::{self, EncodeError, Encoder, Value};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;
use std::borrow::Cow;
use std::ffi::CStr;

/// Why there are no bytes.
#[derive(Debug)]
pub(crate) enum Unencoded {
    /// They would be more than there may be.
    TooLarge,
    /// No other process could make the object again or, in a key, tell it from others, for this reason.
    Unstorable(Cow<'static, str>),
    /// Foreign code raised what is no `Exception`, but is meant to end more.
    Raised(Raised),
}

impl From<Raised> for Unencoded {
    fn from(raised: Raised) -> Self {
        Self::Raised(raised)
    }
}

impl From<EncodeError> for Unencoded {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Oversize => Self::TooLarge,
            EncodeError::TooDeep | EncodeError::Miscounted => Self::TOO_DEEP,
        }
    }
}

impl Unencoded {
    const TOO_DEEP: Self = Self::Unstorable(Cow::Borrowed("it is nested too deep"));
    const NO_PICKLE: Self = Self::Unstorable(Cow::Borrowed("pickle.dumps returned no bytes"));

    /// Takes an `Exception` for the reason that there are no bytes.
    fn settled(self, py: Python<'_>) -> Self {
        match self {
            Self::Raised(raised) => match error::forgiven(py, raised) {
                Ok(reason) => Self::Unstorable(reason.into()),
                Err(raised) => Self::Raised(raised),
            },
            other => other,
        }
    }
}

/// There would be more bytes than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Why there is no object.
#[derive(Debug)]
pub(crate) enum Undecoded {
    /// The bytes are no value, or unpickling them raised an `Exception`.
    Damaged,
    /// Foreign code raised what is no `Exception`.
    Raised(Raised),
}

/// Why the codec has no bytes for an object.
#[derive(Clone, Copy, Debug)]
enum Refused {
    TooLarge,
    /// It has no form for it, or none so deep in tuples.
    Foreign,
}

impl From<EncodeError> for Refused {
    #[inline]
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Oversize => Self::TooLarge,
            EncodeError::TooDeep | EncodeError::Miscounted => Self::Foreign,
        }
    }
}

/// Where an object stands, which says what has bytes of its own there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a key, where what equals an object of such a type is one.
    Key,
    /// An argument of a typed key: its class counts.
    TypedArgument,
    /// A value: a list of floats, too.
    Value,
    /// In a tuple of a value: no list, which may stand there twice and be one.
    Item,
}

/// Writes a key for which no foreign code has to run; false where some has to, and then `out` holds nothing of use.
#[inline]
pub(crate) fn encode_native_key(
    parts: &Parts<'_, '_>,
    typed: bool,
    limit: u32,
    out: &mut Vec<u8>,
) -> Result<bool, TooLarge> {
    let place = if typed { Place::TypedArgument } else { Place::Key };
    match put_parts(parts, typed, limit, out, |encoder, value| put(encoder, value, place)) {
        Ok(()) => Ok(true),
        Err(Refused::Foreign) => Ok(false),
        Err(Refused::TooLarge) => Err(TooLarge),
    }
}

/// Writes any key. Foreign code may run.
pub(crate) fn encode_key(
    py: Python<'_>,
    parts: &Parts<'_, '_>,
    typed: bool,
    limit: u32,
    out: &mut Vec<u8>,
) -> Result<(), Unencoded> {
    let place = if typed { Place::TypedArgument } else { Place::Key };
    let put_any = |encoder: &mut Encoder<'_>, value: Arg<'_>| match put(encoder, value, place) {
        Ok(()) => Ok(()),
        Err(Refused::TooLarge) => Err(Unencoded::TooLarge),
        Err(Refused::Foreign) => {
            let limit = u32::try_from(encoder.left()).unwrap_or(u32::MAX);
            Ok(encoder.pickle(&structure::of_argument(py, value, typed, limit)?)?)
        }
    };
    put_parts(parts, typed, limit, out, put_any).map_err(|error| error.settled(py))
}

/// Writes a value. Foreign code may run.
pub(crate) fn encode_value(py: Python<'_>, value: &Py<PyAny>, limit: u32, out: &mut Vec<u8>) -> Result<(), Unencoded> {
    let value = Arg::new(value);
    match put(&mut Encoder::for_value(out, limit), value, Place::Value) {
        Ok(()) => return Ok(()),
        Err(Refused::TooLarge) => return Err(Unencoded::TooLarge),
        Err(Refused::Foreign) => {}
    }
    let pickle =
        Tools::of(py).and_then(|tools| tools.dump(py, value)).map_err(|raised| Unencoded::from(raised).settled(py))?;
    let Some(View::Bytes(pickle)) = ffi::view(Arg::new(&pickle)) else { return Err(Unencoded::NO_PICKLE) };
    Ok(Encoder::for_value(out, limit).pickle(pickle)?)
}

/// Makes the value that was written, if no foreign code has to run for it. `None` also if the bytes are damaged.
#[inline]
pub(crate) fn decode_native(py: Python<'_>, bytes: &[u8]) -> Option<Object> {
    object(py, codec::decode(bytes).ok()?)
}

/// Makes the value that was written. Foreign code may run.
pub(crate) fn decode_value(py: Python<'_>, bytes: &[u8]) -> Result<Object, Undecoded> {
    match codec::decode(bytes) {
        Ok(Value::Pickle(pickle)) => {
            Tools::of(py).and_then(|tools| tools.load(py, pickle)).map_err(|raised| match ffi::forgive(py, raised) {
                Ok(()) => Undecoded::Damaged,
                Err(raised) => Undecoded::Raised(raised),
            })
        }
        Ok(value) => object(py, value).ok_or(Undecoded::Damaged),
        Err(codec::Damaged) => Err(Undecoded::Damaged),
    }
}

/// Writes a key part by part: the values, and for those that have one, first the name.
#[inline(always)]
fn put_parts<E: From<EncodeError>>(
    parts: &Parts<'_, '_>,
    typed: bool,
    limit: u32,
    out: &mut Vec<u8>,
    mut put: impl FnMut(&mut Encoder<'_>, Arg<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let names = parts.names.map_or(&[][..], ffi::items);
    let positional = parts.values.len().saturating_sub(names.len());
    if parts.is_apart {
        // No other key has a name that is None.
        let mut encoder = Encoder::for_key(out, limit, 0, parts.values.len(), typed)?;
        for &value in parts.values {
            encoder.none()?;
            put(&mut encoder, value)?;
        }
        encoder.finish()?;
        return Ok(());
    }
    let (unnamed, named) = parts.values.split_at(positional);
    let mut encoder = Encoder::for_key(out, limit, unnamed.len(), names.len(), typed)?;
    for &value in unnamed {
        put(&mut encoder, value)?;
    }
    for (&name, &value) in names.iter().zip(named) {
        put_text(&mut encoder, ffi::text(name).ok_or(EncodeError::Miscounted)?)?;
        put(&mut encoder, value)?;
    }
    encoder.finish()?;
    Ok(())
}

/// Writes an object as one item, with no foreign code.
#[inline(always)]
fn put(encoder: &mut Encoder<'_>, object: Arg<'_>, place: Place) -> Result<(), Refused> {
    match ffi::view(object) {
        Some(view) => put_view(encoder, object, view, place),
        None => put_derived(encoder, object, place),
    }
}

/// Writes an object of one of the codec's types.
#[inline(always)]
fn put_view(encoder: &mut Encoder<'_>, object: Arg<'_>, view: View<'_>, place: Place) -> Result<(), Refused> {
    match view {
        View::None => encoder.none()?,
        View::Bool(value) => encoder.bool(value)?,
        View::Int(value) => encoder.int(value)?,
        View::Float(value) => encoder.float(value)?,
        View::Text(text) => put_text(encoder, text)?,
        View::Bytes(bytes) => encoder.bytes(bytes)?,
        View::Tuple(items) => return put_tuple(encoder, items, place),
        View::BigInt(digits) => return put_big_int(encoder, digits),
        View::List if place == Place::Value => return put_list(encoder, object),
        View::Complex(real, imaginary) if place == Place::Key && is_zero(imaginary) => encoder.float(real)?,
        View::List | View::Complex(..) => return Err(Refused::Foreign),
    }
    Ok(())
}

/// Writes an object of any other type, if it stands for one of those in its place.
#[cold]
fn put_derived(encoder: &mut Encoder<'_>, object: Arg<'_>, place: Place) -> Result<(), Refused> {
    match place {
        Place::Key | Place::TypedArgument if ffi::is_exactly::<Unhashable>(object) => Ok(encoder.pickle(&[])?),
        Place::Key => match ffi::view_of_base(object) {
            Some(view) => put_view(encoder, object, view, place),
            None => Err(Refused::Foreign),
        },
        _ => Err(Refused::Foreign),
    }
}

#[inline(never)]
fn put_tuple(encoder: &mut Encoder<'_>, items: &[Arg<'_>], place: Place) -> Result<(), Refused> {
    let place = match place {
        Place::Key | Place::TypedArgument => Place::Key,
        Place::Value | Place::Item => Place::Item,
    };
    encoder.tuple(items.len(), |encoder| items.iter().try_for_each(|&item| put(encoder, item, place)))
}

#[inline]
fn put_text(encoder: &mut Encoder<'_>, text: Text<'_>) -> Result<(), EncodeError> {
    match text {
        // Each character takes a byte or more.
        Text::One(bytes) if bytes.len() > encoder.left() => Err(EncodeError::Oversize),
        Text::Ascii(bytes) => encoder.text(bytes),
        Text::One(bytes) => encoder.code_points(bytes.iter().map(|&point| u32::from(point))),
        Text::Two(points) => encoder.code_points(points.iter().map(|&point| u32::from(point))),
        Text::Four(points) => encoder.code_points(points.iter().copied()),
    }
}

#[cold]
fn put_big_int(encoder: &mut Encoder<'_>, digits: Digits<'_>) -> Result<(), Refused> {
    // The first of the digits has a bit at least.
    if (digits.digits.len() - 1).saturating_mul(30) / 8 > encoder.left() {
        return Err(Refused::TooLarge);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve(digits.digits.len() * 4 + 1).map_err(|_| Refused::TooLarge)?;
    let (mut bits, mut count) = (0, 0);
    for &digit in digits.digits {
        bits |= u64::from(digit) << count;
        count += 30;
        while count >= 8 {
            bytes.push(low_byte(bits));
            bits >>= 8;
            count -= 8;
        }
    }
    // Fewer than eight bits are left, and the sign.
    bytes.extend([low_byte(bits), 0]);
    if digits.is_negative {
        negate(&mut bytes);
    }
    Ok(encoder.big_int(&bytes)?)
}

/// Writes a list of floats. Another list may be small only if it is short.
#[cold]
fn put_list(encoder: &mut Encoder<'_>, list: Arg<'_>) -> Result<(), Refused> {
    match ffi::list_of_floats(list, encoder.left()) {
        Some((_, Some(floats))) => Ok(encoder.floats(floats.into_iter())?),
        // An item takes a byte or more in a pickle, too.
        Some((length, None)) if length > encoder.left() => Err(Refused::TooLarge),
        _ => Err(Refused::Foreign),
    }
}

#[allow(clippy::float_cmp, reason = "either zero, and nothing else")]
fn is_zero(value: f64) -> bool {
    value == 0.0
}

#[allow(clippy::cast_possible_truncation, reason = "this is what is asked")]
fn low_byte(bits: u64) -> u8 {
    bits as u8
}

/// Negates a two's complement with its least byte first.
fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes {
        (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
    }
}

/// The object that a value of the codec is. `None` for a pickle, for what is damaged, and when memory runs out.
#[inline]
fn object(py: Python<'_>, value: Value<'_>) -> Option<Object> {
    let made = match value {
        Value::None => return Some(Object::from(py.None())),
        Value::Bool(value) => return Some(Object::from(PyBool::new(py, value).to_owned().into_any())),
        Value::Int(value) => ffi::new_int(py, value),
        Value::Float(value) => ffi::new_float(py, value),
        Value::Text(text) if text.len() > 1 && text.is_ascii() => ffi::new_ascii(py, text),
        Value::Text(text) => match str::from_utf8(text) {
            Ok(text) => ffi::new_text(py, text),
            Err(_) => ffi::new_text_of(py, &code_points(text)?),
        },
        Value::Bytes(bytes) => ffi::new_bytes(py, bytes),
        Value::Floats(floats) => ffi::new_list_of_floats(py, floats.iter()),
        Value::Tuple(items) => return tuple(py, items),
        Value::BigInt(digits) => big_int(py, digits),
        Value::Pickle(_) => return None,
    };
    given(py, made)
}

/// The object that was made, unless memory ran out.
#[inline]
fn given<T>(py: Python<'_>, made: Result<T, Raised>) -> Option<T> {
    // Nothing else is raised where no foreign code runs.
    made.map_err(|raised| ffi::forgive(py, raised)).ok()
}

#[inline(never)]
fn tuple(py: Python<'_>, mut items: codec::Items<'_>) -> Option<Object> {
    let made = ffi::new_tuple(py, items.len(), || object(py, items.next()?.ok()?));
    given(py, made).flatten()
}

fn big_int(py: Python<'_>, digits: &[u8]) -> Result<Object, Raised> {
    let is_negative = digits.last().is_some_and(|&last| last >= 0x80);
    let mut size = digits.to_vec();
    if is_negative {
        negate(&mut size);
    }
    let sign = if is_negative { "-" } else { "" };
    let text = sign.bytes().chain(size.iter().rev().flat_map(|&byte| [hex(byte >> 4), hex(byte & 0xf)])).chain([0]);
    let text: Vec<u8> = text.collect();
    ffi::new_int_of_hex(py, CStr::from_bytes_until_nul(&text).unwrap_or_default())
}

fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}

/// The characters of what is UTF-8 but for lone surrogates.
fn code_points(mut text: &[u8]) -> Option<Vec<u32>> {
    let mut points = Vec::new();
    points.try_reserve(text.len()).ok()?;
    while !text.is_empty() {
        let end = str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
        let (valid, rest) = text.split_at(end);
        points.extend(str::from_utf8(valid).ok()?.chars().map(u32::from));
        text = match *rest {
            [] => rest,
            [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
                points.push(0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f));
                &rest[3..]
            }
            _ => return None,
        };
    }
    Some(points)
}

/// The functions of Python's library that are called.
struct Tools {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
    /// `copyreg.dispatch_table.get`.
    reducer: Py<PyAny>,
    protocol: Py<PyAny>,
}

/// The pickles' protocol.
const PROTOCOL: u8 = 5;

/// Imports what of Python's library will be called: later, its files may be out of reach. Where they are already, what needs
/// them is not stored.
pub(crate) fn prepare(py: Python<'_>) -> Result<(), Raised> {
    match Tools::of(py) {
        Ok(_) => Ok(()),
        Err(raised) => ffi::forgive(py, raised),
    }
}

impl Tools {
    fn of(py: Python<'_>) -> Result<&Self, Raised> {
        static TOOLS: PyOnceLock<Tools> = PyOnceLock::new();
        if let Some(tools) = TOOLS.get(py) {
            return Ok(tools);
        }
        let tools = TOOLS.get_or_try_init(py, || {
            let pickle = py.import("pickle")?;
            PyResult::Ok(Self {
                dumps: pickle.getattr("dumps")?.unbind(),
                loads: pickle.getattr("loads")?.unbind(),
                reducer: py.import("copyreg")?.getattr("dispatch_table")?.getattr("get")?.unbind(),
                protocol: PROTOCOL.into_pyobject(py)?.into_any().unbind(),
            })
        });
        Ok(tools?)
    }

    /// `pickle.dumps(object, 5)`.
    fn dump(&self, py: Python<'_>, object: Arg<'_>) -> Result<Object, Raised> {
        ffi::call(py, &self.dumps, &[object, Arg::new(&self.protocol)], None)
    }

    /// `pickle.loads(pickle)`.
    fn load(&self, py: Python<'_>, pickle: &[u8]) -> Result<Object, Raised> {
        let pickle = ffi::new_bytes(py, pickle)?;
        ffi::call(py, &self.loads, &[Arg::new(&pickle)], None)
    }

    /// The object's parts, by `copyreg` or by its own `__reduce_ex__`.
    fn reduce(&self, py: Python<'_>, object: Arg<'_>) -> Result<Object, Raised> {
        let class = ffi::class_of(py, object);
        let reducer = ffi::call(py, &self.reducer, &[Arg::new(&class)], None)?;
        if reducer.is_none(py) {
            let method = ffi::attribute(py, object, &names::of(py).reduce_ex)?;
            ffi::call(py, &method, &[Arg::new(&self.protocol)], None)
        } else {
            ffi::call(py, &reducer, &[object], None)
        }
    }
}
