//! Two adapters as one, exactly: its rank is the sum of both.

use super::config::{Factor, LoraConfig, ProjectionTensor};
use super::layout::Layout;
use super::values::{Adapter, AdapterError};

impl Adapter {
    /// The adapter whose change of the model's weights is `share` (0 to 1) of what `other` makes, and
    /// for the rest what this one makes, exactly: `(1 - share) s B A + share s' B' A'`. Its rank is the
    /// sum of both, which averaging the factors would avoid and get wrong, as the average of products
    /// is no product of averages. PEFT calls it `add_weighted_adapter` with `cat`.
    ///
    /// # Errors
    /// [`AdapterError::OtherAdapter`] where the two adapt other projections, of another size, or
    /// have too high a rank together; [`AdapterError::NotFinite`].
    pub fn average(&self, other: &Adapter, share: f64) -> Result<Adapter, AdapterError> {
        self.joined(other, |_| Some((1.0 - share, share)))
    }

    /// The adapter that changes the model's weights by what this one does and, on each adapted
    /// projection, by a multiple of what `other` does: `s B A + w s' B' A'`, with one of `weights` for
    /// each projection in the layout's order. Its rank is the sum of both.
    ///
    /// # Errors
    /// As [`average`](Self::average), also for another number of weights than of projections.
    pub fn beside(&self, other: &Adapter, weights: &[f32]) -> Result<Adapter, AdapterError> {
        if weights.len() != self.projections() {
            return Err(AdapterError::OtherAdapter);
        }
        self.joined(other, |projection| {
            Some((1.0, f64::from(*weights.get(projection)?)))
        })
    }

    /// How many projections it adapts.
    pub fn projections(&self) -> usize {
        self.layout().tensors().len() / 2
    }

    /// The adapter that makes the sum of both changes, on each projection in the layout's order
    /// multiplied by the two weights.
    fn joined(
        &self,
        other: &Adapter,
        weights: impl Fn(usize) -> Option<(f64, f64)>,
    ) -> Result<Adapter, AdapterError> {
        let (own, others) = (self.config(), other.config());
        let rank = own.rank() + others.rank();
        // The sum has this one's scale: only the other's B is brought to it.
        let config = LoraConfig::new(
            rank,
            own.scale() * rank as f64,
            own.dropout(),
            own.targets().iter().copied(),
        );
        let config = config.map_err(|_| AdapterError::OtherAdapter)?;
        let scale = others.scale() / own.scale();
        let mut specs = Vec::with_capacity(self.layout().tensors().len());
        let mut values = Vec::with_capacity(self.values().len() + other.values().len());
        let pairs = self.layout().iter().zip(other.layout().iter());
        for (tensor_number, ((spec, place), (others_spec, others_place))) in pairs.enumerate() {
            let same = spec.name == others_spec.name;
            let tensor = ProjectionTensor::parse(&spec.name).filter(|_| same);
            let (tensor, &[rows, columns], &[others_rows, others_columns]) =
                (tensor, &spec.shape[..], &others_spec.shape[..])
            else {
                return Err(AdapterError::OtherAdapter);
            };
            let (ours, theirs) = (&self.values()[place], &other.values()[others_place]);
            let mut spec = spec.clone();
            match tensor.map(|tensor| tensor.factor) {
                Some(Factor::A) if columns == others_columns => {
                    spec.shape = vec![rank, columns];
                    values.extend_from_slice(ours);
                    values.extend_from_slice(theirs);
                }
                Some(Factor::B) if rows == others_rows => {
                    let weights = weights(tensor_number / 2).ok_or(AdapterError::OtherAdapter)?;
                    let weights = (weights.0, weights.1 * scale);
                    spec.shape = vec![rows, rank];
                    let weighted = |weight| move |value: &f32| (weight * f64::from(*value)) as f32;
                    let rows = ours.chunks(columns).zip(theirs.chunks(others_columns));
                    for (ours, theirs) in rows {
                        values.extend(ours.iter().map(weighted(weights.0)));
                        values.extend(theirs.iter().map(weighted(weights.1)));
                    }
                }
                _ => return Err(AdapterError::OtherAdapter),
            }
            specs.push(spec);
        }
        let layout = Layout::new(specs).map_err(|_| AdapterError::OtherAdapter)?;
        // Tensors that only one of them has show as a layout that is no adapter's, or here.
        if values.len() != self.values().len() + other.values().len() {
            return Err(AdapterError::OtherAdapter);
        }
        Adapter::new(config, layout, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    /// Numbers that differ from place to place, on two projections of one block.
    fn adapter(rank: usize, alpha: f64, seed: u64, targets: &[Target]) -> Adapter {
        let config = LoraConfig::new(rank, alpha, 0.1, targets.iter().copied()).unwrap();
        let layout = Adapter::layout_for(&config, 1, |_, target| match target {
            Target::Q => (5, 4),
            _ => (5, 3),
        });
        let layout = layout.unwrap();
        let value = |place: usize| ((place as f64 + 1.0) * (seed as f64 + 0.7)).sin() as f32;
        let values = (0..layout.len()).map(value).collect();
        Adapter::new(config, layout, values).unwrap()
    }

    /// The changes `s B A` of the weights, one `[out, in]` after the other.
    fn changes(adapter: &Adapter) -> Vec<f64> {
        let tensors: Vec<_> = adapter.layout().iter().collect();
        let mut all = Vec::new();
        for pair in tensors.chunks(2) {
            let [(a, a_place), (b, b_place)] = pair else {
                panic!("A without B")
            };
            let (a_values, b_values) = (
                &adapter.values()[a_place.clone()],
                &adapter.values()[b_place.clone()],
            );
            let (rank, inputs, outputs) = (a.shape[0], a.shape[1], b.shape[0]);
            for row in 0..outputs {
                for column in 0..inputs {
                    let terms = (0..rank).map(|at| {
                        f64::from(b_values[row * rank + at])
                            * f64::from(a_values[at * inputs + column])
                    });
                    all.push(adapter.config().scale() * terms.sum::<f64>());
                }
            }
        }
        all
    }

    #[test]
    fn the_change_is_the_average_of_both_changes() {
        let one = adapter(2, 4.0, 1, &[Target::Q, Target::V]);
        let other = adapter(3, 12.0, 2, &[Target::Q, Target::V]);
        for share in [0.0, 0.25, 0.5, 1.0] {
            let both = one.average(&other, share).unwrap();
            assert_eq!(both.config().rank(), 5);
            assert_eq!(both.config().scale(), one.config().scale());
            let expected = changes(&one).into_iter().zip(changes(&other));
            for (got, (one, other)) in changes(&both).into_iter().zip(expected) {
                let expected = (1.0 - share) * one + share * other;
                assert!((got - expected).abs() < 1e-6, "{got} for {expected}");
            }
        }
    }

    #[test]
    fn beside_another_each_projection_has_its_weight() {
        let one = adapter(2, 4.0, 1, &[Target::Q, Target::V]);
        let other = adapter(2, 4.0, 2, &[Target::Q, Target::V]);
        let weights = [0.5, -2.0];
        let both = one.beside(&other, &weights).unwrap();
        assert_eq!((both.config().rank(), one.projections()), (4, 2));
        let (ones, others) = (changes(&one), changes(&other));
        // Q is 5 to 4, V 5 to 3.
        for (place, got) in changes(&both).into_iter().enumerate() {
            let weight = f64::from(weights[usize::from(place >= 20)]);
            let expected = ones[place] + weight * others[place];
            assert!((got - expected).abs() < 1e-6, "{place}: {got}");
        }
        for wrong in [&weights[..1], &[0.0; 3]] {
            assert_eq!(one.beside(&other, wrong), Err(AdapterError::OtherAdapter));
        }
    }

    #[test]
    fn adapters_of_different_projections_are_refused() {
        let one = adapter(2, 4.0, 1, &[Target::Q, Target::V]);
        for other in [
            adapter(2, 4.0, 1, &[Target::Q]),
            adapter(2, 4.0, 1, &[Target::Q, Target::K]),
            adapter(2, 4.0, 1, &[Target::Q, Target::K, Target::V]),
            adapter(255, 4.0, 1, &[Target::Q, Target::V]),
        ] {
            assert_eq!(one.average(&other, 0.5), Err(AdapterError::OtherAdapter));
            assert_eq!(other.average(&one, 0.5), Err(AdapterError::OtherAdapter));
        }
    }
}
