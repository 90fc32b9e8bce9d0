//! What the masks' recovery needs of a member's keys and deal.

use crate::secagg::Dealt;
use crate::wire::Signable;
use crate::wire::messages::{Deal, Keys};
use fedlora_common::digest::Digest;

/// What one member dealt. `context` is what keys are signed for.
pub fn dealt_by(keys: &Keys, context: &Digest, deal: &Deal) -> Dealt {
    let masks = deal.shares.iter();
    Dealt {
        masking: keys.masking.clone(),
        keys: keys.signed_digest(context),
        self_mask: deal.self_mask,
        masks: masks
            .map(|(peer, dealt)| (*peer, dealt.mask.clone()))
            .collect(),
    }
}
