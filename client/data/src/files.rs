//! From paths to records: what lies in a folder, what a file is, and who reads it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::records::{self, Read};
use super::{json_array, parquet, table};

/// Endings of the files that are read from a folder.
const ENDINGS: [&str; 6] = ["jsonl", "ndjson", "json", "parquet", "csv", "tsv"];
/// The bytes of other formats, by which they are told.
const OTHERS: [(&[u8], &str); 7] = [
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ", "an xz file: unpack it first"),
    (b"PK\x03\x04", "a zip file: unpack it first"),
    (b"ARROW1", "an Arrow file: save it as Parquet or JSON Lines"),
    (b"PARE", "an encrypted Parquet file: save it decrypted"),
];

/// The files that `paths` stand for: each file itself, each folder the files in it that are
/// read, by name. Hidden files and what lies deeper are left out.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::NoFiles`] for a folder without such a file.
pub(super) fn expand<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            files.extend(folder(path)?);
        } else {
            files.push(path.to_owned());
        }
    }
    Ok(files)
}

fn folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io {
        file: folder.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && ending(&path).is_some() && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let folder = folder.display().to_string();
        return Err(DataError::NoFiles { folder });
    }
    files.sort();
    Ok(files)
}

/// The ending of a file's name, if it is one that is read.
fn ending(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?;
    ENDINGS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(ending))
}

/// Reads a file as what it is: told by its first bytes, and by its name where those leave it
/// open.
///
/// # Errors
/// [`DataError::Io`], [`DataError::Unknown`] and [`DataError::Parquet`]. What is wrong with
/// single records is in [`Read::problems`].
pub(super) fn read(path: &Path) -> Result<Read, DataError> {
    let file = path.display().to_string();
    let failed = |source| DataError::Io {
        file: file.clone(),
        source,
    };
    let mut source = BufReader::new(File::open(path).map_err(failed)?);
    let head = source.fill_buf().map_err(failed)?;
    if head.starts_with(parquet::MAGIC) {
        return parquet::read(source.into_inner(), &file)
            .map_err(|source| DataError::Parquet { file, source });
    }
    if let Some((_, found)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(DataError::Unknown { file, found });
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    match (text.trim_ascii_start().first().copied(), ending(path)) {
        (Some(b'['), kind) if !matches!(kind, Some("csv" | "tsv")) => {
            json_array::read(source, &file).map_err(failed)
        }
        (_, Some("parquet")) => {
            let found = "no Parquet: is it cut off, or named wrongly?";
            Err(DataError::Unknown { file, found })
        }
        (_, Some(table @ ("csv" | "tsv"))) => {
            table::read(source, &file, table == "tsv").map_err(failed)
        }
        (Some(b'{'), _) | (_, Some(_)) => records::read(source, &file).map_err(failed),
        _ => {
            let found = "something else, by its name and its beginning";
            Err(DataError::Unknown { file, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn a_folder_is_its_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "b.jsonl",
            "a.JSON",
            "c.ndjson",
            "README.md",
            ".hidden.jsonl",
        ] {
            fs::write(path(name), "{\"text\": \"x\"}").unwrap();
        }
        fs::create_dir(path("deeper.json")).unwrap();
        let found = expand(&[folder.path().to_owned(), path("README.md")]).unwrap();
        let expected = ["a.JSON", "b.jsonl", "c.ndjson", "README.md"].map(path);
        assert_eq!(found, expected);
        let refused = expand(&[path("deeper.json")]).unwrap_err().to_string();
        assert!(
            refused.contains("no .jsonl, .ndjson, .json, .parquet, .csv or .tsv file"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_is_what_it_holds() {
        for (name, text) in [
            ("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"y\"}"),
            ("a.json", "{\"text\": \"x\"}\n{\"text\": \"y\"}"),
            ("a.json", "\u{feff} [{\"text\": \"x\"}, {\"text\": \"y\"}]"),
            ("records", "{\"text\": \"x\"}\n{\"text\": \"y\"}"),
            ("records.txt", "[{\"text\": \"x\"}, {\"text\": \"y\"}]"),
        ] {
            let (_folder, path) = written(name, text.as_bytes());
            let found = read(&path).unwrap();
            assert_eq!(
                (found.records.len(), found.problems.len()),
                (2, 0),
                "{name}"
            );
        }
        let (_folder, path) = written("empty.jsonl", b"");
        assert_eq!(read(&path).unwrap(), Read::default());
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("a.jsonl", b"\x1f\x8b\x08SECRET", "gzip"),
            ("a.parquet", b"{\"text\": \"SECRET\"}", "no Parquet"),
            ("a.parquet", b"", "no Parquet"),
            ("a.tab", b"text\nSECRET", "something else"),
            ("a.txt", b"SECRET", "something else"),
            ("a", b"ARROW1\0\0SECRET", "an Arrow file"),
        ];
        for (name, bytes, expected) in cases {
            let (_folder, path) = written(name, bytes);
            let refused = read(&path).unwrap_err().to_string();
            assert!(refused.contains(expected), "{name}: {refused}");
            assert!(!refused.contains("SECRET"), "{name}: {refused}");
        }
    }
}
