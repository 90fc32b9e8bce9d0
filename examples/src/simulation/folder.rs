//! The folder that a simulation writes to: one simulation's at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::compare::LINES;
use super::run::{MARKER, PAGE, SimulationError};

/// Held locked while a simulation runs; there from its beginning on.
const LOCK: &str = ".fedlora-sim.lock";

/// A folder without an earlier simulation, which no other simulation takes until this is dropped.
#[derive(Debug)]
pub(super) struct OutFolder {
    path: PathBuf,
    _lock: File,
}

impl OutFolder {
    /// Takes the folder and empties it of an earlier simulation; anything else in the way is left
    /// alone.
    ///
    /// # Errors
    /// [`SimulationError::Occupied`] for a folder with something else in it,
    /// [`SimulationError::Busy`] for one that another simulation writes to.
    pub(super) fn prepare(out: &Path) -> Result<Self, SimulationError> {
        let path = out.to_owned();
        if has_something_else(out) {
            return Err(SimulationError::Occupied { path });
        }
        fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
        let lock = out.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&lock);
        let file = file.with_context(|| format!("{} cannot be made", lock.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SimulationError::Busy { path }),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} cannot be locked", lock.display()))?
            }
        }
        for name in ["operator", "members", "adapter", "base", "runs"] {
            let folder = out.join(name);
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("{} cannot be removed", folder.display()))?;
            }
        }
        for name in [MARKER, LINES, PAGE] {
            let _ = fs::remove_file(out.join(name));
        }
        Ok(Self { path, _lock: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the folder holds something, and nothing that a simulation leaves.
fn has_something_else(out: &Path) -> bool {
    let Ok(entries) = fs::read_dir(out) else {
        return false;
    };
    // One that was refused early has left its lock.
    let files = [LOCK, MARKER].iter().any(|name| out.join(name).is_file());
    let folders = ["operator", "runs"]
        .iter()
        .any(|name| out.join(name).is_dir());
    entries.flatten().next().is_some() && !files && !folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_simulation_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let first = OutFolder::prepare(&out).unwrap();
        fs::create_dir(first.path().join("operator")).unwrap();
        let second = OutFolder::prepare(&out);
        assert!(
            matches!(second, Err(SimulationError::Busy { .. })),
            "{second:?}"
        );
        assert!(out.join("operator").is_dir());
        drop(first);
        // What is left is an earlier simulation's.
        drop(OutFolder::prepare(&out).unwrap());
        assert!(!out.join("operator").exists());
        // One that was refused when it had made something is in nobody's way.
        let refused = OutFolder::prepare(&out).unwrap();
        fs::create_dir(refused.path().join("members")).unwrap();
        drop(refused);
        OutFolder::prepare(&out).unwrap();
    }

    #[test]
    fn anything_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let refused = OutFolder::prepare(folder.path());
        assert!(
            matches!(refused, Err(SimulationError::Occupied { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
