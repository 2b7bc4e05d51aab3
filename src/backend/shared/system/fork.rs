//! Two dangers of a fork: the child inherits descriptors whose locks speak for the parent, and values that other threads of the
//! parent were in the middle of changing. This file keeps both from the child.
//!
//! A lock of `flock` belongs to the open file, which a fork shares. While a child has the descriptor of its parent's lock,
//! the parent seems to live, even after its death. So every such descriptor is held here, in a list, and a hook of
//! `pthread_atfork` closes them in the child. A child that was made without the hook, by a raw `clone`, is found out by its
//! process number when it calls [`notice`].
//!
//! A program that turns itself into a daemon may close every descriptor, ours among them, and open others with the same
//! numbers. No number is used or closed here before `fstat` has said that it still stands for the file it was held for.

#![allow(unsafe_code)]

use super::facts::FileId;
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How many forks this process is away from the first.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The process that holds the descriptors in the list; 0 before there is any.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Set while a descriptor is opened and put into the list, or taken out and closed, and during a fork: a child inherits none
/// that the list lacks.
static GATE: AtomicBool = AtomicBool::new(false);

/// The list's first record. Records are made, used again, and never freed.
static FIRST: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// A descriptor with the file it was opened for.
struct Record {
    /// The descriptor, or one of the next two.
    fd: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
    next: Option<&'static Record>,
}

/// No descriptor: the record is free.
const FREE: RawFd = -1;
/// No descriptor yet.
const TAKEN: RawFd = -2;

/// A number that each child has larger than its parent, for as long as a child is noticed. One load.
#[inline(always)]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Finds out whether this is a child that no hook has told so. One call of the system: for slow paths.
pub(crate) fn notice() {
    let (known, process) = (PROCESS.load(Ordering::Acquire), std::process::id());
    if known != 0
        && known != process
        && PROCESS.compare_exchange(known, process, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    {
        forget_the_parent();
        Gate::leave();
    }
}

/// Closes all descriptors in the list, and makes the parent's values outdated. Allocates nothing and waits for nothing, since a
/// hook after a fork may do neither.
fn forget_the_parent() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    let mut at = first();
    while let Some(record) = at {
        let fd = record.fd.load(Ordering::Acquire);
        if fd >= 0 {
            record.close(fd);
            record.fd.store(FREE, Ordering::Release);
        }
        at = record.next;
    }
}

fn first() -> Option<&'static Record> {
    // SAFETY: the list holds null or records that `Record::take` leaked.
    unsafe { FIRST.load(Ordering::Acquire).as_ref() }
}

impl Record {
    /// A record that is free no more.
    fn take() -> &'static Self {
        let mut at = first();
        while let Some(record) = at {
            if record.fd.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return record;
            }
            at = record.next;
        }
        let (device, inode) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut record = Box::new(Self { fd: AtomicI32::new(TAKEN), device, inode, next: first() });
        loop {
            let before = record.next.map_or(ptr::null_mut(), |next| ptr::from_ref(next).cast_mut());
            let leaked = Box::into_raw(record);
            if FIRST.compare_exchange(before, leaked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // SAFETY: it has just been leaked, and is never freed.
                return unsafe { &*leaked };
            }
            // SAFETY: it came from `into_raw`, and no other thread has seen it.
            record = unsafe { Box::from_raw(leaked) };
            record.next = first();
        }
    }

    /// Whether `fd` stands for the file it was held for.
    fn is_intact(&self, fd: RawFd) -> bool {
        let (device, inode) = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        // SAFETY: the number is passed to `fstat` only, which fails if it stands for nothing.
        let identity = FileId::of(unsafe { BorrowedFd::borrow_raw(fd) });
        identity == Ok(FileId { device, inode })
    }

    fn close(&self, fd: RawFd) {
        if self.is_intact(fd) {
            // SAFETY: it stands for the file in this record, and its `Descriptor` is being dropped or belongs to the parent.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

/// A descriptor that no child keeps.
#[derive(Debug)]
pub(crate) struct Descriptor {
    record: &'static Record,
    generation: u64,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Record").field(&self.fd).finish()
    }
}

impl Descriptor {
    /// Holds the descriptor that `open` returns. No fork happens in between, if it is quick.
    pub(crate) fn open(open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        install();
        let _gate = Gate::enter();
        let fd = open()?;
        let identity = FileId::of(&fd)?;
        let record = Record::take();
        record.device.store(identity.device, Ordering::Relaxed);
        record.inode.store(identity.inode, Ordering::Relaxed);
        record.fd.store(fd.into_raw_fd(), Ordering::Release);
        Ok(Self { record, generation: generation() })
    }

    /// The descriptor; `None` in a child, and once the program has closed it behind our back.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.generation != generation() {
            return None;
        }
        let fd = self.record.fd.load(Ordering::Acquire);
        // SAFETY: it still stands for the file it was held for, and only a drop of `self` closes it.
        (fd >= 0 && self.record.is_intact(fd)).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    pub(crate) fn identity(&self) -> FileId {
        let (device, inode) = (self.record.device.load(Ordering::Relaxed), self.record.inode.load(Ordering::Relaxed));
        FileId { device, inode }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // The danger is a fork in the middle: it copies the descriptors before the memory, so that one closed in between would be
        // open in the child and not listed. The gate keeps forks out.
        let _gate = Gate::enter();
        // In a child the hook has closed it, and the record may be another descriptor's.
        if self.generation == generation() {
            let fd = self.record.fd.load(Ordering::Acquire);
            if fd >= 0 {
                self.record.close(fd);
            }
            self.record.fd.store(FREE, Ordering::Release);
        }
    }
}

/// Keeps forks, openings and closings apart. A thread that waits for too long goes on without it: a fork must not hang, and the
/// price is one descriptor in a child.
struct Gate;

impl Gate {
    /// An opening takes microseconds: so often to look again at once.
    const YIELDS: u32 = 100;
    /// A fork of a large process takes a tenth of a second: so often, after that, to sleep for a tenth of a millisecond.
    const SLEEPS: u32 = 10_000;

    fn enter() -> Self {
        for round in 0..Self::YIELDS + Self::SLEEPS {
            if !GATE.swap(true, Ordering::Acquire) {
                break;
            }
            if round < Self::YIELDS {
                thread::yield_now();
            } else {
                thread::sleep(Duration::from_micros(100));
            }
        }
        Self
    }

    fn leave() {
        GATE.store(false, Ordering::Release);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        Self::leave();
    }
}

extern "C" fn before_fork() {
    std::mem::forget(Gate::enter());
}

extern "C" fn after_fork_in_parent() {
    Gate::leave();
}

extern "C" fn after_fork_in_child() {
    PROCESS.store(std::process::id(), Ordering::Release);
    forget_the_parent();
    Gate::leave();
}

/// Asks for the hooks, once. If there is no memory for them, `notice` is left.
fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        PROCESS.store(std::process::id(), Ordering::Release);
        // SAFETY: the three are functions of this library, which Python never unloads. They touch atomics and descriptors
        // only, as a child of a process with several threads may.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
    }
}

/// A value that each process makes for itself, a forked child included. The parent's is left as it was in the child: a lock
/// in it may belong to a thread that the child does not have.
#[derive(Debug)]
pub(crate) struct PerProcess<T: Send + Sync> {
    made: AtomicPtr<Made<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Made<T> {
    generation: u64,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    /// Nothing yet. `make` may be called by several threads at once: one's value is kept.
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { made: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// This process's own.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        loop {
            let generation = generation();
            let before = self.made.load(Ordering::Acquire);
            // SAFETY: null, or leaked below and freed only when `self` is dropped.
            if let Some(made) = unsafe { before.as_ref() }
                && made.generation == generation
            {
                return &made.value;
            }
            let fresh = Box::into_raw(Box::new(Made { generation, value: (self.make)() }));
            if self.made.compare_exchange(before, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // SAFETY: it came from `into_raw`, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }
}

impl<T: Send + Sync> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let made = *self.made.get_mut();
        // SAFETY: null, or leaked in `get`.
        if unsafe { made.as_ref() }.is_some_and(|made| made.generation == generation()) {
            // SAFETY: it came from `into_raw`, and nothing is borrowed from `self` any more.
            drop(unsafe { Box::from_raw(made) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::sync::Mutex;

    #[test]
    fn a_record_is_used_again() {
        let open = || Descriptor::open(|| Ok(File::open("/dev/null").expect("a file").into())).expect("a descriptor");
        let held: Vec<_> = (0..8).map(|_| open()).collect();
        assert!(held.iter().all(|held| held.fd().is_some_and(|fd| FileId::of(fd) == Ok(held.identity()))));
        drop(held);
        let failed = Descriptor::open(|| Err(Errno::MFILE));
        assert_eq!(failed.map(drop), Err(Errno::MFILE));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| assert!(open().fd().is_some())));
            }
        });
        let mut records = 0;
        let mut at = first();
        while let Some(record) = at {
            records += 1;
            at = record.next;
        }
        assert!(records < 200, "{records}");
    }

    #[test]
    fn what_each_process_makes_is_made_once_in_this_one() {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let value = PerProcess::new(|| Mutex::new(MADE.fetch_add(1, Ordering::Relaxed)));
        let first = ptr::from_ref(value.get());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(*value.get().lock().expect("no panic"), 0));
            }
        });
        assert!(ptr::eq(first, value.get()));
        assert_eq!(MADE.load(Ordering::Relaxed), 1);
    }
}
