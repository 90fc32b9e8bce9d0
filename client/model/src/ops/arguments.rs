//! What the fused operations take and give, beyond tensors.

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads that follow each other.
    pub kv_heads: usize,
    /// Features of a head; even.
    pub dim: usize,
    /// Rows that a row attends to, itself included; all before it where `None`.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// What scores are multiplied with: `1 / sqrt(dim)` (Vaswani et al., 2017).
    pub fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }
}

/// Rotary tables with one line for each row, `[rows, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation<F> {
    /// Cosines.
    pub cos: F,
    /// Sines.
    pub sin: F,
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the position.
    Forward,
    /// Back again: the adjoint.
    Back,
}

impl Turn {
    /// The other way.
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended<F> {
    /// The weighted values, `[rows, heads * dim]`.
    pub context: F,
    /// The logarithm of the softmax's sum for each score row, `[heads, rows]`.
    pub sums: F,
}

/// The loss of the output layer, with the gradients that were asked for.
#[derive(Debug, Clone)]
pub struct HeadLoss<F> {
    /// Sum of the rows' cross-entropies in nats, `[1]`.
    pub loss: F,
    /// By the rows, `[rows, hidden]`.
    pub rows_gradient: Option<F>,
    /// By the output layer, `[vocab, hidden]`.
    pub weight_gradient: Option<F>,
}
