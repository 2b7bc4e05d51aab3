//! The parameters of a region, as a record in its header.
//!
//! It is read once, when a region is opened, so bincode's 25 ns do not matter here. It has no lengths and nests nothing.

use crate::codec::{Damaged, EncodeError};
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};

/// More than the longest record, which takes 39 bytes.
const MOST_BYTES: usize = 64;

const CONFIGURATION: Configuration<LittleEndian, Varint, Limit<MOST_BYTES>> = config::standard().with_limit();

/// The parameters of a region. Processes that differ in one of them do not share a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The most entries.
    pub(crate) max_size: u64,
    /// The most bytes of a key.
    pub(crate) max_key_size: u32,
    /// The most bytes of a value.
    pub(crate) max_value_size: u32,
    /// How long a value stays valid; `None` for ever.
    pub(crate) ttl_ns: Option<u64>,
    /// The number of the eviction strategy.
    pub(crate) strategy: u8,
    /// Whether equal arguments of different types are different keys.
    pub(crate) typed: bool,
    /// The protocol of the pickles.
    pub(crate) pickle_protocol: u8,
    /// The version of Python, major and minor.
    pub(crate) python: (u8, u8),
    /// The number of the region's layout.
    pub(crate) layout: u32,
}

/// The record's fields in their order in the file.
type Record = (u64, u32, u32, Option<u64>, u8, bool, u8, (u8, u8), u32);

/// The record as bytes, 39 of them at most.
pub(crate) fn encode(parameters: &Parameters) -> Result<Vec<u8>, EncodeError> {
    let Parameters { max_size, max_key_size, max_value_size, ttl_ns, strategy, typed, pickle_protocol, python, layout } =
        *parameters;
    let record: Record =
        (max_size, max_key_size, max_value_size, ttl_ns, strategy, typed, pickle_protocol, python, layout);
    bincode::encode_to_vec(record, CONFIGURATION).map_err(|_| EncodeError::Oversize)
}

/// The record that all of `bytes` is.
pub(crate) fn decode(bytes: &[u8]) -> Result<Parameters, Damaged> {
    let (record, size) = bincode::decode_from_slice::<Record, _>(bytes, CONFIGURATION).map_err(|_| Damaged)?;
    if size != bytes.len() {
        return Err(Damaged);
    }
    let (max_size, max_key_size, max_value_size, ttl_ns, strategy, typed, pickle_protocol, python, layout) = record;
    Ok(Parameters { max_size, max_key_size, max_value_size, ttl_ns, strategy, typed, pickle_protocol, python, layout })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: Parameters = Parameters {
        max_size: 128,
        max_key_size: 512,
        max_value_size: 4096,
        ttl_ns: None,
        strategy: 3,
        typed: true,
        pickle_protocol: 5,
        python: (3, 14),
        layout: 1,
    };

    #[test]
    fn the_record_is_these_bytes() {
        let usual = [128, 251, 0, 2, 251, 0, 16, 0, 3, 1, 5, 3, 14, 1];
        assert_eq!(encode(&USUAL), Ok(usual.to_vec()));
        assert_eq!(decode(&usual), Ok(USUAL));
        let timed = Parameters { ttl_ns: Some(1_500_000_000), typed: false, ..USUAL };
        let bytes = [128, 251, 0, 2, 251, 0, 16, 1, 252, 0, 0x2f, 0x68, 0x59, 3, 0, 5, 3, 14, 1];
        assert_eq!(encode(&timed), Ok(bytes.to_vec()));
        assert_eq!(decode(&bytes), Ok(timed));
    }

    #[test]
    fn the_longest_record_is_within_the_limit() {
        let longest = Parameters {
            max_size: u64::MAX,
            max_key_size: u32::MAX,
            max_value_size: u32::MAX,
            ttl_ns: Some(u64::MAX),
            layout: u32::MAX,
            ..USUAL
        };
        let bytes = encode(&longest).expect("room");
        assert_eq!((bytes.len(), decode(&bytes)), (39, Ok(longest)));
    }

    #[test]
    fn a_record_that_is_cut_extended_or_no_record_is_damaged() {
        let bytes = encode(&USUAL).expect("room");
        for size in 0..bytes.len() {
            assert_eq!(decode(&bytes[..size]), Err(Damaged), "{size}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(Damaged));
        // A bool that is 2.
        assert_eq!(decode(&[128, 251, 0, 2, 251, 0, 16, 0, 3, 2, 5, 3, 14, 1]), Err(Damaged));
        assert_eq!(decode(&[0xff; 1000]), Err(Damaged));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(parameters) = decode(&bytes) {
                let again = encode(&parameters).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(decode(&again), Ok(parameters));
            }
        }
    }
}
