//! Checkpoints of a run: a file each, written atomically; the newest two are kept.
//!
//! A file is a safetensors file with the trained factors, both of AdamW's moments and the best
//! factors so far; everything else is JSON in its metadata, with a digest over all of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::Layout;
use fedlora_adapter::tensors;
use fedlora_common::bytes::f32_as_le;
use fedlora_common::digest::DigestWriter;
use fedlora_common::files::{self, Access};
use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::run::checkpoint_error::CheckpointError;
use crate::run::figures::Figures;
use crate::run::spec::RunSpec;
use crate::step::order::Position;
use crate::step::trainer::TrainerState;

/// Checkpoints that are kept; the second one in case the newest is damaged.
const KEPT: usize = 2;
const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
const MAX_BYTES: u64 = 64 << 30;
const STATE: &str = "fedlora_state";
const DIGEST: &str = "fedlora_digest";
const SCHEMA: u32 = 1;

/// A run saved between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// All that the run's result depends on.
    pub spec: RunSpec,
    /// All that the next steps depend on.
    pub state: TrainerState,
    /// The figures so far.
    pub figures: Figures,
    /// The trained factors' values at the best held-out score, if there is one.
    pub best: Option<Vec<f32>>,
}

/// The part of a checkpoint that is not tensors, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema_version: u32,
    spec: RunSpec,
    step: usize,
    position: Position,
    figures: Figures,
}

/// A folder of one run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// The newest checkpoint that can be read.
#[derive(Debug)]
pub struct FoundCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The file that holds it.
    pub path: PathBuf,
    /// Why newer ones cannot be read, newest first.
    pub damaged: Vec<CheckpointError>,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes a checkpoint whose factors have the layout `part`, then removes all but the newest
    /// two.
    ///
    /// # Errors
    /// [`CheckpointError::Write`], for instance on a full disk. Earlier checkpoints stay.
    pub fn write(
        &self,
        part: &Layout,
        checkpoint: &Checkpoint,
    ) -> Result<PathBuf, CheckpointError> {
        let step = checkpoint.state.step;
        let path = self.folder.join(format!("{PREFIX}{step:010}{SUFFIX}"));
        let failed = |source| CheckpointError::Write {
            path: path.clone(),
            step,
            source,
        };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        files::replace(&path, Access::Everyone, |temporary| {
            put(temporary, part, checkpoint)
        })
        .map_err(failed)?;
        self.prune(&path).map_err(failed)?;
        Ok(path)
    }

    /// Reads the newest checkpoint that can be read; `None` where there is none at all.
    ///
    /// # Errors
    /// [`CheckpointError::AllDamaged`] where none of several can be read.
    pub fn newest(&self, part: &Layout) -> Result<Option<FoundCheckpoint>, CheckpointError> {
        let mut damaged = Vec::new();
        for path in self.files()?.into_iter().rev() {
            match get(&path, part) {
                Ok(checkpoint) => {
                    return Ok(Some(FoundCheckpoint {
                        checkpoint,
                        path,
                        damaged,
                    }));
                }
                Err(error) => damaged.push(error),
            }
        }
        match damaged.into_iter().next() {
            None => Ok(None),
            Some(newest) => Err(CheckpointError::AllDamaged {
                newest: Box::new(newest),
            }),
        }
    }

    /// Whether there are none, readable or not.
    ///
    /// # Errors
    /// [`CheckpointError::Folder`] for a folder that cannot be read.
    pub fn is_empty(&self) -> Result<bool, CheckpointError> {
        Ok(self.files()?.is_empty())
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// [`CheckpointError::Folder`] for a file that cannot be removed.
    pub fn remove(&self) -> Result<(), CheckpointError> {
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.unreadable(source)),
            _ => Ok(()),
        }
    }

    /// The checkpoints' files, oldest first.
    fn files(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.unreadable(source)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| self.unreadable(source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                files.push(path);
            }
        }
        // Names hold steps with leading zeros.
        files.sort();
        Ok(files)
    }

    /// Keeps `newest` and the last ones before it. Later ones are removed: had they been readable,
    /// the run would have resumed from them.
    fn prune(&self, newest: &Path) -> io::Result<()> {
        let files = self
            .files()
            .map_err(|error| io::Error::other(error.to_string()))?;
        let upto = files.partition_point(|file| file.as_path() <= newest);
        for (index, file) in files.iter().enumerate() {
            if index >= upto || index + KEPT < upto {
                fs::remove_file(file)?;
            }
        }
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // Left by a process that ended while it wrote.
            if path.extension().is_some_and(|end| end == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Folder {
            path: self.folder.clone(),
            source,
        }
    }
}

/// The tensors of a checkpoint, as prefixes of their names with values.
fn groups(checkpoint: &Checkpoint) -> Vec<(&'static str, &[f32])> {
    let state = &checkpoint.state;
    let mut groups: Vec<(_, &[f32])> = vec![
        ("values", &state.values),
        ("adamw.first", &state.first),
        ("adamw.second", &state.second),
    ];
    if let Some(best) = &checkpoint.best {
        groups.push(("best", best));
    }
    groups
}

/// Writes a checkpoint file.
fn put(path: &Path, part: &Layout, checkpoint: &Checkpoint) -> io::Result<()> {
    let header = Header {
        schema_version: SCHEMA,
        spec: checkpoint.spec.clone(),
        step: checkpoint.state.step,
        position: checkpoint.state.position,
        figures: checkpoint.figures,
    };
    let header = serde_json::to_string(&header)?;
    let groups = groups(checkpoint);
    if groups.iter().any(|(_, values)| values.len() != part.len()) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut tensors = Vec::with_capacity(groups.len() * part.tensors().len());
    let mut writer = begin_digest(&header);
    for (group, values) in groups {
        for (spec, range) in part.iter() {
            let name = format!("{group}.{}", spec.name);
            let tensor = F32 {
                shape: &spec.shape,
                values: &values[range],
            };
            writer.bytes(name.as_bytes()).bytes(&tensor.data());
            tensors.push((name, tensor));
        }
    }
    let metadata = HashMap::from([
        (STATE.to_owned(), header),
        (DIGEST.to_owned(), writer.finish().to_string()),
    ]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => source,
        other => io::Error::other(other.to_string()),
    })
}

fn begin_digest(header: &str) -> DigestWriter {
    let mut writer = DigestWriter::new("fedlora checkpoint v1");
    writer.bytes(header.as_bytes());
    writer
}

/// Reads a checkpoint file and checks layout, version and digest.
fn get(path: &Path, part: &Layout) -> Result<Checkpoint, CheckpointError> {
    let bytes = tensors::read_bounded(path, MAX_BYTES)?;
    let damaged = |what: &'static str| CheckpointError::Damaged {
        path: path.to_owned(),
        what,
    };
    let broken = |_| damaged("it is cut off or overwritten");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let metadata = metadata
        .metadata()
        .as_ref()
        .ok_or_else(|| damaged("it is not a checkpoint"))?;
    let [header, digest] = [STATE, DIGEST].map(|key| metadata.get(key));
    let (Some(header), Some(digest)) = (header, digest) else {
        return Err(damaged("it is not a checkpoint"));
    };
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut writer = begin_digest(header);
    let mut read = |group: &str| -> Result<Vec<f32>, CheckpointError> {
        let mut values = Vec::with_capacity(part.len());
        for spec in part.tensors() {
            let name = format!("{group}.{}", spec.name);
            let tensor = file
                .tensor(&name)
                .map_err(|_| damaged("a tensor is missing"))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != spec.shape {
                return Err(damaged("a tensor has another shape"));
            }
            writer.bytes(name.as_bytes()).bytes(tensor.data());
            let (words, _) = tensor.data().as_chunks::<4>();
            values.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
        }
        Ok(values)
    };
    let (values, first, second) = (read("values")?, read("adamw.first")?, read("adamw.second")?);
    let best = if file.len() > 3 * part.tensors().len() {
        Some(read("best")?)
    } else {
        None
    };
    if writer.finish().to_string() != *digest {
        return Err(damaged("its content is not what was written"));
    }
    let header: Header = serde_json::from_str(header)
        .map_err(|_| damaged("it was written by another version of fedlora"))?;
    if header.schema_version != SCHEMA {
        return Err(damaged("it was written by another version of fedlora"));
    }
    Ok(Checkpoint {
        spec: header.spec,
        state: TrainerState {
            step: header.step,
            position: header.position,
            values,
            first,
            second,
        },
        figures: header.figures,
        best,
    })
}

/// A tensor whose bytes are made when it is written.
struct F32<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for F32<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        f32_as_le(self.values)
    }

    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
