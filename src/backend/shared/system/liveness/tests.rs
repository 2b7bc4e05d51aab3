use super::*;
use crate::backend::shared::tests::actors::{self, Actor, NOBODY, mode, place};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::CommandExt;

fn registered(location: &Location) -> Member {
    Member::register(location).expect("a slot")
}

/// The owner that another process says it is.
fn owner(actor: &mut Actor) -> Owner {
    Owner::from_word(actor.line().parse().expect("a word"))
}

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("a list").count()
}

#[test]
fn plays_a_role() {
    let Some((role, location)) = actors::role() else { return };
    match role.as_str() {
        "member" => {
            let member = registered(&location);
            actors::say(member.owner().word());
            actors::listen();
        }
        "umask" => {
            rustix::process::umask(Mode::from_bits_truncate(0o777));
            actors::say("ready");
            actors::listen();
            let member = registered(&location);
            actors::say(member.slot());
            actors::listen();
            assert!(member.is_still_registered());
        }
        #[cfg(target_os = "linux")]
        "descriptors" => {
            drop(registered(&location));
            let before = descriptors();
            let member = registered(&location);
            assert_eq!(descriptors(), before + 1);
            for _ in 0..1000 {
                assert!(member.is_still_registered());
                assert!(!member.is_alive(Owner::new(9, 1)) || !location.path().join("live/9").exists());
                drop(registered(&location));
            }
            assert_eq!(descriptors(), before + 1);
            let listed = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().expect("a list");
            assert!(!String::from_utf8_lossy(&listed.stdout).contains("live"));
            drop(member);
            assert_eq!(descriptors(), before);
            actors::say("done");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_owner_is_one_word_and_a_word_of_anything_is_at_most_a_dead_one() {
    assert_eq!(Owner::new(0, 1).word(), 0x0001_0000_0000_0001);
    assert_eq!(Owner::new(4095, INCARNATION).word(), 0x1000_ffff_ffff_ffff);
    assert_eq!(Owner::new(7, 9).parts(), Some((7, 9)));
    for word in [0, 1, INCARNATION, 1 << INCARNATION_BITS, 0x1001_0000_0000_0001, u64::MAX] {
        assert_eq!(Owner::from_word(word).parts(), None, "{word:#x}");
    }
    let (_place, location) = place();
    let member = registered(&location);
    for word in [0, 1, u64::MAX, 0x1001_0000_0000_0001] {
        assert!(!member.is_alive(Owner::from_word(word)), "{word:#x}");
    }
    assert_eq!(Owner::default(), Owner::NOBODY);
}

#[test]
fn incarnations_follow_each_other_and_are_never_zero() {
    assert_eq!((incarnation_after(1), incarnation_after(INCARNATION - 1)), (2, INCARNATION));
    assert_eq!(incarnation_after(INCARNATION), 1);
    let fresh: Vec<_> = (0..4).map(|_| incarnation_after(0)).collect();
    assert!(fresh.iter().all(|&incarnation| incarnation != 0 && incarnation <= INCARNATION));
    assert!(fresh.iter().any(|&incarnation| incarnation != fresh[0]), "{fresh:?}");
}

#[test]
fn members_take_the_first_free_slot_and_another_incarnation() {
    let (_place, location) = place();
    let (first, second) = (registered(&location), registered(&location));
    assert_eq!((first.slot(), second.slot()), (0, 1));
    let old = first.owner();
    assert!(first.is_alive(second.owner()) && second.is_alive(old) && first.is_alive(old));
    let before = first.incarnation;
    drop(first);
    assert!(!second.is_alive(old));
    let third = registered(&location);
    assert_eq!((third.slot(), third.incarnation), (0, incarnation_after(before)));
    assert!(second.is_alive(third.owner()) && !second.is_alive(old) && !third.is_alive(old));
    assert!(second.is_still_registered() && third.is_still_registered());
    assert_eq!(registered(&location).slot(), 2);
}

#[test]
fn the_files_of_the_members_are_their_owner_s_alone() {
    let (_place, location) = place();
    let member = registered(&location);
    let at = |name: &str| location.path().join(name);
    assert_eq!(member.slot(), 0);
    assert_eq!((mode(&at("live")), mode(&at("live/0")), mode(&at("registry"))), (0o700, 0o600, 0o600));
    let facts = fs::metadata(at("registry")).expect("a file");
    assert_eq!((facts.len(), fs::metadata(at("live/0")).expect("a file").len()), (64 + 8 * 4096, 0));
    let bytes = fs::read(at("registry")).expect("bytes");
    assert_eq!(bytes[..8], Registry::MAGIC.to_ne_bytes());
    assert_eq!(bytes[8..24], BootId::current().0);
    assert_eq!(bytes[64..72], member.incarnation.to_ne_bytes());
}

#[test]
fn without_a_free_slot_there_is_no_member() {
    let (_place, location) = place();
    let members: Vec<_> = (0..2).map(|_| Member::register_among(&location, 2).expect("a slot")).collect();
    let crowded = Member::register_among(&location, 2).map(drop);
    assert_eq!(crowded, Err(Error::Crowded { path: location.path().join("live") }));
    drop(members);
    drop(Member::register_among(&location, 2).expect("a slot"));
}

#[test]
fn a_slot_whose_file_is_no_file_is_left_out() {
    let (_place, location) = place();
    drop(location.open().and_then(|directory| directory.subfolder(LIVE)).expect("a folder"));
    let live = location.path().join("live");
    fs::create_dir(live.join("0")).expect("a folder");
    std::os::unix::fs::symlink("2", live.join("1")).expect("a link");
    assert_eq!(registered(&location).slot(), 2);
}

#[test]
fn a_killed_member_is_dead_at_once_and_a_stopped_one_lives() {
    let (_place, location) = place();
    let member = registered(&location);
    let mut other = Actor::play(module_path!(), "member", &location);
    let owner = owner(&mut other);
    assert_eq!(owner.parts().map(|(slot, _)| slot), Some(1));
    assert!(member.is_alive(owner));
    other.signal(Signal::STOP);
    assert!(member.is_alive(owner));
    other.signal(Signal::CONT);
    assert!(member.is_alive(owner));
    other.kill();
    assert!(!member.is_alive(owner));
    assert_eq!(registered(&location).slot(), 1);
}

#[test]
fn a_killed_member_that_nobody_waits_for_is_dead() {
    let (_place, location) = place();
    let member = registered(&location);
    let mut other = Actor::play(module_path!(), "member", &location);
    let owner = owner(&mut other);
    other.signal(Signal::STOP);
    other.signal(Signal::KILL);
    // Only the signal's delivery is waited for, not the process.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while member.is_alive(owner) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn where_nothing_can_be_learned_an_owner_lives() {
    let (_place, location) = place();
    let (member, other) = (registered(&location), registered(&location));
    fs::remove_file(location.path().join("live/1")).expect("a file");
    assert!(member.is_alive(other.owner()));
    // The registry says no more who had the slot: its lock does.
    let third = registered(&location);
    assert_eq!(third.slot(), 1);
    member.registry.incarnation(1).expect("a word").store(0, Ordering::Release);
    assert!(member.is_alive(other.owner()));
    drop(third);
    assert!(!member.is_alive(other.owner()));
}

#[test]
fn a_membership_is_one_until_it_is_lost() {
    let (_place, location) = place();
    let membership = Membership::new(location.clone());
    let first = membership.current().expect("a slot");
    assert!(Arc::ptr_eq(&first, &membership.current().expect("a slot")));
    assert!(first.is_current() && membership.is_alive(first.owner()));
    for name in ["live/0", "registry"] {
        let before = membership.current().expect("a slot");
        fs::remove_file(location.path().join(name)).expect("a file");
        assert!(!before.is_still_registered());
        let after = membership.current().expect("a slot");
        assert!(!Arc::ptr_eq(&before, &after) && after.is_still_registered() && after.owner() != before.owner());
    }
    drop(first);
    fs::remove_dir_all(location.path()).expect("our folder");
    let anew = membership.current().expect("a slot");
    assert_eq!((anew.slot(), anew.is_still_registered()), (0, true));
}

#[test]
fn a_slot_that_has_been_given_another_incarnation_is_lost() {
    let (_place, location) = place();
    let member = registered(&location);
    member.registry.incarnation(0).expect("a word").fetch_add(1, Ordering::Release);
    assert!(!member.is_still_registered());
}

#[test]
fn a_registry_of_another_start_of_the_machine_or_none_of_ours_is_made_anew() {
    let (_place, location) = place();
    let before = registered(&location);
    for place in [0, WORD] {
        let word = before.registry.map.word(place).expect("a word");
        word.fetch_xor(1, Ordering::Release);
        let after = registered(&location);
        assert_ne!(after.registry.identity, before.registry.identity);
        assert!(!before.is_still_registered() && after.is_still_registered());
        // Nobody knows the other's incarnation. The lock says that it lives.
        assert!(after.is_alive(before.owner()));
        word.fetch_xor(1, Ordering::Release);
    }
}

#[test]
fn members_of_any_umask_get_slots_of_their_own() {
    let (_place, location) = place();
    let mut actors: Vec<_> = (0..6)
        .map(|_| {
            let mut command = actors::command(module_path!(), "umask", &location);
            if actors::is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            Actor::start(&mut command)
        })
        .collect();
    actors::go(&mut actors);
    let mut slots: Vec<u16> = actors.iter_mut().map(|actor| actor.line().parse().expect("a slot")).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 6);
    let at = |name: String| location.path().join(name);
    assert!(slots.iter().all(|slot| mode(&at(format!("live/{slot}"))) == 0o600));
    assert_eq!((mode(&at("live".into())), mode(&at("registry".into()))), (0o700, 0o600));
    actors.into_iter().for_each(Actor::finish);
}

#[test]
#[cfg(target_os = "linux")]
fn a_member_keeps_one_descriptor_and_passes_none_on() {
    let (_place, location) = place();
    let mut actor = Actor::play(module_path!(), "descriptors", &location);
    assert_eq!(actor.line(), "done");
    actor.finish();
}
