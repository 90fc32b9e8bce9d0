//! The CPU backend's tensors and frozen weights as slices on the host.

use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{Flex, FlexTensor, Layout};

use super::frozen::Frozen;
use crate::packed::{Packed, PackedSlices, WeightKind};

/// A frozen weight as the host holds it.
pub(crate) enum HostWeight {
    Dense(FlexTensor),
    Packed {
        kind: WeightKind,
        columns: usize,
        words: FlexTensor,
        scales: FlexTensor,
    },
}

impl HostWeight {
    pub(crate) fn packed(packed: &Packed<Flex>) -> Self {
        Self::Packed {
            kind: packed.kind,
            columns: packed.shape[1],
            words: packed.words.clone().into_primitive(),
            scales: packed.scales.clone().into_primitive().tensor(),
        }
    }

    pub(crate) fn frozen(&self) -> Frozen<'_> {
        match self {
            Self::Dense(tensor) => Frozen::Dense(values(tensor)),
            Self::Packed {
                kind,
                columns,
                words,
                scales,
            } => Frozen::Packed(PackedSlices {
                kind: *kind,
                columns: *columns,
                words: words
                    .as_slice::<i32>()
                    .expect("words are made contiguous and never changed"),
                scales: values(scales),
            }),
        }
    }
}

/// A contiguous tensor's values.
pub(crate) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>()
        .expect("an f32 tensor made contiguous just before")
}

/// A tensor of values.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// A contiguous copy, or the tensor itself where it is contiguous already.
pub(crate) fn flat(x: Tensor<Flex, 2>) -> FlexTensor {
    x.into_primitive().tensor().to_contiguous()
}
