//! Base weights on the host: read from a Hugging Face folder with every tensor checked, or
//! written as one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedlora_common::adapter::tensors::{self, FloatTensor, FloatType, TensorFileError};
use fedlora_common::ids::{Digest, DigestWriter};
use serde::Deserialize;

use super::config::{LlamaConfig, ModelConfigError};

const MOST_SHARD_BYTES: u64 = 64 << 30;
const MOST_INDEX_BYTES: u64 = 64 << 20;
const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Where the tensors of a model are read from, one at a time: a folder, a GGUF file, memory.
///
/// Names and shapes were checked when the source was made: each read gives the shape that
/// [`LlamaConfig::tensors`] states at that index, with finite values.
pub(crate) trait TensorSource: Send + Sync {
    /// The values of the tensor at `index` of [`LlamaConfig::tensors`], as `f32`.
    ///
    /// # Errors
    /// A file that cannot be read (any more), or values that are not finite.
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError>;
}

/// Tensors that were made in memory.
struct InMemory(Vec<FloatTensor>);

impl TensorSource for InMemory {
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError> {
        Ok(self.0[index].clone())
    }
}

/// A model's configuration with a source of its tensors, in the order of
/// [`LlamaConfig::tensors`]. Cloning shares the source.
#[derive(Clone)]
pub struct BaseWeights {
    config: LlamaConfig,
    source: Arc<dyn TensorSource>,
}

impl BaseWeights {
    /// Reads `config.json` and `model.safetensors` (or the shards that its index lists).
    /// A missing, extra, misshaped or not finite tensor is an error that names it.
    pub fn load(dir: &Path) -> Result<Self, WeightsError> {
        let config = LlamaConfig::load(dir)?;
        let mut found = BTreeMap::new();
        for path in shards(dir)? {
            for (name, tensor) in tensors::read(&path, MOST_SHARD_BYTES)? {
                if found.contains_key(&name) {
                    return Err(WeightsError::Twice { path, name });
                }
                found.insert(name, tensor);
            }
        }
        // Some writers store the output layer beside the embedding it is tied to; older
        // ones also the rotary frequencies. Neither is read.
        if config.tie_word_embeddings {
            found.remove("lm_head.weight");
        }
        found.retain(|name, _| !name.ends_with(".rotary_emb.inv_freq"));

        let mut ordered = Vec::new();
        for (name, expected) in config.tensors() {
            let tensor = found.remove(&name).ok_or_else(|| WeightsError::Missing {
                dir: dir.to_owned(),
                name: name.clone(),
            })?;
            if tensor.shape != expected {
                return Err(WeightsError::Shape {
                    dir: dir.to_owned(),
                    name,
                    got: tensor.shape,
                    expected,
                });
            }
            ordered.push(tensor);
        }
        if let Some(name) = found.into_keys().next() {
            return Err(WeightsError::Extra {
                dir: dir.to_owned(),
                name,
            });
        }
        Ok(Self::from_source(config, Arc::new(InMemory(ordered))))
    }

    /// Takes a source whose tensors are those of `config`.
    pub(crate) fn from_source(config: LlamaConfig, source: Arc<dyn TensorSource>) -> Self {
        Self { config, source }
    }

    /// Takes values made elsewhere.
    ///
    /// # Panics
    /// When they are not in the order and shapes of [`LlamaConfig::tensors`]: that is a bug
    /// of the caller.
    pub fn new(config: LlamaConfig, values: Vec<Vec<f32>>) -> Self {
        let specs = config.tensors();
        assert_eq!(specs.len(), values.len(), "one vector a tensor");
        let tensors = specs
            .into_iter()
            .zip(values)
            .map(|((name, shape), values)| {
                assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
                FloatTensor { shape, values }
            })
            .collect();
        Self::from_source(config, Arc::new(InMemory(tensors)))
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which must exist.
    pub fn save(&self, dir: &Path, float: FloatType) -> Result<(), WeightsError> {
        let specs = self.config.tensors();
        let values = (0..specs.len())
            .map(|index| self.read(index))
            .collect::<Result<Vec<_>, _>>()?;
        let views = specs.iter().zip(&values).map(|((name, _), tensor)| {
            (
                name.as_str(),
                tensor.shape.as_slice(),
                tensor.values.as_slice(),
            )
        });
        tensors::write(&dir.join(SINGLE_FILE), float, views)?;
        let dtype = match float {
            FloatType::F32 => "float32",
            FloatType::Bf16 => "bfloat16",
        };
        let text = self.config.to_json(dtype);
        tensors::write_atomic(&dir.join("config.json"), text.as_bytes())?;
        Ok(())
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The values of the tensor at `index` of [`LlamaConfig::tensors`], as `f32`. One tensor
    /// is read at a time, so that a model is never held twice.
    ///
    /// # Errors
    /// A file that cannot be read (any more), or values that are not finite.
    pub fn read(&self, index: usize) -> Result<FloatTensor, WeightsError> {
        self.source.read(index)
    }

    /// How many values there are.
    pub fn parameters(&self) -> usize {
        let shapes = self.config.tensors().into_iter();
        shapes
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    /// A digest of everything that decides what the model computes: the configuration's
    /// numbers, and every tensor's name, shape and values as little-endian `f32`.
    ///
    /// # Errors
    /// A tensor that cannot be read: each is read once, and one is held at a time.
    pub fn digest(&self) -> Result<Digest, WeightsError> {
        let mut writer = DigestWriter::new("fedlora base model v1");
        let config = &self.config;
        for size in [
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            usize::from(config.tie_word_embeddings),
        ] {
            writer.number(size as u64);
        }
        writer.number(config.rms_norm_eps.to_bits());
        writer.number(config.rope_theta.to_bits());
        let mut buffer = Vec::with_capacity(1 << 16);
        for (index, (name, shape)) in config.tensors().iter().enumerate() {
            let tensor = self.read(index)?;
            writer.bytes(name.as_bytes());
            writer.number(shape.len() as u64);
            for &dim in shape {
                writer.number(dim as u64);
            }
            for values in tensor.values.chunks(1 << 14) {
                buffer.clear();
                buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                writer.raw(&buffer);
            }
        }
        Ok(writer.finish())
    }
}

impl std::fmt::Debug for BaseWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseWeights")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold the weights.
fn shards(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let single = dir.join(SINGLE_FILE);
    let index = dir.join(INDEX_FILE);
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let bytes = tensors::read_bounded(&index, MOST_INDEX_BYTES)?;
    let parsed: Index = serde_json::from_slice(&bytes).map_err(|source| WeightsError::Index {
        path: index.clone(),
        source,
    })?;
    let names: BTreeSet<_> = parsed.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            // An index must not lead out of its folder.
            if Path::new(&name).file_name() == Some(name.as_ref()) {
                Ok(dir.join(name))
            } else {
                Err(WeightsError::ShardName {
                    path: index.clone(),
                    got: name.chars().take(80).collect(),
                })
            }
        })
        .collect()
}

/// Weights that are not the configuration's.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ModelConfigError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The index is not JSON of the expected form.
    #[error("{}: {source}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The index names a file outside its folder.
    #[error("{}: shard '{got}' is not a file name", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name, cut at 80 characters.
        got: String,
    },
    /// Two shards hold the same tensor.
    #[error("{}: tensor '{name}' also stands in another shard", path.display())]
    Twice {
        /// The second shard.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the model needs.
    #[error("{}: tensor '{name}' is missing", dir.display())]
    Missing {
        /// The model's folder.
        dir: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error("{}: tensor '{name}' does not belong to the model that config.json describes", dir.display())]
    Extra {
        /// The model's folder.
        dir: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A shape other than the configuration's.
    #[error("{}: tensor '{name}' has shape {got:?}, config.json calls for {expected:?}", dir.display())]
    Shape {
        /// The model's folder.
        dir: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape called for.
        expected: Vec<usize>,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::config::tests::tiny;
    use super::super::random::SplitMix;
    use super::*;

    pub(crate) fn random(config: LlamaConfig, seed: u64) -> BaseWeights {
        let mut random = SplitMix::new(seed, 0);
        let values = config
            .tensors()
            .iter()
            .map(|(_, shape)| {
                let centre = if shape.len() == 1 { 1.0 } else { 0.0 };
                let count = shape.iter().product::<usize>();
                (0..count)
                    .map(|_| (centre + 0.2 * random.normal()) as f32)
                    .collect()
            })
            .collect();
        BaseWeights::new(config, values)
    }

    fn saved() -> (tempfile::TempDir, BaseWeights) {
        let dir = tempfile::tempdir().unwrap();
        let weights = random(tiny(), 1);
        weights.save(dir.path(), FloatType::F32).unwrap();
        (dir, weights)
    }

    fn rewrite(dir: &Path, edit: impl Fn(&mut BTreeMap<String, FloatTensor>)) -> String {
        let path = dir.join(SINGLE_FILE);
        let mut all = tensors::read(&path, 1 << 30).unwrap();
        edit(&mut all);
        let views = all
            .iter()
            .map(|(name, t)| (name.as_str(), t.shape.as_slice(), t.values.as_slice()));
        tensors::write(&path, FloatType::F32, views).unwrap();
        BaseWeights::load(dir).unwrap_err().to_string()
    }

    #[test]
    fn round_trips_and_digests() {
        let (dir, weights) = saved();
        let read = BaseWeights::load(dir.path()).unwrap();
        let digest = weights.digest().unwrap();
        assert_eq!(read.digest().unwrap(), digest);
        assert_ne!(random(tiny(), 2).digest().unwrap(), digest);
    }

    #[test]
    fn reads_shards_and_refuses_an_index_that_leaves_the_folder() {
        let (dir, weights) = saved();
        let all = tensors::read(&dir.path().join(SINGLE_FILE), 1 << 30).unwrap();
        std::fs::remove_file(dir.path().join(SINGLE_FILE)).unwrap();
        let mut map = BTreeMap::new();
        for (shard, part) in [("a.safetensors", 0), ("b.safetensors", 1)] {
            let chosen = all.iter().enumerate().filter(|(i, _)| i % 2 == part);
            let views = chosen.map(|(_, (name, t))| {
                map.insert(name.clone(), shard.to_owned());
                (name.as_str(), t.shape.as_slice(), t.values.as_slice())
            });
            tensors::write(&dir.path().join(shard), FloatType::F32, views).unwrap();
        }
        let write_index = |map: &BTreeMap<String, String>| {
            let text = serde_json::json!({ "weight_map": map }).to_string();
            std::fs::write(dir.path().join(INDEX_FILE), text).unwrap();
        };
        write_index(&map);
        let read = BaseWeights::load(dir.path()).unwrap();
        assert_eq!(read.digest().unwrap(), weights.digest().unwrap());
        map.insert("x".to_owned(), "../b.safetensors".to_owned());
        write_index(&map);
        let error = BaseWeights::load(dir.path()).unwrap_err();
        assert!(matches!(error, WeightsError::ShardName { .. }), "{error}");
    }

    #[test]
    fn names_what_is_missing_extra_misshaped_or_not_finite() {
        let name = "model.layers.1.mlp.up_proj.weight";
        let (dir, _) = saved();
        let error = rewrite(dir.path(), |all| drop(all.remove(name)));
        assert!(error.contains(name) && error.contains("missing"), "{error}");
        let (dir, _) = saved();
        let error = rewrite(dir.path(), |all| {
            let copy = all[name].clone();
            all.insert("odd".to_owned(), copy);
        });
        assert!(error.contains("'odd'"), "{error}");
        let (dir, _) = saved();
        let error = rewrite(dir.path(), |all| all.get_mut(name).unwrap().shape.reverse());
        assert!(
            error.contains(name) && error.contains("[16, 24]"),
            "{error}"
        );
        let (dir, _) = saved();
        let error = rewrite(dir.path(), |all| {
            all.get_mut(name).unwrap().values[5] = f32::NAN;
        });
        assert!(
            error.contains(name) && error.contains("element 5"),
            "{error}"
        );
    }

    #[test]
    fn refuses_a_truncated_file() {
        let (dir, _) = saved();
        let path = dir.path().join(SINGLE_FILE);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = BaseWeights::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("whole"), "{error}");
    }
}
