//! What `config.json` says of the architectures apart from Llama.

use serde_json::{Value, json};

use super::tests::{gemma3, granite, qwen2, qwen3, smollm3, tiny, with};
use super::*;

#[test]
fn yarn_is_read_as_transformers_reads_it() {
    let read = |settings: Value| {
        let mut rope = json!({"rope_type": "yarn", "factor": 4.0});
        for (key, value) in settings.as_object().unwrap() {
            rope[key] = value.clone();
        }
        match with(&tiny(), json!({"rope_scaling": rope}))
            .unwrap()
            .rope_scaling
        {
            Some(RopeScaling::Yarn(yarn)) => yarn,
            other => panic!("{other:?}"),
        }
    };
    let plain = read(json!({}));
    assert_eq!(plain.attention_factor, 0.1 * 4.0_f64.ln() + 1.0);
    assert_eq!(
        (plain.beta_fast, plain.beta_slow, plain.truncate),
        (32.0, 1.0, true)
    );
    assert_eq!(plain.original_max_position_embeddings, 64);
    // Without a factor, the ratio of the positions.
    let ratio = read(json!({"factor": null, "original_max_position_embeddings": 16}));
    assert_eq!(ratio.factor, 4.0);
    // Either scale counts where both are stated.
    assert_eq!(read(json!({"mscale": 0.5})), plain);
    let both = read(json!({"mscale": 0.5, "mscale_all_dim": 2.0}));
    let scale = |of: f64| 0.1 * of * 4.0_f64.ln() + 1.0;
    assert_eq!(both.attention_factor, scale(0.5) / scale(2.0));
    let stated = read(json!({"mscale": 0.5, "mscale_all_dim": 2.0, "attention_factor": 1.5}));
    assert_eq!(stated.attention_factor, 1.5);
    assert_eq!(read(json!({"factor": 1.0})).attention_factor, 1.0);
}

#[test]
fn qwen_has_its_window_in_the_blocks_that_the_file_names() {
    for qwen in [qwen2(), qwen3()] {
        let read = |settings: Value| with(&qwen, settings);
        let windows = |settings: Value| {
            let config = read(settings).unwrap();
            [config.window(0), config.window(1)]
        };
        let on = |blocks: u64| {
            json!({
                "use_sliding_window": true, "sliding_window": 8, "max_window_layers": blocks,
            })
        };
        assert_eq!(windows(on(0)), [Some(8); 2]);
        assert_eq!(windows(on(1)), [None, Some(8)]);
        // A window that no block has is none.
        for blocks in [2, 99] {
            assert_eq!(read(on(blocks)).unwrap(), qwen);
        }
        let off = json!({"use_sliding_window": false, "sliding_window": 8, "max_window_layers": 1});
        assert_eq!(read(off).unwrap(), qwen);
        // Nor is one that no sequence leaves.
        let wide = json!({
            "use_sliding_window": true, "sliding_window": 64, "max_window_layers": 1,
        });
        assert_eq!(read(wide).unwrap(), qwen);
        let kinds = |first: &str| {
            json!({
                "use_sliding_window": true, "sliding_window": 8,
                "layer_types": [first, "sliding_attention"],
            })
        };
        assert_eq!(windows(kinds("sliding_attention")), [Some(8); 2]);
        assert_eq!(windows(kinds("full_attention")), [None, Some(8)]);
        let error = read(kinds("chunked_attention")).unwrap_err().to_string();
        assert!(error.contains("layer_types"), "{error}");
    }
}

#[test]
fn smollm3_rotates_all_blocks_but_those_that_the_file_names() {
    let five = |settings: Value| {
        let mut all = json!({"num_hidden_layers": 5, "layer_types": "ABSENT"});
        for (key, value) in settings.as_object().unwrap() {
            all[key] = value.clone();
        }
        with(&smollm3(), all)
    };
    let unrotated = |settings: Value| {
        let found = five(settings).unwrap().variation.unrotated;
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(unrotated(json!({"no_rope_layers": "ABSENT"})), [3]);
    let every = json!({"no_rope_layers": null, "no_rope_layer_interval": 2});
    assert_eq!(unrotated(every), [1, 3]);
    assert_eq!(
        unrotated(json!({"no_rope_layers": [0, 1, 1, 1, 0]})),
        [0, 4]
    );
    // Blocks that do not rotate have the window, where the file does not list them.
    let windowed = json!({
        "no_rope_layers": "ABSENT", "use_sliding_window": true, "sliding_window": 8,
    });
    let config = five(windowed).unwrap();
    let windows: Vec<_> = (0..5).map(|block| config.window(block)).collect();
    assert_eq!(windows, [None, None, None, Some(8), None]);
    for bad in [json!([1, 1]), json!([1, 1, 1, 1, 2]), json!(1)] {
        let error = five(json!({"no_rope_layers": bad}))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("'no_rope_layers'") && error.contains("0 or 1"),
            "{error}"
        );
    }
}

#[test]
fn granite_multiplies_by_one_where_a_factor_is_absent() {
    let plain = with(
        &granite(),
        json!({
            "embedding_multiplier": "ABSENT", "attention_multiplier": "ABSENT",
            "residual_multiplier": "ABSENT", "logits_scaling": "ABSENT",
        }),
    );
    let expected = Multipliers {
        attention: Some(1.0),
        ..Multipliers::default()
    };
    assert_eq!(plain.unwrap().variation.multipliers, expected);
    let error = with(&granite(), json!({"logits_scaling": 0}))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("'logits_scaling' is 0: expected a number above 0"),
        "{error}"
    );
}

#[test]
fn gemma3_is_read_as_transformers_reads_it() {
    let seven = |settings: Value| {
        let mut all = json!({"num_hidden_layers": 7, "layer_types": "ABSENT"});
        for (key, value) in settings.as_object().unwrap() {
            all[key] = value.clone();
        }
        with(&gemma3(), all).unwrap()
    };
    let windows = |config: &LlamaConfig| -> Vec<Option<usize>> {
        (0..7).map(|block| config.window(block)).collect()
    };
    let mut absent = json!({});
    for key in [
        "sliding_window",
        "query_pre_attn_scalar",
        "rope_theta",
        "rope_local_base_freq",
        "hidden_activation",
        "head_dim",
        "max_position_embeddings",
        "tie_word_embeddings",
        "vocab_size",
        "bos_token_id",
        "eos_token_id",
        "rms_norm_eps",
    ] {
        absent[key] = json!("ABSENT");
    }
    let config = seven(absent);
    let mut expected = vec![Some(4096); 7];
    expected[5] = None;
    assert_eq!(windows(&config), expected);
    assert_eq!((config.rope_theta, config.rms_norm_eps), (1e6, 1e-6));
    assert_eq!(config.variation.local_theta, Some(10_000.0));
    assert_eq!(config.variation.multipliers.attention, Some(0.0625));
    assert_eq!(config.variation.multipliers.embedding, 4.0);
    assert_eq!((config.head_dim, config.vocab_size), (256, 262_208));
    assert!(config.tie_word_embeddings && config.variation.output_norms);
    assert_eq!(
        (config.bos_token_id, config.eos_token_id),
        (Some(2), Some(1))
    );
    assert_eq!(config.max_position_embeddings, 131_072);

    let pattern = seven(json!({"sliding_window_pattern": 2, "sliding_window": 9}));
    assert_eq!(windows(&pattern)[..3], [Some(9), None, Some(9)]);
    // A window that no sequence leaves has a rotation of its own all the same.
    let wide = seven(json!({"sliding_window": 64}));
    assert_eq!(wide.window(0), Some(64));
    let full = json!({"layer_types": vec!["full_attention"; 7]});
    let full = seven(full);
    assert_eq!(
        (full.sliding_window, full.variation.local_theta),
        (None, None)
    );

    // Transformers 5 writes both rotations as objects.
    let rotations = |full: Value, local: Value| {
        json!({
            "rope_theta": "ABSENT", "rope_scaling": "ABSENT", "rope_local_base_freq": "ABSENT",
            "rope_parameters": {"full_attention": full, "sliding_attention": local},
        })
    };
    let config = seven(rotations(
        json!({"rope_type": "linear", "factor": 8.0, "rope_theta": 300.0}),
        json!({"rope_type": "default", "rope_theta": 20.0}),
    ));
    assert_eq!(
        (config.rope_theta, config.variation.local_theta),
        (300.0, Some(20.0))
    );
    assert_eq!(
        config.rope_scaling,
        Some(RopeScaling::Linear { factor: 8.0 })
    );
    let local = config.local_rope().unwrap();
    assert_eq!((local.rope_theta, local.rope_scaling), (20.0, None));
    let unstated = seven(rotations(json!({"rope_type": "default"}), Value::Null));
    assert_eq!(
        (unstated.rope_theta, unstated.variation.local_theta),
        (1e6, Some(10_000.0))
    );

    let linear = json!({"rope_type": "linear", "factor": 8.0});
    let default = json!({"rope_type": "default"});
    for (settings, key) in [
        (json!({"hidden_activation": "gelu"}), "'hidden_activation'"),
        (
            json!({"final_logit_softcapping": 30.0}),
            "'final_logit_softcapping'",
        ),
        (
            json!({"attn_logit_softcapping": 50.0}),
            "'attn_logit_softcapping'",
        ),
        (
            json!({"use_bidirectional_attention": true}),
            "'use_bidirectional_attention'",
        ),
        (json!({"sliding_window": null}), "'sliding_window'"),
        (
            json!({"layer_types": null, "sliding_window_pattern": 0}),
            "'sliding_window_pattern'",
        ),
        (
            rotations(default.clone(), linear.clone()),
            "'rope_parameters.sliding_attention.rope_type'",
        ),
        (
            json!({"rope_parameters": linear}),
            "'rope_parameters.factor'",
        ),
        (
            json!({"rope_scaling": linear, "rope_parameters": {"full_attention": default}}),
            "'rope_scaling'",
        ),
    ] {
        let error = with(&gemma3(), settings).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn mixtures_of_experts_are_refused_as_such() {
    for kind in [
        "llama4",
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "granitemoe",
        "gpt_oss",
    ] {
        let error = with(&tiny(), json!({"model_type": kind}))
            .unwrap_err()
            .to_string();
        let expected = format!("'model_type' is \"{kind}\": expected a dense model");
        assert!(
            error.contains(&expected) && error.contains("mixture of experts"),
            "{error}"
        );
    }
    let odd = json!({"model_type": "odd", "num_local_experts": 8});
    let error = with(&tiny(), odd).unwrap_err().to_string();
    assert!(error.contains("mixture of experts"), "{error}");
}
