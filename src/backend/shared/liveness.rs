//! Who lives.
//!
//! A process that uses a folder is a member of it: for life it holds the lock of `live/<slot>`, and has put a number, its
//! incarnation, into its slot of the file `registry`. What it takes it marks with both, as an [`Owner`]. Whether an owner
//! lives is then asked of the kernel, which drops a lock with its process: if the lock can be had, or the slot has another
//! incarnation, the owner is dead. Where nothing can be learned, an owner counts as alive: that costs waiting, while two
//! writers would cost entries.

use super::atomic::{AtomicU64, Ordering};
use super::boot::BootId;
use super::directory::{Directory, Location, LockFile};
use super::error::{Error, Reason, Trouble};
use super::facts::{Facts, Identity};
use super::files::{self, Size};
use super::fork::{self, PerProcess};
use super::map::{Map, WORD};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many processes can be members of one folder at a time.
pub const SLOTS: u16 = 4096;

/// The folder of the members' lock files.
const LIVE: &str = "live";

/// An incarnation is so wide that it fits a word with the slot.
const INCARNATION_BITS: u32 = 48;
const INCARNATION: u64 = (1 << INCARNATION_BITS) - 1;

/// Who has taken something: a slot and its incarnation in one word, or nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner(u64);

impl Owner {
    /// A word of zeros.
    pub const NOBODY: Self = Self(0);

    fn new(slot: u16, incarnation: u64) -> Self {
        Self((u64::from(slot) + 1) << INCARNATION_BITS | incarnation & INCARNATION)
    }

    /// From a word of shared memory, which may hold anything.
    pub fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As a word of shared memory.
    pub fn word(self) -> u64 {
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
    identity: Identity,
}

impl Registry {
    const NAME: &'static str = "registry";
    /// "WRPCREG" and the layout's number.
    const MAGIC: u64 = u64::from_be_bytes(*b"WRPCREG\x01");
    /// Where the table begins: behind the magic number, the boot id, and room to the end of a line of the cache.
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
pub struct Member {
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
    pub fn register(location: &Location) -> Result<Self, Error> {
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
                // Somebody's, or nothing that can be locked.
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

    /// Which slot it has.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// What tells it from the members that had the slot before: 48 bits, not all zero.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The word to mark with what it takes.
    #[inline]
    pub fn owner(&self) -> Owner {
        Owner::new(self.slot, self.incarnation)
    }

    /// Whether no fork has happened since, as far as has been noticed. One load: for fast paths.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Whether others still see this process as this member: it has not forked from the one that registered, its lock has
    /// not been closed by the program, and neither the lock's file nor the registry has been removed. For slow paths.
    pub fn is_still_registered(&self) -> bool {
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
    pub fn is_alive(&self, owner: Owner) -> bool {
        let Some((slot, incarnation)) = owner.parts() else { return false };
        if owner == self.owner() && self.is_current() && self.process == std::process::id() {
            return true;
        }
        let registered = self.registry.incarnation(slot).map_or(0, |word| word.load(Ordering::Acquire));
        // Zero: somebody has made the registry anew, and the owner is yet to notice.
        if registered != 0 && registered != incarnation {
            return false;
        }
        let live = self.location.open().and_then(|directory| directory.subfolder(LIVE));
        live.map_or(true, |live| probe(&live, &slot.to_string()) != Probe::Free)
    }
}

/// What a try to lock a member's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// Nobody has the lock.
    Free,
    /// Somebody has.
    Locked,
    /// There is no telling.
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

/// A process's membership of a folder, renewed when it is lost: by a fork, or when the program closes what it did not open. A
/// process is one member of a folder, however many of these it has.
#[derive(Clone, Debug)]
pub struct Membership(Location);

/// This process's members, one a folder, as long as anybody has them.
static MEMBERS: PerProcess<Mutex<Vec<Weak<Member>>>> = PerProcess::new(Mutex::default);

impl Membership {
    /// None yet.
    pub fn new(location: Location) -> Self {
        Self(location)
    }

    /// This process's member, as others see it now. Takes some system calls: for slow paths. A fast path keeps the result and
    /// asks [`Member::is_current`].
    pub fn current(&self) -> Result<Arc<Member>, Error> {
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
    pub fn is_alive(&self, owner: Owner) -> bool {
        self.current().map_or(true, |member| member.is_alive(owner))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Actor, NOBODY, mode, place};
    use super::*;
    use rustix::process::Signal;
    use std::fs;
    use std::os::unix::process::CommandExt;

    fn registered(location: &Location) -> Member {
        Member::register(location).expect("a slot")
    }

    /// The owner that another process says it is.
    fn owner(actor: &mut Actor) -> Owner {
        Owner::from_word(actor.line().parse().expect("a word"))
    }

    #[cfg(target_os = "linux")]
    fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").expect("a list").count()
    }

    #[test]
    fn plays_a_role() {
        let Some((role, location)) = testing::role() else { return };
        match role.as_str() {
            "member" => {
                let member = registered(&location);
                testing::say(member.owner().word());
                testing::listen();
            }
            "umask" => {
                rustix::process::umask(Mode::from_bits_truncate(0o777));
                testing::say("ready");
                testing::listen();
                let member = registered(&location);
                testing::say(member.slot());
                testing::listen();
                assert!(member.is_still_registered());
            }
            #[cfg(target_os = "linux")]
            "descriptors" => {
                drop(registered(&location));
                let before = descriptors();
                let member = registered(&location);
                assert_eq!(descriptors(), before + 1);
                for _ in 0..1000 {
                    assert!(member.is_still_registered());
                    assert!(!member.is_alive(Owner::new(9, 1)) || !location.path().join("live/9").exists());
                    drop(registered(&location));
                }
                assert_eq!(descriptors(), before + 1);
                let listed = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().expect("a list");
                assert!(!String::from_utf8_lossy(&listed.stdout).contains("live"));
                drop(member);
                assert_eq!(descriptors(), before);
                testing::say("done");
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_owner_is_one_word_and_a_word_of_anything_is_at_most_a_dead_one() {
        assert_eq!(Owner::new(0, 1).word(), 0x0001_0000_0000_0001);
        assert_eq!(Owner::new(4095, INCARNATION).word(), 0x1000_ffff_ffff_ffff);
        assert_eq!(Owner::new(7, 9).parts(), Some((7, 9)));
        for word in [0, 1, INCARNATION, 1 << INCARNATION_BITS, 0x1001_0000_0000_0001, u64::MAX] {
            assert_eq!(Owner::from_word(word).parts(), None, "{word:#x}");
        }
        let (_place, location) = place();
        let member = registered(&location);
        for word in [0, 1, u64::MAX, 0x1001_0000_0000_0001] {
            assert!(!member.is_alive(Owner::from_word(word)), "{word:#x}");
        }
        assert_eq!(Owner::default(), Owner::NOBODY);
    }

    #[test]
    fn incarnations_follow_each_other_and_are_never_zero() {
        assert_eq!((incarnation_after(1), incarnation_after(INCARNATION - 1)), (2, INCARNATION));
        assert_eq!(incarnation_after(INCARNATION), 1);
        let fresh: Vec<_> = (0..4).map(|_| incarnation_after(0)).collect();
        assert!(fresh.iter().all(|&incarnation| incarnation != 0 && incarnation <= INCARNATION));
        assert!(fresh.iter().any(|&incarnation| incarnation != fresh[0]), "{fresh:?}");
    }

    #[test]
    fn members_take_the_first_free_slot_and_another_incarnation() {
        let (_place, location) = place();
        let (first, second) = (registered(&location), registered(&location));
        assert_eq!((first.slot(), second.slot()), (0, 1));
        let old = first.owner();
        assert!(first.is_alive(second.owner()) && second.is_alive(old) && first.is_alive(old));
        let before = first.incarnation();
        drop(first);
        assert!(!second.is_alive(old));
        let third = registered(&location);
        assert_eq!((third.slot(), third.incarnation()), (0, incarnation_after(before)));
        assert!(second.is_alive(third.owner()) && !second.is_alive(old) && !third.is_alive(old));
        assert!(second.is_still_registered() && third.is_still_registered());
        assert_eq!(registered(&location).slot(), 2);
    }

    #[test]
    fn the_files_of_the_members_are_their_owner_s_alone() {
        let (_place, location) = place();
        let member = registered(&location);
        let at = |name: &str| location.path().join(name);
        assert_eq!(member.slot(), 0);
        assert_eq!((mode(&at("live")), mode(&at("live/0")), mode(&at("registry"))), (0o700, 0o600, 0o600));
        let facts = fs::metadata(at("registry")).expect("a file");
        assert_eq!((facts.len(), fs::metadata(at("live/0")).expect("a file").len()), (64 + 8 * 4096, 0));
        let bytes = fs::read(at("registry")).expect("bytes");
        assert_eq!(bytes[..8], Registry::MAGIC.to_ne_bytes());
        assert_eq!(bytes[8..24], BootId::current().0);
        assert_eq!(bytes[64..72], member.incarnation().to_ne_bytes());
    }

    #[test]
    fn without_a_free_slot_there_is_no_member() {
        let (_place, location) = place();
        let members: Vec<_> = (0..2).map(|_| Member::register_among(&location, 2).expect("a slot")).collect();
        let crowded = Member::register_among(&location, 2).map(drop);
        assert_eq!(crowded, Err(Error::Crowded { path: location.path().join("live") }));
        drop(members);
        drop(Member::register_among(&location, 2).expect("a slot"));
    }

    #[test]
    fn a_slot_whose_file_is_no_file_is_left_out() {
        let (_place, location) = place();
        drop(location.open().and_then(|directory| directory.subfolder(LIVE)).expect("a folder"));
        let live = location.path().join("live");
        fs::create_dir(live.join("0")).expect("a folder");
        std::os::unix::fs::symlink("2", live.join("1")).expect("a link");
        assert_eq!(registered(&location).slot(), 2);
    }

    #[test]
    fn a_killed_member_is_dead_at_once_and_a_stopped_one_lives() {
        let (_place, location) = place();
        let member = registered(&location);
        let mut other = Actor::play(module_path!(), "member", &location);
        let owner = owner(&mut other);
        assert_eq!(owner.parts().map(|(slot, _)| slot), Some(1));
        assert!(member.is_alive(owner));
        other.signal(Signal::STOP);
        assert!(member.is_alive(owner));
        other.signal(Signal::CONT);
        assert!(member.is_alive(owner));
        other.kill();
        assert!(!member.is_alive(owner));
        assert_eq!(registered(&location).slot(), 1);
    }

    #[test]
    fn a_killed_member_that_nobody_waits_for_is_dead() {
        let (_place, location) = place();
        let member = registered(&location);
        let mut other = Actor::play(module_path!(), "member", &location);
        let owner = owner(&mut other);
        other.signal(Signal::STOP);
        other.signal(Signal::KILL);
        // Only the signal's delivery is waited for, not the process.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while member.is_alive(owner) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn where_nothing_can_be_learned_an_owner_lives() {
        let (_place, location) = place();
        let (member, other) = (registered(&location), registered(&location));
        fs::remove_file(location.path().join("live/1")).expect("a file");
        assert!(member.is_alive(other.owner()));
        // The registry says no more who had the slot: its lock does.
        let third = registered(&location);
        assert_eq!(third.slot(), 1);
        member.registry.incarnation(1).expect("a word").store(0, Ordering::Release);
        assert!(member.is_alive(other.owner()));
        drop(third);
        assert!(!member.is_alive(other.owner()));
    }

    #[test]
    fn a_membership_is_one_until_it_is_lost() {
        let (_place, location) = place();
        let membership = Membership::new(location.clone());
        let first = membership.current().expect("a slot");
        assert!(Arc::ptr_eq(&first, &membership.current().expect("a slot")));
        assert!(first.is_current() && membership.is_alive(first.owner()));
        for name in ["live/0", "registry"] {
            let before = membership.current().expect("a slot");
            fs::remove_file(location.path().join(name)).expect("a file");
            assert!(!before.is_still_registered());
            let after = membership.current().expect("a slot");
            assert!(!Arc::ptr_eq(&before, &after) && after.is_still_registered() && after.owner() != before.owner());
        }
        drop(first);
        fs::remove_dir_all(location.path()).expect("our folder");
        let anew = membership.current().expect("a slot");
        assert_eq!((anew.slot(), anew.is_still_registered()), (0, true));
    }

    #[test]
    fn a_slot_that_has_been_given_another_incarnation_is_lost() {
        let (_place, location) = place();
        let member = registered(&location);
        member.registry.incarnation(0).expect("a word").fetch_add(1, Ordering::Release);
        assert!(!member.is_still_registered());
    }

    #[test]
    fn a_registry_of_another_start_of_the_machine_or_none_of_ours_is_made_anew() {
        let (_place, location) = place();
        let before = registered(&location);
        for place in [0, WORD] {
            let word = before.registry.map.word(place).expect("a word");
            word.fetch_xor(1, Ordering::Release);
            let after = registered(&location);
            assert_ne!(after.registry.identity, before.registry.identity);
            assert!(!before.is_still_registered() && after.is_still_registered());
            // Nobody knows the other's incarnation. The lock says that it lives.
            assert!(after.is_alive(before.owner()));
            word.fetch_xor(1, Ordering::Release);
        }
    }

    #[test]
    fn members_of_any_umask_get_slots_of_their_own() {
        let (_place, location) = place();
        let mut actors: Vec<_> = (0..6)
            .map(|_| {
                let mut command = testing::command(module_path!(), "umask", &location);
                if testing::is_root() {
                    command.uid(NOBODY).gid(NOBODY);
                }
                Actor::start(&mut command)
            })
            .collect();
        testing::go(&mut actors);
        let mut slots: Vec<u16> = actors.iter_mut().map(|actor| actor.line().parse().expect("a slot")).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 6);
        let at = |name: String| location.path().join(name);
        assert!(slots.iter().all(|slot| mode(&at(format!("live/{slot}"))) == 0o600));
        assert_eq!((mode(&at("live".into())), mode(&at("registry".into()))), (0o700, 0o600));
        actors.into_iter().for_each(Actor::finish);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_member_keeps_one_descriptor_and_passes_none_on() {
        let (_place, location) = place();
        let mut actor = Actor::play(module_path!(), "descriptors", &location);
        assert_eq!(actor.line(), "done");
        actor.finish();
    }
}
