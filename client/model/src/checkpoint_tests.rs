//! What a folder's files may hold, and every way in which one can be broken.

use std::collections::HashMap;
use std::fs;

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::super::config::tests::tiny;
use super::super::weights::BaseWeights;
use super::*;
use crate::testing::random_weights as random;

/// A tensor as it stands in a file.
#[derive(Clone)]
struct FileTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, FileTensor>;

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let each = |f: fn(f32) -> Vec<u8>| values.iter().flat_map(|&value| f(value)).collect();
    match dtype {
        Dtype::F16 => each(|value| f16::from_f32(value).to_le_bytes().to_vec()),
        Dtype::BF16 => each(|value| bf16::from_f32(value).to_le_bytes().to_vec()),
        _ => each(|value| value.to_le_bytes().to_vec()),
    }
}

/// The tensors of a random model, with its configuration written to `dir`.
fn model(dir: &Path, config: &LlamaConfig, dtype: Dtype) -> (BaseWeights, Tensors) {
    fs::write(dir.join("config.json"), config.to_json("float32")).unwrap();
    let weights = random(config.clone(), 1);
    let tensors = config
        .tensors()
        .into_iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let bytes = encode(dtype, &weights.read(index).unwrap().values);
            (
                name,
                FileTensor {
                    dtype,
                    shape,
                    bytes,
                },
            )
        })
        .collect();
    (weights, tensors)
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, raw)| {
        let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap();
        (name.clone(), view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Opens the folder; reads every tensor where it can be opened.
fn error(dir: &Path) -> String {
    let opened = BaseWeights::load(dir);
    let read = opened.and_then(|weights| {
        let count = weights.config().tensors().len();
        (0..count).try_for_each(|index| weights.read(index).map(drop))
    });
    read.unwrap_err().to_string()
}

/// A folder with one file, changed by `edit`.
fn broken(config: &LlamaConfig, edit: impl FnOnce(&mut Tensors)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = model(dir.path(), config, Dtype::F32);
    edit(&mut tensors);
    write(&dir.path().join(SINGLE_FILE), &tensors);
    error(dir.path())
}

fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "no \"{part}\" in: {error}");
    }
}

const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn all_three_types_are_read_as_they_round() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let dir = tempfile::tempdir().unwrap();
        let (weights, tensors) = model(dir.path(), &tiny(), dtype);
        write(&dir.path().join(SINGLE_FILE), &tensors);
        let read = BaseWeights::load(dir.path()).unwrap();
        for index in 0..tiny().tensors().len() {
            let (got, exact) = (read.read(index).unwrap(), weights.read(index).unwrap());
            assert_eq!(got.shape, exact.shape);
            let rounded = |value: f32| match dtype {
                Dtype::F16 => f16::from_f32(value).to_f32(),
                Dtype::BF16 => bf16::from_f32(value).to_f32(),
                _ => value,
            };
            let expected: Vec<f32> = exact.values.iter().map(|&value| rounded(value)).collect();
            assert_eq!(got.values, expected);
        }
    }
}

#[test]
fn a_tensor_of_several_pieces_is_read_whole() {
    // 1.6 MB an embedding.
    let config = LlamaConfig {
        vocab_size: 25_000,
        ..tiny()
    };
    let dir = tempfile::tempdir().unwrap();
    let (weights, mut tensors) = model(dir.path(), &config, Dtype::F32);
    let file = dir.path().join(SINGLE_FILE);
    write(&file, &tensors);
    let read = BaseWeights::load(dir.path()).unwrap();
    assert_eq!(read.read(0).unwrap(), weights.read(0).unwrap());
    let embedding = tensors.get_mut("model.embed_tokens.weight").unwrap();
    embedding.bytes[4 * 300_000..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write(&file, &tensors);
    assert_says(
        &error(dir.path()),
        &[
            "'model.embed_tokens.weight'",
            "not finite at element 300000",
        ],
    );
}

#[test]
fn opening_reads_no_values() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = model(dir.path(), &tiny(), Dtype::F32);
    let up = tensors.get_mut(UP).unwrap();
    up.bytes[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
    write(&dir.path().join(SINGLE_FILE), &tensors);
    let weights = BaseWeights::load(dir.path()).unwrap();
    let names: Vec<String> = tiny().tensors().into_iter().map(|(name, _)| name).collect();
    let at = names.iter().position(|name| name == UP).unwrap();
    assert!(weights.read(at - 1).is_ok());
    let error = weights.read(at).unwrap_err().to_string();
    assert_says(&error, &[UP, "not finite at element 5"]);
    assert!(weights.digest().is_err());
}

#[test]
fn names_what_is_missing_extra_misshaped_or_of_another_type() {
    let error = broken(&tiny(), |all| drop(all.remove(UP)));
    assert_says(&error, &[UP, "missing"]);
    let error = broken(&tiny(), |all| {
        drop(all.insert("odd".to_owned(), all[UP].clone()))
    });
    assert_says(&error, &["'odd'", "does not belong"]);
    let error = broken(&tiny(), |all| all.get_mut(UP).unwrap().shape.reverse());
    assert_says(&error, &[UP, "[16, 24]", "[24, 16]"]);
    let error = broken(&tiny(), |all| all.get_mut(UP).unwrap().dtype = Dtype::I32);
    assert_says(&error, &[UP, "I32", "F32, F16 or BF16", SINGLE_FILE]);
    // A bias where the configuration has none.
    let bias = "model.layers.0.self_attn.q_proj.bias";
    let error = broken(&tiny(), |all| {
        let raw = FileTensor {
            dtype: Dtype::F32,
            shape: vec![24],
            bytes: vec![0; 96],
        };
        all.insert(bias.to_owned(), raw);
    });
    assert_says(&error, &[bias, "does not belong"]);
    let biased = LlamaConfig {
        architecture: Architecture::Qwen2,
        qkv_bias: true,
        ..tiny()
    };
    let error = broken(&biased, |all| drop(all.remove(bias)));
    assert_says(&error, &[bias, "missing"]);
    let untied = LlamaConfig {
        tie_word_embeddings: false,
        ..tiny()
    };
    let error = broken(&untied, |all| drop(all.remove(OUTPUT)));
    assert_says(&error, &[OUTPUT, "missing"]);
}

#[test]
fn a_stored_output_layer_must_be_the_embedding_it_is_tied_to() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, mut tensors) = model(dir.path(), &tiny(), Dtype::F32);
    tensors.insert(
        OUTPUT.to_owned(),
        tensors["model.embed_tokens.weight"].clone(),
    );
    write(&dir.path().join(SINGLE_FILE), &tensors);
    let read = BaseWeights::load(dir.path()).unwrap();
    assert_eq!(read.digest().unwrap(), weights.digest().unwrap());
    tensors.get_mut(OUTPUT).unwrap().bytes[8] ^= 1;
    write(&dir.path().join(SINGLE_FILE), &tensors);
    assert_says(
        &error(dir.path()),
        &[OUTPUT, "model.embed_tokens.weight", "tie_word_embeddings"],
    );
    tensors.get_mut(OUTPUT).unwrap().shape = vec![16, 40];
    write(&dir.path().join(SINGLE_FILE), &tensors);
    assert_says(&error(dir.path()), &[OUTPUT, "[16, 40]"]);
}

#[test]
fn the_bias_of_an_output_projection_must_be_zero() {
    let biased = LlamaConfig {
        qkv_bias: true,
        ..tiny()
    };
    let name = "model.layers.1.self_attn.o_proj.bias";
    let with = |values: [f32; 16]| {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut tensors) = model(dir.path(), &biased, Dtype::F32);
        let bytes = encode(Dtype::F32, &values);
        let (dtype, shape) = (Dtype::F32, vec![16]);
        tensors.insert(
            name.to_owned(),
            FileTensor {
                dtype,
                shape,
                bytes,
            },
        );
        write(&dir.path().join(SINGLE_FILE), &tensors);
        dir
    };
    let dir = with([0.0; 16]);
    assert!(BaseWeights::load(dir.path()).unwrap().digest().is_ok());
    let mut values = [0.0; 16];
    values[9] = 1e-3;
    assert_says(&error(with(values).path()), &[name, "q, k and v only"]);
}

#[test]
fn rotary_frequencies_of_old_writers_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut tensors) = model(dir.path(), &tiny(), Dtype::F32);
    let raw = FileTensor {
        dtype: Dtype::F64,
        shape: vec![3],
        bytes: vec![0; 24],
    };
    tensors.insert(
        "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(),
        raw,
    );
    write(&dir.path().join(SINGLE_FILE), &tensors);
    assert!(BaseWeights::load(dir.path()).is_ok());
}

/// Two shards with their index; `edit` may change all three.
fn sharded(
    edit: impl FnOnce(&mut [Tensors; 2], &mut BTreeMap<String, String>),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (_, tensors) = model(dir.path(), &tiny(), Dtype::BF16);
    let mut parts = [Tensors::new(), Tensors::new()];
    let mut map = BTreeMap::new();
    for (number, (name, raw)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), SHARDS[number % 2].to_owned());
        parts[number % 2].insert(name, raw);
    }
    edit(&mut parts, &mut map);
    for (part, name) in parts.iter().zip(SHARDS) {
        write(&dir.path().join(name), part);
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.path().join(INDEX_FILE), index.to_string()).unwrap();
    dir
}

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

#[test]
fn reads_shards() {
    let one = tempfile::tempdir().unwrap();
    let (_, tensors) = model(one.path(), &tiny(), Dtype::BF16);
    write(&one.path().join(SINGLE_FILE), &tensors);
    let digest = |dir: &Path| BaseWeights::load(dir).unwrap().digest().unwrap();
    let dir = sharded(|_, _| {});
    assert_eq!(digest(dir.path()), digest(one.path()));
}

#[test]
fn refuses_an_index_that_does_not_fit_the_files() {
    for outside in [
        "../b.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        &"x".repeat(300),
    ] {
        let dir = sharded(|_, map| drop(map.insert(UP.to_owned(), outside.to_owned())));
        assert_says(&error(dir.path()), &[INDEX_FILE, "not a file name"]);
    }
    let dir = sharded(|_, _| {});
    fs::remove_file(dir.path().join(SHARDS[1])).unwrap();
    assert_says(&error(dir.path()), &[INDEX_FILE, SHARDS[1], "fetch it"]);

    let dir = sharded(|parts, _| {
        let there = usize::from(parts[1].contains_key(UP));
        let copy = parts[there][UP].clone();
        parts[1 - there].insert(UP.to_owned(), copy);
    });
    assert_says(&error(dir.path()), &[SHARDS[1], UP, "another shard"]);

    let dir = sharded(|parts, _| {
        let there = usize::from(parts[1].contains_key(UP));
        let moved = parts[there].remove(UP).unwrap();
        parts[1 - there].insert(UP.to_owned(), moved);
    });
    assert_says(&error(dir.path()), &[INDEX_FILE, UP, "is not in shard"]);

    let dir = sharded(|_, map| drop(map.insert("odd".to_owned(), SHARDS[0].to_owned())));
    assert_says(&error(dir.path()), &["'odd'", SHARDS[0], "is not in shard"]);

    let dir = sharded(|_, map| drop(map.remove(UP)));
    assert_says(&error(dir.path()), &[UP, "not in the index"]);

    let dir = sharded(|parts, map| {
        parts.iter_mut().for_each(|part| drop(part.remove(UP)));
        map.remove(UP);
    });
    assert_says(&error(dir.path()), &[UP, "missing"]);

    for text in ["", "[]", "{}", "{\"weight_map\": {\"a\": 1}}", "\u{0}"] {
        let dir = sharded(|_, _| {});
        fs::write(dir.path().join(INDEX_FILE), text).unwrap();
        assert_says(&error(dir.path()), &[INDEX_FILE]);
    }
}

#[test]
fn says_what_to_do_where_there_are_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    assert_says(&error(dir.path()), &["config.json"]);
    model(dir.path(), &tiny(), Dtype::F32);
    fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    assert_says(
        &error(dir.path()),
        &["model.safetensors.index.json", "pickled"],
    );
    fs::create_dir(dir.path().join(SINGLE_FILE)).unwrap();
    assert_says(&error(dir.path()), &[SINGLE_FILE, "not a regular file"]);
}

#[test]
fn refuses_a_file_cut_at_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let (_, tensors) = model(dir.path(), &tiny(), Dtype::BF16);
    let path = dir.path().join(SINGLE_FILE);
    write(&path, &tensors);
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 3, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert_says(
            &error(dir.path()),
            &[SINGLE_FILE, "not a whole safetensors file"],
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    assert_says(&error(dir.path()), &[SINGLE_FILE, "its header calls for"]);
    // Cut while it is open: an error, where a mapping would end the process.
    fs::write(&path, &bytes).unwrap();
    let weights = BaseWeights::load(dir.path()).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = weights.digest().unwrap_err().to_string();
    assert_says(&error, &[SINGLE_FILE, "cannot be read", "tensor 'model."]);
}

/// A file of this header and `data` bytes of nothing.
fn file(dir: &Path, header: &[u8], data: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.resize(bytes.len() + data, 0);
    fs::write(dir.join(SINGLE_FILE), bytes).unwrap();
}

#[test]
fn refuses_headers_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    model(dir.path(), &tiny(), Dtype::F32);
    let entry = |dtype: &str, shape: Value, from: u64, to: u64| {
        json!({"t": {"dtype": dtype, "shape": shape, "data_offsets": [from, to]}}).to_string()
    };
    let cases = [
        (entry("F32", json!([2]), 0, 4), 4, "shape"),
        (entry("F32", json!([2]), 4, 12), 12, "offset"),
        (entry("F32", json!([2]), 8, 0), 8, "offset"),
        (entry("F32", json!([2]), 0, 8), 4, "its header calls for"),
        (entry("F32", json!([u64::MAX, 4]), 0, 8), 8, "overflow"),
        (
            entry("F32", json!([1_u64 << 40]), 0, 1_u64 << 42),
            8,
            "its header calls for",
        ),
        (entry("Q9", json!([2]), 0, 8), 8, "Q9"),
        (entry("F32", json!([-1]), 0, 8), 8, "-1"),
        (entry("F32", json!(vec![1; 9]), 0, 4), 4, "9 dimensions"),
        (entry(&"x".repeat(1 << 20), json!([2]), 0, 8), 8, "xxx"),
        ("[]".to_owned(), 0, "whole"),
        ("{".repeat(10_000), 0, "whole"),
        ("{\"t\":".repeat(10_000), 0, "whole"),
    ];
    for (header, data, reason) in cases {
        file(dir.path(), header.as_bytes(), data);
        let error = error(dir.path());
        assert!(
            error.to_lowercase().contains(reason) || error.contains(reason),
            "{reason}: {error}"
        );
        assert_says(&error, &[SINGLE_FILE, "not a whole safetensors file"]);
        assert!(error.len() < 1000, "{} characters", error.len());
    }
    // A length that the file does not have, or that no header has.
    for length in [9, 1 << 30, u64::MAX] {
        fs::write(dir.path().join(SINGLE_FILE), length.to_le_bytes()).unwrap();
        assert_says(&error(dir.path()), &[&length.to_string(), "header"]);
    }
    file(
        dir.path(),
        &vec![b' '; shard::MAX_HEADER_BYTES as usize + 1],
        0,
    );
    assert_says(&error(dir.path()), &["more than the 8388608"]);
}

proptest! {
    /// Whatever the bytes are, opening them ends without a panic.
    #[test]
    fn any_header_is_read_or_refused(
        header in prop::collection::vec(any::<u8>(), 0..300),
        length in prop::option::of(any::<u64>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path(), &tiny(), Dtype::F32);
        file(dir.path(), &header, 16);
        if let Some(length) = length {
            let path = dir.path().join(SINGLE_FILE);
            let mut bytes = fs::read(&path).unwrap();
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            fs::write(&path, bytes).unwrap();
        }
        prop_assert!(BaseWeights::load(dir.path()).is_err());
    }

    /// A right file with one byte of its header changed is read or refused, never more.
    #[test]
    fn any_changed_byte_is_read_or_refused(place in any::<prop::sample::Index>(), byte: u8) {
        let dir = tempfile::tempdir().unwrap();
        let (_, tensors) = model(dir.path(), &tiny(), Dtype::BF16);
        let path = dir.path().join(SINGLE_FILE);
        write(&path, &tensors);
        let mut bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[place.index(header)] = byte;
        fs::write(&path, bytes).unwrap();
        if let Ok(weights) = BaseWeights::load(dir.path()) {
            for (index, (_, shape)) in tiny().tensors().into_iter().enumerate() {
                if let Ok(tensor) = weights.read(index) {
                    prop_assert_eq!(tensor.values.len(), shape.iter().product::<usize>());
                }
            }
        }
    }
}
