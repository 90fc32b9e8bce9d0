//! A model in several GGUF files, as llama.cpp's `gguf-split` writes them: `NAME-00001-of-00003.gguf`
//! with the metadata, and the others with tensors alone.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::container::{Header, read_header};
use super::error::GgufError;
use super::metadata::{Metadata, Value};

/// The most parts of a model: five digits number them.
const MAX_PARTS: i128 = 99_999;

/// One file of a model.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Bytes of the parts before it.
    pub(super) start: u64,
    length: u64,
}

/// Opens the file at `path`, and the other parts where it is one of several. Offsets of tensors
/// count through all parts.
///
/// # Errors
/// [`GgufError`] as of one file, and [`GgufError::Split`] where the parts do not belong together.
pub(super) fn open(path: &Path) -> Result<(Vec<Part>, Header), GgufError> {
    let (part, header) = one(path, 0)?;
    let Some(count) = number(&header.metadata, "split.count")?.filter(|count| *count > 1) else {
        return Ok((vec![part], header));
    };
    let refuse = |why: String| GgufError::Split {
        path: path.to_owned(),
        why,
    };
    if count > MAX_PARTS {
        return Err(refuse(format!(
            "split.count is {count}: at most {MAX_PARTS} parts"
        )));
    }
    let own = number(&header.metadata, "split.no")?.unwrap_or(0);
    let ending = format!("-{:05}-of-{count:05}.gguf", own + 1);
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(&ending)) else {
        return Err(refuse(format!(
            "it is part {} of {count}, and the others are found by its name, which should end in \
             '{ending}'",
            own + 1
        )));
    };
    let path_of =
        |number: i128| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf"));
    let mut parts = Vec::new();
    let mut whole: Option<Header> = None;
    let mut start = 0_u64;
    for index in 0..count {
        let path = path_of(index + 1);
        if !path.is_file() {
            return Err(refuse(format!(
                "it is part {} of {count}, and part {} is missing: put {} beside it",
                own + 1,
                index + 1,
                path.display()
            )));
        }
        let (part, header) = one(&path, start)?;
        if number(&header.metadata, "split.no")?.unwrap_or(0) != index {
            return Err(refuse(format!(
                "{} says that it is another part",
                path.display()
            )));
        }
        let length = part.length;
        parts.push(part);
        match &mut whole {
            None => whole = Some(header),
            Some(whole) => {
                for (name, mut info) in header.tensors {
                    info.offset += start;
                    if whole.tensors.insert(name.clone(), info).is_some() {
                        return Err(refuse(format!("tensor '{name}' stands in two parts")));
                    }
                }
            }
        }
        start = start
            .checked_add(length)
            .ok_or_else(|| refuse("the parts are too long".to_owned()))?;
    }
    let whole = whole.ok_or_else(|| refuse("it has no part".to_owned()))?;
    let found = whole.tensors.len() as i128;
    match number(&whole.metadata, "split.tensors.count")? {
        Some(expected) if expected != found => Err(refuse(format!(
            "the parts hold {found} tensors, and the first says {expected}"
        ))),
        _ => Ok((parts, whole)),
    }
}

/// One file with its header; `start` is the number of bytes before it.
fn one(path: &Path, start: u64) -> Result<(Part, Header), GgufError> {
    let io = |source| GgufError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let header = read_header(path, BufReader::with_capacity(1 << 16, &file), length)?;
    let part = Part {
        path: path.to_owned(),
        file,
        start,
        length,
    };
    Ok((part, header))
}

fn number(metadata: &Metadata, key: &str) -> Result<Option<i128>, GgufError> {
    let whole = |value: &Value| value.as_integer().filter(|number| *number >= 0);
    metadata.optional(key, "a whole number", whole)
}
