//! The header of a region: its purpose, and a checksum. Written once, before any other process sees the file.

use super::Purpose;
use super::layout::{LAYOUT, RETIRED};
use super::parameters;
use crate::backend::shared::system::boot::BootId;
use crate::backend::shared::system::map::{Map, WORD};

/// The parts of the header, in front of its checksum.
const MAGIC: u64 = u64::from_be_bytes(*b"WRPCACHE");
const CHECKED: usize = RETIRED - WORD;
const SEED: usize = 32;
const DIGEST: usize = 40;
const RECORD: usize = 56;
const LABEL: usize = 128;
const MOST_LABEL: usize = CHECKED - LABEL;

/// The header of a region for this purpose: 504 bytes and their checksum.
pub(super) fn header(purpose: &Purpose, boot: BootId, seed: u64) -> [u8; RETIRED] {
    let mut bytes = [0; RETIRED];
    let mut put = |at: usize, from: &[u8]| bytes[at..at + from.len()].copy_from_slice(from);
    put(0, &MAGIC.to_ne_bytes());
    put(8, &LAYOUT.to_ne_bytes());
    put(12, &0x0102_0304_u32.to_ne_bytes());
    put(16, &boot.0);
    put(SEED, &seed.to_ne_bytes());
    put(DIGEST, &purpose.digest.to_ne_bytes());
    let record = parameters::encode(&purpose.parameters).unwrap_or_default();
    put(RECORD, &[record.len().to_le_bytes()[0]]);
    put(RECORD + 1, &record);
    let label = beginning(&purpose.label).as_bytes();
    put(LABEL, &label.len().to_le_bytes()[..2]);
    put(LABEL + 2, label);
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..CHECKED]);
    bytes[CHECKED..].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

/// The purpose that a header speaks of, if it is whole, of this start of the machine and of this layout.
pub(super) fn read_header(map: &Map) -> Option<(Purpose, u64)> {
    let mut bytes = [0; RETIRED];
    map.read_bytes(0, &mut bytes)?;
    let seed = u64::from_ne_bytes(*bytes[SEED..].first_chunk()?);
    let digest = u128::from_ne_bytes(*bytes[DIGEST..].first_chunk()?);
    let boot = BootId(*bytes[16..].first_chunk()?);
    let record = bytes[RECORD + 1..LABEL].get(..usize::from(bytes[RECORD]))?;
    let parameters = parameters::decode(record).ok()?;
    let label = bytes[LABEL + 2..CHECKED].get(..usize::from(u16::from_le_bytes([bytes[LABEL], bytes[LABEL + 1]])))?;
    let purpose = Purpose { label: std::str::from_utf8(label).ok()?.to_owned(), digest, parameters };
    let is_ours = header(&purpose, boot, seed) == bytes && boot.agrees(BootId::current());
    is_ours.then_some((purpose, seed))
}

/// The purpose with its label cut to the room in the header.
pub(super) fn truncated(purpose: &Purpose) -> Purpose {
    Purpose { label: beginning(&purpose.label).to_owned(), ..purpose.clone() }
}

fn beginning(label: &str) -> &str {
    let mut end = label.len().min(MOST_LABEL - 2);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    &label[..end]
}
