//! The key of a call: the values of its arguments, and their names where names are part of it.
//!
//! A key that is looked for borrows the caller's references. A key that is stored owns its own, and is made on a miss only.

mod fold;
mod lone;
mod pair;
mod several;

use super::ffi::{self, Arg, Object, Raised};
use crate::backend::memory::{Match, Query};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

pub(crate) use fold::Fold;
pub(crate) use lone::Lone;
pub(crate) use pair::Pair;
pub(crate) use several::Several;

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
            Self::Lone(Lone::stored(key, hash, typed))
        } else {
            Self::Several(Several::stored(key, hash, typed))
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
    /// The hash of the key as a query.
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

    /// The parts of the key.
    #[cfg_attr(not(unix), allow(dead_code, reason = "no backend there makes bytes"))]
    fn parts(&self, rules: KeyRules) -> Parts<'_, '_>;
}

/// The parts of a key, to be turned into bytes.
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
