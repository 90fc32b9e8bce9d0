//! The GGUF container, versions 2 and 3: its metadata, and where in the file each tensor lies.
//!
//! Layout as the format's specification has it: magic, version, counts, key-value pairs,
//! tensor descriptions, then the values of the tensors at aligned offsets. Everything is
//! little-endian. Each count, length and offset is checked against the file's length before
//! anything is allocated for it, so that a broken or hostile file costs no more than its size.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::metadata::{List, Metadata, ScalarType, Value};
use super::parts::{self, Part};
use super::quant::TensorType;

const MAGIC: [u8; 4] = *b"GGUF";
/// Where `general.alignment` says nothing.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Everything before the tensors' values; a vocabulary of 256,000 tokens takes 16 MB.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Keys and tensor names; the specification allows keys this long.
const MAX_NAME_BYTES: u64 = 1 << 16;
/// Other texts, such as chat templates.
const MAX_TEXT_BYTES: u64 = 16 << 20;
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
/// The least that a pair takes: length of the key, type, one byte.
const MIN_PAIR_BYTES: u64 = 8 + 4 + 1;
/// The least that a description takes: length of the name, dimensions, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// Whether the file at `path` begins as a GGUF file does.
pub(crate) fn has_magic(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| magic == MAGIC)
}

/// One tensor: its type, its shape and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type in which its values are stored.
    pub kind: TensorType,
    /// Dimensions, outermost first. GGUF itself lists them innermost first.
    pub shape: Vec<usize>,
    /// Offset of its first byte from the start of the file.
    pub offset: u64,
    /// Its length in bytes, at most the file's.
    pub bytes: u64,
}

/// The part of the file before the tensors' values.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

/// An open GGUF file whose header was read and checked.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    parts: Vec<Part>,
    header: Header,
}

impl Container {
    /// Opens a file and reads its header, never its tensors. Where it is one part of several, all
    /// of them are opened.
    ///
    /// # Errors
    /// [`GgufError`] where the file cannot be read, is malformed, has a tensor of a type that is
    /// not supported, or is a part whose others are missing.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (parts, header) = parts::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            parts,
            header,
        })
    }

    /// Path of the file, which errors name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key-value pairs of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    /// Fills `buffer` with the bytes at `offset`, from the start of the file, or of the first of
    /// its parts.
    ///
    /// # Errors
    /// [`GgufError::Io`], also where the file ends too early.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), GgufError> {
        let after = self.parts.partition_point(|part| part.start <= offset);
        // The first part begins at 0.
        let part = &self.parts[after.saturating_sub(1)];
        part.file
            .read_exact_at(buffer, offset - part.start)
            .map_err(|source| GgufError::Io {
                path: part.path.clone(),
                source,
            })
    }
}

/// Reads the header of a file that is `length` bytes long; `path` is for errors only.
pub(crate) fn read_header(
    path: &Path,
    reader: impl Read,
    length: u64,
) -> Result<Header, GgufError> {
    let mut reader = Reader {
        path,
        inner: reader,
        at: 0,
        length,
    };
    if length < 4 || reader.array("magic")? != MAGIC {
        return Err(GgufError::Magic {
            path: path.to_owned(),
        });
    }
    let version = reader.u32("version")?;
    if !matches!(version, 2 | 3) {
        return Err(GgufError::Version {
            path: path.to_owned(),
            got: version,
        });
    }
    let tensors = reader.count("number of tensors", MIN_TENSOR_BYTES, MAX_TENSORS)?;
    let pairs = reader.count("number of metadata pairs", MIN_PAIR_BYTES, MAX_PAIRS)?;

    let mut values = BTreeMap::new();
    for _ in 0..pairs {
        let at = reader.at;
        let key = reader.text("key", MAX_NAME_BYTES)?;
        let value = reader.value(&key)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(reader.malformed(at, format!("key '{key}' stands here a second time")));
        }
    }
    let metadata = Metadata::new(path, values);

    let mut described = BTreeMap::new();
    for _ in 0..tensors {
        let at = reader.at;
        let name = reader.text("tensor name", MAX_NAME_BYTES)?;
        let info = reader.tensor(&name)?;
        if described.insert(name.clone(), info).is_some() {
            return Err(reader.malformed(at, format!("tensor '{name}' stands here a second time")));
        }
    }
    let alignment = alignment(&metadata)?;
    // The header's length is bounded, so this cannot overflow.
    let start = reader.at.next_multiple_of(alignment);
    place(path, &mut described, start, alignment, length)?;
    Ok(Header {
        metadata,
        tensors: described,
    })
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let key = "general.alignment";
    match metadata.get(key) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => value
            .as_integer()
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| number.is_power_of_two() && *number <= 1 << 20)
            .ok_or_else(|| metadata.refuse(key, "a power of two up to 1048576")),
    }
}

/// Makes offsets count from the start of the file, and checks that each tensor lies aligned
/// within it and none over another.
fn place(
    path: &Path,
    tensors: &mut BTreeMap<String, TensorInfo>,
    start: u64,
    alignment: u64,
    length: u64,
) -> Result<(), GgufError> {
    let refuse = |name: &str, why: String| GgufError::Place {
        path: path.to_owned(),
        name: name.to_owned(),
        why,
    };
    let mut places = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let (from, bytes) = (info.offset, info.bytes);
        if !from.is_multiple_of(alignment) {
            let why = format!("its offset {from} is not a multiple of {alignment}");
            return Err(refuse(name, why));
        }
        let end = start
            .checked_add(from)
            .and_then(|first| first.checked_add(bytes));
        let Some(end) = end.filter(|end| *end <= length) else {
            let why = format!(
                "its {bytes} bytes at offset {from} of the data, which begins at byte {start}, \
                 do not lie within the file's {length} bytes"
            );
            return Err(refuse(name, why));
        };
        info.offset = start + from;
        places.push((info.offset, end, name.as_str()));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let ((_, end, name), (next, _, other)) = (pair[0], pair[1]);
        if next < end {
            return Err(refuse(name, format!("it lies over tensor '{other}'")));
        }
    }
    Ok(())
}

/// Reads little-endian values and knows how much the file still holds.
struct Reader<'a, R> {
    path: &'a Path,
    inner: R,
    at: u64,
    length: u64,
}

impl<R: Read> Reader<'_, R> {
    fn malformed(&self, at: u64, what: String) -> GgufError {
        GgufError::Malformed {
            path: self.path.to_owned(),
            at,
            what,
        }
    }

    /// Refuses where the file ends, or the header passes its limit, within the next `bytes`.
    fn need(&self, bytes: u64, what: &'static str) -> Result<(), GgufError> {
        let end = self.at.saturating_add(bytes);
        if end > self.length {
            return Err(GgufError::Truncated {
                path: self.path.to_owned(),
                at: self.at,
                what,
                need: bytes,
                left: self.length.saturating_sub(self.at),
            });
        }
        if end > MAX_HEADER_BYTES {
            return Err(GgufError::TooMuch {
                path: self.path.to_owned(),
                at: self.at,
                what,
                got: end,
                most: MAX_HEADER_BYTES,
            });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), GgufError> {
        self.inner
            .read_exact(buffer)
            .map_err(|source| GgufError::Io {
                path: self.path.to_owned(),
                source,
            })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        self.need(N as u64, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, count: u64, what: &'static str) -> Result<Vec<u8>, GgufError> {
        self.need(count, what)?;
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, what: &'static str, least: u64, most: u64) -> Result<u64, GgufError> {
        let at = self.at;
        let got = self.u64(what)?;
        let most = most.min((self.length - self.at) / least);
        if got > most {
            return Err(GgufError::TooMuch {
                path: self.path.to_owned(),
                at,
                what,
                got,
                most,
            });
        }
        Ok(got)
    }

    fn text(&mut self, what: &'static str, most: u64) -> Result<String, GgufError> {
        let length = self.count(what, 1, most)?;
        let at = self.at;
        let bytes = self.bytes(length, what)?;
        String::from_utf8(bytes).map_err(|_| self.malformed(at, format!("the {what} is not UTF-8")))
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let at = self.at;
        let code = self.u32("value type")?;
        Ok(match code {
            8 => Value::Text(self.text("text", MAX_TEXT_BYTES)?),
            9 => Value::List(self.list(key)?),
            _ => {
                let kind = self.scalar_type(code, at, key)?;
                let bytes = self.bytes(kind.bytes(), "value")?;
                if kind == ScalarType::Bool && bytes[0] > 1 {
                    let what = format!("key '{key}' is neither true nor false: {}", bytes[0]);
                    return Err(self.malformed(at, what));
                }
                kind.value(&bytes)
            }
        })
    }

    fn list(&mut self, key: &str) -> Result<List, GgufError> {
        let at = self.at;
        let code = self.u32("element type")?;
        match code {
            8 => {
                let count = self.count("number of texts", 8, MAX_HEADER_BYTES)?;
                let mut list = List::texts();
                for _ in 0..count {
                    list.push(&self.text("text", MAX_TEXT_BYTES)?);
                }
                Ok(list)
            }
            9 => Err(self.malformed(at, format!("key '{key}' is a list of lists"))),
            _ => {
                let kind = self.scalar_type(code, at, key)?;
                let count = self.count("number of values", kind.bytes(), MAX_HEADER_BYTES)?;
                let bytes = self.bytes(count * kind.bytes(), "values")?;
                Ok(List::scalars(kind, bytes))
            }
        }
    }

    fn scalar_type(&self, code: u32, at: u64, key: &str) -> Result<ScalarType, GgufError> {
        ScalarType::from_code(code).ok_or_else(|| {
            self.malformed(
                at,
                format!("key '{key}' is of type {code}, which GGUF lacks"),
            )
        })
    }

    fn tensor(&mut self, name: &str) -> Result<TensorInfo, GgufError> {
        let at = self.at;
        let dimensions = self.u32("number of dimensions")?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let what = format!("tensor '{name}' has {dimensions} dimensions: expected 1 to 4");
            return Err(self.malformed(at, what));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut values = 1_u64;
        for _ in 0..dimensions {
            let size = self.u64("dimension")?;
            values = values
                .checked_mul(size)
                .filter(|&values| values > 0 && values <= isize::MAX as u64 / 4)
                .ok_or_else(|| {
                    let what = format!("tensor '{name}' has a dimension of {size}");
                    self.malformed(at, what)
                })?;
            shape.push(size as usize);
        }
        let code = self.u32("tensor type")?;
        let kind = TensorType::from_code(code).map_err(|got| GgufError::Type {
            path: self.path.to_owned(),
            name: name.to_owned(),
            got,
        })?;
        let block = kind.block();
        if !shape[0].is_multiple_of(block.values) {
            let what = format!(
                "rows of tensor '{name}' have {} values: {} comes in blocks of {}",
                shape[0],
                kind.name(),
                block.values
            );
            return Err(self.malformed(at, what));
        }
        // Never more than 4 bytes a value, and those were just bounded.
        let bytes = values / block.values as u64 * block.bytes as u64;
        shape.reverse();
        Ok(TensorInfo {
            kind,
            shape,
            offset: self.u64("tensor offset")?,
            bytes,
        })
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
