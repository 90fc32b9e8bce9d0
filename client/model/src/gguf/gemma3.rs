//! What a GGUF file of Gemma 3 says beyond the settings that all have, and what llama.cpp takes where
//! it says nothing.

use std::collections::BTreeSet;

use super::super::config::{Activation, Multipliers, Variation};
use super::config::{Keys, Sizes};
use super::error::GgufError;

/// Blocks of Gemma 3's largest model, whose scores alone have another scale (llama.cpp tells it
/// by these too).
const LARGEST_GEMMA3: usize = 62;

/// Gemma 3's: every sixth block has no window, and the others a rotation of their own, unless the
/// file says otherwise. Its norms are stored as what they multiply with.
pub(super) fn variation(keys: &Keys<'_>, sizes: Sizes) -> Result<Variation, GgufError> {
    for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if keys.positive(name)?.is_some() {
            return Err(keys.refuse(name, "absent: soft caps are not supported"));
        }
    }
    let pattern = keys.size_or("attention.sliding_window_pattern", 6)?;
    let full = |block: &usize| (block + 1).is_multiple_of(pattern);
    let full: BTreeSet<usize> = (0..sizes.blocks).filter(full).collect();
    if sizes.windowed && full.len() == sizes.blocks {
        let expected = "absent where every block is without a window";
        return Err(keys.refuse("attention.sliding_window", expected));
    }
    let scalar = match sizes.blocks {
        LARGEST_GEMMA3 => sizes.hidden_size / sizes.heads,
        _ => sizes.head_dim,
    };
    let local = keys.positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    Ok(Variation {
        qk_norm: true,
        unrotated: BTreeSet::new(),
        unwindowed: if sizes.windowed {
            full
        } else {
            BTreeSet::new()
        },
        local_theta: sizes.windowed.then_some(local),
        output_norms: true,
        activation: Activation::GeluTanh,
        multipliers: Multipliers {
            embedding: (sizes.hidden_size as f64).sqrt(),
            attention: Some((scalar as f64).sqrt().recip()),
            ..Multipliers::default()
        },
    })
}
