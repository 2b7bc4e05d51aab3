//! The region that one function uses: opened when it is first needed, left when it is retired, and in this process's memory
//! where there can be no other.

use super::error::Error;
use super::region::{Purpose, Region};
use super::system::directory::Location;
use super::system::fork::PerProcess;
use crate::backend::bytes::Tallies;
use crate::clock::Clock;
use crate::sync::{Published, Token};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// After so many stores in a row that gave up waiting for a lock, the region is retired: the owner of the lock is stuck.
const MOST_GIVE_UPS: u32 = 3;

/// A warning about a function's region. The user gets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The values are cached in this process alone.
    Private(Error),
    /// So they are, and memory is short: no more than so many.
    Few(u64, Error),
    /// They are not cached at all.
    Off(Error),
    /// Fewer of them are cached than were asked for.
    Full,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(error) => write!(f, "its values are cached in this process only: {error}"),
            Self::Few(most, error) => {
                write!(f, "its values are cached in this process only, no more than {most} of them: {error}")
            }
            Self::Off(error) => write!(f, "its values are not cached: {error}"),
            Self::Full => {
                write!(f, "its file cannot grow to hold all the entries that it may have: older ones go early")
            }
        }
    }
}

/// The region of one function.
#[derive(Debug)]
pub(crate) struct Handle {
    /// The folder that the user asked for. `None`: the folder of the user who opens the region, since one user may decorate and
    /// another, after a fork, call.
    asked: Option<Location>,
    purpose: Purpose,
    /// Never in a file.
    is_private: bool,
    /// If it is private, the last one that was made, for this process and those that fork from it. The danger is a fork while a
    /// thread holds the mutex: in the child it is held for ever. So `try_lock` alone is used.
    inherited: Mutex<Option<Arc<Region>>>,
    /// The region in use. A forked process begins without one.
    open: PerProcess<Published<Region>>,
    give_ups: AtomicU32,
    has_warned: AtomicBool,
    is_off: AtomicBool,
    /// Counts of calls while there is no region at all.
    tallies: Tallies,
    /// When to try again to have the region in a file, on the machine's clock; 0: there is no need.
    retry_at: AtomicU64,
    retries: AtomicU32,
}

impl Handle {
    /// How many nanoseconds after the first failure to try again. Each time it is twice as long, up to three quarters of an hour.
    const FIRST_RETRY: u64 = 10_000_000_000;

    /// A region in a file, to be opened when it is needed.
    pub(crate) fn new(asked: Option<Location>, purpose: Purpose) -> Self {
        Self {
            asked,
            purpose,
            is_private: false,
            inherited: Mutex::new(None),
            open: PerProcess::new(Published::empty),
            give_ups: AtomicU32::new(0),
            has_warned: AtomicBool::new(false),
            is_off: AtomicBool::new(false),
            tallies: Tallies::default(),
            retry_at: AtomicU64::new(0),
            retries: AtomicU32::new(0),
        }
    }

    /// A region in memory that processes share that fork from this one from now on.
    pub(crate) fn private(asked: Option<Location>, purpose: Purpose) -> Self {
        let region = Region::private(Some(&asked.clone().unwrap_or_else(Location::find)), &purpose);
        let inherited = Mutex::new(region.ok().map(Arc::new));
        Self { is_private: true, inherited, ..Self::new(asked, purpose) }
    }

    fn location(&self) -> Location {
        self.asked.clone().unwrap_or_else(Location::find)
    }

    /// Lends the region, if it is open and may be used. `read` must not run foreign code.
    #[inline(always)]
    pub(crate) fn with<R>(&self, token: Token<'_>, read: impl FnOnce(&Region) -> R) -> Option<R> {
        self.open.get().read(token, |open| match open {
            Some(region) if region.is_current() => Some(read(region)),
            _ => None,
        })
    }

    /// The region, if it is open and may be used.
    pub(crate) fn region(&self, token: Token<'_>) -> Option<Arc<Region>> {
        self.open.get().read(token, |open| open.filter(|region| region.is_current()).map(Arc::clone))
    }

    /// Opens the region, in a file if there can be one; `None` if there can be none at all. May take seconds: not to be called
    /// with a lock.
    pub(crate) fn renew(&self) -> (Option<Arc<Region>>, Option<Notice>) {
        let inherited = self.inherited.try_lock().ok().and_then(|inherited| inherited.clone());
        if let Some(inherited) = inherited.filter(|region| region.is_current() && region.attend()) {
            let notice = self.notice_of_memory(&inherited, None);
            return (Some(inherited), notice);
        }
        let location = self.location();
        let opened = if self.is_private { None } else { Some(Region::open(&location, &self.purpose)) };
        let refusal = match opened {
            Some(Ok(region)) if region.attend() => {
                self.is_off.store(false, Ordering::Relaxed);
                self.retry_at.store(0, Ordering::Relaxed);
                return (Some(Arc::new(region)), None);
            }
            Some(Ok(_)) => Some(Error::Busy { path: location.path().to_path_buf() }),
            Some(Err(error)) => Some(error),
            None => None,
        };
        if refusal.is_some() {
            self.postpone();
        }
        // In a folder that is not ours, nothing can tell which fork lives: each has a region of its own.
        match Region::private(self.is_private.then_some(&location), &self.purpose) {
            Ok(region) => {
                region.attend();
                let region = Arc::new(region);
                if self.is_private
                    && let Ok(mut inherited) = self.inherited.try_lock()
                {
                    *inherited = Some(Arc::clone(&region));
                }
                self.is_off.store(false, Ordering::Relaxed);
                let notice = self.notice_of_memory(&region, refusal);
                (Some(region), notice)
            }
            Err(error) => {
                self.is_off.store(true, Ordering::Relaxed);
                if refusal.is_none() {
                    self.postpone();
                }
                (None, self.once(Some(Notice::Off(refusal.unwrap_or(error)))))
            }
        }
    }

    /// The warning about a region in memory. `refusal` is the reason why it is in no file.
    fn notice_of_memory(&self, region: &Region, refusal: Option<Error>) -> Option<Notice> {
        let notice = match (region.shortage(), refusal) {
            (None, refusal) => refusal.map(Notice::Private),
            (Some((most, error)), refusal) => {
                let error = refusal.unwrap_or_else(|| error.clone());
                Some(if most == 0 { Notice::Off(error) } else { Notice::Few(most, error) })
            }
        };
        self.once(notice)
    }

    fn postpone(&self) {
        let retries = self.retries.fetch_add(1, Ordering::Relaxed).min(8);
        self.retry_at.store(Clock::Machine.now() + (Self::FIRST_RETRY << retries), Ordering::Relaxed);
    }

    /// Whether it is time to look if the region can be in a file by now.
    pub(crate) fn is_retry_due(&self) -> bool {
        let retry_at = self.retry_at.load(Ordering::Relaxed);
        retry_at != 0 && Clock::Machine.now() >= retry_at
    }

    /// Tries again to have the region in a file. May take seconds.
    pub(crate) fn retry(&self) -> Option<Arc<Region>> {
        self.postpone();
        let region = Region::open(&self.location(), &self.purpose).ok().filter(Region::attend)?;
        self.retry_at.store(0, Ordering::Relaxed);
        Some(Arc::new(region))
    }

    /// Uses another region from now on.
    pub(crate) fn replace(&self, token: Token<'_>, region: &Arc<Region>) {
        drop(self.open.get().replace_if(token, Some(region), |_| true));
    }

    /// Whether there can be no region, and it is not time to look again if there can be one.
    pub(crate) fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed) && !self.is_retry_due()
    }

    /// The counts of this process's calls while there is no region.
    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Uses a region from now on, unless another one may be used by now, which is returned then.
    pub(crate) fn settle(&self, token: Token<'_>, region: Arc<Region>) -> Arc<Region> {
        let is_due = |open: Option<&Arc<Region>>| open.is_none_or(|open| !open.is_current());
        match self.open.get().replace_if(token, Some(&region), is_due) {
            Err(Some(other)) => other,
            // The region that was open before is dropped here, after the loan: unmapping takes time.
            _ => region,
        }
    }

    /// Leaves the region if this process can no longer be a member of it, as when it has become another user's, and says whether
    /// it did: then nothing is wrong with the region itself. Takes some system calls.
    pub(crate) fn leave_if_outside(&self, token: Token<'_>, region: &Region) -> bool {
        if region.attend() {
            return false;
        }
        let is_it = |open: Option<&Arc<Region>>| open.is_some_and(|open| std::ptr::eq(&raw const **open, region));
        drop(self.open.get().replace_if(token, None, is_it));
        true
    }

    /// Notes whether a store or a removal got the lock of its shard. If many in a row could not, retires the region. May take
    /// seconds then.
    pub(crate) fn note(&self, region: &Region, could: bool) {
        if could {
            if self.give_ups.load(Ordering::Relaxed) != 0 {
                self.give_ups.store(0, Ordering::Relaxed);
            }
        } else if self.give_ups.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_GIVE_UPS {
            self.give_ups.store(0, Ordering::Relaxed);
            let _ = region.retire();
        }
    }

    /// Removes the region for all processes. Returns whether there was a file.
    pub(crate) fn unlink(&self) -> Result<bool, Error> {
        let location = self.location();
        if self.is_private || !location.path().join(self.purpose.file_name()).exists() {
            return Ok(false);
        }
        // Opened, so that processes that have it open see that it is retired.
        Region::open(&location, &self.purpose)?.retire()
    }

    /// The warning about a region that may have lacked room.
    pub(crate) fn notice_of(&self, region: &Region) -> Option<Notice> {
        if region.has_lacked_room() { self.once(Some(Notice::Full)) } else { None }
    }

    fn once(&self, notice: Option<Notice>) -> Option<Notice> {
        notice.filter(|_| !self.has_warned.swap(true, Ordering::Relaxed))
    }
}
