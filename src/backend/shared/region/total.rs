//! The entries of all shards together, counted anew where a dead process has left the number too high.

use super::layout::{STALE, TOTAL};
use super::members::Here;
use super::{Region, Wait};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::shard::Shard;

impl Region {
    /// Counts all entries, while nobody can change any, if a dead process has left the total too high.
    #[inline]
    pub(super) fn recount_if_stale(&self, here: &Here<'_>, wait: Wait) {
        if self.layout.shards > 1 && self.header_word(STALE).load(Ordering::Relaxed) != 0 {
            self.recount(here, wait, || ());
        }
    }

    /// Does so. `meanwhile` is called when all are counted and the mark still stands: for tests.
    #[cold]
    #[inline(never)]
    pub(super) fn recount(&self, here: &Here<'_>, wait: Wait, meanwhile: impl FnOnce()) {
        let shards: Vec<_> = self.shards().collect();
        // From the first on, by everybody: nobody waits for one that is before one that he has.
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
