//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), where a byte is a polynomial
//! and addition is exclusive or.
//!
//! Nothing here reads a table at a secret index or branches on a secret. A secret is always 32
//! elements at once, the factor it is multiplied with is always public, so that a product is
//! eight doublings of four 64-bit words.

use std::num::NonZeroU8;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The field's polynomial without its leading term x^8: what remains of x^8.
const REMAINDER: u8 = 0x1d;

/// In each byte of a word, the lowest bit.
const LOW_BITS: u64 = 0x0101_0101_0101_0101;

/// 32 secret elements, to which products are added up. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Accumulator([u64; 4]);

impl Accumulator {
    /// 32 zeros.
    pub(super) fn zero() -> Self {
        Self([0; 4])
    }

    /// Multiplies each element by `factor`, which is public, and adds `row`: a step of Horner's
    /// rule.
    pub(super) fn multiply_then_add(&mut self, factor: NonZeroU8, row: &[u8; 32]) {
        let product = product(&self.0, factor.get());
        self.0 = sum(&product, &words_of(row));
    }

    /// Adds `row` times `factor`, which is public.
    pub(super) fn add_product(&mut self, factor: u8, row: &[u8; 32]) {
        let product = product(&words_of(row), factor);
        self.0 = sum(&self.0, &product);
    }

    /// Writes the elements, in the order of the rows that went in.
    pub(super) fn write_to(&self, out: &mut [u8; 32]) {
        for (bytes, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *bytes = word.to_le_bytes();
        }
    }
}

/// The product of two public elements.
pub(super) fn multiply(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0, |product: u8, bit| {
        let doubled = (product << 1) ^ (REMAINDER * (product >> 7));
        doubled ^ (a * ((b >> bit) & 1))
    })
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

/// Each byte of `words` times `factor`, by Horner's rule over the factor's bits. The compiler may
/// branch on those bits, which are public; the words meet shifts, masks and exclusive or alone.
fn product(words: &[u64; 4], factor: u8) -> [u64; 4] {
    (0..8).rev().fold([0; 4], |product, bit| {
        let mask = u64::from((factor >> bit) & 1).wrapping_neg();
        std::array::from_fn(|at| double(product[at]) ^ (words[at] & mask))
    })
}

/// Each byte times x. What overflows a byte comes back as [`REMAINDER`], spelt as shifts because
/// some processors multiply in a time that depends on the operands.
fn double(word: u64) -> u64 {
    let carry = (word >> 7) & LOW_BITS;
    let shifted = (word << 1) & !LOW_BITS;
    shifted ^ carry ^ (carry << 2) ^ (carry << 3) ^ (carry << 4)
}

fn sum(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

fn words_of(row: &[u8; 32]) -> [u64; 4] {
    let words = row.as_chunks::<8>().0;
    std::array::from_fn(|at| u64::from_le_bytes(words[at]))
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
