//! A member's records: read from files, grouped, split and prepared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::error::DataError;
use super::files;
use super::prepare::{DataReport, PrepareError, PrepareOptions, Prepared, prepare};
use super::records::{self, Problem, Record};
use super::split::HeldOut;
use super::tokenizer::TextPipeline;
use fedlora_model::Example;

/// Records in the order of their files and lines. `Debug` shows their number only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Dataset {
    records: Vec<Record>,
    /// Records without text, which were left out.
    empty: usize,
}

impl FromIterator<Record> for Dataset {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self {
            records: records.into_iter().collect(),
            empty: 0,
        }
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dataset({} records)", self.records.len())
    }
}

impl Dataset {
    /// Reads files, and the files in folders: JSON Lines, JSON arrays and Parquet.
    ///
    /// # Errors
    /// [`DataError::Lines`] with every bad line of every file, an error about a file as a whole,
    /// or [`DataError::Empty`] when there is no record at all.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, DataError> {
        let survey = Survey::of(paths);
        if let Some(failure) = survey.failures.into_iter().next() {
            return Err(failure);
        }
        if !survey.problems.is_empty() {
            return Err(DataError::Lines(survey.problems));
        }
        if survey.dataset.is_empty() {
            let files: Vec<_> = paths
                .iter()
                .map(|path| path.as_ref().display().to_string())
                .collect();
            let files = files.join(", ");
            return Err(DataError::Empty { files });
        }
        Ok(survey.dataset)
    }

    /// Reads JSON Lines from memory; `name` stands for the file's in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_lines(lines: &[u8], name: &str) -> Result<Self, DataError> {
        let failed = |source| DataError::Io {
            file: name.to_owned(),
            source,
        };
        let found = records::read(lines, name).map_err(failed)?;
        if !found.problems.is_empty() {
            return Err(DataError::Lines(found.problems));
        }
        if found.records.is_empty() {
            let files = name.to_owned();
            return Err(DataError::Empty { files });
        }
        Ok(Self {
            records: found.records,
            empty: found.empty,
        })
    }

    /// Reads files and prepares every record.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`prepare`](Self::prepare).
    pub fn load<P: AsRef<Path>>(
        paths: &[P],
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Result<(Vec<Example>, DataReport), DataError> {
        Self::read(paths)?.prepare(pipeline, options)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the files hold no record at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records, in the order of the files and of their lines.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The same without the records that have these problems.
    #[must_use]
    pub fn without(mut self, problems: &[Problem]) -> Self {
        let bad: BTreeSet<_> = problems.iter().map(|one| &one.place).collect();
        self.records.retain(|record| !bad.contains(record.place()));
        self
    }

    /// Splits into what is trained on and what is held out, by content.
    pub fn split(self, held_out: HeldOut) -> (Self, Self) {
        let (held, training) = self
            .records
            .into_iter()
            .partition(|record| held_out.holds_out(&record.digest()));
        let training = Self {
            records: training,
            empty: self.empty,
        };
        let held = Self {
            records: held,
            empty: 0,
        };
        (training, held)
    }

    /// One data set for each value of a text field outside the content.
    ///
    /// # Errors
    /// [`DataError::Label`] when a record lacks the field.
    pub fn group_by(self, field: &str) -> Result<BTreeMap<String, Self>, DataError> {
        let lacking = || self.records.iter().filter(|r| r.label(field).is_none());
        if let Some(first) = lacking().next() {
            return Err(DataError::Label {
                place: first.place().to_string(),
                field: field.chars().take(80).collect(),
                count: lacking().count(),
            });
        }
        let mut groups: BTreeMap<String, Self> = BTreeMap::new();
        for record in self.records {
            let label = record.label(field).unwrap_or_default().to_owned();
            groups.entry(label).or_default().records.push(record);
        }
        Ok(groups)
    }

    /// Makes one example of each record that has target tokens.
    ///
    /// # Errors
    /// [`DataError::Prepare`], or [`DataError::NothingCounted`] when no example is left of
    /// at least one record.
    pub fn prepare(
        &self,
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Result<(Vec<Example>, DataReport), DataError> {
        let Prepared {
            examples,
            report,
            problems,
            ..
        } = self.prepare_each(pipeline, options)?;
        if !problems.is_empty() {
            return Err(PrepareError::Records(problems).into());
        }
        if examples.is_empty() && report.records > 0 {
            return Err(DataError::NothingCounted {
                records: report.records,
                max_tokens: options.max_tokens,
            });
        }
        Ok((examples, report))
    }

    /// The same with what is wrong with single records beside it, and nothing refused for it.
    ///
    /// # Errors
    /// As [`super::prepare::prepare`].
    pub fn prepare_each(
        &self,
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Result<Prepared, PrepareError> {
        let mut prepared = prepare(&self.records, pipeline, options)?;
        prepared.report.empty = self.empty;
        Ok(prepared)
    }
}

/// A file that was read, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The path of the file.
    pub file: String,
    /// Records in it.
    pub records: usize,
    /// Lines, elements or rows that cannot be used.
    pub bad: usize,
    /// Blank lines, which are passed over.
    pub blank: usize,
    /// Records with an empty text, prompt or response, which are left out.
    pub empty: usize,
}

/// All that can be said of files: what can be used of them, and all that cannot.
#[derive(Debug, Default)]
pub struct Survey {
    /// The records of all files.
    pub dataset: Dataset,
    /// The files that could be read.
    pub files: Vec<FileReport>,
    /// Every line, element or row that cannot be used.
    pub problems: Vec<Problem>,
    /// What could not be read at all.
    pub failures: Vec<DataError>,
}

impl Survey {
    /// Reads as [`Dataset::read`] does, but continues past lines that cannot be used.
    pub fn of<P: AsRef<Path>>(paths: &[P]) -> Self {
        let mut survey = Self::default();
        for path in paths {
            let files = match files::expand(&[path]) {
                Ok(files) => files,
                Err(failure) => {
                    survey.failures.push(failure);
                    continue;
                }
            };
            for path in files {
                match files::read(&path) {
                    Ok(found) => {
                        survey.files.push(FileReport {
                            file: path.display().to_string(),
                            records: found.records.len(),
                            bad: found.problems.len(),
                            blank: found.blank,
                            empty: found.empty,
                        });
                        survey.dataset.records.extend(found.records);
                        survey.dataset.empty += found.empty;
                        survey.problems.extend(found.problems);
                    }
                    Err(failure) => survey.failures.push(failure),
                }
            }
        }
        survey
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
