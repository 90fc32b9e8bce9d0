//! The options that every command of every program takes.

use clap::ValueEnum;

/// Options of a whole program, flattened into its arguments.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct GlobalOptions {
    /// Print errors only: no progress, no notes.
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Log more detail; repeat for even more.
    #[arg(
        long,
        short,
        global = true,
        action = clap::ArgAction::Count,
        help_heading = "Global options"
    )]
    pub verbose: u8,
    /// How to print data on standard output.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Format::Text,
        help_heading = "Global options"
    )]
    pub format: Format,
}

/// How a program prints data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines and tables for people.
    Text,
    /// JSON: one document, or one document a line.
    Json,
}
