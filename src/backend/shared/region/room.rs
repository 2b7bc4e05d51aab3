//! Room on the file system, made when a shard first needs it.

use super::layout::RETIRED;
use super::{Backing, Region};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::shard::Room;
use crate::backend::shared::system::files;
use crate::backend::shared::system::map::WORD;
use rustix::io::Errno;
use std::ops::Range;

/// Room for a shard of a region.
pub(super) struct FileRoom<'a> {
    pub(super) region: &'a Region,
    pub(super) number: usize,
}

impl Room for FileRoom<'_> {
    fn extend(&self, words: Range<usize>) -> bool {
        let Region { backing, layout, .. } = self.region;
        let Backing::File { location, name, identity } = backing else { return true };
        let start = layout.start + self.number * layout.stride;
        let Ok(directory) = location.open() else {
            self.region.look_again();
            return false;
        };
        let extended = files::reopen(&directory, name, *identity)
            .and_then(|file| file.extend(start + words.start * WORD, start + words.end * WORD));
        match extended {
            Ok(()) => {}
            // Its name is gone, or another file's: others have left it, or will when they look.
            Err(Errno::NOENT | Errno::STALE) => self.region.header_word(RETIRED).store(1, Ordering::Release),
            Err(_) => self.region.has_lacked_room.store(true, Ordering::Relaxed),
        }
        extended.is_ok()
    }
}
