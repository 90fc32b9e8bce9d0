//! The operations for burn's CPU backend, by the kernels of [`crate::cpu`].

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{DType, TensorMetadata};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::arguments::{AttentionOutput, AttentionShape, Rotation, Turn};
use super::{FusedOps, composed};
use crate::config::Activation;
use crate::cpu::frozen::{Frozen, unpacked};
use crate::cpu::host::{HostWeight, tensor, values};
use crate::cpu::rope::Tables;
use crate::cpu::rows::{Store, matrix, matrix_mut, multiply};
use crate::cpu::{attention, elementwise, head, rope};
use crate::packed::Packed;
use crate::sequences::Sequences;

/// Output features that are unpacked at a time.
const PANEL: usize = 64;

/// Elements a task goes through; smaller tensors stay on one thread.
const GRAIN: usize = 1 << 14;

/// Whether the kernels take it; what is of another type goes through the composed forms.
fn is_f32(x: &FlexTensor) -> bool {
    x.dtype() == DType::F32
}

/// Elements of as many whole rows as one task takes.
fn task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1) * width.max(1)
}

impl FusedOps for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return composed::rms_norm::<Self>(x, weight, eps);
        }
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (input, scale) = (values(&x), values(&weight));
        let mut out = vec![0.0_f32; input.len()];
        let task = task(scale.len());
        out.par_chunks_mut(task)
            .zip(input.par_chunks(task))
            .for_each(|(out, rows)| elementwise::rms_norm(rows, scale, eps as f32, out));
        tensor(out, x.shape())
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
        by_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        if !is_f32(&x) {
            return composed::rms_norm_backward::<Self>(x, weight, gradient, eps, by_weight);
        }
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let gradient = gradient.to_contiguous();
        let (input, scale, gradients) = (values(&x), values(&weight), values(&gradient));
        let width = scale.len();
        let mut out = vec![0.0_f32; input.len()];
        let task = task(width);
        let sums: Vec<Option<Vec<f32>>> = out
            .par_chunks_mut(task)
            .zip(input.par_chunks(task))
            .zip(gradients.par_chunks(task))
            .map(|((out, input), gradients)| {
                let mut sums = by_weight.then(|| vec![0.0_f32; width]);
                let eps = eps as f32;
                let sums_ = sums.as_deref_mut();
                elementwise::rms_norm_backward(input, scale, gradients, eps, out, sums_);
                sums
            })
            .collect();
        let by_weight = by_weight.then(|| {
            let mut total = vec![0.0_f32; width];
            for sums in sums.into_iter().flatten() {
                for (total, sum) in total.iter_mut().zip(sums) {
                    *total += sum;
                }
            }
            tensor(total, weight.shape())
        });
        (tensor(out, x.shape()), by_weight)
    }

    fn gated(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !is_f32(&gate) {
            return composed::gated::<Self>(activation, gate, up);
        }
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let mut out = vec![0.0_f32; values(&gate).len()];
        out.par_chunks_mut(GRAIN)
            .zip(values(&gate).par_chunks(GRAIN))
            .zip(values(&up).par_chunks(GRAIN))
            .for_each(|((out, gate), up)| elementwise::gated(activation, gate, up, out));
        tensor(out, gate.shape())
    }

    fn gated_backward(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&gate) {
            return composed::gated_backward::<Self>(activation, gate, up, gradient);
        }
        let (shape, gradient) = (gate.shape(), gradient.to_contiguous());
        let mut by_gate = values(&gate.to_contiguous()).to_vec();
        let mut by_up = values(&up.to_contiguous()).to_vec();
        by_gate
            .par_chunks_mut(GRAIN)
            .zip(by_up.par_chunks_mut(GRAIN))
            .zip(values(&gradient).par_chunks(GRAIN))
            .for_each(|((gate, up), gradient)| {
                elementwise::gated_backward(activation, gate, up, gradient);
            });
        (tensor(by_gate, shape.clone()), tensor(by_up, shape))
    }

    fn rotate(
        x: FloatTensor<Self>,
        dim: usize,
        rotation: Rotation<FloatTensor<Self>>,
        turn: Turn,
    ) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return composed::rotate::<Self>(x, dim, rotation, turn);
        }
        let shape = x.shape();
        let width = shape[1];
        let (cos, sin) = (rotation.cos.to_contiguous(), rotation.sin.to_contiguous());
        let tables = Tables {
            cos: values(&cos),
            sin: values(&sin),
        };
        let lines: Vec<u32> = (0..shape[0] as u32).collect();
        let mut out = values(&x.to_contiguous()).to_vec();
        let rows = task(width) / width.max(1);
        out.par_chunks_mut(rows * width)
            .zip(lines.par_chunks(rows))
            .for_each(|(out, lines)| rope::rotate(out, width, dim, lines, tables, turn));
        tensor(out, shape)
    }

    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        sequences: &Sequences,
    ) -> AttentionOutput<FloatTensor<Self>> {
        if !is_f32(&q) {
            return composed::causal_attention::<Self>(q, k, v, shape, sequences);
        }
        let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
        let rows = sequences.rows();
        let mut context = vec![0.0; rows * shape.heads * shape.dim];
        let mut sums = vec![0.0; shape.heads * rows];
        let inputs = [values(&q), values(&k), values(&v)];
        attention::forward(inputs, shape, sequences, &mut context, &mut sums);
        AttentionOutput {
            context: tensor(context, [rows, shape.heads * shape.dim]),
            sums: tensor(sums, [shape.heads, rows]),
        }
    }

    fn causal_attention_backward(
        inputs: [FloatTensor<Self>; 3],
        attended: AttentionOutput<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        shape: &AttentionShape,
        sequences: &Sequences,
    ) -> [FloatTensor<Self>; 3] {
        if !is_f32(&inputs[0]) {
            return composed::causal_attention_backward::<Self>(
                inputs, attended, gradient, shape, sequences,
            );
        }
        let inputs = inputs.map(|input| input.to_contiguous());
        let (context, sums) = (
            attended.context.to_contiguous(),
            attended.sums.to_contiguous(),
        );
        let gradient = gradient.to_contiguous();
        let mut found = inputs
            .each_ref()
            .map(|input| vec![0.0; values(input).len()]);
        let [q, k, v] = &inputs;
        let attended = attention::SavedAttention {
            q: values(q),
            k: values(k),
            v: values(v),
            context: values(&context),
            sums: values(&sums),
        };
        let targets = found.each_mut().map(Vec::as_mut_slice);
        attention::backward(&attended, values(&gradient), shape, sequences, targets);
        let [by_q, by_k, by_v] = found;
        [
            tensor(by_q, q.shape()),
            tensor(by_k, k.shape()),
            tensor(by_v, v.shape()),
        ]
    }

    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: &[u32],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&logits) {
            return composed::cross_entropy::<Self>(logits, targets);
        }
        let vocab = logits.shape()[1];
        let mut logits = logits.to_contiguous();
        let losses: Vec<f32> = logits
            .storage_mut::<f32>()
            .par_chunks_mut(vocab)
            .zip(targets.par_iter())
            .with_min_len(task(vocab) / vocab)
            .map(|(row, &target)| head::cross_entropy(row, target as usize, true).0)
            .collect();
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        (tensor(vec![loss as f32], [1]), logits)
    }

    /// By output features, of which a panel is unpacked at a time.
    fn packed_product(x: FloatTensor<Self>, weight: &Packed<Self>) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return composed::packed_product::<Self>(x, weight);
        }
        let x = x.to_contiguous();
        let host = HostWeight::packed(weight);
        let Frozen::Packed(packed) = host.frozen() else {
            return composed::packed_product::<Self>(x, weight);
        };
        let [outputs, inputs] = weight.shape;
        let rows = x.shape()[0];
        // Transposed, so that each panel writes what lies together.
        let mut out = vec![0.0_f32; outputs * rows];
        out.par_chunks_mut((PANEL * rows).max(1))
            .enumerate()
            .for_each_init(Vec::new, |scratch, (panel, out)| {
                let start = panel * PANEL;
                let end = (start + PANEL).min(outputs);
                let left = unpacked(&packed, start..end, scratch);
                let right = matrix(values(&x), inputs).transpose();
                multiply(matrix_mut(out, rows), Store::Replace, left, right, 1.0);
            });
        Flex::float_swap_dims(tensor(out, [outputs, rows]), 0, 1)
    }

    fn packed_rows(weight: &Packed<Self>, ids: &[u32]) -> FloatTensor<Self> {
        let width = weight.shape[1];
        let host = HostWeight::packed(weight);
        let mut out = vec![0.0_f32; ids.len() * width];
        if let Frozen::Packed(packed) = host.frozen() {
            for (row, &id) in out.chunks_exact_mut(width.max(1)).zip(ids) {
                packed.unpack_rows(id as usize..id as usize + 1, row);
            }
        }
        tensor(out, [ids.len(), width])
    }
}
