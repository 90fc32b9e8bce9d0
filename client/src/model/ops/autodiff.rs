//! The operations under autodiff: each runs its inner backend's kernel and records the
//! handwritten backward pass.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::ops::FloatTensor;

use super::{FusedOps, HeadLoss, Heads, Rotation};

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
struct SwiGlu;

impl<B: FusedOps> Backward<B, 2> for SwiGlu {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (gate, up) = ops.state;
        let (by_gate, by_up) = B::swiglu_backward(gate, up, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([by_gate, by_up]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct SplitHeads;

impl<B: FusedOps> Backward<B, 1> for SplitHeads {
    type State = (Heads, Option<Rotation<FloatTensor<B>>>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (heads, rotation) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::merge_heads(gradient, heads, rotation));
        }
    }
}

#[derive(Debug)]
struct MergeHeads;

impl<B: FusedOps> Backward<B, 1> for MergeHeads {
    type State = (Heads, Option<Rotation<FloatTensor<B>>>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (heads, rotation) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::split_heads(gradient, heads, rotation));
        }
    }
}

#[derive(Debug)]
struct CausalSoftmax;

impl<B: FusedOps> Backward<B, 1> for CausalSoftmax {
    type State = (FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (probabilities, scale) = ops.state;
        if let [Some(node)] = ops.parents {
            let by_scores = B::causal_softmax_backward(probabilities, gradient, scale);
            grads.register::<B>(node.id, by_scores);
        }
    }
}

#[derive(Debug)]
struct Head;

impl<B: FusedOps> Backward<B, 2> for Head {
    /// The gradients for a loss gradient of one.
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        for (node, unit) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(unit)) = (node, unit) {
                let factor = B::float_reshape(gradient.clone(), [1, 1].into());
                grads.register::<B>(node.id, B::float_mul(unit, factor));
            }
        }
    }
}

fn inner<B: FusedOps, C: CheckpointStrategy>(
    rotation: Option<Rotation<FloatTensor<Autodiff<B, C>>>>,
) -> Option<Rotation<FloatTensor<B>>> {
    rotation.map(|tables| Rotation {
        cos: tables.cos.primitive,
        sin: tables.sin.primitive,
    })
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
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

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [gate.node.clone(), up.node.clone()];
        let output = B::swiglu(gate.primitive.clone(), up.primitive.clone());
        match Backward::<B, 2>::prepare::<C>(SwiGlu, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((gate.primitive, up.primitive), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn split_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        let rotation = inner::<B, C>(rotation);
        let output = B::split_heads(x.primitive, heads, rotation.clone());
        match Backward::<B, 1>::prepare::<C>(SplitHeads, [x.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((heads, rotation), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn merge_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        let rotation = inner::<B, C>(rotation);
        let output = B::merge_heads(x.primitive, heads, rotation.clone());
        match Backward::<B, 1>::prepare::<C>(MergeHeads, [x.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((heads, rotation), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn causal_softmax(scores: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        let output = B::causal_softmax(scores.primitive, scale);
        let prep = Backward::<B, 1>::prepare::<C>(CausalSoftmax, [scores.node]);
        match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((output.clone(), scale), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
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
        let prep = Backward::<B, 2>::prepare::<C>(Head, [rows.node, weight.node]);
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
}
