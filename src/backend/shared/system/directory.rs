//! The folder of all regions of one user.
//!
//! Each time it is opened it is checked: a folder, no symbolic link, of this user, open to nobody else, on this machine. Its
//! files are then opened relative to the descriptor, so that no other user can put another folder in its place in between.

use super::super::error::{Error, Reason, Trouble};
use super::facts::{FILE_MODE, FOLDER_MODE, Facts, FileId};
use super::fork::{self, Descriptor};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, chmodat, fchmod, flock, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The environment variable with another place for the folder.
pub(crate) const VARIABLE: &str = "WARP_CACHE_DIR";

/// The file that a process locks while it creates or removes a region.
const LOCK: &str = "dir.lock";

/// How long to wait for that lock. Longer than any creation takes; a process that was stopped in one keeps it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a folder may have other permissions than its own: until its creator has undone an unusual umask.
const MODE_PATIENCE: Duration = Duration::from_millis(100);

/// The place of the folder, which may not exist yet, below the process's present root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    path: PathBuf,
    root: Option<FileId>,
}

impl Location {
    /// The place for this user: `WARP_CACHE_DIR` if it is set; else in memory, on Linux; else in the user's temporary folder.
    pub(crate) fn find() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self::choose(std::env::var_os(VARIABLE), std::env::var_os("TMPDIR"), uid)
    }

    /// The place that `WARP_CACHE_DIR` asks for.
    pub(crate) fn asked() -> Option<Self> {
        std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(Self::at)
    }

    fn choose(asked: Option<OsString>, temporary: Option<OsString>, uid: u32) -> Self {
        if let Some(asked) = asked.filter(|path| !path.is_empty()) {
            return Self::at(asked);
        }
        let name = format!("warp_cache-{uid}");
        if cfg!(any(target_os = "linux", target_os = "android")) {
            return Self::at(Path::new("/dev/shm").join(name));
        }
        match temporary.filter(|path| !path.is_empty()) {
            Some(temporary) => Self::at(Path::new(&temporary).join("warp_cache")),
            None => Self::at(std::env::temp_dir().join(name)),
        }
    }

    /// The folder of this path, which may not exist yet; the folder above it does.
    pub(crate) fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // Without a slash at the end, which would make the system follow a symbolic link.
        Self { path: absolute.components().collect(), root: FileId::of_root() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything of this name.
    pub(crate) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Opens the folder, and makes it before if there is none. Fails if the process has another root by now, below which the path
    /// is another folder's: its files would tell of others than the members of this one.
    pub(crate) fn open(&self) -> Result<Directory, Error> {
        if FileId::of_root() != self.root {
            return Err(Error::refused(&self.path, Reason::Root));
        }
        Directory::enter(CWD, &self.path, self.path.clone())
    }
}

/// An open folder, found to be ours alone. It is meant to be opened for an operation and dropped after it: a program that
/// closes descriptors that are not its own, as daemons did, finds none to close.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    uid: u32,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file of this name in it, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its owner: the user for whom this process acts.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Opens a folder in it, and makes that before if there is none.
    pub(crate) fn subfolder(&self, name: &str) -> Result<Self, Error> {
        Self::enter(self.fd.as_fd(), Path::new(name), self.path.join(name))
    }

    fn enter(above: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let deadline = Instant::now() + MODE_PATIENCE;
        loop {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let facts = match retry_on_intr(|| openat(above, name, flags, Mode::empty())) {
                Ok(fd) => {
                    let facts = Facts::of(&fd).map_err(|errno| Error::system("look at", &path, errno))?;
                    facts.check_private(uid).map_err(|reason| Error::refused(&path, reason))?;
                    if facts.allows(FOLDER_MODE) {
                        refuse_network(&fd).map_err(|reason| Error::refused(&path, reason))?;
                        return Ok(Self { fd, path, uid });
                    }
                    facts
                }
                Err(Errno::NOENT) => {
                    create(above, name).map_err(|errno| Error::of_room("make", &path, 0, errno))?;
                    continue;
                }
                Err(errno) => why_closed(above, name, uid, errno).map_err(|trouble| trouble.at("open", &path))?,
            };
            if Instant::now() > deadline {
                return Err(if facts.allows(FOLDER_MODE) {
                    Error::system("open", &path, Errno::ACCESS)
                } else {
                    Error::refused(&path, Reason::Mode { mode: facts.mode })
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the right to create and remove files here, for two seconds at most.
    pub(crate) fn lock(&self) -> Result<DirectoryLock, Error> {
        self.lock_within(LOCK_PATIENCE)
    }

    pub(crate) fn lock_within(&self, patience: Duration) -> Result<DirectoryLock, Error> {
        let path = self.path_of(LOCK);
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(50);
        loop {
            match LockFile::take(self, LOCK) {
                Ok(Some(file)) => return Ok(DirectoryLock(file)),
                Ok(None) => {}
                // Its creator is about to undo an unusual umask.
                Err(Trouble::Failed(Errno::ACCESS)) if Instant::now() < deadline => {}
                Err(trouble) => return Err(trouble.at("lock", &path)),
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::Busy { path });
            }
            thread::sleep(pause.min(deadline - now));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The right to create and remove files in a folder, given back when it is dropped.
#[derive(Debug)]
#[must_use = "it is given back when it is dropped"]
pub(crate) struct DirectoryLock(#[allow(dead_code, reason = "held")] LockFile);

/// A file of no content whose lock this process holds.
#[derive(Debug)]
pub(crate) struct LockFile(Descriptor);

impl LockFile {
    /// Takes the lock of the file of this name, which is made if there is none; `None` if another process holds it.
    pub(crate) fn take(folder: &Directory, name: &str) -> Result<Option<Self>, Trouble> {
        // More than once only if the file is removed between two steps.
        for _ in 0..8 {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let held = match Descriptor::open(|| retry_on_intr(|| openat(folder, name, flags, FILE_MODE))) {
                Ok(held) => held,
                Err(Errno::LOOP | Errno::MLINK) => return Err(Trouble::Refused(Reason::SymbolicLink)),
                Err(Errno::ISDIR | Errno::NXIO) => return Err(Trouble::Refused(Reason::NotRegular)),
                Err(errno) => return Err(Trouble::Failed(errno)),
            };
            let Some(fd) = held.fd() else { continue };
            let facts = Facts::of(fd)?;
            if facts.kind != FileType::RegularFile {
                return Err(Trouble::Refused(Reason::NotRegular));
            }
            if facts.uid != folder.uid {
                return Err(Trouble::Refused(Reason::Owner { uid: facts.uid, expected: folder.uid }));
            }
            if !facts.allows(FILE_MODE) || facts.check_private(folder.uid).is_err() {
                fchmod(fd, FILE_MODE)?;
            }
            match retry_on_intr(|| flock(fd, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(Trouble::Failed(errno)),
            }
            let file = Self(held);
            if file.has_name(folder, name) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Whether the lock is still held: the descriptor is open, and the file the one of this name.
    pub(crate) fn has_name(&self, folder: &Directory, name: &str) -> bool {
        self.0.fd().is_some()
            && Facts::of_name(folder.as_fd(), name).is_ok_and(|facts| facts.identity == self.0.identity())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        fork::notice();
        // A child that is about to execute another program has the open file as well: unlock it for both.
        if let Some(fd) = self.0.fd() {
            let _ = flock(fd, FlockOperation::Unlock);
        }
    }
}

/// Makes a folder that its owner may use, whatever the umask. The permissions are changed by name, since without them it
/// can't be opened. In between no other user can put a file there, if the folder above is ours or sticky.
fn create(above: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    match mkdirat(above, name, FOLDER_MODE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let made = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Facts::from_stat(&stat))?;
    if made.kind == FileType::Directory && !made.allows(FOLDER_MODE) {
        chmodat(above, name, FOLDER_MODE, AtFlags::empty())?;
    }
    Ok(())
}

/// The obstacle to opening a folder; its facts if it is a folder of ours, which can be opened in a moment.
fn why_closed(above: BorrowedFd<'_>, name: &Path, uid: u32, errno: Errno) -> Result<Facts, Trouble> {
    if !matches!(errno, Errno::NOTDIR | Errno::LOOP | Errno::MLINK | Errno::ACCESS) {
        return Err(Trouble::Failed(errno));
    }
    let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| Trouble::Failed(errno))?;
    let facts = Facts::from_stat(&stat);
    match facts.kind {
        FileType::Symlink => Err(Trouble::Refused(Reason::SymbolicLink)),
        FileType::Directory => match facts.check_private(uid) {
            Err(reason) => Err(Trouble::Refused(reason)),
            Ok(()) => Ok(facts),
        },
        _ => Err(Trouble::Refused(Reason::NotFolder)),
    }
}

/// File systems whose files another machine may change or whose locks and mappings depend on a program: NFS, SMB (three
/// numbers), FUSE, 9P, Ceph, Lustre.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NETWORK: [u32; 8] =
    [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x6573_5546, 0x0102_1997, 0x00C3_6400, 0x0BD0_0BD0];

#[cfg(any(target_os = "linux", target_os = "android"))]
fn refuse_network(fd: &OwnedFd) -> Result<(), Reason> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "32 bits, in an integer whose kind depends on the system"
    )]
    let is_network = |kind| NETWORK.contains(&(kind as u32));
    match rustix::fs::fstatfs(fd) {
        Ok(system) if is_network(system.f_type) => Err(Reason::Network),
        _ => Ok(()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::unnecessary_wraps)]
fn refuse_network(_: &OwnedFd) -> Result<(), Reason> {
    Ok(())
}

#[cfg(test)]
mod tests;
