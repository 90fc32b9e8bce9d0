//! One safetensors file: its header is read and checked when it is opened, its tensors one
//! at a time, where they lie in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fedlora_adapter::tensors::{FloatTensor, TensorFileError};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::super::source::{WeightsError, short};

/// A header lists some 100 bytes a tensor; the largest models have a few thousand.
pub(super) const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Bytes before the header, which hold its length.
const LENGTH_BYTES: u64 = 8;
/// More than any tensor of a checkpoint has.
const MAX_DIMENSIONS: usize = 8;
/// Bytes of a tensor that are converted at a time.
const PIECE_BYTES: usize = 1 << 20;

/// An element type that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Float {
    F32,
    F16,
    Bf16,
}

/// A tensor's place in a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    dtype: Dtype,
    /// Offset of the first byte from the start of the file.
    offset: u64,
    bytes: u64,
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
                let (from, to) = info.data_offsets;
                let entry = Entry {
                    shape: info.shape.clone(),
                    dtype: info.dtype,
                    offset: start + from as u64,
                    bytes: (to - from) as u64,
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

    /// Reads a whole tensor.
    pub(super) fn read(&self, name: &str, entry: &Entry) -> Result<FloatTensor, WeightsError> {
        // No more than the file has: the header was checked against its length.
        let count = entry.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        self.pieces(name, entry, |_, piece| {
            values.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(FloatTensor {
            shape: entry.shape.clone(),
            values,
        })
    }

    /// Passes a tensor's values, piece by piece with the index of the first, to `each`.
    pub(super) fn pieces(
        &self,
        name: &str,
        entry: &Entry,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        let float = self.float(name, entry)?;
        let mut bytes = vec![0; PIECE_BYTES.min(entry.bytes as usize)];
        let mut values = Vec::new();
        let (mut read, mut index) = (0, 0);
        while read < entry.bytes {
            let piece = PIECE_BYTES.min((entry.bytes - read) as usize);
            let piece = &mut bytes[..piece];
            self.file
                .read_exact_at(piece, entry.offset + read)
                .map_err(|source| WeightsError::Read {
                    path: self.path.clone(),
                    name: name.to_owned(),
                    source,
                })?;
            decode(float, piece, &mut values);
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(TensorFileError::NotFinite {
                    path: self.path.clone(),
                    name: name.to_owned(),
                    index: index + at,
                }
                .into());
            }
            each(index, &values)?;
            read += piece.len() as u64;
            index += values.len();
        }
        Ok(())
    }
}

fn decode(float: Float, bytes: &[u8], values: &mut Vec<f32>) {
    values.clear();
    match float {
        Float::F32 => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes)),
        ),
        Float::F16 => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f16::from_le_bytes(bytes).to_f32()),
        ),
        Float::Bf16 => values.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| bf16::from_le_bytes(bytes).to_f32()),
        ),
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
