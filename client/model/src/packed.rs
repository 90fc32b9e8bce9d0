//! Frozen weights in fewer bits, unpacked a part at a time where they are used.
//!
//! 8 bits on a line, in blocks of [`BLOCK`] with the largest magnitude as their scale; 4 bits on
//! grids, see [`int4`]; or a bfloat16 each.

use std::ops::Range;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, ElementConversion, FloatDType, Int, Tensor, TensorData};
use half::bf16;
use pulp::{Arch, Simd, with_simd};

use super::int4;

/// Values of 8 bits that share a scale.
pub(super) const BLOCK: usize = 64;

/// Values unpacked at a time on a device. Each takes several numbers of working memory.
pub const UNPACKED_AT_A_TIME: usize = 1 << 25;

/// How the base's frozen weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightKind {
    /// 32 bits a weight: exact.
    #[default]
    F32,
    /// 16 bits a weight.
    Bf16,
    /// 8 bits a weight and a scale for 64.
    Int8,
    /// 4 bits a weight and a grid for 32.
    Int4,
}

impl WeightKind {
    /// Bytes that a matrix of `count` weights takes.
    pub fn bytes(self, count: usize) -> usize {
        let blocks = count.div_ceil(BLOCK);
        match self {
            Self::F32 => 4 * count,
            Self::Bf16 => 4 * count.div_ceil(2),
            Self::Int8 => 4 * count.div_ceil(4) + 4 * blocks,
            Self::Int4 => 4 * int4::words(count) + 4,
        }
    }
}

impl std::fmt::Display for WeightKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "q8",
            Self::Int4 => "q4",
        })
    }
}

impl std::str::FromStr for WeightKind {
    type Err = WeightKindError;

    fn from_str(text: &str) -> Result<Self, WeightKindError> {
        [Self::F32, Self::Bf16, Self::Int8, Self::Int4]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| WeightKindError {
                got: text.chars().take(40).collect(),
            })
    }
}

/// A text that names no kind of weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is not a kind of base weights: use f32, bf16, q8 or q4")]
pub struct WeightKindError {
    /// What was given, cut at 40 characters.
    got: String,
}

/// A matrix in fewer bits, on a device.
#[derive(Debug, Clone)]
pub struct Packed<B: Backend> {
    pub(super) kind: WeightKind,
    pub(super) shape: [usize; 2],
    /// Four codes or two bfloat16 a word, the first in the lowest bits; or groups of [`int4`].
    pub(super) words: Tensor<B, 1, Int>,
    /// One a block of 8 bits; the largest step of 4 bits; an unused one for bfloat16.
    pub(super) scales: Tensor<B, 1>,
}

impl<B: Backend> Packed<B> {
    /// Packs `[rows, columns]` values.
    ///
    /// # Panics
    /// For [`WeightKind::F32`], which is not packed.
    pub fn new(kind: WeightKind, values: &[f32], shape: [usize; 2], device: &B::Device) -> Self {
        let (words, scales) = pack(kind, values);
        let (words_count, scales_count) = (words.len(), scales.len());
        Self {
            kind,
            shape,
            words: Tensor::from_data(TensorData::new(words, [words_count]), device),
            scales: Tensor::from_data(TensorData::new(scales, [scales_count]), device),
        }
    }

    /// The values as a dense matrix of another type. Unpacked by parts, so that little more
    /// is held than the result.
    pub fn unpack_as(&self, float: FloatDType) -> Tensor<B, 2> {
        let [rows, columns] = self.shape;
        let a_part = (UNPACKED_AT_A_TIME / columns.max(1)).max(1);
        // Unpacking a bfloat16 takes no working memory.
        if rows <= a_part || !self.rows_stand_alone() || self.kind == WeightKind::Bf16 {
            return self.unpack().cast(float);
        }
        let device = self.words.device();
        let mut all = Tensor::zeros([rows, columns], (&device, DType::from(float)));
        for start in (0..rows).step_by(a_part) {
            let count = a_part.min(rows - start);
            let words = self.words.dims()[0] / rows;
            let part = Self {
                kind: self.kind,
                shape: [count, columns],
                words: self.words.clone().narrow(0, start * words, count * words),
                scales: match self.kind {
                    WeightKind::Int8 => {
                        let scales = columns / BLOCK;
                        (self.scales.clone()).narrow(0, start * scales, count * scales)
                    }
                    _ => self.scales.clone(),
                },
            };
            let part = part.unpack().cast(float);
            all = all.slice_assign([start..start + count, 0..columns], part);
        }
        all
    }

    /// The rows `ids` of the matrix, dense: `[ids, columns]`.
    pub fn select(&self, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        if !self.rows_stand_alone() {
            return self.unpack().select(0, ids);
        }
        let [rows, columns] = self.shape;
        let [count] = ids.dims();
        let words = self.words.dims()[0] / rows;
        let chosen = Self {
            kind: self.kind,
            shape: [count, columns],
            words: (self.words.clone())
                .reshape([rows, words])
                .select(0, ids.clone())
                .reshape([count * words]),
            scales: match self.kind {
                WeightKind::Int8 => {
                    let scales = columns / BLOCK;
                    (self.scales.clone())
                        .reshape([rows, scales])
                        .select(0, ids)
                        .reshape([count * scales])
                }
                _ => self.scales.clone(),
            },
        };
        chosen.unpack()
    }

    /// Whether no word and no scale serves two rows.
    fn rows_stand_alone(&self) -> bool {
        let alone = match self.kind {
            WeightKind::Bf16 | WeightKind::F32 => 2,
            WeightKind::Int8 => BLOCK,
            WeightKind::Int4 => int4::GROUP,
        };
        self.shape[1].is_multiple_of(alone)
    }

    /// The values as a dense matrix, by burn's own operations.
    pub fn unpack(&self) -> Tensor<B, 2> {
        let device = self.words.device();
        let [rows, columns] = self.shape;
        let count = rows * columns;
        match self.kind {
            WeightKind::Bf16 | WeightKind::F32 => return self.unpack_on_host(),
            WeightKind::Int4 => return self.unpack_grids(),
            WeightKind::Int8 => {}
        }
        let words = self.words.dims()[0];
        let codes: Tensor<B, 1, Int> = lanes(self.words.clone().reshape([words, 1]), 8);
        let levels = codes.float().sub_scalar(128.0).div_scalar(127.0);
        let blocks = self.scales.dims()[0];
        let padded = levels.dims()[0];
        let levels = if padded == blocks * BLOCK {
            levels
        } else {
            let tail = Tensor::zeros([blocks * BLOCK - padded], &device);
            Tensor::cat(vec![levels, tail], 0)
        };
        let scaled = levels.reshape([blocks, BLOCK])
            * self
                .scales
                .clone()
                .reshape([blocks, 1])
                .expand([blocks, BLOCK]);
        scaled
            .reshape([blocks * BLOCK])
            .narrow(0, 0, count)
            .reshape([rows, columns])
    }

    /// As [`int4::unpack`] does it.
    fn unpack_grids(&self) -> Tensor<B, 2> {
        let [rows, columns] = self.shape;
        let groups = self.words.dims()[0] / int4::WORDS;
        let words = self.words.clone().reshape([groups, int4::WORDS]);
        let codes = int4::GROUP / 8;
        let blocks = int4::GROUP / int4::BLOCK;
        let levels = lanes(words.clone().slice([0..groups, 0..codes]), 4)
            .float()
            .reshape([groups * blocks, int4::BLOCK]);
        let word = |at: usize| words.clone().slice([0..groups, codes + at..codes + at + 1]);
        let part = |word: Tensor<B, 2, Int>, down: i32, mask: i32, up: i32| {
            word.bitwise_right_shift_scalar(down.elem())
                .bitwise_and_scalar(mask.elem())
                .bitwise_left_shift_scalar(up.elem())
        };
        let grids = vec![
            part(word(0), 0, 0xff_ffff, 0),
            part(word(0), 24, 0xff, 0).bitwise_or(part(word(1), 0, 0xffff, 8)),
            part(word(1), 16, 0xffff, 0).bitwise_or(part(word(2), 0, 0xff, 16)),
            part(word(2), 8, 0xff_ffff, 0),
        ];
        let grids = Tensor::cat(grids, 1).reshape([groups * blocks, 1]);
        let below = grids.clone().bitwise_and_scalar(0xfff.elem()).float();
        let zero = grids.bitwise_right_shift_scalar(12.elem()).float();
        let step = below.mul_scalar(-std::f64::consts::LN_2 / 256.0).exp()
            * self.scales.clone().reshape([1, 1]);
        ((levels - zero.div_scalar(256.0)) * step)
            .reshape([groups * int4::GROUP])
            .narrow(0, 0, rows * columns)
            .reshape([rows, columns])
    }

    /// There is no operation that makes a bfloat16 of its bits: for tests and small tensors.
    fn unpack_on_host(&self) -> Tensor<B, 2> {
        let words: Vec<i32> = self.words.clone().into_data().iter().collect();
        let [rows, columns] = self.shape;
        let mut values = vec![0.0; rows * columns];
        PackedSlices {
            kind: self.kind,
            columns,
            words: &words,
            scales: &[1.0],
        }
        .unpack_rows(0..rows, &mut values);
        Tensor::from_data(TensorData::new(values, self.shape), &self.words.device())
    }

    /// The same under autodiff, where it stays untracked.
    pub fn lift<C: AutodiffBackend<InnerBackend = B>>(&self) -> Packed<C> {
        Packed {
            kind: self.kind,
            shape: self.shape,
            words: Tensor::from_inner(self.words.clone()),
            scales: Tensor::from_inner(self.scales.clone()),
        }
    }
}

/// The parts of so many bits of each word, the lowest first.
fn lanes<B: Backend>(words: Tensor<B, 2, Int>, bits: i32) -> Tensor<B, 1, Int> {
    let [rows, columns] = words.dims();
    let parts = (0..32 / bits).map(|at| {
        (words.clone())
            .bitwise_right_shift_scalar((at * bits).elem())
            .bitwise_and_scalar(((1 << bits) - 1).elem())
            .reshape([rows * columns, 1])
    });
    Tensor::cat(parts.collect(), 1).flatten(0, 1)
}

/// Packs values on the host: words and scales.
fn pack(kind: WeightKind, values: &[f32]) -> (Vec<i32>, Vec<f32>) {
    if kind == WeightKind::Bf16 {
        let words = values
            .chunks(2)
            .map(|two| {
                let code = |at: usize| {
                    let value = two.get(at).copied().unwrap_or(0.0);
                    u32::from(bf16::from_f32(value).to_bits())
                };
                (code(0) | code(1) << 16) as i32
            })
            .collect();
        return (words, vec![1.0]);
    }
    if kind == WeightKind::Int4 {
        let (words, top) = int4::pack(values);
        return (words, vec![top]);
    }
    assert_eq!(kind, WeightKind::Int8, "{kind} weights are not packed");
    let mut words = vec![0_i32; values.len().div_ceil(4)];
    let mut scales = Vec::with_capacity(values.len().div_ceil(BLOCK));
    for (block, words) in values.chunks(BLOCK).zip(words.chunks_mut(BLOCK / 4)) {
        let scale = block
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        scales.push(scale);
        for (word, values) in words.iter_mut().zip(block.chunks(4)) {
            let bits = values.iter().enumerate().fold(0_u32, |word, (at, value)| {
                let code = ((value * inverse * 127.0).round() + 128.0) as u32;
                word | code << (8 * at)
            });
            *word = bits as i32;
        }
    }
    (words, scales)
}

#[with_simd(unpack = Arch::new())]
#[inline(always)]
fn unpack_with_simd<'a, S: Simd>(
    _simd: S,
    packed: &'a PackedSlices<'a>,
    start: usize,
    out: &'a mut [f32],
) {
    packed.unpack_from(start, out);
}

/// A packed matrix on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedSlices<'a> {
    pub(crate) kind: WeightKind,
    pub(crate) columns: usize,
    pub(crate) words: &'a [i32],
    pub(crate) scales: &'a [f32],
}

impl PackedSlices<'_> {
    /// Writes the values of `rows` to `out`, `[rows, columns]`.
    pub(crate) fn unpack_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        debug_assert_eq!(out.len(), rows.len() * self.columns);
        unpack(self, rows.start * self.columns, out);
    }

    #[inline(always)]
    fn unpack_from(&self, start: usize, out: &mut [f32]) {
        match self.kind {
            WeightKind::Bf16 | WeightKind::F32 => {
                for (offset, value) in out.iter_mut().enumerate() {
                    let at = start + offset;
                    let word = self.words[at / 2] as u32;
                    let bits = if at.is_multiple_of(2) {
                        word << 16
                    } else {
                        word & 0xffff_0000
                    };
                    *value = f32::from_bits(bits);
                }
            }
            WeightKind::Int8 => self.unpack_blocks(start, out),
            WeightKind::Int4 => int4::unpack(self.words, self.scales[0], start, out),
        }
    }

    #[inline(always)]
    fn unpack_blocks(&self, start: usize, out: &mut [f32]) {
        let level = |word: i32, at: usize| {
            ((word as u32 >> (8 * at)) & 0xff) as f32 * (1.0 / 127.0) - 128.0 / 127.0
        };
        let mut at = start;
        let mut rest = out;
        while !rest.is_empty() {
            let here = (BLOCK - at % BLOCK).min(rest.len());
            let (block, later) = rest.split_at_mut(here);
            let scale = self.scales[at / BLOCK];
            if here == BLOCK {
                let words = &self.words[at / 4..][..BLOCK / 4];
                for (values, &word) in block.chunks_exact_mut(4).zip(words) {
                    for (lane, value) in values.iter_mut().enumerate() {
                        *value = level(word, lane) * scale;
                    }
                }
            } else {
                for (offset, value) in block.iter_mut().enumerate() {
                    let at = at + offset;
                    *value = level(self.words[at / 4], at % 4) * scale;
                }
            }
            at += here;
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::SplitMix;
    use super::*;
    use burn_flex::Flex;

    fn normal(count: usize) -> Vec<f32> {
        let mut random = SplitMix::new(4, 0);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    fn unpacked(kind: WeightKind, values: &[f32], columns: usize) -> Vec<f32> {
        let (words, scales) = pack(kind, values);
        assert!(4 * words.len() + 4 * scales.len() <= kind.bytes(values.len()) + 4);
        let packed = PackedSlices {
            kind,
            columns,
            words: &words,
            scales: &scales,
        };
        let rows = values.len() / columns;
        let mut out = vec![0.0; values.len()];
        packed.unpack_rows(0..rows, &mut out);
        // Any range of rows is that part of the whole.
        for start in 0..rows {
            let mut part = vec![0.0; (rows - start) * columns];
            packed.unpack_rows(start..rows, &mut part);
            assert_eq!(part, out[start * columns..]);
        }
        out
    }

    #[test]
    fn what_is_unpacked_is_close_and_blocks_do_not_touch_each_other() {
        let values = normal(15 * 40);
        let spread = |kind| {
            let got = unpacked(kind, &values, 40);
            let squares: f32 = got.iter().zip(&values).map(|(g, v)| (g - v).powi(2)).sum();
            (squares / values.iter().map(|v| v * v).sum::<f32>()).sqrt()
        };
        assert!(spread(WeightKind::Bf16) < 0.003);
        assert!(spread(WeightKind::Int8) < 0.008);
        assert!(spread(WeightKind::Int4) < 0.08);
        let mut outlier = values.clone();
        outlier[0] = 1000.0;
        let got = unpacked(WeightKind::Int8, &outlier, 40);
        assert_eq!(got[0], 1000.0);
        assert_eq!(
            got[BLOCK..],
            unpacked(WeightKind::Int8, &values, 40)[BLOCK..]
        );
        for kind in [WeightKind::Int4, WeightKind::Int8, WeightKind::Bf16] {
            assert_eq!(unpacked(kind, &[0.0; 70], 10), [0.0; 70]);
        }
    }

    #[test]
    fn unpacking_on_a_device_is_unpacking_on_the_host() {
        let values = normal(9 * 40);
        for kind in [WeightKind::Int4, WeightKind::Int8, WeightKind::Bf16] {
            let packed = Packed::<Flex>::new(kind, &values, [9, 40], &Default::default());
            let device = packed.unpack().into_data().to_vec::<f32>().unwrap();
            assert_eq!(device.len(), values.len());
            for (a, b) in device.iter().zip(unpacked(kind, &values, 40)) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_part_is_that_part_of_the_whole() {
        let (rows, columns) = (9, 2 * int4::GROUP);
        let values = normal(rows * columns);
        let ids = [4_i32, 0, 8, 4];
        for kind in [WeightKind::Int4, WeightKind::Int8, WeightKind::Bf16] {
            let device = Default::default();
            let packed = Packed::<Flex>::new(kind, &values, [rows, columns], &device);
            let whole = packed.unpack();
            let ids = Tensor::<Flex, 1, Int>::from_data(ids, &device);
            let chosen = packed.select(ids.clone()).into_data();
            assert_eq!(chosen, whole.clone().select(0, ids).into_data(), "{kind}");
            let all = packed.unpack_as(FloatDType::F32).into_data();
            assert_eq!(all, whole.into_data(), "{kind}");
        }
    }

    #[test]
    fn a_large_matrix_is_unpacked_by_parts() {
        let (rows, columns) = (UNPACKED_AT_A_TIME / (1 << 14) + 3, 1 << 14);
        let values: Vec<f32> = (0..rows * columns).map(|at| (at % 251) as f32).collect();
        let packed = Packed::<Flex>::new(
            WeightKind::Int8,
            &values,
            [rows, columns],
            &Default::default(),
        );
        let by_parts = packed.unpack_as(FloatDType::F32).into_data();
        assert_eq!(by_parts, packed.unpack().into_data());
    }

    #[test]
    fn four_bits_take_less_than_three_fifths_of_a_byte() {
        assert!(WeightKind::Int4.bytes(1 << 20) as f64 <= 0.6 * (1 << 20) as f64);
        for name in ["f32", "bf16", "q8", "q4"] {
            assert_eq!(name.parse::<WeightKind>().unwrap().to_string(), name);
        }
        assert!("fp4".parse::<WeightKind>().is_err());
    }
}
