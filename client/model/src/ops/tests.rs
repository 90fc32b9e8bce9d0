//! Each kernel against its composed form in double precision, forward and backward, on fresh
//! random inputs; the composed gradients are burn's own.

use std::sync::Arc;

use super::composed;
use super::*;
use crate::primitive::{raw, wrap};
use crate::testing::fresh_seed;
use crate::{SplitMix, WeightKind};
use burn::backend::Autodiff;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{FloatDType, Tensor, TensorData};
use burn_flex::Flex;

type Train = Autodiff<Flex>;
type RawTensor = FloatTensor<Train>;

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<Flex, D> {
    let mut random = SplitMix::new(seed, 9);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| random.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn numbers(data: TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

fn assert_close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(
            error <= 1e-5 * size,
            "{what}, element {index}: {got} instead of {expected}"
        );
    }
}

/// Value and input gradients of `sum(op(inputs) * weight)`, in single or double precision.
fn run<const I: usize, const O: usize>(
    inputs: &[Tensor<Flex, I>],
    float: FloatDType,
    op: &dyn Fn(Vec<RawTensor>) -> RawTensor,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let leaves: Vec<Tensor<Train, I>> = inputs
        .iter()
        .map(|input| Tensor::from_inner(input.clone().cast(float)).require_grad())
        .collect();
    let output: Tensor<Train, O> =
        wrap::<Train, O>(op(leaves.iter().cloned().map(raw::<Train, I>).collect()));
    let weight = Tensor::from_inner(random(output.dims(), 77).cast(float));
    let gradients = (output.clone() * weight).sum().backward();
    let found = leaves
        .iter()
        .map(|leaf| numbers(leaf.grad(&gradients).unwrap().into_data()))
        .collect();
    (numbers(output.into_data()), found)
}

fn compare<const I: usize, const O: usize>(
    inputs: &[Tensor<Flex, I>],
    fused: impl Fn(Vec<RawTensor>) -> RawTensor,
    composed: impl Fn(Vec<RawTensor>) -> RawTensor,
) {
    let (value, gradients) = run::<I, O>(inputs, FloatDType::F32, &fused);
    let (expected, expected_gradients) = run::<I, O>(inputs, FloatDType::F64, &composed);
    assert_close(&value, &expected, "value");
    for (index, (got, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        assert_close(got, expected, &format!("gradient {index}"));
    }
}

fn two(mut inputs: Vec<RawTensor>) -> (RawTensor, RawTensor) {
    let second = inputs.pop().unwrap();
    (inputs.pop().unwrap(), second)
}

fn three(mut inputs: Vec<RawTensor>) -> (RawTensor, RawTensor, RawTensor) {
    let third = inputs.pop().unwrap();
    let (first, second) = two(inputs);
    (first, second, third)
}

#[test]
fn rms_norm() {
    let seed = fresh_seed();
    let x = random([700, 33], seed);
    let weight = random([1, 33], seed ^ 1);
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
    let raw = |x: &Tensor<Flex, 2>| raw(x.clone());
    let (by_x, by_weight) =
        composed::rms_norm_backward::<Flex>(raw(&x), raw(&weight), raw(&gradient), 1e-5, true);
    let (own_x, own_weight) =
        Flex::rms_norm_backward(raw(&x), raw(&weight), raw(&gradient), 1e-5, true);
    let data = |x| numbers(wrap::<Flex, 2>(x).into_data());
    assert_close(&data(own_x), &data(by_x), "by x");
    assert_close(
        &data(own_weight.unwrap()),
        &data(by_weight.unwrap()),
        "by weight",
    );
}

#[test]
fn gated_activations() {
    for activation in [Activation::Silu, Activation::GeluTanh] {
        gated(activation);
    }
}

fn gated(activation: Activation) {
    let seed = fresh_seed();
    let inputs = [
        random([300, 70], seed).mul_scalar(4.0),
        random([300, 70], seed ^ 1),
    ];
    compare::<2, 2>(
        &inputs,
        |inputs| {
            let (gate, up) = two(inputs);
            Train::gated(activation, gate, up)
        },
        |inputs| {
            let (gate, up) = two(inputs);
            composed::gated::<Train>(activation, gate, up)
        },
    );
    let raw = |index: usize| raw(inputs[index].clone());
    let (gate, up) = Flex::gated_backward(activation, raw(0), raw(1), raw(1));
    let (other_gate, other_up) =
        composed::gated_backward::<Flex>(activation, raw(0), raw(1), raw(1));
    let data = |x| numbers(wrap::<Flex, 2>(x).into_data());
    assert_close(&data(gate), &data(other_gate), "gate");
    assert_close(&data(up), &data(other_up), "up");
}

/// Both are the sigmoid form of a formula with a hyperbolic tangent, which is computed here.
#[test]
fn the_gelu_is_that_of_its_formula() {
    let x: Vec<f32> = (-160..160).map(|step| step as f32 * 0.05).collect();
    let gate = || {
        Tensor::<Flex, 2>::from_data(
            TensorData::new(x.clone(), [1, x.len()]),
            &Default::default(),
        )
    };
    let ones = || raw(gate().ones_like());
    let activation = Activation::GeluTanh;
    let data = |x| numbers(wrap::<Flex, 2>(x).into_data());
    let own = data(Flex::gated(activation, raw(gate()), ones()));
    let single = data(composed::gated::<Flex>(activation, raw(gate()), ones()));
    let root = (2.0 / std::f64::consts::PI).sqrt();
    for (at, &x) in x.iter().enumerate() {
        let x = f64::from(x);
        let expected = 0.5 * x * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh());
        for got in [own[at], single[at]] {
            assert!((got - expected).abs() < 2e-6, "{x}: {got}, {expected}");
        }
    }
}

#[test]
fn rotating() {
    let seed = fresh_seed();
    let tables = |float| {
        let table = |seed| {
            let table: Tensor<Flex, 2> = random([90, 2], seed).cast(float);
            raw::<Train, 2>(Tensor::from_inner(table))
        };
        Rotation {
            cos: table(5),
            sin: table(6),
        }
    };
    for turn in [Turn::Forward, Turn::Back] {
        compare::<2, 2>(
            &[random([90, 12], seed)],
            |mut inputs| Train::rotate(inputs.pop().unwrap(), 4, tables(FloatDType::F32), turn),
            |mut inputs| {
                let x = inputs.pop().unwrap();
                composed::rotate::<Train>(x, 4, tables(FloatDType::F64), turn)
            },
        );
    }
}

/// Attention by its definition: all scores at a time, one sequence after another.
fn plain(
    q: RawTensor,
    k: RawTensor,
    v: RawTensor,
    shape: &AttentionShape,
    sequences: &Sequences,
) -> RawTensor {
    let (q, k, v) = (
        wrap::<Train, 2>(q),
        wrap::<Train, 2>(k),
        wrap::<Train, 2>(v),
    );
    let group = shape.heads / shape.kv_heads;
    let mut rows_found = Vec::new();
    for rows in sequences.iter().filter(|rows| !rows.is_empty()) {
        let length = rows.len();
        let mut heads = Vec::new();
        for head in 0..shape.heads {
            let part = |x: &Tensor<Train, 2>, head: usize| {
                x.clone()
                    .slice([rows.clone(), head * shape.dim..(head + 1) * shape.dim])
            };
            let scores = part(&q, head)
                .matmul(part(&k, head / group).transpose())
                .mul_scalar(shape.scale);
            let window = shape.window.unwrap_or(length);
            let hidden: Vec<bool> = (0..length * length)
                .map(|at| {
                    let (query, key) = (at / length, at % length);
                    key > query || key + window <= query
                })
                .collect();
            let hidden = Tensor::from_data(
                TensorData::new(hidden, [length, length]),
                &Default::default(),
            );
            let p =
                burn::tensor::activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 1);
            heads.push(p.matmul(part(&v, head / group)));
        }
        rows_found.push(Tensor::cat(heads, 1));
    }
    raw(Tensor::cat(rows_found, 0))
}

#[test]
fn attention_is_its_definition_for_every_shape() {
    let seed = fresh_seed();
    for (kv_heads, window, lengths) in [
        (1, None, vec![5]),
        (3, None, vec![4, 70, 1, 33]),
        (1, Some(3), vec![7, 7, 150]),
        (3, Some(40), vec![130, 0, 65]),
        (1, None, vec![300]),
        (3, Some(20), vec![300, 300]),
    ] {
        let shape = AttentionShape {
            heads: 3,
            kv_heads,
            dim: 4,
            window,
            scale: if window.is_some() { 0.3 } else { 0.5 },
        };
        let sequences = Sequences::of_lengths(lengths);
        let rows = sequences.rows();
        let inputs = [
            random([rows, 12], seed).mul_scalar(2.0),
            random([rows, 4 * kv_heads], seed ^ 1).mul_scalar(2.0),
            random([rows, 4 * kv_heads], seed ^ 2),
        ];
        let reference = |inputs| {
            let (q, k, v) = three(inputs);
            plain(q, k, v, &shape, &sequences)
        };
        compare::<2, 2>(
            &inputs,
            |inputs| {
                let (q, k, v) = three(inputs);
                Train::causal_attention(q, k, v, &shape, &sequences).context
            },
            reference,
        );
        // What other backends compute, and its own backward pass.
        let raw = |x: &Tensor<Flex, 2>| raw(x.clone());
        let given = || inputs.each_ref().map(raw);
        let [q, k, v] = given();
        let found = composed::causal_attention::<Flex>(q, k, v, &shape, &sequences);
        let (expected, gradients) = run::<2, 2>(&inputs, FloatDType::F64, &reference);
        let data = |x| numbers(wrap::<Flex, 2>(x).into_data());
        assert_close(&data(found.context.clone()), &expected, "composed");
        let weight = raw(&random([rows, 12], 77));
        let own =
            composed::causal_attention_backward::<Flex>(given(), found, weight, &shape, &sequences);
        for (own, expected) in own.into_iter().zip(&gradients) {
            assert_close(&data(own), expected, "composed gradient");
        }
    }
}

#[test]
fn head_loss_by_chunks_is_the_whole() {
    // More rows than a chunk.
    let seed = fresh_seed();
    let (rows, weight) = (random([1100, 8], seed), random([50, 8], seed ^ 1));
    let mut ids = SplitMix::new(seed, 1);
    let targets: Arc<[u32]> = (0..1100).map(|_| ids.below(50) as u32).collect();
    let mean = |x: RawTensor| raw(wrap::<Train, 1>(x).div_scalar(1100.0));
    compare::<2, 1>(
        &[rows, weight],
        |inputs| {
            let (rows, weight) = two(inputs);
            mean(Train::head_loss(rows, weight, targets.clone(), false, false).loss)
        },
        |inputs| {
            let (rows, weight) = two(inputs);
            let logits = wrap::<Train, 2>(rows).matmul(wrap::<Train, 2>(weight).transpose());
            let (loss, _) = composed::cross_entropy::<Train>(raw(logits), &targets);
            mean(loss)
        },
    );
}

#[test]
fn cross_entropy_gradient_is_that_of_the_loss() {
    let logits = random([6, 9], fresh_seed()).mul_scalar(3.0);
    let targets = [0, 8, 3, 3, 1, 7];
    let (loss, gradient) = Flex::cross_entropy(raw(logits.clone()), &targets);
    let double = raw(logits.cast(FloatDType::F64));
    let (other_loss, other) = composed::cross_entropy::<Flex>(double, &targets);
    let data1 = |x| numbers(wrap::<Flex, 1>(x).into_data());
    let data2 = |x| numbers(wrap::<Flex, 2>(x).into_data());
    assert_close(&data1(loss), &data1(other_loss), "loss");
    assert_close(&data2(gradient), &data2(other), "gradient");
}

#[test]
fn a_dropout_mask_made_on_the_device_keeps_its_share_and_repeats() {
    let shape = [300, 200];
    let device = Default::default();
    let draw = |seed| {
        let mask = DropoutMask {
            seed,
            threshold: 6554,
            keep_scale: 1.0 / 0.9,
        };
        let factors = dropout::factors::<Flex>(&mask, shape, &device);
        numbers(wrap::<Flex, 2>(factors).into_data())
    };
    let seed = fresh_seed();
    let values = draw(seed);
    assert_eq!(values, draw(seed));
    assert!(
        values
            .iter()
            .all(|&x| x == 0.0 || (x - 1.0 / 0.9).abs() < 1e-6)
    );
    let share = |values: &[f64]| {
        let dropped = values.iter().filter(|&&x| x == 0.0).count();
        dropped as f64 / values.len() as f64
    };
    // Six standard deviations: 60,000 draws at a tenth.
    assert!((share(&values) - 0.1).abs() < 0.0074, "{}", share(&values));
    for row in values.chunks(200) {
        assert!(share(row) < 0.3);
    }
    // Masks of other seeds, neighbours included, fall apart: both drop a hundredth.
    for other in [seed ^ 1, seed.wrapping_add(1 << 40), seed.wrapping_add(1)] {
        let both = values
            .iter()
            .zip(draw(other))
            .filter(|(a, b)| **a == 0.0 && *b == 0.0);
        let both = both.count() as f64 / values.len() as f64;
        assert!((both - 0.01).abs() < 0.0025, "{both}");
    }
}

#[test]
fn products_with_packed_weights_are_those_with_the_unpacked() {
    let device = Default::default();
    for kind in [WeightKind::Int4, WeightKind::Int8, WeightKind::Bf16] {
        // Several panels and a rest; rows that share blocks, and a single row.
        for (rows, outputs, inputs) in [(5, 150, 40), (1, 64, 128), (3, 10, 64)] {
            let seed = fresh_seed();
            let weight = numbers(random([outputs, inputs], seed).into_data());
            let weight: Vec<f32> = weight.iter().map(|&x| x as f32).collect();
            let packed = Packed::<Flex>::new(kind, &weight, [outputs, inputs], &device);
            let x = random([rows, inputs], seed ^ 1);
            let found = wrap::<Flex, 2>(Flex::packed_product(raw(x.clone()), &packed));
            assert_eq!(found.dims(), [rows, outputs]);
            let double = raw(x.cast(FloatDType::F64));
            let expected = wrap::<Flex, 2>(composed::packed_product::<Flex>(double, &packed));
            assert_close(
                &numbers(found.into_data()),
                &numbers(expected.into_data()),
                "product",
            );
        }
    }
}
