//! The plans that wait to be carried out: one file each in `queue` in the operator's directory, named after
//! the run that it becomes. It stays there until that run is over, so that a crash loses none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::files::create_private_folder;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RunPlan;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::run_directory::read_json;
use crate::store::Store;

/// A plan that waits, or is being carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuedPlan {
    /// When it was submitted.
    pub submitted: Timestamp,
    /// The run that it becomes.
    #[serde(with = "run_id")]
    pub run: RunId,
    /// Whether its rounds can be replayed afterwards.
    #[serde(default)]
    pub keep_for_audit: bool,
    /// The plan.
    pub plan: RunPlan,
}

/// The queue of an operator's directory.
#[derive(Debug, Clone)]
pub struct Queue {
    folder: PathBuf,
    store: Store,
}

impl Queue {
    /// The queue of an operator's directory. Its folder need not exist.
    pub(crate) fn new(store: Store) -> Self {
        let folder = store.root().join("queue");
        Self { folder, store }
    }

    /// Adds a plan, durably.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn submit(&self, plan: &QueuedPlan) -> io::Result<()> {
        create_private_folder(&self.folder)?;
        self.store.write_json(&self.path(plan.run), plan)
    }

    /// All plans, the one that was submitted first at the beginning. A file that cannot be read is left
    /// as it is.
    ///
    /// # Errors
    /// The system's error for the folder.
    pub fn plans(&self) -> io::Result<Vec<QueuedPlan>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut plans = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            match read_json::<QueuedPlan>(&path) {
                Ok(Some(plan)) => plans.push(plan),
                // Withdrawn just now.
                Ok(None) => {}
                Err(error) => {
                    let path = path.display();
                    warn!(%path, %error, "a plan in the queue cannot be read: it is left as it is");
                }
            }
        }
        plans.sort_by_key(|plan| (plan.submitted, plan.run));
        Ok(plans)
    }

    /// The file of this run's plan, as it stands; nothing where there is none.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn content(&self, run: RunId) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(run)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => content.map(Some),
        }
    }

    /// Whether the plan of this run is in the queue.
    pub fn contains(&self, run: RunId) -> bool {
        self.path(run).exists()
    }

    /// Removes the plan of this run; gives whether there was one.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn remove(&self, run: RunId) -> io::Result<bool> {
        self.store.remove(&self.path(run))
    }

    /// The queue's folder.
    pub fn path_of_folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.json"))
    }
}

/// A run's id as people see it: in hexadecimal.
mod run_id {
    use fedlora_protocol::ids::RunId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(run: &RunId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(run)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RunId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: u8, submitted: u64) -> QueuedPlan {
        let plan = RunPlan::from_toml(
            "rounds = 2\nmembers = 3\n[adapter]\n\
             lora = { rank = 1, alpha = 1.0, targets = [\"q\"] }\n",
        );
        QueuedPlan {
            submitted: Timestamp(submitted),
            run: RunId([number; 16]),
            keep_for_audit: number == 2,
            plan: plan.unwrap(),
        }
    }

    #[test]
    fn plans_wait_in_the_order_in_which_they_came_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(Store::folder(folder.path()));
        assert_eq!(queue.plans().unwrap(), []);
        let (late, early) = (plan(1, 20), plan(2, 10));
        for one in [&late, &early] {
            queue.submit(one).unwrap();
        }
        assert_eq!(queue.plans().unwrap(), [early.clone(), late.clone()]);
        assert!(queue.remove(early.run).unwrap());
        assert!(!queue.remove(early.run).unwrap());
        assert_eq!(queue.plans().unwrap(), [late]);
    }

    #[test]
    fn a_damaged_plan_does_not_hold_up_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(Store::folder(folder.path()));
        queue.submit(&plan(1, 20)).unwrap();
        let damaged = queue.path_of_folder().join("00.json");
        fs::write(&damaged, "{").unwrap();
        assert_eq!(queue.plans().unwrap(), [plan(1, 20)]);
        assert!(damaged.exists());
    }
}
