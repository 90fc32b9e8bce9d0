//! The shares that a member holds for the others, until it reveals one of each owner's.

use crate::crypto::shamir::Share;

/// What this member holds for one owner: one share of each of its two secrets. Which of
/// the two is revealed is decided once, by taking it out.
#[derive(Debug)]
pub(super) struct HeldShares {
    pub(super) self_mask: Share,
    pub(super) mask_secret: Share,
}

impl HeldShares {
    pub(super) fn new(self_mask: Share, mask_secret: Share) -> Self {
        Self {
            self_mask,
            mask_secret,
        }
    }
}
