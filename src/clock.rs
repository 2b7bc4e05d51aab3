//! The time, in nanoseconds since some fixed moment.
//!
//! A clock is a value that its user holds, so that a test can move the time by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of the time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The time of the last tick of the system: 2 ns to read, up to one tick (1 to 10 ms) late. Linux only.
    #[cfg(target_os = "linux")]
    Coarse,
    /// The time now: 20 ns to read.
    Precise,
    /// The time since the machine was started, sleep included: the same for all its processes. 24 ns to read.
    #[cfg(unix)]
    Machine,
    /// A time that stands still until it is moved.
    Manual(ManualClock),
}

impl Clock {
    /// Below this time to live, in nanoseconds, the ticks of the coarse clock are too long.
    #[cfg(target_os = "linux")]
    const COARSE_FROM: u64 = 100_000_000;

    /// The cheapest clock that is precise enough to measure `ttl`, in nanoseconds.
    pub fn for_ttl(ttl: u64) -> Self {
        #[cfg(target_os = "linux")]
        if ttl >= Self::COARSE_FROM {
            return Self::Coarse;
        }
        let _ = ttl;
        Self::Precise
    }

    /// Nanoseconds since a moment that is the same for every reading of this clock. Never goes back.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::Coarse => system::now(system::COARSE),
            Self::Precise => system::precise(),
            #[cfg(unix)]
            Self::Machine => machine(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// The most nanoseconds that `now` may be behind the true time.
    pub fn lag(&self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::Coarse => system::resolution(system::COARSE),
            #[cfg(unix)]
            Self::Machine => 0,
            Self::Precise | Self::Manual(_) => 0,
        }
    }
}

/// A clock that moves only when it is told to. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the time on.
    pub fn advance(&self, nanoseconds: u64) {
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// Linux's monotonic clock stops while the machine sleeps; those of the others do not.
#[cfg(unix)]
fn machine() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    nanoseconds(clock_gettime(CLOCK))
}

/// A monotonic time is never negative, and 64 bits of nanoseconds last 584 years of uptime.
#[cfg(unix)]
#[inline]
#[allow(clippy::cast_sign_loss)]
fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(target_os = "linux")]
mod system {
    use super::nanoseconds;
    use rustix::time::{ClockId, clock_getres, clock_gettime};

    pub(super) const COARSE: ClockId = ClockId::MonotonicCoarse;

    #[inline]
    pub(super) fn now(clock: ClockId) -> u64 {
        nanoseconds(clock_gettime(clock))
    }

    pub(super) fn precise() -> u64 {
        now(ClockId::Monotonic)
    }

    pub(super) fn resolution(clock: ClockId) -> u64 {
        nanoseconds(clock_getres(clock))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(super) fn precise() -> u64 {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_by_hand_and_with_its_clones() {
        let clock = ManualClock::default();
        let other = Clock::Manual(clock.clone());
        assert_eq!(other.now(), 0);
        clock.advance(5);
        clock.advance(7);
        assert_eq!((other.now(), other.lag()), (12, 0));
    }

    #[test]
    fn the_clock_of_a_ttl_is_precise_where_ticks_would_show() {
        assert!(matches!(Clock::for_ttl(99_999_999), Clock::Precise));
        #[cfg(target_os = "linux")]
        assert!(matches!(Clock::for_ttl(100_000_000), Clock::Coarse));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_coarse_clock_shows_the_time_of_a_tick_that_is_past() {
        let lag = Clock::Coarse.lag();
        assert!((1..=20_000_000).contains(&lag), "{lag}");
        for _ in 0..1000 {
            let coarse = Clock::Coarse.now();
            assert!(coarse <= Clock::Precise.now());
            assert!(coarse <= Clock::Coarse.now());
        }
    }
}
