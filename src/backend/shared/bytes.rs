//! The shared region of a function as a backend that keeps bytes.

use super::handle::{Handle, Notice};
use super::region::Region;
use super::shard::{BUDGET, GaveUp, Kept};
use crate::backend::bytes::{ByteBackend, Caller, Count, Counts, Fresh, NotNow, Stored};
use crate::backend::memory::{Lookup, Tally};
use crate::sync::Token;
use std::time::Duration;

impl Handle {
    /// Does an act that needs a shard's lock: at once if the lock is free, else waiting.
    fn attempt<R: Send>(
        &self,
        caller: &impl Caller,
        region: &Region,
        act: impl Fn(Duration) -> Result<R, GaveUp>,
    ) -> Result<R, GaveUp> {
        if let Ok(done) = act(Duration::ZERO) {
            self.note(region, true);
            return Ok(done);
        }
        if self.leave_if_outside(caller.token(), region) {
            return Err(GaveUp);
        }
        caller.wait(|| {
            let done = act(BUDGET);
            self.note(region, done.is_ok());
            done
        })
    }
}

impl ByteBackend for Handle {
    type Notice = Notice;

    fn open(&self, caller: &impl Caller) -> Option<Notice> {
        if self.region(caller.token()).is_some() || self.is_off() {
            return None;
        }
        let (region, notice) = caller.wait(|| self.renew());
        if let Some(region) = region {
            self.settle(caller.token(), region);
        }
        notice
    }

    fn refresh(&self, caller: &impl Caller) -> Option<Notice> {
        let notice = self.open(caller);
        match self.region(caller.token()) {
            Some(region) if !region.is_in_place() => {
                caller.wait(|| region.retire().is_ok());
                // A handle has one notice in its life.
                notice.or(self.open(caller))
            }
            _ => notice,
        }
    }

    #[inline(always)]
    fn get(
        &self,
        token: Token<'_>,
        key: &[u8],
        now: u64,
        tally: Tally,
        entry: &mut Vec<u8>,
    ) -> Result<Lookup<Stored>, NotNow> {
        let found = self.with(token, |region| {
            let generation = region.clears();
            if let Some(found) = region.look_up(key, now, entry) {
                region.count(Count::Hit);
                return Lookup::Hit(Stored { start: found.value_start, generation });
            }
            if tally == Tally::All {
                region.count(Count::Miss);
            }
            Lookup::Miss { generation }
        });
        found.ok_or(NotNow)
    }

    fn retract(&self, token: Token<'_>, tally: Tally) {
        self.with(token, |region| {
            region.uncount_hit();
            if tally == Tally::All {
                region.count(Count::Miss);
            }
        });
    }

    fn contains(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow> {
        let region = self.region(caller.token()).ok_or(NotNow)?;
        Ok(region.contains(key, now))
    }

    fn put(
        &self,
        caller: &impl Caller,
        fresh: &Fresh<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Notice>, NotNow> {
        let region = self.region(caller.token()).ok_or(NotNow)?;
        let &Fresh { key, value, now, since } = fresh;
        let is_wanted = || since.is_none_or(|since| region.clears() == since) && is_wanted();
        let kept = self.attempt(caller, &region, |patience| region.keep(key, value, now, is_wanted, patience));
        let notice = match kept {
            Ok(Kept::NoRoom | Kept::Evicted(_) | Kept::Stored) => self.notice_of(&region),
            Ok(Kept::TooLarge | Kept::Unwanted) | Err(GaveUp) => None,
        };
        if self.is_retry_due()
            && let Some(region) = caller.wait(|| self.retry())
        {
            self.replace(caller.token(), &region);
        }
        Ok(notice)
    }

    fn remove(&self, caller: &impl Caller, key: &[u8], now: u64) -> Result<bool, NotNow> {
        let region = self.region(caller.token()).ok_or(NotNow)?;
        let removed = self.attempt(caller, &region, |patience| region.remove(key, now, patience));
        Ok(removed.unwrap_or_else(|GaveUp| {
            // The entry must not be returned any more. Without the lock only the whole region can go.
            let is_there = region.contains(key, now);
            caller.wait(|| region.retire().is_ok());
            is_there
        }))
    }

    fn clear(&self, caller: &impl Caller) -> Result<(), NotNow> {
        self.tallies().clear();
        let region = self.region(caller.token()).ok_or(NotNow)?;
        if self.attempt(caller, &region, |patience| region.clear(patience)).is_err() {
            caller.wait(|| region.retire().is_ok());
        }
        Ok(())
    }

    #[inline]
    fn count(&self, token: Token<'_>, count: Count) -> Result<(), NotNow> {
        self.with(token, |region| region.count(count)).ok_or(NotNow)
    }

    fn count_apart(&self, count: Count) {
        self.tallies().count(count);
    }

    fn info(&self, caller: &impl Caller, now: u64) -> (Counts, usize) {
        match self.region(caller.token()) {
            Some(region) => caller.wait(|| (region.counts(), region.len(now))),
            None => (self.tallies().counts(), 0),
        }
    }
}
