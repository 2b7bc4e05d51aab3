//! What a hit in shared memory pays the codec: its key encoded, its value decoded. And what a miss pays to encode the value.
//!
//! ```text
//! cargo bench --no-default-features --bench codec
//! ```

#[cfg(unix)]
#[allow(clippy::redundant_closure_for_method_calls)]
mod codec {
    use criterion::{Criterion, criterion_group};
    use std::hint::black_box;
    use warp_cache::codec::{EncodeError, Encoder, Value, decode};

    type Write = fn(&mut Encoder<'_>) -> Result<(), EncodeError>;

    /// Values with their names. What they are made of is hidden from the optimizer.
    const VALUES: [(&str, Write); 8] = [
        ("None", |it| it.none()),
        ("small int", |it| it.int(black_box(7))),
        ("int", |it| it.int(black_box(1 << 40))),
        ("float", |it| it.float(black_box(0.5))),
        ("whole float", |it| it.float(black_box(1e9))),
        ("str of 16", |it| it.text(black_box(b"a string like it"))),
        ("pair", |it| it.tuple(2, |it| it.int(black_box(1)).and_then(|()| it.text(black_box(b"a string"))))),
        ("100 floats", |it| it.floats(black_box(&[0.25; 100]).iter().copied())),
    ];

    /// Looks at every part of a value.
    #[inline]
    fn total(value: Value<'_>) -> u64 {
        match value {
            Value::None => 1,
            Value::Bool(value) => u64::from(value),
            Value::Int(value) => value.cast_unsigned(),
            Value::Float(value) => value.to_bits(),
            Value::BigInt(bytes) | Value::Text(bytes) | Value::Bytes(bytes) | Value::Pickle(bytes) => {
                bytes.len() as u64
            }
            Value::Floats(floats) => floats.iter().sum::<f64>().to_bits(),
            Value::Tuple(items) => items.map(|item| item.map_or(0, total)).sum(),
        }
    }

    fn costs(criterion: &mut Criterion) {
        let mut out = Vec::with_capacity(4096);
        let mut group = criterion.benchmark_group("encode a key of one argument");
        for (name, write) in &VALUES[..7] {
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    let mut key = Encoder::for_key(&mut out, black_box(512), 1, 0, black_box(false))?;
                    write(&mut key)?;
                    key.finish().map(<[u8]>::len)
                });
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group("encode a value");
        for (name, write) in VALUES {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let mut value = Encoder::for_value(&mut out, black_box(4096));
                    write(&mut value)?;
                    value.finish().map(<[u8]>::len)
                });
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group("decode a value");
        for (name, write) in VALUES {
            let mut value = Encoder::for_value(&mut out, 4096);
            write(&mut value).expect("room");
            let bytes = value.finish().expect("one item");
            group.bench_function(name, |bencher| {
                bencher.iter(|| decode(black_box(bytes)).map(total));
            });
        }
        group.finish();
    }

    criterion_group!(benches, costs);
}

#[cfg(unix)]
criterion::criterion_main!(codec::benches);

#[cfg(not(unix))]
fn main() {}
