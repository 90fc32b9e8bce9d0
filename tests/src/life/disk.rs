//! The aggregator's disk: full for a while, or the place where the aggregator dies, before, within or
//! after a durable change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_aggregator::store::{Change, Mirror};
use fedlora_common::files::{TEMPORARY, beside};
use tokio::sync::{Notify, watch};

use super::network::Network;

/// Where within a durable change the aggregator dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of the change is in the folder.
    Before,
    /// A part of it is: half of what is appended, or a temporary file that has no name yet.
    Torn,
    /// The change is there, and nothing has followed from it.
    After,
    /// As before it, and the machine has lost power: what was appended and not synced is gone.
    Power,
}

/// What unwinds the tasks of an aggregator that dies.
#[derive(Debug)]
pub(super) struct Death;

/// The disk of one life of the aggregator.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    network: Network,
    state: Mutex<State>,
    /// The aggregator has died.
    pub(super) died: Notify,
    /// Durable changes of all lives.
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct State {
    full: bool,
    /// The change at which the aggregator dies, counted down.
    armed: Option<(Moment, u32)>,
    after_this: bool,
    dead: bool,
    /// The durable length of each file that is longer than that.
    unsynced: BTreeMap<PathBuf, u64>,
}

impl Disk {
    pub(super) fn new(
        root: &Path,
        network: Network,
        changes: Arc<watch::Sender<u64>>,
        full: bool,
    ) -> Self {
        Self {
            root: root.to_owned(),
            network,
            state: Mutex::new(State {
                full,
                ..State::default()
            }),
            died: Notify::new(),
            changes,
        }
    }

    /// The aggregator dies at the durable change number `number` from now, from 1.
    pub(super) fn arm(&self, moment: Moment, number: u32) {
        self.state().armed = Some((moment, number.max(1)));
    }

    /// Whether the disk takes changes.
    pub(super) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Nothing kills the aggregator any more.
    pub(super) fn disarm(&self) {
        self.state().armed = None;
    }

    /// The machine is gone: no task that is left changes anything.
    pub(super) fn kill(&self) {
        self.state().dead = true;
        self.network.aggregator_is_gone();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn die(&self, moment: Moment) -> ! {
        let unsynced = std::mem::take(&mut self.state().unsynced);
        if moment == Moment::Power {
            for (path, length) in unsynced {
                if let Ok(file) = File::options().write(true).open(self.root.join(path)) {
                    let _ = file.set_len(length);
                }
            }
        }
        self.kill();
        self.died.notify_one();
        resume_unwind(Box::new(Death));
    }

    /// Leaves a part of a change in the folder.
    fn tear(&self, path: &Path, change: Change<'_>) -> io::Result<()> {
        let path = self.root.join(path);
        match change {
            Change::Append { bytes, .. } => {
                let mut file = File::options().append(true).open(path)?;
                file.write_all(&bytes[..bytes.len() / 2])
            }
            Change::Write { bytes, .. } => {
                fs::write(beside(&path, TEMPORARY)?, &bytes[..bytes.len() / 2])
            }
            // One of the files in it is gone.
            Change::RemoveFolder => match fs::read_dir(path)?.flatten().next() {
                Some(entry) if entry.path().is_file() => fs::remove_file(entry.path()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn note(&self, path: &Path, change: Change<'_>) {
        let mut state = self.state();
        match change {
            Change::Append { at, .. } => {
                state.unsynced.entry(path.to_owned()).or_insert(at);
            }
            _ => drop(state.unsynced.remove(path)),
        }
    }
}

impl Mirror for Disk {
    fn change(&self, path: &Path, change: Change<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.dead {
            drop(state);
            resume_unwind(Box::new(Death));
        }
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let due = match &mut state.armed {
            Some((moment, left)) => {
                *left -= 1;
                (*left == 0).then_some(*moment)
            }
            None => None,
        };
        if due.is_some() {
            state.armed = None;
        }
        state.after_this = due == Some(Moment::After);
        drop(state);
        match due {
            None | Some(Moment::After) => {
                self.note(path, change);
                Ok(())
            }
            Some(moment) => {
                if moment == Moment::Torn {
                    // Where not even a part can be there, none is.
                    let _ = self.tear(path, change);
                }
                self.die(moment)
            }
        }
    }

    fn changed(&self, _: &Path, _: Change<'_>) {
        self.changes.send_modify(|changes| *changes += 1);
        if std::mem::take(&mut self.state().after_this) {
            self.die(Moment::After);
        }
    }
}
