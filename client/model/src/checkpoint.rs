//! The weights of a Hugging Face folder, opened without being read: `model.safetensors`, or
//! the shards that `model.safetensors.index.json` lists. Every tensor is checked by its
//! header; values are read when they are asked for.

mod shard;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use fedlora_adapter::Target;
use fedlora_adapter::tensors::{self, FloatTensor, TensorFileError};
use serde::Deserialize;

use self::shard::{Entry, Shard};
use super::config::{Architecture, LlamaConfig};
use super::source::{TensorSource, WeightsError, short};

const MAX_INDEX_BYTES: u64 = 16 << 20;
/// The longest file name of common file systems.
const MAX_NAME_BYTES: usize = 255;
pub(super) const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// The output layer's name.
const OUTPUT: &str = "lm_head.weight";

/// A folder's shards, held open, with the place of each tensor of the model.
#[derive(Debug)]
pub(super) struct Checkpoint {
    shards: Vec<Shard>,
    /// In the order of [`LlamaConfig::tensors`].
    tensors: Vec<StoredTensor>,
    /// What is added to vectors, which are norms where it is not 0.
    norm_offset: f32,
}

#[derive(Debug)]
struct StoredTensor {
    name: String,
    place: ShardPlace,
    companion: Option<Companion>,
}

#[derive(Debug, Clone)]
struct ShardPlace {
    shard: usize,
    entry: Entry,
}

/// A stored tensor that is no part of the model and must not contradict the tensor that it
/// accompanies. It is checked when that tensor is read.
#[derive(Debug)]
enum Companion {
    /// The output layer of a model that ties it to its embedding: releases of Transformers
    /// differ on which of the two counts, so they must be equal.
    Output(ShardPlace),
    /// The bias of an output projection, which must be zero.
    OutputBias(String, ShardPlace),
}

impl Checkpoint {
    /// Opens the folder `dir`, whose `config.json` says `config`, and checks all headers.
    ///
    /// # Errors
    /// A missing, extra or misshaped tensor, one of another type than F32, F16 and BF16, a
    /// file that is not whole, or an index that does not fit the files.
    pub(super) fn open(dir: &Path, config: &LlamaConfig) -> Result<Self, WeightsError> {
        let (shards, mut found) = open_shards(dir)?;
        // Older writers stored the rotary frequencies, which follow from the configuration.
        found.retain(|name, _| !name.ends_with(".rotary_emb.inv_freq"));
        let check = |name: &str, place: &ShardPlace, expected: &[usize]| {
            if place.entry.shape != expected {
                return Err(WeightsError::Shape {
                    dir: dir.to_owned(),
                    name: name.to_owned(),
                    got: place.entry.shape.clone(),
                    expected: expected.to_vec(),
                });
            }
            shards[place.shard].check_type(name, &place.entry)
        };
        let mut stored = Vec::new();
        for (name, expected) in config.tensors() {
            let place = found.remove(&name).ok_or_else(|| WeightsError::Missing {
                dir: dir.to_owned(),
                name: name.clone(),
            })?;
            check(&name, &place, &expected)?;
            stored.push(StoredTensor {
                name,
                place,
                companion: None,
            });
        }
        if config.tie_word_embeddings
            && let Some(place) = found.remove(OUTPUT)
        {
            check(OUTPUT, &place, &[config.vocab_size, config.hidden_size])?;
            stored[0].companion = Some(Companion::Output(place));
        }
        if config.architecture == Architecture::Llama && config.qkv_bias {
            let suffix = format!("{}.weight", Target::O.path());
            for tensor in &mut stored {
                if !tensor.name.ends_with(&suffix) {
                    continue;
                }
                let bias = tensor.name.replace(".weight", ".bias");
                if let Some(place) = found.remove(&bias) {
                    check(&bias, &place, &[config.hidden_size])?;
                    tensor.companion = Some(Companion::OutputBias(bias, place));
                }
            }
        }
        if let Some(name) = found.into_keys().next() {
            return Err(WeightsError::Extra {
                dir: dir.to_owned(),
                name: short(&name),
            });
        }
        Ok(Self {
            shards,
            tensors: stored,
            norm_offset: config.architecture.norm_offset(),
        })
    }
}

impl TensorSource for Checkpoint {
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError> {
        let StoredTensor {
            name,
            place,
            companion,
        } = &self.tensors[index];
        let mut tensor = self.shards[place.shard].read(name, &place.entry)?;
        if self.norm_offset != 0.0 && tensor.shape.len() == 1 {
            let values = tensor.values.iter_mut();
            values.for_each(|value| *value += self.norm_offset);
        }
        match companion {
            None => {}
            Some(Companion::Output(place)) => {
                let shard = &self.shards[place.shard];
                shard.pieces(OUTPUT, &place.entry, |from, piece| {
                    if tensor.values[from..from + piece.len()] == *piece {
                        Ok(())
                    } else {
                        Err(WeightsError::Untied {
                            path: shard.path().to_owned(),
                            name: OUTPUT.to_owned(),
                            embedding: name.clone(),
                        })
                    }
                })?;
            }
            Some(Companion::OutputBias(bias, place)) => {
                let shard = &self.shards[place.shard];
                shard.pieces(bias, &place.entry, |_, piece| {
                    if piece.iter().all(|&value| value == 0.0) {
                        Ok(())
                    } else {
                        Err(WeightsError::OutputBias {
                            path: shard.path().to_owned(),
                            name: bias.clone(),
                        })
                    }
                })?;
            }
        }
        Ok(tensor)
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The folder's shards, and the shard of each tensor.
fn open_shards(dir: &Path) -> Result<(Vec<Shard>, BTreeMap<String, ShardPlace>), WeightsError> {
    let single = dir.join(SINGLE_FILE);
    let index = dir.join(INDEX_FILE);
    if single.exists() {
        return collect(vec![Shard::open(single)?]);
    }
    if !index.exists() {
        return Err(WeightsError::NoWeights {
            dir: dir.to_owned(),
        });
    }
    let map = read_index(&index)?;
    let names: BTreeSet<&String> = map.values().collect();
    let mut shards = Vec::new();
    for name in &names {
        let shard = Shard::open(dir.join(name)).map_err(|error| match error {
            WeightsError::File(TensorFileError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                WeightsError::MissingShard {
                    path: index.clone(),
                    name: short(name),
                }
            }
            other => other,
        })?;
        shards.push(shard);
    }
    let (shards, found) = collect(shards)?;
    let numbers: BTreeMap<&String, usize> = names.into_iter().zip(0..).collect();
    for (name, shard) in &map {
        let there = found.get(name).map(|place| place.shard);
        if there != numbers.get(shard).copied() {
            return Err(WeightsError::NotInShard {
                path: index,
                name: short(name),
                shard: short(shard),
            });
        }
    }
    if let Some((name, place)) = found.iter().find(|(name, _)| !map.contains_key(*name)) {
        return Err(WeightsError::Unlisted {
            path: shards[place.shard].path().to_owned(),
            name: short(name),
        });
    }
    Ok((shards, found))
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let bytes = tensors::read_bounded(path, MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|source| WeightsError::Index {
        path: path.to_owned(),
        source,
    })?;
    // An index must not lead out of its folder.
    let leaves = |name: &&String| {
        name.len() > MAX_NAME_BYTES || Path::new(name).file_name() != Some(name.as_ref())
    };
    match index.weight_map.values().find(leaves) {
        None => Ok(index.weight_map),
        Some(name) => Err(WeightsError::ShardName {
            path: path.to_owned(),
            got: short(name),
        }),
    }
}

fn collect(shards: Vec<Shard>) -> Result<(Vec<Shard>, BTreeMap<String, ShardPlace>), WeightsError> {
    let mut found = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        for (name, entry) in shard.entries() {
            let place = ShardPlace {
                shard: number,
                entry: entry.clone(),
            };
            if found.insert(name.clone(), place).is_some() {
                return Err(WeightsError::Twice {
                    path: shard.path().to_owned(),
                    name: short(name),
                });
            }
        }
    }
    Ok((shards, found))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
