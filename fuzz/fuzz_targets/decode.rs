//! The decoder on bytes that anybody may have written. None make it panic, recurse deeper than the limit, or give more than
//! they hold; and what decodes whole encodes as the same bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warp_cache::codec::{Damaged, EncodeError, Encoder, MAX_DEPTH, Value, decode};

/// Copies a value into an encoder. A damaged item ends the walk.
fn copy(value: Value<'_>, out: &mut Encoder<'_>) -> Result<(), Trouble> {
    Ok(match value {
        Value::None => out.none(),
        Value::Bool(value) => out.bool(value),
        Value::Int(value) => out.int(value),
        Value::BigInt(digits) => out.big_int(digits),
        Value::Float(value) => out.float(value),
        Value::Text(text) => out.text(text),
        Value::Bytes(bytes) => out.bytes(bytes),
        Value::Pickle(pickle) => out.pickle(pickle),
        Value::Floats(floats) => out.floats(floats.iter()),
        Value::Tuple(mut items) => {
            return out.tuple(items.len(), |out| items.try_for_each(|item| copy(item.map_err(Trouble::from)?, out)));
        }
    }?)
}

/// How deep a value nests and how many bytes its parts have.
fn measure(value: Value<'_>) -> (u8, usize) {
    match value {
        Value::BigInt(bytes) | Value::Text(bytes) | Value::Bytes(bytes) | Value::Pickle(bytes) => (0, bytes.len()),
        Value::Floats(floats) => (0, floats.iter().len() * size_of::<f64>()),
        Value::Tuple(items) => items.fold((1, 0), |(depth, size), item| {
            let (below, more) = item.map_or((0, 0), measure);
            (depth.max(below + 1), size + more)
        }),
        _ => (0, 0),
    }
}

#[derive(Debug)]
enum Trouble {
    Damaged,
    Encode(EncodeError),
}

impl From<Damaged> for Trouble {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

impl From<EncodeError> for Trouble {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = decode(bytes) else { return };
    let (depth, size) = measure(value);
    assert!(depth <= MAX_DEPTH, "{depth} deep");
    assert!(size <= bytes.len(), "{size} bytes from {}", bytes.len());
    let Ok(value) = decode(bytes) else { panic!("the same bytes, decoded before") };
    let mut room = Vec::new();
    let mut out = Encoder::for_value(&mut room, u32::MAX);
    match copy(value, &mut out) {
        Ok(()) => assert_eq!(out.finish().expect("one value"), bytes, "the same bytes again"),
        Err(Trouble::Damaged) => {}
        Err(Trouble::Encode(error)) => panic!("decoded, and not encoded: {error:?}"),
    }
});
