//! The records to train on, and those to hold out.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use fedlora_data::{BadRecords, HeldOut};

/// The options of every command that reads records to train on.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Private records: JSON (Lines or arrays), Parquet, CSV, TSV, or a folder; may be repeated.
    #[arg(long, required = true, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Held-out records, which are scored and never trained on; may be given several times.
    #[arg(long, alias = "held-out", value_name = "FILE")]
    eval_data: Vec<PathBuf>,
    /// Hold out this share of --data, from 0 to 1, chosen by each record's content (0.1: a tenth).
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SHARE",
        value_parser = Share::from_str,
        conflicts_with = "eval_data"
    )]
    hold_out: Option<Share>,
    #[command(flatten)]
    records: RecordArgs,
}

/// How strict a command is with records.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    /// What to do about records that cannot be used: end, or leave them out, counted and shown.
    #[arg(long, value_enum, value_name = "stop|skip", default_value_t = BadRecordsKind::Stop)]
    bad_records: BadRecordsKind,
    /// The most records that --bad-records skip leaves out, in per cent of all.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = Percent::from_str,
        default_value = "50",
        allow_negative_numbers = true
    )]
    bad_limit: Percent,
    /// Refuse records of which something would be left out, such as unused fields.
    #[arg(long)]
    strict: bool,
    /// End each plain text with the base's end-of-text token, and train on it.
    #[arg(long)]
    end_texts: bool,
}

/// What becomes of records that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BadRecordsKind {
    /// The first of them ends the command.
    Stop,
    /// They are left out.
    Skip,
}

/// A share in per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: Option<f64> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
        let share = number.filter(|number| (0.0..=100.0).contains(number));
        share
            .map(Self)
            .ok_or_else(|| "give a number from 0 to 100".to_owned())
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Files of records, and where the held-out records come from.
#[derive(Debug, Clone)]
pub(crate) struct DataSpec {
    pub(crate) training: Vec<PathBuf>,
    pub(crate) held_out: HeldOutSpec,
    pub(crate) records: RecordSpec,
}

/// How strict a command is with records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordSpec {
    /// What to do about records that cannot be used.
    pub(crate) bad_records: BadRecords,
    /// Whether nothing of a record may be left out.
    pub(crate) strict: bool,
    /// Whether plain texts get an end.
    pub(crate) end_texts: bool,
}

/// Where held-out records come from.
#[derive(Debug, Clone)]
pub(crate) enum HeldOutSpec {
    /// There are none.
    Nothing,
    /// Files of their own.
    Files(Vec<PathBuf>),
    /// A share of the training records. Where it is `required`, at least one record must fall
    /// into it.
    Share { share: HeldOut, required: bool },
}

impl DataArgs {
    /// The records; without an option for held-out ones, `default` says where they come from.
    pub(crate) fn resolve(&self, default: HeldOutSpec) -> DataSpec {
        let held_out = match self.hold_out {
            Some(Share { number, share }) => HeldOutSpec::Share {
                share,
                required: number > 0.0,
            },
            None if self.eval_data.is_empty() => default,
            None => HeldOutSpec::Files(self.eval_data.clone()),
        };
        DataSpec {
            training: self.data.clone(),
            held_out,
            records: self.records.resolve(),
        }
    }
}

impl RecordArgs {
    pub(crate) fn resolve(&self) -> RecordSpec {
        RecordSpec {
            bad_records: match self.bad_records {
                BadRecordsKind::Stop => BadRecords::Stop,
                BadRecordsKind::Skip => BadRecords::Skip {
                    at_most: self.bad_limit.0,
                },
            },
            strict: self.strict,
            end_texts: self.end_texts,
        }
    }
}

/// `--hold-out`, which is a number and what it does.
#[derive(Debug, Clone, Copy)]
struct Share {
    number: f64,
    share: HeldOut,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text
            .parse()
            .map_err(|_| "give a number such as 0.1".to_owned())?;
        let share = HeldOut::share(number).map_err(|error| error.to_string())?;
        Ok(Self { number, share })
    }
}
