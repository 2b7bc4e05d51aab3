//! Folders and other processes, for the tests. Another process is this test binary again, told to run one test alone, which
//! finds out from its environment which role it plays. The two talk in lines.

use super::super::system::directory::Location;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const ROLE: &str = "WARP_CACHE_TEST_ROLE";
const FOLDER: &str = "WARP_CACHE_TEST_FOLDER";

/// What a line begins with that is meant for the other process: the test harness prints lines, too.
const MARK: &str = "@ ";

/// A user that is nobody else's.
pub(crate) const NOBODY: u32 = 65534;

/// A new place for a folder, in memory if possible, gone at the end of the test. Every user may make the folder.
pub(crate) fn place() -> (tempfile::TempDir, Location) {
    use std::os::unix::fs::PermissionsExt;
    let memory = Path::new("/dev/shm");
    let above = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("warp_cache-test-").tempdir_in(above).expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).expect("our folder");
    let location = Location::at(folder.path().join("regions"));
    (folder, location)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The permissions of a file, a symbolic link's own.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).expect("a file").mode() & 0o7777
}

/// The role this process plays, if any, and where.
pub(crate) fn role() -> Option<(String, Location)> {
    let folder = std::env::var_os(FOLDER)?;
    Some((std::env::var(ROLE).ok()?, Location::at(folder)))
}

/// Says something to the process that started this one.
pub(crate) fn say(words: impl std::fmt::Display) {
    // In one write, past the harness's own buffer.
    let line = format!("\n{MARK}{words}\n");
    rustix::io::write(std::io::stdout(), line.as_bytes()).expect("somebody who listens");
}

/// Waits for a line from the process that started this one; returns at its end, too.
pub(crate) fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("a pipe");
    line.trim().to_owned()
}

/// The command that plays a role in the test `plays_a_role` of a module: `module_path!()`.
pub(crate) fn command(module: &str, role: &str, location: &Location) -> Command {
    let (_, module) = module.split_once("::").expect("a module of this crate");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.arg(format!("{module}::plays_a_role")).args(["--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(FOLDER, location.path());
    command
}

/// Another process that plays a role. Killed at the end.
pub(crate) struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Actor {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("another process");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// Starts a process that plays a role of a module.
    pub(crate) fn play(module: &str, role: &str, location: &Location) -> Self {
        Self::start(&mut command(module, role, location))
    }

    /// What it says next.
    pub(crate) fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("text"), 0, "the other process said nothing more");
            if let Some(words) = line.strip_prefix(MARK) {
                return words.trim().to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self, words: &str) {
        writeln!(self.input.as_mut().expect("a pipe"), "{words}").expect("somebody who listens");
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("a process");
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("its end");
    }

    /// Waits until it ends by itself, without a failure.
    pub(crate) fn finish(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets all begin at once that have said that they are ready.
pub(crate) fn go(actors: &mut [Actor]) {
    for actor in &mut *actors {
        assert_eq!(actor.line(), "ready");
    }
    for actor in actors {
        actor.tell("go");
    }
}

/// A generator of numbers that are random enough.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).expect("small")]
    }
}
