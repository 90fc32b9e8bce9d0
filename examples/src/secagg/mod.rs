//! What secure aggregation costs, and how exact it is: one round in memory, with the real phases
//! and the real cryptography, without training and network.

mod cohort;
mod error;
mod measure;
mod report;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use fedlora_protocol::crypto::agreement::{Suite, SuiteError};
use fedlora_protocol::fixed::LaneBits;

pub(crate) use measure::measure;
pub(crate) use report::render;

/// The size of the round.
#[derive(Debug, Clone, Args)]
pub(crate) struct SecaggArgs {
    /// Members of the round: 3 to 4,096. Above 64, each shares secrets and masks with some only.
    #[arg(long, default_value_t = 10)]
    pub(crate) members: u16,
    /// Coordinates of each member's update.
    #[arg(long, default_value_t = 1_000_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) elements: usize,
    /// Members that vanish before their upload.
    #[arg(long, default_value_t = 1)]
    pub(crate) drop: u16,
    /// Bits of a lane: 20, 24 or 32.
    #[arg(long, default_value = "24", value_parser = lane_bits)]
    pub(crate) bits: LaneBits,
    /// Threads to compute with; by default one for each core.
    #[arg(long)]
    pub(crate) threads: Option<u16>,
    /// The L2 norm of the updates, as a part of the clip norm: above 0, at most 1.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub(crate) norm: f64,
    /// The members' weight, as a part of 4,096: above 0, at most 1. It counts as the power of two
    /// below.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub(crate) weight_share: f64,
    /// The algorithms of key agreement: hybrid or classical.
    #[arg(long, default_value = "hybrid", value_parser = suite)]
    pub(crate) suite: Suite,
    /// Above 64 members, the share of them that may collude.
    #[arg(long, default_value_t = 0.05, value_parser = small_share)]
    pub(crate) colluding: f64,
    /// Above 64 members, the share of them that may drop out.
    #[arg(long, default_value_t = 0.05, value_parser = small_share)]
    pub(crate) dropping: f64,
    /// Rounds that are measured, or as many as are begun within a minute; figures are their
    /// medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) repeats: u16,
}

fn lane_bits(text: &str) -> Result<LaneBits, String> {
    let bits: u8 = text.parse().map_err(|_| "expected 20, 24 or 32")?;
    LaneBits::try_from(bits).map_err(|error| error.to_string())
}

fn suite(text: &str) -> Result<Suite, String> {
    text.parse().map_err(|error: SuiteError| error.to_string())
}

fn small_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0 / 3.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to below 1/3".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}
