//! A frozen matrix on the host, and its products: one loop over panels of rows, which serves dense
//! and packed weights, projections and the output layer.

use std::ops::Range;

use faer::{MatMut, MatRef};

use super::rows::{Store, matrix, multiply};
use crate::packed::PackedSlices;

/// A frozen matrix, `[out, in]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Frozen<'a> {
    /// 32 bits a weight.
    Dense(&'a [f32]),
    /// 16 bits a weight or fewer, unpacked a panel at a time.
    Packed(PackedSlices<'a>),
}

/// A frozen matrix of `input` columns with the number of rows that are unpacked at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) weight: Frozen<'a>,
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// Rows of a panel.
    pub(crate) rows: usize,
    /// Factor of the product.
    pub(crate) scale: f32,
}

impl Panels<'_> {
    /// `y = scale x W^T`, `[rows, in]` to `[rows, out]`.
    pub(crate) fn forward(
        &self,
        x: MatRef<'_, f32>,
        mut y: MatMut<'_, f32>,
        scratch: &mut Vec<f32>,
    ) {
        self.for_each(scratch, |outputs, panel| {
            let part = y.as_mut().subcols_mut(outputs.start, outputs.len());
            multiply(part, Store::Replace, x, panel.transpose(), self.scale);
        });
    }

    /// `by_x (+)= scale by_y W`, `[rows, out]` to `[rows, in]`: the gradient by the input. Panels are
    /// added up in their order.
    pub(crate) fn backward(
        &self,
        by_y: MatRef<'_, f32>,
        mut by_x: MatMut<'_, f32>,
        store: Store,
        scratch: &mut Vec<f32>,
    ) {
        let mut store = store;
        self.for_each(scratch, |outputs, panel| {
            let part = by_y.subcols(outputs.start, outputs.len());
            multiply(by_x.as_mut(), store, part, panel, self.scale);
            store = Store::Add;
        });
    }

    /// Each panel in turn: its rows, and their values. A dense matrix is one panel.
    fn for_each(
        &self,
        scratch: &mut Vec<f32>,
        mut each: impl FnMut(Range<usize>, MatRef<'_, f32>),
    ) {
        match self.weight {
            Frozen::Dense(values) => each(0..self.output, matrix(values, self.input)),
            Frozen::Packed(packed) => {
                for start in (0..self.output).step_by(self.rows) {
                    let outputs = start..(start + self.rows).min(self.output);
                    each(outputs.clone(), unpacked(&packed, outputs, scratch));
                }
            }
        }
    }
}

/// Some rows of a packed matrix, unpacked into `scratch`: `[rows, in]`.
pub(crate) fn unpacked<'s>(
    packed: &PackedSlices<'_>,
    rows: Range<usize>,
    scratch: &'s mut Vec<f32>,
) -> MatRef<'s, f32> {
    scratch.resize(rows.len() * packed.columns, 0.0);
    packed.unpack_rows(rows, scratch);
    matrix(scratch, packed.columns)
}
