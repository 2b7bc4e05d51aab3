//! How the arguments of a call meet the parameters of the function, so that `f(1)`, `f(1, 2)` and `f(b=2, a=1)` of
//! `def f(a, b=2)` are one entry.
//!
//! The map is made once, from the function's code object. A key then has one value a parameter, in the order of the
//! signature, then those of `*args`. Only the key is arranged: the function gets what the caller wrote.

use super::ffi::{self, Arg, Given, Object, Raised};
use super::key::Fold;
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyFunction, PyString, PyTuple};

/// A parameter's default as it stands in a key.
#[derive(Debug)]
struct Default {
    /// The default itself or, if it cannot be hashed, an object that equals nothing else.
    value: Object,
    hash: isize,
}

/// Stands in a key for a default that cannot be hashed. It equals itself alone.
#[pyclass(frozen, name = "_Unhashable", module = "warp_cache")]
#[derive(Debug)]
pub(crate) struct Unhashable;

/// The parameters of a Python function that takes no `**kwargs`.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The names of all parameters but `*args`, in order: positional ones, then keyword-only ones.
    names: Vec<Object>,
    defaults: Vec<Option<Default>>,
    /// How many can be given without a name.
    positional: usize,
    /// How many cannot be given with one.
    positional_only: usize,
    /// Whether there is `*args`.
    takes_more: bool,
}

/// Why arguments cannot be arranged.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The function does not take such arguments: calling it will say so.
    Mismatch,
    /// Hashing one of them raised.
    Raised(Raised),
}

impl From<Raised> for Unfit {
    fn from(raised: Raised) -> Self {
        Self::Raised(raised)
    }
}

/// As many values are arranged without an allocation.
pub(crate) const FEW: usize = 8;

const TAKES_MORE: usize = 0x04;
const TAKES_KEYWORDS: usize = 0x08;

impl Parameters {
    /// The parameters of `callable`, or of the function that it is a bound method of. `None` where a call's keywords are
    /// part of its meaning: without a code object, and with `**kwargs`.
    pub(crate) fn of(callable: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = callable.py();
        let method = py.import("types")?.getattr("MethodType")?;
        let (function, bound) = if callable.is_exact_instance(&method) {
            (callable.getattr("__func__")?, 1)
        } else {
            (callable.clone(), 0)
        };
        let Ok(function) = function.cast_exact::<PyFunction>() else { return Ok(None) };
        let code = function.getattr("__code__")?;
        let flags: usize = code.getattr("co_flags")?.extract()?;
        if flags & TAKES_KEYWORDS != 0 {
            return Ok(None);
        }
        let count = |name| code.getattr(name)?.extract::<usize>();
        let (positional, keyword_only) = (count("co_argcount")?, count("co_kwonlyargcount")?);
        if bound > positional {
            // `def method(*args)`: the instance is the first of those.
            return Ok(None);
        }
        let names: Vec<Bound<'_, PyString>> = code.getattr("co_varnames")?.extract()?;
        let names = &names[..positional + keyword_only];
        let mut defaults: Vec<Option<Default>> = names.iter().map(|_| None).collect();
        if let Ok(given) = function.getattr("__defaults__")?.cast::<PyTuple>() {
            // They belong to the last positional parameters.
            let without = positional.saturating_sub(given.len());
            for (place, default) in defaults[without..positional].iter_mut().zip(given) {
                *place = Some(Default::of(&default)?);
            }
        }
        if let Ok(given) = function.getattr("__kwdefaults__")?.cast::<PyDict>() {
            for (name, place) in names[positional..].iter().zip(&mut defaults[positional..]) {
                if let Some(default) = given.get_item(name)? {
                    *place = Some(Default::of(&default)?);
                }
            }
        }
        Ok(Some(Self {
            names: names[bound..].iter().map(|name| Object::from(name.clone().into_any().unbind())).collect(),
            defaults: defaults.into_iter().skip(bound).collect(),
            positional: positional - bound,
            positional_only: count("co_posonlyargcount")?.saturating_sub(bound),
            takes_more: flags & TAKES_MORE != 0,
        }))
    }

    /// How many values without a name, and no others, are in the order of the signature as they stand: from, to.
    pub(crate) fn in_order(&self) -> (usize, usize) {
        match (self.names.len() == self.positional, self.takes_more) {
            (true, true) => (self.positional, usize::MAX),
            (true, false) => (self.positional, self.positional),
            (false, _) => (1, 0),
        }
    }

    /// Whether values stand in the order of the signature, one for each parameter, though some have names: what a call comes to
    /// whose author names arguments in order.
    #[inline(always)]
    pub(crate) fn stand_in_order(&self, given: &Given<'_>) -> bool {
        given.values.len() == self.names.len()
            && (self.positional_only..=self.positional).contains(&given.positional)
            && self.names[given.positional..].iter().zip(given.names).all(|(known, name)| known.is(&**name))
    }

    /// The values in the order of the signature, one for each parameter, where names and omissions stand in that order, too: what
    /// most calls with names come to. Saves a third of the way of [`Parameters::arrange`]. `None` says nothing of other calls.
    #[inline(always)]
    pub(crate) fn arrange_few<'a, 's>(
        &'a self,
        given: &Given<'a>,
        places: &'s mut [Arg<'a>; FEW],
    ) -> Option<&'s [Arg<'a>]> {
        let places = places.get_mut(..self.names.len())?;
        let (unnamed, named) = given.values.split_at_checked(given.positional)?;
        if unnamed.len() > self.positional || unnamed.len() > places.len() {
            return None;
        }
        let (first, rest) = places.split_at_mut(unnamed.len());
        for (place, &value) in first.iter_mut().zip(unnamed) {
            *place = value;
        }
        let left_out = self.names.get(unnamed.len()..)?.iter().zip(self.defaults.get(unnamed.len()..)?);
        let mut names = given.names;
        for ((place, (known, default)), at) in rest.iter_mut().zip(left_out).zip(unnamed.len()..) {
            match names {
                [name, others @ ..] if known.is(&**name) && at >= self.positional_only => {
                    *place = *named.get(named.len() - names.len())?;
                    names = others;
                }
                _ => *place = Arg::new(&default.as_ref()?.value),
            }
        }
        if names.is_empty() { Some(places) } else { None }
    }

    /// Hashes each of the values that were arranged.
    #[inline(always)]
    pub(crate) fn fold(&self, arranged: &[Arg<'_>]) -> Result<Fold, Raised> {
        let mut fold = Fold::default();
        for (value, default) in arranged.iter().zip(&self.defaults) {
            fold.add(match default {
                Some(default) if default.value.is(&**value) => default.hash,
                _ => ffi::hash(*value)?,
            });
        }
        Ok(fold)
    }

    /// A value to fill places with.
    pub(crate) fn filling(&self) -> Option<Arg<'_>> {
        self.names.first().map(|name| Arg::new(name))
    }

    /// How many values the arguments come to in the order of the signature.
    #[inline]
    pub(crate) fn count(&self, given: &Given<'_>) -> usize {
        self.names.len() + given.positional.saturating_sub(self.positional)
    }

    /// Puts values in the order of the signature, with a default for what is left out, and hashes each of them once.
    /// `places` are `None`, as many as `count` says.
    pub(crate) fn arrange<'a>(&'a self, given: Given<'a>, places: &mut [Option<Arg<'a>>]) -> Result<Fold, Unfit> {
        let (unnamed, named) = given.values.split_at(given.positional);
        let (unnamed, more) = unnamed.split_at(unnamed.len().min(self.positional));
        if !more.is_empty() && !self.takes_more {
            return Err(Unfit::Mismatch);
        }
        let (places, places_for_more) = places.split_at_mut(self.names.len());
        for (place, &value) in places.iter_mut().zip(unnamed) {
            *place = Some(value);
        }
        for (likely, (&name, &value)) in given.names.iter().zip(named).enumerate() {
            let place = self.find(name, unnamed.len() + likely)?;
            if places[place].replace(value).is_some() {
                return Err(Unfit::Mismatch);
            }
        }
        let mut fold = Fold::default();
        for (place, default) in places.iter_mut().zip(&self.defaults) {
            match (&place, default) {
                (Some(value), _) => fold.add(ffi::hash(*value)?),
                (None, Some(default)) => {
                    *place = Some(Arg::new(&default.value));
                    fold.add(default.hash);
                }
                (None, None) => return Err(Unfit::Mismatch),
            }
        }
        for (place, &value) in places_for_more.iter_mut().zip(more) {
            *place = Some(value);
            fold.add(ffi::hash(value)?);
        }
        Ok(fold)
    }

    /// The place of the parameter called `name`, looking at `likely` first.
    #[inline]
    fn find(&self, name: Arg<'_>, likely: usize) -> Result<usize, Unfit> {
        // Names are interned nearly always, so that one look tells.
        if likely >= self.positional_only && self.names.get(likely).is_some_and(|known| known.is(&*name)) {
            return Ok(likely);
        }
        self.find_anywhere(name)
    }

    #[inline(never)]
    fn find_anywhere(&self, name: Arg<'_>) -> Result<usize, Unfit> {
        let named = &self.names[self.positional_only..];
        let place = named
            .iter()
            .position(|known| known.is(&*name))
            .or_else(|| named.iter().position(|known| ffi::are_equal_names(Arg::new(known), name)));
        place.map(|place| place + self.positional_only).ok_or(Unfit::Mismatch)
    }

    /// Shows the garbage collector the defaults.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.defaults.iter().flatten().try_for_each(|default| visit.call(&*default.value))
    }
}

impl Default {
    fn of(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(hash) = value.hash() {
            return Ok(Self { value: value.clone().unbind().into(), hash });
        }
        let stand_in = Bound::new(value.py(), Unhashable)?.into_any();
        let hash = stand_in.hash()?;
        Ok(Self { value: stand_in.unbind().into(), hash })
    }
}
