//! Dropout masks that are made on the device they are used on.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{ElementConversion, Int, IntDType, Tensor};

use super::FusedOps;
use crate::dropout::DropoutMask;
use crate::primitive::raw;

/// Computes the mask where it is needed, so that nothing is copied to the device: an element's
/// fate is a hash of its number and the mask's seed (two rounds of a bijection of 32 bits,
/// shift by 16, 15 and 15, from Wellons' hash-prospector).
pub(super) fn factors<B: FusedOps>(
    mask: &DropoutMask,
    [rows, width]: [usize; 2],
    device: &B::Device,
) -> FloatTensor<B> {
    let shifted = |x: Tensor<B, 1, Int>, bits: i32| {
        let high = x.clone().bitwise_right_shift_scalar(bits.elem());
        x.bitwise_xor(high)
    };
    let mixed = |x: Tensor<B, 1, Int>| {
        let x = shifted(x, 16).mul_scalar(0x21f0_aaad_i32);
        shifted(shifted(x, 15).mul_scalar(0x735a_2d97_i32), 15)
    };
    // Half of the seed each; below 2^31, as the numbers of backends go.
    let [low, high] = [mask.seed, mask.seed >> 32].map(|half| (half & 0x7fff_ffff) as i32);
    let count = rows * width;
    let numbers = Tensor::<B, 1, Int>::arange(0..count as i64, device).cast(IntDType::U32);
    let hashed = mixed(mixed(numbers.add_scalar(low)).bitwise_xor_scalar(high.elem()));
    let dropped = hashed
        .bitwise_right_shift_scalar(16.elem())
        .lower_elem(i32::from(mask.threshold));
    let factors = Tensor::<B, 1>::full([count], mask.keep_scale, device).mask_fill(dropped, 0.0);
    raw(factors.reshape([rows, width]))
}
