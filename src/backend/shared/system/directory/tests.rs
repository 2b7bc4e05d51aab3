use super::*;
use crate::backend::shared::tests::actors::{self, Actor, NOBODY, mode, place};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;

fn refusal(location: &Location) -> Reason {
    match location.open() {
        Err(Error::Refused { path, reason }) if path == location.path() => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plays_a_role() {
    let Some((role, location)) = actors::role() else { return };
    match role.as_str() {
        "open" => actors::say(location.open().map_or_else(|error| error.to_string(), |_| "opened".into())),
        "lock" => {
            let _lock = location.open().expect("a folder").lock().expect("its lock");
            actors::say("locked");
            actors::listen();
        }
        umask => {
            let umask = u32::from_str_radix(umask, 8).expect("a umask");
            rustix::process::umask(Mode::from_bits_truncate(umask as _));
            actors::say("ready");
            actors::listen();
            let opened = location.open().and_then(|directory| directory.lock().map(drop));
            actors::say(opened.map_or_else(|error| error.to_string(), |()| "opened".into()));
        }
    }
}

#[test]
fn the_folder_is_where_it_is_asked_for_or_else_the_user_s_own() {
    let choose = |asked: Option<&str>| Location::choose(asked.map(Into::into), Some("/private/T".into()), 501);
    assert_eq!(choose(Some("/srv/cache//./warp/")).path().as_os_str(), "/srv/cache/warp");
    let default = if cfg!(target_os = "linux") { "/dev/shm/warp_cache-501" } else { "/private/T/warp_cache" };
    assert_eq!(choose(None).path(), Path::new(default));
    assert_eq!(choose(Some("")), choose(None));
    assert_eq!(Location::at("cache").path(), std::env::current_dir().expect("a folder").join("cache"));
}

#[test]
fn a_folder_is_made_for_its_owner_alone_and_found_again() {
    let (_place, location) = place();
    let first = location.open().expect("a folder");
    assert_eq!(mode(location.path()), 0o700);
    let second = location.open().expect("the same");
    assert_eq!(Facts::of(&first), Facts::of(&second));
    drop(first.subfolder("live").expect("a folder in it"));
    assert_eq!(mode(&location.path().join("live")), 0o700);
    drop(first.lock().expect("its lock"));
    assert_eq!(mode(&location.path().join("dir.lock")), 0o600);
}

#[test]
fn no_umask_changes_the_modes_whoever_comes_first() {
    for umask in ["0", "777", "277"] {
        let (_place, location) = place();
        let mut actors: Vec<_> = (0..4)
            .map(|_| {
                let mut command = actors::command(module_path!(), umask, &location);
                if actors::is_root() {
                    command.uid(NOBODY).gid(NOBODY);
                }
                Actor::start(&mut command)
            })
            .collect();
        actors::go(&mut actors);
        for actor in &mut actors {
            assert_eq!(actor.line(), "opened", "umask {umask}");
        }
        let lock = location.path().join("dir.lock");
        assert_eq!((mode(location.path()), mode(&lock)), (0o700, 0o600), "umask {umask}");
    }
}

#[test]
fn a_symbolic_link_is_refused_wherever_it_leads_and_however_it_is_spelled() {
    let (place, location) = place();
    symlink(place.path().join("nowhere"), location.path()).expect("a link");
    assert_eq!(refusal(&location), Reason::SymbolicLink);
    let target = place.path().join("nowhere");
    fs::create_dir(&target).expect("a folder");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("our folder");
    assert_eq!(refusal(&location), Reason::SymbolicLink);
    let slash = format!("{}/", location.path().display());
    assert_eq!(refusal(&Location::at(slash)), Reason::SymbolicLink);
    assert_eq!(fs::read_dir(target).expect("a folder").count(), 0);
}

#[test]
fn what_is_no_folder_is_refused() {
    let (_place, location) = place();
    fs::write(location.path(), "").expect("a file");
    assert_eq!(refusal(&location), Reason::NotFolder);
}

#[test]
fn a_folder_that_is_open_to_others_is_refused() {
    let (_place, location) = place();
    fs::create_dir(location.path()).expect("a folder");
    for mode in [0o750, 0o707, 0o711, 0o1777] {
        fs::set_permissions(location.path(), fs::Permissions::from_mode(mode)).expect("our folder");
        assert_eq!(refusal(&location), Reason::Mode { mode });
    }
}

#[test]
fn a_folder_that_another_user_has_taken_the_name_of_is_refused() {
    if !actors::is_root() {
        return;
    }
    let (_place, location) = place();
    fs::create_dir(location.path()).expect("a folder");
    fs::set_permissions(location.path(), fs::Permissions::from_mode(0o700)).expect("our folder");
    let mut nobody = actors::command(module_path!(), "open", &location);
    let mut nobody = Actor::start(nobody.uid(NOBODY).gid(NOBODY));
    let path = location.path().display();
    assert_eq!(nobody.line(), format!("{path} is refused: it belongs to user 0, not to user {NOBODY}"));
    chown(location.path(), Some(NOBODY), Some(NOBODY)).expect("root");
    assert_eq!(refusal(&location), Reason::Owner { uid: NOBODY, expected: 0 });
}

#[test]
fn a_folder_above_that_is_missing_or_closed_is_an_error() {
    let (place, _) = place();
    let location = Location::at(place.path().join("missing/regions"));
    assert_eq!(location.open().map(drop), Err(Error::system("make", location.path(), Errno::NOENT)));
}

#[test]
fn one_at_a_time_has_the_lock() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let lock = directory.lock().expect("its lock");
    let path = directory.path_of("dir.lock");
    let patience = Duration::from_millis(20);
    let started = Instant::now();
    assert_eq!(directory.lock_within(patience).map(drop), Err(Error::Busy { path }));
    assert!(started.elapsed() >= patience);
    drop(lock);
    drop(directory.lock_within(Duration::ZERO).expect("the lock"));
}

#[test]
fn a_lock_is_given_back_for_those_too_who_have_the_open_file() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let lock = directory.lock().expect("its lock");
    let copy = lock.0.0.fd().expect("a descriptor").try_clone_to_owned().expect("a copy");
    drop(lock);
    drop(directory.lock_within(Duration::ZERO).expect("the lock"));
    drop(copy);
}

#[test]
fn a_lock_is_free_when_its_holder_is_killed() {
    let (_place, location) = place();
    let mut holder = Actor::play(module_path!(), "lock", &location);
    assert_eq!(holder.line(), "locked");
    let directory = location.open().expect("a folder");
    assert!(directory.lock_within(Duration::ZERO).is_err());
    holder.kill();
    drop(directory.lock_within(Duration::ZERO).expect("the lock"));
}

#[test]
fn a_lock_s_file_that_was_removed_is_made_anew() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let before = LockFile::take(&directory, "some").expect("no trouble").expect("the lock");
    fs::remove_file(directory.path_of("some")).expect("a file");
    assert!(!before.has_name(&directory, "some"));
    let after = LockFile::take(&directory, "some").expect("no trouble").expect("the lock");
    assert!(after.has_name(&directory, "some") && !before.has_name(&directory, "some"));
}

#[test]
fn a_lock_s_file_is_a_file() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    symlink("elsewhere", directory.path_of("link")).expect("a link");
    fs::create_dir(directory.path_of("folder")).expect("a folder");
    let take = |name| LockFile::take(&directory, name).map(drop);
    assert_eq!(take("link"), Err(Trouble::Refused(Reason::SymbolicLink)));
    assert_eq!(take("folder"), Err(Trouble::Refused(Reason::NotRegular)));
    assert!(!directory.path_of("elsewhere").exists());
}
