//! The region that one function uses: opened when it is first needed, left when it is retired, and in this process's memory
//! where there can be no other.

use super::directory::Location;
use super::error::Error;
use super::region::{Purpose, Region};
use crate::sync::{Exclusive, Token};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// After so many stores in a row that could not have a shard in time, the region is retired: an owner of a lock is stuck.
const MOST_GIVE_UPS: u32 = 3;

/// What the user is to know of a function's region, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The values are cached in this process alone.
    Private(Error),
    /// They are not cached at all.
    Off(Error),
    /// Fewer of them are cached than were asked for.
    Full,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(error) => write!(f, "its values are cached in this process only: {error}"),
            Self::Off(error) => write!(f, "its values are not cached: {error}"),
            Self::Full => {
                write!(f, "the file system has no room for all the entries that it may have: older ones go early")
            }
        }
    }
}

/// The region of one function.
#[derive(Debug)]
pub struct Handle {
    /// Where the user wants the file. Else it is where the user of the process that opens it has it: one may decorate, and
    /// another, after a fork, call.
    asked: Option<Location>,
    purpose: Purpose,
    /// Never in a file.
    is_private: bool,
    open: Exclusive<Option<Arc<Region>>>,
    give_ups: AtomicU32,
    has_warned: AtomicBool,
    is_off: AtomicBool,
}

impl Handle {
    /// A region in a file, to be opened when it is needed.
    pub fn new(asked: Option<Location>, purpose: Purpose) -> Self {
        Self {
            asked,
            purpose,
            is_private: false,
            open: Exclusive::new(None),
            give_ups: AtomicU32::new(0),
            has_warned: AtomicBool::new(false),
            is_off: AtomicBool::new(false),
        }
    }

    /// A region in memory that processes share that fork from this one from now on.
    pub fn private(asked: Option<Location>, purpose: Purpose) -> Self {
        let region = Region::private(Some(&asked.clone().unwrap_or_else(Location::find)), &purpose);
        let region = region.ok().filter(Region::attend).map(Arc::new);
        Self { is_private: true, open: Exclusive::new(region), ..Self::new(asked, purpose) }
    }

    fn location(&self) -> Location {
        self.asked.clone().unwrap_or_else(Location::find)
    }

    /// Lends the region, if it is open and may be used. `read` must not run foreign code.
    #[inline(always)]
    pub fn with<R>(&self, token: Token<'_>, read: impl FnOnce(&Region) -> R) -> Option<R> {
        let open = &*self.open.lend(token);
        match open {
            Some(region) if region.is_ready() => Some(read(region)),
            _ => None,
        }
    }

    /// The region, if it is open and may be used.
    pub fn region(&self, token: Token<'_>) -> Option<Arc<Region>> {
        let open = &*self.open.lend(token);
        open.as_ref().filter(|region| region.is_ready()).map(Arc::clone)
    }

    /// The region as it was opened last, which a process may have to attend, or to leave.
    pub fn last(&self, token: Token<'_>) -> Option<Arc<Region>> {
        self.open.lend(token).as_ref().map(Arc::clone)
    }

    /// Opens the region, in a file if there can be one, unless the last one may still be used; `None` if there can be none at all.
    /// May take seconds: not to be called with a lock.
    pub fn renew(&self, last: Option<Arc<Region>>) -> (Option<Arc<Region>>, Option<Notice>) {
        if let Some(last) = last.filter(|last| last.is_current() && last.attend()) {
            return (Some(last), None);
        }
        let location = self.location();
        let opened = if self.is_private { None } else { Some(Region::open(&location, &self.purpose)) };
        let refusal = match opened {
            Some(Ok(region)) if region.attend() => return (Some(Arc::new(region)), None),
            Some(Ok(_)) => Some(Error::Busy { path: location.path().to_path_buf() }),
            Some(Err(error)) => Some(error),
            None => None,
        };
        // Where the folder is not ours, nothing can tell which fork lives: each has its own.
        match Region::private(self.is_private.then_some(&location), &self.purpose) {
            Ok(region) => {
                region.attend();
                (Some(Arc::new(region)), self.once(refusal.map(Notice::Private)))
            }
            Err(error) => {
                self.is_off.store(true, Ordering::Relaxed);
                (None, self.once(Some(Notice::Off(refusal.unwrap_or(error)))))
            }
        }
    }

    /// Whether there can be no region.
    pub fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// Uses a region from now on, unless another one may be used by now, which is returned then.
    pub fn settle(&self, token: Token<'_>, region: Arc<Region>) -> Arc<Region> {
        let before = {
            let open = &mut *self.open.lend(token);
            match open {
                Some(other) if other.is_ready() => return Arc::clone(other),
                _ => open.replace(Arc::clone(&region)),
            }
        };
        // Not while it is lent: unmapping takes time.
        drop(before);
        region
    }

    /// Notes whether a store or a removal could have its shard. If many in a row could not, retires the region. May take
    /// seconds then.
    pub fn note(&self, region: &Region, could: bool) {
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
    pub fn unlink(&self) -> Result<bool, Error> {
        let location = self.location();
        if self.is_private || !location.path().join(self.purpose.file_name()).exists() {
            return Ok(false);
        }
        // Opened, so that those who have it open are told, too.
        Region::open(&location, &self.purpose)?.retire()
    }

    /// What is to be said of a region that may have lacked room.
    pub fn notice_of(&self, region: &Region) -> Option<Notice> {
        if region.has_lacked_room() { self.once(Some(Notice::Full)) } else { None }
    }

    fn once(&self, notice: Option<Notice>) -> Option<Notice> {
        notice.filter(|_| !self.has_warned.swap(true, Ordering::Relaxed))
    }
}
