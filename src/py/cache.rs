//! The cache of one decorated function: its entries, and how the arguments of a call become a key.

use super::async_flight::Flights;
use super::clock;
use super::error::exception;
use super::ffi::{self, Given, Object, Raised};
use super::key::{CallKey, Key, KeyRules, Lone, Several, Stored};
use super::parameters::{Parameters, Unfit};
use super::shared::{Scratch, Shared};
use crate::backend::memory::{Lookup, Memory, Query, Tally};
use crate::options::{Backend, Naming, Options};
use crate::reserve;
use crate::store::Entry;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

/// An entry as the memory of this process has it.
pub(crate) type StoredEntry = Entry<Key, Object>;

/// Which of the two decorators made a cache, and so which promise it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// `cache`: arguments are matched to the signature.
    Cache,
    /// `lru_cache`: keys are those of `functools.lru_cache`.
    LruCache,
}

/// What a decorator was told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    pub(crate) naming: Naming,
    pub(crate) flavour: Flavour,
}

/// The entries of one function, and the rules of their keys.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Empty for ever where the cache is shared.
    pub(crate) memory: Memory<Key, Object>,
    /// The other backend, for a cache that is shared with other processes.
    pub(crate) shared: Option<Shared>,
    pub(crate) rules: KeyRules,
    /// A lone argument without a name is the key as it stands.
    pub(crate) lone_is_key: bool,
    /// How many arguments without a name, and no others, are the key as they stand: from, to.
    pub(crate) in_order: (usize, usize),
    /// How to arrange arguments, or `None` where they stay as they were given.
    pub(crate) parameters: Option<Parameters>,
    pub(crate) options: Options,
    pub(crate) naming: Naming,
    pub(crate) flavour: Flavour,
    /// What runs at the moment, if the function is a coroutine function.
    pub(crate) flights: Option<Flights>,
}

impl Cache {
    /// An empty cache for `callable`.
    pub(crate) fn new(
        callable: &Bound<'_, PyAny>,
        Settings { options, naming, flavour }: Settings,
        flights: Option<Flights>,
    ) -> PyResult<Self> {
        let parameters = match flavour {
            Flavour::Cache => Parameters::of(callable)?,
            Flavour::LruCache => None,
        };
        let in_order = parameters.as_ref().map_or((0, usize::MAX), Parameters::in_order);
        // With `typed`, the types alone keep those values apart that functools keeps apart.
        let rules = KeyRules { typed: options.typed, lone_exact: flavour == Flavour::LruCache && !options.typed };
        let shared = match options.backend {
            Backend::Memory => None,
            Backend::Shared => Some(Shared::new(callable, &options, flavour, rules, &naming)?),
        };
        Ok(Self {
            memory: Memory::new(&options, clock::chosen()),
            shared,
            rules,
            lone_is_key: in_order.0 <= 1 && 1 <= in_order.1,
            in_order,
            parameters,
            options,
            naming,
            flavour,
            flights,
        })
    }

    /// Looks a key up again, which was not there before. `bytes` are what it is in a shared cache.
    pub(crate) fn look_up_again<Q: Query<Key, Error = Raised>>(
        &self,
        py: Python<'_>,
        query: &Q,
        bytes: &[u8],
    ) -> Result<Lookup<Object>, Raised> {
        if let Some(shared) = &self.shared {
            let mut scratch = Scratch::take(py);
            scratch.key.clear();
            scratch.key.extend_from_slice(bytes);
            let found = shared.look_up_bytes_asking(py, Tally::Hits, &mut scratch)?;
            scratch.leave(py);
            return Ok(found);
        }
        let read = |value: &Object| value.clone_ref(py);
        match self.memory.look_up(py, query, Tally::Hits, read) {
            Some(lookup) => Ok(lookup),
            None => self.memory.look_up_asking(py, query, Tally::Hits, read),
        }
    }

    /// Counts a call that was answered by the value that another one computed.
    pub(crate) fn count_hit(&self, py: Python<'_>) -> Result<(), Raised> {
        if let Some(shared) = &self.shared {
            return shared.count_hit(py);
        }
        self.memory.count_hit(py);
        Ok(())
    }

    /// Counts a miss that no look-up has counted.
    pub(crate) fn count_miss(&self, py: Python<'_>) -> Result<(), Raised> {
        if let Some(shared) = &self.shared {
            return shared.count_miss(py);
        }
        self.memory.count_miss(py);
        Ok(())
    }

    /// Whether calls that miss the same key wait for one computation.
    pub(crate) fn is_single_flight(&self) -> bool {
        self.options.single_flight.unwrap_or(self.flights.is_some())
    }

    /// Stores the entry in `place`, which was computed after a miss at `generation`, unless it is no longer wanted, and drops what
    /// had to leave. `hash` is that of the key as a query. Raises what comparing keys raises.
    #[inline(always)]
    pub(crate) fn keep(
        &self,
        py: Python<'_>,
        hash: u64,
        generation: u64,
        place: &mut Option<StoredEntry>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        if reserve::is_short() {
            return Ok(());
        }
        if ffi::guarded(py, || self.memory.keep(py, hash, generation, place, &is_wanted))? {
            *place = None;
        } else if let Some(late) = place.take() {
            self.keep_late(py, hash, late, is_wanted)?;
        }
        if self.options.ttl.is_some() {
            // One more than the one whose place was needed, so that expired entries leave faster than others come.
            drop(self.memory.expire(py));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn keep_late(
        &self,
        py: Python<'_>,
        hash: u64,
        late: StoredEntry,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        let key = late.key.clone_ref(py);
        drop(self.memory.keep_late(py, &Stored::new(&key, hash, self.rules), late, is_wanted)?);
        Ok(())
    }

    /// Drops the key's entry, and keeps what is being computed for it from being stored.
    fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        if let Some(flights) = &self.flights {
            flights.forget(py, key)?;
        }
        if let Some(shared) = &self.shared {
            return shared.invalidate(py, &key.parts(self.rules));
        }
        Ok(self.memory.take(py, key)?.is_some())
    }

    /// Whether a look-up would find the key, which is neither counted nor touched.
    fn contains<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        match &self.shared {
            Some(shared) => shared.contains(py, &key.parts(self.rules)),
            None => self.memory.contains(py, key),
        }
    }

    /// Drops all entries, keeps what is being computed from being stored, and resets the statistics.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.clear_here(py);
        self.shared.as_ref().map_or(Ok(()), |shared| shared.clear(py))
    }

    /// The same in this process: what the garbage collector asks for.
    pub(crate) fn clear_here(&self, py: Python<'_>) {
        if let Some(flights) = &self.flights {
            flights.forget_all(py);
        }
        drop(self.memory.clear(py));
    }

    /// Makes the key of the given arguments and hands it to `body`.
    #[inline]
    pub(crate) fn with_key<B: WithKey>(&self, given: Given<'_>, body: B) -> Result<B::Output, Unfit> {
        if let (None, &[value], true) = (given.tuple, given.values, self.lone_is_key) {
            return Ok(body.run(&Lone::new(value, self.rules)?)?);
        }
        let Some(parameters) = &self.parameters else {
            return Ok(body.run(&Several::new(given, self.rules)?)?);
        };
        let count = parameters.count(&given);
        let mut few = [None; 8];
        let mut many = Vec::new();
        let places = if let Some(places) = few.get_mut(..count) {
            places
        } else {
            many.resize(count, None);
            &mut many[..]
        };
        let fold = parameters.arrange(given, places)?;
        match ffi::all_present(places) {
            // The only parameter, by name or by default.
            Some(&[value]) => Ok(body.run(&Lone::hashed(value, fold.last(), self.rules))?),
            Some(values) => Ok(body.run(&Several::folded(values, None, fold, self.rules))?),
            None => Err(Unfit::Mismatch),
        }
    }

    /// The same for a method that takes what the function takes. Raises what hashing raises, and `TypeError` where the function
    /// takes no such arguments.
    pub(crate) fn with_key_of<B: WithKey>(
        &self,
        py: Python<'_>,
        method: &str,
        given: Given<'_>,
        body: B,
    ) -> PyResult<B::Output> {
        self.with_key(given, body).map_err(|unfit| match unfit {
            Unfit::Raised(raised) => raised.fetch(py),
            Unfit::Mismatch => exception::<PyTypeError>(&format!(
                "{method}() takes the arguments that the function takes, self or cls included: these do not fit its signature"
            )),
        })
    }

    /// Shows the garbage collector everything that the cache holds.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(parameters) = &self.parameters {
            parameters.traverse(visit)?;
        }
        if let Some(flights) = &self.flights {
            flights.traverse(visit)?;
        }
        self.memory.visit(visit, |entry| {
            entry.key.traverse(visit)?;
            visit.call(&*entry.value)
        })
    }
}

/// Drops the entry of a key.
pub(crate) struct Invalidate<'a, 'py>(pub(crate) &'a Cache, pub(crate) Python<'py>);

impl WithKey for Invalidate<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.invalidate(self.1, key)
    }
}

/// Says whether a call would hit.
pub(crate) struct Contains<'a, 'py>(pub(crate) &'a Cache, pub(crate) Python<'py>);

impl WithKey for Contains<'_, '_> {
    type Output = bool;

    fn run<K: CallKey>(self, key: &K) -> Result<bool, Raised> {
        self.0.contains(self.1, key)
    }
}

/// What is to be done with a key, of whichever kind it turns out to be.
pub(crate) trait WithKey: Sized {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<K: CallKey>(self, key: &K) -> Result<Self::Output, Raised>;
}
