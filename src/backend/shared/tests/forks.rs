//! What a forked child has of its parent: no descriptor, no lock, no membership.

#![allow(unsafe_code)]

use super::actors::{self, Actor, place};
use crate::backend::shared::system::directory::LockFile;
use crate::backend::shared::system::liveness::{Membership, Owner};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Forks as a program does, or without telling the library.
fn fork(is_told: bool) -> i32 {
    // SAFETY: the tests that fork run alone in their process. What a child does takes no lock that one of its parent's
    // other threads can have, but the allocator's, which the C library sees to.
    unsafe {
        if is_told {
            libc::fork()
        } else {
            let (flags, zero) = (libc::c_long::from(libc::SIGCHLD), 0 as libc::c_long);
            i32::try_from(libc::syscall(libc::SYS_clone, flags, zero, zero, zero, zero)).expect("a process number")
        }
    }
}

/// Ends a forked child without a word from the test harness.
fn end(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// How a child has ended.
fn status(child: i32) -> Option<i32> {
    let child = rustix::process::Pid::from_raw(child);
    let ended = rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).expect("its end");
    ended.and_then(|(_, status)| status.exit_status())
}

/// 0 if a child has no descriptor of a file of this name.
fn inherited(name: &str) -> Option<i32> {
    let child = fork(true);
    if child == 0 {
        let mut links = (3..32).filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok());
        end(i32::from(links.any(|link| link.ends_with(name))));
    }
    status(child)
}

#[test]
fn plays_a_role() {
    let Some((role, location)) = actors::role() else { return };
    let membership = Membership::new(location.clone());
    match role.as_str() {
        "fork" | "clone" => {
            let parent = membership.current().expect("a slot");
            if fork(role == "fork") == 0 {
                let is_told = !parent.is_current();
                let child = membership.current().expect("a slot");
                let told = (is_told, parent.is_still_registered(), child.is_alive(parent.owner()));
                actors::say(format_args!("{told:?} {} {}", parent.owner().word(), child.owner().word()));
                drop(parent);
                // Until the test is over.
                actors::listen();
                end(0);
            }
            actors::listen();
        }
        "daemon" => {
            let before = membership.current().expect("a slot");
            // SAFETY: nothing in this process uses a descriptor from 3 on but the member, and that looks first.
            unsafe { libc::close_range(3, 1000, 0) };
            let theirs: Vec<_> = (0..20).map(|_| File::open("/dev/null").expect("a file")).collect();
            assert!(!before.is_still_registered());
            let after = membership.current().expect("a slot");
            assert!(after.is_still_registered() && after.owner() != before.owner());
            drop(before);
            let all_open = || theirs.iter().all(|file| file.metadata().is_ok());
            assert!(all_open());
            let child = fork(true);
            if child == 0 {
                end(i32::from(!all_open()));
            }
            assert_eq!(status(child), Some(0));
            assert!(after.is_still_registered());
            actors::say("done");
        }
        "storm" => {
            let is_over = AtomicBool::new(false);
            let children = thread::scope(|scope| {
                scope.spawn(|| {
                    let directory = location.open().expect("a folder");
                    while !is_over.load(Ordering::Relaxed) {
                        drop(LockFile::take(&directory, "stormy"));
                    }
                });
                let children: Vec<_> = (0..300).map(|_| inherited("stormy")).collect();
                is_over.store(true, Ordering::Relaxed);
                children
            });
            actors::say(children.iter().filter(|&&status| status != Some(0)).count());
        }
        other => panic!("{other}"),
    }
}

/// A child is another member, leaves its parent's lock alone, and does not keep its parent alive.
fn forks(role: &str) {
    let (_place, location) = place();
    let membership = Membership::new(location.clone());
    let mut parent = Actor::play(module_path!(), role, &location);
    let line = parent.line();
    let (told, words) = line.split_once(") ").expect("two parts");
    assert_eq!(told, format!("({}, false, true", role == "fork"));
    let owners: Vec<_> = words.split(' ').map(|word| Owner::from_word(word.parse().expect("a word"))).collect();
    assert_ne!(owners[0], owners[1]);
    assert!(membership.is_alive(owners[0]) && membership.is_alive(owners[1]));
    parent.kill();
    assert!(!membership.is_alive(owners[0]));
    assert!(membership.is_alive(owners[1]));
}

#[test]
fn a_forked_child_does_not_vouch_for_its_parent() {
    forks("fork");
}

#[test]
fn a_child_that_no_hook_has_told_finds_out() {
    forks("clone");
}

#[test]
fn no_child_inherits_what_is_opened_during_the_fork() {
    let (_place, location) = place();
    let mut actor = Actor::play(module_path!(), "storm", &location);
    assert_eq!(actor.line(), "0");
    actor.finish();
}

#[test]
fn descriptors_that_the_program_closed_are_neither_used_nor_closed() {
    let (_place, location) = place();
    let mut actor = Actor::play(module_path!(), "daemon", &location);
    assert_eq!(actor.line(), "done");
    actor.finish();
}
