//! The operations for NVIDIA GPUs: products by kernels that suit their shapes. What burn chooses
//! without trying them out, which takes minutes, runs at a tenth of the card's speed.

use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn::tensor::{DType, Shape, Tensor, TensorMetadata};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::cuda::CudaRuntime;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use burn_cuda::Cuda;
use burn_fusion::FusionRuntime;
use burn_fusion::stream::{Operation, OperationStreams};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy::Inferred;
use cubek::std::InputBinding;

use super::{FusedOps, dropout};
use crate::dropout::DropoutMask;
use crate::primitive::{raw, wrap};

/// What computes, below the queue that fuses operations.
type Inner = CubeBackend<CudaRuntime, f32, i32, u8>;
type Runtime = FusionCubeRuntime<CudaRuntime>;

/// Rows, columns and terms that a product must have for the kernel of large ones.
const LARGE: usize = 64;
/// Terms of a sum that one part of a thin product takes. Half and twice as many are as fast.
const TERMS: usize = 256;
/// Bytes that what Hopper's copy engine reads must be aligned to.
const ALIGNED: usize = 16;

impl FusedOps for Cuda {
    // Eight values of two bytes.
    const ALIGNMENT: usize = 8;

    fn product(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        let (left, right) = (x.shape(), y.shape());
        if let ([rows, inner], [_, columns]) = (&left[..], &right[..])
            && let Some(parts) = parts([*rows, *inner, *columns])
        {
            let x = wrap::<Self, 2>(x).reshape([*rows, parts, inner / parts]);
            return sum_of(x.swap_dims(0, 1), in_parts(y, parts));
        }
        multiplied(x, y)
    }

    fn transposed_product(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        let (left, right) = (x.shape(), y.shape());
        if let ([inner, rows], [_, columns]) = (&left[..], &right[..])
            && let Some(parts) = parts([*rows, *inner, *columns])
        {
            return sum_of(in_parts(x, parts).swap_dims(1, 2), in_parts(y, parts));
        }
        multiplied(Self::float_transpose(x), y)
    }

    fn dropout_factors(
        mask: &DropoutMask,
        shape: [usize; 2],
        device: &Self::Device,
    ) -> FloatTensor<Self> {
        dropout::factors::<Self>(mask, shape, device)
    }
}

/// In how many parts the terms of a thin product are summed, if in several: a kernel gives each
/// block of the result to one of the card's processors, and a thin result has too few blocks.
fn parts([rows, inner, columns]: [usize; 3]) -> Option<usize> {
    if rows.min(columns) >= LARGE {
        return None;
    }
    let most = (inner / TERMS).checked_ilog2()?;
    let parts = 1 << inner.trailing_zeros().min(most);
    (parts > 1).then_some(parts)
}

/// `[inner, width]` as `[parts, inner / parts, width]`.
fn in_parts(x: FloatTensor<Cuda>, parts: usize) -> Tensor<Cuda, 3> {
    let x = wrap::<Cuda, 2>(x);
    let [inner, width] = x.dims();
    x.reshape([parts, inner / parts, width])
}

/// The sum, in `f32`, of the products of parts.
fn sum_of(x: Tensor<Cuda, 3>, y: Tensor<Cuda, 3>) -> FloatTensor<Cuda> {
    let products = x.matmul(y);
    let dtype = products.dtype();
    let [_, rows, columns] = products.dims();
    let sum = products.cast(DType::F32).sum_dim(0);
    raw::<Cuda, 2>(sum.reshape([rows, columns]).cast(dtype))
}

/// The product by the kernel of large ones, or by burn's choice.
fn multiplied(x: FloatTensor<Cuda>, y: FloatTensor<Cuda>) -> FloatTensor<Cuda> {
    let Some(shape) = large(&x.shape(), &y.shape()).filter(|_| x.dtype() == DType::BF16) else {
        return <Cuda>::float_matmul(x, y);
    };
    let client = x.client.clone();
    let streams = OperationStreams::with_inputs([&x, &y]);
    let out = TensorIr::uninit(client.create_empty_handle(), shape, x.dtype());
    let description = CustomOpIr::new("product", &[x.into_ir(), y.into_ir()], &[out]);
    let operation = Product {
        description: description.clone(),
    };
    client
        .register(streams, OperationIr::Custom(description), operation)
        .remove(0)
}

/// The shape of a product that is large in each direction.
fn large(x: &Shape, y: &Shape) -> Option<Shape> {
    let rank = x.num_dims();
    let (rows, inner, columns) = (x[rank - 2], x[rank - 1], y[rank - 1]);
    let mut shape = x.clone();
    shape[rank - 1] = columns;
    (rows.min(inner).min(columns) >= LARGE).then_some(shape)
}

/// A product in the queue.
#[derive(Debug)]
struct Product {
    description: CustomOpIr,
}

impl Operation<Runtime> for Product {
    fn execute(&self, handles: &mut HandleContainer<<Runtime as FusionRuntime>::FusionHandle>) {
        let ([x, y], [out]) = self.description.as_fixed();
        let x = handles.get_float_tensor::<Inner>(x);
        let y = handles.get_float_tensor::<Inner>(y);
        let product = if aligned(&x) && aligned(&y) {
            specialised(&x, &y)
        } else {
            None
        };
        let product = product.unwrap_or_else(|| Inner::float_matmul(x, y));
        handles.register_float_tensor::<Inner>(&out.id, product);
    }
}

/// Whether lines of the last two dimensions begin where the copy engine can read.
fn aligned(x: &CubeTensor<CudaRuntime>) -> bool {
    let step = ALIGNED / x.dtype.size();
    x.meta
        .strides()
        .iter()
        .all(|stride| *stride == 1 || stride.is_multiple_of(step))
}

/// The product by warps of which some only load, with Hopper's copy engine, and the others only
/// multiply: twice as fast as burn's first choice on an H200. `None` where a card or a shape does
/// not take it.
fn specialised(
    x: &CubeTensor<CudaRuntime>,
    y: &CubeTensor<CudaRuntime>,
) -> Option<CubeTensor<CudaRuntime>> {
    let out = init_matmul_output(x, y, x.dtype);
    let strategy = Strategy::SpecializedTmaMma(Inferred(().into()));
    let input = |tensor: &CubeTensor<CudaRuntime>| {
        InputBinding::new(tensor.clone().binding(), tensor.dtype.into())
    };
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: x.dtype.into(),
        rhs: y.dtype.into(),
        out: out.dtype.into(),
    });
    let (x, y, client) = (input(x), input(y), &out.client);
    let launched = launch_ref(&strategy, client, x, y, out.clone().binding(), &mut types);
    launched.ok().map(|()| out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thin_products_are_summed_in_parts_that_divide_their_terms() {
        assert_eq!(parts([2048, 4096, 16]), Some(16));
        assert_eq!(parts([16, 2048, 14336]), Some(8));
        assert_eq!(parts([2048, 14336, 16]), Some(32));
        assert_eq!(parts([2048, 1000, 16]), Some(2));
        // Odd numbers of terms, few terms, and results that are not thin.
        assert_eq!(parts([16, 2047, 4096]), None);
        assert_eq!(parts([2048, 16, 4096]), None);
        assert_eq!(parts([2048, 4096, 1024]), None);
    }

    #[test]
    fn a_product_is_large_in_each_direction() {
        let shape = |dims: &[usize]| Shape::from(dims.to_vec());
        let product = large(&shape(&[8, 128, 64]), &shape(&[8, 64, 96]));
        assert_eq!(product, Some(shape(&[8, 128, 96])));
        assert_eq!(large(&shape(&[128, 16]), &shape(&[16, 96])), None);
    }
}
