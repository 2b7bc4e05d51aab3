//! The places of a shard's parts, in words of eight bytes. The control words are apart, beside those of the other shards.
//!
//! The danger is a number in shared memory that some other process damaged. No place comes from there: all are computed
//! when a region is opened, from parameters that its header confirms.

/// Words of a cache line.
pub(crate) const LINE: usize = 8;

/// The parts of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// How many entries the shard has room for.
    pub(crate) slots: usize,
    /// How many chunks there are, for entries that do not fit into a slot.
    pub(crate) chunks: usize,
    /// The most bytes of a key and a value together.
    pub(crate) most_bytes: usize,
    index_places: usize,
    slots_start: usize,
    chunks_start: usize,
    words: usize,
}

impl Geometry {
    /// Control words of a shard: two lines.
    pub(crate) const CONTROL: usize = 2 * LINE;
    /// Words of a slot: a header, then the first bytes of key and value.
    pub(crate) const SLOT: usize = 32;
    /// Words of a slot's header.
    pub(crate) const HEADER: usize = 8;
    /// Bytes of key and value that a slot holds itself.
    pub(crate) const INLINE: usize = (Self::SLOT - Self::HEADER) * 8;
    /// Words of a chunk, the first of which says whose it is and which is next.
    pub(crate) const CHUNK: usize = 64;
    /// Bytes that a chunk holds.
    pub(crate) const CHUNK_BYTES: usize = (Self::CHUNK - 1) * 8;
    /// The most slots and chunks: their numbers, one more than the place, fit into 32 bits.
    pub(crate) const MOST: usize = (1 << 31) - 1;

    /// A shard of that many slots, whose largest entry has that many bytes. `None` if it can't be addressed.
    pub(crate) fn new(slots: usize, most_bytes: usize) -> Option<Self> {
        let chunks = slots.checked_mul(Self::chunks_for(most_bytes))?;
        if slots > Self::MOST || chunks > Self::MOST {
            return None;
        }
        let index_places = (slots * 2).next_power_of_two().max(LINE);
        let slots_start = (index_places + slots).next_multiple_of(LINE);
        let chunks_start = slots.checked_mul(Self::SLOT)?.checked_add(slots_start)?;
        let words = chunks.checked_mul(Self::CHUNK)?.checked_add(chunks_start)?;
        Some(Self { slots, chunks, most_bytes, index_places, slots_start, chunks_start, words })
    }

    /// How many chunks an entry of that many bytes takes.
    pub(crate) const fn chunks_for(bytes: usize) -> usize {
        bytes.saturating_sub(Self::INLINE).div_ceil(Self::CHUNK_BYTES)
    }

    /// Places of the index: at least half of them are empty.
    pub(crate) fn index_places(&self) -> usize {
        self.index_places
    }

    /// Words of the whole shard.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// The first word of the stamps: one a slot, so that a search for a victim reads nothing else.
    pub(crate) fn stamps_start(&self) -> usize {
        self.index_places
    }

    /// The first word of the slots.
    pub(crate) fn slots_start(&self) -> usize {
        self.slots_start
    }

    /// The first word of the chunks.
    pub(crate) fn chunks_start(&self) -> usize {
        self.chunks_start
    }
}
