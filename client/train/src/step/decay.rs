//! The shapes of a learning rate after its warm-up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the learning rate falls from its peak. The names in files and text are `cosine`,
/// `linear` and `constant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine down to zero, `(1 + cos(pi t)) / 2` (Loshchilov and Hutter, 2017, without
    /// restarts).
    #[default]
    Cosine,
    /// A straight line down to zero, `1 - t`.
    Linear,
    /// The peak throughout.
    Constant,
}

impl Decay {
    /// All shapes.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Linear, Self::Constant];

    /// The share of the peak rate that is left at `t`, from 0 (end of the warm-up) to 1 (end of
    /// the schedule).
    pub(crate) fn factor(self, t: f64) -> f64 {
        match self {
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Self::Linear => 1.0 - t,
            Self::Constant => 1.0,
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant => "constant",
        })
    }
}

impl FromStr for Decay {
    type Err = DecayError;

    fn from_str(text: &str) -> Result<Self, DecayError> {
        Self::ALL
            .into_iter()
            .find(|decay| decay.to_string() == text)
            .ok_or_else(|| DecayError {
                got: text.chars().take(40).collect(),
            })
    }
}

/// Text that names no [`Decay`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is not a decay of the learning rate: use cosine, linear or constant")]
pub struct DecayError {
    /// The text, cut at 40 characters.
    got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_text_and_in_files() {
        for decay in Decay::ALL {
            assert_eq!(decay.to_string().parse(), Ok(decay));
            let json = serde_json::to_string(&decay).unwrap();
            assert_eq!(json, format!("\"{decay}\""));
            assert_eq!(serde_json::from_str::<Decay>(&json).unwrap(), decay);
        }
        for bad in ["", "Cosine", "cos", "linear "] {
            assert!(bad.parse::<Decay>().is_err(), "{bad:?} was taken");
        }
    }
}
