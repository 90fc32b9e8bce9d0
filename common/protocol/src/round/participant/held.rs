//! The shares that a member holds for the others, until it reveals one of each owner's.

use crate::crypto::shamir::Share;
use crate::wire::messages::RevealedShare;

/// What this member holds for one owner: one share of each of its two secrets. Which of the two is
/// revealed is decided once, by taking it out.
#[derive(Debug)]
pub(super) struct HeldSecrets {
    self_mask: Share,
    mask_root: Share,
}

impl HeldSecrets {
    pub(super) fn new(self_mask: Share, mask_root: Share) -> Self {
        Self {
            self_mask,
            mask_root,
        }
    }

    pub(super) fn reveal(self, survives: bool) -> RevealedShare {
        if survives {
            RevealedShare::SelfMask(*self.self_mask.expose())
        } else {
            RevealedShare::MaskRoot(*self.mask_root.expose())
        }
    }
}
