//! The purpose of a region: a function and the parameters of its cache. It decides the name of the file.

use super::parameters::{self, Parameters};
use crate::backend::shared::system::files;

/// The purpose of a region. Processes that open one must have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// The function, for people.
    pub(crate) label: String,
    /// The function, for the machine: different for different ones.
    pub(crate) digest: u128,
    /// The parameters of the cache.
    pub(crate) parameters: Parameters,
}

impl Purpose {
    const READABLE: usize = 40;

    /// The name of the region's file: the label as far as it fits, and a hash of all that makes it another region.
    pub(crate) fn file_name(&self) -> String {
        let plain = |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
        let readable: String = self.label.chars().map(plain).collect();
        let start = readable.len().saturating_sub(Self::READABLE);
        let readable = readable[start..].trim_start_matches(['.', '-']);
        let readable = if readable.is_empty() || readable.starts_with("tmp-") { "_" } else { readable };
        let parameters = parameters::encode(&self.parameters).unwrap_or_default();
        let hash = xxhash_rust::xxh3::xxh3_128(&[&self.digest.to_le_bytes()[..], &parameters].concat());
        format!("{readable}-{hash:032x}{}", files::SUFFIX)
    }
}
