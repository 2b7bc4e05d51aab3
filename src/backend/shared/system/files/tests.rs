use super::super::directory::Location;
use super::*;
use crate::backend::shared::tests::actors::{self, Actor, NOBODY, mode, place};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const NAME: &str = "m.f-0123.wc";
const LEN: usize = 8192;
const MARK: u64 = 0x1234_5678_9abc_def0;

fn has_mark(map: &Map) -> bool {
    map.word(0).is_some_and(|word| word.load(Ordering::Acquire) == MARK)
}

fn set_mark(map: &Map) {
    map.word(0).expect("a word").store(MARK, Ordering::Release);
}

fn open_here(directory: &Directory) -> Opened {
    open(directory, NAME, Size::whole(LEN), has_mark, set_mark).expect("a region")
}

fn temporaries(location: &Location) -> usize {
    let entries = fs::read_dir(location.path()).expect("a folder");
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_temporary(&entry.file_name()))).count()
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with(TEMPORARY)
}

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("a list").count()
}

#[test]
fn plays_a_role() {
    let Some((role, location)) = actors::role() else { return };
    match role.as_str() {
        "race" => {
            let directory = location.open().expect("a folder");
            actors::say("ready");
            actors::listen();
            let own = u64::from(std::process::id());
            let fill = |map: &Map| {
                map.word(8).expect("a word").store(own, Ordering::Relaxed);
                set_mark(map);
            };
            let opened = open(&directory, NAME, Size::whole(LEN), has_mark, fill).expect("a region");
            let creator = opened.map.word(8).expect("a word").load(Ordering::Relaxed);
            actors::say(format_args!("{:?} {creator}", opened.origin));
        }
        "stall" => {
            let stall = |_: &Map| {
                actors::say("creating");
                actors::listen();
            };
            drop(open(&location.open().expect("a folder"), NAME, Size::whole(LEN), has_mark, stall));
        }
        "umask" => {
            rustix::process::umask(Mode::from_bits_truncate(0o777));
            let directory = location.open().expect("a folder");
            drop(open_here(&directory));
            assert_eq!(open_here(&directory).origin, Origin::Found);
            actors::say("done");
        }
        "full" => plays_full(&location),
        #[cfg(target_os = "linux")]
        "leak" => {
            let directory = location.open().expect("a folder");
            drop(open_here(&directory));
            let before = descriptors();
            for _ in 0..1000 {
                drop(open_here(&directory));
                assert!(unlink(&directory, NAME).expect("no trouble"));
                drop(location.open().expect("a folder"));
                drop(list(&directory));
            }
            assert_eq!(descriptors(), before);
            let maps = fs::read_to_string("/proc/self/maps").expect("a list");
            assert_eq!(maps.matches(NAME).count(), 0);
            actors::say("done");
        }
        other => panic!("{other}"),
    }
}

/// In a file system of one megabyte and 16 files.
fn plays_full(location: &Location) {
    let directory = location.open().expect("a folder");
    let path = directory.path_of(NAME);
    let big = Size::whole(4 << 20);
    let error = open(&directory, NAME, big, |_| true, |_| panic!("too early")).map(drop);
    assert_eq!(error, Err(Error::Full { path: path.clone(), bytes: 4 << 20 }));
    assert_eq!((list(&directory), temporaries(location)), (Ok(vec![]), 0));

    let growing = Size { len: 4 << 20, allocated: 4096 };
    let opened = open(&directory, NAME, growing, |_| true, |_| ()).expect("a small region");
    assert_eq!(opened.file.extend(4096, 512 << 10), Ok(()));
    assert_eq!(opened.file.extend(512 << 10, 3 << 20), Err(Errno::NOSPC));
    opened.map.write_bytes(0, &vec![1; 512 << 10]).expect("room");
    drop(opened);

    for number in 0..16 {
        let name = format!("{number}.wc");
        if let Err(error) = open(&directory, &name, Size::whole(8), |_| true, |_| ()) {
            assert_eq!(error, Error::Full { path: directory.path_of(&name), bytes: 8 });
            assert_eq!(temporaries(location), 0);
            return actors::say("done");
        }
    }
    panic!("a file system of 16 files took more");
}

#[test]
fn a_region_is_created_once_and_then_found() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let created = open_here(&directory);
    assert_eq!(created.origin, Origin::Created);
    created.map.word(LEN - 8).expect("a word").store(7, Ordering::Relaxed);
    let found = open_here(&directory);
    assert_eq!((found.origin, found.file.identity()), (Origin::Found, created.file.identity()));
    assert_eq!(found.map.word(LEN - 8).expect("a word").load(Ordering::Relaxed), 7);
    let path = directory.path_of(NAME);
    assert_eq!((mode(&path), fs::metadata(&path).expect("a file").len()), (0o600, LEN as u64));
    let listed = list(&directory).expect("a list");
    assert_eq!(listed, [Listed { name: NAME.into(), facts: Facts::of_name(directory.as_fd(), NAME).expect("facts") }]);
    assert_eq!(temporaries(&location), 0);
}

#[test]
fn a_map_lives_without_its_file_and_its_name() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let Opened { map, file, .. } = open_here(&directory);
    drop(file);
    assert_eq!((unlink(&directory, NAME), unlink(&directory, NAME)), (Ok(true), Ok(false)));
    assert!(has_mark(&map));
    assert_eq!(open_here(&directory).origin, Origin::Created);
}

#[test]
fn retiring_a_region_spares_its_successor() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let first = open_here(&directory);
    assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(true));
    assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(false));
    let second = open_here(&directory);
    assert_eq!(retire(&directory, NAME, first.file.identity()), Ok(false));
    assert_eq!(open_here(&directory).file.identity(), second.file.identity());
}

#[test]
fn a_name_stays_in_its_folder_and_out_of_the_way() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let long = format!("{}.wc", "x".repeat(198));
    for name in ["../f.wc", "/f.wc", ".wc", "", "f", "registry", "tmp-1.wc", "a/b.wc", "nul\0.wc", &long] {
        let refused = Error::refused(&directory.path_of(name), Reason::Name);
        assert_eq!(open(&directory, name, Size::whole(8), |_| true, |_| ()).map(drop), Err(refused.clone()));
        assert_eq!(unlink(&directory, name), Err(refused));
    }
    assert_eq!(fs::read_dir(location.path()).expect("a folder").count(), 0);
}

/// Puts something in a region's place, and expects it to be removed and a sound region to be there.
fn replaces(reason: Reason, damage: impl FnOnce(PathBuf)) {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let before = open_here(&directory);
    damage(directory.path_of(NAME));
    let after = open_here(&directory);
    assert_eq!(after.origin, Origin::Replaced(reason));
    assert_ne!(after.file.identity(), before.file.identity());
    assert_eq!(Facts::of_name(directory.as_fd(), NAME).expect("facts").check_file(directory.uid()), Ok(()));
    assert_eq!(open_here(&directory).file.identity(), after.file.identity());
}

#[test]
fn what_is_no_file_of_ours_alone_is_replaced() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("target");
    fs::write(&target, "theirs").expect("a file");
    replaces(Reason::SymbolicLink, |path| {
        fs::remove_file(&path).expect("a file");
        symlink(&target, path).expect("a link");
    });
    assert_eq!(fs::read(&target).expect("a file"), b"theirs");
    replaces(Reason::Links { count: 2 }, |path| {
        fs::hard_link(&path, path.with_extension("other")).expect("a link");
    });
    replaces(Reason::NotRegular, |path| {
        fs::remove_file(&path).expect("a file");
        #[cfg(target_os = "linux")]
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, FILE_MODE, 0).expect("a pipe");
        #[cfg(not(target_os = "linux"))]
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    });
    replaces(Reason::Mode { mode: 0o640 }, |path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("our file");
    });
    if actors::is_root() {
        replaces(Reason::Owner { uid: NOBODY, expected: 0 }, |path| chown(path, Some(NOBODY), None).expect("root"));
    }
}

#[test]
fn a_file_of_another_length_is_replaced() {
    for len in [0, 1, 4096, LEN as u64 - 1, LEN as u64 + 1, 1 << 30] {
        replaces(Reason::Length { len, expected: LEN as u64 }, |path| {
            fs::remove_file(&path).expect("a file");
            let file = File::create(&path).expect("a file");
            file.set_len(len).expect("room");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our file");
        });
    }
}

#[test]
fn damaged_content_is_replaced_and_who_uses_it_keeps_it() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let before = open_here(&directory);
    before.map.word(0).expect("a word").store(1, Ordering::Relaxed);
    assert_eq!(open_here(&directory).origin, Origin::Replaced(Reason::Content));
    assert_eq!(before.map.word(0).expect("a word").load(Ordering::Relaxed), 1);
}

#[test]
fn a_folder_in_a_region_s_place_is_an_error() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    fs::create_dir(directory.path_of(NAME)).expect("a folder");
    let opened = open(&directory, NAME, Size::whole(LEN), has_mark, set_mark).map(drop);
    assert!(matches!(opened, Err(Error::System { action: "remove", .. })), "{opened:?}");
}

#[test]
fn of_eight_threads_one_creates() {
    for _ in 0..20 {
        let (_place, location) = place();
        let (barrier, created) = (Barrier::new(8), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let directory = location.open().expect("a folder");
                    barrier.wait();
                    let opened = open_here(&directory);
                    assert!(has_mark(&opened.map));
                    created.fetch_add(usize::from(opened.origin == Origin::Created), Ordering::Relaxed);
                });
            }
        });
        assert_eq!((created.into_inner(), temporaries(&location)), (1, 0));
    }
}

#[test]
fn of_eight_processes_one_creates_and_all_see_its_region() {
    let (_place, location) = place();
    let mut actors: Vec<_> = (0..8).map(|_| Actor::play(module_path!(), "race", &location)).collect();
    actors::go(&mut actors);
    let mut lines: Vec<_> = actors.iter_mut().map(Actor::line).collect();
    lines.sort_unstable();
    let (created, creator) = lines[0].split_once(' ').expect("two words");
    assert_eq!(created, "Created");
    assert!(lines[1..].iter().all(|line| line == &format!("Found {creator}")), "{lines:?}");
    assert_eq!(temporaries(&location), 0);
}

#[test]
fn what_a_killed_creator_leaves_is_never_opened_and_removed_by_the_next() {
    let (_place, location) = place();
    let mut creator = Actor::play(module_path!(), "stall", &location);
    assert_eq!(creator.line(), "creating");
    creator.kill();
    let directory = location.open().expect("a folder");
    assert_eq!((list(&directory), temporaries(&location)), (Ok(vec![]), 1));
    assert_eq!(open_here(&directory).origin, Origin::Created);
    assert_eq!(temporaries(&location), 0);
}

#[test]
fn a_temporary_file_goes_when_its_creator_has_or_is_a_minute_late() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let (kept, kept_fd) = Temporary::new(&directory).expect("a file");
    let (late, late_fd) = Temporary::new(&directory).expect("a file");
    let file = File::from(late_fd);
    file.set_modified(SystemTime::now() - Duration::from_secs(62)).expect("our file");
    fs::write(directory.path_of("tmp-dead"), "").expect("a file");
    symlink("nowhere", directory.path_of("tmp-link")).expect("a link");
    drop(open_here(&directory));
    let mut left = names(&directory).expect("names");
    left.retain(|name| name.starts_with(TEMPORARY));
    left.sort_unstable();
    assert_eq!(left, [kept.name.clone(), "tmp-link".into()]);
    assert_eq!(late.publish("late.wc"), Err(Errno::NOENT));
    assert_eq!(kept.publish(NAME), Err(Errno::EXIST));
    assert!(!directory.path_of(&left[0]).exists());
    drop(kept_fd);
}

#[test]
fn an_initialisation_that_panics_leaves_nothing() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let panicked = std::panic::catch_unwind(|| {
        drop(open(&directory, NAME, Size::whole(LEN), has_mark, |_| std::panic::resume_unwind(Box::new(()))));
    });
    assert!(panicked.is_err());
    assert_eq!((list(&directory), temporaries(&location)), (Ok(vec![]), 0));
    assert_eq!(open_here(&directory).origin, Origin::Created);
}

#[test]
fn renaming_to_a_name_that_is_taken_fails_and_changes_nothing() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    fs::write(directory.path_of("from"), "new").expect("a file");
    fs::write(directory.path_of("to"), "old").expect("a file");
    assert_eq!(rename_to_new(&directory, "from", "to"), Err(Errno::EXIST));
    assert_eq!(fs::read(directory.path_of("to")).expect("a file"), b"old");
    assert_eq!(rename_to_new(&directory, "from", "other"), Ok(()));
}

#[test]
#[cfg(target_os = "linux")]
fn room_is_taken_when_it_is_asked_for() {
    use std::os::unix::fs::MetadataExt;
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let size = Size { len: 1 << 20, allocated: 8192 };
    let opened = open(&directory, NAME, size, |_| true, |_| ()).expect("a region");
    let facts = || fs::metadata(directory.path_of(NAME)).map(|facts| (facts.len(), facts.blocks() * 512));
    assert_eq!(facts().expect("a file"), (1 << 20, 8192));
    assert_eq!(opened.file.extend(8192, 65536), Ok(()));
    assert_eq!(facts().expect("a file"), (1 << 20, 65536));
    opened.map.write_bytes(65528, &[1; 8]).expect("room");
    assert_eq!(opened.file.extend(65536, (1 << 20) + 1), Err(Errno::INVAL));
    let found = open(&directory, NAME, size, |_| true, |_| ()).expect("a region");
    assert_eq!((found.origin, found.file.extend(0, 1 << 20)), (Origin::Found, Ok(())));
    assert_eq!(opened.map.word(65528).expect("a word").load(Ordering::Relaxed), 0x0101_0101_0101_0101);
    assert_eq!(facts().expect("a file"), (1 << 20, 1 << 20));
}

#[test]
fn zeros_that_are_written_take_room_too() {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(20_000).expect("room");
    let fd = OwnedFd::from(file.try_clone().expect("a descriptor"));
    file.write_all_at(&vec![1; 20_000], 0).expect("room");
    assert_eq!(write_zeros(&fd, 5, 9000), Ok(()));
    let mut bytes = vec![0; 20_000];
    file.read_exact_at(&mut bytes, 0).expect("bytes");
    assert_eq!(bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 11_000);
    assert!(bytes[..5] == [1; 5] && bytes[5..9005] == [0; 9000]);
    assert_eq!(file.metadata().expect("a file").len(), 20_000);
}

#[test]
fn a_descriptor_that_the_program_has_given_to_something_else_is_left_alone() {
    let (_place, location) = place();
    let directory = location.open().expect("a folder");
    let mut opened = open_here(&directory);
    let other = File::create(directory.path_of("theirs")).expect("a file");
    let fd = opened.file.fd.as_mut().expect("a descriptor");
    rustix::io::dup2(&other, fd).expect("another file");
    let number = std::os::fd::AsRawFd::as_raw_fd(fd);
    assert_eq!(opened.file.extend(0, LEN), Err(Errno::BADF));
    drop(opened);
    if cfg!(target_os = "linux") {
        let still = fs::read_link(format!("/proc/self/fd/{number}")).expect("an open file");
        assert_eq!(still, directory.path_of("theirs"));
    }
}

#[test]
fn no_umask_changes_a_file_s_mode() {
    let (_place, location) = place();
    let mut command = actors::command(module_path!(), "umask", &location);
    if actors::is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut actor = Actor::start(&mut command);
    assert_eq!(actor.line(), "done");
    assert_eq!(mode(&location.path().join(NAME)), 0o600);
    actor.finish();
}

#[test]
#[cfg(target_os = "linux")]
fn no_descriptor_is_left_open() {
    let (_place, location) = place();
    let mut actor = Actor::play(module_path!(), "leak", &location);
    assert_eq!(actor.line(), "done");
    actor.finish();
}

/// Needs a mount namespace of its own, which takes root: skipped without.
#[test]
#[cfg(target_os = "linux")]
fn a_full_file_system_is_an_error_and_leaves_no_file() {
    use std::process::Command;
    let unshare = || Command::new("unshare").args(["-m", "true"]).status();
    if !actors::is_root() || !unshare().is_ok_and(|status| status.success()) {
        return;
    }
    let (place, location) = place();
    let role = actors::command(module_path!(), "full", &location);
    let script = "mount -t tmpfs -o size=1m,nr_inodes=16 none \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(place.path()).arg(role.get_program()).args(role.get_args());
    command.envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut actor = Actor::start(&mut command);
    assert_eq!(actor.line(), "done");
    actor.finish();
}
