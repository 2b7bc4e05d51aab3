//! The folder of all regions of one user.
//!
//! Each time it is opened it is checked: a folder, no symbolic link, of this user, open to nobody else, on this machine. What
//! is in it is then opened relative to the descriptor, so that nobody can put another folder in its place in between.

use super::error::{Error, Reason, Trouble};
use super::facts::{FILE_MODE, FOLDER_MODE, Facts, Identity};
use super::fork::{self, Held};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, chmodat, fchmod, flock, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The environment variable with another place for the folder.
pub const VARIABLE: &str = "WARP_CACHE_DIR";

/// The file whose lock is held by who creates or removes a region.
const LOCK: &str = "dir.lock";

/// How long to wait for that lock. Longer than any creation takes; a process that was stopped in one keeps it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a folder may have other permissions than its own: until its creator has undone an unusual umask.
const MODE_PATIENCE: Duration = Duration::from_millis(100);

/// Where the folder is, or is going to be, below what is the process's root now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
    root: Option<Identity>,
}

impl Location {
    /// The place for this user: `WARP_CACHE_DIR` if it is set; else in memory, on Linux; else in the user's temporary folder.
    pub fn find() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self::choose(std::env::var_os(VARIABLE), std::env::var_os("TMPDIR"), uid)
    }

    /// The place that `WARP_CACHE_DIR` asks for.
    pub fn asked() -> Option<Self> {
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
    pub fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // Without a slash at the end, which would make the system follow a symbolic link.
        Self { path: absolute.components().collect(), root: Identity::of_root() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything of this name.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Opens the folder, and makes it before if there is none. Fails if the process has another root by now, below which the path
    /// is another folder's: its files would tell of others than the members of this one.
    pub fn open(&self) -> Result<Directory, Error> {
        if Identity::of_root() != self.root {
            return Err(Error::refused(&self.path, Reason::Root));
        }
        Directory::enter(CWD, &self.path, self.path.clone())
    }
}

/// An open folder, found to be ours alone. It is meant to be opened for an operation and dropped after it: a program that
/// closes descriptors that are not its own, as daemons did, finds none to close.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    uid: u32,
}

impl Directory {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of what has this name in it, for messages.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The user it belongs to, who is the one this process acts for.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Opens a folder in it, and makes that before if there is none.
    pub(super) fn subfolder(&self, name: &str) -> Result<Self, Error> {
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
    pub fn lock(&self) -> Result<DirectoryLock, Error> {
        self.lock_within(LOCK_PATIENCE)
    }

    pub(super) fn lock_within(&self, patience: Duration) -> Result<DirectoryLock, Error> {
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
pub struct DirectoryLock(#[allow(dead_code, reason = "held")] LockFile);

/// A file of no content whose lock this process holds.
#[derive(Debug)]
pub(super) struct LockFile(Held);

impl LockFile {
    /// Takes the lock of the file of this name, which is made if there is none; `None` if somebody else holds it.
    pub(super) fn take(folder: &Directory, name: &str) -> Result<Option<Self>, Trouble> {
        // Several times only where the file is removed between two steps.
        for _ in 0..8 {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let held = match Held::open(|| retry_on_intr(|| openat(folder, name, flags, FILE_MODE))) {
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
    pub(super) fn has_name(&self, folder: &Directory, name: &str) -> bool {
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
/// can't be opened; in between nobody but us can put another file there, if the folder above is ours or sticky.
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

/// What is there instead of a folder that can be opened; its facts if it is one of ours, which may be in a moment.
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
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits, in an integer of any kind")]
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
mod tests {
    use super::super::testing::{self, Actor, NOBODY, mode, place};
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::process::CommandExt;

    fn refusal(location: &Location) -> Reason {
        match location.open() {
            Err(Error::Refused { path, reason }) if path == location.path() => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plays_a_role() {
        let Some((role, location)) = testing::role() else { return };
        match role.as_str() {
            "open" => testing::say(location.open().map_or_else(|error| error.to_string(), |_| "opened".into())),
            "lock" => {
                let _lock = location.open().expect("a folder").lock().expect("its lock");
                testing::say("locked");
                testing::listen();
            }
            umask => {
                let umask = u32::from_str_radix(umask, 8).expect("a umask");
                rustix::process::umask(Mode::from_bits_truncate(umask as _));
                testing::say("ready");
                testing::listen();
                let opened = location.open().and_then(|directory| directory.lock().map(drop));
                testing::say(opened.map_or_else(|error| error.to_string(), |()| "opened".into()));
            }
        }
    }

    #[test]
    fn the_folder_is_where_it_is_asked_for_or_else_the_user_s_own() {
        let choose = |asked: Option<&str>| Location::choose(asked.map(Into::into), Some("/private/T".into()), 501);
        assert_eq!(choose(Some("/srv/cache//./warp/")).path().as_os_str(), "/srv/cache/warp");
        let default = if cfg!(target_os = "linux") { "/dev/shm/warp_cache-501" } else { "/private/T/warp_cache" };
        assert_eq!(choose(None).path(), Path::new(default));
        assert_eq!(choose(Some("")), choose(None));
        assert_eq!(Location::at("cache").path(), std::env::current_dir().expect("a folder").join("cache"));
    }

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_found_again() {
        let (_place, location) = place();
        let first = location.open().expect("a folder");
        assert_eq!(mode(location.path()), 0o700);
        let second = location.open().expect("the same");
        assert_eq!(Facts::of(&first), Facts::of(&second));
        drop(first.subfolder("live").expect("a folder in it"));
        assert_eq!(mode(&location.path().join("live")), 0o700);
        drop(first.lock().expect("its lock"));
        assert_eq!(mode(&location.path().join("dir.lock")), 0o600);
    }

    #[test]
    fn no_umask_changes_the_modes_whoever_comes_first() {
        for umask in ["0", "777", "277"] {
            let (_place, location) = place();
            let mut actors: Vec<_> = (0..4)
                .map(|_| {
                    let mut command = testing::command(module_path!(), umask, &location);
                    if testing::is_root() {
                        command.uid(NOBODY).gid(NOBODY);
                    }
                    Actor::start(&mut command)
                })
                .collect();
            testing::go(&mut actors);
            for actor in &mut actors {
                assert_eq!(actor.line(), "opened", "umask {umask}");
            }
            let lock = location.path().join("dir.lock");
            assert_eq!((mode(location.path()), mode(&lock)), (0o700, 0o600), "umask {umask}");
        }
    }

    #[test]
    fn a_symbolic_link_is_refused_wherever_it_leads_and_however_it_is_spelled() {
        let (place, location) = place();
        symlink(place.path().join("nowhere"), location.path()).expect("a link");
        assert_eq!(refusal(&location), Reason::SymbolicLink);
        let target = place.path().join("nowhere");
        fs::create_dir(&target).expect("a folder");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("our folder");
        assert_eq!(refusal(&location), Reason::SymbolicLink);
        let slash = format!("{}/", location.path().display());
        assert_eq!(refusal(&Location::at(slash)), Reason::SymbolicLink);
        assert_eq!(fs::read_dir(target).expect("a folder").count(), 0);
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let (_place, location) = place();
        fs::write(location.path(), "").expect("a file");
        assert_eq!(refusal(&location), Reason::NotFolder);
    }

    #[test]
    fn a_folder_that_is_open_to_others_is_refused() {
        let (_place, location) = place();
        fs::create_dir(location.path()).expect("a folder");
        for mode in [0o750, 0o707, 0o711, 0o1777] {
            fs::set_permissions(location.path(), fs::Permissions::from_mode(mode)).expect("our folder");
            assert_eq!(refusal(&location), Reason::Mode { mode });
        }
    }

    #[test]
    fn a_folder_that_another_user_has_taken_the_name_of_is_refused() {
        if !testing::is_root() {
            return;
        }
        let (_place, location) = place();
        fs::create_dir(location.path()).expect("a folder");
        fs::set_permissions(location.path(), fs::Permissions::from_mode(0o700)).expect("our folder");
        let mut nobody = testing::command(module_path!(), "open", &location);
        let mut nobody = Actor::start(nobody.uid(NOBODY).gid(NOBODY));
        let path = location.path().display();
        assert_eq!(nobody.line(), format!("{path} is refused: it belongs to user 0, not to user {NOBODY}"));
        chown(location.path(), Some(NOBODY), Some(NOBODY)).expect("root");
        assert_eq!(refusal(&location), Reason::Owner { uid: NOBODY, expected: 0 });
    }

    #[test]
    fn a_folder_above_that_is_missing_or_closed_is_an_error() {
        let (place, _) = place();
        let location = Location::at(place.path().join("missing/regions"));
        assert_eq!(location.open().map(drop), Err(Error::system("make", location.path(), Errno::NOENT)));
    }

    #[test]
    fn one_at_a_time_has_the_lock() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let lock = directory.lock().expect("its lock");
        let path = directory.path_of("dir.lock");
        let patience = Duration::from_millis(20);
        let started = Instant::now();
        assert_eq!(directory.lock_within(patience).map(drop), Err(Error::Busy { path }));
        assert!(started.elapsed() >= patience);
        drop(lock);
        drop(directory.lock_within(Duration::ZERO).expect("the lock"));
    }

    #[test]
    fn a_lock_is_given_back_for_those_too_who_have_the_open_file() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let lock = directory.lock().expect("its lock");
        let copy = lock.0.0.fd().expect("a descriptor").try_clone_to_owned().expect("a copy");
        drop(lock);
        drop(directory.lock_within(Duration::ZERO).expect("the lock"));
        drop(copy);
    }

    #[test]
    fn a_lock_is_free_when_its_holder_is_killed() {
        let (_place, location) = place();
        let mut holder = Actor::play(module_path!(), "lock", &location);
        assert_eq!(holder.line(), "locked");
        let directory = location.open().expect("a folder");
        assert!(directory.lock_within(Duration::ZERO).is_err());
        holder.kill();
        drop(directory.lock_within(Duration::ZERO).expect("the lock"));
    }

    #[test]
    fn a_lock_s_file_that_was_removed_is_made_anew() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        let before = LockFile::take(&directory, "some").expect("no trouble").expect("the lock");
        fs::remove_file(directory.path_of("some")).expect("a file");
        assert!(!before.has_name(&directory, "some"));
        let after = LockFile::take(&directory, "some").expect("no trouble").expect("the lock");
        assert!(after.has_name(&directory, "some") && !before.has_name(&directory, "some"));
    }

    #[test]
    fn a_lock_s_file_is_a_file() {
        let (_place, location) = place();
        let directory = location.open().expect("a folder");
        symlink("elsewhere", directory.path_of("link")).expect("a link");
        fs::create_dir(directory.path_of("folder")).expect("a folder");
        let take = |name| LockFile::take(&directory, name).map(drop);
        assert_eq!(take("link"), Err(Trouble::Refused(Reason::SymbolicLink)));
        assert_eq!(take("folder"), Err(Trouble::Refused(Reason::NotRegular)));
        assert!(!directory.path_of("elsewhere").exists());
    }
}
