//! The places of a region's parts, computed from its parameters.

use super::parameters::Parameters;
use crate::backend::shared::atomic::AtomicU64;
use crate::backend::shared::shard::geometry::Geometry;
use crate::backend::shared::shard::{MOST_LOCALS, Shard};
use crate::backend::shared::system::map::{Map, WORD};

/// The number of the layout. A change of one word of it, of a shard or of the codec changes this number, too, so that other
/// builds keep to other files.
pub(crate) const LAYOUT: u32 = 2;

/// Up to so many entries, all are in one shard, and the order of eviction is exact.
pub(super) const EXACT: usize = 1024;

/// The most shards.
pub(super) const MOST_SHARDS: usize = MOST_LOCALS;

pub(super) const PAGE: usize = 4096;
pub(super) const LINE: usize = 64;

/// The places of the words that change. Each has a line of its own, but for two that hardly ever change.
pub(super) const RETIRED: usize = 512;
pub(super) const CLEARS: usize = RETIRED + WORD;
pub(super) const TOTAL: usize = RETIRED + LINE;
pub(super) const STALE: usize = TOTAL + LINE;
pub(super) const COUNTERS: usize = PAGE;
pub(super) const STRIPES: usize = PAGE / LINE;
pub(super) const MEMBERS: usize = COUNTERS + PAGE;
pub(super) const CONTROLS: usize = MEMBERS + PAGE;

/// The places of a region's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shards: usize,
    pub(super) geometry: Geometry,
    /// The first byte of the first shard.
    pub(super) start: usize,
    /// From one shard to the next.
    pub(super) stride: usize,
    pub(super) len: usize,
}

impl Layout {
    /// `None` if so much can't be addressed.
    pub(super) fn new(parameters: &Parameters) -> Option<Self> {
        let most = usize::try_from(parameters.max_size).ok()?;
        let bytes = usize::try_from(parameters.max_key_size).ok()?.checked_add(parameters.max_value_size as usize)?;
        let shards = match most {
            0 => 0,
            1..=EXACT => 1,
            _ => most.div_ceil(EXACT).checked_next_power_of_two()?.min(MOST_SHARDS),
        };
        let slots = match shards {
            0 | 1 => most,
            // Keys do not fall into the shards evenly.
            _ => most.div_ceil(shards).checked_mul(5)? / 4 + 1,
        };
        let geometry = Geometry::new(slots, bytes)?;
        let start = (CONTROLS + shards * Geometry::CONTROL * WORD).next_multiple_of(PAGE);
        let stride = geometry.words().checked_mul(WORD)?.checked_next_multiple_of(PAGE)?;
        let len = stride.checked_mul(shards)?.checked_add(start)?;
        // No mapping or file can be longer.
        isize::try_from(len).is_ok().then_some(Self { shards, geometry, start, stride, len })
    }

    /// The bytes that have room from the beginning. They include the first slots of a single shard: if not even those fit, the
    /// caller knows at once.
    pub(super) fn allocated(&self) -> usize {
        if self.shards == 1 { self.start + Shard::first_words(&self.geometry) * WORD } else { self.start }
    }

    pub(super) fn shard_of(&self, hash: u64) -> usize {
        // The index takes the lower bits, and compares the upper half.
        (hash >> 24) as usize & (self.shards - 1)
    }
}

/// The control words of each shard.
pub(super) fn controls<'m>(map: &'m Map, layout: &Layout) -> impl Iterator<Item = &'m [AtomicU64]> {
    let bytes = layout.shards * Geometry::CONTROL * WORD;
    map.words(CONTROLS, bytes).unwrap_or_default().chunks_exact(Geometry::CONTROL)
}

/// How many bytes have room: those up to the shards, and of each shard what its control words say.
pub(super) fn committed(map: &Map, layout: &Layout) -> usize {
    let words: usize = controls(map, layout).map(|control| Shard::committed_in(control, &layout.geometry)).sum();
    layout.start + words * WORD
}
