//! The folder that a run writes, and which of its files belong to a run.
//!
//! ```text
//! DIR/adapter_model.safetensors, adapter_config.json   the adapter, when done
//! DIR/run.json                                         spec, and whether the run is done
//! DIR/metrics.jsonl                                    a line a step, a line a held-out score
//! DIR/tensorboard/events.out.tfevents.*                the same for TensorBoard
//! DIR/checkpoints/step-*.safetensors                   while the run is not done
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::peft::{CONFIG_FILE, WEIGHTS_FILE};
use fedlora_adapter::tensors;
use serde::{Deserialize, Serialize};

use crate::run::checkpoint::Checkpoints;
use crate::run::output_error::OutputError;
use crate::run::spec::RunSpec;

const RUN_FILE: &str = "run.json";
const METRICS_FILE: &str = "metrics.jsonl";
const TENSORBOARD: &str = "tensorboard";
const CHECKPOINTS: &str = "checkpoints";
const LOCK_FILE: &str = ".lock";
const MAX_RUN_BYTES: u64 = 1 << 20;
const SCHEMA: u32 = 1;

/// The folder of a run, locked against other processes while this value lives.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    /// The operating system releases it, however the process ends.
    _lock: File,
    begun: Option<RunFile>,
}

/// The content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RunFile {
    schema_version: u32,
    spec: RunSpec,
    finished: bool,
}

impl OutputFolder {
    /// Opens or creates the folder. It must be empty or hold a run.
    ///
    /// # Errors
    /// [`OutputError::NoFolder`], [`OutputError::Foreign`], [`OutputError::Busy`] or
    /// [`OutputError::Unknown`] for a folder that cannot be used.
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
                // Hidden files: the lock, and incomplete files of a killed process.
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
            // A file system without locks cannot tell of another process.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Self {
            begun: read_run(path)?,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Begins a run, or prepares to resume the unfinished one in the folder, which must have the
    /// same spec. `restart` first removes the files of an earlier run, and only those.
    ///
    /// # Errors
    /// [`OutputError::Finished`], and [`OutputError::Other`] for another run with checkpoints.
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
            // It ended before its first checkpoint: there is nothing to lose.
            self.clear()?;
        }
        self.write_run(RunFile {
            schema_version: SCHEMA,
            spec: spec.clone(),
            finished: false,
        })
    }

    /// Whether the folder holds a finished run.
    pub fn finished(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.finished)
    }

    /// Records that the run is done and its adapter written, and removes its checkpoints.
    ///
    /// # Errors
    /// [`OutputError::File`] where `run.json` cannot be written.
    pub fn finish(&mut self) -> Result<(), OutputError> {
        if let Some(begun) = self.begun.clone() {
            self.write_run(RunFile {
                finished: true,
                ..begun
            })?;
        }
        // Checkpoints left over are useless and harmless.
        if let Err(error) = self.checkpoints().remove() {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    /// The folder's path; the adapter is written here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.path.join(CHECKPOINTS))
    }

    /// Path of `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS_FILE)
    }

    /// Path of the folder with TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join(TENSORBOARD)
    }

    /// Removes the files of a run, and no others.
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
        // `run.json` goes last: while it exists, the other files are known to be a run's.
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
    let bytes = tensors::read_bounded(&path, MAX_RUN_BYTES)?;
    match serde_json::from_slice::<RunFile>(&bytes) {
        Ok(run) if run.schema_version == SCHEMA => Ok(Some(run)),
        _ => Err(OutputError::Unknown { path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Remedy;

    fn spec(seed: u64) -> RunSpec {
        RunSpec::default().with("seed", seed)
    }

    fn open(dir: &Path) -> OutputFolder {
        OutputFolder::open(dir).unwrap()
    }

    #[test]
    fn a_run_resumes_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out");
        open(&path).begin(&spec(1), false).unwrap();
        let mut folder = open(&path);
        folder.begin(&spec(1), false).unwrap();
        assert!(matches!(
            OutputFolder::open(&path),
            Err(OutputError::Busy { .. })
        ));
        // Without a checkpoint there is nothing to lose.
        folder.begin(&spec(2), false).unwrap();
        folder.begin(&spec(1), false).unwrap();
        fs::create_dir(path.join(CHECKPOINTS)).unwrap();
        fs::write(
            path.join(CHECKPOINTS).join("step-0000000001.safetensors"),
            "",
        )
        .unwrap();
        let error = folder.begin(&spec(2), false).unwrap_err();
        assert_eq!(error.remedy(), Some(Remedy::SameSettingsOrRestart));
        let error = error.to_string();
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
        assert_eq!(error.remedy(), Some(Remedy::OtherOutputFolderOrRestart));
        folder.begin(&spec(2), true).unwrap();
        assert!(!folder.finished());
    }

    #[test]
    fn a_restart_removes_a_runs_files_alone() {
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
        assert_eq!(error.remedy(), Some(Remedy::OtherOutputFolder));
        let error = OutputFolder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("letter.txt"), "{error}");
        fs::write(dir.path().join(RUN_FILE), "{\"schema_version\": 9}").unwrap();
        let error = OutputFolder::open(dir.path()).unwrap_err();
        assert!(matches!(error, OutputError::Unknown { .. }), "{error}");
    }
}
