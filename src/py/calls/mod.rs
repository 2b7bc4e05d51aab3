//! How a cached function answers a call: a backend, where entries live, times an answer, what the caller gets.
//!
//! ```text
//!                         Values: the value itself            Coroutines: an awaitable
//!   InMemory  (objects)   Caching<InMemory, Values>           Caching<InMemory, Coroutines>
//!   Encoded   (bytes)     Caching<Encoded, Values>            Caching<Encoded, Coroutines>
//! ```
//!
//! Each of the four is one function of machine code, chosen when the function is decorated.

mod coroutines;
mod in_memory;
#[cfg(unix)]
mod shared;
mod values;

use super::cached_function::CachedFunction;
use super::entries::Entries;
use super::ffi::{Call, Entrance, Entry, Object, Raised};
use super::in_memory::InMemory;
use super::key::{CallKey, KeyRules, Lone};
#[cfg(unix)]
use super::shared::Shared;
use super::signature::WithKey;
use crate::backend::memory::Tally;
use crate::options::Options;
use coroutines::Coroutines;
use pyo3::prelude::*;
use std::marker::PhantomData;
use values::{Counting, Values};

/// The entry of the calls of a plain function.
pub(crate) fn of_function(entries: &Entries, options: &Options) -> Entry {
    if options.max_size == Some(0) { Entry::of::<Counting>() } else { of::<Values>(entries) }
}

/// The entry of the calls of a coroutine function.
pub(crate) fn of_coroutine_function(entries: &Entries) -> Entry {
    of::<Coroutines>(entries)
}

fn of<A: Answer>(entries: &Entries) -> Entry {
    match entries {
        Entries::Memory(_) => Entry::of::<Caching<InMemory, A>>(),
        #[cfg(unix)]
        Entries::Shared(_) => Entry::of::<Caching<Shared, A>>(),
    }
}

/// A backend on the path of a call.
trait Backend: Sized + 'static {
    /// Buffers of a look-up that a miss still needs.
    type Search;
    /// The place of a value that is being computed: by default, of none.
    type Place: Default;

    /// The entries of a function whose calls come this way.
    fn of(entries: &Entries) -> &Self;

    /// Looks the key up and counts what `tally` says.
    fn look_up<K: CallKey>(
        &self,
        py: Python<'_>,
        key: &K,
        rules: KeyRules,
        tally: Tally,
    ) -> Result<Lookup<Self::Search>, Raised>;

    /// Fills the place of the value that is computed for a key, which was not there at that generation.
    fn hold<K: CallKey>(
        py: Python<'_>,
        key: &K,
        missed: Miss<Self::Search>,
        place: &mut Self::Place,
    ) -> Result<(), Raised>;

    /// Stores the value that belongs into `place`.
    fn keep(&self, py: Python<'_>, place: &mut Self::Place, value: &Object) -> Result<(), Raised>;

    /// Stores the value of a key that was kept while it was computed.
    #[inline(always)]
    fn keep_of<K: CallKey>(
        &self,
        py: Python<'_>,
        key: &K,
        missed: Miss<Self::Search>,
        value: &Object,
    ) -> Result<(), Raised> {
        let mut place = Self::Place::default();
        Self::hold(py, key, missed, &mut place)?;
        self.keep(py, &mut place, value)
    }

    /// The bytes of the key, where a backend makes any.
    fn bytes(py: Python<'_>, search: Self::Search) -> Box<[u8]>;
}

/// The result of a look-up.
enum Lookup<S> {
    Hit(Object),
    Miss(Miss<S>),
}

/// A key that is not there.
struct Miss<S> {
    /// The generation of the store.
    generation: u64,
    search: S,
}

/// The form in which a caller gets the value.
trait Answer: Sized + 'static {
    /// The counters that a look-up of a call's key moves.
    const TALLY: Tally;
    /// A value that is to be computed after the look-up: by default, none.
    type Place<B: Backend>: Default;

    /// Answers with a value that is stored.
    fn hit(py: Python<'_>, value: Object) -> Result<Object, Raised>;

    /// Begins to answer a call whose key is not there.
    fn miss<B: Backend, K: CallKey>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &K,
        missed: Miss<B::Search>,
        place: &mut Self::Place<B>,
    ) -> Result<Outcome, Raised>;

    /// Answers such a call whose lone argument is its key. Such a key takes so little of the stack that it may stay there while
    /// the function runs.
    fn miss_lone<B: Backend>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        key: &Lone<'_>,
        missed: Miss<B::Search>,
    ) -> Result<Object, Raised>;

    /// Compute → keep → return. Called when all that made the key has left the stack, so that a function that calls
    /// itself can do so as often as it could without a cache.
    fn compute<B: Backend>(
        function: &Py<CachedFunction>,
        py: Python<'_>,
        call: Call<'_>,
        place: &mut Self::Place<B>,
    ) -> Result<Object, Raised>;
}

/// The result of making the key of a call and looking it up.
enum Outcome {
    /// The call returns this.
    Answer(Object),
    /// The value is to be computed.
    Compute,
    /// The function takes no such arguments.
    Mismatch,
}

/// Answers from a cache.
struct Caching<B, A>(PhantomData<(B, A)>);

impl<B: Backend, A: Answer> Entrance for Caching<B, A> {
    type Class = CachedFunction;

    #[inline(always)]
    fn call(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
        let function = this.get();
        let signature = function.signature();
        if let Some(value) = signature.lone(&call) {
            let key = Lone::new(value, signature.rules)?;
            return match B::of(&function.cache().entries).look_up(py, &key, signature.rules, A::TALLY)? {
                Lookup::Hit(value) => A::hit(py, value),
                Lookup::Miss(missed) => A::miss_lone::<B>(this, py, call, &key, missed),
            };
        }
        let mut place = A::Place::<B>::default();
        match signature.with_key_of_call(call, Find::<B, A> { this, py, call, place: &mut place })? {
            Outcome::Answer(value) => Ok(value),
            Outcome::Compute => A::compute::<B>(this, py, call, &mut place),
            Outcome::Mismatch => refuse::<A>(this, py, call),
        }
    }
}

/// Lets the function say what is wrong with its arguments.
#[cold]
#[inline(never)]
fn refuse<A: Answer>(this: &Py<CachedFunction>, py: Python<'_>, call: Call<'_>) -> Result<Object, Raised> {
    if A::TALLY == Tally::All {
        this.get().cache().entries.count_miss(py)?;
    }
    call.forward(py, this.get().function())
}

/// Looks up the key of a call.
struct Find<'a, 'py, B: Backend, A: Answer> {
    this: &'a Py<CachedFunction>,
    py: Python<'py>,
    call: Call<'a>,
    place: &'a mut A::Place<B>,
}

impl<B: Backend, A: Answer> WithKey for Find<'_, '_, B, A> {
    type Output = Outcome;

    #[inline(always)]
    fn run<K: CallKey>(self, key: &K) -> Result<Outcome, Raised> {
        let Self { this, py, call, place } = self;
        let function = this.get();
        match B::of(&function.cache().entries).look_up(py, key, function.signature().rules, A::TALLY)? {
            Lookup::Hit(value) => A::hit(py, value).map(Outcome::Answer),
            Lookup::Miss(missed) => A::miss::<B, K>(this, py, call, key, missed, place),
        }
    }

    fn mismatch(self) -> Result<Outcome, Raised> {
        Ok(Outcome::Mismatch)
    }
}
