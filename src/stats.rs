//! The counters of a cache.

/// Hits and misses since the cache was made or last cleared. They add up to the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls answered from the cache.
    pub hits: u64,
    /// Calls that ran the function, counted before it runs.
    pub misses: u64,
}
