use super::super::config::Factor;
use super::*;

fn adapter() -> Adapter {
    let config = LoraConfig::new(2, 16.0, 0.05, [Target::Q, Target::Down]).unwrap();
    // Eleven blocks: by name, block 10 sorts before block 2.
    let layout = Adapter::layout_for(&config, 11, |_, _| (3, 4)).unwrap();
    let values = (0..layout.len()).map(|i| i as f32 * 0.25).collect();
    Adapter::new(config, layout, values).unwrap()
}

fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &adapter(), "base").unwrap();
    dir
}

fn edit_config(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG_FILE);
    let mut object: Map<String, Value> =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    object.insert(key.to_owned(), value);
    std::fs::write(&path, serde_json::to_vec(&object).unwrap()).unwrap();
}

#[test]
fn round_trips() {
    let dir = saved();
    let read = load(dir.path()).unwrap();
    assert_eq!(read, adapter());
    assert_eq!(read.digest(), adapter().digest());
}

#[test]
fn refuses_variants_by_their_setting() {
    let bad = [
        ("use_dora", json!(true)),
        ("use_rslora", json!("yes")),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!(["q_proj"])),
        ("alpha_pattern", json!({"q_proj": 0})),
        ("alpha_pattern", json!({".*q_proj": 4})),
        ("alpha_pattern", json!({"q_proj": 4, "self_attn.q_proj": 5})),
        ("layers_to_transform", json!([0])),
        ("layer_replication", json!([[0, 1]])),
        ("fan_in_fan_out", json!(true)),
        ("target_parameters", json!(["x"])),
        ("target_modules", json!(["lm_head"])),
        ("target_modules", json!([])),
        ("init_lora_weights", json!("pissa")),
        ("peft_type", json!("IA3")),
        ("task_type", json!("SEQ_CLS")),
        ("some_later_variant", json!({"x": 1})),
        ("r", json!(0)),
        ("r", json!(3)),
        ("lora_alpha", json!("16")),
        ("lora_dropout", json!(1.0)),
    ];
    for (key, value) in bad {
        let dir = saved();
        edit_config(dir.path(), key, value.clone());
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("adapter_"), "{key} {value}: {error}");
    }
}

#[test]
fn the_tensors_say_what_a_pattern_covers() {
    let paths = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.3.mlp.down_proj",
    ];
    for (key, value) in [
        ("target_modules", json!("all-linear")),
        ("target_modules", json!(".*\\.(q_proj|down_proj)")),
        ("target_modules", json!(paths)),
        ("exclude_modules", json!(["lm_head"])),
        ("exclude_modules", json!(".*vision.*")),
    ] {
        let dir = saved();
        edit_config(dir.path(), key, value.clone());
        assert_eq!(load(dir.path()).unwrap(), adapter(), "{key} {value}");
    }
    let dir = saved();
    edit_config(dir.path(), "target_modules", json!("all-linear"));
    let text = std::fs::read(dir.path().join(CONFIG_FILE)).unwrap();
    assert!(
        parse_config(Path::new("c"), &text).is_err(),
        "no tensors, no targets"
    );
}

#[test]
fn whole_modules_beside_an_adapter_are_named() {
    let adapter = adapter();
    let dir = saved();
    let path = dir.path().join(WEIGHTS_FILE);
    let more = TensorSpec {
        name: "base_model.model.model.embed_tokens.weight".to_owned(),
        shape: vec![2, 3],
    };
    let zeros = vec![0.0; 64];
    let specs = adapter
        .layout()
        .tensors()
        .iter()
        .chain([&more])
        .map(|spec| {
            let count = spec.shape.iter().product();
            (spec.name.as_str(), spec.shape.as_slice(), &zeros[..count])
        });
    tensors::write(&path, FloatType::F32, specs).unwrap();
    let refused = load(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains("embed_tokens.weight' is a whole module"),
        "{refused}"
    );
    assert!(refused.contains("save_embedding_layers=False"), "{refused}");
}

#[test]
fn refuses_missing_extra_and_misshaped_tensors() {
    let adapter = adapter();
    let specs = adapter.layout().tensors();
    let write = |edit: &dyn Fn(&mut Vec<TensorSpec>)| {
        let dir = saved();
        let mut specs = specs.to_vec();
        edit(&mut specs);
        let zeros = vec![0.0; 64];
        let path = dir.path().join(WEIGHTS_FILE);
        let tensors = specs.iter().map(|spec| {
            let count = spec.shape.iter().product();
            (spec.name.as_str(), spec.shape.as_slice(), &zeros[..count])
        });
        tensors::write(&path, FloatType::F32, tensors).unwrap();
        load(dir.path())
    };
    assert!(write(&|_| ()).is_ok());
    let missing = write(&|specs| drop(specs.remove(5)))
        .unwrap_err()
        .to_string();
    assert!(missing.contains(&specs[5].name), "{missing}");
    let extra = write(&|specs| specs[5].name.push('x'))
        .unwrap_err()
        .to_string();
    assert!(extra.contains("weightx"), "{extra}");
    let shape = write(&|specs| specs[5].shape = vec![4, 3])
        .unwrap_err()
        .to_string();
    assert!(shape.contains(&specs[5].name), "{shape}");
    let rank = write(&|specs| specs[5].shape = vec![12])
        .unwrap_err()
        .to_string();
    assert!(rank.contains(&specs[5].name), "{rank}");
}

#[test]
fn refuses_a_folder_without_files_and_text_that_is_not_json() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains(CONFIG_FILE), "{error}");
    let dir = saved();
    std::fs::write(dir.path().join(CONFIG_FILE), "{").unwrap();
    assert!(matches!(load(dir.path()), Err(PeftError::Json { .. })));
}

#[test]
fn factors_sort_as_the_layout_does() {
    assert!(Factor::A < Factor::B);
    assert!(Target::ALL.is_sorted());
}

#[test]
fn a_rank_stabilised_adapter_round_trips() {
    let adapter = adapter();
    let config = adapter.config().clone().rank_stabilised();
    let layout = adapter.layout().clone();
    let adapter = Adapter::new(config, layout, adapter.values().to_vec()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &adapter, "base").unwrap();
    let text = std::fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
    assert!(text.contains("\"use_rslora\": true"), "{text}");
    let read = load(dir.path()).unwrap();
    assert_eq!(read, adapter);
    assert_eq!(read.config().scale(), 16.0 / 2.0_f64.sqrt());
}

/// What an adapter does on each projection: `s B A`.
fn products(adapter: &Adapter) -> Vec<f64> {
    let (config, mut all) = (adapter.config(), Vec::new());
    let tensors: Vec<_> = adapter.layout().iter().collect();
    for pair in tensors.chunks(2) {
        let [(a, a_values), (b, b_values)] = pair else {
            panic!("an adapter has pairs");
        };
        let (rank, inner, outer) = (a.shape[0], a.shape[1], b.shape[0]);
        let (a, b) = (
            &adapter.values()[a_values.clone()],
            &adapter.values()[b_values.clone()],
        );
        for row in 0..outer {
            for column in 0..inner {
                let terms = (0..rank)
                    .map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * inner + column]));
                all.push(config.scale() * terms.sum::<f64>());
            }
        }
    }
    all
}

#[test]
fn ranks_and_alphas_by_module_are_read_as_one_rank_that_computes_the_same() {
    let config = LoraConfig::new(2, 6.0, 0.0, [Target::Q, Target::V]).unwrap();
    for stabilised in [false, true] {
        let wide = |target| if target == Target::Q { 3 } else { 2 };
        let scale = |target, layer| {
            let (rank, alpha) = match (target, layer) {
                (Target::Q, 1) => (3.0, 5.0),
                (Target::Q, _) => (3.0, 6.0),
                _ => (2.0, 6.0_f64),
            };
            alpha / if stabilised { f64::sqrt(rank) } else { rank }
        };
        let (mut specs, mut values, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for layer in 0..2 {
            for target in [Target::Q, Target::V] {
                let rank = wide(target);
                let number = |at: usize| ((at * 7 + layer) % 5) as f32 - 2.0;
                let a: Vec<_> = (0..rank * 3).map(number).collect();
                let b: Vec<_> = (0..4 * rank).map(|at| number(at + 1)).collect();
                for row in 0..4 {
                    for column in 0..3 {
                        let terms = (0..rank)
                            .map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * 3 + column]));
                        expected.push(scale(target, layer) * terms.sum::<f64>());
                    }
                }
                for (factor, shape, part) in
                    [(Factor::A, vec![rank, 3], a), (Factor::B, vec![4, rank], b)]
                {
                    let place = ProjectionTensor {
                        layer,
                        target,
                        factor,
                    };
                    specs.push((place.name(), shape));
                    values.push(part);
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let tensors = specs.iter().zip(&values);
        let tensors = tensors.map(|((name, shape), part)| (name.as_str(), &shape[..], &part[..]));
        tensors::write(&dir.path().join(WEIGHTS_FILE), FloatType::F32, tensors).unwrap();
        let mut text = config_json(&config, "base");
        text["rank_pattern"] = json!({"q_proj": 3});
        text["alpha_pattern"] = json!({"layers.1.self_attn.q_proj": 5});
        text["use_rslora"] = json!(stabilised);
        std::fs::write(dir.path().join(CONFIG_FILE), text.to_string()).unwrap();
        let adapter = load(dir.path()).unwrap();
        assert_eq!(adapter.config().rank(), 3);
        let found = products(&adapter);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} not {expected}");
        }
        // What it is written as is read as the same.
        save(dir.path(), &adapter, "base").unwrap();
        assert_eq!(load(dir.path()).unwrap(), adapter);
    }
}
