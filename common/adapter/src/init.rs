//! The first adapter of a run, the same for whoever computes it.

use super::config::{Factor, LoraConfig, ProjectionTensor};
use super::layout::Layout;
use super::values::{Adapter, AdapterError, check_layout};

impl Adapter {
    /// A fresh adapter: A uniform in +-1/sqrt(in), which is PEFT's
    /// `kaiming_uniform_(a = sqrt(5))` of a [rank, in] matrix; B zero, so that the adapter
    /// changes nothing yet.
    ///
    /// The values are BLAKE3's extendable output keyed by `seed` and each tensor's name:
    /// members and aggregator, on whatever machine, get the same bits.
    ///
    /// # Errors
    /// [`AdapterError`] where `layout` is not one of adapters of `config`.
    pub fn initial(config: LoraConfig, layout: Layout, seed: u64) -> Result<Self, AdapterError> {
        check_layout(&config, &layout)?;
        let mut values = vec![0.0; layout.len()];
        for (tensor, range) in layout.iter() {
            let is_a = ProjectionTensor::parse(&tensor.name)
                .is_some_and(|projection| projection.factor == Factor::A);
            if is_a {
                fill_uniform(&mut values[range], seed, &tensor.name, tensor.shape[1]);
            }
        }
        Self::new(config, layout, values)
    }
}

fn fill_uniform(values: &mut [f32], seed: u64, name: &str, fan_in: usize) {
    let bound = 1.0 / (fan_in as f64).sqrt();
    let mut hasher = blake3::Hasher::new_derive_key("fedlora 1 initial adapter");
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut stream = hasher.finalize_xof();
    let mut word = [0; 4];
    for value in values {
        stream.fill(&mut word);
        let uniform = f64::from(u32::from_le_bytes(word)) / f64::from(u32::MAX);
        *value = ((2.0 * uniform - 1.0) * bound) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Target, TensorSpec};

    fn layout() -> Layout {
        let name = |factor| {
            ProjectionTensor {
                layer: 0,
                target: Target::Q,
                factor,
            }
            .name()
        };
        Layout::new(vec![
            TensorSpec {
                name: name(Factor::A),
                shape: vec![4, 100],
            },
            TensorSpec {
                name: name(Factor::B),
                shape: vec![50, 4],
            },
        ])
        .unwrap()
    }

    #[test]
    fn a_fills_its_bounds_evenly_and_b_is_zero() {
        let config = LoraConfig::new(4, 8.0, 0.0, [Target::Q]).unwrap();
        let adapter = Adapter::initial(config.clone(), layout(), 7).unwrap();
        let (a, b) = adapter.values().split_at(400);
        assert!(a.iter().all(|x| x.abs() <= 0.1));
        assert!(a.iter().any(|x| *x > 0.08) && a.iter().any(|x| *x < -0.08));
        let variance = a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 400.0;
        assert!((variance - 0.01 / 3.0).abs() < 0.0006, "{variance}");
        assert!(b.iter().all(|x| *x == 0.0));
        let again = Adapter::initial(config.clone(), layout(), 7).unwrap();
        assert_eq!(adapter.digest(), again.digest());
        let other = Adapter::initial(config, layout(), 8).unwrap();
        assert_ne!(adapter.digest(), other.digest());
    }

    /// As another member may claim it.
    #[test]
    fn a_layout_that_is_no_adapters_is_refused() {
        let config = LoraConfig::new(2, 4.0, 0.0, [Target::Q]).unwrap();
        let mut tensors = layout().tensors().to_vec();
        tensors[0].shape = vec![8];
        let refused = Adapter::initial(config, Layout::new(tensors).unwrap(), 1);
        assert!(matches!(refused, Err(AdapterError::NotMatrix { .. })));
    }
}
