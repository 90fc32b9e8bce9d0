//! Between burn's tensors and the primitives that backends compute with.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

use crate::ops::FusedOps;

/// The tensor of a backend's primitive.
pub(crate) fn wrap<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// The backend's primitive of a tensor: the inverse of [`wrap`].
pub(crate) fn raw<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

/// [`FusedOps::product`] of two tensors.
pub(crate) fn product<B: FusedOps, const D: usize>(
    x: Tensor<B, D>,
    y: Tensor<B, D>,
) -> Tensor<B, D> {
    wrap(B::product(raw(x), raw(y)))
}

/// [`FusedOps::transposed_product`] of two tensors.
pub(crate) fn transposed_product<B: FusedOps, const D: usize>(
    x: Tensor<B, D>,
    y: Tensor<B, D>,
) -> Tensor<B, D> {
    wrap(B::transposed_product(raw(x), raw(y)))
}

/// Row numbers as an index tensor on a device, `[ids]`.
pub(crate) fn ids<B: Backend>(ids: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    let numbers: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    Tensor::from_data(TensorData::new(numbers, [ids.len()]), device)
}
