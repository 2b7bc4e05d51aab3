//! Memory for when there is no more: what small allocations get where the system's allocator has nothing.
//!
//! Rust's collections have no error for an allocation that fails: the process ends. Whatever may become large asks first and
//! copes. The rest is small and often short-lived: a key of several arguments, what a decorated function is made of, the text
//! of an exception. Instead of the end of the process, such an allocation gets a block from here. As soon as some blocks are
//! taken, memory [`is_short`]: nothing is stored, decorated or begun then, so that blocks are left for what has to go on.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, and the reserve behind it.
#[derive(Debug)]
pub(crate) struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

static SMALL: Pool<128, 16> = Pool::new();
static LARGE: Pool<4096, 1> = Pool::new();

/// How many blocks are taken of either pool.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// So many taken blocks mean that memory is short.
const MANY: usize = 16;

/// A free piece of this size means that memory is no longer short.
const ROOM: Layout = Layout::new::<[u64; 8192]>();

/// Whether memory is so short that nothing more should be begun. One load, as long as it is not.
#[inline(always)]
pub(crate) fn is_short() -> bool {
    TAKEN.load(Ordering::Relaxed) >= MANY && !has_room()
}

/// Whether the system has memory again.
#[cold]
#[inline(never)]
fn has_room() -> bool {
    // SAFETY: the layout is not empty, and what is given back is what was got.
    unsafe {
        // In a box that the compiler sees nothing of: what is not used it would not allocate.
        let room = std::hint::black_box(System.alloc(ROOM));
        if !room.is_null() {
            System.dealloc(room, ROOM);
        }
        !room.is_null()
    }
}

/// 64 blocks of one size for each word of `taken`.
#[repr(C, align(4096))]
struct Pool<const SIZE: usize, const WORDS: usize> {
    blocks: UnsafeCell<[[[u8; SIZE]; 64]; WORDS]>,
    /// A bit for each block: whether somebody has it.
    taken: [AtomicU64; WORDS],
}

// SAFETY: a block belongs to whoever has set its bit; the pool itself never looks into it.
unsafe impl<const SIZE: usize, const WORDS: usize> Sync for Pool<SIZE, WORDS> {}

impl<const SIZE: usize, const WORDS: usize> Pool<SIZE, WORDS> {
    const fn new() -> Self {
        Self { blocks: UnsafeCell::new([[[0; SIZE]; 64]; WORDS]), taken: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// A block that nobody has, aligned to its size. Null if there is none.
    fn take(&self) -> *mut u8 {
        for (place, word) in self.taken.iter().enumerate() {
            let mut taken = word.load(Ordering::Relaxed);
            while taken != u64::MAX {
                let bit = taken.trailing_ones() as usize;
                match word.compare_exchange_weak(taken, taken | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => {
                        TAKEN.fetch_add(1, Ordering::Relaxed);
                        return self.blocks.get().cast::<u8>().wrapping_add((place * 64 + bit) * SIZE);
                    }
                    Err(now) => taken = now,
                }
            }
        }
        null_mut()
    }

    /// The number of a block, if it is one of these.
    #[inline(always)]
    fn number(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.blocks.get().addr());
        (offset < SIZE * 64 * WORDS).then_some(offset / SIZE)
    }

    /// Takes a block back; false if it is none of these.
    #[inline(always)]
    fn give(&self, block: *mut u8) -> bool {
        let Some(number) = self.number(block) else { return false };
        if let Some(word) = self.taken.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::Release);
            TAKEN.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }
}

/// A block for that layout, if the reserve has one.
#[cold]
#[inline(never)]
fn spare(layout: Layout) -> *mut u8 {
    let size = layout.size().max(layout.align());
    let block = if size <= 128 { SMALL.take() } else { null_mut() };
    if block.is_null() && size <= 4096 { LARGE.take() } else { block }
}

#[inline(always)]
fn is_spare(block: *mut u8) -> bool {
    SMALL.number(block).is_some() || LARGE.number(block).is_some()
}

// SAFETY: the system's allocator keeps the trait's promises. A block of the reserve is as large and as aligned as was asked
// for, belongs to one owner until that gives it back, and is told from the system's by its address.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same promises to the system's allocator.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { spare(layout) } else { block }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. A block of the reserve is as large as the layout.
        unsafe {
            let block = System.alloc_zeroed(layout);
            if !block.is_null() {
                return block;
            }
            let block = spare(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !SMALL.give(block) && !LARGE.give(block) {
            // SAFETY: the block is the system's, and the caller says that it is of this layout.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above. The caller says that `size` is not 0 and not too large to be one, and the two blocks are two.
        unsafe {
            let is_spare = is_spare(block);
            if !is_spare {
                let larger = System.realloc(block, layout, size);
                if !larger.is_null() {
                    return larger;
                }
            }
            let wanted = Layout::from_size_align_unchecked(size, layout.align());
            let other = if is_spare { self.alloc(wanted) } else { spare(wanted) };
            if !other.is_null() {
                other.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_out_each_block_once_and_takes_it_back() {
        let pool: Box<Pool<128, 2>> = Box::new(Pool::new());
        let mut blocks: Vec<_> = (0..128).map(|_| pool.take()).collect();
        assert!(pool.take().is_null());
        assert!(blocks.iter().all(|block| !block.is_null() && block.addr().is_multiple_of(128)));
        assert!(!pool.give(blocks[0].wrapping_sub(128)) && !pool.give(blocks[127].wrapping_add(128)));
        let middle = blocks.remove(77);
        assert!(pool.give(middle));
        assert_eq!(pool.take(), middle);
        blocks.push(middle);
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 128);
        assert!(blocks.into_iter().all(|block| pool.give(block)));
        assert!(pool.taken.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_block_is_as_large_and_as_aligned_as_asked_for() {
        for (size, align) in [(1, 1), (128, 128), (129, 1), (8, 256), (4096, 4096)] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let block = spare(layout);
            assert!(is_spare(block) && block.addr().is_multiple_of(align));
            // SAFETY: the block has the layout, and is given back once.
            unsafe {
                block.write_bytes(7, size);
                let moved = ALLOCATOR.realloc(block, layout, size + 1);
                assert!(!is_spare(moved) && *moved == 7 && *moved.add(size - 1) == 7);
                ALLOCATOR.dealloc(moved, Layout::from_size_align(size + 1, align).expect("a layout"));
            }
        }
        assert!(spare(Layout::from_size_align(4097, 1).expect("a layout")).is_null());
        assert!(spare(Layout::from_size_align(1, 8192).expect("a layout")).is_null());
    }

    #[test]
    fn memory_is_not_short_while_the_system_has_some() {
        let layout = Layout::new::<[u8; 100]>();
        let blocks: Vec<_> = (0..MANY).map(|_| spare(layout)).collect();
        assert!(blocks.iter().all(|&block| is_spare(block)) && !is_short());
        // SAFETY: the blocks have the layout, and are given back once.
        blocks.into_iter().for_each(|block| unsafe { ALLOCATOR.dealloc(block, layout) });
    }
}
