//! A member's weight in the mean: public by construction. An exact number of examples would be
//! told by two sums whose survivors differ in one member; a class of powers of two is agreed
//! before the run and tells no more than it says.

use serde::{Deserialize, Serialize};

/// The weight 2^k, by its class k: as a rule the class of a member with 2^k to 2^(k+1) - 1
/// training examples.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct WeightClass(u8);

impl WeightClass {
    /// The class of weight 1, which all members have where all weigh the same.
    pub const ONE: Self = Self(0);
    /// The highest class.
    pub const MAX: Self = Self(20);

    /// The class of a number of training examples; none for 0.
    pub fn of_examples(examples: usize) -> Option<Self> {
        let class = examples.checked_ilog2()?;
        Some(Self(class.min(u32::from(Self::MAX.0)) as u8))
    }

    /// The class's number k.
    pub fn class(self) -> u8 {
        self.0
    }

    /// The weight 2^k.
    pub fn weight(self) -> u64 {
        1 << self.0
    }
}

impl TryFrom<u8> for WeightClass {
    type Error = WeightClassError;

    fn try_from(class: u8) -> Result<Self, WeightClassError> {
        if class > Self::MAX.0 {
            return Err(WeightClassError { got: class });
        }
        Ok(Self(class))
    }
}

impl From<WeightClass> for u8 {
    fn from(class: WeightClass) -> u8 {
        class.0
    }
}

/// A class that is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("weight class {got}: expected 0 to {}", WeightClass::MAX.0)]
pub struct WeightClassError {
    /// The class found.
    pub got: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_a_doubling_of_examples() {
        let class = |examples| WeightClass::of_examples(examples).map(WeightClass::class);
        assert_eq!(class(0), None);
        assert_eq!(
            [1, 2, 3, 511, 512, usize::MAX].map(class),
            [0, 1, 1, 8, 9, 20].map(Some)
        );
        assert_eq!(WeightClass::try_from(9).unwrap().weight(), 512);
        assert_eq!(WeightClass::try_from(20), Ok(WeightClass::MAX));
        assert!(WeightClass::try_from(21).is_err());
    }
}
