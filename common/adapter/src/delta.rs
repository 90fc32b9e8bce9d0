//! The change one member made in one round. Step 3 of the round; private until it is masked.

use std::fmt;

use zeroize::Zeroize;

use super::layout::Layout;

/// Trained values minus the global ones, flat, in the order of a [`Layout`].
///
/// Zeroized when dropped; `Debug` shows the length only.
pub struct Delta(Vec<f32>);

impl Delta {
    /// Takes `values` in the order of `layout`; every one must be finite.
    ///
    /// # Errors
    /// [`DeltaError`] for another number of values, or one that is not finite. The values are
    /// wiped.
    pub fn new(layout: &Layout, mut values: Vec<f32>) -> Result<Self, DeltaError> {
        if values.len() != layout.len() {
            let got = values.len();
            values.zeroize();
            return Err(DeltaError::Length {
                got,
                expected: layout.len(),
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            values.zeroize();
            let (tensor, index) = layout
                .locate(at)
                .map(|(spec, index)| (spec.name.clone(), index))
                .unwrap_or_default();
            return Err(DeltaError::NotFinite { tensor, index });
        }
        Ok(Self(values))
    }

    /// The values, in the order of the layout.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the delta has no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The L2 norm, summed in `f64`.
    pub fn norm(&self) -> f64 {
        self.0
            .iter()
            .map(|&value| f64::from(value) * f64::from(value))
            .sum::<f64>()
            .sqrt()
    }

    /// Scales the delta down to an L2 norm of at most `max_norm`; returns the norm before.
    ///
    /// # Errors
    /// [`DeltaError::Clip`] where `max_norm` is not a finite number above 0.
    pub fn clip(&mut self, max_norm: f64) -> Result<f64, DeltaError> {
        if !(max_norm.is_finite() && max_norm > 0.0) {
            return Err(DeltaError::Clip { got: max_norm });
        }
        let norm = self.norm();
        if norm > max_norm {
            let scale = max_norm / norm;
            for value in &mut self.0 {
                *value = (f64::from(*value) * scale) as f32;
            }
        }
        Ok(norm)
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delta({} values)", self.0.len())
    }
}

/// Why values are not a delta, or a clip norm is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeltaError {
    /// Another number of values than the layout has elements.
    #[error("the delta has {got} values, the layout {expected}")]
    Length {
        /// The number of values given.
        got: usize,
        /// The number of elements in the layout.
        expected: usize,
    },
    /// A value that is NaN or infinite.
    #[error(
        "the delta is not finite at element {index} of tensor '{tensor}': \
         training diverged; a lower learning rate would help"
    )]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The element within the tensor, in row-major order.
        index: usize,
    },
    /// The clip is not a positive number.
    #[error("a clip norm of {got} is not a finite number above 0")]
    Clip {
        /// The clip norm given.
        got: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::super::layout::TensorSpec;
    use super::*;

    fn layout() -> Layout {
        let spec = |name: &str, dim| TensorSpec {
            name: name.to_owned(),
            shape: vec![dim],
        };
        Layout::new(vec![spec("first", 2), spec("second", 2)]).unwrap()
    }

    #[test]
    fn clips_to_the_norm_and_returns_the_one_before() {
        let mut delta = Delta::new(&layout(), vec![3.0, 0.0, 0.0, 4.0]).unwrap();
        assert_eq!(delta.clip(10.0).unwrap(), 5.0);
        assert_eq!(delta.values(), [3.0, 0.0, 0.0, 4.0]);
        assert_eq!(delta.clip(1.0).unwrap(), 5.0);
        assert!((delta.norm() - 1.0).abs() < 1e-6);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(delta.clip(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_nan_and_names_the_tensor() {
        let error = Delta::new(&layout(), vec![0.0, 0.0, 0.0, f32::NAN]).unwrap_err();
        let expected = DeltaError::NotFinite {
            tensor: "second".to_owned(),
            index: 1,
        };
        assert_eq!(error, expected);
        assert!(Delta::new(&layout(), vec![0.0; 3]).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        let delta = Delta::new(&layout(), vec![7.25; 4]).unwrap();
        assert!(!format!("{delta:?}").contains("7.25"));
    }
}
