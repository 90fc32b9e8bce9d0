//! Each kernel against its composed form, forward and backward; the composed gradients are
//! burn's own.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData};
use burn_flex::Flex;

use super::composed::{self, unwrap, wrap};
use super::*;
use crate::model::SplitMix;

type Train = Autodiff<Flex>;
type Raw = FloatTensor<Train>;

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
    let mut random = SplitMix::new(seed, 9);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| random.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn assert_close(got: TensorData, expected: TensorData, what: &str) {
    let (got, expected) = (
        got.to_vec::<f32>().unwrap(),
        expected.to_vec::<f32>().unwrap(),
    );
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let error = (got - expected).abs();
        assert!(
            error <= 2e-5 * (1.0 + expected.abs()),
            "{what}, element {index}: {got} instead of {expected}"
        );
    }
}

/// Value and input gradients of `sum(op(inputs) * weight)`.
fn run<const I: usize, const O: usize>(
    inputs: &[Tensor<Flex, I>],
    op: impl Fn(Vec<Raw>) -> Raw,
) -> (TensorData, Vec<TensorData>) {
    let leaves: Vec<Tensor<Train, I>> = inputs
        .iter()
        .map(|input| Tensor::from_inner(input.clone()).require_grad())
        .collect();
    let output: Tensor<Train, O> =
        wrap::<Train, O>(op(leaves.iter().cloned().map(unwrap::<Train, I>).collect()));
    let weight = Tensor::from_inner(random(output.dims(), 77));
    let gradients = (output.clone() * weight).sum().backward();
    let found = leaves
        .iter()
        .map(|leaf| leaf.grad(&gradients).unwrap().into_data())
        .collect();
    (output.into_data(), found)
}

fn compare<const I: usize, const O: usize>(
    inputs: &[Tensor<Flex, I>],
    fused: impl Fn(Vec<Raw>) -> Raw,
    composed: impl Fn(Vec<Raw>) -> Raw,
) {
    let (value, gradients) = run::<I, O>(inputs, fused);
    let (expected, expected_gradients) = run::<I, O>(inputs, composed);
    assert_close(value, expected, "value");
    for (index, (got, expected)) in gradients.into_iter().zip(expected_gradients).enumerate() {
        assert_close(got, expected, &format!("gradient {index}"));
    }
}

fn two(mut inputs: Vec<Raw>) -> (Raw, Raw) {
    let second = inputs.pop().unwrap();
    (inputs.pop().unwrap(), second)
}

fn one(mut inputs: Vec<Raw>) -> Raw {
    inputs.pop().unwrap()
}

#[test]
fn rms_norm() {
    let x = random([700, 33], 1);
    let weight = random([1, 33], 2);
    compare::<2, 2>(
        &[x, weight],
        |inputs| {
            let (x, weight) = two(inputs);
            Train::rms_norm(x, weight, 1e-5)
        },
        |inputs| {
            let (x, weight) = two(inputs);
            composed::rms_norm::<Train>(x, weight, 1e-5)
        },
    );
}

#[test]
fn rms_norm_composed_backward() {
    let (x, weight, gradient) = (random([7, 5], 1), random([1, 5], 2), random([7, 5], 3));
    let raw = |x: &Tensor<Flex, 2>| unwrap(x.clone());
    let (by_x, by_weight) =
        composed::rms_norm_backward::<Flex>(raw(&x), raw(&weight), raw(&gradient), 1e-5, true);
    let (own_x, own_weight) =
        Flex::rms_norm_backward(raw(&x), raw(&weight), raw(&gradient), 1e-5, true);
    let data = |x| wrap::<Flex, 2>(x).into_data();
    assert_close(data(own_x), data(by_x), "by x");
    assert_close(
        data(own_weight.unwrap()),
        data(by_weight.unwrap()),
        "by weight",
    );
}

#[test]
fn swiglu() {
    let inputs = [random([300, 70], 1).mul_scalar(4.0), random([300, 70], 2)];
    compare::<2, 2>(
        &inputs,
        |inputs| {
            let (gate, up) = two(inputs);
            Train::swiglu(gate, up)
        },
        |inputs| {
            let (gate, up) = two(inputs);
            composed::swiglu::<Train>(gate, up)
        },
    );
    let raw = |index: usize| unwrap(inputs[index].clone());
    let (gate, up) = Flex::swiglu_backward(raw(0), raw(1), raw(1));
    let (other_gate, other_up) = composed::swiglu_backward::<Flex>(raw(0), raw(1), raw(1));
    let data = |x| wrap::<Flex, 2>(x).into_data();
    assert_close(data(gate), data(other_gate), "gate");
    assert_close(data(up), data(other_up), "up");
}

#[test]
fn splitting_and_merging_heads() {
    let heads = Heads {
        batch: 2,
        length: 5,
        heads: 3,
        dim: 4,
    };
    // Longer than the batch, as the model's tables are.
    let tables = || {
        Some(Rotation {
            cos: unwrap::<Train, 2>(Tensor::from_inner(random([8, 2], 5))),
            sin: unwrap::<Train, 2>(Tensor::from_inner(random([8, 2], 6))),
        })
    };
    for rotated in [false, true] {
        let tables = || tables().filter(|_| rotated);
        compare::<2, 4>(
            &[random([10, 12], 1)],
            |inputs| Train::split_heads(one(inputs), heads, tables()),
            |inputs| composed::split_heads::<Train>(one(inputs), heads, tables()),
        );
        compare::<4, 2>(
            &[random([2, 3, 5, 4], 1)],
            |inputs| Train::merge_heads(one(inputs), heads, tables()),
            |inputs| composed::merge_heads::<Train>(one(inputs), heads, tables()),
        );
    }
}

#[test]
fn causal_softmax() {
    // Two query heads in a group: rows 0..6 and 6..12 stand at positions 0..6.
    let scores = random([3, 12, 6], 1).mul_scalar(5.0);
    compare::<3, 3>(
        std::slice::from_ref(&scores),
        |inputs| Train::causal_softmax(one(inputs), 0.7),
        |inputs| composed::causal_softmax::<Train>(one(inputs), 0.7),
    );
    let p = Flex::causal_softmax(unwrap(scores.clone()), 0.7);
    let own = Flex::causal_softmax_backward(p.clone(), unwrap(scores.clone()), 0.7);
    let other = composed::causal_softmax_backward::<Flex>(p.clone(), unwrap(scores), 0.7);
    let data = |x| wrap::<Flex, 3>(x).into_data();
    assert_close(data(own), data(other), "backward");
    let p = data(p).to_vec::<f32>().unwrap();
    assert!(p[1..6].iter().all(|&later| later == 0.0));
    assert!((p[6] + p[7] - 1.0).abs() < 1e-6);
}

#[test]
fn head_loss_by_chunks_is_the_whole() {
    // More rows than a chunk.
    let (rows, weight) = (random([1100, 8], 1), random([50, 8], 2));
    let mut ids = SplitMix::new(1, 1);
    let targets: Arc<[u32]> = (0..1100).map(|_| ids.below(50) as u32).collect();
    let mean = |x: Raw| unwrap(wrap::<Train, 1>(x).div_scalar(1100.0));
    compare::<2, 1>(
        &[rows, weight],
        |inputs| {
            let (rows, weight) = two(inputs);
            mean(Train::head_loss(rows, weight, targets.clone(), false, false).loss)
        },
        |inputs| {
            let (rows, weight) = two(inputs);
            let logits = wrap::<Train, 2>(rows).matmul(wrap::<Train, 2>(weight).transpose());
            let (loss, _) = composed::cross_entropy::<Train>(unwrap(logits), &targets);
            mean(loss)
        },
    );
}

#[test]
fn cross_entropy_gradient_is_that_of_the_loss() {
    let logits = random([6, 9], 3).mul_scalar(3.0);
    let targets = [0, 8, 3, 3, 1, 7];
    let (loss, gradient) = Flex::cross_entropy(unwrap(logits.clone()), &targets);
    let (other_loss, other) = composed::cross_entropy::<Flex>(unwrap(logits), &targets);
    let data1 = |x| wrap::<Flex, 1>(x).into_data();
    let data2 = |x| wrap::<Flex, 2>(x).into_data();
    assert_close(data1(loss), data1(other_loss), "loss");
    assert_close(data2(gradient), data2(other), "gradient");
}
