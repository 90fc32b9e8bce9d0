//! One transformer block, forward and backward, handwritten: rows are divided among the threads
//! once before and once after attention, so that what a thread has just computed is still
//! in its caches when it needs it next.

use std::ops::Range;

use rayon::prelude::*;

use super::attention;
use super::elementwise::{gated, gated_backward, rms_norm, rms_norm_backward};
use super::gradients::{PairGradients, Wanted, sum};
use super::kept::Kept;
use super::pool::Pool;
use super::projection::{PairGradient, Projection};
use super::rope::{Tables, rotate};
use super::rows::{Selected, Store, split};
use super::simd::add;
use crate::config::Activation;
use crate::ops::arguments::{AttentionShape, Turn};
use crate::sequences::Sequences;

/// A block's weights on the host; projections in the order of `Target::ALL`.
pub(crate) struct TransformerBlock<'a> {
    pub(crate) projections: [Projection<'a>; 7],
    pub(crate) first_norm: &'a [f32],
    pub(crate) second_norm: &'a [f32],
    /// Those of each head of queries and of keys, before they are rotated.
    pub(crate) qk_norms: Option<[&'a [f32]; 2]>,
    /// Those of what attention and the feed-forward part give, before it is added to the residual
    /// stream.
    pub(crate) output_norms: Option<[&'a [f32]; 2]>,
    /// What the feed-forward part applies to its gate.
    pub(crate) activation: Activation,
    /// What queries and keys are rotated by, if they are.
    pub(crate) tables: Option<Tables<'a>>,
    pub(crate) eps: f32,
    pub(crate) shape: AttentionShape,
}

/// The rows of a batch, the same for every block.
pub(crate) struct Rows<'a> {
    pub(crate) sequences: &'a Sequences,
    pub(crate) positions: &'a [u32],
    /// The ranges of rows that tasks compute.
    pub(crate) ranges: &'a [Range<usize>],
    pub(crate) pool: &'a Pool,
}

/// The index of each projection, as in `Target::ALL`.
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const O: usize = 3;
const GATE: usize = 4;
const UP: usize = 5;
const DOWN: usize = 6;

impl TransformerBlock<'_> {
    fn hidden(&self) -> usize {
        self.first_norm.len()
    }

    /// Whether what follows attention may be computed for some rows alone: dropout counts all.
    pub(crate) fn may_select(&self) -> bool {
        let mut pairs = self.projections[O..].iter().filter_map(|one| one.pair);
        pairs.all(|pair| pair.dropout.is_none())
    }

    /// The block's output for `x`, and what its backward pass needs. Where `only` is given, the
    /// output has these rows alone.
    pub(crate) fn forward(
        &self,
        x: Vec<f32>,
        rows: &Rows<'_>,
        only: Option<&Selected<'_>>,
    ) -> (Vec<f32>, Kept) {
        let count = rows.positions.len();
        let after = only.map_or(count, Selected::count);
        let pool = rows.pool;
        let [q, k, v, _, gate, up, _] = &self.projections;
        let mut kept = Kept {
            x,
            raw: [q, k].map(|of| match self.qk_norms {
                Some(_) => pool.take(count * of.output),
                None => Vec::new(),
            }),
            q: pool.take(count * q.output),
            k: pool.take(count * k.output),
            v: pool.take(count * v.output),
            context: pool.take(count * q.output),
            sums: pool.take(count * self.shape.heads),
            seen: None,
            given: std::array::from_fn(|_| match self.output_norms {
                Some(_) => pool.take(after * self.hidden()),
                None => Vec::new(),
            }),
            middle: pool.take(after * self.hidden()),
            gate: pool.take(after * gate.output),
            up: pool.take(after * up.output),
            inner: std::array::from_fn(|at| {
                let count = if at < O { count } else { after };
                pool.take(count * self.projections[at].rank())
            }),
        };
        self.before_attention(&mut kept, rows);
        attention::forward(
            [&kept.q, &kept.k, &kept.v],
            &self.shape,
            rows.sequences,
            &mut kept.context,
            &mut kept.sums,
        );
        let mut y = pool.take(after * self.hidden());
        match only {
            None => {
                let x = std::mem::take(&mut kept.x);
                self.after_attention(&x, &mut kept, &mut y, rows.ranges, pool);
                kept.x = x;
            }
            Some(only) => {
                let x = only.gather(&kept.x, self.hidden(), pool);
                kept.seen = Some(only.gather(&kept.context, q.output, pool));
                self.after_attention(&x, &mut kept, &mut y, &only.ranges, pool);
                pool.give(x);
            }
        }
        (y, kept)
    }

    /// The block's output, and its input.
    pub(crate) fn output(
        &self,
        x: Vec<f32>,
        rows: &Rows<'_>,
        only: Option<&Selected<'_>>,
    ) -> (Vec<f32>, Vec<f32>) {
        let (y, kept) = self.forward(x, rows, only);
        (y, kept.release(rows.pool))
    }

    fn before_attention(&self, kept: &mut Kept, rows: &Rows<'_>) {
        struct QkvTask<'a> {
            range: Range<usize>,
            outputs: [&'a mut [f32]; 3],
            /// Queries and keys before their norms, where they have any.
            raw: Option<[&'a mut [f32]; 2]>,
            inner: [&'a mut [f32]; 3],
        }
        let hidden = self.hidden();
        let [inner_q, inner_k, inner_v, ..] = &mut kept.inner;
        let part = |values, at: usize| split(values, self.projections[at].output, rows.ranges);
        let narrow = |values, at: usize| split(values, self.projections[at].rank(), rows.ranges);
        let outputs = part(&mut kept.q, Q)
            .into_iter()
            .zip(part(&mut kept.k, K))
            .zip(part(&mut kept.v, V));
        let inner = narrow(inner_q, Q)
            .into_iter()
            .zip(narrow(inner_k, K))
            .zip(narrow(inner_v, V));
        let [raw_q, raw_k] = &mut kept.raw;
        let mut raw = self
            .qk_norms
            .map(|_| part(raw_q, Q).into_iter().zip(part(raw_k, K)));
        let tasks: Vec<_> = rows
            .ranges
            .iter()
            .zip(outputs)
            .zip(inner)
            .map(|((range, ((q, k), v)), ((iq, ik), iv))| QkvTask {
                range: range.clone(),
                outputs: [q, k, v],
                raw: raw.as_mut().and_then(|raw| raw.next().map(<[_; 2]>::from)),
                inner: [iq, ik, iv],
            })
            .collect();
        let x = &kept.x;
        tasks.into_par_iter().with_max_len(1).for_each_init(
            || rows.pool.scratch(),
            |held, mut task| {
                let scratch = &mut held.scratch;
                let x = &x[task.range.start * hidden..task.range.end * hidden];
                let mut normed = rows.pool.take(x.len());
                rms_norm(x, self.first_norm, self.eps, &mut normed);
                for ((at, y), inner) in (Q..=V).zip(task.outputs).zip(task.inner) {
                    let projection = &self.projections[at];
                    let first = task.range.start;
                    projection.forward(&normed, y, inner, first, &mut scratch.wide);
                    if at == V {
                        continue;
                    }
                    if let (Some(norms), Some(raw)) = (self.qk_norms, &mut task.raw) {
                        raw[at].copy_from_slice(y);
                        rms_norm(raw[at], norms[at], self.eps, y);
                    }
                    if let Some(tables) = self.tables {
                        let positions = &rows.positions[task.range.clone()];
                        let (width, dim) = (projection.output, self.shape.dim);
                        rotate(y, width, dim, positions, tables, Turn::Forward);
                    }
                }
                rows.pool.give(normed);
            },
        );
    }

    fn after_attention(
        &self,
        x: &[f32],
        kept: &mut Kept,
        y: &mut [f32],
        ranges: &[Range<usize>],
        pool: &Pool,
    ) {
        struct FeedForwardTask<'a> {
            range: Range<usize>,
            /// What attention and the feed-forward part give before their norms, where they have any.
            given: Option<[&'a mut [f32]; 2]>,
            middle: &'a mut [f32],
            gate: &'a mut [f32],
            up: &'a mut [f32],
            y: &'a mut [f32],
            inner: Vec<&'a mut [f32]>,
        }
        let hidden = self.hidden();
        let wide = self.projections[GATE].output;
        let [attended, fed] = &mut kept.given;
        let mut given = self.output_norms.map(|_| {
            let attended = split(attended, hidden, ranges).into_iter();
            attended.zip(split(fed, hidden, ranges))
        });
        let mut middle = split(&mut kept.middle, hidden, ranges).into_iter();
        let mut gate = split(&mut kept.gate, wide, ranges).into_iter();
        let mut up = split(&mut kept.up, wide, ranges).into_iter();
        let mut y = split(y, hidden, ranges).into_iter();
        let mut inner: Vec<_> = kept.inner[O..]
            .iter_mut()
            .zip(&self.projections[O..])
            .map(|(values, projection)| split(values, projection.rank(), ranges).into_iter())
            .collect();
        let tasks: Vec<_> = ranges
            .iter()
            .filter_map(|range| {
                Some(FeedForwardTask {
                    range: range.clone(),
                    given: given
                        .as_mut()
                        .and_then(|given| given.next().map(<[_; 2]>::from)),
                    middle: middle.next()?,
                    gate: gate.next()?,
                    up: up.next()?,
                    y: y.next()?,
                    inner: inner.iter_mut().filter_map(Iterator::next).collect(),
                })
            })
            .collect();
        let context = kept.seen.as_ref().unwrap_or(&kept.context);
        tasks.into_par_iter().with_max_len(1).for_each_init(
            || pool.scratch(),
            |held, mut task| {
                let scratch = &mut held.scratch;
                let first = task.range.start;
                let of = |values: &'_ [f32], width: usize| -> Range<usize> {
                    debug_assert!(values.len() >= task.range.end * width);
                    task.range.start * width..task.range.end * width
                };
                let [_, _, _, o, gate, up, down] = &self.projections;
                let context = &context[of(context, o.input)];
                let mut project =
                    |projection: &Projection<'_>, at: usize, x: &[f32], y: &mut [f32]| {
                        projection.forward(x, y, task.inner[at - O], first, &mut scratch.wide);
                    };
                project(o, O, context, task.middle);
                // The norm of what a part gives, in its place.
                let norm_given =
                    |given: &mut Option<[&mut [f32]; 2]>, part: usize, y: &mut [f32]| {
                        if let (Some(norms), Some(given)) = (self.output_norms, given) {
                            given[part].copy_from_slice(y);
                            rms_norm(given[part], norms[part], self.eps, y);
                        }
                    };
                norm_given(&mut task.given, 0, task.middle);
                add(task.middle, &x[of(x, hidden)]);
                let mut normed = pool.take(task.middle.len());
                rms_norm(task.middle, self.second_norm, self.eps, &mut normed);
                project(gate, GATE, &normed, task.gate);
                project(up, UP, &normed, task.up);
                pool.give(normed);
                let mut inner = pool.take(task.gate.len());
                gated(self.activation, task.gate, task.up, &mut inner);
                project(down, DOWN, &inner, task.y);
                pool.give(inner);
                norm_given(&mut task.given, 1, task.y);
                add(task.y, task.middle);
            },
        );
    }

    /// The gradient by the block's input, if wanted, with those of its pairs. `only` is that of the
    /// forward pass.
    pub(crate) fn backward(
        &self,
        mut kept: Kept,
        by_y: Vec<f32>,
        (rows, only): (&Rows<'_>, Option<&Selected<'_>>),
        wanted: Wanted,
        by_input: bool,
    ) -> (Option<Vec<f32>>, PairGradients) {
        let count = rows.positions.len();
        let pool = rows.pool;
        let [q, k, v, ..] = &self.projections;
        // From here on `by_y` becomes the gradient by the residual stream after attention.
        let mut by_middle = by_y;
        let mut by_context = pool.take(only.map_or(count, Selected::count) * q.output);
        let ranges = only.map_or(rows.ranges, |only| &only.ranges);
        let by = [&mut by_middle[..], &mut by_context[..]];
        let mut gradients = self.backward_after(&mut kept, by, ranges, pool, wanted);
        if let Some(only) = only {
            by_middle = only.scatter(by_middle, self.hidden(), count, pool);
            by_context = only.scatter(by_context, q.output, count, pool);
        }
        let mut by_q = pool.take(count * q.output);
        let mut by_k = pool.take(count * k.output);
        let mut by_v = pool.take(count * v.output);
        attention::backward(
            &attention::SavedAttention {
                q: &kept.q,
                k: &kept.k,
                v: &kept.v,
                context: &kept.context,
                sums: &kept.sums,
            },
            &by_context,
            &self.shape,
            rows.sequences,
            [&mut by_q, &mut by_k, &mut by_v],
        );
        pool.give(by_context);
        let own = self.backward_before(
            &kept,
            [&mut by_q, &mut by_k, &mut by_v],
            by_input.then_some(&mut by_middle),
            rows,
            wanted,
        );
        for (gradient, own) in gradients.iter_mut().zip(own) {
            if own.a.is_some() || own.b.is_some() {
                *gradient = own;
            }
        }
        for buffer in [by_q, by_k, by_v] {
            pool.give(buffer);
        }
        pool.give(kept.release(pool));
        if by_input {
            (Some(by_middle), gradients)
        } else {
            pool.give(by_middle);
            (None, gradients)
        }
    }

    /// The backward pass from the output to attention's context.
    fn backward_after(
        &self,
        kept: &mut Kept,
        [by_middle, by_context]: [&mut [f32]; 2],
        ranges: &[Range<usize>],
        pool: &Pool,
        wanted: Wanted,
    ) -> PairGradients {
        struct FeedForwardGradientTask<'a> {
            range: Range<usize>,
            gate: &'a mut [f32],
            up: &'a mut [f32],
            by_middle: &'a mut [f32],
            by_context: &'a mut [f32],
        }
        let hidden = self.hidden();
        let [_, _, _, o, gate, up, down] = &self.projections;
        let tasks: Vec<_> = ranges
            .iter()
            .zip(split(&mut kept.gate, gate.output, ranges))
            .zip(split(&mut kept.up, up.output, ranges))
            .zip(split(by_middle, hidden, ranges))
            .zip(split(by_context, o.input, ranges))
            .map(
                |((((range, gate), up), by_middle), by_context)| FeedForwardGradientTask {
                    range: range.clone(),
                    gate,
                    up,
                    by_middle,
                    by_context,
                },
            )
            .collect();
        let context = kept.seen.as_ref().unwrap_or(&kept.context);
        let (given, middle, inner) = (&kept.given, &kept.middle, &kept.inner);
        let parts: Vec<PairGradients> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map_init(
                || pool.scratch(),
                |held, task| {
                    let scratch = &mut held.scratch;
                    let mut gradients = self.zeros(&[O, GATE, UP, DOWN], wanted, pool);
                    let first = task.range.start;
                    let of = |width: usize| task.range.start * width..task.range.end * width;
                    let inner = |at: usize| &inner[at][of(self.projections[at].rank())];
                    let middle = &middle[of(hidden)];
                    // The gradient by what a part gives, where that passes a norm.
                    let by_given = |part: usize, by_normed: &[f32]| {
                        let norms = self.output_norms?;
                        let mut by_given = pool.zeros(by_normed.len());
                        let given = &given[part][of(hidden)];
                        let (norm, eps) = (norms[part], self.eps);
                        rms_norm_backward(given, norm, by_normed, eps, &mut by_given, None);
                        Some(by_given)
                    };

                    let mut product = pool.take(task.gate.len());
                    gated(self.activation, task.gate, task.up, &mut product);
                    let mut by_product = pool.take(task.gate.len());
                    let by_fed = by_given(1, task.by_middle);
                    down.backward(
                        &product,
                        inner(DOWN),
                        by_fed.as_deref().unwrap_or(task.by_middle),
                        Some((&mut by_product, Store::Replace)),
                        &mut gradients[DOWN],
                        first,
                        scratch,
                    );
                    pool.give(product);
                    by_fed.into_iter().for_each(|by_fed| pool.give(by_fed));
                    gated_backward(self.activation, task.gate, task.up, &by_product);
                    pool.give(by_product);

                    let mut normed = pool.take(middle.len());
                    rms_norm(middle, self.second_norm, self.eps, &mut normed);
                    let mut by_normed = pool.take(middle.len());
                    let (by_gate, by_up) = (&*task.gate, &*task.up);
                    for (projection, at, by_y, store) in [
                        (gate, GATE, by_gate, Store::Replace),
                        (up, UP, by_up, Store::Add),
                    ] {
                        projection.backward(
                            &normed,
                            inner(at),
                            by_y,
                            Some((&mut by_normed, store)),
                            &mut gradients[at],
                            first,
                            scratch,
                        );
                    }
                    pool.give(normed);
                    rms_norm_backward(
                        middle,
                        self.second_norm,
                        &by_normed,
                        self.eps,
                        task.by_middle,
                        None,
                    );
                    pool.give(by_normed);
                    let by_attended = by_given(0, task.by_middle);
                    o.backward(
                        &context[of(o.input)],
                        inner(O),
                        by_attended.as_deref().unwrap_or(task.by_middle),
                        Some((task.by_context, Store::Replace)),
                        &mut gradients[O],
                        first,
                        scratch,
                    );
                    by_attended.into_iter().for_each(|by| pool.give(by));
                    gradients
                },
            )
            .collect();
        sum(parts, pool)
    }

    /// The backward pass from queries, keys and values to the input. Adds the gradient by the
    /// input to `by_x`.
    fn backward_before(
        &self,
        kept: &Kept,
        [by_q, by_k, by_v]: [&mut [f32]; 3],
        by_x: Option<&mut Vec<f32>>,
        rows: &Rows<'_>,
        wanted: Wanted,
    ) -> PairGradients {
        struct QkvGradientTask<'a> {
            range: Range<usize>,
            by_outputs: [&'a mut [f32]; 3],
            by_x: Option<&'a mut [f32]>,
        }
        let hidden = self.hidden();
        let [q, k, v, ..] = &self.projections;
        let ranges = rows.ranges;
        let mut by_x = by_x.map(|by_x| split(by_x, hidden, ranges).into_iter());
        let tasks: Vec<_> = ranges
            .iter()
            .zip(split(by_q, q.output, ranges))
            .zip(split(by_k, k.output, ranges))
            .zip(split(by_v, v.output, ranges))
            .map(|(((range, q), k), v)| QkvGradientTask {
                range: range.clone(),
                by_outputs: [q, k, v],
                by_x: by_x.as_mut().and_then(Iterator::next),
            })
            .collect();
        let parts: Vec<PairGradients> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map_init(
                || rows.pool.scratch(),
                |held, task| {
                    let scratch = &mut held.scratch;
                    let pool = rows.pool;
                    let mut gradients = self.zeros(&[Q, K, V], wanted, pool);
                    let of = |width: usize| task.range.start * width..task.range.end * width;
                    let x = &kept.x[of(hidden)];
                    let positions = &rows.positions[task.range.clone()];
                    let mut normed = pool.take(x.len());
                    rms_norm(x, self.first_norm, self.eps, &mut normed);
                    let mut by_normed = pool.take(if task.by_x.is_some() { x.len() } else { 0 });
                    let mut store = Store::Replace;
                    for (at, by_y) in (Q..=V).zip(task.by_outputs) {
                        let projection = &self.projections[at];
                        if let Some(tables) = self.tables.filter(|_| at != V) {
                            let (width, dim) = (projection.output, self.shape.dim);
                            rotate(by_y, width, dim, positions, tables, Turn::Back);
                        }
                        if let Some(norms) = self.qk_norms.filter(|_| at != V) {
                            let raw = &kept.raw[at][of(projection.output)];
                            let mut by_raw = pool.zeros(raw.len());
                            rms_norm_backward(raw, norms[at], by_y, self.eps, &mut by_raw, None);
                            by_y.copy_from_slice(&by_raw);
                            pool.give(by_raw);
                        }
                        let inner = &kept.inner[at][of(projection.rank())];
                        let by_x = task.by_x.is_some().then_some((&mut by_normed[..], store));
                        let gradient = &mut gradients[at];
                        let first = task.range.start;
                        projection.backward(&normed, inner, by_y, by_x, gradient, first, scratch);
                        store = Store::Add;
                    }
                    if let Some(by_x) = task.by_x {
                        rms_norm_backward(x, self.first_norm, &by_normed, self.eps, by_x, None);
                    }
                    pool.give(normed);
                    pool.give(by_normed);
                    gradients
                },
            )
            .collect();
        sum(parts, rows.pool)
    }

    fn zeros(&self, which: &[usize], wanted: Wanted, pool: &Pool) -> PairGradients {
        std::array::from_fn(|at| {
            let projection = &self.projections[at];
            let rank = projection.rank();
            if rank == 0 || !which.contains(&at) {
                return PairGradient::default();
            }
            PairGradient {
                a: wanted.a.then(|| pool.zeros(rank * projection.input)),
                b: wanted.b.then(|| pool.zeros(rank * projection.output)),
            }
        })
    }
}
