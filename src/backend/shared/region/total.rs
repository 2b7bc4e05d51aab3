//! The entries of all shards together. A process that dies between a store and its count leaves the total too high; the next
//! store counts anew.

use super::layout::{STALE, TOTAL};
use super::members::Here;
use super::{Region, Wait};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::shard::Shard;

impl Region {
    /// Counts all entries anew, under the locks of all shards, if a dead process has left the total too high.
    #[inline]
    pub(super) fn recount_if_stale(&self, here: &Here<'_>, wait: Wait) {
        if self.layout.shards > 1 && self.header_word(STALE).load(Ordering::Relaxed) != 0 {
            self.recount(here, wait, || ());
        }
    }

    /// The recount. `meanwhile` is called when all are counted and the mark still stands: for tests.
    #[cold]
    #[inline(never)]
    pub(super) fn recount(&self, here: &Here<'_>, wait: Wait, meanwhile: impl FnOnce()) {
        let shards: Vec<_> = self.shards().collect();
        // The danger is a deadlock of two recounts. Every process takes the locks in this order, so that none waits for a lock
        // before one that it holds.
        let held: Result<Vec<_>, _> = shards.iter().map(|shard| shard.lock(here, wait.left())).collect();
        let Ok(_held) = held else { return };
        let stale = self.header_word(STALE);
        let marks = stale.load(Ordering::Acquire);
        let total: usize = shards.iter().map(Shard::len).sum();
        self.header_word(TOTAL).store(total as u64, Ordering::Relaxed);
        meanwhile();
        // Last of all, so that a process that is killed before leaves the mark. Each mark is another number: one that was set
        // after the count, by a process that is taken for dead and is not, stays.
        let _ = stale.compare_exchange(marks, 0, Ordering::Release, Ordering::Relaxed);
    }
}
