//! Where in a shard what lies, in words of eight bytes. Computed when a region is opened, from parameters that its header
//! confirms, and never read from shared memory again: a number that another process wrote there is never an address.

/// Words of a cache line.
pub(super) const LINE: usize = 8;

/// The parts of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// How many entries the shard has room for.
    pub slots: usize,
    /// How many chunks there are for what does not fit into a slot.
    pub chunks: usize,
    /// The most bytes of a key and a value together.
    pub most_bytes: usize,
}

impl Geometry {
    /// Where the index begins, behind the control words.
    pub(super) const INDEX_START: usize = 2 * LINE;
    /// Words of a slot: a header, then the first bytes of key and value.
    pub const SLOT: usize = 32;
    /// Words of a slot's header.
    pub const HEADER: usize = 8;
    /// Bytes of key and value that a slot holds itself.
    pub const INLINE: usize = (Self::SLOT - Self::HEADER) * 8;
    /// Words of a chunk, the first of which says whose it is and which is next.
    pub const CHUNK: usize = 64;
    /// Bytes that a chunk holds.
    pub const CHUNK_BYTES: usize = (Self::CHUNK - 1) * 8;
    /// The most slots and chunks: their numbers, one more than the place, fit into 32 bits.
    pub const MOST: usize = (1 << 31) - 1;

    /// A shard of that many slots, whose largest entry has that many bytes. `None` if it can't be addressed.
    pub fn new(slots: usize, most_bytes: usize) -> Option<Self> {
        let chunks = slots.checked_mul(Self::chunks_for(most_bytes))?;
        let this = Self { slots, chunks, most_bytes };
        (slots <= Self::MOST && chunks <= Self::MOST && this.checked_words().is_some()).then_some(this)
    }

    /// How many chunks an entry of that many bytes takes.
    pub const fn chunks_for(bytes: usize) -> usize {
        bytes.saturating_sub(Self::INLINE).div_ceil(Self::CHUNK_BYTES)
    }

    /// Places of the index: at least half of them are empty.
    pub fn index_places(&self) -> usize {
        (self.slots * 2).next_power_of_two().max(LINE)
    }

    /// Words of the whole shard.
    pub fn words(&self) -> usize {
        self.checked_words().unwrap_or(usize::MAX)
    }

    fn checked_words(&self) -> Option<usize> {
        let slots = self.slots.checked_mul(Self::SLOT)?;
        let chunks = self.chunks.checked_mul(Self::CHUNK)?;
        self.slots_start().checked_add(slots)?.checked_add(chunks)
    }

    /// Where the stamps begin: one word a slot, so that looking for a victim reads nothing else.
    pub(super) fn stamps_start(&self) -> usize {
        Self::INDEX_START + self.index_places()
    }

    /// Where the slots begin.
    pub(super) fn slots_start(&self) -> usize {
        (self.stamps_start() + self.slots).next_multiple_of(LINE)
    }

    /// Where the chunks begin.
    pub(super) fn chunks_start(&self) -> usize {
        self.slots_start() + self.slots * Self::SLOT
    }
}
