//! What a call is stored under: the values of its arguments, and their names where names are part of it.
//!
//! A key that is looked for borrows the caller's references. A key that is stored owns its own, and is made on a miss only.

#![forbid(unsafe_code)]

use super::ffi::{self, Arg, Given, Object, Raised};
use crate::backend::memory::{Match, Query};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyTuple;

/// How many values a key has, and whether it is one that `functools.lru_cache` keeps apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u32);

impl Shape {
    /// A lone exact int or str, in a cache where these equal nothing but each other.
    const LONE_EXACT: Shape = Shape(1 | 1 << 31);
    const LONE: Shape = Shape(1);
}

/// A stored key.
#[derive(Debug)]
pub(crate) struct Key {
    /// The value itself if there is one, else a tuple of all of them.
    object: Object,
    /// The names of the last values.
    names: Option<Object>,
    shape: Shape,
}

impl Key {
    /// Shows the garbage collector what the key holds.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.object)?;
        self.names.as_ref().map_or(Ok(()), |names| visit.call(&**names))
    }

    #[inline]
    fn values(&self) -> Values<'_> {
        let object = Arg::new(&self.object);
        match self.shape {
            Shape::LONE | Shape::LONE_EXACT => Values::One([object]),
            _ => Values::Many(ffi::items(object)),
        }
    }
}

enum Values<'a> {
    One([Arg<'a>; 1]),
    Many(&'a [Arg<'a>]),
}

impl Values<'_> {
    #[inline]
    fn as_slice(&self) -> &[Arg<'_>] {
        match self {
            Values::One(value) => value,
            Values::Many(values) => values,
        }
    }
}

/// How a cache makes keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRules {
    /// Equal values of different types are different keys.
    pub(crate) typed: bool,
    /// A lone exact int or str equals no value of another type, as with `functools.lru_cache`.
    pub(crate) lone_exact: bool,
}

/// A key that is looked for.
#[derive(Debug)]
pub(crate) struct Arguments<'a> {
    values: &'a [Arg<'a>],
    names: Option<Arg<'a>>,
    hash: u64,
    shape: Shape,
    typed: bool,
}

impl<'a> Arguments<'a> {
    /// The key of one value. Hashes it, which may run foreign code.
    #[inline(always)]
    pub(crate) fn lone(value: &'a [Arg<'a>; 1], rules: KeyRules) -> Result<Self, Raised> {
        let hash = mix(ffi::hash(value[0])?.cast_unsigned() as u64);
        let shape =
            if rules.lone_exact && ffi::is_exact_int_or_str(value[0]) { Shape::LONE_EXACT } else { Shape::LONE };
        Ok(Self { values: value, names: None, hash, shape, typed: rules.typed })
    }

    /// The key of what was given. Hashes each value and name once, which may run foreign code.
    #[inline]
    pub(crate) fn given(given: Given<'a>, rules: KeyRules) -> Result<Self, Raised> {
        if let (Given { values: [value], names: None, .. }, true) = (given, given.values.len() == 1) {
            return Self::lone(std::array::from_ref(value), rules);
        }
        let mut fold = Fold::default();
        for &value in given.values {
            fold.add(ffi::hash(value)?);
        }
        if let Some(names) = given.names {
            for &name in ffi::items(names) {
                fold.add(ffi::hash(name)?);
            }
        }
        Ok(Self::folded(given.values, given.names, fold, rules))
    }

    /// The key of values that were hashed already.
    pub(crate) fn hashed(values: &'a [Arg<'a>], hashes: &[isize], rules: KeyRules) -> Self {
        if let ([_], [hash]) = (values, hashes) {
            let hash = mix(hash.cast_unsigned() as u64);
            return Self { values, names: None, hash, shape: Shape::LONE, typed: rules.typed };
        }
        let mut fold = Fold::default();
        hashes.iter().for_each(|&hash| fold.add(hash));
        Self::folded(values, None, fold, rules)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "a call has fewer than 2³¹ arguments: they would fill 16 GiB")]
    fn folded(values: &'a [Arg<'a>], names: Option<Arg<'a>>, fold: Fold, rules: KeyRules) -> Self {
        // One value with a name is a key of another shape than one value alone, by the names.
        let shape = Shape(values.len() as u32);
        Self { values, names, hash: fold.finish(values.len()), shape, typed: rules.typed }
    }

    /// The key to store.
    pub(crate) fn to_key(&self, py: Python<'_>) -> Result<Key, Raised> {
        let object = match self.values {
            [value] => value.clone_ref(py),
            values => PyTuple::new(py, values.iter().map(|value| value.bind(py)))?.into_any().unbind(),
        };
        let names = self.names.map(|names| Object::from(names.clone_ref(py)));
        Ok(Key { object: Object::from(object), names, shape: self.shape })
    }
}

impl Query<Key> for Arguments<'_> {
    type Error = Raised;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline(always)]
    fn compare(&self, _: Python<'_>, stored: &Key) -> Match {
        if self.shape != stored.shape {
            return Match::Different;
        }
        // The call that most programs make, ahead of the general rule: one value, the very object that is stored.
        if let ([value], None, None, false) = (self.values, self.names, &stored.names, self.typed) {
            return ffi::compare(Arg::new(&stored.object), *value);
        }
        let names = match (self.names, &stored.names) {
            (None, None) => Match::Equal,
            (Some(names), Some(stored)) => ffi::compare(Arg::new(stored), names),
            _ => Match::Different,
        };
        let mut all = names;
        if all == Match::Different {
            return all;
        }
        for (&stored, &value) in stored.values().as_slice().iter().zip(self.values) {
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

    fn hold(&self, py: Python<'_>, stored: &Key) -> Key {
        Key {
            object: stored.object.clone_ref(py),
            names: stored.names.as_ref().map(|names| names.clone_ref(py)),
            shape: stored.shape,
        }
    }

    fn is_same(&self, one: &Key, other: &Key) -> bool {
        one.shape == other.shape
            && one.object.is(&*other.object)
            && match (&one.names, &other.names) {
                (None, None) => true,
                (Some(one), Some(other)) => one.is(&**other),
                _ => false,
            }
    }

    fn ask(&self, py: Python<'_>, stored: &Key) -> Result<bool, Raised> {
        if let (Some(names), Some(stored)) = (self.names, &stored.names)
            && !ffi::ask(py, Arg::new(stored), names)?
        {
            return Ok(false);
        }
        for (&stored, &value) in stored.values().as_slice().iter().zip(self.values) {
            if !ffi::ask(py, stored, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Spreads a Python hash over 64 bits. The table takes buckets from the low bits and tags from the high ones, and small ints
/// have all of theirs at the bottom.
#[inline(always)]
fn mix(hash: u64) -> u64 {
    let product = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// Combines the hashes of several values, in order, with the round of xxHash that tuples use.
#[derive(Debug)]
struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Self(0x27d4_eb2f_1656_67c5)
    }
}

impl Fold {
    #[inline]
    fn add(&mut self, hash: isize) {
        let lane = (hash.cast_unsigned() as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.0 = self.0.wrapping_add(lane).rotate_left(31).wrapping_mul(0x9e37_79b1_85eb_ca87);
    }

    #[inline]
    fn finish(self, count: usize) -> u64 {
        let hash = self.0.wrapping_add(count as u64);
        hash ^ (hash >> 32)
    }
}
