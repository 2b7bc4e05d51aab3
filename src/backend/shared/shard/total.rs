//! How many entries several shards have together.

use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::AtomicU64;

/// How many entries several shards have together, and may have.
///
/// It is raised before an entry is there and lowered when one is gone, so that it is never too low. The danger is a kill in
/// between, which leaves it too high: the repair that follows marks it as stale, and a region counts it anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total<'a> {
    /// How many there are.
    pub(crate) count: &'a AtomicU64,
    /// Not zero: the count is stale. Each repair adds one, so that a process that has counted sees a repair that happened
    /// meanwhile.
    pub(crate) is_stale: &'a AtomicU64,
    /// The most.
    pub(crate) most: u64,
}

impl Total<'_> {
    /// Takes the place of one more, if there is any.
    pub(super) fn reserve(&self) -> bool {
        let taken = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < self.most).then_some(count + 1));
        taken.is_ok()
    }

    /// Marks the count as stale.
    pub(crate) fn mark(&self) {
        self.is_stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn release(&self, entries: u64) {
        let _ =
            self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(entries)));
    }
}
