use std::path::PathBuf;

use fedlora_adapter::tensors::FloatType;
use proptest::prelude::*;

use super::super::config::{Architecture, Llama3Scaling, RopeScaling, YarnScaling};
use super::metadata::{List, Value};
use super::test_file::{TestFile, golden, golden_path, smollm2};
use super::*;

/// Every bit of every value counts, and its place: what the script computes of the bits.
fn fingerprint(values: &[f32]) -> String {
    let sum = values
        .iter()
        .zip(1_u64..)
        .fold(0_u64, |sum, (value, place)| {
            sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(place))
        });
    sum.to_string()
}

/// All types, bit for bit as the gguf package has them.
#[test]
fn dequantised_values_are_those_of_the_gguf_package() {
    let container = Container::open(&golden_path("quants.gguf")).unwrap();
    let golden = golden();
    let expected = golden["quants"].as_object().unwrap();
    assert_eq!(expected.len(), quant::TensorType::ALL.len());
    for kind in quant::TensorType::ALL {
        let expected = &expected[kind.name()];
        let info = &container.tensors()[kind.name()];
        assert_eq!(info.kind, kind);
        let values =
            values::read_values(&container, kind.name(), info, values::RowOrder::Plain).unwrap();
        for (index, sample) in expected["first_row"].as_array().unwrap().iter().enumerate() {
            let sample = sample.as_f64().unwrap() as f32;
            assert_eq!(values[7 * index], sample, "{kind:?}, value {}", 7 * index);
        }
        assert_eq!(fingerprint(&values), expected["fingerprint"], "{kind:?}");
    }
}

/// Names, rows and values of all tensors as Transformers has them after loading the file.
#[test]
fn weights_are_those_that_transformers_loads() {
    let golden = golden();
    for (name, expected) in golden["models"].as_object().unwrap() {
        let weights = BaseWeights::from_gguf(&golden_path(&format!("{name}.gguf"))).unwrap();
        let expected = expected["weights"].as_object().unwrap();
        for (index, (tensor, _)) in weights.config().tensors().iter().enumerate() {
            let values = weights.read(index).unwrap().values;
            assert_eq!(fingerprint(&values), expected[tensor], "{name}: {tensor}");
        }
        // Transformers lists a tied output layer as well.
        let tied = usize::from(weights.config().tie_word_embeddings);
        assert_eq!(
            weights.config().tensors().len() + tied,
            expected.len(),
            "{name}"
        );
    }
}

#[test]
fn the_configuration_is_that_of_the_metadata() {
    let open = |name| BaseWeights::from_gguf(&golden_path(name)).unwrap();
    let weights = open("llama3-rope.gguf");
    let config = weights.config();
    assert_eq!(config.architecture, Architecture::Llama);
    let sizes = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
    );
    assert_eq!(sizes, (32, 32, 1));
    let heads = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    );
    assert_eq!(heads, (2, 1, 16));
    assert_eq!(config.max_position_embeddings, 128);
    assert_eq!(config.rms_norm_eps, f64::from(1e-5_f32));
    assert!(config.tie_word_embeddings && !config.qkv_bias);
    assert_eq!(
        (config.bos_token_id, config.eos_token_id),
        (Some(1), Some(2))
    );
    let scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(config.rope_scaling, Some(RopeScaling::Llama3(scaling)));

    let qwen2 = open("qwen2.gguf");
    assert_eq!(qwen2.config().architecture, Architecture::Qwen2);
    assert!(qwen2.config().qkv_bias && qwen2.config().tie_word_embeddings);
    assert!(!open("llama-k.gguf").config().tie_word_embeddings);
}

/// A folder written from a GGUF file is the same base.
#[test]
fn a_folder_with_the_same_values_has_the_same_digest() {
    for name in ["llama-mixed.gguf", "qwen2.gguf", "llama3-rope.gguf"] {
        let weights = BaseWeights::from_gguf(&golden_path(name)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        weights.save(dir.path(), FloatType::F32).unwrap();
        let folder = BaseWeights::load(dir.path()).unwrap();
        assert_eq!(
            folder.digest().unwrap(),
            weights.digest().unwrap(),
            "{name}"
        );
    }
}

/// SmolLM2 in two forms: the GGUF file, and the folder that Transformers converts it to
/// (`examples/oracle/convert_gguf.py`).
#[test]
fn smollm2_is_the_same_from_gguf_and_from_a_converted_folder() {
    let folder = std::env::var_os("FEDLORA_SMOLLM2_FOLDER").map(PathBuf::from);
    let (Some(file), Some(folder)) = (smollm2(), folder) else {
        println!("skipped: needs FEDLORA_SMOLLM2 and FEDLORA_SMOLLM2_FOLDER");
        return;
    };
    let weights = BaseWeights::from_gguf(&file).unwrap();
    let folder = BaseWeights::load(&folder).unwrap();
    let (ours, theirs) = (weights.config(), folder.config());
    assert_eq!(ours, theirs);
    assert_eq!(weights.parameters(), 134_515_008);
    assert_eq!(weights.digest().unwrap(), folder.digest().unwrap());
}

/// Opens a changed file and reads all its tensors.
fn read(file: &TestFile) -> Result<BaseWeights, WeightsError> {
    let (_dir, path) = file.write();
    read_all(&path)
}

fn read_all(path: &Path) -> Result<BaseWeights, WeightsError> {
    let weights = BaseWeights::from_gguf(path)?;
    for index in 0..weights.config().tensors().len() {
        weights.read(index)?;
    }
    Ok(weights)
}

fn refusal(file: &TestFile) -> String {
    read(file).unwrap_err().to_string()
}

#[test]
fn a_file_written_again_is_the_same_model() {
    let again = read(&TestFile::golden("llama-mixed.gguf")).unwrap();
    let weights = BaseWeights::from_gguf(&golden_path("llama-mixed.gguf")).unwrap();
    assert_eq!(again.digest().unwrap(), weights.digest().unwrap());
}

/// Writes a golden file in two parts as `gguf-split` does: the metadata in the first alone.
fn in_two_parts(dir: &std::path::Path) -> [PathBuf; 2] {
    let whole = TestFile::golden("llama-mixed.gguf");
    let (count, half) = (whole.tensors.len(), whole.tensors.len() / 2);
    let split = |file: TestFile, number: i128| {
        file.set("split.no", Value::Integer(number))
            .set("split.count", Value::Integer(2))
            .set("split.tensors.count", Value::Integer(count as i128))
    };
    let mut first = split(whole, 0);
    let mut second = TestFile {
        values: Default::default(),
        tensors: Default::default(),
    };
    let moved: Vec<_> = first.tensors.keys().skip(half).cloned().collect();
    for name in moved {
        let tensor = first.tensors.remove(&name).unwrap();
        second.tensors.insert(name, tensor);
    }
    let paths = [1, 2].map(|part| dir.join(format!("m-0000{part}-of-00002.gguf")));
    for (path, file) in paths.iter().zip([first, split(second, 1)]) {
        let (_dir, written) = file.write();
        std::fs::copy(written, path).unwrap();
    }
    paths
}

#[test]
fn a_model_in_two_parts_is_read_by_either() {
    let whole = BaseWeights::from_gguf(&golden_path("llama-mixed.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let paths = in_two_parts(dir.path());
    let first = BaseWeights::from_gguf(&paths[0]).unwrap();
    assert_eq!(first.digest().unwrap(), whole.digest().unwrap());
    let second = BaseWeights::from_gguf(&paths[1]).unwrap();
    assert_eq!(second.digest().unwrap(), whole.digest().unwrap());
}

#[test]
fn parts_that_do_not_belong_together_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = in_two_parts(dir.path());
    let refusal = |path: &std::path::Path| BaseWeights::from_gguf(path).unwrap_err().to_string();
    let other = dir.path().join("other.gguf");
    std::fs::copy(&paths[1], &other).unwrap();
    let said = refusal(&other);
    assert!(
        said.contains("it is part 2 of 2") && said.contains("-00002-of-00002.gguf"),
        "{said}"
    );
    std::fs::rename(&paths[1], dir.path().join("away.gguf")).unwrap();
    let said = refusal(&paths[0]);
    assert!(said.contains("part 2 is missing: put"), "{said}");
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    let said = refusal(&paths[0]);
    assert!(said.contains("says that it is another part"), "{said}");
}

#[test]
fn names_tensors_that_are_missing_extra_misshaped_or_not_finite() {
    let file = || TestFile::golden("llama-mixed.gguf");
    for name in [
        "token_embd.weight",
        "output_norm.weight",
        "blk.1.ffn_up.weight",
    ] {
        let mut changed = file();
        changed.tensors.remove(name).unwrap();
        let missing = refusal(&changed);
        assert!(
            missing.contains(&format!("'{name}' is missing")),
            "{missing}"
        );
    }
    let missing = refusal(&file().set("llama.block_count", Value::Integer(1 << 24)));
    assert!(
        missing.contains("'blk.2.attn_norm.weight' is missing"),
        "{missing}"
    );

    let extra = refusal(&file().set("llama.block_count", Value::Integer(1)));
    assert!(
        extra.contains("'blk.1.attn_k.weight' does not belong"),
        "{extra}"
    );
    // Biases, which Llama files must not have.
    let mut changed = file();
    let bias = changed.tensors["output_norm.weight"].clone();
    changed.tensors.insert("blk.0.attn_q.bias".to_owned(), bias);
    let extra = refusal(&changed);
    assert!(
        extra.contains("'blk.0.attn_q.bias' does not belong"),
        "{extra}"
    );

    let mut changed = file();
    changed.tensor("blk.0.ffn_down.weight").shape.reverse();
    let shape = refusal(&changed);
    assert!(shape.contains("'blk.0.ffn_down.weight'"), "{shape}");
    assert!(
        shape.contains("[64, 32]") && shape.contains("[32, 64]"),
        "{shape}"
    );
    let shape = refusal(&file().set("llama.vocab_size", Value::Integer(421)));
    assert!(
        shape.contains("'token_embd.weight'") && shape.contains("421"),
        "{shape}"
    );

    let mut changed = file();
    let bytes = &mut changed.tensor("blk.1.ffn_down.weight").bytes;
    bytes[4 * 70..4 * 71].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refusal(&changed);
    assert!(
        error.contains("element 70 of tensor 'blk.1.ffn_down.weight'"),
        "{error}"
    );
}

/// The element that an error names is the model's, not the file's.
#[test]
fn a_value_that_is_not_finite_is_found_among_permuted_rows() {
    let mut file = TestFile::golden("llama3-rope.gguf");
    // Row 3 of the second head of 16, as stored; that is row 16 + 8 + 1 of the model.
    let at = 2 * (32 * (16 + 3) + 5);
    let bytes = &mut file.tensor("blk.0.attn_q.weight").bytes;
    bytes[at..at + 2].copy_from_slice(&half::bf16::INFINITY.to_le_bytes());
    let error = refusal(&file);
    let index = 32 * (16 + 8 + 1) + 5;
    let expected = format!("element {index} of tensor 'blk.0.attn_q.weight'");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn refuses_by_name_what_the_metadata_must_not_say() {
    let text = |text: &str| Value::Text(text.to_owned());
    let (number, float) = (Value::Integer, Value::Float);
    for (key, value) in [
        ("general.architecture", text("gemma")),
        ("general.architecture", number(1)),
        ("llama.block_count", number(0)),
        ("llama.block_count", float(2.0)),
        ("llama.embedding_length", number((1 << 24) + 1)),
        ("llama.feed_forward_length", number(-1)),
        ("llama.attention.head_count", number(0)),
        ("llama.attention.head_count_kv", number(3)),
        ("llama.attention.head_count_kv", Value::List(List::texts())),
        ("llama.attention.key_length", number(7)),
        ("llama.attention.value_length", number(16)),
        ("llama.attention.key_length", number(16)),
        ("llama.attention.layer_norm_rms_epsilon", float(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", number(1)),
        ("llama.rope.freq_base", float(f64::NAN)),
        ("llama.rope.scaling.type", text("longrope")),
        ("llama.rope.scaling.factor", float(-4.0)),
        ("llama.rope.scale_linear", text("4")),
        ("llama.rope.scaling.attn_factor", float(2.0)),
        ("llama.expert_count", number(8)),
        ("llama.vocab_size", number(0)),
        ("tokenizer.ggml.eos_token_id", number(-1)),
    ] {
        let file = TestFile::golden("llama-mixed.gguf").set(key, value.clone());
        let error = refusal(&file);
        // A width of heads that does not fit the rotation is told as the rotation's.
        let key = match (key, &value) {
            ("llama.attention.key_length", Value::Integer(16)) => "llama.rope.dimension_count",
            _ => key,
        };
        assert!(
            error.contains(&format!("'{key}' is ")),
            "{key} {value:?}: {error}"
        );
    }
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.context_length",
    ] {
        let error = refusal(&TestFile::golden("llama-mixed.gguf").without(key));
        assert!(
            error.contains(&format!("'{key}' is absent")),
            "{key}: {error}"
        );
    }
}

#[test]
fn takes_what_files_may_leave_out() {
    let config = |file: &TestFile| read(file).unwrap().config().clone();
    let whole = config(&TestFile::golden("llama-mixed.gguf"));
    let mut file = TestFile::golden("llama-mixed.gguf")
        .without("llama.vocab_size")
        .without("llama.rope.dimension_count")
        .without("llama.rope.freq_base")
        .set("llama.expert_count", Value::Integer(0))
        .set("llama.rope.scaling.type", Value::Text("none".to_owned()))
        .set("llama.rope.scaling.factor", Value::Float(1.0));
    assert_eq!(config(&file), whole);
    file = file.set("llama.attention.sliding_window", Value::Integer(16));
    assert_eq!(config(&file).sliding_window, Some(16));
    assert_eq!(config(&file).architecture, Architecture::Mistral);
    file.tensors.remove("output.weight");
    assert!(config(&file).tie_word_embeddings);
}

#[test]
fn what_architectures_compute_otherwise_is_that_of_the_metadata() {
    let open = |name| BaseWeights::from_gguf(&golden_path(name)).unwrap();
    let qwen3 = open("qwen3.gguf").config().clone();
    assert!(qwen3.variation.qk_norm && !qwen3.qkv_bias);
    assert_eq!(
        (qwen3.architecture, qwen3.head_dim),
        (Architecture::Qwen3, 80)
    );
    let smollm3 = open("smollm3.gguf").config().clone();
    assert_eq!(smollm3.variation.unrotated, [3].into());
    let granite = open("granite.gguf").config().variation.multipliers;
    assert_eq!((granite.embedding, granite.attention), (12.0, Some(0.5)));
    assert_eq!(
        (granite.residual as f32, granite.logits_scaling),
        (0.22, 6.0)
    );
    // The file of a folder says what the folder says.
    let gemma3 = open("gemma3.gguf").config().clone();
    let folder = golden_path("../architectures/gemma3");
    let stated = BaseWeights::load(&folder).unwrap().config().clone();
    assert_eq!(gemma3.variation, stated.variation);
    assert_eq!(
        (
            gemma3.sliding_window,
            gemma3.rope_scaling,
            gemma3.rope_theta
        ),
        (
            stated.sliding_window,
            stated.rope_scaling,
            stated.rope_theta
        )
    );
    let file = || TestFile::golden("gemma3.gguf");
    let variation = |file: TestFile| read(&file).unwrap().config().variation.clone();
    let pattern = "gemma3.attention.sliding_window_pattern";
    let pattern = variation(file().set(pattern, Value::Integer(2)));
    assert_eq!(pattern.unwindowed, [1, 3, 5].into());
    let local = variation(file().set("gemma3.rope.freq_base_swa", Value::Float(500.0)));
    assert_eq!(local.local_theta, Some(500.0));
    let full = variation(file().without("gemma3.attention.sliding_window"));
    assert_eq!((full.local_theta, full.unwindowed), (None, [].into()));
    let capped = file().set("gemma3.final_logit_softcapping", Value::Float(30.0));
    assert!(refusal(&capped).contains("soft caps"));
    // As llama.cpp takes them where they are absent.
    let file = TestFile::golden("granite.gguf").without("granite.attention.scale");
    assert_eq!(
        read(&file)
            .unwrap()
            .config()
            .variation
            .multipliers
            .attention,
        None
    );
    let windowed =
        TestFile::golden("qwen3.gguf").set("qwen3.attention.sliding_window", Value::Integer(8));
    let error = refusal(&windowed);
    assert!(
        error.contains("'qwen3.attention.sliding_window' is 8"),
        "{error}"
    );
    let fused = Value::Text("phi3".to_owned());
    let error = refusal(&TestFile::golden("qwen3.gguf").set("general.architecture", fused));
    assert!(error.contains("fuses them"), "{error}");
    for mixture in ["qwen3moe", "llama4", "granitemoe"] {
        let named = Value::Text(mixture.to_owned());
        let error = refusal(&TestFile::golden("qwen3.gguf").set("general.architecture", named));
        assert!(error.contains("mixture of experts"), "{error}");
    }
}

#[test]
fn scaled_rotations_are_read_as_llama_cpp_reads_them() {
    let file = || TestFile::golden("llama-mixed.gguf");
    let read = |file: TestFile| read(&file).map(|weights| weights.config().rope_scaling);
    let text = |text: &str| Value::Text(text.to_owned());
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    let factor = || file().set("llama.rope.scaling.factor", Value::Float(4.0));
    assert_eq!(read(factor()).unwrap(), linear);
    let named = factor().set("llama.rope.scaling.type", text("linear"));
    assert_eq!(read(named).unwrap(), linear);
    let older = file().set("llama.rope.scale_linear", Value::Float(4.0));
    assert_eq!(read(older).unwrap(), linear);
    let off = factor().set("llama.rope.scaling.type", text("none"));
    assert_eq!(read(off).unwrap(), None);

    let original = "llama.rope.scaling.original_context_length";
    let yarn = || factor().set("llama.rope.scaling.type", text("yarn"));
    let found = read(yarn().set(original, Value::Integer(32))).unwrap();
    let expected = YarnScaling {
        factor: 4.0,
        attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 32,
        truncate: true,
    };
    assert_eq!(found, Some(RopeScaling::Yarn(expected)));
    let error = read(yarn()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("'{original}' is absent")),
        "{error}"
    );
    let plain = file().set("llama.rope.scaling.type", text("yarn"));
    let error = read(plain).unwrap_err().to_string();
    assert!(
        error.contains("'llama.rope.scaling.factor' is absent"),
        "{error}"
    );

    let both =
        TestFile::golden("llama3-rope.gguf").set("llama.rope.scaling.factor", Value::Float(4.0));
    let error = read(both).unwrap_err().to_string();
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn refuses_rope_factors_that_are_not_llama_3s() {
    let mut file = TestFile::golden("llama3-rope.gguf");
    file.tensor("rope_freqs.weight").bytes[8..12].copy_from_slice(&3.0_f32.to_le_bytes());
    let error = refusal(&file);
    assert!(error.contains("'rope_freqs.weight'"), "{error}");
    let factors = file.tensor("rope_freqs.weight");
    factors.shape = vec![4];
    factors.bytes.truncate(16);
    let error = refusal(&file);
    assert!(error.contains("[4]") && error.contains("[8]"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = BaseWeights::from_gguf(Path::new("/nowhere/x.gguf")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/x.gguf"), "{error}");
    assert!(is_gguf(Path::new("/nowhere/x.gguf")));
    assert!(is_gguf(&golden_path("qwen2.gguf")));
    assert!(!is_gguf(&golden_path("golden.json")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Changes anywhere, most of them in the header: a model or a refusal, never a panic.
    #[test]
    fn a_mutated_model_is_read_or_refused(
        changes in proptest::collection::vec((0_usize..1 << 12, any::<u8>()), 1..8),
        cut in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(golden_path("llama-k.gguf")).unwrap();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        let _ = read_all(&path);
    }
}
