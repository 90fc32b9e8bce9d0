//! Adapters on disk: `adapter_model.safetensors` and `adapter_config.json`, as PEFT writes
//! and reads them, so that vLLM, TGI or Transformers can load what a run made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::{ConfigError, LoraConfig, ProjectionTensor, Target};
use super::layout::{Layout, LayoutError, TensorSpec};
use super::patterns::Patterns;
use super::tensors::{self, FloatTensor, FloatType, TensorFileError};
use super::values::{Adapter, AdapterError};

/// The name of the file that holds the weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The name of the file that holds the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";

const MAX_WEIGHT_BYTES: u64 = 9 << 30;
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Settings that do not change what a trained adapter computes.
const FREE_KEYS: [&str; 12] = [
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    // The tensors say what is adapted.
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "loftq_config",
];

/// Writes the adapter into `dir`, which is created where it is missing. Each file appears whole
/// or not at all. The configuration is written last, so that a folder with one is complete.
///
/// # Errors
/// [`PeftError`] with the path, where the folder or a file cannot be written.
pub fn save(dir: &Path, adapter: &Adapter, base_model: &str) -> Result<(), PeftError> {
    let values = adapter.values();
    std::fs::create_dir_all(dir).map_err(|source| PeftError::Folder {
        path: dir.to_owned(),
        source,
    })?;
    tensors::write(
        &dir.join(WEIGHTS_FILE),
        FloatType::F32,
        adapter
            .layout()
            .iter()
            .map(|(spec, range)| (spec.name.as_str(), spec.shape.as_slice(), &values[range])),
    )?;
    let mut text = serde_json::to_string_pretty(&config_json(adapter.config(), base_model))
        .map_err(|source| PeftError::Json {
            path: dir.join(CONFIG_FILE),
            source,
        })?;
    text.push('\n');
    Ok(tensors::write_atomic(
        &dir.join(CONFIG_FILE),
        text.as_bytes(),
    )?)
}

/// Reads an adapter that PEFT or [`save`] wrote. Refuses variants that are not plain LoRA
/// on the projections of a Llama block.
///
/// # Errors
/// [`PeftError`] with the path, and the setting or tensor that is not supported.
pub fn load(dir: &Path) -> Result<Adapter, PeftError> {
    let path = dir.join(CONFIG_FILE);
    let settings = parse_settings(&path, &tensors::read_bounded(&path, MAX_CONFIG_BYTES)?)?;
    let weights = dir.join(WEIGHTS_FILE);
    let tensors = tensors::read(&weights, MAX_WEIGHT_BYTES)?;
    let tensors = tensors.into_iter();
    let mut tensors: BTreeMap<_, _> = tensors
        .map(|(name, tensor)| (plain_name(name), tensor))
        .collect();
    let names = tensors
        .keys()
        .filter_map(|name| ProjectionTensor::parse(name));
    let targets: Vec<_> = names.map(|place| place.target).collect();
    let patterns = settings.patterns.clone();
    let mut config = settings.config(&path, targets)?;
    if let Some(patterns) = patterns {
        config = patterns.apply(&path, config, &mut tensors)?;
    }
    assemble(&weights, config, tensors)
}

/// A state that was saved by hand keeps the adapter's own name in PEFT.
fn plain_name(name: String) -> String {
    let name = name.replace(".lora_A.default.", ".lora_A.");
    name.replace(".lora_B.default.", ".lora_B.")
}

/// An adapter from a file of weights that is in memory, and a configuration that is known from elsewhere;
/// `path` is used in errors only.
///
/// # Errors
/// [`PeftError`] with the tensor that is not supported, or does not fit the configuration.
pub fn from_weights(path: &Path, config: LoraConfig, bytes: &[u8]) -> Result<Adapter, PeftError> {
    assemble(path, config, tensors::parse(path, bytes)?)
}

/// Reads an `adapter_config.json` from its content; `path` is used in errors only. The targets have
/// to be named one by one: without the tensors, a pattern does not say what it covers.
///
/// # Errors
/// [`PeftError`] for malformed JSON, or a setting that is not supported.
pub fn parse_config(path: &Path, text: &[u8]) -> Result<LoraConfig, PeftError> {
    let settings = parse_settings(path, text)?;
    match settings.patterns {
        Some(patterns) => Err(patterns.refused(path)),
        None => settings.config(path, []),
    }
}

fn parse_settings(path: &Path, text: &[u8]) -> Result<Settings, PeftError> {
    let object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|source| PeftError::Json {
            path: path.to_owned(),
            source,
        })?;
    read_config(path, &object)
}

/// Reads an `adapter_model.safetensors` of an adapter with `config` from its content; `path` is
/// used in errors only.
///
/// # Errors
/// [`PeftError`] for a malformed file, or tensors that `config` does not have.
pub fn parse_weights(path: &Path, config: LoraConfig, bytes: &[u8]) -> Result<Adapter, PeftError> {
    assemble(path, config, tensors::parse(path, bytes)?)
}

fn assemble(
    path: &Path,
    config: LoraConfig,
    tensors: BTreeMap<String, FloatTensor>,
) -> Result<Adapter, PeftError> {
    let in_file = |source: AdapterError| PeftError::Adapter {
        path: path.to_owned(),
        source,
    };
    let mut found: Vec<_> = Vec::new();
    for (name, tensor) in tensors {
        let name = plain_name(name);
        let Some(place) = ProjectionTensor::parse(&name) else {
            let whole = [
                ".embed_tokens.weight",
                ".lm_head.weight",
                ".embed_tokens.bias",
                ".lm_head.bias",
            ];
            let beside =
                whole.iter().any(|end| name.ends_with(end)) || name.contains("modules_to_save");
            return Err(match beside {
                true => PeftError::Beside {
                    path: path.to_owned(),
                    name,
                },
                false => in_file(AdapterError::Unknown { name }),
            });
        };
        found.push((place, name, tensor));
    }
    // The tensors' own order is by name; ours is by block, projection and factor.
    found.sort_by_key(|(place, ..)| *place);
    let mut specs = Vec::with_capacity(found.len());
    let mut values = Vec::new();
    for (_, name, tensor) in found {
        specs.push(TensorSpec {
            name,
            shape: tensor.shape,
        });
        values.extend(tensor.values);
    }
    let layout = Layout::new(specs).map_err(|source| PeftError::Layout {
        path: path.to_owned(),
        source,
    })?;
    Adapter::new(config, layout, values).map_err(in_file)
}

fn config_json(config: &LoraConfig, base_model: &str) -> Value {
    let modules: Vec<_> = config.targets().iter().map(|t| t.module()).collect();
    json!({
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": whole_or_float(config.alpha()),
        "lora_dropout": config.dropout(),
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank(),
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.is_rank_stabilised(),
    })
}

/// PEFT writes a whole alpha as an integer, and vLLM's loader expects it so.
fn whole_or_float(value: f64) -> Value {
    if value.fract() == 0.0 && value < 9e15 {
        json!(value as u64)
    } else {
        json!(value)
    }
}

/// What a configuration says, before the tensors are known.
struct Settings {
    rank: usize,
    alpha: f64,
    dropout: f64,
    /// Targets by name; none where a pattern stands for them.
    targets: Option<Vec<Target>>,
    rank_stabilised: bool,
    /// What differs by module, where something does.
    patterns: Option<Patterns>,
}

impl Settings {
    /// With the targets of the tensors, where the configuration gives a pattern.
    fn config(
        self,
        path: &Path,
        of_tensors: impl IntoIterator<Item = Target>,
    ) -> Result<LoraConfig, PeftError> {
        let targets = match self.targets {
            Some(targets) => targets,
            None => of_tensors.into_iter().collect(),
        };
        let config = LoraConfig::new(self.rank, self.alpha, self.dropout, targets);
        let config = config.map_err(|source| PeftError::Config {
            path: path.to_owned(),
            source,
        })?;
        Ok(if self.rank_stabilised {
            config.rank_stabilised()
        } else {
            config
        })
    }
}

/// The target of a module's name, alone or at the end of a full path in the model.
fn target(name: &str) -> Option<(Target, bool)> {
    let (path, module) = name
        .rsplit_once('.')
        .map_or((None, name), |(path, module)| (Some(path), module));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let known = Target::from_module(module)?;
    path.is_none_or(|path| path.chars().all(plain))
        .then_some((known, path.is_some()))
}

fn read_config(path: &Path, object: &Map<String, Value>) -> Result<Settings, PeftError> {
    let refuse = |key: &str, expected: &'static str| PeftError::Setting {
        path: path.to_owned(),
        key: key.to_owned(),
        got: object
            .get(key)
            .map_or_else(|| "nothing".to_owned(), |v| clip(&v.to_string())),
        expected,
    };
    let (mut targets, mut pattern) = (Vec::new(), false);
    let mut rank_stabilised = false;
    for (key, value) in object {
        match key.as_str() {
            "peft_type" if value == "LORA" => {}
            "peft_type" => return Err(refuse(key, "\"LORA\"")),
            "task_type" if value == "CAUSAL_LM" || value.is_null() => {}
            "task_type" => return Err(refuse(key, "\"CAUSAL_LM\"")),
            "bias" if value == "none" => {}
            "bias" => return Err(refuse(key, "\"none\": trained biases are not supported")),
            "init_lora_weights" => {
                // The others (PiSSA, OLoRA, CorDA, LoftQ) change the base weights, too.
                let plain = value.is_boolean()
                    || ["gaussian", "eva", "orthogonal"]
                        .iter()
                        .any(|&name| value == name);
                if !plain {
                    let expected = "true, false, gaussian, eva or orthogonal: PiSSA, OLoRA, CorDA and \
                                    LoftQ change the base's weights too. Save the adapter with \
                                    PEFT's path_initial_model_for_weight_conversion: it then fits \
                                    the base as it was";
                    return Err(refuse(key, expected));
                }
            }
            // A pattern, or "all-linear": the tensors say what it covers.
            "target_modules" if value.is_string() => pattern = true,
            "target_modules" => {
                let names = value
                    .as_array()
                    .ok_or_else(|| refuse(key, "a list of module names, or a pattern"))?;
                for name in names {
                    let found = name.as_str().and_then(target).ok_or_else(|| {
                        refuse(
                            key,
                            "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
                        )
                    })?;
                    targets.push(found.0);
                    // A full path names one block's module.
                    pattern |= found.1;
                }
            }
            "r" | "lora_alpha" | "lora_dropout" => {}
            "use_rslora" if value.is_boolean() => rank_stabilised = value == true,
            "rank_pattern" | "alpha_pattern" if value.is_object() => {}
            _ if FREE_KEYS.contains(&key.as_str()) => {}
            _ if is_off(value) => {}
            "use_rslora" => return Err(refuse(key, "true or false")),
            "rank_pattern" | "alpha_pattern" => {
                return Err(refuse(key, "numbers by the names of modules"));
            }
            "use_dora" => {
                let expected = "false: DoRA gives each output a trained magnitude, which the mean of \
                                members' factors has no place for";
                return Err(refuse(key, expected));
            }
            // A variant is switched on by true, or by what it holds; these are settings of variants.
            _ if value.is_number() || value.is_string() => {}
            _ => return Err(refuse(key, "absent, null, false or empty: not supported")),
        }
    }
    let number = |key: &str| {
        object
            .get(key)
            .and_then(Value::as_f64)
            .ok_or_else(|| refuse(key, "a number"))
    };
    if !object.contains_key("peft_type") {
        return Err(refuse("peft_type", "\"LORA\""));
    }
    let rank = object
        .get("r")
        .and_then(Value::as_u64)
        .and_then(|rank| usize::try_from(rank).ok())
        .ok_or_else(|| refuse("r", "a whole number from 1 to 256"))?;
    let dropout = match object.get("lora_dropout") {
        None => 0.0,
        Some(_) => number("lora_dropout")?,
    };
    Ok(Settings {
        rank,
        alpha: number("lora_alpha")?,
        dropout,
        targets: (!pattern).then_some(targets),
        rank_stabilised,
        patterns: Patterns::read(object).map_err(|(key, expected)| refuse(key, expected))?,
    })
}

/// Whether a setting is switched off: a variant of LoRA that the adapter does not use.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Why an adapter cannot be written, or is not plain LoRA.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// The folder cannot be made.
    #[error("{}: the folder cannot be made: {source}", path.display())]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A configuration that is not JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The path of the file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A setting that is missing or not supported.
    #[error("{}: '{key}' is {got}: expected {expected}", path.display())]
    Setting {
        /// The path of the file.
        path: PathBuf,
        /// The setting's key.
        key: String,
        /// Its value, cut at 80 characters.
        got: String,
        /// The values accepted, in words.
        expected: &'static str,
    },
    /// Rank, alpha, dropout or targets out of range.
    #[error("{}: {source}", path.display())]
    Config {
        /// The path of the file.
        path: PathBuf,
        /// The setting out of range.
        source: ConfigError,
    },
    /// Weights of whole modules, which are no part of a LoRA.
    #[error(
        "{}: '{name}' is a whole module saved beside the adapter: only the adapter can be read. \
         Where the module is the base's own, save the adapter again with \
         save_embedding_layers=False; where it was trained, merge all of it into the base",
        path.display()
    )]
    Beside {
        /// The path of the file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// The tensors form no layout.
    #[error("{}: {source}", path.display())]
    Layout {
        /// The path of the file.
        path: PathBuf,
        /// Why the tensors form no layout.
        source: LayoutError,
    },
    /// The tensors are not the configuration's.
    #[error("{}: {source}", path.display())]
    Adapter {
        /// The path of the file.
        path: PathBuf,
        /// Why the tensors do not fit.
        source: AdapterError,
    },
}

#[cfg(test)]
#[path = "peft_tests.rs"]
mod tests;
