//! A clock of the tests' own under the true programs: [libfaketime](https://github.com/wolfcw/libfaketime)
//! answers when they ask for the day. Time that passes stays true.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Where Debian and Fedora have the library.
const PLACES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// The clock of all programs that this process starts from its making on.
static CLOCK: OnceLock<FakedClock> = OnceLock::new();

/// A day that moves when it is told to, in running programs as well.
#[derive(Debug)]
pub struct FakedClock {
    library: PathBuf,
    folder: TempDir,
}

impl FakedClock {
    /// Lets all programs that are started from now on read this clock; none where the library is not
    /// installed.
    ///
    /// # Panics
    /// Without the library where `FEDLORA_FAKETIME_TEST` is `required`.
    pub fn install() -> Option<&'static Self> {
        let library = PLACES.map(PathBuf::from);
        let Some(library) = library.into_iter().find(|path| path.exists()) else {
            let required = std::env::var("FEDLORA_FAKETIME_TEST").is_ok_and(|it| it == "required");
            assert!(!required, "libfaketime is not installed");
            return None;
        };
        let clock = CLOCK.get_or_init(|| Self {
            library,
            folder: tempfile::tempdir().expect("a temporary folder"),
        });
        clock.set(0);
        Some(clock)
    }

    /// So many days have passed since the clock was made.
    pub fn set(&self, days: u32) {
        // Programs read it all the time: it is never half written.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("+{days}d\n")).expect("a file can be written");
        fs::rename(new, self.file()).expect("a file can be renamed");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// Lets a command read the clock, where there is one.
    pub(crate) fn give_to(command: &mut Command) {
        let Some(clock) = CLOCK.get() else {
            return;
        };
        let file: &Path = &clock.file();
        command
            .env("LD_PRELOAD", &clock.library)
            .env("FAKETIME_TIMESTAMP_FILE", file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}
