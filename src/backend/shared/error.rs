//! Why there is no shared region. Whatever the reason, the caller caches in its own process, and says so once.

use rustix::io::Errno;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why there is no shared region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The file or folder is not to be trusted.
    Refused {
        path: PathBuf,
        /// Its fault.
        reason: Reason,
    },
    /// The file system has no room for so many bytes, or, if they are 0, for another file.
    Full {
        /// The file that was to hold them.
        path: PathBuf,
        /// How many there were to be.
        bytes: u64,
    },
    /// Another process has kept this lock for too long.
    Busy {
        /// The lock's file.
        path: PathBuf,
    },
    /// Every slot of the registry belongs to a living process.
    Crowded {
        /// The folder of their files.
        path: PathBuf,
    },
    /// A call of the system failed.
    System {
        /// The action, in words that follow "cannot".
        action: &'static str,
        path: PathBuf,
        errno: Errno,
    },
}

/// The fault of a file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is a symbolic link.
    SymbolicLink,
    /// It is no folder.
    NotFolder,
    /// It is no regular file.
    NotRegular,
    /// It belongs to another user.
    Owner {
        /// The user it belongs to.
        uid: u32,
        /// The user this process acts for.
        expected: u32,
    },
    /// Others may use it, or its owner may not.
    Mode { mode: u32 },
    /// It has more than one name, or none any more.
    Links {
        /// How many names it has.
        count: u64,
    },
    /// It is longer or shorter than its content.
    Length {
        /// Its length in bytes.
        len: u64,
        /// The only right one.
        expected: u64,
    },
    /// Its content is damaged, or another's.
    Content,
    /// It is on a file system that other machines may change.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "only Linux is asked for the kind of a file system")
    )]
    Network,
    /// Its file system does not keep locks.
    Locks,
    /// It is no name of a region.
    Name,
    /// It is below another root than the process has.
    Root,
}

/// An obstacle to using a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refused(Reason),
    Failed(Errno),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl Trouble {
    /// The error for the file of this path.
    pub(crate) fn at(self, action: &'static str, path: &Path) -> Error {
        match self {
            Self::Refused(reason) => Error::refused(path, reason),
            Self::Failed(errno) => Error::of_room(action, path, 0, errno),
        }
    }
}

impl Error {
    pub(crate) fn system(action: &'static str, path: &Path, errno: Errno) -> Self {
        Self::System { action, path: path.to_path_buf(), errno }
    }

    pub(crate) fn refused(path: &Path, reason: Reason) -> Self {
        Self::Refused { path: path.to_path_buf(), reason }
    }

    /// The error of an operation that takes room: `bytes`, or 0 for an empty file.
    pub(crate) fn of_room(action: &'static str, path: &Path, bytes: u64, errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::Full { path: path.to_path_buf(), bytes },
            _ => Self::system(action, path, errno),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { path, reason } => write!(f, "{} is refused: {reason}", path.display()),
            Self::Full { path, bytes: 0 } => write!(f, "no room for {}", path.display()),
            Self::Full { path, bytes } => write!(f, "no room for the {bytes} bytes of {}", path.display()),
            Self::Busy { path } => write!(f, "another process keeps {} locked", path.display()),
            Self::Crowded { path } => write!(f, "{} has no slot left for another process", path.display()),
            Self::System { action, path, errno } => {
                write!(f, "cannot {action} {}: {}", path.display(), std::io::Error::from(*errno))
            }
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SymbolicLink => write!(f, "it is a symbolic link"),
            Self::NotFolder => write!(f, "it is no folder"),
            Self::NotRegular => write!(f, "it is no regular file"),
            Self::Owner { uid, expected } => write!(f, "it belongs to user {uid}, not to user {expected}"),
            Self::Mode { mode } => write!(f, "its mode is {mode:04o}, and only its owner is to have access"),
            Self::Links { count } => write!(f, "it has {count} names instead of one"),
            Self::Length { len, expected } => write!(f, "it has {len} bytes instead of {expected}"),
            Self::Content => write!(f, "its content is damaged or not ours"),
            Self::Network => write!(f, "it is on a network or user-space file system"),
            Self::Locks => write!(f, "its file system does not keep locks"),
            Self::Name => write!(f, "it is no name of a region"),
            Self::Root => write!(f, "the process has changed its root since it was chosen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_what_and_what_instead() {
        let path = Path::new("/dev/shm/warp_cache-0");
        let owner = Error::refused(path, Reason::Owner { uid: 1000, expected: 0 });
        assert_eq!(owner.to_string(), "/dev/shm/warp_cache-0 is refused: it belongs to user 1000, not to user 0");
        let mode = Error::refused(path, Reason::Mode { mode: 0o755 });
        assert_eq!(
            mode.to_string(),
            "/dev/shm/warp_cache-0 is refused: its mode is 0755, and only its owner is to have access"
        );
        let full = Error::of_room("allocate", path, 4096, Errno::NOSPC);
        assert_eq!(full.to_string(), "no room for the 4096 bytes of /dev/shm/warp_cache-0");
        let other = Error::of_room("allocate", path, 4096, Errno::ROFS);
        assert_eq!(other.to_string(), "cannot allocate /dev/shm/warp_cache-0: Read-only file system (os error 30)");
    }
}
