//! All regions in a folder, seen from outside.

use super::Purpose;
use super::counters::counts;
use super::header::read_header;
use super::layout::{CONTROLS, Layout, MEMBERS, PAGE, RETIRED, committed, controls};
use crate::backend::bytes::Counts;
use crate::backend::shared::atomic::Ordering;
use crate::backend::shared::error::Error;
use crate::backend::shared::shard::Shard;
use crate::backend::shared::system::directory::Location;
use crate::backend::shared::system::files;
use crate::backend::shared::system::liveness::{Membership, Owner};
use crate::backend::shared::system::map::Map;
use std::collections::HashSet;
use std::path::PathBuf;

/// A region, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) purpose: Purpose,
    pub(crate) path: PathBuf,
    /// How many bytes of it have room.
    pub(crate) bytes: usize,
    /// How many entries it has, expired ones among them.
    pub(crate) entries: usize,
    /// The counts of all its users.
    pub(crate) counts: Counts,
    /// How many living processes have it open.
    pub(crate) processes: usize,
}

/// All regions in a folder, of this build's layout; before that, if asked to, removes those that no living process has open. An
/// error if the folder is not to be trusted; without a folder there are no regions.
pub(crate) fn list(location: &Location, removes_unused: bool) -> Result<Vec<Seen>, Error> {
    if !location.exists() {
        return Ok(Vec::new());
    }
    let directory = location.open()?;
    let members = Membership::new(location.clone());
    // If this process cannot be a member, all others count as living.
    let _member = members.current();
    let mut regions = Vec::new();
    for listed in files::list(&directory)? {
        let len = |map: &Map| Some(Layout::new(&read_header(map)?.0.parameters)?.len);
        let Some((map, identity)) = files::inspect(&directory, &listed.name, CONTROLS, len)? else { continue };
        let Some((purpose, _)) = read_header(&map) else { continue };
        let Some(layout) = Layout::new(&purpose.parameters) else { continue };
        // A process is listed once for each function that has the region open.
        let listed_owners =
            map.words(MEMBERS, PAGE).unwrap_or_default().iter().map(|word| word.load(Ordering::Relaxed));
        let owners: HashSet<u64> = listed_owners.filter(|&word| word != 0).collect();
        let processes = owners.into_iter().filter(|&word| members.is_alive(Owner::from_word(word))).count();
        if removes_unused && processes == 0 {
            if let Some(retired) = map.word(RETIRED) {
                retired.store(1, Ordering::Release);
            }
            files::retire(&directory, &listed.name, identity)?;
            continue;
        }
        regions.push(Seen {
            path: directory.path_of(&listed.name),
            bytes: committed(&map, &layout),
            entries: controls(&map, &layout).map(|control| Shard::count_in(control, &layout.geometry)).sum(),
            counts: counts(&map),
            processes,
            purpose,
        });
    }
    Ok(regions)
}
