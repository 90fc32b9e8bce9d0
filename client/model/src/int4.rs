//! Four bits a weight on a grid of its own for every 32 weights: `step * (code - zero)`, with
//! `code` from 0 to 15 and `zero` between grid points where that fits better.
//!
//! A group of 128 weights is 19 words: 16 of codes, the first in the lowest bits, and 3 with the
//! four blocks' grids, 24 bits each: how far the step is below the matrix's largest, in 256ths of
//! a power of two, and the zero, in 256ths of a step. That is 0.594 bytes a weight.
//!
//! Weights that already lie on such grids (GGUF's Q4_0 and Q4_1) keep their codes; their values
//! change by a thousandth at most. Others lose what 16 levels cost, with the step that makes the
//! squared error least among those tried.

use std::sync::LazyLock;

use rayon::prelude::*;

/// Weights that share a grid.
pub(super) const BLOCK: usize = 32;
/// Weights of a group.
pub(super) const GROUP: usize = 128;
/// Words of a group.
pub(super) const WORDS: usize = 19;
/// Words of a block's codes.
const CODES: usize = BLOCK / 8;
/// Steps of a power of two, and of a grid's step.
const FINE: f32 = 256.0;
/// Largest number of twelve bits.
const MAX_12_BITS: u32 = 0xfff;
/// How many steps a block's range is tried as: all of the grid, less where codes were left unused
/// when the weights were rounded before, and more where the outermost are better cut.
const TRIED: [f32; 12] = [
    15.0, 16.0, 17.0, 18.0, 16.5, 14.0, 13.0, 12.0, 11.0, 10.0, 9.0, 8.0,
];

/// A block's grid.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Grid {
    step: f32,
    zero: f32,
}

impl Grid {
    fn code(&self, value: f32) -> f32 {
        (value / self.step + self.zero).round().clamp(0.0, 15.0)
    }

    /// Of those tried, the grid with the least squared error.
    fn of(block: &[f32]) -> Self {
        let nothing = Self {
            step: 0.0,
            zero: 0.0,
        };
        let low = block.iter().copied().fold(0.0_f32, f32::min);
        let high = block.iter().copied().fold(0.0_f32, f32::max);
        let range = high - low;
        if range < f32::MIN_POSITIVE {
            return nothing;
        }
        let squares: f32 = block.iter().map(|value| value * value).sum();
        let (mut best, mut least) = (nothing, f32::INFINITY);
        for steps in TRIED {
            let step = range / steps;
            // What is cut is cut at both ends.
            let zero = (-low / step - (steps - 15.0).max(0.0) / 2.0).max(0.0);
            let (grid, error) = Self { step, zero }.refined(block);
            if error < least {
                (best, least) = (grid, error);
            }
            if least <= 1e-9 * squares {
                break;
            }
        }
        best
    }

    /// The grid that fits the codes of this one best (least squares), and its squared error.
    fn refined(self, block: &[f32]) -> (Self, f32) {
        let count = block.len() as f32;
        let (mut q, mut qq, mut x, mut qx) = (0.0_f32, 0.0_f32, 0.0_f32, 0.0_f32);
        for &value in block {
            let code = self.code(value);
            q += code;
            qq += code * code;
            x += value;
            qx += code * value;
        }
        let spread = count * qq - q * q;
        let mut grid = self;
        if spread > 0.0 {
            let step = (count * qx - q * x) / spread;
            let zero = (q - x / step) / count;
            if step > 0.0 && (0.0..16.0).contains(&zero) {
                grid = Self { step, zero };
            }
        }
        let error = block.iter().map(|&value| {
            let got = grid.step * (self.code(value) - grid.zero);
            (got - value) * (got - value)
        });
        (grid, error.sum())
    }

    /// The twenty-four bits of it, below the largest step of the matrix.
    fn bits(&self, top: f32) -> u32 {
        if self.step == 0.0 {
            return MAX_12_BITS;
        }
        let below = ((top / self.step).log2() * FINE).round();
        let zero = (self.zero * FINE).round();
        (below as u32).min(MAX_12_BITS) | (zero as u32).min(MAX_12_BITS) << 12
    }

    #[inline(always)]
    fn from_bits(bits: u32, top: f32) -> Self {
        let below = bits & MAX_12_BITS;
        let whole = f32::from_bits((127 - (below >> 8)) << 23);
        Self {
            step: top * FRACTIONS[(below & 0xff) as usize] * whole,
            zero: (bits >> 12) as f32 / FINE,
        }
    }
}

/// `2^(-i / 256)`.
static FRACTIONS: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|at| (-(at as f32) / FINE).exp2()));

/// Words that hold so many weights.
pub(super) fn words(count: usize) -> usize {
    count.div_ceil(GROUP) * WORDS
}

/// Packs values: their words, and the largest step.
pub(super) fn pack(values: &[f32]) -> (Vec<i32>, f32) {
    let grids: Vec<Grid> = values.par_chunks(BLOCK).map(Grid::of).collect();
    let top = grids.iter().fold(0.0_f32, |most, grid| most.max(grid.step));
    let mut packed = vec![0_i32; words(values.len())];
    packed
        .par_chunks_mut(WORDS)
        .zip(values.par_chunks(GROUP))
        .zip(grids.par_chunks(GROUP / BLOCK))
        .for_each(|((words, values), grids)| {
            for (at, (grid, values)) in grids.iter().zip(values.chunks(BLOCK)).enumerate() {
                let bits = grid.bits(top);
                put_grid(&mut words[GROUP / 8..], at, bits);
                if grid.step == 0.0 {
                    continue;
                }
                // Codes for the grid as it is read back.
                let grid = Grid::from_bits(bits, top);
                let words = &mut words[at * CODES..];
                for (word, values) in words.iter_mut().zip(values.chunks(8)) {
                    let lanes = values.iter().enumerate();
                    *word = lanes.fold(0, |word, (lane, &value)| {
                        word | (grid.code(value) as i32) << (4 * lane)
                    });
                }
            }
        });
    (packed, top)
}

/// Grid `at` of four among three words.
fn put_grid(words: &mut [i32], at: usize, bits: u32) {
    let long = u128::from(bits) << (24 * at);
    for (place, word) in words.iter_mut().enumerate() {
        *word |= (long >> (32 * place)) as u32 as i32;
    }
}

#[inline(always)]
fn take_grid(words: &[i32], at: usize) -> u32 {
    let [a, b, c] = [words[0] as u32, words[1] as u32, words[2] as u32];
    let bits = match at {
        0 => a,
        1 => a >> 24 | b << 8,
        2 => b >> 16 | c << 16,
        _ => c >> 8,
    };
    bits & 0xff_ffff
}

/// Writes the values from number `start` on.
#[inline(always)]
pub(super) fn unpack(words: &[i32], top: f32, start: usize, out: &mut [f32]) {
    let mut at = start;
    let mut rest = out;
    while !rest.is_empty() {
        let here = (BLOCK - at % BLOCK).min(rest.len());
        let (block, later) = rest.split_at_mut(here);
        let group = &words[at / GROUP * WORDS..][..WORDS];
        let number = at % GROUP / BLOCK;
        let grid = Grid::from_bits(take_grid(&group[GROUP / 8..], number), top);
        let offset = grid.step * grid.zero;
        let codes = &group[number * CODES..][..CODES];
        let value = |word: i32, lane: usize| {
            ((word as u32 >> (4 * lane)) & 0xf) as f32 * grid.step - offset
        };
        if here == BLOCK {
            for (values, &word) in block.chunks_exact_mut(8).zip(codes) {
                for (lane, out) in values.iter_mut().enumerate() {
                    *out = value(word, lane);
                }
            }
        } else {
            for (place, out) in block.iter_mut().enumerate() {
                let within = at % BLOCK + place;
                *out = value(codes[within / 8], within % 8);
            }
        }
        at += here;
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::SplitMix;
    use super::*;

    fn round_trip(values: &[f32]) -> Vec<f32> {
        let (words, top) = pack(values);
        let mut out = vec![f32::NAN; values.len()];
        unpack(&words, top, 0, &mut out);
        out
    }

    fn off(got: &[f32], values: &[f32]) -> f32 {
        let squares = got.iter().zip(values).map(|(g, v)| (g - v) * (g - v));
        let all: f32 = values.iter().map(|value| value * value).sum();
        (squares.sum::<f32>() / all).sqrt()
    }

    #[test]
    fn grids_stand_in_their_words() {
        let bits = [0x123_456, 0xfff_fff, 0, 0xabc_def];
        let mut words = [0; 3];
        for (at, &bits) in bits.iter().enumerate() {
            put_grid(&mut words, at, bits);
        }
        for (at, &bits) in bits.iter().enumerate() {
            assert_eq!(take_grid(&words, at), bits);
        }
        for grid in [(1.0, 0.0), (0.3, 7.5), (1e-3, 15.0)] {
            let (step, zero) = grid;
            let got = Grid::from_bits(Grid { step, zero }.bits(1.0), 1.0);
            assert!((got.step / step - 1.0).abs() < 0.0014, "{got:?}");
            assert!((got.zero - zero).abs() < 0.002, "{got:?}");
        }
    }

    /// GGUF's Q4_1 is `d q + m`, Q4_0 `d (q - 8)` with -8 for the largest.
    #[test]
    fn weights_on_a_grid_of_sixteen_keep_their_codes() {
        let mut random = SplitMix::new(3, 0);
        for with_minimum in [true, false] {
            let values: Vec<f32> = (0..100)
                .flat_map(|_| {
                    let step = 0.002 + 0.05 * random.below(1000) as f32 / 1000.0;
                    let zero = if with_minimum {
                        7.0 + random.below(100) as f32 / 100.0
                    } else {
                        8.0
                    };
                    let mut codes: Vec<u32> =
                        (0..BLOCK).map(|_| 2 + random.below(11) as u32).collect();
                    codes[0] = 0;
                    if with_minimum {
                        codes[1] = 15;
                    }
                    codes
                        .into_iter()
                        .map(move |code| step * (code as f32 - zero))
                        .collect::<Vec<_>>()
                })
                .collect();
            let off = off(&round_trip(&values), &values);
            assert!(off < 0.0015, "{with_minimum}: {off}");
        }
    }

    #[test]
    fn normal_weights_lose_less_than_a_twelfth() {
        let mut random = SplitMix::new(4, 0);
        let values: Vec<f32> = (0..GROUP * 50).map(|_| random.normal() as f32).collect();
        let off = off(&round_trip(&values), &values);
        assert!(off < 0.078, "{off}");
    }

    #[test]
    fn zeros_extremes_and_rests_come_back() {
        assert_eq!(round_trip(&[0.0; 70]), [0.0; 70]);
        assert_eq!(round_trip(&[]), [0.0; 0]);
        for values in [vec![5.0; 3], vec![-2.0; 33], vec![1e-30, 1e30]] {
            let got = round_trip(&values);
            assert!(off(&got, &values) < 0.04, "{got:?}");
        }
        // Blocks do not touch each other, but for the largest step.
        let mut random = SplitMix::new(5, 0);
        let mut values: Vec<f32> = (0..3 * BLOCK).map(|_| random.normal() as f32).collect();
        let before = round_trip(&values);
        values[0] = 100.0;
        let after = round_trip(&values);
        assert!(off(&after[BLOCK..], &before[BLOCK..]) < 0.01);
    }
}
