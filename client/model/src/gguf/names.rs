//! GGUF's names for the tensors of a model.

/// The embedding.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output layer, where it is not the embedding.
pub(super) const OUTPUT: &str = "output.weight";
/// The factors that divide the rotary frequencies, one a pair of features.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What GGUF calls a tensor of the model; `None` where it has no name for it. With `output_norms`
/// blocks norm what attention and the feed-forward part give.
pub(super) fn stored_name(name: &str, output_norms: bool) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some(EMBEDDING.to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (path, kind) = rest.rsplit_once('.')?;
    let path = match path {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" if output_norms => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{path}.{kind}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::config::tests::tiny;
    use super::super::super::config::{LlamaConfig, Variation};
    use super::*;

    fn stored(config: &LlamaConfig) -> BTreeSet<String> {
        let names = config.tensors();
        let output_norms = config.variation.output_norms;
        let stored: BTreeSet<_> = names
            .iter()
            .map(|(name, _)| stored_name(name, output_norms).unwrap())
            .collect();
        assert_eq!(stored.len(), names.len());
        stored
    }

    #[test]
    fn every_tensor_of_the_model_has_a_name_of_its_own() {
        let config = LlamaConfig {
            qkv_bias: true,
            variation: Variation {
                qk_norm: true,
                ..Variation::default()
            },
            tie_word_embeddings: false,
            ..tiny()
        };
        let plain = stored(&config);
        assert!(plain.contains("blk.1.attn_k.bias") && plain.contains("blk.1.attn_k_norm.weight"));
        assert!(plain.contains("blk.0.ffn_norm.weight"));
        let normed = stored(&LlamaConfig {
            variation: Variation {
                output_norms: true,
                ..config.variation
            },
            ..config
        });
        let more: Vec<_> = normed.difference(&plain).map(String::as_str).collect();
        let expected = [
            "blk.0.post_attention_norm.weight",
            "blk.0.post_ffw_norm.weight",
            "blk.1.post_attention_norm.weight",
            "blk.1.post_ffw_norm.weight",
        ];
        assert_eq!(more, expected);
        assert_eq!(stored_name("model.layers.0.mlp.odd.weight", false), None);
    }
}
