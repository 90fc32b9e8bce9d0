//! What an adapter is made of: rank, scale, targets, and which factors a round trains.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest LoRA rank.
pub(super) const MAX_RANK: usize = 256;

/// A linear layer of a Llama block that an adapter can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The query projection of the attention, `q_proj`.
    Q,
    /// The key projection of the attention, `k_proj`.
    K,
    /// The value projection of the attention, `v_proj`.
    V,
    /// The output projection of the attention, `o_proj`.
    O,
    /// The gate projection of the feed-forward part, `gate_proj`.
    Gate,
    /// The up-projection of the feed-forward part, `up_proj`.
    Up,
    /// The down-projection of the feed-forward part, `down_proj`.
    Down,
}

impl Target {
    /// All targets in the order in which a block applies them.
    pub const ALL: [Target; 7] = [
        Target::Q,
        Target::K,
        Target::V,
        Target::O,
        Target::Gate,
        Target::Up,
        Target::Down,
    ];

    /// The module's name in a checkpoint and in PEFT's `target_modules`.
    pub const fn module(self) -> &'static str {
        match self {
            Target::Q => "q_proj",
            Target::K => "k_proj",
            Target::V => "v_proj",
            Target::O => "o_proj",
            Target::Gate => "gate_proj",
            Target::Up => "up_proj",
            Target::Down => "down_proj",
        }
    }

    /// The module's path inside a block.
    pub const fn path(self) -> &'static str {
        match self {
            Target::Q => "self_attn.q_proj",
            Target::K => "self_attn.k_proj",
            Target::V => "self_attn.v_proj",
            Target::O => "self_attn.o_proj",
            Target::Gate => "mlp.gate_proj",
            Target::Up => "mlp.up_proj",
            Target::Down => "mlp.down_proj",
        }
    }

    /// The target of that module name.
    pub fn from_module(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.module() == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.module().trim_end_matches("_proj"))
    }
}

impl FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|target| target.to_string() == text || target.module() == text)
            .ok_or_else(|| ConfigError::Target {
                got: text.chars().take(80).collect(),
            })
    }
}

/// One of the two matrices of a low-rank pair: the layer adds `s B A x`, with [`LoraConfig::scale`] for `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Factor {
    /// The inner matrix, `[rank, in]`.
    A,
    /// The outer matrix, `[out, rank]`.
    B,
}

/// Which factors are trained, sent and summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Factors {
    /// A and B.
    Both,
    /// A only; B is frozen.
    A,
    /// B only; A is frozen.
    B,
    /// The cores: square matrices between A and a fixed basis of B's columns.
    Core,
}

impl Factors {
    /// Whether `factor` is one of them, or changes with them: B does with the cores.
    pub const fn contains(self, factor: Factor) -> bool {
        matches!(
            (self, factor),
            (Factors::Both, _) | (Factors::A, Factor::A) | (Factors::B | Factors::Core, Factor::B)
        )
    }
}

/// One factor of one projection: what an adapter tensor's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectionTensor {
    /// The block, counted from 0.
    pub layer: usize,
    /// The projection within the block.
    pub target: Target,
    /// Which of the two factors of the pair.
    pub factor: Factor,
}

impl ProjectionTensor {
    /// The name under which PEFT stores the tensor.
    pub fn name(&self) -> String {
        let factor = match self.factor {
            Factor::A => "lora_A",
            Factor::B => "lora_B",
        };
        format!(
            "base_model.model.model.layers.{}.{}.{factor}.weight",
            self.layer,
            self.target.path()
        )
    }

    /// Reads such a name; `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("base_model.model.model.layers.")?;
        let (layer, rest) = rest.split_once('.')?;
        let (path, factor) = rest.strip_suffix(".weight")?.rsplit_once('.')?;
        let found = Self {
            layer: layer.parse().ok()?,
            target: Target::ALL.into_iter().find(|t| t.path() == path)?,
            factor: match factor {
                "lora_A" => Factor::A,
                "lora_B" => Factor::B,
                _ => return None,
            },
        };
        // One spelling a tensor: "00" is not layer 0.
        (found.name() == name).then_some(found)
    }
}

/// Rank, scale, dropout and targets of an adapter. As a part of a message or a plan it is one that is
/// scaled by `alpha / rank`; files of PEFT say which of the two scales they have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawConfig", into = "RawConfig")]
pub struct LoraConfig {
    rank: usize,
    alpha: f64,
    dropout: f64,
    targets: BTreeSet<Target>,
    use_rslora: bool,
}

impl LoraConfig {
    /// Checks rank (1 to 256), alpha (finite, above 0), dropout (in [0, 1)) and that there is a
    /// target.
    ///
    /// # Errors
    /// [`ConfigError`] with the first setting out of range.
    pub fn new(
        rank: usize,
        alpha: f64,
        dropout: f64,
        targets: impl IntoIterator<Item = Target>,
    ) -> Result<Self, ConfigError> {
        let targets: BTreeSet<_> = targets.into_iter().collect();
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(ConfigError::Rank { got: rank });
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(ConfigError::Alpha { got: alpha });
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(ConfigError::Dropout { got: dropout });
        }
        if targets.is_empty() {
            return Err(ConfigError::NoTargets);
        }
        Ok(Self {
            rank,
            alpha,
            dropout,
            targets,
            use_rslora: false,
        })
    }

    /// The same, scaled by `alpha / sqrt(rank)` (rsLoRA, Kalajdzievski, arXiv 2312.03732): the
    /// gradients of an adapter of a high rank then stay as large as those of one of a low rank.
    #[must_use]
    pub fn rank_stabilised(self) -> Self {
        Self {
            use_rslora: true,
            ..self
        }
    }

    /// The same with another dropout.
    ///
    /// # Errors
    /// [`ConfigError`] for one outside [0, 1).
    pub fn with_dropout(self, dropout: f64) -> Result<Self, ConfigError> {
        let config = Self::new(self.rank, self.alpha, dropout, self.targets)?;
        Ok(Self {
            use_rslora: self.use_rslora,
            ..config
        })
    }

    /// The same scale at another rank.
    ///
    /// # Errors
    /// [`ConfigError`] for a rank outside 1 to 256.
    pub fn with_rank(self, rank: usize) -> Result<Self, ConfigError> {
        let more = rank as f64 / self.rank as f64;
        let more = if self.use_rslora { more.sqrt() } else { more };
        let config = Self::new(rank, self.alpha * more, self.dropout, self.targets)?;
        Ok(Self {
            use_rslora: self.use_rslora,
            ..config
        })
    }

    /// The rank `r` of the low-rank pair.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// LoRA's alpha: the numerator of [`LoraConfig::scale`].
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Whether the scale is `alpha / sqrt(rank)`, as of [`rank_stabilised`](Self::rank_stabilised).
    pub fn is_rank_stabilised(&self) -> bool {
        self.use_rslora
    }

    /// The factor before `B A x`: `alpha / rank`, or `alpha / sqrt(rank)`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.use_rslora {
            self.alpha / rank.sqrt()
        } else {
            self.alpha / rank
        }
    }

    /// The probability with which an input of A is zeroed in training.
    pub fn dropout(&self) -> f64 {
        self.dropout
    }

    /// The adapted projections.
    pub fn targets(&self) -> &BTreeSet<Target> {
        &self.targets
    }
}

/// The fields of a file or message, unchecked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    rank: usize,
    alpha: f64,
    #[serde(default)]
    dropout: f64,
    targets: BTreeSet<Target>,
}

impl TryFrom<RawConfig> for LoraConfig {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        Self::new(raw.rank, raw.alpha, raw.dropout, raw.targets)
    }
}

impl From<LoraConfig> for RawConfig {
    fn from(config: LoraConfig) -> Self {
        Self {
            rank: config.rank,
            alpha: config.alpha,
            dropout: config.dropout,
            targets: config.targets,
        }
    }
}

/// Why a LoRA setting is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A rank outside 1 to 256.
    #[error("LoRA rank {got} is out of range: use 1 to 256")]
    Rank {
        /// The rank given.
        got: usize,
    },
    /// An alpha that is not a finite number above 0.
    #[error("LoRA alpha {got} is out of range: use a finite number above 0")]
    Alpha {
        /// The alpha given.
        got: f64,
    },
    /// A dropout outside [0, 1).
    #[error("LoRA dropout {got} is out of range: use 0 up to, not including, 1")]
    Dropout {
        /// The dropout given.
        got: f64,
    },
    /// No projection is adapted.
    #[error("no LoRA target is given: use one or more of q, k, v, o, gate, up, down")]
    NoTargets,
    /// A name that is not of an adaptable projection.
    #[error("'{got}' is not a LoRA target: use q, k, v, o, gate, up or down")]
    Target {
        /// The name given, cut at 80 characters.
        got: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for target in Target::ALL {
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
            assert_eq!(target.module().parse::<Target>().unwrap(), target);
            for factor in [Factor::A, Factor::B] {
                let tensor = ProjectionTensor {
                    layer: 12,
                    target,
                    factor,
                };
                assert_eq!(ProjectionTensor::parse(&tensor.name()), Some(tensor));
            }
        }
        for bad in [
            "",
            "model.layers.0.self_attn.q_proj.weight",
            "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.mlp.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight",
        ] {
            assert_eq!(ProjectionTensor::parse(bad), None, "{bad}");
        }
        assert!("x".parse::<Target>().is_err());
    }

    #[test]
    fn refuses_settings_out_of_range() {
        let q = [Target::Q];
        assert!(LoraConfig::new(8, 16.0, 0.05, q).is_ok());
        assert!(LoraConfig::new(0, 16.0, 0.0, q).is_err());
        assert!(LoraConfig::new(257, 16.0, 0.0, q).is_err());
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(LoraConfig::new(8, alpha, 0.0, q).is_err(), "{alpha}");
        }
        for dropout in [-0.1, 1.0, f64::NAN] {
            assert!(LoraConfig::new(8, 16.0, dropout, q).is_err(), "{dropout}");
        }
        assert!(LoraConfig::new(8, 16.0, 0.0, []).is_err());
        let config = LoraConfig::new(8, 16.0, 0.0, q).unwrap();
        assert!(config.clone().with_dropout(1.0).is_err());
        assert!(config.with_rank(512).is_err());
        let json = r#"{"rank":0,"alpha":1.0,"dropout":0.0,"targets":["q"]}"#;
        assert!(serde_json::from_str::<LoraConfig>(json).is_err());
    }

    #[test]
    fn a_rank_stabilised_scale_divides_by_the_root_of_the_rank() {
        let plain = LoraConfig::new(16, 8.0, 0.0, [Target::Q]).unwrap();
        let stabilised = plain.clone().rank_stabilised();
        assert_eq!((plain.scale(), stabilised.scale()), (0.5, 2.0));
        for config in [plain, stabilised] {
            let wider = config.clone().with_rank(64).unwrap();
            assert_eq!((wider.rank(), wider.scale()), (64, config.scale()));
            assert_eq!(wider.is_rank_stabilised(), config.is_rank_stabilised());
        }
    }
}
