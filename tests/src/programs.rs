//! The programs under test as child processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::link::TestLink;
use crate::{FakedClock, TestStore, wait_for};

/// Variables that would change what the programs do.
const VARIABLES: [&str; 21] = [
    "CREDENTIALS_DIRECTORY",
    "FEDLORA_DIR",
    "FEDLORA_LISTEN",
    "FEDLORA_JOIN_LISTEN",
    "FEDLORA_METRICS",
    "FEDLORA_WEB",
    "FEDLORA_WEB_HOST",
    "FEDLORA_ADVERTISE",
    "FEDLORA_JOIN_ADVERTISE",
    "FEDLORA_BASE",
    "FEDLORA_DEVICE",
    "FEDLORA_SIM_OUT",
    "FEDLORA_STORE_DATABASE",
    "FEDLORA_STORE_BLOBS",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "FEDLORA_TRANSPORT",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The folder of the programs, which are built once in the tests' own profile: cargo does not
/// build other packages' programs for a test. As tests of the whole workspace, so that what these
/// have built is not built once more with other features.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test
            .ancestors()
            .nth(2)
            .expect("tests lie in TARGET/PROFILE/deps");
        let target = profile.parent().expect("a profile lies in a target folder");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .args(["test", "--workspace", "--no-run", "--quiet"])
            .args(["--test", "program"])
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status().expect("cargo can be started");
        assert!(status.success(), "the programs do not build");
        profile.to_owned()
    })
}

/// A command that runs one of the programs.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(folder().join(name));
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    FakedClock::give_to(&mut command);
    TestStore::tell(&mut command);
    // The simulator has networks of its own.
    if name == "fedlora" && TestLink::asked() == Some(TestLink::Tcp) {
        command.env("FEDLORA_TRANSPORT", "tcp");
    }
    command
}

/// A child process; killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    /// Standard output and error.
    files: TempDir,
}

/// What a process has taken at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    /// Memory, in bytes.
    pub memory: u64,
    /// The size of its table of open files, a power of two that never shrinks: no more were open.
    pub files: u64,
}

/// A child process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What it was called.
    pub name: String,
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Running {
    /// Starts a program.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| File::create(files.path().join(name)).expect("a temporary file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self {
            name: name.to_owned(),
            child,
            files,
        }
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process has taken at most so far; nothing once it has ended. Linux alone tells.
    pub fn peak(&self) -> Peaks {
        Peaks {
            memory: self.told("VmHWM:") * 1024,
            files: self.told("FDSize:"),
        }
    }

    /// What the process takes at most, until it ends.
    pub async fn peaks(&self) -> Peaks {
        let mut peaks = Peaks::default();
        loop {
            let now = self.peak();
            // One that has ended and is not waited for yet has no memory.
            if now.memory == 0 {
                return peaks;
            }
            peaks.memory = peaks.memory.max(now.memory);
            peaks.files = peaks.files.max(now.files);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A number of the process's status; 0 once it has ended.
    fn told(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.text("err")
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.text("out")
    }

    /// Waits until standard error holds `text`.
    pub fn wait_for(&mut self, text: &str) {
        let what = format!("'{text}' from {}", self.name);
        let err = self.files.path().join("err");
        let child = &mut self.child;
        let read = || read(&err);
        wait_for(&what, read, || {
            let ended = child.try_wait().expect("a child can be asked");
            if read().contains(text) {
                return Some(());
            }
            assert!(ended.is_none(), "no {what}, which has ended\n{}", read());
            None
        });
    }

    /// Ends the program as a power cut would: SIGKILL, no goodbye.
    pub fn kill(mut self) -> Finished {
        self.kill_now();
        self.finish()
    }

    /// The same of one that something else takes the place of.
    pub fn kill_now(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks the program to end, as ctrl-c does.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Asks the program to end, as a service manager does.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Stops the program until it is to go on.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .expect("kill can be started");
        assert!(kill.success(), "{} does not take {signal}", self.name);
    }

    /// Waits until the program ends.
    pub fn finish(mut self) -> Finished {
        let what = format!("end of {}", self.name);
        let err = self.files.path().join("err");
        let child = &mut self.child;
        let status = wait_for(
            &what,
            || read(&err),
            || child.try_wait().expect("a child can be asked"),
        );
        Finished {
            name: self.name.clone(),
            code: status.code(),
            stdout: self.text("out"),
            stderr: self.text("err"),
        }
    }

    fn text(&self, name: &str) -> String {
        read(&self.files.path().join(name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Runs a program to its end.
    pub fn of(name: &str, command: &mut Command) -> Self {
        Running::start(name, command).finish()
    }

    /// Checks that the program did what it was asked.
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.name, self.stderr);
        self
    }

    /// Checks that the program ended with `code` and said each of `words`.
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.name, self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{} does not say '{word}':\n{}",
                self.name,
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for line in self.stderr.lines() {
            let twice = said_twice(line);
            assert_eq!(twice, None, "{} says it twice: {line}", self.name);
        }
        assert_eq!(self.stdout, "", "{}: data beside an error", self.name);
        self
    }

    /// The one JSON document of the current form that standard output is.
    pub fn document(&self) -> Value {
        let document: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("{}: not one document: {error}\n{}", self.name, self.stdout)
        });
        assert_eq!(document["schema_version"], 1, "{}", self.name);
        document
    }
}

/// A clause of 20 characters or more that a line has twice: an error and its cause that say the same.
fn said_twice(line: &str) -> Option<&str> {
    let clauses = line.split(": ").map(|clause| clause.trim_end_matches('.'));
    clauses
        .filter(|clause| clause.chars().count() >= 20)
        .find(|clause| line.matches(clause).count() > 1)
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::said_twice;

    #[test]
    fn a_cause_that_is_said_twice_is_found() {
        let cause = "No such file or directory (os error 2)";
        assert_eq!(said_twice(&format!("error: records.jsonl: {cause}")), None);
        let line = format!("error: records.jsonl: {cause}: {cause}");
        assert_eq!(said_twice(&line), Some(cause));
        let line = format!("error: cannot read it ({cause}): {cause}");
        assert_eq!(said_twice(&line), Some(cause));
        assert_eq!(said_twice("error: short: short"), None);
    }
}
