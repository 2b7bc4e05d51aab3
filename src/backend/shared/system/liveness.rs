//! The living processes of a folder.
//!
//! A process that uses a folder is a member of it: for life it holds the lock of `live/<slot>`, and has put a number, its
//! incarnation, into its slot of the file `registry`. It marks each lock that it takes in shared
//! memory with both, as an [`Owner`]. The kernel drops a file's lock with its process: if that lock is free, or the
//! slot has another incarnation, the owner is dead.
//!
//! The danger is a living owner that is taken for dead: two would write, and entries would be lost. So an owner counts as alive
//! unless the kernel or the registry shows that it is dead; that costs at most waiting.

use super::super::atomic::{AtomicU64, Ordering};
use super::super::error::{Error, Reason, Trouble};
use super::boot::BootId;
use super::directory::{Directory, Location, LockFile};
use super::facts::{Facts, FileId};
use super::files::{self, Size};
use super::fork::{self, PerProcess};
use super::map::{Map, WORD};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many processes can be members of one folder at a time.
pub(crate) const SLOTS: u16 = 4096;

/// The folder of the members' lock files.
const LIVE: &str = "live";

/// An incarnation is so wide that it fits a word with the slot.
const INCARNATION_BITS: u32 = 48;
const INCARNATION: u64 = (1 << INCARNATION_BITS) - 1;

/// The owner of a lock: a slot and its incarnation in one word, or nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner(u64);

impl Owner {
    /// A word of zeros.
    pub(crate) const NOBODY: Self = Self(0);

    fn new(slot: u16, incarnation: u64) -> Self {
        Self((u64::from(slot) + 1) << INCARNATION_BITS | incarnation & INCARNATION)
    }

    /// From a word of shared memory, which may hold anything.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As a word of shared memory.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The slot and the incarnation, if they can be those of a member.
    fn parts(self) -> Option<(u16, u64)> {
        let slot = u16::try_from(self.0 >> INCARNATION_BITS).ok()?.checked_sub(1)?;
        let incarnation = self.0 & INCARNATION;
        (slot < SLOTS && incarnation != 0).then_some((slot, incarnation))
    }
}

/// The incarnation of each slot, the same for all processes.
#[derive(Debug)]
struct Registry {
    map: Map,
    identity: FileId,
}

impl Registry {
    const NAME: &'static str = "registry";
    /// "WRPCREG" and the layout's number.
    const MAGIC: u64 = u64::from_be_bytes(*b"WRPCREG\x01");
    /// The first byte of the table: behind the magic number, the boot id, and room to the end of a line of the cache.
    const TABLE: usize = 64;
    const LEN: usize = Self::TABLE + SLOTS as usize * WORD;

    fn open(directory: &Directory) -> Result<Self, Error> {
        let boot = BootId::current();
        let opened = files::open_any(
            directory,
            Self::NAME,
            Size::whole(Self::LEN),
            |map| Self::is_sound(map, boot),
            |map| Self::initialise(map, boot),
        )?;
        Ok(Self { map: opened.map, identity: opened.file.identity() })
    }

    fn initialise(map: &Map, boot: BootId) {
        let _ = map.write_bytes(WORD, &boot.0);
        if let Some(magic) = map.word(0) {
            magic.store(Self::MAGIC, Ordering::Release);
        }
    }

    fn is_sound(map: &Map, boot: BootId) -> bool {
        let mut made_in = BootId::default();
        map.word(0).is_some_and(|magic| magic.load(Ordering::Acquire) == Self::MAGIC)
            && map.read_bytes(WORD, &mut made_in.0).is_some()
            && boot.agrees(made_in)
    }

    fn incarnation(&self, slot: u16) -> Option<&AtomicU64> {
        self.map.word(Self::TABLE + usize::from(slot) * WORD)
    }
}

/// Another incarnation than the one before, and than all before that.
fn incarnation_after(before: u64) -> u64 {
    // A registry that is made anew begins somewhere else.
    let next = if before == 0 { RandomState::new().hash_one(std::process::id()) } else { before.wrapping_add(1) };
    (next & INCARNATION).max(1)
}

/// This process, as others see it. One descriptor is open for as long.
#[derive(Debug)]
pub(crate) struct Member {
    slot: u16,
    incarnation: u64,
    process: u32,
    generation: u64,
    live: LockFile,
    registry: Registry,
    location: Location,
}

impl Member {
    /// Makes this process a member, in the first slot that is free. A process needs to be one once: see [`Membership`].
    pub(crate) fn register(location: &Location) -> Result<Self, Error> {
        Self::register_among(location, SLOTS)
    }

    fn register_among(location: &Location, slots: u16) -> Result<Self, Error> {
        let directory = location.open()?;
        let live = directory.subfolder(LIVE)?;
        let registry = Registry::open(&directory)?;
        for slot in 0..slots {
            let name = slot.to_string();
            let file = match LockFile::take(&live, &name) {
                Ok(Some(file)) => file,
                // Another member's, or no file that can be locked.
                Ok(None) | Err(Trouble::Refused(_) | Trouble::Failed(Errno::ACCESS)) => continue,
                Err(trouble) => return Err(trouble.at("lock", &live.path_of(&name))),
            };
            if probe(&live, &name) == Probe::Free {
                return Err(Error::refused(&live.path_of(&name), Reason::Locks));
            }
            let Some(word) = registry.incarnation(slot) else { continue };
            let incarnation = incarnation_after(word.load(Ordering::Acquire) & INCARNATION);
            word.store(incarnation, Ordering::Release);
            return Ok(Self {
                slot,
                incarnation,
                process: std::process::id(),
                generation: fork::generation(),
                live: file,
                registry,
                location: location.clone(),
            });
        }
        Err(Error::Crowded { path: live.path().to_path_buf() })
    }

    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    /// The word that marks its locks.
    #[inline]
    pub(crate) fn owner(&self) -> Owner {
        Owner::new(self.slot, self.incarnation)
    }

    /// Whether no fork has happened since, as far as has been noticed. One load: for fast paths.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Whether others still see this process as this member: it has not forked from the one that registered, its lock has
    /// not been closed by the program, and neither the lock's file nor the registry has been removed. For slow paths.
    pub(crate) fn is_still_registered(&self) -> bool {
        self.location.open().is_ok_and(|directory| self.is_registered_in(&directory))
    }

    fn is_registered_in(&self, directory: &Directory) -> bool {
        let word = self.registry.incarnation(self.slot);
        self.is_current()
            && self.process == std::process::id()
            && self.live.has_name(directory, &format!("{LIVE}/{}", self.slot))
            && word.is_some_and(|word| word.load(Ordering::Acquire) == self.incarnation)
            && Facts::of_name(directory.as_fd(), Registry::NAME)
                .is_ok_and(|facts| facts.identity == self.registry.identity)
    }

    /// Whether this owner lives, as far as can be known. To be asked of a member that is still registered.
    pub(crate) fn is_alive(&self, owner: Owner) -> bool {
        let Some((slot, incarnation)) = owner.parts() else { return false };
        if owner == self.owner() && self.is_current() && self.process == std::process::id() {
            return true;
        }
        let registered = self.registry.incarnation(slot).map_or(0, |word| word.load(Ordering::Acquire));
        // Zero: the registry was made anew, and the owner is yet to notice.
        if registered != 0 && registered != incarnation {
            return false;
        }
        let live = self.location.open().and_then(|directory| directory.subfolder(LIVE));
        live.map_or(true, |live| probe(&live, &slot.to_string()) != Probe::Free)
    }
}

/// The outcome of a try to lock a member's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// No process has the lock.
    Free,
    /// A process has it.
    Locked,
    /// The file could not be opened or locked.
    Unknown,
}

/// Tries to share the lock of the file of this name, for a moment.
fn probe(live: &Directory, name: &str) -> Probe {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = retry_on_intr(|| openat(live, name, flags, Mode::empty())) else { return Probe::Unknown };
    match retry_on_intr(|| flock(&fd, FlockOperation::NonBlockingLockShared)) {
        Ok(()) => {
            let _ = flock(&fd, FlockOperation::Unlock);
            Probe::Free
        }
        Err(Errno::WOULDBLOCK) => Probe::Locked,
        Err(_) => Probe::Unknown,
    }
}

/// A process's membership of a folder, renewed when it is lost: by a fork, or when the program closes descriptors that
/// are not its own. A process is one member of a folder, however many of these it has.
#[derive(Clone, Debug)]
pub(crate) struct Membership(Location);

/// This process's members, one a folder, as long as anybody has them.
static MEMBERS: PerProcess<Mutex<Vec<Weak<Member>>>> = PerProcess::new(Mutex::default);

impl Membership {
    pub(crate) fn new(location: Location) -> Self {
        Self(location)
    }

    /// This process's member, as others see it now. Takes some system calls: for slow paths. A fast path keeps the result and
    /// asks [`Member::is_current`].
    pub(crate) fn current(&self) -> Result<Arc<Member>, Error> {
        fork::notice();
        let mut members = MEMBERS.get().lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = None;
        members.retain(|member| match member.upgrade() {
            Some(member) if member.location == self.0 => {
                let is_registered = member.is_still_registered();
                known = is_registered.then_some(member);
                is_registered
            }
            member => member.is_some(),
        });
        if let Some(member) = known {
            return Ok(member);
        }
        let fresh = Arc::new(Member::register(&self.0)?);
        members.push(Arc::downgrade(&fresh));
        Ok(fresh)
    }

    /// Whether this owner lives, as far as can be known.
    pub(crate) fn is_alive(&self, owner: Owner) -> bool {
        self.current().map_or(true, |member| member.is_alive(owner))
    }
}

#[cfg(test)]
mod tests;
