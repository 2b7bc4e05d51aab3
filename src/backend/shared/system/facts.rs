//! Facts about a file from the kernel, as far as they decide whether the file is to be trusted.

use super::super::error::Reason;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, fstat, statat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// A file's identity, whatever its name. A number is given again only when the file before it is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    /// The file's number there.
    pub(crate) inode: u64,
}

impl FileId {
    /// Of the file that a descriptor stands for.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        Ok(Facts::of(fd)?.identity)
    }

    /// Of this process's root folder, if it can be seen.
    pub(crate) fn of_root() -> Option<Self> {
        Facts::of_name(CWD, "/").ok().map(|facts| facts.identity)
    }
}

/// Facts about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) identity: FileId,
    pub(crate) kind: FileType,
    /// The user it belongs to.
    pub(crate) uid: u32,
    pub(crate) mode: u32,
    /// How many names it has.
    pub(crate) links: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// When it was last written, in seconds of the wall clock.
    pub(crate) modified: i64,
}

/// The rights of a file's owner. All others have none.
pub(crate) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The rights of a folder's owner. All others have none.
pub(crate) const FOLDER_MODE: Mode = Mode::RWXU;

impl Facts {
    /// Of the file that a descriptor stands for.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        fstat(fd).map(|stat| Self::from_stat(&stat))
    }

    /// Of the file of this name in a folder; of a symbolic link itself.
    pub(crate) fn of_name(folder: BorrowedFd<'_>, name: &str) -> Result<Self, Errno> {
        statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Self::from_stat(&stat))
    }

    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, clippy::cast_lossless, clippy::cast_possible_truncation)]
    #[allow(clippy::useless_conversion, reason = "each system has its own integers here")]
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        Self {
            identity: FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 },
            kind: FileType::from_raw_mode(stat.st_mode),
            uid: stat.st_uid,
            mode: stat.st_mode as u32 & 0o7777,
            links: stat.st_nlink as u64,
            len: stat.st_size as u64,
            modified: stat.st_mtime as i64,
        }
    }

    /// Whether its owner has all these rights.
    #[allow(clippy::useless_conversion, reason = "each system has its own integers here")]
    pub(crate) fn allows(&self, mode: Mode) -> bool {
        let wanted = u32::from(mode.as_raw_mode());
        self.mode & wanted == wanted
    }

    /// Refuses a file that belongs to another user than `uid` or is open to one.
    pub(crate) fn check_private(&self, uid: u32) -> Result<(), Reason> {
        if self.uid != uid {
            return Err(Reason::Owner { uid: self.uid, expected: uid });
        }
        if self.mode & 0o077 != 0 {
            return Err(Reason::Mode { mode: self.mode });
        }
        Ok(())
    }

    /// Refuses all but a regular file of this user alone, with one name.
    pub(crate) fn check_file(&self, uid: u32) -> Result<(), Reason> {
        match self.kind {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(Reason::SymbolicLink),
            _ => return Err(Reason::NotRegular),
        }
        self.check_private(uid)?;
        if self.links != 1 {
            return Err(Reason::Links { count: self.links });
        }
        Ok(())
    }
}
