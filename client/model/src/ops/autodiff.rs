//! The operations under autodiff: each runs its inner backend's kernel and records the
//! handwritten backward pass.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::TensorMetadata;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;

use super::FusedOps;
use super::arguments::{AttentionOutput, AttentionShape, HeadLoss, Rotation, Turn};
use crate::config::Activation;
use crate::dropout::DropoutMask;
use crate::sequences::Sequences;

#[derive(Debug)]
struct Product;

impl<B: FusedOps> Backward<B, 2> for Product {
    /// What the gradients need: `y` for the one by `x`, `x` for the one by `y`.
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let ([y, x], [x_node, y_node]) = (ops.state, ops.parents);
        if let (Some(node), Some(y)) = (x_node, y) {
            let by_x = B::product(gradient.clone(), B::float_transpose(y));
            grads.register::<B>(node.id, by_x);
        }
        if let (Some(node), Some(x)) = (y_node, x) {
            let by_y = B::transposed_product(x, gradient);
            grads.register::<B>(node.id, by_y);
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: FusedOps> Backward<B, 2> for RmsNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let [x_node, weight_node] = ops.parents;
        let (by_x, by_weight) =
            B::rms_norm_backward(x, weight, gradient, eps, weight_node.is_some());
        if let Some(node) = x_node {
            grads.register::<B>(node.id, by_x);
        }
        if let (Some(node), Some(by_weight)) = (weight_node, by_weight) {
            grads.register::<B>(node.id, by_weight);
        }
    }
}

#[derive(Debug)]
struct Gated;

impl<B: FusedOps> Backward<B, 2> for Gated {
    type State = (Activation, FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (activation, gate, up) = ops.state;
        let (by_gate, by_up) = B::gated_backward(activation, gate, up, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([by_gate, by_up]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Rotate;

impl<B: FusedOps> Backward<B, 1> for Rotate {
    type State = (usize, Rotation<FloatTensor<B>>, Turn);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (dim, rotation, turn) = ops.state;
        if let [Some(node)] = ops.parents {
            let by_x = B::rotate(gradient, dim, rotation, turn.reversed());
            grads.register::<B>(node.id, by_x);
        }
    }
}

#[derive(Debug)]
struct Attention;

impl<B: FusedOps> Backward<B, 3> for Attention {
    type State = (
        [FloatTensor<B>; 3],
        AttentionOutput<FloatTensor<B>>,
        AttentionShape,
        Sequences,
    );

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, attended, shape, sequences) = ops.state;
        let found = B::causal_attention_backward(inputs, attended, gradient, &shape, &sequences);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct HeadLossOp;

impl<B: FusedOps> Backward<B, 2> for HeadLossOp {
    /// The gradients for a loss gradient of one.
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        for (node, unit) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(unit)) = (node, unit) {
                let factor = B::float_reshape(gradient.clone(), [1, 1].into());
                // The loss may be in more bits than what it is of.
                let factor = B::float_cast(factor, unit.dtype().into());
                grads.register::<B>(node.id, B::float_mul(unit, factor));
            }
        }
    }
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn product(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        let needed = [
            x.is_tracked().then(|| y.primitive.clone()),
            y.is_tracked().then(|| x.primitive.clone()),
        ];
        let output = B::product(x.primitive, y.primitive);
        match Backward::<B, 2>::prepare::<C>(Product, [x.node, y.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(needed, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), weight.node.clone()];
        let output = B::rms_norm(x.primitive.clone(), weight.primitive.clone(), eps);
        match Backward::<B, 2>::prepare::<C>(RmsNorm, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x.primitive, weight.primitive, eps), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn gated(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [gate.node.clone(), up.node.clone()];
        let output = B::gated(activation, gate.primitive.clone(), up.primitive.clone());
        match Backward::<B, 2>::prepare::<C>(Gated, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish((activation, gate.primitive, up.primitive), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn rotate(
        x: FloatTensor<Self>,
        dim: usize,
        rotation: Rotation<FloatTensor<Self>>,
        turn: Turn,
    ) -> FloatTensor<Self> {
        let rotation = Rotation {
            cos: rotation.cos.primitive,
            sin: rotation.sin.primitive,
        };
        let output = B::rotate(x.primitive, dim, rotation.clone(), turn);
        match Backward::<B, 1>::prepare::<C>(Rotate, [x.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((dim, rotation, turn), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        sequences: &Sequences,
    ) -> AttentionOutput<FloatTensor<Self>> {
        let nodes = [q.node.clone(), k.node.clone(), v.node.clone()];
        let inputs = [q.primitive, k.primitive, v.primitive];
        let [q, k, v] = inputs.clone();
        let found = B::causal_attention(q, k, v, shape, sequences);
        let context = match Backward::<B, 3>::prepare::<C>(Attention, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let context = found.context.clone();
                let state = (inputs, found.clone(), *shape, sequences.clone());
                prep.finish(state, context)
            }
            OpsKind::UnTracked(prep) => prep.finish(found.context),
        };
        // The sums are the backward pass's own: nothing is differentiated through them.
        AttentionOutput {
            context,
            sums: <Self as AutodiffBackend>::from_inner(found.sums),
        }
    }

    fn head_loss(
        rows: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Arc<[u32]>,
        _by_rows: bool,
        _by_weight: bool,
    ) -> HeadLoss<FloatTensor<Self>> {
        let found = B::head_loss(
            rows.primitive.clone(),
            weight.primitive.clone(),
            targets,
            rows.is_tracked(),
            weight.is_tracked(),
        );
        let prep = Backward::<B, 2>::prepare::<C>(HeadLossOp, [rows.node, weight.node]);
        let loss = match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish([found.rows_gradient, found.weight_gradient], found.loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(found.loss),
        };
        // Autodiff carries the gradients itself.
        HeadLoss {
            loss,
            rows_gradient: None,
            weight_gradient: None,
        }
    }

    fn dropout_factors(
        mask: &DropoutMask,
        shape: [usize; 2],
        device: &Self::Device,
    ) -> FloatTensor<Self> {
        let factors = B::dropout_factors(mask, shape, device);
        <Self as AutodiffBackend>::from_inner(factors)
    }
}
