//! How the arguments of a call become a key: the one rule, for calls and for the methods that take a call's arguments.
//!
//! A signature knows no entries, so that several stores can share one.

use super::ffi::{self, Arg, Call, Given, Raised};
use super::key::{CallKey, Fold, KeyRules, Lone, Pair, Several};
use super::parameters::{FEW, Parameters, Unfit};
use crate::options::{Flavour, Settings};
use pyo3::PyTraverseError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// The rules by which one function's arguments become keys.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) rules: KeyRules,
    /// A lone argument without a name is the key as it stands.
    lone_is_key: bool,
    /// How many arguments without a name, and no others, are the key as they stand: from, to.
    in_order: (usize, usize),
    /// How to arrange arguments, or `None` where they stay as they were given.
    parameters: Option<Parameters>,
}

/// Work to do with a key, whatever its kind.
pub(crate) trait WithKey: Sized {
    /// The result of the work.
    type Output;

    /// Does the work.
    fn run<K: CallKey>(self, key: &K) -> Result<Self::Output, Raised>;

    /// The function takes no such arguments, so there is no key.
    fn mismatch(self) -> Result<Self::Output, Raised>;
}

impl Signature {
    /// The signature of `callable`, for a decorator with these settings.
    pub(crate) fn of(callable: &Bound<'_, PyAny>, settings: &Settings) -> PyResult<Self> {
        let Settings { options, flavour, .. } = settings;
        let parameters = match flavour {
            Flavour::Cache => Parameters::of(callable)?,
            Flavour::LruCache => None,
        };
        let in_order = parameters.as_ref().map_or((0, usize::MAX), Parameters::in_order);
        // With `typed`, the types alone keep those values apart that functools keeps apart.
        let rules = KeyRules { typed: options.typed, lone_exact: *flavour == Flavour::LruCache && !options.typed };
        Ok(Self { rules, lone_is_key: in_order.0 <= 1 && 1 <= in_order.1, in_order, parameters })
    }

    /// The argument of a call that is its key as it stands. Most calls have one, and their path begins here.
    #[inline(always)]
    pub(crate) fn lone<'a>(&self, call: &Call<'a>) -> Option<Arg<'a>> {
        match call.lone() {
            Some(value) if self.lone_is_key => Some(value),
            _ => None,
        }
    }

    /// Makes the key of a call that has no lone one, and hands it to `work`. Each value is hashed once, which may run
    /// foreign code.
    #[inline(always)]
    pub(crate) fn with_key_of_call<W: WithKey>(&self, call: Call<'_>, work: W) -> Result<W::Output, Raised> {
        match call.unnamed(self.in_order) {
            Some(values) => self.with_values(values, work),
            None => self.with_any(call, work),
        }
    }

    /// Values that are the key as they stand.
    #[inline(never)]
    fn with_values<W: WithKey>(&self, values: &[Arg<'_>], work: W) -> Result<W::Output, Raised> {
        if let Ok(values) = values.try_into() {
            return work.run(&Pair::new(values, self.rules)?);
        }
        if values.is_empty() {
            // The same as below, with nothing left to compute.
            return work.run(&Several::unnamed(&[], self.rules)?);
        }
        work.run(&Several::unnamed(values, self.rules)?)
    }

    #[inline(never)]
    fn with_any<W: WithKey>(&self, call: Call<'_>, work: W) -> Result<W::Output, Raised> {
        let given = call.given();
        let Some(parameters) = &self.parameters else {
            return work.run(&Several::new(given, self.rules)?);
        };
        if !parameters.stand_in_order(&given) {
            return self.with_arranged(parameters, given, work);
        }
        match *given.values {
            [value] => work.run(&Lone::new(value, self.rules)?),
            _ => self.with_values(given.values, work),
        }
    }

    /// Makes the key of the given arguments and hands it to `work`.
    #[inline(never)]
    pub(crate) fn with_key<W: WithKey>(&self, given: Given<'_>, work: W) -> Result<W::Output, Raised> {
        match &self.parameters {
            _ if self.lone_is_key && given.values.len() == 1 && given.positional == 1 => {
                work.run(&Lone::new(given.values[0], self.rules)?)
            }
            None => work.run(&Several::new(given, self.rules)?),
            Some(parameters) => self.with_arranged(parameters, given, work),
        }
    }

    /// Values that are to be put in the order of the signature.
    #[inline(always)]
    fn with_arranged<W: WithKey>(
        &self,
        parameters: &Parameters,
        given: Given<'_>,
        work: W,
    ) -> Result<W::Output, Raised> {
        if let Some(filling) = parameters.filling()
            && let Some(values) = parameters.arrange_few(&given, &mut [filling; FEW])
        {
            return self.with_folded(values, parameters.fold(values)?, work);
        }
        self.with_any_order(parameters, given, work)
    }

    #[inline(never)]
    fn with_any_order<W: WithKey>(
        &self,
        parameters: &Parameters,
        given: Given<'_>,
        work: W,
    ) -> Result<W::Output, Raised> {
        let mut places = vec![None; parameters.count(&given)];
        let fold = match parameters.arrange(given, &mut places) {
            Ok(fold) => fold,
            Err(Unfit::Raised(raised)) => return Err(raised),
            Err(Unfit::Mismatch) => return work.mismatch(),
        };
        match ffi::all_present(&places) {
            Some(values) => self.with_folded(values, fold, work),
            None => work.mismatch(),
        }
    }

    #[inline(always)]
    fn with_folded<W: WithKey>(&self, values: &[Arg<'_>], fold: Fold, work: W) -> Result<W::Output, Raised> {
        match *values {
            // The only parameter, by name or by default.
            [value] => work.run(&Lone::hashed(value, fold.last(), self.rules)),
            _ => work.run(&Several::folded(values, None, fold, self.rules)),
        }
    }

    /// Shows the garbage collector the defaults that stand in keys.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.parameters.as_ref().map_or(Ok(()), |parameters| parameters.traverse(visit))
    }
}
