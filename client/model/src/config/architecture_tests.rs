//! What `config.json` says of the architectures apart from Llama.

use serde_json::{Value, json};

use super::tests::{granite, qwen2, qwen3, smollm3, tiny, with};
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
