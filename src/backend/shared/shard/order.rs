//! The order of eviction: a stamp for each slot, which hits renew without the lock.

use super::{Shard, control};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::atomic::shard::AtomicU64;
use crate::options::Strategy;

/// The first bit of the number of uses in a stamp of an LFU cache. The bits below are the tick of the last use.
const USES: u32 = 44;

const TICKS: u64 = (1 << USES) - 1;

pub(super) fn tick_of(strategy: Strategy, stamp: u64) -> u64 {
    if strategy == Strategy::Lfu { stamp & TICKS } else { stamp }
}

impl<'a> Shard<'a> {
    /// The stamp of an entry that is stored (`before` is 0) or hit.
    pub(super) fn next_stamp(&self, before: u64) -> u64 {
        let tick = self.control(control::TICK).fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if self.strategy == Strategy::Lfu {
            let uses = (before >> USES).saturating_add(1).min(u64::MAX >> USES);
            (uses << USES) | (tick & TICKS)
        } else {
            tick
        }
    }

    /// The slot whose entry has to go, which is not `but`.
    pub(super) fn victim(&self, but: Option<usize>) -> Option<usize> {
        let start = self.geometry.stamps_start();
        let stamps = &self.words[start..start + self.slots()];
        let first = |stamps: &[AtomicU64]| match self.strategy {
            Strategy::Mru => first_by(stamps, |stamp| !stamp),
            Strategy::Lru | Strategy::Fifo | Strategy::Lfu => first_by(stamps, |stamp| stamp.wrapping_sub(1)),
        };
        let Some(but) = but else { return first(stamps).map(|(_, slot)| slot) };
        let (before, after) = (stamps.get(..but)?, stamps.get(but + 1..)?);
        let (before, after) = (first(before), first(after).map(|(order, slot)| (order, but + 1 + slot)));
        before.into_iter().chain(after).min().map(|(_, slot)| slot)
    }

    pub(super) fn stamp(&self, slot: usize) -> &'a AtomicU64 {
        &self.words[self.geometry.stamps_start() + slot]
    }
}

/// The stamp that comes first in `order`: its key there, and its slot. `u64::MAX` is the key of no entry.
///
/// The least key of each block is computed first, four at a time, without its slot. Only the block that has the least of all is
/// searched for it.
#[inline(always)]
fn first_by(stamps: &[AtomicU64], order: impl Fn(u64) -> u64) -> Option<(u64, usize)> {
    const BLOCK: usize = 64;
    let order = |stamp: &AtomicU64| order(stamp.load(Ordering::Relaxed));
    let mut first = (u64::MAX, 0);
    for (number, block) in stamps.chunks(BLOCK).enumerate() {
        let (quads, rest) = block.as_chunks::<4>();
        let mut least = [u64::MAX; 4];
        for quad in quads {
            for (least, stamp) in least.iter_mut().zip(quad) {
                *least = (*least).min(order(stamp));
            }
        }
        let least = rest.iter().map(order).chain(least).min().unwrap_or(u64::MAX);
        if least < first.0 {
            first = (least, number * BLOCK);
        }
    }
    if first.0 == u64::MAX {
        return None;
    }
    let block = stamps[first.1..].iter().take(BLOCK);
    // A hit may have moved it meanwhile: then any of the block's is as good.
    let place = block.enumerate().min_by_key(|(_, stamp)| order(stamp))?;
    Some((first.0, first.1 + place.0))
}
