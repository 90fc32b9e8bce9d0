//! A program at a terminal of its own, at which a test types: `script` of util-linux makes the terminal.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

use crate::programs::Finished;
use crate::wait_for;

/// A program that has a terminal; killed when dropped.
#[derive(Debug)]
pub struct AtTerminal {
    name: String,
    script: Child,
    keyboard: ChildStdin,
    /// All that the terminal shows.
    folder: TempDir,
}

impl AtTerminal {
    /// Starts a program at a terminal that echoes what is typed, as a user's does.
    ///
    /// # Panics
    /// Without `script`, which is part of every Debian.
    pub fn start(name: &str, command: &Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = words.map(|word| quoted(word.to_str().expect("arguments are text")));
        // In the place of the shell, so that it is the one child of `script`.
        let line = format!("exec {}", words.collect::<Vec<_>>().join(" "));
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command", &line])
            .arg("/dev/null")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(File::create(folder.path().join("shown")).expect("a temporary file"))
            .stderr(Stdio::null());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => script.env(variable, value),
                None => script.env_remove(variable),
            };
        }
        let mut script = script.spawn().expect("script can be started");
        let keyboard = script.stdin.take().expect("it was asked for");
        Self {
            name: name.to_owned(),
            script,
            keyboard,
            folder,
        }
    }

    /// What the terminal has shown so far.
    pub fn shown(&self) -> String {
        let shown = fs::read(self.folder.path().join("shown")).unwrap_or_default();
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the program asks this question, `times` in all, and does not let the terminal echo any
    /// more; types the answer then.
    pub fn answer(&mut self, question: &str, times: usize, answer: &str) {
        let what = format!("'{question}' from {}", self.name);
        let ask = || {
            let asked = self.shown().matches(question).count() >= times;
            (asked && self.is_silent()).then_some(())
        };
        wait_for(&what, || self.shown(), ask);
        let typed = self.keyboard.write_all(answer.as_bytes());
        typed
            .and_then(|()| self.keyboard.flush())
            .expect("a terminal takes what is typed");
    }

    /// Whether what is typed is not shown.
    fn is_silent(&self) -> bool {
        let Some(terminal) = self.terminal() else {
            return false;
        };
        let told = Command::new("stty")
            .arg("-a")
            .arg("-F")
            .arg(terminal)
            .output();
        let told = told.expect("stty can be started").stdout;
        let told = String::from_utf8_lossy(&told).into_owned();
        told.split_whitespace().any(|word| word == "-echo")
    }

    /// The terminal of the program, where it runs.
    fn terminal(&self) -> Option<PathBuf> {
        let id = self.script.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let child = children.split_whitespace().next()?;
        let terminal = fs::read_link(format!("/proc/{child}/fd/0")).ok()?;
        terminal.starts_with("/dev/pts").then_some(terminal)
    }

    /// Waits until the program ends. What it has shown is its standard error.
    pub fn finish(mut self) -> Finished {
        let what = format!("end of {}", self.name);
        let script = &mut self.script;
        let shown = self.folder.path().join("shown");
        let status = wait_for(
            &what,
            || fs::read_to_string(&shown).unwrap_or_default(),
            || script.try_wait().expect("a child can be asked"),
        );
        Finished {
            name: self.name.clone(),
            code: status.code(),
            stdout: String::new(),
            stderr: self.shown(),
        }
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // It may have ended already; the program gets a hangup with its terminal.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A word as the shell takes it as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
