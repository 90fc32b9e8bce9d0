//! What architectures compute otherwise than Llama: each a field, so that no pass asks for an
//! architecture's name.

use std::collections::BTreeSet;

/// How the blocks of a model differ from those of plain Llama, which is the default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Variation {
    /// Whether queries and keys pass an RMS norm, head by head, before they are rotated.
    pub qk_norm: bool,
    /// Numbers of the blocks that rotate neither queries nor keys (NoPE, Kazemnejad et al., 2023).
    pub unrotated: BTreeSet<usize>,
    /// Numbers of the blocks that have no sliding window where others have one.
    pub unwindowed: BTreeSet<usize>,
    /// The base of the rotary frequencies of blocks with a sliding window, which are not stretched;
    /// as in the other blocks where `None`.
    pub local_theta: Option<f64>,
    /// Whether what attention and the feed-forward part give passes an RMS norm before it is added
    /// to the residual stream.
    pub output_norms: bool,
    /// What the feed-forward part applies to its gate.
    pub activation: Activation,
    /// What parts of the computation are multiplied with.
    pub multipliers: Multipliers,
}

/// The function that the feed-forward part applies to its gate (Shazeer, 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// `x sigmoid(x)`: the part is a SwiGLU.
    #[default]
    Silu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` (Hendrycks and Gimpel, 2016): the part
    /// is a GeGLU.
    GeluTanh,
}

/// Factors on parts of the computation, as Granite has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// On the embeddings of tokens.
    pub embedding: f64,
    /// On the scores of attention; `1 / sqrt(head_dim)` where `None`.
    pub attention: Option<f64>,
    /// On what attention and the feed-forward part add to the residual stream.
    pub residual: f64,
    /// What logits are divided by.
    pub logits_scaling: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self {
            embedding: 1.0,
            attention: None,
            residual: 1.0,
            logits_scaling: 1.0,
        }
    }
}

impl Variation {
    /// What tells it apart from every other: numbers, each list after its length.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers = vec![u64::from(self.qk_norm)];
        for blocks in [&self.unrotated, &self.unwindowed] {
            numbers.push(blocks.len() as u64);
            numbers.extend(blocks.iter().map(|&block| block as u64));
        }
        let Multipliers {
            embedding,
            attention,
            residual,
            logits_scaling,
        } = self.multipliers;
        // Rounded as they are computed with: a GGUF file holds them in `f32`.
        let bits = |factor: f64| u64::from((factor as f32).to_bits());
        numbers.push(u64::from(attention.is_some()));
        let factors = [
            embedding,
            attention.unwrap_or(0.0),
            residual,
            logits_scaling,
        ];
        numbers.extend(factors.map(bits));
        // Added later: nothing is written for a model that has none of it.
        if self.local_theta.is_some() || self.output_norms || self.activation != Activation::Silu {
            numbers.push(bits(self.local_theta.unwrap_or(0.0)));
            numbers.push(u64::from(self.output_norms));
            numbers.push(match self.activation {
                Activation::Silu => 0,
                Activation::GeluTanh => 1,
            });
        }
        numbers
    }
}
