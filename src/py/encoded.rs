//! The shared backend of one function: its region, and the way from arguments and values to bytes and back.
//!
//! A hit of a key and a value of built-in types runs no foreign code and waits for nobody. Everything else (pickles, opening the
//! region, waiting for a shard) is the slow path, in which nothing is lent out and, while it waits, the GIL is not held.

use super::clock;
use super::encoding::{self, Undecoded, Unencoded};
use super::error::{self, SharedCacheWarning, exception};
use super::ffi::{self, Object, Raised};
use super::identity::{self, Identified, Identity};
use super::info;
use super::key::{CallKey, KeptKey, KeyRules, Parts};
use crate::backend::bytes::Count;
use crate::backend::memory::{Lookup, Tally};
use crate::backend::shared::error::Error;
use crate::backend::shared::handle::{Handle, Notice};
use crate::backend::shared::region::{self, Parameters, Purpose, Region};
use crate::backend::shared::shard::{BUDGET, GaveUp, Kept};
use crate::backend::shared::system::directory::Location;
use crate::clock::Clock;
use crate::codec;
use crate::options::{Flavour, Naming, OptionsError, Settings, Version};
use crate::stats::Stats;
use crate::sync::each_thread;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::borrow::Cow;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The protocol of the pickles, the same in every Python.
const PICKLE_PROTOCOL: u8 = 5;

/// Bytes of a key, and of an entry that was found or is to be stored.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) key: Vec<u8>,
    entry: Vec<u8>,
}

each_thread!(static SPARE: Scratch = Scratch::NONE);

impl Scratch {
    const NONE: Self = Self { key: Vec::new(), entry: Vec::new() };
    /// Larger buffers are not kept.
    const LARGEST: usize = 1 << 16;

    /// The buffers that the last call has left, or new ones while that call still runs.
    #[inline(always)]
    pub(crate) fn take(py: Python<'_>) -> Self {
        SPARE.with(py, std::mem::take)
    }

    /// Leaves them for the next call.
    #[inline(always)]
    pub(crate) fn leave(self, py: Python<'_>) {
        if self.key.capacity() + self.entry.capacity() <= Self::LARGEST {
            drop(SPARE.with(py, |spare| std::mem::replace(spare, self)));
        }
    }
}

/// What a look-up that runs no foreign code found.
pub(crate) enum Quick {
    /// The value.
    Hit(Object),
    /// Nothing, and the key is in the buffer.
    Miss {
        /// For [`Encoded::keep`].
        generation: u64,
    },
    /// A value that foreign code must unpickle, or that is damaged. It has been counted as a hit.
    Pickled(Pickled),
    /// It takes foreign code to tell.
    Unsure,
}

/// Where in the buffer a value is that is not unpickled yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pickled {
    start: usize,
    generation: u64,
}

/// The shared backend of one function.
#[derive(Debug)]
pub(crate) struct Encoded {
    handle: Handle,
    label: String,
    /// There is one if entries have a time to live.
    clock: Option<Clock>,
    rules: KeyRules,
    key_limit: u32,
    value_limit: u32,
    /// Why this process could not store what it could not store last. Nobody waits for it: in a forked process a thread may
    /// have it that is not there.
    unstorable: Mutex<Option<Cow<'static, str>>>,
}

impl Encoded {
    /// The region of `function`, which is opened when it is first used. Without a stable identity it is in memory, and made now.
    pub(crate) fn new(
        function: &Bound<'_, PyAny>,
        Settings { options, naming, flavour }: &Settings,
        rules: KeyRules,
    ) -> PyResult<Self> {
        let py = function.py();
        let max_size = options.check_shared()?;
        encoding::prepare(py).map_err(|raised| raised.fetch(py))?;
        let (identity, why_private) = match (&naming.name, &naming.version) {
            (Some(name), Some(_)) => (identity::named(name), None),
            (name, _) => match identity::identify(function, name.as_deref())? {
                Identified::Stable(identity) => (identity, None),
                Identified::Unstable(why) => {
                    let label = name.clone().or_else(|| error::name_of(function));
                    let label = label.unwrap_or_else(|| error::shown(function));
                    (Identity { label, digest: 0 }, Some(format!("{why}; {}", remedy(function, naming)?)))
                }
            },
        };
        let version = py.version_info();
        let parameters = Parameters {
            max_size: max_size as u64,
            max_key_size: options.max_key_size,
            max_value_size: options.max_value_size,
            ttl_ns: options.ttl.map(crate::options::Ttl::nanoseconds),
            strategy: options.strategy as u8,
            typed: options.typed,
            pickle_protocol: PICKLE_PROTOCOL,
            python: (version.major, version.minor),
            layout: region::LAYOUT,
        };
        if !Region::can_be(&parameters) {
            return Err(OptionsError::Unaddressable.into());
        }
        let digest = digest(&identity, naming, *flavour, options.ttl.is_some());
        let purpose = Purpose { label: identity.label.clone(), digest, parameters };
        let asked = Location::asked();
        let handle = match &why_private {
            None => Handle::new(asked, purpose),
            Some(_) => Handle::private(asked, purpose),
        };
        let shared = Self {
            handle,
            label: identity.label,
            clock: options.ttl.map(|_| clock::chosen().unwrap_or(Clock::Machine)),
            rules,
            key_limit: options.max_key_size,
            value_limit: options.max_value_size,
            unstorable: Mutex::new(None),
        };
        if let Some(why) = why_private {
            shared.warn(py, &format!("its values are cached in this process and its forks only: {why}"))?;
        }
        Ok(shared)
    }

    /// Looks a key up, and counts a hit, and a miss if `tally` says so. Runs no foreign code; leaves the key's bytes in `scratch`.
    #[inline(always)]
    pub(crate) fn look_up(&self, py: Python<'_>, parts: &Parts<'_, '_>, tally: Tally, scratch: &mut Scratch) -> Quick {
        match encoding::encode_native_key(parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            Ok(true) => self.look_up_bytes(py, tally, scratch),
            _ => Quick::Unsure,
        }
    }

    /// The same for a key whose bytes are in `scratch`.
    #[inline(always)]
    fn look_up_bytes(&self, py: Python<'_>, tally: Tally, scratch: &mut Scratch) -> Quick {
        let now = self.now();
        let Scratch { key, entry } = scratch;
        let found = self.handle.with(py, |region| {
            let generation = region.clears();
            if let Some(found) = region.look_up(key, now, entry) {
                region.count(Count::Hit);
                return Ok(Pickled { start: found.value_start, generation });
            }
            if tally == Tally::All {
                region.count(Count::Miss);
            }
            Err(generation)
        });
        match found {
            Some(Ok(found)) => {
                let value = encoding::decode_native(py, entry.get(found.start..).unwrap_or_default());
                value.map_or(Quick::Pickled(found), Quick::Hit)
            }
            Some(Err(generation)) => Quick::Miss { generation },
            None => Quick::Unsure,
        }
    }

    /// Unpickles what a look-up has found. What can't be is a miss, which is counted if `tally` says so.
    #[inline(never)]
    pub(crate) fn unpickle(
        &self,
        py: Python<'_>,
        tally: Tally,
        scratch: &Scratch,
        found: Pickled,
    ) -> Result<Lookup<Object>, Raised> {
        let generation = found.generation;
        match encoding::decode_value(py, scratch.entry.get(found.start..).unwrap_or_default()) {
            Ok(value) => Ok(Lookup::Hit(value)),
            Err(Undecoded::Raised(raised)) => Err(raised),
            // Its class is gone, or is another one by now. The next value takes its place.
            Err(Undecoded::Damaged) => {
                self.handle.with(py, |region| {
                    region.uncount_hit();
                    if tally == Tally::All {
                        region.count(Count::Miss);
                    }
                });
                Ok(Lookup::Miss { generation })
            }
        }
    }

    /// The same where foreign code must run. Without a region, or for a key that can't be turned into bytes, nothing is found, and
    /// the key in `scratch` is empty, which no key is: then nothing is stored.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_up_asking(
        &self,
        py: Python<'_>,
        parts: &Parts<'_, '_>,
        tally: Tally,
        scratch: &mut Scratch,
    ) -> Result<Lookup<Object>, Raised> {
        match encoding::encode_key(py, parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            Ok(()) => self.look_up_bytes_asking(py, tally, scratch),
            Err(unencoded) => {
                scratch.key.clear();
                self.skip(py, unencoded)?;
                if tally == Tally::All {
                    self.count(py, Count::Miss)?;
                }
                Ok(Lookup::Miss { generation: 0 })
            }
        }
    }

    /// The same for a key that was not there before. A miss is not counted.
    pub(crate) fn look_up_again(&self, py: Python<'_>, key: &KeptKey) -> Result<Lookup<Object>, Raised> {
        let mut scratch = Scratch::take(py);
        scratch.key.clear();
        scratch.key.extend_from_slice(&key.bytes);
        let found = self.look_up_bytes_asking(py, Tally::Again, &mut scratch)?;
        scratch.leave(py);
        Ok(found)
    }

    /// The same for a key whose bytes are in `scratch`.
    fn look_up_bytes_asking(
        &self,
        py: Python<'_>,
        tally: Tally,
        scratch: &mut Scratch,
    ) -> Result<Lookup<Object>, Raised> {
        if scratch.key.is_empty() {
            return Ok(Lookup::Miss { generation: 0 });
        }
        let Some(region) = self.region(py)? else {
            if tally == Tally::All {
                self.handle.tallies().count(Count::Miss);
            }
            return Ok(Lookup::Miss { generation: 0 });
        };
        let generation = region.clears();
        if let Some(found) = region.look_up(&scratch.key, self.now(), &mut scratch.entry) {
            region.count(Count::Hit);
            return self.unpickle(py, tally, scratch, Pickled { start: found.value_start, generation });
        }
        if tally == Tally::All {
            region.count(Count::Miss);
        }
        Ok(Lookup::Miss { generation })
    }

    /// Stores a value under the key in `scratch`, unless it is no longer wanted or can't be turned into bytes. Raises what is no
    /// `Exception`, and warnings that are errors.
    pub(crate) fn keep(
        &self,
        py: Python<'_>,
        scratch: &mut Scratch,
        value: &Py<PyAny>,
        is_wanted: impl Fn(&Region) -> bool + Sync,
    ) -> Result<(), Raised> {
        if scratch.key.is_empty() {
            return Ok(());
        }
        if let Err(unencoded) = encoding::encode_value(py, value, self.value_limit, &mut scratch.entry) {
            return self.skip(py, unencoded);
        }
        // It may have been retired while the function ran.
        let Some(region) = self.region(py)? else { return Ok(()) };
        let Scratch { key, entry } = &*scratch;
        let now = self.now();
        let kept = self.attempt(py, &region, |patience| region.keep(key, entry, now, || is_wanted(&region), patience));
        if let (Ok(Kept::NoRoom | Kept::Evicted(_) | Kept::Stored), Some(notice)) =
            (kept, self.handle.notice_of(&region))
        {
            self.warn(py, &notice.to_string())?;
        }
        if self.handle.is_retry_due()
            && let Some(region) = ffi::detached(py, || self.handle.retry())
        {
            self.handle.replace(py, &region);
        }
        Ok(())
    }

    /// [`Encoded::keep`] for a key that its caller keeps, and which was not there when the region was of that generation.
    pub(crate) fn keep_of(
        &self,
        py: Python<'_>,
        key: &KeptKey,
        value: &Py<PyAny>,
        generation: u64,
        is_wanted: impl Fn() -> bool + Sync,
    ) -> Result<(), Raised> {
        let mut scratch = Scratch::take(py);
        scratch.key.clear();
        scratch.key.extend_from_slice(&key.bytes);
        self.keep(py, &mut scratch, value, |region| region.clears() == generation && is_wanted())?;
        scratch.leave(py);
        Ok(())
    }

    /// Whether a look-up would find something it could return.
    pub(crate) fn contains<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        let mut scratch = Scratch::take(py);
        let contains = self.encode(py, &key.parts(self.rules), &mut scratch)?
            && self.region(py)?.is_some_and(|region| region.contains(&scratch.key, self.now()));
        scratch.leave(py);
        Ok(contains)
    }

    /// Removes the entry of a key, and says whether there was one.
    pub(crate) fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        let mut scratch = Scratch::take(py);
        let mut is_removed = false;
        if self.encode(py, &key.parts(self.rules), &mut scratch)?
            && let Some(region) = self.region(py)?
        {
            let (key, now) = (&scratch.key, self.now());
            is_removed =
                self.attempt(py, &region, |patience| region.remove(key, now, patience)).unwrap_or_else(|GaveUp| {
                    // It must not be returned any more: rather no entry at all than this one.
                    let is_there = region.contains(key, now);
                    ffi::detached(py, || region.retire().is_ok());
                    is_there
                });
        }
        scratch.leave(py);
        Ok(is_removed)
    }

    /// Removes all entries and resets the counters, for all processes.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.tallies().clear();
        drop(self.unstorable.try_lock().map(|mut reason| reason.take()));
        let Some(region) = self.region_in_place(py)? else { return Ok(()) };
        if self.attempt(py, &region, |patience| region.clear(patience)).is_err() {
            ffi::detached(py, || region.retire().is_ok());
        }
        Ok(())
    }

    /// `SharedCacheInfo`.
    pub(crate) fn info<'py>(&self, py: Python<'py>, max_size: Option<usize>) -> PyResult<Bound<'py, PyAny>> {
        let (counts, current_size) = match self.region_in_place(py)? {
            Some(region) => ffi::detached(py, || (region.counts(), region.len(self.now()))),
            None => (self.handle.tallies().counts(), 0),
        };
        let stats = Stats { hits: counts.hits, misses: counts.misses };
        info::shared_cache_info(py, stats, max_size, current_size, counts.skips)
    }

    /// `SharedStats`.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let region = self.region_in_place(py)?;
        let events = region.as_ref().map(|region| region.events()).unwrap_or_default();
        let counts = region.as_ref().map_or_else(|| self.handle.tallies().counts(), |region| region.counts());
        let reason = self.unstorable.try_lock().ok().and_then(|reason| reason.clone());
        let bytes = region.as_ref().map_or(0, |region| region.bytes());
        info::shared_stats_type(py)?.call1((
            region.and_then(|region| region.path()).map(PathBuf::into_os_string),
            bytes,
            events.steals,
            events.repairs,
            events.give_ups,
            events.damaged,
            counts.unstorable,
            reason,
        ))
    }

    /// Removes the file, and all entries with it, for all processes. Returns whether there was one.
    pub(crate) fn unlink(&self, py: Python<'_>) -> PyResult<bool> {
        let open = self.handle.region(py);
        let removed = ffi::detached(py, || {
            let own = open.map_or(Ok(false), |region| region.retire())?;
            // Somebody may have put another one in its place.
            Ok::<_, Error>(self.handle.unlink()? || own)
        });
        removed.map_err(|error| exception::<PyOSError>(&error.to_string()))
    }

    /// Counts a call that was answered by the value that another one computed.
    pub(crate) fn count_hit(&self, py: Python<'_>) -> Result<(), Raised> {
        self.count(py, Count::Hit)
    }

    /// Counts a miss that no look-up has counted.
    pub(crate) fn count_miss(&self, py: Python<'_>) -> Result<(), Raised> {
        self.count(py, Count::Miss)
    }

    /// Counts a call whose value is not stored, and notes why if it is not for its size.
    #[cold]
    fn skip(&self, py: Python<'_>, why: Unencoded) -> Result<(), Raised> {
        match why {
            Unencoded::Raised(raised) => return Err(raised),
            Unencoded::TooLarge => {}
            Unencoded::Unstorable(reason) => {
                if let Ok(mut last) = self.unstorable.try_lock() {
                    *last = Some(reason);
                }
                self.count(py, Count::Unstorable)?;
            }
        }
        self.count(py, Count::Skip)
    }

    fn count(&self, py: Python<'_>, count: Count) -> Result<(), Raised> {
        if self.handle.with(py, |region| region.count(count)).is_none() {
            match self.region(py)? {
                Some(region) => region.count(count),
                None => self.handle.tallies().count(count),
            }
        }
        Ok(())
    }

    /// Writes a key into `scratch`. False if it has no bytes.
    fn encode(&self, py: Python<'_>, parts: &Parts<'_, '_>, scratch: &mut Scratch) -> Result<bool, Raised> {
        match encoding::encode_key(py, parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            Ok(()) => Ok(true),
            Err(Unencoded::Raised(raised)) => Err(raised),
            Err(Unencoded::TooLarge | Unencoded::Unstorable(_)) => Ok(false),
        }
    }

    /// Does what needs a shard: at once if it can be had at once, else waiting without the GIL.
    fn attempt<R: Send>(
        &self,
        py: Python<'_>,
        region: &Region,
        act: impl Fn(Duration) -> Result<R, GaveUp> + Sync,
    ) -> Result<R, GaveUp> {
        if let Ok(done) = act(Duration::ZERO) {
            self.handle.note(region, true);
            return Ok(done);
        }
        if self.handle.leave_if_outside(py, region) {
            return Err(GaveUp);
        }
        ffi::detached(py, || {
            let done = act(BUDGET);
            self.handle.note(region, done.is_ok());
            done
        })
    }

    /// The region, opened if it is not; `None` if there can be none.
    fn region(&self, py: Python<'_>) -> PyResult<Option<Arc<Region>>> {
        if let Some(region) = self.handle.region(py) {
            return Ok(Some(region));
        }
        if self.handle.is_off() {
            return Ok(None);
        }
        let (region, notice) = ffi::detached(py, || self.handle.renew());
        let region = region.map(|region| self.handle.settle(py, region));
        if let Some(notice) = notice {
            self.warn_of(py, &notice)?;
        }
        Ok(region)
    }

    /// The same, and if somebody has removed the file or put another one in its place, the new one.
    fn region_in_place(&self, py: Python<'_>) -> PyResult<Option<Arc<Region>>> {
        match self.region(py)? {
            Some(region) if !region.is_in_place() => {
                ffi::detached(py, || region.retire().is_ok());
                self.region(py)
            }
            region => Ok(region),
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.clock.as_ref().map_or(0, Clock::now)
    }

    fn warn_of(&self, py: Python<'_>, notice: &Notice) -> PyResult<()> {
        self.warn(py, &notice.to_string())
    }

    fn warn(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        let text = format!("{}: {text}", self.label).replace('\0', "\\0");
        let text = CString::new(text).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<SharedCacheWarning>(), &text, 1)
    }
}

/// What the user can do about a function that has no identity.
fn remedy(function: &Bound<'_, PyAny>, naming: &Naming) -> PyResult<&'static str> {
    Ok(match (&naming.name, &naming.version) {
        (None, None) => match identity::identify(function, Some(""))? {
            // It lacks a place of its own only. An edit of its code is seen under a name, too.
            Identified::Stable(_) => "pass name= to share them",
            Identified::Unstable(_) => {
                "pass name= and version= to share them, and another version= whenever the code changes"
            }
        },
        (None, Some(_)) => "pass name=, too, to share them, and another version= whenever the code changes",
        (Some(_), _) => "pass version=, too, to share them, and another one whenever the code changes",
    })
}

/// What tells a function's region from those of other functions, and of other ways to make keys of the same arguments.
fn digest(identity: &Identity, naming: &Naming, flavour: Flavour, is_timed: bool) -> u128 {
    let mut bytes = identity.digest.to_le_bytes().to_vec();
    bytes.push(flavour as u8);
    bytes.extend(codec::FORMAT.to_le_bytes());
    // Where clocks do not show the same time, entries are not shared.
    bytes.extend(if is_timed { region::clock_space() } else { 0 }.to_le_bytes());
    match &naming.version {
        None => bytes.push(0),
        Some(Version::Number(number)) => {
            bytes.push(1);
            bytes.extend(number.to_le_bytes());
        }
        Some(Version::Text(text)) => {
            bytes.push(2);
            bytes.extend(text.as_bytes());
        }
    }
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// `shared_regions`: the regions in the folder that functions decorated now would use.
pub(crate) fn regions(py: Python<'_>, removes_unused: bool) -> PyResult<Bound<'_, PyAny>> {
    let location = Location::find();
    let seen = ffi::detached(py, || region::list(&location, removes_unused));
    let seen = seen.map_err(|error| exception::<PyOSError>(&error.to_string()))?;
    let kind = info::shared_region_type(py)?;
    let show = |seen: region::Seen| {
        kind.call1((
            seen.purpose.label,
            seen.path.into_os_string(),
            seen.bytes,
            seen.entries,
            seen.purpose.parameters.max_size,
            seen.counts.hits,
            seen.counts.misses,
            seen.processes,
        ))
    };
    let shown: Vec<_> = seen.into_iter().map(show).collect::<PyResult<_>>()?;
    Ok(PyList::new(py, shown)?.into_any())
}
