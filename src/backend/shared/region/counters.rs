//! What a region counts. Processes add to different stripes, so that hits do not contend for a line.

use super::Region;
use super::layout::{COUNTERS, LINE, PAGE, STRIPES};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::system::map::{Map, WORD};

/// What a region counts for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// A call that was answered from the cache.
    Hit = 0,
    /// A call that ran the function.
    Miss = 1,
    /// A call whose value was not stored, since it or its key is too large or has no bytes.
    Skip = 2,
    /// A skip for another reason than size; counted beside it.
    Unstorable = 3,
}

/// What is counted where there is no region, by one process.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    hits: std::sync::atomic::AtomicU64,
    misses: std::sync::atomic::AtomicU64,
    skips: std::sync::atomic::AtomicU64,
    unstorable: std::sync::atomic::AtomicU64,
}

impl Tallies {
    fn of(&self, count: Count) -> &std::sync::atomic::AtomicU64 {
        match count {
            Count::Hit => &self.hits,
            Count::Miss => &self.misses,
            Count::Skip => &self.skips,
            Count::Unstorable => &self.unstorable,
        }
    }

    /// Counts.
    pub(crate) fn count(&self, count: Count) {
        self.of(count).fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted.
    pub(crate) fn counts(&self) -> Counts {
        let of = |count| self.of(count).load(Ordering::Relaxed);
        Counts {
            hits: of(Count::Hit),
            misses: of(Count::Miss),
            skips: of(Count::Skip),
            unstorable: of(Count::Unstorable),
        }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        for count in [Count::Hit, Count::Miss, Count::Skip, Count::Unstorable] {
            self.of(count).store(0, Ordering::Relaxed);
        }
    }
}

/// What a region counts, all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Calls that were answered from the cache.
    pub(crate) hits: u64,
    /// Calls that ran the function.
    pub(crate) misses: u64,
    /// Calls whose value was not stored, since it or its key is too large or has no bytes.
    pub(crate) skips: u64,
    /// How many of those skips had another reason than size.
    pub(crate) unstorable: u64,
}

impl Region {
    /// Counts.
    #[inline(always)]
    pub(crate) fn count(&self, count: Count) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + count as usize * WORD) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes back that a call was counted as answered: it turned out not to be.
    pub(crate) fn uncount_hit(&self) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + Count::Hit as usize * WORD) {
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hits| hits.checked_sub(1));
        }
    }

    /// What has been counted, by all processes.
    pub(crate) fn counts(&self) -> Counts {
        counts(&self.map)
    }
}

pub(super) fn counts(map: &Map) -> Counts {
    let mut counts = Counts::default();
    for stripe in map.words(COUNTERS, PAGE).unwrap_or_default().chunks_exact(LINE / WORD) {
        let of = |count: Count| stripe[count as usize].load(Ordering::Relaxed);
        counts.hits = counts.hits.wrapping_add(of(Count::Hit));
        counts.misses = counts.misses.wrapping_add(of(Count::Miss));
        counts.skips = counts.skips.wrapping_add(of(Count::Skip));
        counts.unstorable = counts.unstorable.wrapping_add(of(Count::Unstorable));
    }
    counts
}
