//! What `config.json` of Gemma 3's text models says beyond the settings that all have: windows and
//! rotations of two kinds of blocks. What the forward pass does not compute is refused by name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::rope::RopeScaling;
use super::super::{Activation, ModelConfigError, Multipliers, Variation};
use super::architecture::{Defaults, layer_types};
use super::fields::{Fields, HEADS, TOKENS, WIDTH};
use super::rope;

/// The base of the rotary frequencies of blocks with a window, where none is stated.
const LOCAL_THETA: f64 = 10_000.0;
/// Every so many blocks one has no window, where nothing is stated.
const PATTERN: usize = 6;
/// What attention's scores are divided by the root of, where nothing is stated.
const ATTENTION: usize = 256;

const FULL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

/// What the blocks compute otherwise than Llama's, and the window of those that have one.
pub(super) fn variation(
    top: &Fields<'_>,
    blocks: usize,
    hidden_size: usize,
) -> Result<(Option<usize>, Variation), ModelConfigError> {
    top.absent_or(
        "hidden_activation",
        &["gelu_pytorch_tanh"],
        "\"gelu_pytorch_tanh\", the activation of Gemma 3",
    )?;
    for key in ["final_logit_softcapping", "attn_logit_softcapping"] {
        top.none(
            key,
            "null, as in Gemma 3: soft caps on logits or scores are not supported",
        )?;
    }
    top.off(
        "use_bidirectional_attention",
        "false: a token attends to those before it alone",
    )?;
    let scalar = top.optional_size("query_pre_attn_scalar", WIDTH)?;
    let scalar = scalar.unwrap_or(ATTENTION) as f64;
    let full = full_blocks(top, blocks)?;
    let local = full.len() < blocks;
    let window = match top.object.get("sliding_window") {
        _ if !local => None,
        None => Defaults::GEMMA3.window,
        Some(_) => Some(top.size("sliding_window", TOKENS)?),
    };
    let variation = Variation {
        qk_norm: true,
        unrotated: BTreeSet::new(),
        unwindowed: if local { full } else { BTreeSet::new() },
        local_theta: local.then_some(local_theta(top)?),
        output_norms: true,
        activation: Activation::GeluTanh,
        multipliers: Multipliers {
            embedding: (hidden_size as f64).sqrt(),
            attention: Some(scalar.sqrt().recip()),
            ..Multipliers::default()
        },
    };
    Ok((window, variation))
}

/// The blocks without a window: as listed, or every so many.
fn full_blocks(top: &Fields<'_>, blocks: usize) -> Result<BTreeSet<usize>, ModelConfigError> {
    if let Some(full) = layer_types(top, blocks)? {
        return Ok(full);
    }
    let pattern = top.optional_size("sliding_window_pattern", HEADS)?;
    let pattern = pattern.unwrap_or(PATTERN);
    let last = |block: &usize| (block + 1).is_multiple_of(pattern);
    Ok((0..blocks).filter(last).collect())
}

/// The base and the scaling of the rotary frequencies of blocks without a window.
pub(super) fn full_rope(
    top: &Fields<'_>,
    positions: usize,
) -> Result<(f64, Option<RopeScaling>), ModelConfigError> {
    let theta = top.optional_number("rope_theta")?;
    let theta = theta.unwrap_or(Defaults::GEMMA3.theta);
    let stated = parameters(top, FULL, "rope_parameters.full_attention")?;
    let old = top.rope_object("rope_scaling")?;
    if old.is_some() && stated.is_some() {
        return Err(top.refuse(
            "rope_scaling",
            "none beside rope_parameters, which says the same",
        ));
    }
    match old.or(stated) {
        None => Ok((theta, None)),
        Some(stated) => rope::stated(top, &stated, positions, theta),
    }
}

/// The base of the rotary frequencies of blocks with a window.
fn local_theta(top: &Fields<'_>) -> Result<f64, ModelConfigError> {
    let theta = top.optional_number("rope_local_base_freq")?;
    let theta = theta.unwrap_or(LOCAL_THETA);
    let Some(stated) = parameters(top, LOCAL, "rope_parameters.sliding_attention")? else {
        return Ok(theta);
    };
    // As many positions as any: none of what is allowed asks for them.
    match rope::stated(top, &stated, 1, theta)? {
        (theta, None) => Ok(theta),
        (_, Some(_)) => Err(stated.refuse(
            "rope_type",
            "\"default\": blocks with a window have no scaled RoPE",
        )),
    }
}

/// The object in `rope_parameters` that speaks of blocks of this kind.
fn parameters<'a>(
    top: &Fields<'a>,
    kind: &str,
    within: &'static str,
) -> Result<Option<Fields<'a>>, ModelConfigError> {
    let Some(all) = top.rope_object("rope_parameters")? else {
        return Ok(None);
    };
    let expected = "\"full_attention\" and \"sliding_attention\", each with an object";
    if let Some(other) = all
        .object
        .keys()
        .find(|key| ![FULL, LOCAL].contains(&key.as_str()))
    {
        return Err(all.refuse(other, expected));
    }
    match all.get(kind) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(Fields {
            path: top.path,
            within: Some(within),
            object,
        })),
        Some(_) => Err(all.refuse(kind, expected)),
    }
}
