//! The core of an adapter: a square matrix between two fixed bases, all that travels where a plan says
//! so. `B = B' + E R` with E `[out, rank]`, which has orthonormal columns, and R `[rank, rank]`; A and
//! E stay as they are. As in LoRA-XS (Bałazy et al., arXiv:2405.17604) and Fed-SB (Singhal et al.,
//! arXiv:2502.15436), but for the bases: those come from a member's weights or gradients, and these
//! from the plan's seed, so that an aggregator without the model can apply a step.
//!
//! E follows from A, which follows from the seed: nobody sends or keeps it. A change of R moves B by
//! a matrix of the same Frobenius norm, since E's columns are orthonormal.

use std::ops::Range;

use super::config::{Factor, ProjectionTensor};
use super::layout::{Layout, LayoutError, TensorSpec};
use super::values::{Adapter, AdapterError};

/// How often columns are made orthogonal: twice is enough (Giraud et al., 2005).
const PASSES: usize = 2;

/// The core tensor of a projection, by its B's name.
fn core_name(outer: &str) -> Option<String> {
    let tensor = ProjectionTensor::parse(outer).filter(|tensor| tensor.factor == Factor::B)?;
    Some(tensor.name().replace("lora_B", "lora_core"))
}

impl Layout {
    /// The layout of an adapter's cores: for each projection one of `[rank, rank]`, in the same order.
    ///
    /// # Errors
    /// [`LayoutError::Core`] for a projection with fewer outputs than the rank;
    /// [`LayoutError::TensorCount`] for a layout that is not an adapter's.
    pub(super) fn cores(&self) -> Result<Layout, LayoutError> {
        let mut cores = Vec::new();
        for spec in self.tensors() {
            let (Some(name), &[outputs, rank]) = (core_name(&spec.name), &spec.shape[..]) else {
                continue;
            };
            if outputs < rank {
                let name = spec.name.clone();
                return Err(LayoutError::Core {
                    name,
                    outputs,
                    rank,
                });
            }
            let shape = vec![rank, rank];
            cores.push(TensorSpec { name, shape });
        }
        Layout::new(cores)
    }
}

/// One projection's B and what its core is relative to.
struct Place {
    outer: Range<usize>,
    rank: usize,
    /// E, `[out, rank]` row by row.
    basis: Vec<f64>,
}

impl Adapter {
    /// E of each projection, `[out, rank]` row by row, in the layout's order.
    ///
    /// # Errors
    /// A projection with fewer outputs than the rank.
    pub fn core_bases(&self) -> Result<Vec<Vec<f32>>, AdapterError> {
        let places = self.core_places()?.into_iter();
        let rounded = |basis: Vec<f64>| basis.into_iter().map(|value| value as f32).collect();
        Ok(places.map(|place| rounded(place.basis)).collect())
    }

    /// R of each projection, `E^T B`, end to end.
    pub(super) fn cores(&self) -> Result<Vec<f32>, AdapterError> {
        let mut cores = Vec::new();
        for Place { outer, rank, basis } in self.core_places()? {
            let start = cores.len();
            let mut sums = vec![0.0; rank * rank];
            let rows = basis.chunks(rank).zip(self.values()[outer].chunks(rank));
            for (of_basis, of_outer) in rows {
                for (sums, e) in sums.chunks_mut(rank).zip(of_basis) {
                    for (sum, b) in sums.iter_mut().zip(of_outer) {
                        *sum += e * f64::from(*b);
                    }
                }
            }
            cores.extend(sums.into_iter().map(|sum| sum as f32));
            debug_assert_eq!(cores.len() - start, rank * rank);
        }
        Ok(cores)
    }

    /// The values after a change of all cores: `B + E dR`.
    pub(super) fn with_cores_moved(&self, change: &[f32]) -> Result<Vec<f32>, AdapterError> {
        let mut values = self.values().to_vec();
        let mut start = 0;
        for Place { outer, rank, basis } in self.core_places()? {
            let change = &change[start..start + rank * rank];
            start += rank * rank;
            let rows = basis.chunks(rank).zip(values[outer].chunks_mut(rank));
            for (of_basis, of_outer) in rows {
                for (column, b) in of_outer.iter_mut().enumerate() {
                    let terms = of_basis
                        .iter()
                        .zip(change.iter().skip(column).step_by(rank));
                    let moved: f64 = terms.map(|(e, change)| e * f64::from(*change)).sum();
                    *b = (f64::from(*b) + moved) as f32;
                }
            }
        }
        Ok(values)
    }

    fn core_places(&self) -> Result<Vec<Place>, AdapterError> {
        // Refuses what has no cores.
        self.layout().cores()?;
        let tensors: Vec<_> = self.layout().iter().collect();
        let places = tensors.chunks(2).filter_map(|pair| {
            let [(_, inner), (outer_spec, outer)] = pair else {
                return None;
            };
            let &[outputs, rank] = &outer_spec.shape[..] else {
                return None;
            };
            Some(Place {
                basis: basis(
                    &self.values()[inner.clone()],
                    &outer_spec.name,
                    outputs,
                    rank,
                ),
                outer: outer.clone(),
                rank,
            })
        });
        Ok(places.collect())
    }
}

/// `outputs` to `rank` numbers with orthonormal columns, row by row: uniform ones of BLAKE3's
/// extendable output, keyed by A and the name of B, made orthonormal by modified Gram-Schmidt. The
/// same bits on every machine: additions, multiplications, divisions and roots in one order.
fn basis(inner: &[f32], name: &str, outputs: usize, rank: usize) -> Vec<f64> {
    let mut hasher = blake3::Hasher::new_derive_key("fedlora 1 core basis");
    hasher.update(name.as_bytes());
    hasher.update(&fedlora_common::bytes::f32_as_le(inner));
    let mut stream = hasher.finalize_xof();
    let mut words = vec![0; 4 * outputs];
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(rank);
    while columns.len() < rank {
        // Whole columns: each call computes a block of the stream anew.
        stream.fill(&mut words);
        let uniform =
            |word: &[u8; 4]| f64::from(u32::from_le_bytes(*word)) / f64::from(u32::MAX) - 0.5;
        let mut column: Vec<f64> = words.as_chunks().0.iter().map(uniform).collect();
        let before = norm(&column);
        for _ in 0..PASSES {
            for other in &columns {
                let along = dot(&column, other);
                for (value, other) in column.iter_mut().zip(other) {
                    *value -= along * other;
                }
            }
        }
        let left = norm(&column);
        // Drawn again where it hardly leaves the span of the others.
        if left > 1e-6 * before {
            column.iter_mut().for_each(|value| *value /= left);
            columns.push(column);
        }
    }
    (0..outputs)
        .flat_map(|row| columns.iter().map(move |column| column[row]))
        .collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factors, LoraConfig, Target};

    fn adapter(seed: u64, rank: usize) -> Adapter {
        let config = LoraConfig::new(rank, 4.0, 0.0, [Target::Q, Target::V]).unwrap();
        let layout = Adapter::layout_for(&config, 2, |_, target| match target {
            Target::Q => (5, 9),
            _ => (5, 4),
        });
        Adapter::initial(config, layout.unwrap(), seed).unwrap()
    }

    fn change(length: usize) -> Vec<f32> {
        (0..length)
            .map(|place| (place as f32 * 0.7).sin())
            .collect()
    }

    #[test]
    fn bases_are_orthonormal_and_follow_from_the_seed() {
        let (one, rank) = (adapter(1, 3), 3);
        let bases = one.core_bases().unwrap();
        assert_eq!(bases.len(), 4);
        for basis in &bases {
            for column in 0..rank {
                for other in 0..rank {
                    let rows = basis.chunks(rank);
                    let product: f32 = rows.map(|row| row[column] * row[other]).sum();
                    let expected = if column == other { 1.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-6, "{product}");
                }
            }
        }
        assert_eq!(bases, adapter(1, 3).core_bases().unwrap());
        assert_ne!(bases, adapter(2, 3).core_bases().unwrap());
        // Of two projections of one shape as well.
        assert_ne!(bases[0], bases[2]);
        // Training moves B, and leaves the bases.
        let mut moved = one.clone();
        let part = one.layout().subset(Factors::Core).unwrap();
        moved.add(&part, &change(part.len())).unwrap();
        assert_eq!(moved.core_bases().unwrap(), bases);
    }

    /// As the Python package blake3 1.0.11 and the formula give it: different builds must agree.
    #[test]
    fn the_basis_is_known() {
        let basis = basis(&[0.5, -1.0], "a", 2, 2);
        let expected = [
            0.9763755759074182,
            0.21608038960409498,
            0.21608038960409498,
            -0.9763755759074183,
        ];
        for (got, want) in basis.iter().zip(expected) {
            assert!((got - want).abs() < 1e-12, "{basis:?}");
        }
    }

    #[test]
    fn a_change_of_cores_moves_b_alone_by_the_same_norm() {
        let mut one = adapter(1, 3);
        let part = one.layout().subset(Factors::Core).unwrap();
        assert_eq!(part.len(), 4 * 9);
        let before = one.clone();
        for _ in 0..3 {
            let held = one.clone();
            one.add(&part, &change(part.len())).unwrap();
            let delta = one.difference(&held, &part).unwrap();
            for (got, want) in delta.values().iter().zip(change(part.len())) {
                assert!((got - want).abs() < 1e-5, "{got} for {want}");
            }
            let outer = one.layout().subset(Factors::B).unwrap();
            let moved = one.difference(&held, &outer).unwrap();
            assert!((moved.norm() - delta.norm()).abs() < 1e-5);
        }
        let thrice: Vec<f32> = change(part.len()).iter().map(|value| 3.0 * value).collect();
        for (got, want) in one.select(&part).unwrap().iter().zip(thrice) {
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
        let inner = one.layout().subset(Factors::A).unwrap();
        assert_eq!(one.select(&inner).unwrap(), before.select(&inner).unwrap());
        assert!(one.add(&part, &[0.0]).is_err());
        let mut infinite = change(part.len());
        infinite[1] = f32::INFINITY;
        let held = one.clone();
        assert!(one.add(&part, &infinite).is_err());
        assert_eq!(one, held);
    }

    #[test]
    fn more_rank_than_outputs_has_no_core() {
        let layout = adapter(1, 5).layout().clone();
        let error = layout.subset(Factors::Core).unwrap_err();
        assert!(error.to_string().contains("v_proj"), "{error}");
        assert!(layout.subset(Factors::B).is_ok());
    }
}
