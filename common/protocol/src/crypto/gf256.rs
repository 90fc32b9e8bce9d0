//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), where a byte is a polynomial
//! and addition is exclusive or.
//!
//! Nothing here reads a table at a secret index or branches on a secret. A secret is always a
//! row of 32 elements, and the factor it is multiplied with is always public, so that a product
//! is eight doublings of the row, which compile to vector instructions.

use std::num::NonZeroU8;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The field's polynomial without its leading term x^8: what remains of x^8.
const REMAINDER: u8 = 0x1d;

/// 32 secret elements, to which products are added up. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Accumulator([u8; 32]);

impl Accumulator {
    /// 32 zeros.
    pub(super) fn zero() -> Self {
        Self([0; 32])
    }

    /// Multiplies each element by `factor`, which is public, and adds `row`: a step of Horner's
    /// rule.
    pub(super) fn multiply_then_add(&mut self, factor: NonZeroU8, row: &[u8; 32]) {
        let masks = masks(factor.get());
        for (element, addend) in self.0.iter_mut().zip(row) {
            *element = product(*element, &masks) ^ addend;
        }
    }

    /// Adds `row` times `factor`, which is public.
    pub(super) fn add_product(&mut self, factor: u8, row: &[u8; 32]) {
        let masks = masks(factor);
        for (element, secret) in self.0.iter_mut().zip(row) {
            *element ^= product(*secret, &masks);
        }
    }

    /// Writes the elements, in the order of the rows that went in.
    pub(super) fn write_to(&self, out: &mut [u8; 32]) {
        *out = self.0;
    }
}

/// The product of two public elements.
pub(super) fn multiply(a: u8, b: u8) -> u8 {
    product(a, &masks(b))
}

/// The inverse of a public element: its 254th power, for the 255th is 1.
pub(super) fn invert(element: NonZeroU8) -> u8 {
    let element = element.get();
    // 254 is 0b1111_1110.
    let power = (0..6).fold(element, |power, _| {
        multiply(multiply(power, power), element)
    });
    multiply(power, power)
}

/// For each bit of a public factor, the lowest first: 0xff where it is set, otherwise 0.
fn masks(factor: u8) -> [u8; 8] {
    std::array::from_fn(|bit| ((factor >> bit) & 1).wrapping_neg())
}

/// `element` times the factor of `masks`, by Horner's rule over the factor's bits. The compiler
/// may branch on those; the element, which may be secret, meets nothing but shifts, masks and
/// exclusive or.
#[inline(always)]
fn product(element: u8, masks: &[u8; 8]) -> u8 {
    let step = |product, mask: &u8| double(product) ^ (element & mask);
    masks.iter().rev().fold(0, step)
}

/// The element times x. The bit that overflows comes back as [`REMAINDER`]: shifted with its
/// sign, it is a mask.
#[inline(always)]
fn double(element: u8) -> u8 {
    let overflow = (element.cast_signed() >> 7).cast_unsigned();
    (element << 1) ^ (overflow & REMAINDER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Long multiplication of polynomials over GF(2), then long division by 0x11d.
    fn reference(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b & (1 << bit) != 0 {
                product ^= u16::from(a) << bit;
            }
        }
        for degree in (8..15).rev() {
            if product & (1 << degree) != 0 {
                product ^= 0x11d << (degree - 8);
            }
        }
        u8::try_from(product).expect("a remainder has degree 7 at most")
    }

    /// Each of 32 bytes, starting from `first`.
    fn row(first: u8) -> [u8; 32] {
        std::array::from_fn(|at| first.wrapping_add(at as u8))
    }

    fn bytes_of(sum: &Accumulator) -> [u8; 32] {
        let mut out = [0; 32];
        sum.write_to(&mut out);
        out
    }

    #[test]
    fn every_product_is_that_of_the_polynomials() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), reference(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn every_product_of_a_row_is_that_of_the_polynomials() {
        for factor in 0..=255 {
            for first in (0..=255).step_by(32) {
                let mut sum = Accumulator::zero();
                sum.add_product(factor, &row(first));
                assert_eq!(
                    bytes_of(&sum),
                    row(first).map(|byte| reference(byte, factor))
                );
            }
        }
    }

    #[test]
    fn every_inverse_multiplies_to_one() {
        for element in 1..=255 {
            let inverse = invert(NonZeroU8::new(element).unwrap());
            assert_eq!(multiply(element, inverse), 1, "1 / {element}");
        }
    }

    /// 0x11d is primitive: x generates every element but 0. Under AES's polynomial, 0x11b, its
    /// order is 51.
    #[test]
    fn x_generates_the_field() {
        let mut power = 1;
        let order = (1..=255)
            .find(|_| {
                power = multiply(power, 2);
                power == 1
            })
            .unwrap();
        assert_eq!(order, 255);
    }

    proptest! {
        #[test]
        fn the_laws_of_a_field_hold(a: u8, b: u8, c: u8) {
            prop_assert_eq!(multiply(a, b), multiply(b, a));
            prop_assert_eq!(multiply(multiply(a, b), c), multiply(a, multiply(b, c)));
            prop_assert_eq!(multiply(a, b ^ c), multiply(a, b) ^ multiply(a, c));
            prop_assert_eq!(multiply(a, 1), a);
            prop_assert_eq!(multiply(a, 0), 0);
        }

        #[test]
        fn rows_add_up_and_follow_horners_rule(
            rows in any::<[[u8; 32]; 3]>(),
            factor in 1u8..,
            other: u8,
        ) {
            let mut sum = Accumulator::zero();
            sum.add_product(1, &rows[0]);
            sum.multiply_then_add(NonZeroU8::new(factor).unwrap(), &rows[1]);
            sum.add_product(other, &rows[2]);
            let expected: [u8; 32] = std::array::from_fn(|at| {
                reference(rows[0][at], factor) ^ rows[1][at] ^ reference(rows[2][at], other)
            });
            prop_assert_eq!(bytes_of(&sum), expected);
        }
    }
}
