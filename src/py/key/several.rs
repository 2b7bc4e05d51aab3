//! The key of any number of values, with or without names.

use super::{CallKey, Fold, Key, KeyRules, Parts, Shape};
use crate::backend::memory::{Match, Query};
use crate::py::ffi::{self, Arg, Given, Object, Raised};
use pyo3::prelude::*;

/// The key of no value, of several, or of values with names.
#[derive(Debug)]
pub(crate) struct Several<'a> {
    pub(super) values: &'a [Arg<'a>],
    pub(super) names: Option<Arg<'a>>,
    pub(super) hash: u64,
    pub(super) shape: Shape,
    pub(super) typed: bool,
}

impl<'a> Several<'a> {
    /// The query of a stored key, whose hash as a query was `hash`.
    pub(super) fn stored(key: &'a Key, hash: u64, typed: bool) -> Self {
        let names = key.names.as_ref().map(|names| Arg::new(names));
        Self { values: key.values(), names, hash, shape: key.shape, typed }
    }

    /// Hashes each value once, which may run foreign code.
    #[inline(always)]
    pub(crate) fn unnamed(values: &'a [Arg<'a>], rules: KeyRules) -> Result<Self, Raised> {
        let mut fold = Fold::default();
        for &value in values {
            fold.add(ffi::hash(value)?);
        }
        Ok(Self::folded(values, None, fold, rules))
    }

    /// Hashes each value and name once, which may run foreign code.
    #[inline(always)]
    pub(crate) fn new(given: Given<'a>, rules: KeyRules) -> Result<Self, Raised> {
        let mut fold = Fold::default();
        for &value in given.values {
            fold.add(ffi::hash(value)?);
        }
        for &name in given.names {
            fold.add(ffi::hash(name)?);
        }
        Ok(Self::folded(given.values, given.tuple, fold, rules))
    }

    /// The same for values that have been hashed and folded in order.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "2³⁰ arguments would fill 8 GiB of stack")]
    pub(crate) fn folded(values: &'a [Arg<'a>], names: Option<Arg<'a>>, fold: Fold, rules: KeyRules) -> Self {
        let named = if names.is_some() { Shape::NAMED } else { 0 };
        let shape = Shape(values.len() as u32 | named);
        Self { values, names, hash: fold.finish(), shape, typed: rules.typed }
    }
}

impl CallKey for Several<'_> {
    fn to_key(&self, py: Python<'_>) -> Result<Key, Raised> {
        let object = ffi::new_tuple_of(py, self.values)?;
        let names = self.names.map(|names| Object::from(names.clone_ref(py)));
        Ok(Key { object, names, shape: self.shape })
    }

    #[inline(always)]
    fn parts(&self, _: KeyRules) -> Parts<'_, '_> {
        Parts { values: self.values, names: self.names, is_apart: false }
    }
}

impl Several<'_> {
    /// Whether the very objects are stored: no need to look at them, nor at their types.
    #[inline(always)]
    fn is_of_the_objects_of(&self, stored: &Key) -> bool {
        let is_of_names = match (self.names, &stored.names) {
            (Some(names), Some(stored)) => stored.is(&*names),
            _ => true,
        };
        self.shape == stored.shape
            && is_of_names
            && stored.values().iter().zip(self.values).all(|(stored, value)| stored.is(&**value))
    }

    #[inline(never)]
    pub(super) fn compare_values(&self, _: Python<'_>, stored: &Key) -> Match {
        if self.shape != stored.shape {
            return Match::Different;
        }
        let mut all = match (self.names, &stored.names) {
            (Some(names), Some(stored)) => ffi::compare(Arg::new(stored), names),
            _ => Match::Equal,
        };
        if all == Match::Different {
            return all;
        }
        for (&stored, &value) in stored.values().iter().zip(self.values) {
            if self.typed && !ffi::are_of_one_type(stored, value) {
                return Match::Different;
            }
            match ffi::compare(stored, value) {
                Match::Equal => {}
                Match::Different => return Match::Different,
                Match::Unsure => all = Match::Unsure,
            }
        }
        all
    }
}

impl Query<Key> for Several<'_> {
    type Error = Raised;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline(always)]
    fn compare(&self, py: Python<'_>, stored: &Key) -> Match {
        if self.is_of_the_objects_of(stored) { Match::Equal } else { self.compare_values(py, stored) }
    }

    fn hold(&self, py: Python<'_>, stored: &Key) -> Key {
        stored.clone_ref(py)
    }

    fn is_same(&self, one: &Key, other: &Key) -> bool {
        one.is_same(other)
    }

    fn ask(&self, py: Python<'_>, stored: &Key) -> Result<bool, Raised> {
        if let (Some(names), Some(stored)) = (self.names, &stored.names)
            && !ffi::ask(py, Arg::new(stored), names)?
        {
            return Ok(false);
        }
        for (&stored, &value) in stored.values().iter().zip(self.values) {
            if !ffi::ask(py, stored, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
