//! Hashes of values become the hash of a key.

/// 2⁶⁴ divided by the golden ratio, made odd: multiplying by it carries every bit upwards, and loses none.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads a Python hash over 64 bits; no two hashes become one. The index takes buckets from the low bits, and small
/// ints that are multiples of a power of two would share one.
#[inline(always)]
pub(super) fn mix(hash: isize) -> u64 {
    let product = (hash.cast_unsigned() as u64).wrapping_mul(SPREAD);
    product ^ (product >> 32)
}

/// Combines the hashes of several values, in order: a rotation and a multiplication each, as cheap as one can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fold {
    hash: u64,
    last: isize,
}

impl Default for Fold {
    #[inline(always)]
    fn default() -> Self {
        Self { hash: 0x27d4_eb2f_1656_67c5, last: 0 }
    }
}

impl Fold {
    /// Adds the hash of the next value.
    #[inline(always)]
    pub(crate) fn add(&mut self, hash: isize) {
        self.hash = (self.hash.rotate_left(5) ^ hash.cast_unsigned() as u64).wrapping_mul(SPREAD);
        self.last = hash;
    }

    /// The hash that was added last.
    pub(crate) fn last(&self) -> isize {
        self.last
    }

    #[inline(always)]
    pub(super) fn finish(self) -> u64 {
        self.hash ^ (self.hash >> 32)
    }
}
