//! What is held out, decided by each record's own content.

use fedlora_common::digest::{Digest, DigestWriter};

/// A share of the records, the same ones in every run and in whatever order the files come.
/// Equal records fall on the same side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    share: f64,
}

/// A share that leaves nothing to train on, or is no share.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the held-out share is {got}: expected a number from 0 up to, but not including, 1")]
pub struct ShareError {
    /// What was given.
    pub got: f64,
}

impl HeldOut {
    /// Holds out `share` of the records, on average.
    ///
    /// # Errors
    /// [`ShareError`] unless `0 <= share < 1`.
    pub fn share(share: f64) -> Result<Self, ShareError> {
        if (0.0..1.0).contains(&share) {
            Ok(Self { share })
        } else {
            Err(ShareError { got: share })
        }
    }

    /// Whether a record with this content digest is held out.
    pub fn holds_out(&self, content: &Digest) -> bool {
        let digest = DigestWriter::new("fedlora data held-out 1")
            .digest(content)
            .finish();
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        // 53 bits: exact in f64, uniform in 0..1.
        let place = (u64::from_le_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
        place < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_is_held_out_and_a_larger_share_holds_out_the_same_and_more() {
        let digests: Vec<_> = (0u32..4000)
            .map(|i| Digest::of("test", &i.to_le_bytes()))
            .collect();
        let held = |share| {
            let held_out = HeldOut::share(share).unwrap();
            let held: Vec<_> = digests.iter().map(|d| held_out.holds_out(d)).collect();
            held
        };
        let (tenth, fifth) = (held(0.1), held(0.2));
        let count = tenth.iter().filter(|held| **held).count();
        assert!((320..480).contains(&count), "{count}");
        assert!(
            tenth
                .iter()
                .zip(&fifth)
                .all(|(small, large)| !small || *large)
        );
        assert!(held(0.0).iter().all(|held| !held));
    }

    #[test]
    fn other_shares_are_refused() {
        for share in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(HeldOut::share(share).is_err(), "{share} was taken");
        }
    }
}
