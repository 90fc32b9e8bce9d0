//! Files that pyarrow wrote (`examples/oracle/make_parquet.py`), whole, damaged and refused.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::dataset::{Dataset, Survey};
use super::super::records::Problem;
use super::*;

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../vectors/parquet")
        .join(name)
}

fn open(path: &Path) -> Result<Read, ParquetError> {
    read(File::open(path).unwrap(), "f.parquet")
}

#[test]
fn the_rows_are_the_records_of_the_same_json_lines() {
    for (name, lines) in [
        ("alpaca-snappy", "alpaca"),
        ("alpaca-dictionary", "alpaca"),
        ("dolly-zstd", "dolly"),
        ("chat-gzip", "chat"),
        ("chat-v2", "chat"),
        ("chat-old-lists", "chat"),
        ("text-lz4", "text"),
        ("text-large", "text"),
        ("text-delta", "text"),
        ("many", "many"),
    ] {
        let rows = Dataset::read(&[vector(&format!("{name}.parquet"))]).unwrap();
        let lines = Dataset::read(&[vector(&format!("{lines}.jsonl"))]).unwrap();
        assert_eq!(rows.len(), lines.len(), "{name}");
        for (row, (one, other)) in rows.records().iter().zip(lines.records()).enumerate() {
            assert_eq!(one.content(), other.content(), "{name}");
            assert_eq!(one.place().line, row + 1, "{name}");
            for label in ["site", "category"] {
                assert_eq!(one.label(label), other.label(label), "{name}");
            }
        }
    }
}

#[test]
fn every_bad_row_is_reported_with_its_place_and_never_its_content() {
    let found = open(&vector("bad-rows.parquet")).unwrap();
    assert_eq!(found.records.len(), 2);
    let shown: Vec<_> = found.problems.iter().map(Problem::to_string).collect();
    let expected = [
        "2: an object with no field",
        "3: no message has the role 'assistant'",
        "4: no message has the role 'assistant'",
        "5: field 'messages[0].role' is no role",
        "6: field 'messages[0].content' is null or missing",
        "7: field 'messages[0].role' is null or missing",
    ];
    assert_eq!(found.empty, 1, "row 8");
    assert_eq!(shown.len(), expected.len(), "{shown:?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(
            shown.starts_with(&format!("f.parquet:{expected}")),
            "{shown}"
        );
        assert!(!shown.contains("SECRET"), "{shown}");
    }
    let found = open(&vector("bad-utf8.parquet")).unwrap();
    assert_eq!(found.records.len(), 1);
    assert_eq!(found.problems[0].what, LineProblem::Encoding { hint: "" });
    assert_eq!(found.problems[0].place.line, 2);
}

#[test]
fn columns_of_other_types_are_named() {
    for (name, expected) in [
        (
            "strings",
            "column 'messages' holds a list of something else: expected a list of {role",
        ),
        ("struct", "column 'messages' holds a struct"),
        ("parts", "column 'messages' holds a list of something else"),
        ("number", "column 'text' holds INT64 values: expected text"),
        (
            "list",
            "column 'output' holds a list of something else: expected text",
        ),
        (
            "columns",
            "its columns are output and a field of another name: expected messages",
        ),
        ("brotli", "column 'text' is compressed with BROTLI"),
    ] {
        let refused = open(&vector(&format!("refused-{name}.parquet"))).unwrap_err();
        let shown = refused.to_string();
        assert!(shown.starts_with(expected), "{name}: {shown}");
        assert!(!shown.contains("SECRET"), "{name}: {shown}");
    }
}

#[test]
fn cut_off_files_are_refused() {
    let whole = fs::read(vector("chat-gzip.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.parquet");
    for length in [4, 8, 12, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let survey = Survey::of(&[&path]);
        assert_eq!(survey.failures.len(), 1, "{length} bytes were taken");
        assert!(survey.dataset.is_empty());
    }
}

/// Damage anywhere ends as an error, or changes a value that nothing could check.
#[test]
fn damaged_files_end_as_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.parquet");
    let mut refused = 0;
    for name in ["chat-v2", "dolly-zstd", "text-delta", "alpaca-dictionary"] {
        let whole = fs::read(vector(&format!("{name}.parquet"))).unwrap();
        for place in (4..whole.len()).step_by(7) {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] ^= flip;
                fs::write(&path, damaged).unwrap();
                refused += usize::from(open(&path).is_err());
            }
        }
    }
    assert!(refused > 200, "{refused}");
}
