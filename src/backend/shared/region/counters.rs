//! The counters of a region. Processes add to different stripes, so that hits do not contend for a line.

use super::Region;
use super::layout::{COUNTERS, LINE, PAGE, STRIPES};
use crate::backend::bytes::{Count, Counts};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::system::map::{Map, WORD};

impl Region {
    #[inline(always)]
    pub(crate) fn count(&self, count: Count) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + count as usize * WORD) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes back the count of a hit whose value turned out to be none.
    pub(crate) fn uncount_hit(&self) {
        let stripe = self.stripe.load(Ordering::Relaxed) % STRIPES;
        if let Some(word) = self.map.word(COUNTERS + stripe * LINE + Count::Hit as usize * WORD) {
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hits| hits.checked_sub(1));
        }
    }

    /// The counts of all processes together.
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
