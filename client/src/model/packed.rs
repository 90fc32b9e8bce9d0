//! Frozen weights in fewer bits, unpacked a part at a time where they are used.
//!
//! Values stand in blocks of [`BLOCK`], each with the largest magnitude as its scale: 4 bits
//! by the quantiles of a normal distribution (NF4; Dettmers et al., QLoRA, 2023, appendix E),
//! or 8 bits on a line. Or each is a bfloat16, without a scale.

use std::ops::Range;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, ElementConversion, FloatDType, Int, Tensor, TensorData};
use half::bf16;
use pulp::{Arch, Simd, with_simd};

/// Values that share a scale.
pub(super) const BLOCK: usize = 64;

/// Values unpacked at a time on a device: each takes several numbers on its way.
pub(crate) const UNPACKED_AT_A_TIME: usize = 1 << 25;

/// The sixteen levels of NF4, from the QLoRA paper.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

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
    /// 4 bits a weight and a scale for 64.
    Nf4,
}

impl WeightKind {
    /// Bytes that a matrix of `count` weights takes.
    pub fn bytes(self, count: usize) -> usize {
        let blocks = count.div_ceil(BLOCK);
        match self {
            Self::F32 => 4 * count,
            Self::Bf16 => 4 * count.div_ceil(2),
            Self::Int8 => 4 * count.div_ceil(4) + 4 * blocks,
            Self::Nf4 => 4 * count.div_ceil(8) + 4 * blocks,
        }
    }
}

impl std::fmt::Display for WeightKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "q8",
            Self::Nf4 => "q4",
        })
    }
}

impl std::str::FromStr for WeightKind {
    type Err = WeightKindError;

    fn from_str(text: &str) -> Result<Self, WeightKindError> {
        [Self::F32, Self::Bf16, Self::Int8, Self::Nf4]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| WeightKindError {
                got: text.chars().take(40).collect(),
            })
    }
}

/// Not a kind of weights.
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
    /// Eight, four or two codes a word, the first in the lowest bits.
    pub(super) words: Tensor<B, 1, Int>,
    /// One a block; a single unused one for bfloat16.
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
        // A bfloat16 takes nothing on its way.
        if rows <= a_part || !self.rows_stand_alone() || self.kind == WeightKind::Bf16 {
            return self.unpack().cast(float);
        }
        let device = self.words.device();
        let mut all = Tensor::zeros([rows, columns], (&device, DType::from(float)));
        for start in (0..rows).step_by(a_part) {
            let count = a_part.min(rows - start);
            let words = self.words.dims()[0] / rows;
            let scales = self.scales.dims()[0] / rows;
            let part = Self {
                kind: self.kind,
                shape: [count, columns],
                words: self.words.clone().narrow(0, start * words, count * words),
                scales: (self.scales.clone()).narrow(0, start * scales, count * scales),
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
        let (words, scales) = (self.words.dims()[0] / rows, self.scales.dims()[0] / rows);
        let chosen = Self {
            kind: self.kind,
            shape: [count, columns],
            words: (self.words.clone())
                .reshape([rows, words])
                .select(0, ids.clone())
                .reshape([count * words]),
            scales: match scales {
                // A bfloat16 has none.
                0 => self.scales.clone(),
                _ => (self.scales.clone())
                    .reshape([rows, scales])
                    .select(0, ids)
                    .reshape([count * scales]),
            },
        };
        chosen.unpack()
    }

    /// Whether no word and no scale serves two rows.
    fn rows_stand_alone(&self) -> bool {
        let alone = match self.kind {
            WeightKind::Bf16 => 2,
            _ => BLOCK,
        };
        self.shape[1].is_multiple_of(alone)
    }

    /// The values as a dense matrix, by burn's own operations.
    pub fn unpack(&self) -> Tensor<B, 2> {
        let device = self.words.device();
        let [rows, columns] = self.shape;
        let count = rows * columns;
        let (bits, codes): (i32, i32) = match self.kind {
            WeightKind::Nf4 => (4, 8),
            WeightKind::Int8 => (8, 4),
            WeightKind::Bf16 | WeightKind::F32 => return self.unpack_on_host(),
        };
        let words = self.words.dims()[0];
        let parts: Vec<Tensor<B, 2, Int>> = (0..codes)
            .map(|at| {
                self.words
                    .clone()
                    .bitwise_right_shift_scalar((at * bits).elem())
                    .bitwise_and_scalar(((1 << bits) - 1).elem())
                    .reshape([words, 1])
            })
            .collect();
        let codes: Tensor<B, 1, Int> = Tensor::cat(parts, 1).flatten(0, 1);
        let levels = match self.kind {
            WeightKind::Nf4 => {
                let table = Tensor::<B, 1>::from_data(TensorData::new(NF4.to_vec(), [16]), &device);
                table.select(0, codes)
            }
            _ => codes.float().sub_scalar(128.0).div_scalar(127.0),
        };
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
    let (bits, a_word) = match kind {
        WeightKind::Int8 => (8, 4),
        WeightKind::Nf4 => (4, 8),
        WeightKind::F32 | WeightKind::Bf16 => panic!("{kind} weights have no blocks"),
    };
    let mut words = vec![0_i32; values.len().div_ceil(a_word)];
    let mut scales = Vec::with_capacity(values.len().div_ceil(BLOCK));
    for (block, words) in values.chunks(BLOCK).zip(words.chunks_mut(BLOCK / a_word)) {
        let scale = block
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        scales.push(scale);
        for (word, values) in words.iter_mut().zip(block.chunks(a_word)) {
            let word_bits = values.iter().enumerate().fold(0_u32, |word, (at, value)| {
                let level = value * inverse;
                let code = match kind {
                    WeightKind::Nf4 => nearest(level),
                    _ => ((level * 127.0).round() + 128.0) as u32,
                };
                word | code << (at * bits)
            });
            *word = word_bits as i32;
        }
    }
    (words, scales)
}

/// The code of the NF4 level next to `level`.
fn nearest(level: f32) -> u32 {
    // Half way between neighbours, rising: the code is the number of borders passed.
    NF4.windows(2)
        .filter(|two| level > 0.5 * (two[0] + two[1]))
        .count() as u32
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
pub(in crate::model) struct PackedSlices<'a> {
    pub(in crate::model) kind: WeightKind,
    pub(in crate::model) columns: usize,
    pub(in crate::model) words: &'a [i32],
    pub(in crate::model) scales: &'a [f32],
}

impl PackedSlices<'_> {
    /// Writes the values of `rows` to `out`, `[rows, columns]`.
    pub(in crate::model) fn unpack_rows(&self, rows: Range<usize>, out: &mut [f32]) {
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
            WeightKind::Int8 => self.unpack_blocks(start, out, 4, |word, at| {
                ((word >> (8 * at)) & 0xff) as f32 * (1.0 / 127.0) - 128.0 / 127.0
            }),
            WeightKind::Nf4 => self.unpack_blocks(start, out, 8, |word, at| {
                NF4[((word >> (4 * at)) & 0xf) as usize]
            }),
        }
    }

    #[inline(always)]
    fn unpack_blocks(
        &self,
        start: usize,
        out: &mut [f32],
        a_word: usize,
        level: impl Fn(u32, usize) -> f32,
    ) {
        let mut at = start;
        let mut rest = out;
        while !rest.is_empty() {
            let here = (BLOCK - at % BLOCK).min(rest.len());
            let (block, later) = rest.split_at_mut(here);
            let scale = self.scales[at / BLOCK];
            if here == BLOCK {
                let words = &self.words[at / a_word..][..BLOCK / a_word];
                for (values, &word) in block.chunks_exact_mut(a_word).zip(words) {
                    for (lane, value) in values.iter_mut().enumerate() {
                        *value = level(word as u32, lane) * scale;
                    }
                }
            } else {
                for (offset, value) in block.iter_mut().enumerate() {
                    let at = at + offset;
                    *value = level(self.words[at / a_word] as u32, at % a_word) * scale;
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
        // Four bits on normal values: QLoRA's own figure is near a tenth.
        let four = spread(WeightKind::Nf4);
        assert!((0.05..0.11).contains(&four), "{four}");
        let mut outlier = values.clone();
        outlier[0] = 1000.0;
        let got = unpacked(WeightKind::Nf4, &outlier, 40);
        assert_eq!(got[0], 1000.0);
        assert_eq!(
            got[BLOCK..],
            unpacked(WeightKind::Nf4, &values, 40)[BLOCK..]
        );
    }

    #[test]
    fn levels_are_kept_exactly_and_zero_blocks_stay_zero() {
        let values: Vec<f32> = (0..BLOCK).map(|i| 3.0 * NF4[i % 16]).collect();
        assert_eq!(unpacked(WeightKind::Nf4, &values, 8), values);
        for kind in [WeightKind::Nf4, WeightKind::Int8, WeightKind::Bf16] {
            assert_eq!(unpacked(kind, &[0.0; 70], 10), [0.0; 70]);
        }
    }

    #[test]
    fn unpacking_on_a_device_is_unpacking_on_the_host() {
        let values = normal(9 * 40);
        for kind in [WeightKind::Nf4, WeightKind::Int8, WeightKind::Bf16] {
            let packed = Packed::<Flex>::new(kind, &values, [9, 40], &Default::default());
            let device = packed.unpack().into_data().to_vec::<f32>().unwrap();
            for (a, b) in device.iter().zip(unpacked(kind, &values, 40)) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_part_is_that_part_of_the_whole() {
        let (rows, columns) = (9, 2 * BLOCK);
        let values = normal(rows * columns);
        let ids = [4_i32, 0, 8, 4];
        for kind in [WeightKind::Nf4, WeightKind::Int8, WeightKind::Bf16] {
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
        assert!(WeightKind::Nf4.bytes(1 << 20) as f64 <= 0.6 * (1 << 20) as f64);
        for name in ["f32", "bf16", "q8", "q4"] {
            assert_eq!(name.parse::<WeightKind>().unwrap().to_string(), name);
        }
        assert!("fp4".parse::<WeightKind>().is_err());
    }
}
