//! The trait of what a model's tensors are read from, and the errors of reading them.

use std::io;
use std::path::PathBuf;

use fedlora_adapter::tensors::{FloatTensor, TensorFileError};

use super::config::ModelConfigError;
use super::gguf::error::GgufError;

/// Where the tensors of a model are read from, one at a time: a folder, a GGUF file, memory.
///
/// Names and shapes were checked when the source was made: each read gives the shape that
/// `LlamaConfig::tensors` states at that index, with finite values.
pub(crate) trait TensorSource: Send + Sync {
    /// The values of the tensor at `index` of `LlamaConfig::tensors`, as `f32`.
    ///
    /// # Errors
    /// A file that cannot be read (any more), or values that are not finite.
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError>;
}

/// A name as errors show it, cut at 80 characters: names come from files.
pub(super) fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Weights that cannot be read, or do not fit the configuration.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ModelConfigError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A GGUF file is refused.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The index is not JSON of the expected form.
    #[error("{}: {source}", path.display())]
    Index {
        /// Path of the file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The index names a file outside its folder.
    #[error("{}: shard '{got}' is not a file name", path.display())]
    ShardName {
        /// Path of the index.
        path: PathBuf,
        /// The name, cut at 80 characters.
        got: String,
    },
    /// The folder has neither weights nor an index of them.
    #[error(
        "{}: neither model.safetensors nor model.safetensors.index.json is there: expected a \
         checkpoint in safetensors form (pickled ones, such as pytorch_model.bin, are not read)",
        dir.display()
    )]
    NoWeights {
        /// The model's folder.
        dir: PathBuf,
    },
    /// The index names a file that is not there.
    #[error("{}: shard '{name}' is not in the folder: fetch it", path.display())]
    MissingShard {
        /// Path of the index.
        path: PathBuf,
        /// The shard.
        name: String,
    },
    /// A header that is not one, or that does not fit its file.
    #[error("{} is not a whole safetensors file ({reason}): fetch or write it again", path.display())]
    Header {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The index places a tensor in a shard that does not hold it.
    #[error("{}: tensor '{name}' is not in shard '{shard}'", path.display())]
    NotInShard {
        /// Path of the index.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A shard holds a tensor that the index does not know.
    #[error("{}: tensor '{name}' is not in the index: one of the two is of another checkpoint", path.display())]
    Unlisted {
        /// The shard.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor's bytes could not be read.
    #[error("{}: tensor '{name}' cannot be read ({source}): was the file changed since it was opened?", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The cause that the system gave.
        source: io::Error,
    },
    /// An output layer that is said to be the embedding, and is not.
    #[error(
        "{}: tensor '{name}' differs from '{embedding}', which config.json says it is tied to: \
         set tie_word_embeddings to false, or take it out",
        path.display()
    )]
    Untied {
        /// Path of the file.
        path: PathBuf,
        /// Name of the output layer's tensor.
        name: String,
        /// Name of the embedding's tensor.
        embedding: String,
    },
    /// A bias of an output projection.
    #[error("{}: tensor '{name}' is not zero: biases are supported on q, k and v only", path.display())]
    OutputBias {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// Two shards hold the same tensor.
    #[error("{}: tensor '{name}' also stands in another shard", path.display())]
    Twice {
        /// The second shard.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that the model needs.
    #[error("{}: tensor '{name}' is missing", dir.display())]
    Missing {
        /// The model's folder.
        dir: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error("{}: tensor '{name}' does not belong to the model that config.json describes", dir.display())]
    Extra {
        /// The model's folder.
        dir: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A shape other than the configuration's.
    #[error("{}: tensor '{name}' has shape {got:?}, config.json calls for {expected:?}", dir.display())]
    Shape {
        /// The model's folder.
        dir: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape that the configuration states.
        expected: Vec<usize>,
    },
}
