//! The gradients of a block's low-rank pairs.

use super::pool::Pool;
use super::projection::PairGradient;
use super::simd::add;

/// The gradients of a block's pairs, by projection.
pub(crate) type PairGradients = [PairGradient; 7];

/// Which factors' gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) a: bool,
    pub(crate) b: bool,
}

/// Adds up the parts in their order, so that threads do not change the result.
pub(super) fn sum(parts: Vec<PairGradients>, pool: &Pool) -> PairGradients {
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_default();
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            for (total, part) in [(&mut total.a, part.a), (&mut total.b, part.b)] {
                if let (Some(total), Some(part)) = (total, part) {
                    add(total, &part);
                    pool.give(part);
                }
            }
        }
    }
    total
}
