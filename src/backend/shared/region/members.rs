//! The processes that have a region open, and this process among them.

use super::Region;
use super::layout::{MEMBERS, PAGE};
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::shard::Census;
use crate::backend::shared::system::liveness::{Member, Membership, Owner};
use std::sync::{Arc, PoisonError};

/// This process's standing in a region.
#[derive(Debug, Default)]
pub(super) struct Standing {
    member: Option<Arc<Member>>,
    /// Stores until the membership is looked at again.
    due: u32,
    /// This process's place in the list of members.
    listed: Option<usize>,
}

/// After so many stores a process checks that others still see it as a member.
const STORES_A_LOOK: u32 = 32;

impl Region {
    /// This process, as a member that others see.
    pub(super) fn here(&self) -> Here<'_> {
        let Some(members) = &self.members else { return Here { region: self, member: None } };
        let mut standing = self.standing.get().lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = standing.due == 0;
        standing.due = if is_due { STORES_A_LOOK } else { standing.due - 1 };
        if is_due || !standing.member.as_ref().is_some_and(|member| member.is_current()) {
            let before = standing.member.take();
            standing.member = members.current().ok();
            if let Some(member) = &standing.member
                && before.is_none_or(|before| !Arc::ptr_eq(&before, member))
            {
                let owner = member.owner();
                self.stripe.store(usize::from(member.slot()), Ordering::Relaxed);
                standing.listed = self.enlist(members, owner);
            }
        }
        Here { region: self, member: standing.member.clone() }
    }

    /// Makes the next store check that this process is still a member. A folder that cannot be opened is a sign that it is not.
    pub(super) fn look_again(&self) {
        self.standing.get().lock().unwrap_or_else(PoisonError::into_inner).due = 0;
    }

    /// Lists this process among those that have the region open, in the place of one that has ended.
    fn enlist(&self, members: &Membership, owner: Owner) -> Option<usize> {
        let list = self.words(MEMBERS..MEMBERS + PAGE);
        let take = |is_free: &dyn Fn(u64) -> bool| {
            list.iter().position(|place| {
                let word = place.load(Ordering::Relaxed);
                is_free(word) && place.compare_exchange(word, owner.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            })
        };
        take(&|word| word == 0).or_else(|| take(&|word| !members.is_alive(Owner::from_word(word))))
    }

    /// Lists this process as a user of the region, before its first store does. False if it cannot be one, as after a change of
    /// user.
    pub(crate) fn attend(&self) -> bool {
        self.here().me() != Owner::NOBODY
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let standing = self.standing.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(place), Some(member)) = (standing.listed, &standing.member)
            && let Some(word) = self.words(MEMBERS..MEMBERS + PAGE).get(place)
        {
            let _ = word.compare_exchange(member.owner().word(), 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// This process in a region.
pub(super) struct Here<'a> {
    region: &'a Region,
    /// Kept alive for as long as a lock may name it.
    member: Option<Arc<Member>>,
}

/// The owner of every lock in a region that only this process has.
const ALONE: u64 = 0x0001_0000_0000_0001;

impl Census for Here<'_> {
    fn me(&self) -> Owner {
        match (&self.member, &self.region.members) {
            (Some(member), _) => member.owner(),
            // No other process has the region that could take this one for dead.
            (None, None) => Owner::from_word(ALONE),
            (None, Some(_)) => Owner::NOBODY,
        }
    }

    fn is_alive(&self, owner: Owner) -> bool {
        match &self.region.members {
            Some(members) => members.is_alive(owner),
            None => owner.word() == ALONE,
        }
    }
}
