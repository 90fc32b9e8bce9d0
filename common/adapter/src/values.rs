//! An adapter's values: A and B of every adapted projection, flat, in one fixed order.

use std::borrow::Cow;
use std::fmt;

use super::config::{Factor, Factors, LoraConfig, ProjectionTensor, Target};
use super::delta::{Delta, DeltaError};
use super::layout::{Layout, LayoutError, TensorSpec};
use fedlora_common::bytes::f32_as_le;
use fedlora_common::digest::{Digest, DigestWriter};

/// A whole adapter. Its layout goes block by block, projection by projection (q k v o gate
/// up down), A before B. `Debug` shows no value.
#[derive(Clone, PartialEq)]
pub struct Adapter {
    config: LoraConfig,
    layout: Layout,
    values: Vec<f32>,
}

impl Adapter {
    /// Takes `values` in the order of `layout`, which must be a full adapter's layout for
    /// `config`; every value must be finite.
    pub fn new(config: LoraConfig, layout: Layout, values: Vec<f32>) -> Result<Self, AdapterError> {
        check_layout(&config, &layout)?;
        if values.len() != layout.len() {
            return Err(AdapterError::Length {
                got: values.len(),
                expected: layout.len(),
            });
        }
        check_finite(&layout, &values)?;
        Ok(Self {
            config,
            layout,
            values,
        })
    }

    /// The layout of a full adapter on a model of `layers` blocks, where `dims` gives each
    /// projection's (in, out) features.
    pub fn layout_for(
        config: &LoraConfig,
        layers: usize,
        dims: impl Fn(usize, Target) -> (usize, usize),
    ) -> Result<Layout, LayoutError> {
        let mut tensors = Vec::with_capacity(layers * config.targets().len() * 2);
        for layer in 0..layers {
            for &target in config.targets() {
                let (input, output) = dims(layer, target);
                let mut push = |factor, shape| {
                    let name = ProjectionTensor {
                        layer,
                        target,
                        factor,
                    }
                    .name();
                    tensors.push(TensorSpec { name, shape });
                };
                push(Factor::A, vec![config.rank(), input]);
                push(Factor::B, vec![output, config.rank()]);
            }
        }
        Layout::new(tensors)
    }

    /// Rank, scale, dropout and targets.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The layout of all its tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All values, in the layout's order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values as little-endian bytes, as they travel.
    pub fn values_le(&self) -> Cow<'_, [u8]> {
        f32_as_le(&self.values)
    }

    /// The values of the tensors in `part`, in its order.
    pub fn select(&self, part: &Layout) -> Result<Vec<f32>, AdapterError> {
        if self.is_core(part) {
            return self.cores();
        }
        let mut selected = Vec::with_capacity(part.len());
        for range in self.places(part)? {
            selected.extend_from_slice(&self.values[range]);
        }
        Ok(selected)
    }

    /// Adds `change`, in the order of `part`, to the tensors in `part`. Leaves the adapter
    /// as it was where the result would not be finite.
    pub fn add(&mut self, part: &Layout, change: &[f32]) -> Result<(), AdapterError> {
        if change.len() != part.len() {
            return Err(AdapterError::Length {
                got: change.len(),
                expected: part.len(),
            });
        }
        if self.is_core(part) {
            let values = self.with_cores_moved(change)?;
            check_finite(&self.layout, &values)?;
            self.values = values;
            return Ok(());
        }
        let places = self.places(part)?;
        // Twice over, in place of a copy: an adapter can be large.
        let mut rest = change.iter().enumerate();
        for range in &places {
            for (value, (at, change)) in self.values[range.clone()].iter().zip(&mut rest) {
                if !(value + change).is_finite() {
                    return Err(not_finite(part, at));
                }
            }
        }
        let mut rest = change.iter();
        for range in places {
            for (value, change) in self.values[range].iter_mut().zip(&mut rest) {
                *value += change;
            }
        }
        Ok(())
    }

    /// This adapter with `change` added as [`add`](Self::add) does. A change of all tensors becomes the
    /// new adapter's values: an adapter can be large, and there is no third one for a moment.
    pub fn with_added(&self, part: &Layout, mut change: Vec<f32>) -> Result<Self, AdapterError> {
        if *part != self.layout {
            let mut moved = self.clone();
            moved.add(part, &change)?;
            return Ok(moved);
        }
        for (change, value) in change.iter_mut().zip(&self.values) {
            *change += value;
        }
        Self::new(self.config.clone(), self.layout.clone(), change)
    }

    /// This adapter minus `base`, over the tensors in `part`.
    pub fn difference(&self, base: &Adapter, part: &Layout) -> Result<Delta, AdapterError> {
        if self.layout != base.layout || self.config != base.config {
            return Err(AdapterError::OtherAdapter);
        }
        let mut values = self.select(part)?;
        for (value, base) in values.iter_mut().zip(base.select(part)?) {
            *value -= base;
        }
        Ok(Delta::new(part, values)?)
    }

    /// This adapter, moved by a `part` of the way to `other`: `x + part (y - x)` in `f64` for each
    /// value, rounded once. Values that both have stay to the bit.
    pub fn moved_towards(&self, other: &Adapter, part: f64) -> Result<Self, AdapterError> {
        if self.layout != other.layout || self.config != other.config {
            return Err(AdapterError::OtherAdapter);
        }
        let pairs = self.values.iter().zip(&other.values);
        let moved = pairs.map(|(&own, &other)| {
            if own.to_bits() == other.to_bits() {
                return own;
            }
            let (own, other) = (f64::from(own), f64::from(other));
            (own + part * (other - own)) as f32
        });
        let (config, layout) = (self.config.clone(), self.layout.clone());
        Self::new(config, layout, moved.collect())
    }

    /// A digest of configuration, layout and values (as little-endian `f32`).
    pub fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new(match self.config.is_rank_stabilised() {
            false => "fedlora adapter v1",
            true => "fedlora adapter v1, rank-stabilised",
        });
        writer.number(self.config.rank() as u64);
        writer.number(self.config.alpha().to_bits());
        writer.number(self.config.dropout().to_bits());
        writer.number(self.config.targets().len() as u64);
        for target in self.config.targets() {
            writer.bytes(target.module().as_bytes());
        }
        writer.digest(&self.layout.digest());
        writer.number(self.values.len() as u64);
        writer.raw(&f32_as_le(&self.values));
        writer.finish()
    }

    /// Whether `part` is this adapter's cores.
    fn is_core(&self, part: &Layout) -> bool {
        let first = part.tensors().first();
        // Told by the name first: a layout is made from all tensors.
        first.is_some_and(|spec| spec.name.ends_with(".lora_core.weight"))
            && self.layout.subset(Factors::Core).as_ref() == Ok(part)
    }

    /// Where the tensors of `part` lie in `self.values`.
    fn places(&self, part: &Layout) -> Result<Vec<std::ops::Range<usize>>, AdapterError> {
        let own: std::collections::HashMap<_, _> = self
            .layout
            .iter()
            .map(|(spec, range)| (spec.name.as_str(), (spec, range)))
            .collect();
        part.tensors()
            .iter()
            .map(|wanted| match own.get(wanted.name.as_str()) {
                Some((spec, range)) if spec.shape == wanted.shape => Ok(range.clone()),
                Some((spec, _)) => Err(AdapterError::Shape {
                    name: wanted.name.clone(),
                    got: spec.shape.clone(),
                    expected: wanted.shape.clone(),
                }),
                None => Err(AdapterError::Missing {
                    name: wanted.name.clone(),
                }),
            })
            .collect()
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter")
            .field("config", &self.config)
            .field("tensors", &self.layout.tensors().len())
            .field("values", &self.values.len())
            .finish()
    }
}

/// A layout is an adapter's when it is exactly the one that its own dimensions give.
pub(super) fn check_layout(config: &LoraConfig, layout: &Layout) -> Result<(), AdapterError> {
    let mut dims = std::collections::HashMap::new();
    let mut layers = 0;
    for spec in layout.tensors() {
        let Some(tensor) = ProjectionTensor::parse(&spec.name) else {
            return Err(AdapterError::Unknown {
                name: spec.name.clone(),
            });
        };
        let &[outer, inner] = spec.shape.as_slice() else {
            return Err(AdapterError::NotMatrix {
                name: spec.name.clone(),
                got: spec.shape.clone(),
            });
        };
        let (features, rank) = match tensor.factor {
            Factor::A => (inner, outer),
            Factor::B => (outer, inner),
        };
        if rank != config.rank() {
            return Err(AdapterError::Rank {
                name: spec.name.clone(),
                got: rank,
                expected: config.rank(),
            });
        }
        layers = layers.max(tensor.layer.saturating_add(1));
        dims.insert(tensor, features);
    }
    // Also bounds the loop below: a layer number without its tensors is found at once.
    if layers > layout.tensors().len() {
        return Err(AdapterError::Gap { layers });
    }
    let mut specs = layout.tensors().iter();
    for layer in 0..layers {
        for &target in config.targets() {
            for factor in [Factor::A, Factor::B] {
                let expected = ProjectionTensor {
                    layer,
                    target,
                    factor,
                };
                if !dims.contains_key(&expected) {
                    return Err(AdapterError::Missing {
                        name: expected.name(),
                    });
                }
                let found = specs.next();
                if found.and_then(|spec| ProjectionTensor::parse(&spec.name)) != Some(expected) {
                    return Err(AdapterError::Order {
                        name: expected.name(),
                    });
                }
            }
        }
    }
    match specs.next() {
        Some(spec) => Err(AdapterError::Unknown {
            name: spec.name.clone(),
        }),
        None => Ok(()),
    }
}

fn check_finite(layout: &Layout, values: &[f32]) -> Result<(), AdapterError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(not_finite(layout, at)),
    }
}

fn not_finite(layout: &Layout, at: usize) -> AdapterError {
    let (tensor, index) = layout
        .locate(at)
        .map(|(spec, index)| (spec.name.clone(), index))
        .unwrap_or_default();
    AdapterError::NotFinite { tensor, index }
}

/// Why values or a layout are not an adapter, or do not fit this one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdapterError {
    /// Another number of values than the layout has elements.
    #[error("{got} values for a layout of {expected} elements")]
    Length {
        /// The number of values given.
        got: usize,
        /// The number of elements in the layout.
        expected: usize,
    },
    /// A value that is NaN or infinite.
    #[error("tensor '{tensor}' is not finite at element {index}")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The element within the tensor, in row-major order.
        index: usize,
    },
    /// A tensor that an adapter of this configuration does not have.
    #[error("tensor '{name}' does not belong to an adapter with these targets")]
    Unknown {
        /// The tensor's name.
        name: String,
    },
    /// A tensor that the adapter lacks.
    #[error("tensor '{name}' is missing")]
    Missing {
        /// The tensor's name.
        name: String,
    },
    /// Block numbers with gaps.
    #[error("the adapter names block {} but lacks tensors of blocks before it", layers - 1)]
    Gap {
        /// Blocks that the names call for.
        layers: usize,
    },
    /// A tensor out of its place.
    #[error(
        "tensor '{name}' is out of order: blocks rise, targets go q k v o gate up down, A before B"
    )]
    Order {
        /// The tensor expected there.
        name: String,
    },
    /// A tensor that does not have two dimensions.
    #[error("tensor '{name}' has shape {got:?}: a LoRA factor has two dimensions")]
    NotMatrix {
        /// The tensor's name.
        name: String,
        /// The tensor's shape.
        got: Vec<usize>,
    },
    /// A rank other than the configured one.
    #[error("tensor '{name}' has rank {got}, the configuration says {expected}")]
    Rank {
        /// The tensor's name.
        name: String,
        /// The tensor's rank.
        got: usize,
        /// The rank in the configuration.
        expected: usize,
    },
    /// A tensor with another shape than asked for.
    #[error("tensor '{name}' has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The tensor's shape in this adapter.
        got: Vec<usize>,
        /// The shape asked for.
        expected: Vec<usize>,
    },
    /// Two adapters of different configuration or layout.
    #[error("the two adapters differ in configuration or layout")]
    OtherAdapter,
    /// The difference is not a valid delta.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// The tensors form no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig::new(2, 4.0, 0.0, [Target::V, Target::Q]).unwrap()
    }

    fn layout() -> Layout {
        Adapter::layout_for(&config(), 2, |_, target| match target {
            Target::V => (3, 5),
            _ => (3, 4),
        })
        .unwrap()
    }

    fn adapter() -> Adapter {
        let values = (0..layout().len()).map(|i| i as f32).collect();
        Adapter::new(config(), layout(), values).unwrap()
    }

    #[test]
    fn add_of_a_difference_gives_the_other_back() {
        for factors in [Factors::A, Factors::B, Factors::Both] {
            let part = layout().subset(factors).unwrap();
            let mut other = adapter();
            other.add(&part, &vec![0.5; part.len()]).unwrap();
            let delta = other.difference(&adapter(), &part).unwrap();
            assert!(delta.values().iter().all(|&v| v == 0.5));
            let mut again = adapter();
            again.add(&part, delta.values()).unwrap();
            assert_eq!(again, other);
            assert_ne!(again.digest(), adapter().digest());
        }
    }

    #[test]
    fn part_of_the_way_to_another_is_between_and_what_is_equal_stays() {
        let (one, mut other) = (adapter(), adapter());
        other.values[1] = one.values[1] + 1.0;
        other.values[2] = -0.0;
        let mut begin = one.clone();
        begin.values[2] = -0.0;
        let moved = begin.moved_towards(&other, 0.25).unwrap();
        assert_eq!(moved.values[0], one.values[0]);
        assert_eq!(moved.values[1], one.values[1] + 0.25);
        assert_eq!(moved.values[2].to_bits(), (-0.0_f32).to_bits());
        let dropout = LoraConfig::new(2, 4.0, 0.5, [Target::V, Target::Q]).unwrap();
        let strange = Adapter::new(dropout, one.layout.clone(), one.values.clone()).unwrap();
        let refused = one.moved_towards(&strange, 0.25);
        assert_eq!(refused, Err(AdapterError::OtherAdapter));
    }

    #[test]
    fn add_refuses_and_leaves_the_adapter_alone() {
        let part = layout().subset(Factors::B).unwrap();
        let mut changed = adapter();
        let mut change = vec![1.0; part.len()];
        change[3] = f32::INFINITY;
        assert!(changed.add(&part, &change).is_err());
        assert!(changed.add(&part, &[1.0]).is_err());
        assert_eq!(changed, adapter());
    }

    #[test]
    fn an_adapter_with_a_change_added_is_the_one_that_it_is_added_to() {
        for factors in [Factors::Both, Factors::A, Factors::B] {
            let part = layout().subset(factors).unwrap();
            let change: Vec<f32> = (0..part.len()).map(|i| 0.3 * i as f32).collect();
            let mut changed = adapter();
            changed.add(&part, &change).unwrap();
            assert_eq!(adapter().with_added(&part, change.clone()), Ok(changed));
            assert!(adapter().with_added(&part, vec![1.0]).is_err());
            let mut infinite = change;
            infinite[3] = f32::INFINITY;
            assert!(adapter().with_added(&part, infinite).is_err());
        }
    }

    #[test]
    fn refuses_layouts_that_are_no_adapter() {
        let full = layout();
        let with = |edit: &dyn Fn(&mut Vec<TensorSpec>)| {
            let mut tensors = full.tensors().to_vec();
            edit(&mut tensors);
            let layout = Layout::new(tensors).unwrap();
            let values = vec![0.0; layout.len()];
            Adapter::new(config(), layout, values)
        };
        assert!(with(&|_| ()).is_ok());
        assert!(with(&|t| drop(t.pop())).is_err(), "missing");
        assert!(with(&|t| t.swap(0, 1)).is_err(), "order");
        assert!(with(&|t| t[0].name = "x".into()).is_err(), "unknown");
        assert!(with(&|t| t[0].shape = vec![3, 3]).is_err(), "rank");
        assert!(with(&|t| t[0].shape = vec![6]).is_err(), "one dimension");
        let far =
            "base_model.model.model.layers.18446744073709551615.self_attn.q_proj.lora_A.weight";
        assert!(with(&|t| t[0].name = far.into()).is_err(), "far layer");
        let other = LoraConfig::new(2, 4.0, 0.0, [Target::Q]).unwrap();
        let values = vec![0.0; full.len()];
        assert!(
            Adapter::new(other, full.clone(), values).is_err(),
            "extra target"
        );
    }

    #[test]
    fn refuses_nan_and_wrong_length() {
        let mut values = vec![0.0; layout().len()];
        values[7] = f32::NAN;
        let error = Adapter::new(config(), layout(), values).unwrap_err();
        assert!(
            matches!(error, AdapterError::NotFinite { index: 1, .. }),
            "{error}"
        );
        assert!(Adapter::new(config(), layout(), vec![0.0]).is_err());
    }
}
