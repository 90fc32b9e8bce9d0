//! Records as the rows of a Parquet file: text columns, and chats as a list of structs.
//!
//! Rows are read in small batches, so that memory holds a few pages besides the records. The
//! files come from elsewhere: what the format's reader does not expect of a broken one ends
//! as an error too.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError as ReaderError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::dropped::{Cause, LeftOut, matters_in_message, matters_in_record};
use super::forms::{CHATS, is_form, names, parse_value};
use super::problem::FORMS;
use super::records::{LONGEST_LABEL, LONGEST_LINE, LineProblem, Parsed, Place, Read};

/// How a Parquet file begins.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// The most rows of a file. A few bytes can stand for any number of empty rows.
const MAX_ROWS: i64 = 1 << 24;
/// Rows that are read at a time.
const ROWS: usize = 128;
/// Columns that have to be text where they are there.
const TEXTS: [&str; 7] = [
    "instruction",
    "input",
    "output",
    "context",
    "response",
    "text",
    "system",
];

/// Why a Parquet file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    /// What the format's reader says.
    #[error("not a Parquet file that can be read: {0}")]
    Reader(#[from] ReaderError),
    /// The format's reader gave up.
    #[error("not a Parquet file that can be read: it is damaged")]
    Damaged,
    /// Columns that do not belong together.
    #[error("damaged: column '{column}' does not fit the others")]
    Uneven {
        /// Which column.
        column: String,
    },
    /// More rows than are read.
    #[error("{rows} rows: at most {MAX_ROWS} are read; split the file")]
    Rows {
        /// Rows that the file announces.
        rows: i64,
    },
    /// None of the four forms.
    #[error("its columns are {found}: expected {FORMS}")]
    Form {
        /// Known columns by name, others by number.
        found: String,
    },
    /// A column of another type.
    #[error("column '{column}' holds {found}: expected {expected}")]
    Column {
        /// Which column.
        column: &'static str,
        /// Its type, in words.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A compression that is not built in.
    #[error(
        "column '{column}' is compressed with {found}: save it with snappy, gzip, zstd, lz4 or none"
    )]
    Compression {
        /// Which column.
        column: String,
        /// The compression.
        found: String,
    },
}

/// Reads every row of `file`; `name` stands for it in places.
///
/// # Errors
/// [`ParquetError`]. Rows that cannot be used are [`Read::problems`].
pub(super) fn read(file: File, name: &str) -> Result<Read, ParquetError> {
    catch_unwind(AssertUnwindSafe(|| read_rows(file, name))).unwrap_or(Err(ParquetError::Damaged))
}

fn read_rows(file: File, name: &str) -> Result<Read, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let file = reader.metadata().file_metadata();
    if file.num_rows() > MAX_ROWS {
        return Err(ParquetError::Rows {
            rows: file.num_rows(),
        });
    }
    let Columns {
        read: columns,
        left_out,
    } = columns(file.schema_descr())?;
    let name: Arc<str> = name.into();
    let mut found = Read::default();
    let mut row = 0;
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index)?;
        // Checked again: the groups' numbers are others than the file's.
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(usize::MAX);
        if rows > MAX_ROWS as usize {
            let rows = group.metadata().num_rows();
            return Err(ParquetError::Rows { rows });
        }
        let mut readers = columns
            .iter()
            .map(|column| Open::new(&*group, column))
            .collect::<Result<Vec<_>, _>>()?;
        let mut left = rows;
        while left > 0 {
            let count = left.min(ROWS);
            let batch = readers
                .iter_mut()
                .map(|reader| reader.next_rows(count))
                .collect::<Result<Vec<_>, _>>()?;
            let mut batch: Vec<_> = batch.into_iter().map(Vec::into_iter).collect();
            for _ in 0..count {
                row += 1;
                let cells = batch
                    .iter_mut()
                    .map(|column| column.next().unwrap_or_default());
                let place = Place::line(&name, row);
                let parsed = parse(&columns, cells).map(|mut parsed| {
                    parsed.left_out.extend(left_out.iter().cloned());
                    parsed
                });
                found.take(place, parsed);
            }
            left -= count;
        }
    }
    Ok(found)
}

/// A column that is read.
enum Column {
    Text {
        name: String,
        leaf: usize,
    },
    /// A chat with the keys of its messages: role, content, and further text.
    Chat {
        name: String,
        keys: Vec<(String, usize)>,
    },
}

/// What is read of a file's columns.
struct Columns {
    read: Vec<Column>,
    /// Columns that mean something to training and hold no text.
    left_out: Vec<LeftOut>,
}

impl Column {
    fn name(&self) -> &str {
        match self {
            Self::Text { name, .. } | Self::Chat { name, .. } => name,
        }
    }
}

/// The columns that make up records, and text that can be labels.
fn columns(schema: &SchemaDescriptor) -> Result<Columns, ParquetError> {
    let leaf = |path: &[&str]| {
        let found = |leaf: &usize| schema.column(*leaf).path().parts() == path;
        (0..schema.num_columns()).find(found)
    };
    let (mut columns, mut left_out) = (Vec::new(), Vec::new());
    for field in schema.root_schema().get_fields() {
        let name = field.name();
        if let Some(column) = CHATS.into_iter().find(|chat| *chat == name)
            && !is_text(field)
        {
            let Some((path, element)) = chat_columns(field) else {
                return Err(ParquetError::Column {
                    column,
                    found: describe(field),
                    expected: "a list of {role, content} structs of text",
                });
            };
            let mut keys = Vec::new();
            for part in element {
                let key = part.name();
                let wanted = CHAT_KEYS.contains(&key) || matters_in_message(key);
                let mut path = path.clone();
                path.push(key);
                match leaf(&path) {
                    Some(leaf) if wanted && is_text(part) => keys.push((key.to_owned(), leaf)),
                    _ if wanted => left_out.push(LeftOut::new(key, Cause::Column)),
                    _ => {}
                }
            }
            columns.push(Column::Chat {
                name: name.to_owned(),
                keys,
            });
        } else if let (true, Some(leaf)) = (is_text(field), leaf(&[name])) {
            let name = name.to_owned();
            columns.push(Column::Text { name, leaf });
        } else if let Some(column) = TEXTS.into_iter().find(|known| *known == name) {
            return Err(ParquetError::Column {
                column,
                found: describe(field),
                expected: "text",
            });
        } else if matters_in_record(name) {
            left_out.push(LeftOut::new(name, Cause::Column));
        }
    }
    if !is_form(columns.iter().map(Column::name)) {
        let all = schema.root_schema().get_fields().iter();
        return Err(ParquetError::Form {
            found: names(all.map(|field| field.name())),
        });
    }
    Ok(Columns {
        read: columns,
        left_out,
    })
}

/// Keys of a message, one of each pair.
const CHAT_KEYS: [&str; 4] = ["role", "from", "content", "value"];

/// The path to the struct of a list of structs, and its fields, as the format has lists: a
/// repeated group in the list's group, or the older forms that leave out one of the two.
fn chat_columns(field: &Type) -> Option<(Vec<&str>, &[Arc<Type>])> {
    let mut path = vec![field.name()];
    let repeated: &Type = if is_repeated(field) {
        field
    } else {
        let [inner] = groups(field)? else {
            return None;
        };
        path.push(inner.name());
        inner
    };
    if !is_repeated(repeated) {
        return None;
    }
    let element: &Type = match groups(repeated)? {
        [only] if only.is_group() && !is_repeated(only) => {
            path.push(only.name());
            only
        }
        _ => repeated,
    };
    let fields = groups(element)?;
    let has = |names: [&str; 2]| {
        let found = fields.iter().find(|field| names.contains(&field.name()));
        found.is_some_and(|field| is_text(field))
    };
    (has(["role", "from"]) && has(["content", "value"])).then_some((path, fields))
}

fn groups(field: &Type) -> Option<&[Arc<Type>]> {
    field.is_group().then(|| field.get_fields())
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

/// Text, once or not at all in a row. Older writers do not mark it as UTF-8.
fn is_text(field: &Type) -> bool {
    field.is_primitive()
        && field.get_physical_type() == Physical::BYTE_ARRAY
        && !is_repeated(field)
        && matches!(
            field.get_basic_info().converted_type(),
            ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
        )
}

/// A column's type in words.
fn describe(field: &Type) -> String {
    if is_repeated(field) {
        return "a list".to_owned();
    }
    if field.is_primitive() {
        return if is_text(field) {
            "text".to_owned()
        } else {
            format!("{} values", field.get_physical_type())
        };
    }
    match field.get_basic_info().converted_type() {
        ConvertedType::LIST => "a list of something else".to_owned(),
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => "a map".to_owned(),
        _ => "a struct".to_owned(),
    }
}

/// A row's value in one column.
#[derive(Default)]
enum Cell {
    #[default]
    Null,
    Text(ByteArray),
    /// A value of each key for each message.
    Chat(Vec<Vec<Option<ByteArray>>>),
}

/// A row's value in one leaf: a list's elements, or at most one value.
type Values = Option<Vec<Option<ByteArray>>>;

/// A leaf column of a row group.
struct Leaf {
    reader: ColumnReaderImpl<ByteArrayType>,
    name: String,
    /// Levels at which a value is there, and at which an element of the list is.
    value_level: i16,
    element_level: i16,
    is_list: bool,
}

impl Leaf {
    fn new(group: &dyn RowGroupReader, leaf: usize) -> Result<Self, ParquetError> {
        let column = group.metadata().column(leaf);
        let name = column.column_path().string();
        if !matches!(
            column.compression(),
            Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::ZSTD(_)
                | Compression::LZ4
                | Compression::LZ4_RAW
        ) {
            let found = column.compression().to_string();
            return Err(ParquetError::Compression {
                column: name,
                found,
            });
        }
        let descriptor = column.column_descr();
        let (value_level, is_list) = (descriptor.max_def_level(), descriptor.max_rep_level() > 0);
        let element_level = descriptor.repeated_ancestor_def_level();
        let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(leaf)? else {
            return Err(ParquetError::Uneven { column: name });
        };
        Ok(Self {
            reader,
            name,
            value_level,
            element_level,
            is_list,
        })
    }

    fn next_rows(&mut self, count: usize) -> Result<Vec<Values>, ParquetError> {
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (rows, _, levels) = self.reader.read_records(
            count,
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )?;
        if self.value_level == 0 {
            definitions = vec![0; levels];
        }
        if !self.is_list {
            repetitions = vec![0; levels];
        }
        let mut values = values.into_iter();
        let mut found: Vec<Values> = Vec::with_capacity(rows);
        for (definition, repetition) in definitions.into_iter().zip(repetitions) {
            let value = if definition == self.value_level {
                values.next()
            } else {
                None
            };
            let row = if !self.is_list {
                value.map(|value| vec![Some(value)])
            } else if definition >= self.element_level {
                Some(vec![value])
            } else if definition + 1 == self.element_level {
                Some(Vec::new())
            } else {
                None
            };
            if repetition == 0 {
                found.push(row);
            } else if let (Some(Some(last)), Some(row)) = (found.last_mut(), row) {
                last.extend(row);
            } else {
                return Err(self.uneven());
            }
        }
        if found.len() == count {
            Ok(found)
        } else {
            Err(self.uneven())
        }
    }

    fn uneven(&self) -> ParquetError {
        ParquetError::Uneven {
            column: self.name.clone(),
        }
    }
}

/// A column of a row group that is being read.
enum Open {
    Text(Box<Leaf>),
    Chat(Vec<Leaf>),
}

impl Open {
    fn new(group: &dyn RowGroupReader, column: &Column) -> Result<Self, ParquetError> {
        Ok(match column {
            Column::Text { leaf, .. } => Self::Text(Box::new(Leaf::new(group, *leaf)?)),
            Column::Chat { keys, .. } => {
                let leaves = keys.iter().map(|(_, leaf)| Leaf::new(group, *leaf));
                Self::Chat(leaves.collect::<Result<_, _>>()?)
            }
        })
    }

    fn next_rows(&mut self, count: usize) -> Result<Vec<Cell>, ParquetError> {
        match self {
            Self::Text(leaf) => {
                let text = |row: Values| match row.and_then(|mut values| values.pop()?) {
                    Some(text) => Cell::Text(text),
                    None => Cell::Null,
                };
                Ok(leaf.next_rows(count)?.into_iter().map(text).collect())
            }
            Self::Chat(leaves) => {
                let mut rows: Vec<Option<Vec<Vec<Option<ByteArray>>>>> = vec![None; count];
                for (place, leaf) in leaves.iter_mut().enumerate() {
                    for (row, values) in rows.iter_mut().zip(leaf.next_rows(count)?) {
                        match (row, values) {
                            (row @ None, Some(values)) if place == 0 => {
                                *row = Some(values.into_iter().map(|value| vec![value]).collect());
                            }
                            (Some(messages), Some(values)) if messages.len() == values.len() => {
                                for (message, value) in messages.iter_mut().zip(values) {
                                    message.push(value);
                                }
                            }
                            (None, None) => {}
                            _ => return Err(leaf.uneven()),
                        }
                    }
                }
                Ok(rows
                    .into_iter()
                    .map(|row| row.map_or(Cell::Null, Cell::Chat))
                    .collect())
            }
        }
    }
}

/// Makes a record of a row. An empty cell is a missing field.
fn parse(columns: &[Column], cells: impl Iterator<Item = Cell>) -> Result<Parsed, LineProblem> {
    let mut row = Map::new();
    let mut bytes = 0;
    for (column, cell) in columns.iter().zip(cells) {
        let value = match cell {
            Cell::Null => continue,
            Cell::Text(text) => {
                let known = matters_in_record(column.name());
                if !known && text.len() > LONGEST_LABEL {
                    continue;
                }
                bytes += text.len();
                match utf8(&text) {
                    Ok(text) => Value::String(text),
                    Err(_) if !known => continue,
                    Err(problem) => return Err(problem),
                }
            }
            Cell::Chat(turns) => {
                let texts = turns.iter().flatten().flatten();
                bytes += texts.map(ByteArray::len).sum::<usize>();
                if bytes > LONGEST_LINE {
                    return Err(LineProblem::TooLong);
                }
                let Column::Chat { keys, .. } = column else {
                    continue;
                };
                let turns = turns.into_iter().map(|turn| {
                    let mut message = Map::new();
                    for ((key, _), text) in keys.iter().zip(turn) {
                        // An empty cell of another key is a missing one.
                        if text.is_some() || CHAT_KEYS.contains(&key.as_str()) {
                            let text = text.map(|text| utf8(&text)).transpose()?;
                            message.insert(key.clone(), text.into());
                        }
                    }
                    Ok(Value::Object(message))
                });
                Value::Array(turns.collect::<Result<_, LineProblem>>()?)
            }
        };
        row.insert(column.name().to_owned(), value);
    }
    if bytes > LONGEST_LINE {
        return Err(LineProblem::TooLong);
    }
    let row = Value::Object(row);
    let text = row.to_string();
    parse_value(row, &text)
}

fn utf8(text: &ByteArray) -> Result<String, LineProblem> {
    match std::str::from_utf8(text.data()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(LineProblem::Encoding { hint: "" }),
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
