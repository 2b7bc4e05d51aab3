//! The store alone, with no Python: the time of a hit, of a miss that evicts, of a fill, and the hit ratio of each strategy on a
//! trace.
//!
//! ```text
//! cargo bench --no-default-features --bench store
//! WARP_CACHE_TRACE=trace.txt.gz cargo bench --no-default-features --bench store -- trace
//! ```
//!
//! A trace has one integer key a line, and may be gzipped. Without one, the keys are drawn by Zipf's law.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::MultiGzDecoder;
use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use warp_cache::options::{Options, Strategy};
use warp_cache::store::Store;

const STRATEGIES: [(&str, Strategy); 4] =
    [("LRU", Strategy::Lru), ("MRU", Strategy::Mru), ("FIFO", Strategy::Fifo), ("LFU", Strategy::Lfu)];

fn store(strategy: Strategy, max_size: usize) -> Store<u64, u64> {
    Store::new(&Options { strategy, max_size: Some(max_size), ..Options::default() }, None)
}

/// The steps of a cached call: returns whether it hit.
fn access(store: &mut Store<u64, u64>, key: u64) -> bool {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = hash ^ (hash >> 32);
    let (first, held) = store.first(hash);
    let found = if held == Some(&key) { Some(first) } else { store.find_after(first, hash, |&held| held == key) };
    if let Some(slot) = found {
        return store.hit(slot).is_some();
    }
    black_box(store.insert(hash, key, key, None));
    false
}

/// Numbers that look random and are the same in every run (Marsaglia, "Xorshift RNGs", 2003).
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Keys below `unique` drawn by Zipf's law with exponent 1.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn zipf(unique: u64, draws: usize) -> Vec<u64> {
    let mut random = Xorshift(0x2026);
    let top = (unique as f64).ln();
    (0..draws).map(|_| ((random.next() as f64 / u64::MAX as f64) * top).exp() as u64).collect()
}

fn calls(criterion: &mut Criterion) {
    for size in [128_usize, 10_000, 1_000_000] {
        let mut group = criterion.benchmark_group(format!("hit, {size} entries"));
        let keys = zipf(size as u64, 100_000);
        group.throughput(Throughput::Elements(keys.len() as u64));
        for (name, strategy) in STRATEGIES {
            let mut full = store(strategy, size);
            for key in (0..=size as u64).chain(keys.iter().copied()) {
                access(&mut full, key);
            }
            group.bench_function(name, |bencher| {
                bencher.iter(|| keys.iter().filter(|&&key| access(&mut full, key)).count());
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("miss and evict, {size} entries"));
        group.throughput(Throughput::Elements(100_000));
        for (name, strategy) in STRATEGIES {
            let mut full = store(strategy, size);
            let mut next = 0;
            for _ in 0..size {
                next += 1;
                access(&mut full, next);
            }
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for _ in 0..100_000 {
                        next += 1;
                        access(&mut full, next);
                    }
                });
            });
        }
        group.finish();
    }
}

/// A few keys in turn move through the order at every hit; an unbounded store has no order, and grows.
fn turns_and_growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit, 8 keys in turn");
    group.throughput(Throughput::Elements(80_000));
    for (name, strategy) in STRATEGIES {
        let mut store = store(strategy, 128);
        group.bench_function(name, |bencher| {
            bencher.iter(|| (0..80_000).filter(|turn| access(&mut store, turn % 8)).count());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("fill, unbounded");
    for size in [1000_u64, 100_000] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| {
                let mut store = Store::new(&Options { max_size: None, ..Options::default() }, None);
                (0..size).filter(|&key| access(&mut store, key)).count()
            });
        });
    }
    group.finish();
}

fn trace() -> (String, Vec<u64>) {
    let Ok(path) = std::env::var("WARP_CACHE_TRACE") else {
        return ("Zipf over 100,000 keys".to_owned(), zipf(100_000, 500_000));
    };
    let file = File::open(&path).unwrap_or_else(|error| panic!("cannot read the trace {path}: {error}"));
    let is_gzipped = std::path::Path::new(&path).extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read> = if is_gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let keys = BufReader::new(text).lines().map(|line| {
        let line = line.unwrap_or_else(|error| panic!("cannot read the trace {path}: {error}"));
        line.trim().parse().unwrap_or_else(|error| panic!("no key in the trace {path}: {line:?}: {error}"))
    });
    let keys = keys.collect();
    (path, keys)
}

#[allow(clippy::print_stdout, clippy::cast_precision_loss)]
fn replay(criterion: &mut Criterion) {
    let (name, keys) = trace();
    let unique = keys.iter().collect::<HashSet<_>>().len();
    println!("\n{name}: {} accesses, {unique} unique keys", keys.len());
    println!("{:>10} {:>8} {:>8} {:>8} {:>8}  hit ratio", "max_size", "LRU", "MRU", "FIFO", "LFU");
    let sizes = [unique / 100, unique / 20, unique / 10];
    for size in sizes {
        let ratios = STRATEGIES.map(|(_, strategy)| {
            let mut store = store(strategy, size);
            let hits = keys.iter().filter(|&&key| access(&mut store, key)).count();
            format!("{:>8.4}", hits as f64 / keys.len() as f64)
        });
        println!("{size:>10} {}", ratios.join(" "));
    }
    let mut group = criterion.benchmark_group("trace");
    group.throughput(Throughput::Elements(keys.len() as u64)).sample_size(10);
    for size in sizes {
        for (name, strategy) in STRATEGIES {
            group.bench_with_input(BenchmarkId::new(name, size), &size, |bencher, &size| {
                bencher.iter(|| {
                    let mut store = store(strategy, size);
                    keys.iter().filter(|&&key| access(&mut store, key)).count()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, calls, turns_and_growth, replay);
criterion_main!(benches);
