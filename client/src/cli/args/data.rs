//! The records to train on, and those to hold out.

use std::path::PathBuf;
use std::str::FromStr;

use fedlora_data::HeldOut;

/// The options of every command that reads records to train on.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Private records: JSON Lines, JSON arrays, Parquet, or a folder of them; may be repeated.
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
}

/// Files of records, and where the held-out records come from.
#[derive(Debug, Clone)]
pub(crate) struct DataSpec {
    pub(crate) training: Vec<PathBuf>,
    pub(crate) held_out: HeldOutSpec,
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
