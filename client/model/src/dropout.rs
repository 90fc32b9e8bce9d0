//! Dropout of the inputs of a low-rank pair: masks that follow from a seed and are never held.

use super::random::SplitMix;

/// Zeroes inputs of A with probability `p` and scales the rest by `1 / (1 - p)`. Draws its
/// own masks: one seed gives one training, whatever else runs in the process.
#[derive(Debug, Clone)]
pub struct Dropout {
    threshold: u16,
    keep_scale: f32,
    random: SplitMix,
}

impl Dropout {
    /// `None` where `probability` is 0. Resolution is 1/65536.
    pub fn new(probability: f64, random: SplitMix) -> Option<Self> {
        (probability > 0.0).then(|| Self {
            threshold: (probability * 65_536.0) as u16,
            keep_scale: (1.0 / (1.0 - probability)) as f32,
            random,
        })
    }

    /// The next mask.
    pub(crate) fn draw(&mut self) -> DropoutMask {
        DropoutMask {
            seed: self.random.next(),
            threshold: self.threshold,
            keep_scale: self.keep_scale,
        }
    }
}

/// A mask that is never held: each element's fate follows from its number, so that the
/// backward pass finds the same again.
#[derive(Debug, Clone, Copy)]
pub struct DropoutMask {
    pub(super) seed: u64,
    /// Of 65536 elements, so many are dropped.
    pub(super) threshold: u16,
    pub(super) keep_scale: f32,
}

impl DropoutMask {
    /// Four draws of 16 bits from one of 64 (the output function of SplitMix64).
    #[inline(always)]
    fn factors(&self, four: u64) -> [f32; 4] {
        let mut bits = self
            .seed
            .wrapping_add(four.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        std::array::from_fn(|at| {
            if (bits >> (16 * at)) as u16 >= self.threshold {
                self.keep_scale
            } else {
                0.0
            }
        })
    }

    /// The factor of each element from number `first` on, to `each` with its place.
    #[inline(always)]
    fn for_each(&self, count: usize, first: usize, mut each: impl FnMut(usize, f32)) {
        let mut at = 0;
        while at < count {
            let number = first + at;
            let factors = self.factors(number as u64 / 4);
            for &factor in &factors[number % 4..] {
                if at == count {
                    return;
                }
                each(at, factor);
                at += 1;
            }
        }
    }

    /// `values * mask`, in place; `first` is the number of the first.
    pub(super) fn scale(&self, values: &mut [f32], first: usize) {
        self.for_each(values.len(), first, |at, factor| values[at] *= factor);
    }

    /// `to = from * mask`.
    pub(super) fn copy(&self, from: &[f32], to: &mut [f32], first: usize) {
        self.for_each(from.len(), first, |at, factor| to[at] = from[at] * factor);
    }

    /// `to += from * mask`.
    pub(super) fn add(&self, from: &[f32], to: &mut [f32], first: usize) {
        self.for_each(from.len(), first, |at, factor| to[at] += from[at] * factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_mask_is_that_part_of_the_whole() {
        let mask = Dropout::new(0.3, SplitMix::new(1, 2)).unwrap().draw();
        let mut whole = vec![1.0; 50];
        mask.scale(&mut whole, 0);
        assert!(whole.contains(&0.0) && whole.iter().any(|&value| value > 1.0));
        for first in 0..50 {
            let ones = vec![1.0; 50 - first];
            let mut part = vec![0.0; 50 - first];
            mask.copy(&ones, &mut part, first);
            assert_eq!(part, whole[first..]);
            mask.add(&ones, &mut part, first);
            assert!(part.iter().zip(&whole[first..]).all(|(p, w)| *p == 2.0 * w));
        }
    }
}
