//! What a call is stored under: the values of its arguments, and their names where names are part of it.
//!
//! A key that is looked for borrows the caller's references. A key that is stored owns its own, and is made on a miss only.

use super::ffi::{self, Arg, Given, Object, Raised};
use crate::backend::memory::{Match, Query};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// How many values a key has, and what else tells keys of different kinds apart at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u32);

impl Shape {
    /// One value without a name.
    const LONE: Shape = Shape(1);
    /// The same, an exact int or str, in a cache where these equal nothing but each other.
    const LONE_EXACT: Shape = Shape(1 | 1 << 31);
    /// The last values have names.
    const NAMED: u32 = 1 << 30;
    /// One small int without a name, whose hash tells its value. It may equal a lone value that is not marked so.
    const TOLD: u32 = 1 << 29;

    /// Whether it is that of one value without a name.
    fn is_lone(self) -> bool {
        self.fits(Self::LONE) || self.fits(Self::LONE_EXACT)
    }

    /// Whether keys of the two shapes can be equal.
    #[inline(always)]
    fn fits(self, other: Shape) -> bool {
        (self.0 ^ other.0) & !Self::TOLD == 0
    }

    /// Whether keys of the two shapes and of one hash are equal without a look at them.
    #[inline(always)]
    fn tells(self, other: Shape) -> bool {
        self == other && self.0 & Self::TOLD != 0
    }
}

/// A stored key.
#[derive(Debug)]
pub(crate) struct Key {
    /// The value itself if there is one and it has no name, else a tuple of all of them.
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
    fn values(&self) -> &[Arg<'_>] {
        ffi::items(Arg::new(&self.object))
    }

    /// Hands out the values, and the names of the last ones.
    pub(crate) fn with_parts<R>(&self, body: impl FnOnce(&[Arg<'_>], Option<Arg<'_>>) -> R) -> R {
        if self.shape.is_lone() {
            body(&[Arg::new(&self.object)], None)
        } else {
            body(self.values(), self.names.as_ref().map(|names| Arg::new(names)))
        }
    }

    fn is_same(&self, other: &Key) -> bool {
        self.shape == other.shape
            && self.object.is(&*other.object)
            && match (&self.names, &other.names) {
                (None, None) => true,
                (Some(names), Some(others)) => names.is(&**others),
                _ => false,
            }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Key {
        Key {
            object: self.object.clone_ref(py),
            names: self.names.as_ref().map(|names| names.clone_ref(py)),
            shape: self.shape,
        }
    }
}

/// A stored key that is looked for.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    Lone(Lone<'a>),
    Several(Several<'a>),
}

impl<'a> Stored<'a> {
    /// The query of `key`, whose hash as a query was `hash`.
    pub(crate) fn new(key: &'a Key, hash: u64, rules: KeyRules) -> Self {
        let typed = rules.typed;
        if key.shape.is_lone() {
            Self::Lone(Lone { value: Arg::new(&key.object), hash, shape: key.shape, typed })
        } else {
            let names = key.names.as_ref().map(|names| Arg::new(names));
            Self::Several(Several { values: key.values(), names, hash, shape: key.shape, typed })
        }
    }
}

impl Query<Key> for Stored<'_> {
    type Error = Raised;

    fn hash(&self) -> u64 {
        match self {
            Self::Lone(key) => key.hash(),
            Self::Several(key) => key.hash(),
        }
    }

    fn compare(&self, py: Python<'_>, stored: &Key) -> Match {
        match self {
            Self::Lone(key) => key.compare(py, stored),
            Self::Several(key) => key.compare(py, stored),
        }
    }

    fn hold(&self, py: Python<'_>, stored: &Key) -> Key {
        stored.clone_ref(py)
    }

    fn is_same(&self, one: &Key, other: &Key) -> bool {
        one.is_same(other)
    }

    fn ask(&self, py: Python<'_>, stored: &Key) -> Result<bool, Raised> {
        match self {
            Self::Lone(key) => key.ask(py, stored),
            Self::Several(key) => key.ask(py, stored),
        }
    }
}

/// A key that a call keeps while it waits or computes.
#[derive(Debug)]
pub(crate) struct KeptKey {
    pub(crate) key: Key,
    /// That of the key as a query.
    pub(crate) hash: u64,
    #[cfg_attr(not(unix), allow(dead_code, reason = "no backend there makes bytes"))]
    /// The key's bytes, where the backend makes any. Empty, too, where the key can't be turned into bytes.
    pub(crate) bytes: Box<[u8]>,
}

impl KeptKey {
    /// The key, to be looked for.
    pub(crate) fn query(&self, rules: KeyRules) -> Stored<'_> {
        Stored::new(&self.key, self.hash, rules)
    }
}

/// A key that is looked for, and stored if it is not found.
pub(crate) trait CallKey: Query<Key, Error = Raised> {
    /// The key to store.
    fn to_key(&self, py: Python<'_>) -> Result<Key, Raised>;

    /// What it is made of.
    #[cfg_attr(not(unix), allow(dead_code, reason = "no backend there makes bytes"))]
    fn parts(&self, rules: KeyRules) -> Parts<'_, '_>;
}

/// What a key is made of, to be turned into bytes.
#[cfg_attr(not(unix), allow(dead_code, reason = "there is nowhere to put them"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'s, 'a> {
    /// All values.
    pub(crate) values: &'s [Arg<'a>],
    /// The names of the last ones.
    pub(crate) names: Option<Arg<'a>>,
    /// A lone value that equals no int or str without a name, though `==` says so.
    pub(crate) is_apart: bool,
}

/// How a cache makes keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRules {
    /// Equal values of different types are different keys.
    pub(crate) typed: bool,
    /// A lone exact int or str equals no value of another type, as with `functools.lru_cache`.
    pub(crate) lone_exact: bool,
}

/// The key of one value without a name: the call that most programs make.
#[derive(Debug)]
pub(crate) struct Lone<'a> {
    value: Arg<'a>,
    hash: u64,
    shape: Shape,
    typed: bool,
}

impl<'a> Lone<'a> {
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

/// The key of no value, of several, or of values with names.
#[derive(Debug)]
pub(crate) struct Several<'a> {
    values: &'a [Arg<'a>],
    names: Option<Arg<'a>>,
    hash: u64,
    shape: Shape,
    typed: bool,
}

impl<'a> Several<'a> {
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
    fn compare_values(&self, _: Python<'_>, stored: &Key) -> Match {
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

/// 2⁶⁴ divided by the golden ratio, made odd: multiplying by it carries every bit upwards, and loses none.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads a Python hash over 64 bits; no two hashes become one. The index takes buckets from the low bits, and small
/// ints that are multiples of a power of two would share one.
#[inline(always)]
fn mix(hash: isize) -> u64 {
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
    fn finish(self) -> u64 {
        self.hash ^ (self.hash >> 32)
    }
}
