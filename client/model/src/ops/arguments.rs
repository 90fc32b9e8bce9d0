//! What the fused operations take and give, beyond tensors.

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; each serves `heads / kv_heads` query heads that follow each
    /// other.
    pub kv_heads: usize,
    /// Features of a head; even.
    pub dim: usize,
    /// Rows that a row attends to, itself included; all before it where `None`.
    pub window: Option<usize>,
    /// What scores are multiplied with.
    pub scale: f64,
}

impl AttentionShape {
    /// The scale that most models have: `1 / sqrt(dim)` (Vaswani et al., 2017).
    pub fn usual_scale(dim: usize) -> f64 {
        1.0 / (dim as f64).sqrt()
    }
}

/// Rotary tables with one line for each row, `[rows, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation<F> {
    /// Cosines of the angles, `[rows, dim / 2]`.
    pub cos: F,
    /// Sines of the angles, `[rows, dim / 2]`.
    pub sin: F,
}

/// The direction of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the angle of the position.
    Forward,
    /// By the negative angle: the adjoint, for gradients.
    Back,
}

impl Turn {
    /// The opposite direction.
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// The output of attention, with what its backward pass needs.
#[derive(Debug, Clone)]
pub struct AttentionOutput<F> {
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
    /// Gradient by the rows, `[rows, hidden]`; `None` where it was not asked for.
    pub rows_gradient: Option<F>,
    /// Gradient by the output layer, `[vocab, hidden]`; `None` where it was not asked for.
    pub weight_gradient: Option<F>,
}
