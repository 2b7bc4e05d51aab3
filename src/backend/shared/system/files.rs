//! The file of a region: made whole before anybody sees it, checked before anything in it is read, never changed in length.
//!
//! A file is made under a temporary name and renamed when it is complete. A damaged file is removed, never repaired in
//! place, since others may still use it: they keep theirs, and the next to open the name gets a new one.

use super::super::error::{Error, Reason};
use super::directory::Directory;
use super::facts::{FILE_MODE, Facts, FileId};
use super::map::Map;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, ftruncate, openat, renameat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// How the name of each region ends.
pub(crate) const SUFFIX: &str = ".wc";

/// How the name of a file that is being made begins.
const TEMPORARY: &str = "tmp-";

/// After so many seconds a temporary file is removed even if its creator seems to live.
const STALE_SECONDS: i64 = 60;

/// The most bytes of a name, well below the limit of file systems.
const LONGEST_NAME: usize = 200;

/// So many bytes are allocated at a time: 0.2 ms, after which a signal may interrupt and nothing is lost.
const STEP: u64 = 1 << 20;

/// How long a region's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Of the file and of its map, for ever.
    pub(crate) len: usize,
    /// How many of those, from the first on, have room on the file system from the beginning. No other may be touched before
    /// [`RegionFile::extend`] has made room.
    pub(crate) allocated: usize,
}

impl Size {
    /// Of a file whose room is all allocated from the beginning.
    pub(crate) fn whole(len: usize) -> Self {
        Self { len, allocated: len }
    }
}

/// The origin of an opened region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was there.
    Found,
    /// There was none.
    Created,
    /// A file was there, damaged in this way, and was removed.
    Replaced(Reason),
}

/// A region: its map, and its file for as long as that is needed to extend it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) map: Map,
    /// Its file. The map lives without.
    pub(crate) file: RegionFile,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests ask"))]
    pub(crate) origin: Origin,
}

/// The open file of a region.
#[derive(Debug)]
pub(crate) struct RegionFile {
    /// Always there; taken out by `drop` alone.
    fd: Option<OwnedFd>,
    identity: FileId,
}

impl RegionFile {
    fn new(fd: OwnedFd, identity: FileId) -> Self {
        Self { fd: Some(fd), identity }
    }

    /// Its file's identity, whatever the name.
    pub(crate) fn identity(&self) -> FileId {
        self.identity
    }

    /// The descriptor, unless the program has closed it behind our back and it stands for something else.
    fn intact(&self) -> Result<&OwnedFd, Errno> {
        self.fd.as_ref().filter(|fd| FileId::of(fd) == Ok(self.identity)).ok_or(Errno::BADF)
    }

    /// Makes room for the bytes from `from` to `to`, which no process uses yet: they are zeros afterwards. Without room for all
    /// of them the error is [`Errno::NOSPC`], and some may have it.
    pub(crate) fn extend(&self, from: usize, to: usize) -> Result<(), Errno> {
        let fd = self.intact()?;
        if Facts::of(fd)?.len < to as u64 {
            return Err(Errno::INVAL);
        }
        allocate(fd, from as u64, to as u64)
    }
}

impl Drop for RegionFile {
    fn drop(&mut self) {
        if self.intact().is_err()
            && let Some(fd) = self.fd.take()
        {
            // The program has closed it, and the number may be another file's by now: it must not be closed again.
            let _ = fd.into_raw_fd();
        }
    }
}

/// Opens the region of this name, of exactly this size, whose content `verify` accepts. If there is none, or a damaged one, a
/// new one is made: `initialise` fills in zeros that no other process sees before it returns.
pub(crate) fn open(
    directory: &Directory,
    name: &str,
    size: Size,
    verify: impl Fn(&Map) -> bool,
    initialise: impl Fn(&Map),
) -> Result<Opened, Error> {
    if !is_region_name(name) {
        return Err(Error::refused(&directory.path_of(name), Reason::Name));
    }
    open_any(directory, name, size, verify, initialise)
}

/// [`open`] for any name.
pub(crate) fn open_any(
    directory: &Directory,
    name: &str,
    size: Size,
    verify: impl Fn(&Map) -> bool,
    initialise: impl Fn(&Map),
) -> Result<Opened, Error> {
    if let Existing::Sound(map, file) = look(directory, name, size.len, &verify)? {
        return Ok(Opened { map, file, origin: Origin::Found });
    }
    let _lock = directory.lock()?;
    sweep(directory);
    let mut origin = Origin::Created;
    // Once, unless another process has removed the lock's file or a temporary one.
    for _ in 0..4 {
        match look(directory, name, size.len, &verify)? {
            Existing::Sound(map, file) => return Ok(Opened { map, file, origin: Origin::Found }),
            Existing::Nothing => {}
            Existing::Damaged(reason) => {
                remove(directory, name)?;
                origin = Origin::Replaced(reason);
            }
        }
        if let Some((map, file)) = create(directory, name, size, &initialise)? {
            return Ok(Opened { map, file, origin });
        }
    }
    Err(Error::Busy { path: directory.path_of(name) })
}

/// The region of this name as it is, if it is a sound file of the length that `len` finds in its first `head` bytes. Nothing
/// is made, and nothing removed.
pub(crate) fn inspect(
    directory: &Directory,
    name: &str,
    head: usize,
    len: impl Fn(&Map) -> Option<usize>,
) -> Result<Option<(Map, FileId)>, Error> {
    let Ok(facts) = Facts::of_name(directory.as_fd(), name) else { return Ok(None) };
    let Ok(found) = usize::try_from(facts.len) else { return Ok(None) };
    if found < head {
        return Ok(None);
    }
    let is_sound = |map: &Map| len(map) == Some(found);
    match look(directory, name, found, is_sound)? {
        Existing::Sound(map, file) => Ok(Some((map, file.identity()))),
        Existing::Damaged(_) | Existing::Nothing => Ok(None),
    }
}

/// The file of this name once more, if it is still this one: to make room in it.
pub(crate) fn reopen(directory: &Directory, name: &str, identity: FileId) -> Result<RegionFile, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| openat(directory, name, flags, Mode::empty()))?;
    if FileId::of(&fd)? == identity { Ok(RegionFile::new(fd, identity)) } else { Err(Errno::STALE) }
}

/// Whether the region of this name is still this file.
pub(crate) fn is_still(directory: &Directory, name: &str, identity: FileId) -> bool {
    Facts::of_name(directory.as_fd(), name).is_ok_and(|facts| facts.identity == identity)
}

/// Removes the region of this name; whether there was one. Processes that have it open keep it.
#[cfg(test)]
pub(crate) fn unlink(directory: &Directory, name: &str) -> Result<bool, Error> {
    if !is_region_name(name) {
        return Err(Error::refused(&directory.path_of(name), Reason::Name));
    }
    let _lock = directory.lock()?;
    remove(directory, name)
}

/// Removes the region of this name if it is still this file, and not another that was made in its place; whether it did.
pub(crate) fn retire(directory: &Directory, name: &str, identity: FileId) -> Result<bool, Error> {
    let _lock = directory.lock()?;
    match Facts::of_name(directory.as_fd(), name) {
        Ok(facts) if facts.identity == identity => remove(directory, name),
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system("look at", &directory.path_of(name), errno)),
    }
}

/// A region's name and the facts about its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// The facts, [`Facts::check_file`] not applied.
    pub(crate) facts: Facts,
}

/// Every region, by name.
pub(crate) fn list(directory: &Directory) -> Result<Vec<Listed>, Error> {
    let failed = |errno| Error::system("list", directory.path(), errno);
    let mut regions = Vec::new();
    for name in names(directory).map_err(failed)? {
        if is_region_name(&name)
            && let Ok(facts) = Facts::of_name(directory.as_fd(), &name)
        {
            regions.push(Listed { name, facts });
        }
    }
    regions.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(regions)
}

fn is_region_name(name: &str) -> bool {
    name.ends_with(SUFFIX)
        && name.len() <= LONGEST_NAME
        && !name.starts_with(['.', '/'])
        && !name.starts_with(TEMPORARY)
        && !name.contains(['/', '\0'])
}

/// The names in a folder that are text.
fn names(directory: &Directory) -> Result<Vec<String>, Errno> {
    let entries = Dir::read_from(directory)?;
    let name = |entry: rustix::fs::DirEntry| entry.file_name().to_str().map(str::to_owned).ok();
    entries.filter_map(|entry| entry.map(name).transpose()).collect()
}

/// The file that has a region's name.
enum Existing {
    Sound(Map, RegionFile),
    Damaged(Reason),
    Nothing,
}

fn look(directory: &Directory, name: &str, len: usize, verify: impl Fn(&Map) -> bool) -> Result<Existing, Error> {
    let path = || directory.path_of(name);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match retry_on_intr(|| openat(directory, name, flags, Mode::empty())) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Existing::Nothing),
        Err(Errno::LOOP | Errno::MLINK) => return Ok(Existing::Damaged(Reason::SymbolicLink)),
        // A folder, a socket.
        Err(Errno::ISDIR | Errno::NXIO | Errno::OPNOTSUPP) => return Ok(Existing::Damaged(Reason::NotRegular)),
        Err(Errno::ACCESS) => match Facts::of_name(directory.as_fd(), name) {
            Ok(facts) => return Ok(Existing::Damaged(Reason::Mode { mode: facts.mode })),
            Err(_) => return Err(Error::system("open", &path(), Errno::ACCESS)),
        },
        Err(errno) => return Err(Error::system("open", &path(), errno)),
    };
    let facts = Facts::of(&fd).map_err(|errno| Error::system("look at", &path(), errno))?;
    if let Err(reason) = facts.check_file(directory.uid()) {
        return Ok(Existing::Damaged(reason));
    }
    if facts.len != len as u64 {
        return Ok(Existing::Damaged(Reason::Length { len: facts.len, expected: len as u64 }));
    }
    let map = Map::new(fd.as_fd(), len).map_err(|errno| Error::system("map", &path(), errno))?;
    if !verify(&map) {
        return Ok(Existing::Damaged(Reason::Content));
    }
    Ok(Existing::Sound(map, RegionFile::new(fd, facts.identity)))
}

fn remove(directory: &Directory, name: &str) -> Result<bool, Error> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system("remove", &directory.path_of(name), errno)),
    }
}

/// Makes a file and gives it this name; `None` if by then the name is taken or the file removed.
fn create(
    directory: &Directory,
    name: &str,
    size: Size,
    initialise: impl Fn(&Map),
) -> Result<Option<(Map, RegionFile)>, Error> {
    let path = directory.path_of(name);
    let no_room = |errno| Error::of_room("allocate", &path, size.allocated as u64, errno);
    let (temporary, fd) = Temporary::new(directory).map_err(no_room)?;
    retry_on_intr(|| ftruncate(&fd, size.len as u64)).map_err(no_room)?;
    allocate(&fd, 0, size.allocated.min(size.len) as u64).map_err(no_room)?;
    let map = Map::new(fd.as_fd(), size.len).map_err(|errno| Error::system("map", &path, errno))?;
    let identity = FileId::of(&fd).map_err(|errno| Error::system("look at", &path, errno))?;
    initialise(&map);
    match temporary.publish(name) {
        Ok(()) => {
            // A child that was forked meanwhile has the open file as well.
            let _ = flock(&fd, FlockOperation::Unlock);
            Ok(Some((map, RegionFile::new(fd, identity))))
        }
        Err(Errno::EXIST | Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::of_room("name", &path, size.allocated as u64, errno)),
    }
}

/// The name of a file that is being made, removed unless the file is published. The file is locked for as long, so that
/// others see that its maker lives.
struct Temporary<'a> {
    directory: &'a Directory,
    name: String,
    is_published: bool,
}

impl<'a> Temporary<'a> {
    fn new(directory: &'a Directory) -> Result<(Self, OwnedFd), Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let process = std::process::id();
        loop {
            let name = format!("{TEMPORARY}{process}-{:016x}", RandomState::new().hash_one(process));
            let fd = match retry_on_intr(|| openat(directory, &name, flags, FILE_MODE)) {
                Ok(fd) => fd,
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno),
            };
            let temporary = Self { directory, name, is_published: false };
            retry_on_intr(|| flock(&fd, FlockOperation::NonBlockingLockExclusive))?;
            // The umask may have taken bits of the mode.
            fchmod(&fd, FILE_MODE)?;
            return Ok((temporary, fd));
        }
    }

    /// Gives the file its name, unless something has that.
    fn publish(mut self, name: &str) -> Result<(), Errno> {
        rename_to_new(self.directory, &self.name, name)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Renames a file, unless the new name is taken. On a system that cannot do both at once, the folder's lock keeps our other
/// processes out in between.
fn rename_to_new(directory: &Directory, from: &str, to: &str) -> Result<(), Errno> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    match rustix::fs::renameat_with(directory, from, directory, to, rustix::fs::RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        done => return done,
    }
    match Facts::of_name(directory.as_fd(), to) {
        Err(Errno::NOENT) => renameat(directory, from, directory, to),
        Ok(_) => Err(Errno::EXIST),
        Err(errno) => Err(errno),
    }
}

/// Makes room for the bytes from `from` to `to`. A hole that is touched without room ends the process with SIGBUS; here it
/// is an error.
fn allocate(fd: &OwnedFd, from: u64, to: u64) -> Result<(), Errno> {
    let mut at = from;
    while at < to {
        let len = STEP.min(to - at);
        match allocate_step(fd, at, len) {
            Ok(()) => at += len,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn allocate_step(fd: &OwnedFd, at: u64, len: u64) -> Result<(), Errno> {
    match rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::empty(), at, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(fd, at, len),
        done => done,
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allocate_step(fd: &OwnedFd, at: u64, len: u64) -> Result<(), Errno> {
    write_zeros(fd, at, len)
}

fn write_zeros(fd: &OwnedFd, mut at: u64, len: u64) -> Result<(), Errno> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let end = at + len;
    while at < end {
        let chunk = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        match rustix::io::pwrite(fd, &ZEROS[..chunk], at)? {
            0 => return Err(Errno::NOSPC),
            written => at += written as u64,
        }
    }
    Ok(())
}

/// Removes the files of creators that died before they were done. Called with the folder's lock held.
fn sweep(directory: &Directory) {
    for name in names(directory).unwrap_or_default() {
        if name.starts_with(TEMPORARY) && is_orphan(directory, &name) {
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
    }
}

fn is_orphan(directory: &Directory, name: &str) -> bool {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(fd) = openat(directory, name, flags, Mode::empty())
        && flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        return true;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    Facts::of_name(directory.as_fd(), name)
        .is_ok_and(|facts| facts.kind != FileType::Directory && now.saturating_sub(facts.modified) > STALE_SECONDS)
}

#[cfg(test)]
mod tests;
