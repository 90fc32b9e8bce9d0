//! Rotary position embedding of rows in place, the half-split kind of Hugging Face
//! checkpoints.

use pulp::{Arch, Simd, with_simd};

use crate::ops::arguments::Turn;

/// Cosines and sines, each `[positions, dim / 2]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

/// Turns the heads of each row, `[rows, heads * dim]`, by the row's position.
#[with_simd(rotate = Arch::new())]
#[inline(always)]
pub(crate) fn rotate_with_simd<'a, S: Simd>(
    _simd: S,
    x: &'a mut [f32],
    width: usize,
    dim: usize,
    positions: &'a [u32],
    tables: Tables<'a>,
    turn: Turn,
) {
    let half = dim / 2;
    let sign = match turn {
        Turn::Forward => 1.0,
        Turn::Back => -1.0,
    };
    for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
        let start = position as usize * half;
        let cos = &tables.cos[start..start + half];
        let sin = &tables.sin[start..start + half];
        for head in row.chunks_exact_mut(dim) {
            let (first, second) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b, sin) = (first[i], second[i], sin[i] * sign);
                first[i] = a * cos[i] - b * sin;
                second[i] = b * cos[i] + a * sin;
            }
        }
    }
}
