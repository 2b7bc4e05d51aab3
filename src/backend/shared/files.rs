//! The file of a region: made whole before anybody sees it, checked before anything in it is read, never changed in length.
//!
//! A file is made under a temporary name and renamed when it is complete. What is found damaged is removed, never repaired in
//! place, since others may still use it: they keep theirs, and the next to open the name gets a new one.

use super::directory::Directory;
use super::error::{Error, Reason};
use super::facts::{FILE_MODE, Facts, Identity};
use super::map::Map;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchmod, flock, ftruncate, openat, renameat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// How the name of each region ends.
pub const SUFFIX: &str = ".wc";

/// How the name of a file that is being made begins.
const TEMPORARY: &str = "tmp-";

/// After so many seconds a temporary file is removed even if its creator seems to live.
const STALE_SECONDS: i64 = 60;

/// The most bytes of a name, well below what file systems take.
const LONGEST_NAME: usize = 200;

/// So many bytes are allocated at a time: 0.2 ms, after which a signal may interrupt and nothing is lost.
const STEP: u64 = 1 << 20;

/// How long a region's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Of the file and of its map, for ever.
    pub len: usize,
    /// How many of those, from the first on, have room on the file system from the beginning. No other may be touched before
    /// [`RegionFile::extend`] has made room.
    pub allocated: usize,
}

impl Size {
    /// Of a file whose room is all allocated from the beginning.
    pub fn whole(len: usize) -> Self {
        Self { len, allocated: len }
    }
}

/// Where an opened region came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Found,
    /// There was none.
    Created,
    /// What was there was damaged, in this way, and was removed.
    Replaced(Reason),
}

/// A region: its map, and its file for as long as that is needed to extend it.
#[derive(Debug)]
pub struct Opened {
    /// Its bytes.
    pub map: Map,
    /// Its file. The map lives without.
    pub file: RegionFile,
    /// Where it came from.
    pub origin: Origin,
}

/// The open file of a region.
#[derive(Debug)]
pub struct RegionFile {
    /// Always there; taken out by `drop` alone.
    fd: Option<OwnedFd>,
    identity: Identity,
}

impl RegionFile {
    fn new(fd: OwnedFd, identity: Identity) -> Self {
        Self { fd: Some(fd), identity }
    }

    /// Which file it is, whatever its name.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The descriptor, unless the program has closed it behind our back and it stands for something else.
    fn intact(&self) -> Result<&OwnedFd, Errno> {
        self.fd.as_ref().filter(|fd| Identity::of(fd) == Ok(self.identity)).ok_or(Errno::BADF)
    }

    /// Makes room for the bytes from `from` to `to`, which nobody uses yet: they are zeros afterwards. Without room for all
    /// of them the error is [`Errno::NOSPC`], and some may have it.
    pub fn extend(&self, from: usize, to: usize) -> Result<(), Errno> {
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
            // The number is somebody else's by now.
            let _ = fd.into_raw_fd();
        }
    }
}

/// Opens the region of this name, of exactly this size, whose content `verify` accepts. If there is none, or a damaged one, a
/// new one is made: `initialise` fills in zeros that no other process sees before it returns.
pub fn open(
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
pub(super) fn open_any(
    directory: &Directory,
    name: &str,
    size: Size,
    verify: impl Fn(&Map) -> bool,
    initialise: impl Fn(&Map),
) -> Result<Opened, Error> {
    if let Found::Sound(map, file) = look(directory, name, size.len, &verify)? {
        return Ok(Opened { map, file, origin: Origin::Found });
    }
    let _lock = directory.lock()?;
    sweep(directory);
    let mut origin = Origin::Created;
    // Once, unless somebody has removed the lock's file or a temporary one.
    for _ in 0..4 {
        match look(directory, name, size.len, &verify)? {
            Found::Sound(map, file) => return Ok(Opened { map, file, origin: Origin::Found }),
            Found::Nothing => {}
            Found::Damaged(reason) => {
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
pub fn inspect(
    directory: &Directory,
    name: &str,
    head: usize,
    len: impl Fn(&Map) -> Option<usize>,
) -> Result<Option<(Map, Identity)>, Error> {
    let Ok(facts) = Facts::of_name(directory.as_fd(), name) else { return Ok(None) };
    let Ok(found) = usize::try_from(facts.len) else { return Ok(None) };
    if found < head {
        return Ok(None);
    }
    let is_sound = |map: &Map| len(map) == Some(found);
    match look(directory, name, found, is_sound)? {
        Found::Sound(map, file) => Ok(Some((map, file.identity()))),
        Found::Damaged(_) | Found::Nothing => Ok(None),
    }
}

/// The file of this name once more, if it is still this one: to make room in it.
pub fn reopen(directory: &Directory, name: &str, identity: Identity) -> Result<RegionFile, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| openat(directory, name, flags, Mode::empty()))?;
    if Identity::of(&fd)? == identity { Ok(RegionFile::new(fd, identity)) } else { Err(Errno::STALE) }
}

/// Whether the region of this name is still this file.
pub fn is_still(directory: &Directory, name: &str, identity: Identity) -> bool {
    Facts::of_name(directory.as_fd(), name).is_ok_and(|facts| facts.identity == identity)
}

/// Removes the region of this name; whether there was one. Who has it open keeps it.
pub fn unlink(directory: &Directory, name: &str) -> Result<bool, Error> {
    if !is_region_name(name) {
        return Err(Error::refused(&directory.path_of(name), Reason::Name));
    }
    let _lock = directory.lock()?;
    remove(directory, name)
}

/// Removes the region of this name if it is still this file, and not one that somebody has made in its place; whether it was.
pub fn retire(directory: &Directory, name: &str, identity: Identity) -> Result<bool, Error> {
    let _lock = directory.lock()?;
    match Facts::of_name(directory.as_fd(), name) {
        Ok(facts) if facts.identity == identity => remove(directory, name),
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system("look at", &directory.path_of(name), errno)),
    }
}

/// A region's name and what is known of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The facts, [`Facts::check_file`] not applied.
    pub facts: Facts,
}

/// Every region, by name.
pub fn list(directory: &Directory) -> Result<Vec<Listed>, Error> {
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

/// What has a region's name.
enum Found {
    Sound(Map, RegionFile),
    Damaged(Reason),
    Nothing,
}

fn look(directory: &Directory, name: &str, len: usize, verify: impl Fn(&Map) -> bool) -> Result<Found, Error> {
    let path = || directory.path_of(name);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match retry_on_intr(|| openat(directory, name, flags, Mode::empty())) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(Errno::LOOP | Errno::MLINK) => return Ok(Found::Damaged(Reason::SymbolicLink)),
        // A folder, a socket.
        Err(Errno::ISDIR | Errno::NXIO | Errno::OPNOTSUPP) => return Ok(Found::Damaged(Reason::NotRegular)),
        Err(Errno::ACCESS) => match Facts::of_name(directory.as_fd(), name) {
            Ok(facts) => return Ok(Found::Damaged(Reason::Mode { mode: facts.mode })),
            Err(_) => return Err(Error::system("open", &path(), Errno::ACCESS)),
        },
        Err(errno) => return Err(Error::system("open", &path(), errno)),
    };
    let facts = Facts::of(&fd).map_err(|errno| Error::system("look at", &path(), errno))?;
    if let Err(reason) = facts.check_file(directory.uid()) {
        return Ok(Found::Damaged(reason));
    }
    if facts.len != len as u64 {
        return Ok(Found::Damaged(Reason::Length { len: facts.len, expected: len as u64 }));
    }
    let map = Map::new(fd.as_fd(), len).map_err(|errno| Error::system("map", &path(), errno))?;
    if !verify(&map) {
        return Ok(Found::Damaged(Reason::Content));
    }
    Ok(Found::Sound(map, RegionFile::new(fd, facts.identity)))
}

fn remove(directory: &Directory, name: &str) -> Result<bool, Error> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system("remove", &directory.path_of(name), errno)),
    }
}

/// Makes a file and gives it this name; `None` if the name is taken, or somebody has removed the file, by the time.
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
    let identity = Identity::of(&fd).map_err(|errno| Error::system("look at", &path, errno))?;
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
            // Whatever the umask.
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

/// Renames a file, unless something has the new name. Where the system can't do both at once, the folder's lock keeps others
/// of us out in between.
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

/// Removes what creators left that died before they were done. Called with the folder's lock held.
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
mod tests {
    use super::super::directory::Location;
    use super::super::testing::{self, Actor, NOBODY, mode, place};
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const NAME: &str = "m.f-0123.wc";
    const LEN: usize = 8192;
    const MARK: u64 = 0x1234_5678_9abc_def0;

    fn has_mark(map: &Map) -> bool {
        map.word(0).is_some_and(|word| word.load(Ordering::Acquire) == MARK)
    }

    fn set_mark(map: &Map) {
        map.word(0).expect("a word").store(MARK, Ordering::Release);
    }

    fn open_here(directory: &Directory) -> Opened {
        open(directory, NAME, Size::whole(LEN), has_mark, set_mark).expect("a region")
    }

    fn temporaries(location: &Location) -> usize {
        let entries = fs::read_dir(location.path()).expect("a folder");
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_temporary(&entry.file_name()))).count()
    }

    fn is_temporary(name: &std::ffi::OsStr) -> bool {
        name.to_string_lossy().starts_with(TEMPORARY)
    }

    #[cfg(target_os = "linux")]
    fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").expect("a list").count()
    }

    #[test]
    fn plays_a_role() {
        let Some((role, location)) = testing::role() else { return };
        match role.as_str() {
            "race" => {
                let directory = location.open().expect("a folder");
                testing::say("ready");
                testing::listen();
                let own = u64::from(std::process::id());
                let fill = |map: &Map| {
                    map.word(8).expect("a word").store(own, Ordering::Relaxed);
                    set_mark(map);
                };
                let opened = open(&directory, NAME, Size::whole(LEN), has_mark, fill).expect("a region");
                let creator = opened.map.word(8).expect("a word").load(Ordering::Relaxed);
                testing::say(format_args!("{:?} {creator}", opened.origin));
            }
            "stall" => {
                let stall = |_: &Map| {
                    testing::say("creating");
                    testing::listen();
                };
                drop(open(&location.open().expect("a folder"), NAME, Size::whole(LEN), has_mark, stall));
            }
            "umask" => {
                rustix::process::umask(Mode::from_bits_truncate(0o777));
                let directory = location.open().expect("a folder");
                drop(open_here(&directory));
                assert_eq!(open_here(&directory).origin, Origin::Found);
                testing::say("done");
            }
            "full" => plays_full(&location),
            #[cfg(target_os = "linux")]
            "leak" => {
                let directory = location.open().expect("a folder");
                drop(open_here(&directory));
                let before = descriptors();
                for _ in 0..1000 {
                    drop(open_here(&directory));
                    assert!(unlink(&directory, NAME).expect("no trouble"));
                    drop(location.open().expect("a folder"));
                    drop(list(&directory));
                }
                assert_eq!(descriptors(), before);
                let maps = fs::read_to_string("/proc/self/maps").expect("a list");
                assert_eq!(maps.matches(NAME).count(), 0);
                testing::say("done");
            }
            other => panic!("{other}"),
        }
    }

    /// In a file system of one megabyte and 16 files.
    fn plays_full(location: &Location) {
        let directory = location.open().expect("a folder");
        let path = directory.path_of(NAME);
        let big = Size::whole(4 << 20);
        let error = open(&directory, NAME, big, |_| true, |_| panic!("too early")).map(drop);
        assert_eq!(error, Err(Error::Full { path: path.clone(), bytes: 4 << 20 }));
        assert_eq!((list(&directory), temporaries(location)), (Ok(vec![]), 0));

        let growing = Size { len: 4 << 20, allocated: 4096 };
        let opened = open(&directory, NAME, growing, |_| true, |_| ()).expect("a small region");
        assert_eq!(opened.file.extend(4096, 512 << 10), Ok(()));
        assert_eq!(opened.file.extend(512 << 10, 3 << 20), Err(Errno::NOSPC));
        opened.map.write_bytes(0, &vec![1; 512 << 10]).expect("room");
        drop(opened);

        for number in 0..16 {
            let name = format!("{number}.wc");
            if let Err(error) = open(&directory, &name, Size::whole(8), |_| true, |_| ()) {
                assert_eq!(error, Error::Full { path: directory.path_of(&name), bytes: 8 });
                assert_eq!(temporaries(location), 0);
                return testing::say("done");
            }
        }
        panic!("a file system of 16 files took more");
    }

    #[test]
    fn a_region_is_created_once_and_then_found() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let created = open_here(&directory);
        assert_eq!(created.origin, Origin::Created);
        created.map.word(LEN - 8).expect("a word").store(7, Ordering::Relaxed);
        let found = open_here(&directory);
        assert_eq!((found.origin, found.file.identity()), (Origin::Found, created.file.identity()));
        assert_eq!(found.map.word(LEN - 8).expect("a word").load(Ordering::Relaxed), 7);
        let path = directory.path_of(NAME);
        assert_eq!((mode(&path), fs::metadata(&path).expect("a file").len()), (0o600, LEN as u64));
        let listed = list(&directory).expect("a list");
        assert_eq!(
            listed,
            [Listed { name: NAME.into(), facts: Facts::of_name(directory.as_fd(), NAME).expect("facts") }]
        );
        assert_eq!(temporaries(&location), 0);
    }

    #[test]
    fn a_map_lives_without_its_file_and_its_name() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let Opened { map, file, .. } = open_here(&directory);
        drop(file);
        assert_eq!((unlink(&directory, NAME), unlink(&directory, NAME)), (Ok(true), Ok(false)));
        assert!(has_mark(&map));
        assert_eq!(open_here(&directory).origin, Origin::Created);
    }

    #[test]
    fn retiring_a_region_spares_its_successor() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let first = open_here(&directory);
        assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(true));
        assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(false));
        let second = open_here(&directory);
        assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(false));
        assert_eq!(open_here(&directory).file.identity(), second.file.identity());
    }

    #[test]
    fn a_name_stays_in_its_folder_and_out_of_the_way() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let long = format!("{}.wc", "x".repeat(198));
        for name in ["../f.wc", "/f.wc", ".wc", "", "f", "registry", "tmp-1.wc", "a/b.wc", "nul\0.wc", &long] {
            let refused = Error::refused(&directory.path_of(name), Reason::Name);
            assert_eq!(open(&directory, name, Size::whole(8), |_| true, |_| ()).map(drop), Err(refused.clone()));
            assert_eq!(unlink(&directory, name), Err(refused));
        }
        assert_eq!(fs::read_dir(location.path()).expect("a folder").count(), 0);
    }

    /// Puts something in a region's place, and expects it to be removed and a sound region to be there.
    fn replaces(reason: Reason, damage: impl FnOnce(PathBuf)) {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let before = open_here(&directory);
        damage(directory.path_of(NAME));
        let after = open_here(&directory);
        assert_eq!(after.origin, Origin::Replaced(reason));
        assert_ne!(after.file.identity(), before.file.identity());
        assert_eq!(Facts::of_name(directory.as_fd(), NAME).expect("facts").check_file(directory.uid()), Ok(()));
        assert_eq!(open_here(&directory).file.identity(), after.file.identity());
    }

    #[test]
    fn what_is_no_file_of_ours_alone_is_replaced() {
        let elsewhere = tempfile::tempdir().expect("a folder");
        let target = elsewhere.path().join("target");
        fs::write(&target, "theirs").expect("a file");
        replaces(Reason::SymbolicLink, |path| {
            fs::remove_file(&path).expect("a file");
            symlink(&target, path).expect("a link");
        });
        assert_eq!(fs::read(&target).expect("a file"), b"theirs");
        replaces(Reason::Links { count: 2 }, |path| {
            fs::hard_link(&path, path.with_extension("other")).expect("a link");
        });
        replaces(Reason::NotRegular, |path| {
            fs::remove_file(&path).expect("a file");
            #[cfg(target_os = "linux")]
            rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, FILE_MODE, 0).expect("a pipe");
            #[cfg(not(target_os = "linux"))]
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        });
        replaces(Reason::Mode { mode: 0o640 }, |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("our file");
        });
        if testing::is_root() {
            replaces(Reason::Owner { uid: NOBODY, expected: 0 }, |path| chown(path, Some(NOBODY), None).expect("root"));
        }
    }

    #[test]
    fn a_file_of_another_length_is_replaced() {
        for len in [0, 1, 4096, LEN as u64 - 1, LEN as u64 + 1, 1 << 30] {
            replaces(Reason::Length { len, expected: LEN as u64 }, |path| {
                fs::remove_file(&path).expect("a file");
                let file = File::create(&path).expect("a file");
                file.set_len(len).expect("room");
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our file");
            });
        }
    }

    #[test]
    fn damaged_content_is_replaced_and_who_uses_it_keeps_it() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let before = open_here(&directory);
        before.map.word(0).expect("a word").store(1, Ordering::Relaxed);
        assert_eq!(open_here(&directory).origin, Origin::Replaced(Reason::Content));
        assert_eq!(before.map.word(0).expect("a word").load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_folder_in_a_region_s_place_is_an_error() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        fs::create_dir(directory.path_of(NAME)).expect("a folder");
        let opened = open(&directory, NAME, Size::whole(LEN), has_mark, set_mark).map(drop);
        assert!(matches!(opened, Err(Error::System { action: "remove", .. })), "{opened:?}");
    }

    #[test]
    fn of_eight_threads_one_creates() {
        for _ in 0..20 {
            let (_place, location) = place();
            let (barrier, created) = (Barrier::new(8), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let directory = location.open().expect("a folder");
                        barrier.wait();
                        let opened = open_here(&directory);
                        assert!(has_mark(&opened.map));
                        created.fetch_add(usize::from(opened.origin == Origin::Created), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!((created.into_inner(), temporaries(&location)), (1, 0));
        }
    }

    #[test]
    fn of_eight_processes_one_creates_and_all_see_its_region() {
        let (_place, location) = place();
        let mut actors: Vec<_> = (0..8).map(|_| Actor::play(module_path!(), "race", &location)).collect();
        testing::go(&mut actors);
        let mut lines: Vec<_> = actors.iter_mut().map(Actor::line).collect();
        lines.sort_unstable();
        let (created, creator) = lines[0].split_once(' ').expect("two words");
        assert_eq!(created, "Created");
        assert!(lines[1..].iter().all(|line| line == &format!("Found {creator}")), "{lines:?}");
        assert_eq!(temporaries(&location), 0);
    }

    #[test]
    fn what_a_killed_creator_leaves_is_never_opened_and_removed_by_the_next() {
        let (_place, location) = place();
        let mut creator = Actor::play(module_path!(), "stall", &location);
        assert_eq!(creator.line(), "creating");
        creator.kill();
        let directory = location.open().expect("a folder");
        assert_eq!((list(&directory), temporaries(&location)), (Ok(vec![]), 1));
        assert_eq!(open_here(&directory).origin, Origin::Created);
        assert_eq!(temporaries(&location), 0);
    }

    #[test]
    fn a_temporary_file_goes_when_its_creator_has_or_is_a_minute_late() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let (kept, kept_fd) = Temporary::new(&directory).expect("a file");
        let (late, late_fd) = Temporary::new(&directory).expect("a file");
        let file = File::from(late_fd);
        file.set_modified(SystemTime::now() - Duration::from_secs(62)).expect("our file");
        fs::write(directory.path_of("tmp-dead"), "").expect("a file");
        symlink("nowhere", directory.path_of("tmp-link")).expect("a link");
        drop(open_here(&directory));
        let mut left = names(&directory).expect("names");
        left.retain(|name| name.starts_with(TEMPORARY));
        left.sort_unstable();
        assert_eq!(left, [kept.name.clone(), "tmp-link".into()]);
        assert_eq!(late.publish("late.wc"), Err(Errno::NOENT));
        assert_eq!(kept.publish(NAME), Err(Errno::EXIST));
        assert!(!directory.path_of(&left[0]).exists());
        drop(kept_fd);
    }

    #[test]
    fn an_initialisation_that_panics_leaves_nothing() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let panicked = std::panic::catch_unwind(|| {
            drop(open(&directory, NAME, Size::whole(LEN), has_mark, |_| std::panic::resume_unwind(Box::new(()))));
        });
        assert!(panicked.is_err());
        assert_eq!((list(&directory), temporaries(&location)), (Ok(vec![]), 0));
        assert_eq!(open_here(&directory).origin, Origin::Created);
    }

    #[test]
    fn renaming_to_a_name_that_is_taken_fails_and_changes_nothing() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        fs::write(directory.path_of("from"), "new").expect("a file");
        fs::write(directory.path_of("to"), "old").expect("a file");
        assert_eq!(rename_to_new(&directory, "from", "to"), Err(Errno::EXIST));
        assert_eq!(fs::read(directory.path_of("to")).expect("a file"), b"old");
        assert_eq!(rename_to_new(&directory, "from", "other"), Ok(()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn room_is_taken_when_it_is_asked_for() {
        use std::os::unix::fs::MetadataExt;
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let size = Size { len: 1 << 20, allocated: 8192 };
        let opened = open(&directory, NAME, size, |_| true, |_| ()).expect("a region");
        let facts = || fs::metadata(directory.path_of(NAME)).map(|facts| (facts.len(), facts.blocks() * 512));
        assert_eq!(facts().expect("a file"), (1 << 20, 8192));
        assert_eq!(opened.file.extend(8192, 65536), Ok(()));
        assert_eq!(facts().expect("a file"), (1 << 20, 65536));
        opened.map.write_bytes(65528, &[1; 8]).expect("room");
        assert_eq!(opened.file.extend(65536, (1 << 20) + 1), Err(Errno::INVAL));
        let found = open(&directory, NAME, size, |_| true, |_| ()).expect("a region");
        assert_eq!((found.origin, found.file.extend(0, 1 << 20)), (Origin::Found, Ok(())));
        assert_eq!(opened.map.word(65528).expect("a word").load(Ordering::Relaxed), 0x0101_0101_0101_0101);
        assert_eq!(facts().expect("a file"), (1 << 20, 1 << 20));
    }

    #[test]
    fn zeros_that_are_written_take_room_too() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(20_000).expect("room");
        let fd = OwnedFd::from(file.try_clone().expect("a descriptor"));
        file.write_all_at(&vec![1; 20_000], 0).expect("room");
        assert_eq!(write_zeros(&fd, 5, 9000), Ok(()));
        let mut bytes = vec![0; 20_000];
        file.read_exact_at(&mut bytes, 0).expect("bytes");
        assert_eq!(bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 11_000);
        assert!(bytes[..5] == [1; 5] && bytes[5..9005] == [0; 9000]);
        assert_eq!(file.metadata().expect("a file").len(), 20_000);
    }

    #[test]
    fn a_descriptor_that_the_program_has_given_to_something_else_is_left_alone() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let mut opened = open_here(&directory);
        let other = File::create(directory.path_of("theirs")).expect("a file");
        let fd = opened.file.fd.as_mut().expect("a descriptor");
        rustix::io::dup2(&other, fd).expect("another file");
        let number = std::os::fd::AsRawFd::as_raw_fd(fd);
        assert_eq!(opened.file.extend(0, LEN), Err(Errno::BADF));
        drop(opened);
        if cfg!(target_os = "linux") {
            let still = fs::read_link(format!("/proc/self/fd/{number}")).expect("an open file");
            assert_eq!(still, directory.path_of("theirs"));
        }
    }

    #[test]
    fn no_umask_changes_a_file_s_mode() {
        let (_place, location) = place();
        let mut command = testing::command(module_path!(), "umask", &location);
        if testing::is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut actor = Actor::start(&mut command);
        assert_eq!(actor.line(), "done");
        assert_eq!(mode(&location.path().join(NAME)), 0o600);
        actor.finish();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn no_descriptor_is_left_open() {
        let (_place, location) = place();
        let mut actor = Actor::play(module_path!(), "leak", &location);
        assert_eq!(actor.line(), "done");
        actor.finish();
    }

    /// Needs a mount namespace of its own, which takes root: skipped without.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_file_system_is_an_error_and_leaves_no_file() {
        use std::process::Command;
        let unshare = || Command::new("unshare").args(["-m", "true"]).status();
        if !testing::is_root() || !unshare().is_ok_and(|status| status.success()) {
            return;
        }
        let (place, location) = place();
        let role = testing::command(module_path!(), "full", &location);
        let script = "mount -t tmpfs -o size=1m,nr_inodes=16 none \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(place.path()).arg(role.get_program()).args(role.get_args());
        command.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut actor = Actor::start(&mut command);
        assert_eq!(actor.line(), "done");
        actor.finish();
    }
}
