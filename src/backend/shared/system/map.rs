//! A file's bytes in memory, seen through atomic operations alone.
//!
//! Other processes write the same bytes at any moment, so that a plain load or store would be undefined behaviour, and a
//! reference to the bytes is never made. A read may be torn between words: the caller's protocol, a sequence number
//! and a checksum, decides whether it counts.
//!
//! The length is fixed when the file is mapped. The danger is a file that is made shorter later: a process that touches a page
//! beyond its end dies of SIGBUS. No file is ever made shorter here, and no other user may write one: `directory` sees to that.

#![allow(unsafe_code)]

use super::super::atomic::{AtomicU64, Ordering};
use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The bytes of a word.
pub(crate) const WORD: usize = size_of::<u64>();

/// A file's bytes in memory, shared with every process that maps it.
#[derive(Debug)]
pub(crate) struct Map {
    bytes: MmapRaw,
    len: usize,
}

impl Map {
    /// Maps the first `len` bytes of a file that has at least so many.
    pub(crate) fn new(file: BorrowedFd<'_>, len: usize) -> Result<Self, Errno> {
        let bytes = MmapOptions::new().len(len).map_raw(file.as_raw_fd());
        bytes.map(|bytes| Self { bytes, len }).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }

    /// Zeros that belong to no file that has a name, shared with processes that fork from this one.
    pub(crate) fn inherited(len: usize) -> Result<Self, Errno> {
        let file = nameless()?;
        rustix::fs::ftruncate(&file, len as u64)?;
        Self::new(file.as_fd(), len)
    }

    /// Zeros that belong to no file. A process that forks from this one gets a copy.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Errno> {
        let bytes = MmapOptions::new().len(len).no_reserve_swap().map_anon();
        bytes
            .map(|bytes| Self { bytes: bytes.into(), len })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }

    /// Whether `len` bytes from `offset` on are there, `offset` being a multiple of `align`.
    #[inline(always)]
    fn holds(&self, offset: usize, len: usize, align: usize) -> bool {
        offset.is_multiple_of(align) && offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// The 64 bits at `offset`, a multiple of 8.
    #[inline(always)]
    #[allow(clippy::cast_ptr_alignment, reason = "`holds` sees to it")]
    pub(crate) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        if !self.holds(offset, WORD, align_of::<AtomicU64>()) {
            return None;
        }
        // SAFETY: `holds` says that the word lies inside the mapping, which lives as long as `self`, and that it is aligned,
        // as a mapping begins with a page. Nothing but atomic operations touches a mapping's bytes.
        Some(unsafe { &*self.bytes.as_mut_ptr().add(offset).cast::<AtomicU64>() })
    }

    /// The words that hold `len` bytes from `offset` on, a multiple of 8.
    #[inline(always)]
    #[allow(clippy::cast_ptr_alignment, reason = "`holds` sees to it")]
    pub(crate) fn words(&self, offset: usize, len: usize) -> Option<&[AtomicU64]> {
        let count = len.div_ceil(WORD);
        if !self.holds(offset, count.checked_mul(WORD)?, align_of::<AtomicU64>()) {
            return None;
        }
        // SAFETY: as in `word`, for each of them. An `AtomicU64` may be changed behind a shared reference.
        Some(unsafe { std::slice::from_raw_parts(self.bytes.as_mut_ptr().add(offset).cast::<AtomicU64>(), count) })
    }

    /// Copies the bytes from `offset` on, a multiple of 8, word by word, each word relaxed. `None`, and nothing copied, if
    /// the map ends before the last word does.
    #[inline]
    #[must_use = "None means that nothing was read"]
    pub(crate) fn read_bytes(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        let words = self.words(offset, into.len())?;
        let (whole, rest) = into.as_chunks_mut::<WORD>();
        for (bytes, word) in whole.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        if let Some(last) = words.last().filter(|_| !rest.is_empty()) {
            rest.copy_from_slice(&last.load(Ordering::Relaxed).to_ne_bytes()[..rest.len()]);
        }
        Some(())
    }

    /// Writes bytes from `offset` on, a multiple of 8, word by word, each word relaxed; the last word is filled up with zeros.
    /// `None`, and nothing written, if the map ends before the last word does.
    #[inline]
    #[must_use = "None means that nothing was written"]
    pub(crate) fn write_bytes(&self, offset: usize, from: &[u8]) -> Option<()> {
        let words = self.words(offset, from.len())?;
        let (whole, rest) = from.as_chunks::<WORD>();
        for (bytes, word) in whole.iter().zip(words) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if let Some(last) = words.last().filter(|_| !rest.is_empty()) {
            let mut bytes = [0; WORD];
            bytes[..rest.len()].copy_from_slice(rest);
            last.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        Some(())
    }
}

/// A file in memory that has no name.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn nameless() -> Result<OwnedFd, Errno> {
    rustix::fs::memfd_create("warp_cache", rustix::fs::MemfdFlags::CLOEXEC)
}

/// A file in memory whose name is gone at once.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn nameless() -> Result<OwnedFd, Errno> {
    use rustix::fs::Mode;
    use rustix::shm::{OFlags, open, unlink};
    use std::hash::{BuildHasher, RandomState};
    // Few characters are all that some systems take.
    let name = format!("/wc-{:016x}", RandomState::new().hash_one(std::process::id()));
    let file = open(&name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    unlink(&name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    #[test]
    fn nothing_is_handed_out_beyond_the_end_or_out_of_line() {
        let map = Map::anonymous(4100).expect("memory");
        assert!(map.word(4088).is_some() && map.word(4096).is_none() && map.word(4100).is_none());
        assert!(map.word(4).is_none() && map.word(usize::MAX - 7).is_none());
        assert_eq!(map.read_bytes(4088, &mut [0; 8]), Some(()));
        assert_eq!(map.read_bytes(4096, &mut [0; 1]), None);
        assert_eq!(map.write_bytes(4088, &[0; 9]), None);
        assert_eq!(map.write_bytes(4, &[0; 8]), None);
        assert_eq!(map.words(0, usize::MAX).map(<[_]>::len), None);
        assert_eq!((map.read_bytes(4096, &mut []), map.read_bytes(4104, &mut [])), (Some(()), None));
    }

    #[test]
    fn a_word_is_its_bytes_in_the_machine_s_order_and_the_last_one_is_filled_up() {
        let map = Map::anonymous(64).expect("memory");
        map.word(8).expect("a word").store(u64::MAX, Ordering::Relaxed);
        map.write_bytes(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).expect("room");
        let word = |offset| map.word(offset).expect("a word").load(Ordering::Relaxed).to_ne_bytes();
        assert_eq!((word(0), word(8)), ([1, 2, 3, 4, 5, 6, 7, 8], [9, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn what_is_inherited_is_zeros() {
        let map = Map::inherited(1 << 20).expect("memory");
        let words = map.words(0, 1 << 20).expect("all of it");
        assert!(words.iter().all(|word| word.swap(1, Ordering::Relaxed) == 0));
    }

    #[test]
    fn two_maps_of_a_file_show_the_same_bytes_and_so_does_the_file() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("room");
        let (one, other) = (Map::new(file.as_fd(), 4096).expect("a map"), Map::new(file.as_fd(), 4096).expect("a map"));
        one.word(16).expect("a word").store(0x0102_0304_0506_0708, Ordering::Release);
        assert_eq!(other.word(16).expect("a word").load(Ordering::Acquire), 0x0102_0304_0506_0708);
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 16).expect("bytes");
        assert_eq!(u64::from_ne_bytes(bytes), 0x0102_0304_0506_0708);
        drop(file);
        assert_eq!(one.word(16).map(|_| ()), Some(()));
    }

    proptest! {
        /// A map is an array of bytes, of which a write fills up its last word.
        #[test]
        fn a_map_is_an_array(acts in prop::collection::vec((0_usize..70, prop::collection::vec(any::<u8>(), 0..80)), 1..20)) {
            let map = Map::anonymous(512).expect("memory");
            let mut model = vec![0_u8; 512];
            for (word, bytes) in acts {
                let (start, end) = (word * WORD, word * WORD + bytes.len().next_multiple_of(WORD));
                let written = map.write_bytes(start, &bytes);
                prop_assert_eq!(written.is_some(), end <= 512);
                if written.is_some() {
                    model[start..end].fill(0);
                    model[start..start + bytes.len()].copy_from_slice(&bytes);
                }
                let mut read = vec![0; bytes.len()];
                prop_assert_eq!(map.read_bytes(start, &mut read).is_some(), end <= 512);
                if end <= 512 {
                    prop_assert_eq!(&read[..], &model[start..start + bytes.len()]);
                }
            }
            let mut all = vec![0; 512];
            map.read_bytes(0, &mut all).expect("all of it");
            prop_assert_eq!(all, model);
        }
    }
}
