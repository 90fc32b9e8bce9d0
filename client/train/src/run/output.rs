//! The folder that a training writes: what lies where, and whose it is.
//!
//! ```text
//! DIR/adapter_model.safetensors, adapter_config.json   the adapter, when the training is done
//! DIR/run.json                                         what training it is, and its end
//! DIR/metrics.jsonl                                    a line a step and a line an evaluation
//! DIR/tensorboard/events.out.tfevents.*                the same for TensorBoard
//! DIR/checkpoints/step-*.safetensors                   while it is not done
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::peft::{CONFIG_FILE, WEIGHTS_FILE};
use fedlora_adapter::tensors::{self, TensorFileError};
use serde::{Deserialize, Serialize};

use crate::run::checkpoint::{CheckpointError, Checkpoints};
use crate::run::spec::{Difference, RunSpec};

const RUN_FILE: &str = "run.json";
const METRICS_FILE: &str = "metrics.jsonl";
const TENSORBOARD: &str = "tensorboard";
const CHECKPOINTS: &str = "checkpoints";
const LOCK_FILE: &str = ".lock";
const MOST_RUN_BYTES: u64 = 1 << 20;
const SCHEMA: u32 = 1;

/// A training's folder, which no other process writes meanwhile.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    /// Held until this is dropped, however the process ends.
    _lock: File,
    begun: Option<RunFile>,
}

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunFile {
    schema_version: u32,
    spec: RunSpec,
    finished: bool,
}

impl OutputFolder {
    /// Opens or makes the folder. It must be empty, or hold a training.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Io {
            path: path.to_owned(),
            source,
        };
        if path.exists() && !path.is_dir() {
            return Err(OutputError::NoFolder {
                path: path.to_owned(),
            });
        }
        if path.is_dir() && !path.join(RUN_FILE).exists() {
            for entry in fs::read_dir(path).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                // Hidden files: the lock, and what a killed program left half written.
                if !name.to_string_lossy().starts_with('.') {
                    return Err(OutputError::Foreign {
                        path: path.to_owned(),
                        file: name.to_string_lossy().chars().take(80).collect(),
                    });
                }
            }
        }
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OutputError::Busy {
                    path: path.to_owned(),
                });
            }
            // A file system without locks: two programs at a time are the user's to avoid.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self {
            begun: read_run(path)?,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Begins a training here, or takes up the one that stands here, which must be the same.
    /// `restart` removes what an earlier training left.
    ///
    /// # Errors
    /// [`OutputError::Finished`], and [`OutputError::Other`] where another has checkpoints here.
    pub fn begin(&mut self, spec: &RunSpec, restart: bool) -> Result<(), OutputError> {
        if restart {
            self.clear()?;
        }
        if let Some(begun) = &self.begun {
            let differences = spec.differences(&begun.spec);
            if begun.finished {
                return Err(OutputError::Finished {
                    path: self.path.clone(),
                    differences,
                });
            }
            if differences.is_empty() {
                return Ok(());
            }
            if !self.checkpoints().is_empty()? {
                return Err(OutputError::Other {
                    path: self.path.clone(),
                    differences,
                });
            }
            // It ended before its first checkpoint: nothing is lost by another in its place.
            self.clear()?;
        }
        self.write_run(RunFile {
            schema_version: SCHEMA,
            spec: spec.clone(),
            finished: false,
        })
    }

    /// Whether a training stands here that is done.
    pub fn finished(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.finished)
    }

    /// Notes that the training is done, and removes its checkpoints: the adapter is here.
    ///
    /// # Errors
    /// Where the note cannot be written.
    pub fn finish(&mut self) -> Result<(), OutputError> {
        if let Some(begun) = self.begun.clone() {
            self.write_run(RunFile {
                finished: true,
                ..begun
            })?;
        }
        // They are of no use any more; left over, they only take room.
        if let Err(error) = self.checkpoints().remove() {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    /// The folder itself, which becomes the adapter's.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path.join(CHECKPOINTS))
    }

    /// The metrics' file.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS_FILE)
    }

    /// The folder for TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join(TENSORBOARD)
    }

    /// Removes what a training wrote here, and nothing else.
    fn clear(&mut self) -> Result<(), OutputError> {
        let gone = |path: PathBuf, result: io::Result<()>| match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(OutputError::Io { path, source })
            }
            _ => Ok(()),
        };
        for folder in [CHECKPOINTS, TENSORBOARD] {
            let path = self.path.join(folder);
            let result = fs::remove_dir_all(&path);
            gone(path, result)?;
        }
        // The note goes last: while it stands, the rest is known to be a training's.
        for file in [CONFIG_FILE, WEIGHTS_FILE, METRICS_FILE, RUN_FILE] {
            let path = self.path.join(file);
            let result = fs::remove_file(&path);
            gone(path, result)?;
        }
        self.begun = None;
        Ok(())
    }

    fn write_run(&mut self, run: RunFile) -> Result<(), OutputError> {
        let path = self.path.join(RUN_FILE);
        let text = serde_json::to_string_pretty(&run).map_err(|source| OutputError::Io {
            path: path.clone(),
            source: source.into(),
        })?;
        tensors::write_atomic(&path, format!("{text}\n").as_bytes())?;
        self.begun = Some(run);
        Ok(())
    }
}

fn read_run(folder: &Path) -> Result<Option<RunFile>, OutputError> {
    let path = folder.join(RUN_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = tensors::read_bounded(&path, MOST_RUN_BYTES)?;
    match serde_json::from_slice::<RunFile>(&bytes) {
        Ok(run) if run.schema_version == SCHEMA => Ok(Some(run)),
        _ => Err(OutputError::Unknown { path }),
    }
}

fn list(differences: &[Difference]) -> String {
    differences
        .iter()
        .map(|difference| format!("\n  {difference}"))
        .collect()
}

/// A folder that a training cannot use.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Something else of that name.
    #[error("{} is not a folder: name another for --out", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// Files that no training wrote.
    #[error(
        "{} holds '{file}' and no training: name a new or an empty folder for --out",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// A file in it.
        file: String,
    },
    /// A note that is not ours.
    #[error("{} was not written by this version of fedlora: name another folder", path.display())]
    Unknown {
        /// The note.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another training is writing to {}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A training that is done.
    #[error(
        "{} holds a training that is done: name another folder, or --restart to begin it anew{}",
        path.display(), list(differences)
    )]
    Finished {
        /// The folder.
        path: PathBuf,
        /// In what it differs from this one.
        differences: Vec<Difference>,
    },
    /// A training of something else.
    #[error(
        "{} holds another training, which is not done: give it what it was begun with, name another \
         folder, or --restart to throw it away and begin anew{}",
        path.display(), list(differences)
    )]
    Other {
        /// The folder.
        path: PathBuf,
        /// In what it differs from this one.
        differences: Vec<Difference>,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The note cannot be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(seed: u64) -> RunSpec {
        RunSpec::default().with("seed", seed)
    }

    fn open(dir: &Path) -> OutputFolder {
        OutputFolder::open(dir).unwrap()
    }

    #[test]
    fn a_training_is_gone_on_with_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out");
        open(&path).begin(&spec(1), false).unwrap();
        let mut folder = open(&path);
        folder.begin(&spec(1), false).unwrap();
        assert!(matches!(
            OutputFolder::open(&path),
            Err(OutputError::Busy { .. })
        ));
        // Nothing is there yet that could be lost.
        folder.begin(&spec(2), false).unwrap();
        folder.begin(&spec(1), false).unwrap();
        fs::create_dir(path.join(CHECKPOINTS)).unwrap();
        fs::write(
            path.join(CHECKPOINTS).join("step-0000000001.safetensors"),
            "",
        )
        .unwrap();
        let error = folder.begin(&spec(2), false).unwrap_err().to_string();
        assert!(
            error.contains("seed: it was begun with 1, now it is 2"),
            "{error}"
        );
        assert!(!folder.finished());
        folder.finish().unwrap();
        drop(folder);
        let mut folder = open(&path);
        assert!(folder.finished());
        let error = folder.begin(&spec(1), false).unwrap_err();
        assert!(matches!(error, OutputError::Finished { .. }), "{error}");
        folder.begin(&spec(2), true).unwrap();
        assert!(!folder.finished());
    }

    #[test]
    fn a_new_beginning_removes_what_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(dir.path());
        folder.begin(&spec(1), false).unwrap();
        for file in ["notes.txt", WEIGHTS_FILE, METRICS_FILE] {
            fs::write(dir.path().join(file), "x").unwrap();
        }
        fs::create_dir(dir.path().join(CHECKPOINTS)).unwrap();
        folder.begin(&spec(2), true).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [LOCK_FILE, "notes.txt", RUN_FILE]);
    }

    #[test]
    fn refuses_files_and_folders_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("letter.txt");
        fs::write(&file, "dear").unwrap();
        let error = OutputFolder::open(&file).unwrap_err();
        assert!(matches!(error, OutputError::NoFolder { .. }), "{error}");
        let error = OutputFolder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("letter.txt"), "{error}");
        fs::write(dir.path().join(RUN_FILE), "{\"schema_version\": 9}").unwrap();
        let error = OutputFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, OutputError::Unknown { .. }), "{error}");
    }
}
