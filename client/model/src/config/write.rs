//! `config.json` as Transformers reads it.

use serde_json::{Value, json};

use super::{Architecture, LlamaConfig, RopeScaling};

impl LlamaConfig {
    /// The text of a `config.json` that Transformers reads; `dtype` names the type on disk.
    pub fn to_json(&self, dtype: &str) -> String {
        let mut value = json!({
            "architectures": [self.architecture.class()],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.architecture.model_type(),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": self.rope_scaling.map(RopeScaling::to_json),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match self.architecture {
            Architecture::Llama => {
                value["attention_bias"] = json!(self.qkv_bias);
                value["mlp_bias"] = json!(false);
                value["pretraining_tp"] = json!(1);
            }
            Architecture::Mistral => value["sliding_window"] = json!(self.sliding_window),
            Architecture::Qwen3 => {
                value["attention_bias"] = json!(false);
                self.write_qwen_window(&mut value);
            }
            Architecture::SmolLm3 => self.write_smollm3(&mut value),
            Architecture::Granite => self.write_granite(&mut value),
            Architecture::Qwen2 => self.write_qwen_window(&mut value),
            Architecture::Gemma3 => self.write_gemma3(&mut value),
        }
        format!("{value:#}\n")
    }

    fn write_qwen_window(&self, value: &mut Value) {
        value["use_sliding_window"] = json!(self.sliding_window.is_some());
        value["sliding_window"] = json!(self.sliding_window);
        let full = &self.variation.unwindowed;
        // Blocks from this one on have the window.
        value["max_window_layers"] = match self.sliding_window {
            Some(_) => json!(full.len()),
            None => json!(self.num_hidden_layers),
        };
        if !full.is_empty() {
            value["layer_types"] = self.layer_types();
        }
    }

    fn write_smollm3(&self, value: &mut Value) {
        let rotated = |block| u8::from(!self.variation.unrotated.contains(&block));
        let rotated: Vec<u8> = (0..self.num_hidden_layers).map(rotated).collect();
        value["attention_bias"] = json!(false);
        value["mlp_bias"] = json!(false);
        value["no_rope_layers"] = json!(rotated);
        value["use_sliding_window"] = json!(self.sliding_window.is_some());
        value["sliding_window"] = json!(self.sliding_window);
        value["layer_types"] = self.layer_types();
        // Transformers' default may lie outside of the vocabulary.
        value["pad_token_id"] = Value::Null;
    }

    fn write_granite(&self, value: &mut Value) {
        let multipliers = self.variation.multipliers;
        let attention = multipliers.attention;
        value["attention_bias"] = json!(false);
        value["mlp_bias"] = json!(false);
        value["embedding_multiplier"] = json!(multipliers.embedding);
        value["attention_multiplier"] =
            json!(attention.unwrap_or((self.head_dim as f64).sqrt().recip()));
        value["residual_multiplier"] = json!(multipliers.residual);
        value["logits_scaling"] = json!(multipliers.logits_scaling);
    }

    fn write_gemma3(&self, value: &mut Value) {
        let attention = self.variation.multipliers.attention;
        let scalar = attention.map_or(self.head_dim as f64, |scale| scale.powi(-2));
        if let Some(object) = value.as_object_mut() {
            object.remove("hidden_act");
        }
        value["hidden_activation"] = json!("gelu_pytorch_tanh");
        value["attention_bias"] = json!(false);
        // Transformers takes a whole number.
        value["query_pre_attn_scalar"] = json!(scalar.round() as u64);
        value["sliding_window"] = json!(self.sliding_window);
        value["layer_types"] = self.layer_types();
        value["rope_local_base_freq"] = json!(self.variation.local_theta);
        value["final_logit_softcapping"] = Value::Null;
        value["attn_logit_softcapping"] = Value::Null;
        // Transformers' default may lie outside of the vocabulary.
        value["pad_token_id"] = Value::Null;
    }

    /// The kind of attention of each block.
    fn layer_types(&self) -> Value {
        let kind = |block| match self.window(block) {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        (0..self.num_hidden_layers).map(kind).collect()
    }
}
