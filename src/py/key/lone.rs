//! The key of one value without a name.

use super::fold::mix;
use super::{CallKey, Key, KeyRules, Parts, Shape};
use crate::backend::memory::{Match, Query};
use crate::py::ffi::{self, Arg, Object, Raised};
use pyo3::prelude::*;

/// The key of one value without a name: the call that most programs make.
#[derive(Debug)]
pub(crate) struct Lone<'a> {
    value: Arg<'a>,
    hash: u64,
    shape: Shape,
    typed: bool,
}

impl<'a> Lone<'a> {
    /// The query of a stored key, whose hash as a query was `hash`.
    pub(super) fn stored(key: &'a Key, hash: u64, typed: bool) -> Self {
        Self { value: Arg::new(&key.object), hash, shape: key.shape, typed }
    }

    /// Hashes the value, which may run foreign code.
    #[inline(always)]
    pub(crate) fn new(value: Arg<'a>, rules: KeyRules) -> Result<Self, Raised> {
        let (hash, tells) = ffi::hash_telling(value)?;
        let mut key = Self::hashed(value, hash, rules);
        if tells {
            key.shape.0 |= Shape::TOLD;
        }
        Ok(key)
    }

    /// The same for a value that has been hashed.
    #[inline(always)]
    pub(crate) fn hashed(value: Arg<'a>, hash: isize, rules: KeyRules) -> Self {
        let shape = if rules.lone_exact && ffi::is_exact_int_or_str(value) { Shape::LONE_EXACT } else { Shape::LONE };
        Self { value, hash: mix(hash), shape, typed: rules.typed }
    }
}

impl CallKey for Lone<'_> {
    fn to_key(&self, py: Python<'_>) -> Result<Key, Raised> {
        Ok(Key { object: Object::from(self.value.clone_ref(py)), names: None, shape: self.shape })
    }

    #[inline(always)]
    fn parts(&self, rules: KeyRules) -> Parts<'_, '_> {
        let is_apart = rules.lone_exact && !self.shape.fits(Shape::LONE_EXACT);
        Parts { values: std::slice::from_ref(&self.value), names: None, is_apart }
    }
}

impl Query<Key> for Lone<'_> {
    type Error = Raised;

    #[inline(always)]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline(always)]
    fn compare(&self, _: Python<'_>, stored: &Key) -> Match {
        if self.shape.tells(stored.shape) {
            return Match::Equal;
        }
        if !self.shape.fits(stored.shape) {
            return Match::Different;
        }
        let stored = Arg::new(&stored.object);
        if self.typed && !ffi::are_of_one_type(stored, self.value) {
            return Match::Different;
        }
        ffi::compare(stored, self.value)
    }

    fn hold(&self, py: Python<'_>, stored: &Key) -> Key {
        stored.clone_ref(py)
    }

    fn is_same(&self, one: &Key, other: &Key) -> bool {
        one.is_same(other)
    }

    fn ask(&self, py: Python<'_>, stored: &Key) -> Result<bool, Raised> {
        ffi::ask(py, Arg::new(&stored.object), self.value)
    }
}
