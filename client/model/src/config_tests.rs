//! Reading and writing of `config.json`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

pub(crate) fn tiny() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Llama,
        vocab_size: 40,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        variation: Default::default(),
        tie_word_embeddings: true,
        bos_token_id: Some(0),
        eos_token_id: Some(1),
    }
}

fn load(object: &Map<String, Value>) -> Result<LlamaConfig, ModelConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let text = serde_json::to_string(object).unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    LlamaConfig::load(dir.path())
}

fn object(config: &LlamaConfig) -> Map<String, Value> {
    serde_json::from_str(&config.to_json("bfloat16")).unwrap()
}

/// The configuration's own file with some settings replaced, or taken out where "ABSENT"
/// stands.
pub(super) fn with(config: &LlamaConfig, settings: Value) -> Result<LlamaConfig, ModelConfigError> {
    let mut object = object(config);
    for (key, value) in settings.as_object().unwrap() {
        if *value == json!("ABSENT") {
            object.remove(key);
        } else {
            object.insert(key.clone(), value.clone());
        }
    }
    load(&object)
}

fn mistral() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Mistral,
        sliding_window: Some(8),
        ..tiny()
    }
}

pub(super) fn qwen2() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Qwen2,
        qkv_bias: true,
        ..tiny()
    }
}

pub(super) fn qwen3() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Qwen3,
        head_dim: 10,
        variation: Variation {
            qk_norm: true,
            ..Variation::default()
        },
        ..tiny()
    }
}

pub(super) fn smollm3() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::SmolLm3,
        variation: Variation {
            unrotated: [1].into(),
            ..Variation::default()
        },
        ..tiny()
    }
}

pub(super) fn granite() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Granite,
        variation: Variation {
            multipliers: Multipliers {
                embedding: 12.0,
                attention: Some(0.015_625),
                residual: 0.22,
                logits_scaling: 8.0,
            },
            ..Variation::default()
        },
        ..tiny()
    }
}

pub(crate) fn gemma3() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Gemma3,
        head_dim: 10,
        sliding_window: Some(8),
        variation: Variation {
            qk_norm: true,
            unwindowed: [1].into(),
            local_theta: Some(10_000.0),
            output_norms: true,
            activation: Activation::GeluTanh,
            multipliers: Multipliers {
                embedding: 4.0,
                attention: Some(7_f64.sqrt().recip()),
                ..Multipliers::default()
            },
            ..Variation::default()
        },
        ..tiny()
    }
}

/// With a window in the second of two blocks alone.
fn in_second_block(config: LlamaConfig) -> LlamaConfig {
    LlamaConfig {
        sliding_window: Some(8),
        variation: Variation {
            unwindowed: [0].into(),
            ..config.variation
        },
        ..config
    }
}

fn llama31() -> LlamaConfig {
    LlamaConfig {
        rope_scaling: Some(RopeScaling::Llama3(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 16,
        })),
        ..tiny()
    }
}

fn scaled(scaling: RopeScaling) -> LlamaConfig {
    LlamaConfig {
        rope_scaling: Some(scaling),
        ..tiny()
    }
}

fn yarn() -> YarnScaling {
    YarnScaling {
        factor: 4.0,
        attention_factor: 1.2,
        beta_fast: 24.0,
        beta_slow: 2.0,
        original_max_position_embeddings: 16,
        truncate: false,
    }
}

#[test]
fn every_architecture_round_trips() {
    let windowed = LlamaConfig {
        sliding_window: Some(8),
        ..qwen2()
    };
    let open = LlamaConfig {
        sliding_window: None,
        ..mistral()
    };
    let biased = LlamaConfig {
        qkv_bias: true,
        bos_token_id: None,
        ..tiny()
    };
    for config in [
        tiny(),
        mistral(),
        open,
        qwen2(),
        windowed,
        qwen3(),
        smollm3(),
        granite(),
        gemma3(),
        in_second_block(qwen2()),
        in_second_block(qwen3()),
        in_second_block(smollm3()),
        llama31(),
        scaled(RopeScaling::Linear { factor: 2.5 }),
        scaled(RopeScaling::Dynamic { factor: 2.0 }),
        scaled(RopeScaling::Yarn(yarn())),
        biased,
    ] {
        assert_eq!(load(&object(&config)).unwrap(), config);
    }
}

#[test]
fn absent_settings_are_what_transformers_takes() {
    let absent = json!({
        "rope_theta": "ABSENT", "rms_norm_eps": "ABSENT", "head_dim": "ABSENT",
        "num_key_value_heads": "ABSENT", "max_position_embeddings": "ABSENT",
        "tie_word_embeddings": "ABSENT", "sliding_window": "ABSENT", "hidden_act": "ABSENT",
        "bos_token_id": "ABSENT", "eos_token_id": "ABSENT", "rope_scaling": "ABSENT",
        "max_window_layers": "ABSENT", "use_sliding_window": "ABSENT",
        "num_attention_heads": 32, "hidden_size": 64,
    });
    let read = |config: &LlamaConfig| {
        let read = with(config, absent.clone()).unwrap();
        assert_eq!((read.rope_theta, read.rms_norm_eps), (10_000.0, 1e-6));
        assert_eq!((read.head_dim, read.tie_word_embeddings), (2, false));
        (
            read.num_key_value_heads,
            read.max_position_embeddings,
            read.sliding_window,
            (read.bos_token_id, read.eos_token_id),
        )
    };
    assert_eq!(read(&tiny()), (32, 2048, None, (Some(1), Some(2))));
    assert_eq!(
        read(&mistral()),
        (8, 131_072, Some(4096), (Some(1), Some(2)))
    );
    assert_eq!(read(&qwen2()), (32, 32_768, None, (None, None)));
    assert_eq!(read(&granite()), read(&tiny()));
    let qwen3 = with(&qwen3(), json!({"head_dim": "ABSENT"})).unwrap();
    assert_eq!(qwen3.head_dim, 128);
    let smollm3 = with(&smollm3(), absent.clone()).unwrap();
    assert_eq!(
        (
            smollm3.rope_theta,
            smollm3.tie_word_embeddings,
            smollm3.num_key_value_heads
        ),
        (2_000_000.0, true, 4)
    );
    assert_eq!(
        (smollm3.bos_token_id, smollm3.eos_token_id),
        (Some(128_000), Some(128_001))
    );
    for config in [tiny(), mistral(), qwen2()] {
        let null = with(&config, json!({"num_key_value_heads": null})).unwrap();
        assert_eq!(null.num_key_value_heads, 4);
    }
}

#[test]
fn reads_rope_as_either_release_writes_it() {
    let scaled = |keys: Value| with(&tiny(), keys).unwrap();
    let read = scaled(json!({"rope_scaling": {
        "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }}));
    assert_eq!(read, llama31());
    let read = scaled(json!({"rope_theta": "ABSENT", "rope_parameters": {
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
        "original_max_position_embeddings": 16, "rope_theta": 500_000.0,
    }}));
    assert_eq!(read, llama31());
    // Without it, the positions that the model has; one at the top wins.
    let read = scaled(json!({"rope_scaling": {
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
    }}));
    let original = |read: LlamaConfig| match read.rope_scaling {
        Some(RopeScaling::Llama3(scaling)) => scaling.original_max_position_embeddings,
        other => panic!("{other:?}"),
    };
    assert_eq!(original(read), 64);
    let read = scaled(
        json!({"original_max_position_embeddings": 24, "rope_scaling": {
            "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 16,
        }}),
    );
    assert_eq!(original(read), 24);
    let read = scaled(json!({"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}));
    assert_eq!((read.rope_theta, read.rope_scaling), (5.0, None));
    // The older key wins; what the newer one says is not looked for.
    let read = scaled(json!({
        "rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 5.0},
    }));
    assert_eq!(read.rope_theta, 500_000.0);
}

#[test]
fn refuses_by_name_what_is_not_supported() {
    let bad = [
        (
            "model_type",
            json!("gpt2"),
            "\"gpt2\": expected \"llama\", \"mistral\", \"qwen2\", \"qwen3\", \"smollm3\", \"granite\" or \"gemma3_text\"",
        ),
        ("model_type", json!("ABSENT"), "absent"),
        ("model_type", json!("gemma3"), "takes images too"),
        ("model_type", json!("phi3"), "fuses them"),
        ("hidden_act", json!("gelu"), "\"silu\""),
        ("attention_bias", json!("yes"), "true or false"),
        ("mlp_bias", json!(true), "feed-forward"),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "gptq",
        ),
        ("use_mrope", json!(true), "false"),
        ("partial_rotary_factor", json!(0.5), "all of a head"),
        ("rope_scaling", json!("llama3"), "rope_type"),
        (
            "rope_scaling.factor",
            json!({"rope_type": "llama3"}),
            "absent",
        ),
        (
            "rope_scaling.factor",
            json!({"type": "linear", "factor": 0}),
            "above 0",
        ),
        (
            "rope_scaling.original_max_position_embeddings",
            json!({"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16}),
            "begins earlier is not supported",
        ),
        (
            "rope_scaling.beta_fast",
            json!({"type": "yarn", "factor": 2.0, "beta_fast": 1, "beta_slow": 2}),
            "not below beta_slow",
        ),
        (
            "rope_scaling.truncate",
            json!({"type": "yarn", "factor": 2.0, "truncate": null}),
            "true or false",
        ),
        ("rope_scaling.factor", json!({"type": "yarn"}), "absent"),
        (
            "rope_scaling.mscale",
            json!({"type": "linear", "factor": 2.0, "mscale": 1.0}),
            "no such setting",
        ),
        ("rope_scaling.rope_type", json!({"rope_type": 3}), "is 3"),
        (
            "rope_scaling.factor",
            json!({"factor": 8.0}),
            "no such setting",
        ),
        (
            "rope_parameters.rope_type",
            json!({"rope_type": "longrope"}),
            "\"yarn\" or \"llama3\"",
        ),
        (
            "rope_parameters.full_attention",
            json!({"full_attention": {}}),
            "no such setting",
        ),
        (
            "rope_scaling.high_freq_factor",
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "above low_freq_factor",
        ),
        ("num_key_value_heads", json!(3), "divisor"),
        ("num_attention_heads", json!(3), "divisor of hidden_size"),
        ("num_attention_heads", json!(0), "is 0"),
        ("head_dim", json!(5), "even"),
        ("hidden_size", json!("ABSENT"), "absent"),
        ("hidden_size", json!("16"), "\"16\""),
        ("num_hidden_layers", json!(1 << 20), "to 4096"),
        ("vocab_size", json!(1_u64 << 40), "to 16777216"),
        ("vocab_size", json!("ABSENT"), "absent"),
        ("intermediate_size", json!(-24), "-24"),
        ("rms_norm_eps", json!(-1.0), "above 0"),
        ("rope_theta", json!("big"), "above 0"),
        ("tie_word_embeddings", json!(1), "true or false"),
    ];
    for (key, value, reason) in bad {
        let top = key.split('.').next().unwrap();
        let error = with(&tiny(), json!({top: value})).unwrap_err().to_string();
        assert!(
            error.contains(&format!("'{key}'")) && error.contains(reason),
            "{key} {value}: {error}"
        );
    }
    let error = with(&mistral(), json!({"sliding_window": 0})).unwrap_err();
    assert!(
        error.to_string().contains("'sliding_window' is 0"),
        "{error}"
    );
    for config in [mistral(), qwen3(), smollm3(), granite(), gemma3()] {
        let error = with(&config, json!({"attention_bias": true})).unwrap_err();
        assert!(
            error.to_string().contains("'attention_bias' is true"),
            "{error}"
        );
    }
}

#[test]
fn what_is_quoted_is_short() {
    let long = "x".repeat(100_000);
    let error = with(&tiny(), json!({"rope_scaling": {long.clone(): 1}})).unwrap_err();
    assert!(error.to_string().len() < 600, "{error}");
    let error = with(&tiny(), json!({"model_type": long})).unwrap_err();
    assert!(error.to_string().len() < 600, "{error}");
}

/// Values of every JSON type, some of them right.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "smollm3",
            "granite",
            "gemma3_text",
            "gelu_pytorch_tanh",
            "llama3",
            "default",
            "yarn",
            "linear",
            "dynamic",
            "full_attention",
            "sliding_attention",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let key = prop::sample::select(vec![
            "rope_type",
            "type",
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "rope_theta",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "truncate",
            "full_attention",
            "sliding_attention",
            "odd",
        ])
        .prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever stands in the file, reading it ends, and what it gives can be listed.
    #[test]
    fn any_settings_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 0..6),
        architecture in prop::sample::select(Architecture::ALL.to_vec()),
    ) {
        let config = match architecture {
            Architecture::Qwen3 => qwen3(),
            Architecture::SmolLm3 => smollm3(),
            Architecture::Granite => granite(),
            Architecture::Gemma3 => gemma3(),
            _ => LlamaConfig { architecture, ..tiny() },
        };
        let mut object = object(&config);
        object.insert("rope_parameters".to_owned(), Value::Null);
        object.insert("layer_types".to_owned(), Value::Null);
        let keys: Vec<String> = object.keys().cloned().collect();
        for (index, value) in changes {
            object.insert(index.get(&keys).clone(), value);
        }
        if let Ok(config) = load(&object) {
            prop_assert!(config.tensors().len() <= 3 + 13 * 4096);
            prop_assert_eq!(config.num_attention_heads % config.num_key_value_heads, 0);
            let again: Value = serde_json::from_str(&config.to_json("float32")).unwrap();
            let again = load(again.as_object().unwrap());
            prop_assert_eq!(again.unwrap(), config);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), bytes).unwrap();
        prop_assert!(LlamaConfig::load(dir.path()).is_err());
    }
}

#[test]
fn refuses_a_file_that_is_too_large_or_nested() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, " ".repeat(MAX_CONFIG_BYTES as usize + 1)).unwrap();
    let error = LlamaConfig::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
    std::fs::write(&path, "{\"a\":".repeat(100_000)).unwrap();
    let error = LlamaConfig::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("recursion limit"), "{error}");
}
