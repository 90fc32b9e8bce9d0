//! The ordered list of tensors that a flat vector represents. Both ends of a transfer must
//! hold the same one; its digest says whether they do.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::config::{Factors, ProjectionTensor};
use fedlora_common::digest::{Digest, DigestWriter};

/// The most elements that one layout may hold.
const MAX_ELEMENTS: usize = 1 << 31;
/// The most tensors that one layout may hold.
const MAX_TENSORS: usize = 1 << 16;
/// The most bytes in a tensor's name.
const MAX_NAME: usize = 256;
/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// One tensor: its name and row-major shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name, as PEFT writes it.
    pub name: String,
    /// Dimensions, outermost first; none is zero.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements of the tensor; `None` where that overflows.
    fn elements(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
    }

    /// Whether the tensor is one of these factors of a projection.
    fn is_of(&self, factors: Factors) -> bool {
        ProjectionTensor::parse(&self.name).is_some_and(|tensor| factors.contains(tensor.factor))
    }
}

/// Ordered, uniquely named tensors, laid end to end in one flat `f32` vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TensorSpec>", into = "Vec<TensorSpec>")]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    elements: usize,
}

impl Layout {
    /// Checks the list: names are unique, dimensions not zero, the total at most 2^31.
    ///
    /// # Errors
    /// [`LayoutError`] with the first tensor that breaks a rule.
    pub fn new(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        if tensors.is_empty() || tensors.len() > MAX_TENSORS {
            return Err(LayoutError::TensorCount {
                got: tensors.len(),
                most: MAX_TENSORS,
            });
        }
        let mut names = HashSet::with_capacity(tensors.len());
        let mut elements = 0_usize;
        for (index, spec) in tensors.iter().enumerate() {
            if spec.name.is_empty() || spec.name.len() > MAX_NAME {
                return Err(LayoutError::Name {
                    index,
                    length: spec.name.len(),
                });
            }
            if !names.insert(spec.name.as_str()) {
                return Err(LayoutError::Duplicate {
                    name: spec.name.clone(),
                });
            }
            if spec.shape.is_empty() || spec.shape.len() > MAX_RANK || spec.shape.contains(&0) {
                return Err(LayoutError::Shape {
                    name: spec.name.clone(),
                    shape: spec.shape.iter().copied().take(MAX_RANK + 1).collect(),
                });
            }
            elements = spec
                .elements()
                .and_then(|count| elements.checked_add(count))
                .filter(|&total| total <= MAX_ELEMENTS)
                .ok_or_else(|| LayoutError::TooLarge {
                    name: spec.name.clone(),
                    most: MAX_ELEMENTS,
                })?;
        }
        Ok(Self { tensors, elements })
    }

    /// Elements of the flat vector.
    #[expect(clippy::len_without_is_empty, reason = "a layout is never empty")]
    pub fn len(&self) -> usize {
        self.elements
    }

    /// The tensors, in the order of the flat vector.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Each tensor with its place in the flat vector, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        let mut start = 0;
        self.tensors.iter().map(move |spec| {
            let end = start + spec.shape.iter().product::<usize>();
            let range = start..end;
            start = end;
            (spec, range)
        })
    }

    /// From a tensor's name to its place in the flat vector.
    pub fn ranges(&self) -> HashMap<&str, Range<usize>> {
        self.iter()
            .map(|(spec, range)| (spec.name.as_str(), range))
            .collect()
    }

    /// The tensor that element `index` belongs to, with the index inside it.
    pub fn locate(&self, index: usize) -> Option<(&TensorSpec, usize)> {
        self.iter()
            .find(|(_, range)| range.contains(&index))
            .map(|(spec, range)| (spec, index - range.start))
    }

    /// A digest of names, shapes and order.
    pub fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora adapter layout v1");
        writer.number(self.tensors.len() as u64);
        for spec in &self.tensors {
            writer.bytes(spec.name.as_bytes());
            writer.number(spec.shape.len() as u64);
            for &dim in &spec.shape {
                writer.number(dim as u64);
            }
        }
        writer.finish()
    }

    /// The tensors of the chosen factors, in the same order; or one core in place of each B. A layout
    /// that is not an adapter's is refused.
    ///
    /// # Errors
    /// [`LayoutError::TensorCount`] where no tensor is of those factors; [`LayoutError::Core`] where a
    /// projection has no core.
    pub fn subset(&self, factors: Factors) -> Result<Layout, LayoutError> {
        if factors == Factors::Core {
            return self.cores();
        }
        let chosen = self.tensors.iter().filter(|spec| spec.is_of(factors));
        Self::new(chosen.cloned().collect())
    }

    /// The places of the chosen factors' elements in the flat vector, in the order that
    /// [`Layout::subset`] lays them end to end. With the cores B changes.
    pub fn places_of(&self, factors: Factors) -> impl Iterator<Item = usize> {
        self.iter()
            .filter(move |(spec, _)| spec.is_of(factors))
            .flat_map(|(_, range)| range)
    }
}

impl TryFrom<Vec<TensorSpec>> for Layout {
    type Error = LayoutError;

    fn try_from(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        Self::new(tensors)
    }
}

impl From<Layout> for Vec<TensorSpec> {
    fn from(layout: Layout) -> Self {
        layout.tensors
    }
}

/// Why a list of tensors is not a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No tensor, or too many.
    #[error("a layout holds 1 to {most} tensors, this one {got}")]
    TensorCount {
        /// Tensors in the list.
        got: usize,
        /// The most tensors allowed.
        most: usize,
    },
    /// An empty or very long name.
    #[error("tensor {index} of the layout has a name of {length} bytes: expected 1 to 256")]
    Name {
        /// The tensor's place in the list.
        index: usize,
        /// Length of the name in bytes.
        length: usize,
    },
    /// A name that occurs twice.
    #[error("tensor '{name}' occurs twice in the layout")]
    Duplicate {
        /// The repeated name.
        name: String,
    },
    /// No dimensions, too many, or one that is zero.
    #[error("tensor '{name}' has shape {shape:?}: expected 1 to 8 dimensions, none zero")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Its shape, cut after nine dimensions.
        shape: Vec<usize>,
    },
    /// A projection with fewer outputs than the rank.
    #[error(
        "tensor '{name}' has {outputs} rows, and a core of rank {rank} needs as many as that: use a \
         lower rank, or other factors"
    )]
    Core {
        /// The name of its B.
        name: String,
        /// Its outputs.
        outputs: usize,
        /// The adapter's rank.
        rank: usize,
    },
    /// More elements than a layout may hold.
    #[error("the layout passes {most} elements at tensor '{name}'")]
    TooLarge {
        /// The tensor at which the limit is passed.
        name: String,
        /// The most elements allowed.
        most: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn ranges_lie_end_to_end() {
        let layout = Layout::new(vec![spec("a", &[2, 3]), spec("b", &[4])]).unwrap();
        assert_eq!(layout.len(), 10);
        assert_eq!(layout.ranges()["a"], 0..6);
        assert_eq!(layout.ranges()["b"], 6..10);
        let (tensor, index) = layout.locate(7).unwrap();
        assert_eq!((tensor.name.as_str(), index), ("b", 1));
        assert!(layout.locate(10).is_none());
    }

    #[test]
    fn refuses_what_is_no_layout() {
        let long = "n".repeat(257);
        let bad = [
            vec![],
            vec![spec("", &[1])],
            vec![spec(&long, &[1])],
            vec![spec("a", &[1]), spec("a", &[2])],
            vec![spec("a", &[2, 0])],
            vec![spec("a", &[])],
            vec![spec("a", &[1; 9])],
            vec![spec("a", &[usize::MAX, 2])],
            vec![spec("a", &[1 << 31]), spec("b", &[1])],
        ];
        for tensors in bad {
            let text = serde_json::to_string(&tensors).unwrap();
            assert!(serde_json::from_str::<Layout>(&text).is_err(), "{text:.80}");
            assert!(Layout::new(tensors).is_err());
        }
    }

    #[test]
    fn digest_depends_on_order_names_and_shapes() {
        let of = |tensors| Layout::new(tensors).unwrap().digest();
        let first = of(vec![spec("a", &[2, 3]), spec("b", &[4])]);
        assert_ne!(first, of(vec![spec("b", &[4]), spec("a", &[2, 3])]));
        assert_ne!(first, of(vec![spec("a", &[3, 2]), spec("b", &[4])]));
        assert_ne!(first, of(vec![spec("a", &[6]), spec("b", &[4])]));
    }

    #[test]
    fn subset_keeps_one_factor() {
        let name =
            |factor| format!("base_model.model.model.layers.0.self_attn.q_proj.{factor}.weight");
        let layout = Layout::new(vec![
            spec(&name("lora_A"), &[2, 3]),
            spec(&name("lora_B"), &[4, 2]),
        ])
        .unwrap();
        assert_eq!(layout.subset(Factors::Both).unwrap(), layout);
        assert_eq!(layout.subset(Factors::A).unwrap().len(), 6);
        assert_eq!(layout.subset(Factors::B).unwrap().len(), 8);
        let places = |factors| layout.places_of(factors).collect::<Vec<_>>();
        assert_eq!(places(Factors::A), [0, 1, 2, 3, 4, 5]);
        assert_eq!(places(Factors::B), (6..14).collect::<Vec<_>>());
        assert_eq!(places(Factors::Both).len(), 14);
        let other = Layout::new(vec![spec("x", &[1])]).unwrap();
        assert!(other.subset(Factors::A).is_err());
        assert_eq!(other.places_of(Factors::Both).count(), 0);
    }
}
