//! Float tensors in safetensors files, read with checks and written so that a reader never
//! sees half a file. Adapters and base weights both go through here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fedlora_common::bytes::{f32_as_le, f32_from_le};
use fedlora_common::files::{self, Access};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView, View};
use safetensors::{SafeTensorError, SafeTensors};

/// The element type of a tensor on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// `f32`: IEEE 754 single precision, 4 bytes.
    F32,
    /// bfloat16: the upper half of an `f32`, 2 bytes.
    Bf16,
}

/// A tensor in memory: row-major `f32`.
#[derive(Clone, PartialEq)]
pub struct FloatTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
}

impl std::fmt::Debug for FloatTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FloatTensor({:?})", self.shape)
    }
}

/// Reads all tensors of a safetensors file of at most `most` bytes. F32, F16 and BF16 are
/// accepted; every value must be finite.
///
/// # Errors
/// [`TensorFileError`], with the path.
pub fn read(path: &Path, most: u64) -> Result<BTreeMap<String, FloatTensor>, TensorFileError> {
    parse(path, &read_bounded(path, most)?)
}

/// Reads all tensors from a safetensors file's content; `path` is used in errors only.
///
/// # Errors
/// [`TensorFileError`] for a malformed file, another element type, or a value that is not
/// finite.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, FloatTensor>, TensorFileError> {
    let file = SafeTensors::deserialize(bytes).map_err(|source| TensorFileError::Format {
        path: path.to_owned(),
        source,
    })?;
    file.iter()
        .map(|(name, view)| {
            let values = decode(&view).ok_or_else(|| TensorFileError::Type {
                path: path.to_owned(),
                name: name.to_owned(),
                got: format!("{:?}", view.dtype()),
            })?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(TensorFileError::NotFinite {
                    path: path.to_owned(),
                    name: name.to_owned(),
                    index,
                });
            }
            let shape = view.shape().to_vec();
            Ok((name.to_owned(), FloatTensor { shape, values }))
        })
        .collect()
}

/// Writes `tensors` (name, shape, row-major values) to `path` as `float`, atomically.
///
/// # Errors
/// [`TensorFileError`] where the file cannot be written.
pub fn write<'a>(
    path: &Path,
    float: FloatType,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
) -> Result<(), TensorFileError> {
    let views = tensors.into_iter().map(|(name, shape, values)| {
        let encoded = Encoded {
            float,
            shape,
            values,
        };
        (name, encoded)
    });
    let mut views: Vec<_> = views.collect();
    views.sort_by_key(|&(name, _)| name);
    let header = header(&views).map_err(|source| TensorFileError::Format {
        path: path.to_owned(),
        source,
    })?;
    // One tensor at a time: the whole file in memory would be a second adapter.
    replace(path, |temporary| {
        let mut file = BufWriter::new(File::create(temporary)?);
        file.write_all(&header)?;
        for (_, view) in &views {
            file.write_all(&view.data())?;
        }
        file.flush()
    })
}

/// The longest header that readers take, in bytes.
const MAX_HEADER: usize = 100_000_000;

/// What stands before the values in a safetensors file: the header's length, and the header, filled up
/// with spaces to a multiple of eight bytes. The tensors are of one type, and in the order of their names.
fn header(views: &[(&str, Encoded<'_>)]) -> Result<Vec<u8>, SafeTensorError> {
    const LENGTH: usize = size_of::<u64>();
    let mut end = 0;
    let infos = views.iter().map(|(name, view)| {
        let begin = end;
        end += view.data_len();
        let info = TensorInfo {
            dtype: view.dtype(),
            shape: view.shape.to_vec(),
            data_offsets: (begin, end),
        };
        (name.to_string(), info)
    });
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(about), infos.collect())?;
    let mut bytes = vec![0; LENGTH];
    serde_json::to_writer(&mut bytes, &metadata)?;
    bytes.resize(bytes.len().next_multiple_of(LENGTH), b' ');
    let length = bytes.len() - LENGTH;
    if length > MAX_HEADER {
        return Err(SafeTensorError::HeaderTooLarge);
    }
    bytes[..LENGTH].copy_from_slice(&(length as u64).to_le_bytes());
    Ok(bytes)
}

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// [`TensorFileError::TooLarge`] before a larger file is read, [`TensorFileError::Io`] with the
/// system's reason.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, TensorFileError> {
    let io = |source| TensorFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    let got = file.metadata().map_err(io)?.len();
    let too_large = |got| TensorFileError::TooLarge {
        path: path.to_owned(),
        got,
        most,
    };
    if got > most {
        return Err(too_large(got));
    }
    let mut bytes = Vec::new();
    // The length can be wrong (a pipe, a file that grows): the limit holds all the same.
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Writes a file whole or not at all, as [`files::replace`] does.
///
/// # Errors
/// [`TensorFileError::Io`], with the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TensorFileError> {
    replace(path, |temporary| fs::write(temporary, bytes))
}

fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), TensorFileError> {
    files::replace(path, Access::Everyone, write).map_err(|source| TensorFileError::Io {
        path: path.to_owned(),
        source,
    })
}

struct Encoded<'a> {
    float: FloatType,
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Encoded<'_> {
    fn dtype(&self) -> Dtype {
        match self.float {
            FloatType::F32 => Dtype::F32,
            FloatType::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.float {
            FloatType::F32 => f32_as_le(self.values),
            FloatType::Bf16 => Cow::Owned(
                self.values
                    .iter()
                    .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
                    .collect(),
            ),
        }
    }

    fn data_len(&self) -> usize {
        match self.float {
            FloatType::F32 => self.values.len() * 4,
            FloatType::Bf16 => self.values.len() * 2,
        }
    }
}

/// The values as `f32`; `None` for a type that is not a float we read.
fn decode(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => f32_from_le(data),
        Dtype::F16 => Some(
            data.as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| f16::from_le_bytes(bytes).to_f32())
                .collect(),
        ),
        Dtype::BF16 => Some(
            data.as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| bf16::from_le_bytes(bytes).to_f32())
                .collect(),
        ),
        _ => None,
    }
}

/// Why a tensor file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file larger than the limit.
    #[error("{} has {got} bytes, more than the {most} allowed", path.display())]
    TooLarge {
        /// The path of the file.
        path: PathBuf,
        /// Its length in bytes.
        got: u64,
        /// The most bytes allowed.
        most: u64,
    },
    /// Truncated, or no safetensors file at all.
    #[error(
        "{} is not a whole safetensors file ({source}): fetch or write it again",
        path.display()
    )]
    Format {
        /// The path of the file.
        path: PathBuf,
        /// The parser's reason.
        source: SafeTensorError,
    },
    /// An element type other than F32, F16 and BF16.
    #[error("{}: tensor '{name}' is of type {got}: expected F32, F16 or BF16", path.display())]
    Type {
        /// The path of the file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The tensor's element type, as safetensors names it.
        got: String,
    },
    /// A value that is NaN or infinite.
    #[error("{}: tensor '{name}' is not finite at element {index}", path.display())]
    NotFinite {
        /// The path of the file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The element within the tensor, in row-major order.
        index: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 3] = [1.0, -2.5, 0.125];

    fn written(float: FloatType, values: &[f32]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&path, float, [("t", &[3_usize][..], values)]).unwrap();
        (dir, path)
    }

    #[test]
    fn both_types_round_trip_and_leave_no_temporary_file() {
        for float in [FloatType::F32, FloatType::Bf16] {
            let (dir, path) = written(float, &VALUES);
            let read = read(&path, 1000).unwrap();
            assert_eq!(read["t"].shape, [3]);
            assert_eq!(read["t"].values, VALUES);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_is_what_the_safetensors_library_writes() {
        let tensors = [
            ("b", &[2_usize, 2][..], &[1.0, -2.5, 0.125, 3.0][..]),
            ("a.weight", &[3][..], &VALUES[..]),
        ];
        for float in [FloatType::F32, FloatType::Bf16] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            write(&path, float, tensors).unwrap();
            let views = tensors.map(|(name, shape, values)| {
                let view = Encoded {
                    float,
                    shape,
                    values,
                };
                (name, view)
            });
            let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            let expected = safetensors::serialize(views, Some(about)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), expected);
        }
    }

    #[test]
    fn refuses_truncated_oversized_and_not_finite_files() {
        let (_dir, path) = written(FloatType::F32, &VALUES);
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 7, 8, 20, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            let error = read(&path, 1000).unwrap_err();
            assert!(
                matches!(error, TensorFileError::Format { .. }),
                "{cut}: {error}"
            );
        }
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            read(&path, 10),
            Err(TensorFileError::TooLarge { .. })
        ));
        let (_dir, path) = written(FloatType::Bf16, &[1.0, f32::NAN, 0.0]);
        let error = read(&path, 1000).unwrap_err();
        assert!(
            matches!(error, TensorFileError::NotFinite { index: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn refuses_integer_tensors() {
        let view = TensorView::new(Dtype::I32, vec![1], &[0; 4]).unwrap();
        let bytes = safetensors::serialize([("ids", view)], None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            read(&path, 1000),
            Err(TensorFileError::Type { .. })
        ));
    }
}
