//! The key of two values without names. It saves 21 of 210 instructions of ours on such a hit.

use super::several::Several;
use super::{CallKey, Fold, Key, KeyRules, Parts, Shape};
use crate::backend::memory::{Match, Query};
use crate::py::ffi::{self, Arg, Raised};
use pyo3::prelude::*;

/// The key of two values without names: the same as `Several` would be, with nothing to count.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    values: &'a [Arg<'a>; 2],
    hash: u64,
    typed: bool,
}

impl<'a> Pair<'a> {
    const SHAPE: Shape = Shape(2);

    /// Hashes both values, which may run foreign code.
    #[inline(always)]
    pub(crate) fn new(values: &'a [Arg<'a>; 2], rules: KeyRules) -> Result<Self, Raised> {
        let mut fold = Fold::default();
        fold.add(ffi::hash(values[0])?);
        fold.add(ffi::hash(values[1])?);
        Ok(Self { values, hash: fold.finish(), typed: rules.typed })
    }

    fn as_several(&self) -> Several<'_> {
        Several { values: self.values, names: None, hash: self.hash, shape: Self::SHAPE, typed: self.typed }
    }
}

impl CallKey for Pair<'_> {
    fn to_key(&self, py: Python<'_>) -> Result<Key, Raised> {
        self.as_several().to_key(py)
    }

    #[inline(always)]
    fn parts(&self, _: KeyRules) -> Parts<'_, '_> {
        Parts { values: self.values, names: None, is_apart: false }
    }
}

impl Query<Key> for Pair<'_> {
    type Error = Raised;

    #[inline(always)]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline(always)]
    fn compare(&self, py: Python<'_>, stored: &Key) -> Match {
        let &[one, other] = self.values;
        match *stored.values() {
            // The very objects are stored: no need to look at them, nor at their types.
            [first, second] if stored.shape == Self::SHAPE && first.is(&*one) && second.is(&*other) => Match::Equal,
            _ => self.as_several().compare_values(py, stored),
        }
    }

    fn hold(&self, py: Python<'_>, stored: &Key) -> Key {
        stored.clone_ref(py)
    }

    fn is_same(&self, one: &Key, other: &Key) -> bool {
        one.is_same(other)
    }

    fn ask(&self, py: Python<'_>, stored: &Key) -> Result<bool, Raised> {
        self.as_several().ask(py, stored)
    }
}
