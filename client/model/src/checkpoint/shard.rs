//! One safetensors file: its header is read and checked when it is opened, its tensors one
//! at a time, where they lie in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fedlora_adapter::tensors::{FloatTensor, TensorFileError};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::super::source::{WeightsError, short};

/// A header lists some 100 bytes a tensor; the largest models have a few thousand.
pub(super) const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Bytes before the header, which hold its length.
const LENGTH_BYTES: u64 = 8;
/// More than any tensor of a checkpoint has.
const MAX_DIMENSIONS: usize = 8;
/// Values of a tensor that are read and converted at a time.
const PIECE: usize = 1 << 19;

/// An element type that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    /// Bytes of a value.
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A tensor's place in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    dtype: Dtype,
    /// Offset of the first byte from the start of the file.
    offset: u64,
}

/// A file that is held open, with what its header lists.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    entries: BTreeMap<String, Entry>,
}

impl Shard {
    /// Reads the header. Its byte ranges lie in the file, one after another, and each is as
    /// long as its tensor's type and shape require.
    pub(super) fn open(path: PathBuf) -> Result<Self, WeightsError> {
        let io = |source| TensorFileError::Io {
            path: path.clone(),
            source,
        };
        // Checked by the path: opening a pipe would wait for a writer.
        let about = path.metadata().map_err(io)?;
        if !about.is_file() {
            return Err(io(io::Error::other("not a regular file")).into());
        }
        let mut file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let header = read_header(&mut file, length).map_err(|problem| match problem {
            Problem::Io(source) => WeightsError::from(io(source)),
            Problem::Reason(reason) => WeightsError::Header {
                path: path.clone(),
                reason,
            },
        })?;
        let (start, metadata) = header;
        if let Some((name, info)) = metadata
            .tensors()
            .into_iter()
            .find(|(_, info)| info.shape.len() > MAX_DIMENSIONS)
        {
            return Err(WeightsError::Header {
                path,
                reason: format!(
                    "tensor '{}' has {} dimensions",
                    short(&name),
                    info.shape.len()
                ),
            });
        }
        let entries = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (from, _) = info.data_offsets;
                let entry = Entry {
                    shape: info.shape.clone(),
                    dtype: info.dtype,
                    offset: start + from as u64,
                };
                (name, entry)
            })
            .collect();
        Ok(Self {
            path,
            file,
            entries,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Refuses an element type that we do not read.
    pub(super) fn check_type(&self, name: &str, entry: &Entry) -> Result<(), WeightsError> {
        self.float(name, entry).map(drop)
    }

    fn float(&self, name: &str, entry: &Entry) -> Result<Float, WeightsError> {
        match entry.dtype {
            Dtype::F32 => Ok(Float::F32),
            Dtype::F16 => Ok(Float::F16),
            Dtype::BF16 => Ok(Float::Bf16),
            other => Err(TensorFileError::Type {
                path: self.path.clone(),
                name: short(name),
                got: format!("{other:?}"),
            }
            .into()),
        }
    }

    /// Reads a whole tensor, several pieces at a time.
    pub(super) fn read(&self, name: &str, entry: &Entry) -> Result<FloatTensor, WeightsError> {
        let float = self.float(name, entry)?;
        // No more than the file has: the header was checked against its length.
        let mut values = vec![0.0; entry.shape.iter().product()];
        let failed = values
            .par_chunks_mut(PIECE)
            .enumerate()
            .find_map_first(|(number, piece)| {
                self.piece(name, entry, float, number * PIECE, piece).err()
            });
        match failed {
            Some(error) => Err(error),
            None => Ok(FloatTensor {
                shape: entry.shape.clone(),
                values,
            }),
        }
    }

    /// Passes a tensor's values, piece by piece with the index of the first, to `each`.
    pub(super) fn pieces(
        &self,
        name: &str,
        entry: &Entry,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        let float = self.float(name, entry)?;
        let count: usize = entry.shape.iter().product();
        let mut values = vec![0.0; PIECE.min(count)];
        for first in (0..count).step_by(PIECE) {
            let piece = &mut values[..PIECE.min(count - first)];
            self.piece(name, entry, float, first, piece)?;
            each(first, piece)?;
        }
        Ok(())
    }

    /// Reads the values from index `first` on into `values`.
    fn piece(
        &self,
        name: &str,
        entry: &Entry,
        float: Float,
        first: usize,
        values: &mut [f32],
    ) -> Result<(), WeightsError> {
        let width = float.bytes();
        let mut bytes = vec![0; values.len() * width];
        self.file
            .read_exact_at(&mut bytes, entry.offset + (first * width) as u64)
            .map_err(|source| WeightsError::Read {
                path: self.path.clone(),
                name: name.to_owned(),
                source,
            })?;
        decode(float, &bytes, values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(TensorFileError::NotFinite {
                path: self.path.clone(),
                name: name.to_owned(),
                index: first + at,
            }
            .into()),
        }
    }
}

fn decode(float: Float, bytes: &[u8], values: &mut [f32]) {
    fn each<const N: usize>(bytes: &[u8], values: &mut [f32], of: impl Fn([u8; N]) -> f32) {
        for (value, &bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = of(bytes);
        }
    }
    match float {
        Float::F32 => each(bytes, values, f32::from_le_bytes),
        Float::F16 => each(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Float::Bf16 => each(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
    }
}

enum Problem {
    Io(io::Error),
    Reason(String),
}

/// Where the data begins, and what the header lists.
fn read_header(file: &mut File, length: u64) -> Result<(u64, Metadata), Problem> {
    let reason = |text: String| Problem::Reason(text);
    if length < LENGTH_BYTES {
        return Err(reason(format!("{length} bytes cannot hold a header")));
    }
    let mut size = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut size).map_err(Problem::Io)?;
    let size = u64::from_le_bytes(size);
    let most = MAX_HEADER_BYTES.min(length - LENGTH_BYTES);
    if size > most {
        return Err(reason(format!(
            "its header is said to have {size} bytes, more than the {most} that it can have"
        )));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(Problem::Io)?;
    // Checks that the ranges follow one another and are as long as the tensors.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| reason(error.to_string().chars().take(200).collect()))?;
    let start = LENGTH_BYTES + size;
    let listed = start.checked_add(metadata.data_len() as u64);
    if listed != Some(length) {
        let listed = listed.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string());
        return Err(reason(format!(
            "it has {length} bytes, its header calls for {listed}"
        )));
    }
    Ok((start, metadata))
}
