//! Row-major matrices as slices: products, and the division of rows among tasks.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::pool::Pool;

/// Fewest rows of a task of their own: with fewer, packing the weights costs more than a second
/// core gains.
const MIN_ROWS: usize = 32;
/// Most rows of a task: the activations of a block then stay in the caches.
const MAX_ROWS: usize = 512;

/// `[rows, width]` of a slice.
#[inline]
pub(crate) fn matrix(values: &[f32], width: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(values, values.len() / width, width)
}

/// `[rows, width]` of a slice, to write to.
#[inline]
pub(crate) fn matrix_mut(values: &mut [f32], width: usize) -> MatMut<'_, f32> {
    MatMut::from_row_major_slice_mut(values, values.len() / width, width)
}

/// What a product does with the values in its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Overwrites the target.
    Replace,
    /// Adds to the target.
    Add,
}

/// `target (+)= scale * left * right` on the calling thread.
#[inline]
pub(crate) fn multiply(
    target: MatMut<'_, f32>,
    store: Store,
    left: MatRef<'_, f32>,
    right: MatRef<'_, f32>,
    scale: f32,
) {
    let accum = match store {
        Store::Replace => Accum::Replace,
        Store::Add => Accum::Add,
    };
    matmul(target, accum, left, right, scale, Par::Seq);
}

/// Divides `rows` into ranges, at least one for each thread where there are rows enough.
pub(crate) fn divide(rows: usize, threads: usize) -> Vec<Range<usize>> {
    let tasks = threads
        .max(1)
        .min(rows.div_ceil(MIN_ROWS))
        .max(rows.div_ceil(MAX_ROWS))
        .max(1);
    // A whole number of turns, so that no thread waits for another's last task.
    let tasks = if tasks > threads {
        tasks.next_multiple_of(threads.max(1))
    } else {
        tasks
    };
    let each = rows.div_ceil(tasks).max(1);
    (0..rows)
        .step_by(each)
        .map(|start| start..(start + each).min(rows))
        .collect()
}

/// One slice for each range of rows.
pub(crate) fn split<'a>(
    mut values: &'a mut [f32],
    width: usize,
    ranges: &[Range<usize>],
) -> Vec<&'a mut [f32]> {
    ranges
        .iter()
        .map(|range| {
            let (first, rest) =
                std::mem::take(&mut values).split_at_mut((range.end - range.start) * width);
            values = rest;
            first
        })
        .collect()
}

/// Some rows of a batch, in ascending order, and how they are divided among tasks.
#[derive(Debug)]
pub(crate) struct Selected<'a> {
    rows: &'a [usize],
    pub(crate) ranges: Vec<Range<usize>>,
}

impl<'a> Selected<'a> {
    /// These rows, for so many threads.
    pub(crate) fn new(rows: &'a [usize], threads: usize) -> Self {
        Self {
            rows,
            ranges: divide(rows.len(), threads),
        }
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.rows.len()
    }

    /// These rows of `values`.
    pub(crate) fn gather(&self, values: &[f32], width: usize, pool: &Pool) -> Vec<f32> {
        let mut chosen = pool.take(self.rows.len() * width);
        for (to, &row) in chosen.chunks_exact_mut(width).zip(self.rows) {
            to.copy_from_slice(&values[row * width..(row + 1) * width]);
        }
        chosen
    }

    /// The reverse: `count` rows, of which all others are zero. Gives `chosen` back to the pool.
    pub(crate) fn scatter(
        &self,
        chosen: Vec<f32>,
        width: usize,
        count: usize,
        pool: &Pool,
    ) -> Vec<f32> {
        let mut values = pool.zeros(count * width);
        for (from, &row) in chosen.chunks_exact(width).zip(self.rows) {
            values[row * width..(row + 1) * width].copy_from_slice(from);
        }
        pool.give(chosen);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selected_rows_are_gathered_and_scattered() {
        let pool = Pool::default();
        let selected = Selected::new(&[1, 3], 2);
        let values = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0];
        let chosen = selected.gather(&values, 2, &pool);
        assert_eq!(chosen, [10.0, 11.0, 30.0, 31.0]);
        let spread = selected.scatter(chosen, 2, 4, &pool);
        assert_eq!(spread, [0.0, 0.0, 10.0, 11.0, 0.0, 0.0, 30.0, 31.0]);
    }

    #[test]
    fn ranges_cover_all_rows_once() {
        for rows in [0, 1, 31, 32, 33, 64, 100, 256, 1024, 1500, 5000] {
            for threads in [1, 2, 3, 16] {
                let ranges = divide(rows, threads);
                assert_eq!(
                    ranges.iter().map(ExactSizeIterator::len).sum::<usize>(),
                    rows
                );
                assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
                assert!(ranges.iter().all(|range| range.len() <= MAX_ROWS));
            }
        }
        assert_eq!(divide(256, 2).len(), 2);
    }

    #[test]
    fn products_are_products() {
        let (a, b) = (
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [1.0, 0.0, -1.0, 2.0, 1.0, 0.5],
        );
        let mut y = [10.0; 4];
        let right = matrix(&b, 3).transpose();
        multiply(matrix_mut(&mut y, 2), Store::Add, matrix(&a, 3), right, 2.0);
        assert_eq!(y, [6.0, 21.0, 6.0, 42.0]);
    }
}
