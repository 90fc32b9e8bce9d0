//! Base weights: a configuration with a source of its tensors, which are read one at a time
//! so that a model is never held twice, and written as a Hugging Face folder.

use std::path::Path;
use std::sync::Arc;

use fedlora_adapter::Target;
use fedlora_adapter::tensors::{self, FloatTensor, FloatType};
use fedlora_common::digest::{Digest, DigestWriter};
use rayon::prelude::*;

use super::checkpoint::{Checkpoint, SINGLE_FILE};
use super::config::{Architecture, LlamaConfig, Variation};
use super::source::{TensorSource, WeightsError};

/// Values that are digested at a time: enough for several threads.
const DIGESTED: usize = 1 << 20;

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
    /// Opens a Hugging Face folder: `config.json` and `model.safetensors`, or the shards that
    /// its index lists. The values stay on the disk until they are asked for.
    ///
    /// # Errors
    /// [`WeightsError`]: a setting that is not supported, a missing, extra or misshaped tensor, a
    /// type other than F32, F16 and BF16, or an incomplete file.
    pub fn load(dir: &Path) -> Result<Self, WeightsError> {
        let config = LlamaConfig::load(dir)?;
        let checkpoint = Checkpoint::open(dir, &config)?;
        Ok(Self::from_source(config, Arc::new(checkpoint)))
    }

    /// Takes a source whose tensors are those of `config`.
    pub(crate) fn from_source(config: LlamaConfig, source: Arc<dyn TensorSource>) -> Self {
        Self { config, source }
    }

    /// Weights from values in memory, one vector a tensor.
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
    ///
    /// # Errors
    /// A tensor that cannot be read, or a file that cannot be written.
    pub fn save(&self, dir: &Path, float: FloatType) -> Result<(), WeightsError> {
        let specs = self.config.tensors();
        let offset = self.config.architecture.norm_offset();
        let values = (0..specs.len())
            .map(|index| {
                let mut tensor = self.read(index)?;
                if offset != 0.0 && tensor.shape.len() == 1 {
                    tensor.values.iter_mut().for_each(|value| *value -= offset);
                }
                Ok(tensor)
            })
            .collect::<Result<Vec<_>, WeightsError>>()?;
        let biases = self.output_biases();
        let views = specs
            .iter()
            .map(|(name, _)| name)
            .zip(&values)
            .chain(biases.iter().map(|(name, tensor)| (name, tensor)))
            .map(|(name, tensor)| {
                let (shape, values) = (tensor.shape.as_slice(), tensor.values.as_slice());
                (name.as_str(), shape, values)
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

    /// The zero output biases that Transformers expects beside a Llama's q k v biases.
    fn output_biases(&self) -> Vec<(String, FloatTensor)> {
        let config = &self.config;
        if config.architecture != Architecture::Llama || !config.qkv_bias {
            return Vec::new();
        }
        let zeros = FloatTensor {
            shape: vec![config.hidden_size],
            values: vec![0.0; config.hidden_size],
        };
        let path = Target::O.path();
        (0..config.num_hidden_layers)
            .map(|layer| (format!("model.layers.{layer}.{path}.bias"), zeros.clone()))
            .collect()
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

    /// Number of parameters: the values of all tensors.
    pub fn parameters(&self) -> usize {
        let shapes = self.config.tensors().into_iter();
        shapes
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    /// A digest of everything that decides what the model computes: the architecture, the
    /// configuration's numbers, and every tensor's name, shape and values as little-endian
    /// `f32`. Equal values have equal digests, whatever type and file they were read from. Of a
    /// norm they are what it multiplies with: `1 + w` where a checkpoint of Gemma stores `w`.
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
        write_variant(&mut writer, config);
        let mut buffer = vec![0; 4 * DIGESTED];
        for (index, (name, shape)) in config.tensors().iter().enumerate() {
            let tensor = self.read(index)?;
            writer.bytes(name.as_bytes());
            writer.number(shape.len() as u64);
            for &dim in shape {
                writer.number(dim as u64);
            }
            for values in tensor.values.chunks(DIGESTED) {
                let bytes = &mut buffer[..4 * values.len()];
                let words = bytes.as_chunks_mut().0.par_iter_mut().zip(values);
                words.for_each(|(word, value)| *word = value.to_le_bytes());
                writer.raw_in_parallel(bytes);
            }
        }
        Ok(writer.finish())
    }
}

/// What sets a model apart from the plain Llama that the digest began with: nothing is added
/// for one of those. No other field begins with these bytes.
fn write_variant(writer: &mut DigestWriter, config: &LlamaConfig) {
    let plain = config.architecture == Architecture::Llama
        && config.rope_scaling.is_none()
        && config.sliding_window.is_none()
        && !config.qkv_bias
        && config.variation == Variation::default();
    if plain {
        return;
    }
    writer.bytes(b"variant");
    writer.bytes(config.architecture.model_type().as_bytes());
    writer.number(u64::from(config.qkv_bias));
    // No window has 0 keys.
    writer.number(config.sliding_window.unwrap_or(0) as u64);
    let (kind, numbers) = match &config.rope_scaling {
        None => (0, Vec::new()),
        Some(scaling) => scaling.numbers(),
    };
    writer.number(kind);
    for number in numbers {
        writer.number(number);
    }
    if config.variation != Variation::default() {
        for number in config.variation.numbers() {
            writer.number(number);
        }
    }
}

impl std::fmt::Debug for BaseWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseWeights")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
pub(crate) mod tests;
