//! Entries as bytes: the way from arguments and values to bytes and back, in front of any backend that keeps bytes.
//!
//! A hit of a key and a value of built-in types runs no foreign code and waits for nobody. Everything else (pickles, opening the
//! backend, waiting for it) is the slow path, in which nothing is lent out and, while it waits, the GIL is not held.

use super::encoding::{self, Undecoded, Unencoded};
use super::error::SharedCacheWarning;
use super::ffi::{self, Object, Raised};
use super::info;
use super::key::{CallKey, KeptKey, KeyRules, Parts};
use crate::backend::bytes::{ByteBackend, Caller, Count, Fresh, NotNow, Stored};
use crate::backend::memory::{Lookup, Tally};
use crate::clock::Clock;
use crate::options::Options;
use crate::stats::Stats;
use crate::sync::each_thread;
use pyo3::prelude::*;
use std::borrow::Cow;
use std::ffi::CString;
use std::fmt::Display;
use std::sync::Mutex;

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

    /// The same, with the bytes of a key.
    fn of(py: Python<'_>, key: &[u8]) -> Self {
        let mut scratch = Self::take(py);
        scratch.key.clear();
        scratch.key.extend_from_slice(key);
        scratch
    }

    /// Leaves them for the next call.
    #[inline(always)]
    pub(crate) fn leave(self, py: Python<'_>) {
        if self.key.capacity() + self.entry.capacity() <= Self::LARGEST {
            drop(SPARE.with(py, |spare| std::mem::replace(spare, self)));
        }
    }
}

/// The entries of one function in a backend of bytes.
#[derive(Debug)]
pub(crate) struct Encoded<B> {
    backend: B,
    /// The function's name, for warnings.
    label: String,
    /// There is one if entries expire.
    clock: Option<Clock>,
    rules: KeyRules,
    key_limit: u32,
    value_limit: u32,
    /// Why this process could not store what it could not store last. Nobody waits for it: in a forked process a thread may
    /// have it that is not there.
    unstorable: Mutex<Option<Cow<'static, str>>>,
}

/// An attached thread, which a backend may let wait.
struct Attached<'py>(Python<'py>);

impl Caller for Attached<'_> {
    fn token(&self) -> Python<'_> {
        self.0
    }

    fn wait<R: Send>(&self, body: impl FnOnce() -> R) -> R {
        ffi::detached(self.0, body)
    }
}

impl<B: ByteBackend> Encoded<B> {
    /// The entries in `backend` of the function that warnings call by `label`. `clock` is that of the backend, if entries expire.
    pub(crate) fn of(backend: B, label: String, options: &Options, clock: Option<Clock>, rules: KeyRules) -> Self {
        Self {
            backend,
            label,
            clock,
            rules,
            key_limit: options.max_key_size,
            value_limit: options.max_value_size,
            unstorable: Mutex::new(None),
        }
    }

    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    /// Looks a key up, and counts a hit, and a miss if `tally` says so. Leaves the key's bytes in `scratch`; none where
    /// the key has no bytes, so that nothing is stored under it.
    #[inline(always)]
    pub(crate) fn look_up(
        &self,
        py: Python<'_>,
        parts: &Parts<'_, '_>,
        tally: Tally,
        scratch: &mut Scratch,
    ) -> Result<Lookup<Object>, Raised> {
        if let Ok(true) = encoding::encode_native_key(parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            let now = self.now();
            let Scratch { key, entry } = scratch;
            match self.backend.get(py, key, now, tally, entry) {
                Ok(Lookup::Hit(stored) | Lookup::Stale(stored)) => {
                    return match encoding::decode_native(py, entry.get(stored.start..).unwrap_or_default()) {
                        Some(value) => Ok(Lookup::Hit(value)),
                        None => slowly(py, || self.unpickle(py, tally, scratch, stored))?,
                    };
                }
                Ok(Lookup::Miss { generation }) => return Ok(Lookup::Miss { generation }),
                Err(NotNow) => {}
            }
        }
        slowly(py, || self.look_up_asking(py, parts, tally, scratch))?
    }

    /// Unpickles a value that was found. One that can't be is a miss, which is counted if `tally` says so.
    #[inline(never)]
    fn unpickle(
        &self,
        py: Python<'_>,
        tally: Tally,
        scratch: &Scratch,
        Stored { start, generation }: Stored,
    ) -> Result<Lookup<Object>, Raised> {
        match encoding::decode_value(py, scratch.entry.get(start..).unwrap_or_default()) {
            Ok(value) => Ok(Lookup::Hit(value)),
            Err(Undecoded::Raised(raised)) => Err(raised),
            // Its class is gone, or is another one by now. The next value takes its place.
            Err(Undecoded::Damaged) => {
                self.backend.retract(py, tally);
                Ok(Lookup::Miss { generation })
            }
        }
    }

    /// The same where foreign code must run, or the backend is closed.
    #[cold]
    #[inline(never)]
    fn look_up_asking(
        &self,
        py: Python<'_>,
        parts: &Parts<'_, '_>,
        tally: Tally,
        scratch: &mut Scratch,
    ) -> Result<Lookup<Object>, Raised> {
        match encoding::encode_key(py, parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            Ok(()) => self.look_up_bytes(py, tally, scratch),
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
        let mut scratch = Scratch::of(py, &key.bytes);
        let found = self.look_up_bytes(py, Tally::Again, &mut scratch)?;
        scratch.leave(py);
        Ok(found)
    }

    /// The same for a key whose bytes are in `scratch`.
    fn look_up_bytes(&self, py: Python<'_>, tally: Tally, scratch: &mut Scratch) -> Result<Lookup<Object>, Raised> {
        if scratch.key.is_empty() {
            return Ok(Lookup::Miss { generation: 0 });
        }
        let now = self.now();
        let Scratch { key, entry } = scratch;
        let found = self.open(py, |backend, caller| backend.get_waiting(caller, key, now, tally, entry))?;
        match found {
            Some(Lookup::Hit(stored) | Lookup::Stale(stored)) => self.unpickle(py, tally, scratch, stored),
            Some(Lookup::Miss { generation }) => Ok(Lookup::Miss { generation }),
            None => {
                if tally == Tally::All {
                    self.backend.count_apart(Count::Miss);
                }
                Ok(Lookup::Miss { generation: 0 })
            }
        }
    }

    /// Stores a value under the key in `scratch`, unless it can't be turned into bytes. Raises what is no `Exception`,
    /// and warnings that are errors.
    pub(crate) fn keep(&self, py: Python<'_>, scratch: &mut Scratch, value: &Py<PyAny>) -> Result<(), Raised> {
        self.keep_if(py, scratch, value, None, || true)
    }

    /// The same for a key that its caller keeps, and which was not there at that generation, unless the value is no
    /// longer wanted.
    pub(crate) fn keep_of(
        &self,
        py: Python<'_>,
        key: &KeptKey,
        value: &Py<PyAny>,
        generation: u64,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        let mut scratch = Scratch::of(py, &key.bytes);
        self.keep_if(py, &mut scratch, value, Some(generation), is_wanted)?;
        scratch.leave(py);
        Ok(())
    }

    fn keep_if(
        &self,
        py: Python<'_>,
        scratch: &mut Scratch,
        value: &Py<PyAny>,
        since: Option<u64>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(), Raised> {
        if scratch.key.is_empty() {
            return Ok(());
        }
        if let Err(unencoded) = encoding::encode_value(py, value, self.value_limit, &mut scratch.entry) {
            return self.skip(py, unencoded);
        }
        let fresh = Fresh { key: &scratch.key, value: &scratch.entry, now: self.now(), since };
        // The backend may have closed while the function ran.
        if let Some(Some(notice)) = self.open(py, |backend, caller| backend.put(caller, &fresh, &is_wanted))? {
            self.warn(py, &notice)?;
        }
        Ok(())
    }

    /// Whether a look-up would find a value, which is neither counted nor touched.
    pub(crate) fn contains<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        self.with_bytes(py, key, |backend, caller, key, now| backend.contains(caller, key, now))
    }

    /// Removes the entry of a key, and says whether there was one.
    pub(crate) fn invalidate<K: CallKey>(&self, py: Python<'_>, key: &K) -> Result<bool, Raised> {
        self.with_bytes(py, key, |backend, caller, key, now| backend.remove(caller, key, now))
    }

    /// Removes all entries and resets the counters, for all processes.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.unstorable.try_lock().map(|mut reason| reason.take()));
        self.refresh(py)?;
        // Closed, it has cleared the counts of this process.
        let _ = self.backend.clear(&Attached(py));
        Ok(())
    }

    /// `SharedCacheInfo`.
    pub(crate) fn info<'py>(&self, py: Python<'py>, max_size: Option<usize>) -> PyResult<Bound<'py, PyAny>> {
        self.refresh(py)?;
        let (counts, current_size) = self.backend.info(&Attached(py), self.now());
        let stats = Stats { hits: counts.hits, misses: counts.misses };
        info::shared_cache_info(py, stats, max_size, current_size, counts.skips)
    }

    /// Why this process could not store the last value that it could not store for another reason than size.
    pub(crate) fn unstorable(&self) -> Option<Cow<'static, str>> {
        self.unstorable.try_lock().ok().and_then(|reason| reason.clone())
    }

    /// Counts a call that was answered by the value that another one computed.
    pub(crate) fn count_hit(&self, py: Python<'_>) -> Result<(), Raised> {
        self.count(py, Count::Hit)
    }

    /// Counts a miss that no look-up has counted.
    pub(crate) fn count_miss(&self, py: Python<'_>) -> Result<(), Raised> {
        self.count(py, Count::Miss)
    }

    /// Opens the backend, anew if another process has removed its file or put another in its place.
    pub(crate) fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        match self.backend.refresh(&Attached(py)) {
            Some(notice) => self.warn(py, &notice),
            None => Ok(()),
        }
    }

    /// Warns of the function.
    pub(crate) fn warn(&self, py: Python<'_>, text: &impl Display) -> PyResult<()> {
        let text = format!("{}: {text}", self.label).replace('\0', "\\0");
        let text = CString::new(text).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<SharedCacheWarning>(), &text, 1)
    }

    /// Does `act`, and if the backend is closed opens it and does it once more. `None` if it can't be opened.
    fn open<R>(
        &self,
        py: Python<'_>,
        mut act: impl FnMut(&B, &Attached<'_>) -> Result<R, NotNow>,
    ) -> PyResult<Option<R>> {
        let caller = Attached(py);
        if let Ok(done) = act(&self.backend, &caller) {
            return Ok(Some(done));
        }
        if let Some(notice) = self.backend.open(&caller) {
            self.warn(py, &notice)?;
        }
        Ok(act(&self.backend, &caller).ok())
    }

    /// Does `act` with the bytes of a key and the time. False if the key has no bytes or the backend can't be opened.
    fn with_bytes<K: CallKey>(
        &self,
        py: Python<'_>,
        key: &K,
        act: impl Fn(&B, &Attached<'_>, &[u8], u64) -> Result<bool, NotNow>,
    ) -> Result<bool, Raised> {
        let mut scratch = Scratch::take(py);
        let parts = key.parts(self.rules);
        let done = match encoding::encode_key(py, &parts, self.rules.typed, self.key_limit, &mut scratch.key) {
            Ok(()) => self.open(py, |backend, caller| act(backend, caller, &scratch.key, self.now()))?,
            Err(Unencoded::Raised(raised)) => return Err(raised),
            Err(Unencoded::TooLarge | Unencoded::Unstorable(_)) => None,
        };
        scratch.leave(py);
        Ok(done.unwrap_or(false))
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
        if self.open(py, |backend, caller| backend.count(caller.token(), count))?.is_none() {
            self.backend.count_apart(count);
        }
        Ok(())
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.clock.as_ref().map_or(0, Clock::now)
    }
}

/// Does what is not the work of a hit. pyo3 is told that the thread is attached: else it would not drop exceptions at once.
pub(crate) fn slowly<R>(py: Python<'_>, body: impl FnOnce() -> R) -> Result<R, Raised> {
    ffi::attached(|_| ffi::guarded(py, body))
}
