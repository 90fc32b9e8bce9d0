//! The model behind one door: the backend is chosen once, here, and hidden from the rest.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn_flex::Flex;
use fedlora_adapter::{Adapter, AdapterError, Factors, Layout, LayoutError, LoraConfig};
use fedlora_common::digest::Digest;

use crate::decode::sequence::{Decode, Decoder, Sequence};
use crate::device::choice::{Device, DeviceError, check_device, free_memory};
use crate::eval::held_out;
use crate::memory::estimate::Workload;
use crate::memory::fit::Plan;
use crate::step::options::{Evaluation, Progress, TrainError, TrainOptions, Trained};
use crate::step::trainer::{self, ModelTrainer, Steps, Trainer};
use fedlora_model::Example;
use fedlora_model::{BaseWeights, Llama, LlamaConfig, Memory, Passes, WeightKind, WeightsError};

/// A base model on a device, for training and evaluating adapters.
///
/// Cheap to clone; clones share the one frozen copy of the weights, and may be used from
/// several threads at a time.
#[derive(Clone)]
pub struct Engine {
    model: Arc<dyn LocalModel>,
    weights: BaseWeights,
    digest: Arc<OnceLock<Digest>>,
    name: String,
    device: Device,
    kind: WeightKind,
    /// Bytes that were free on a GPU before the weights were placed.
    free_before: Option<u64>,
}

/// What a backend does for an [`Engine`].
trait LocalModel: Send + Sync {
    fn trainer<'a>(
        &'a self,
        adapter: &Adapter,
        factors: Factors,
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Box<dyn Steps + 'a>, TrainError>;

    fn evaluate(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Evaluation, TrainError>;

    fn logits(&self, adapter: Option<&Adapter>, tokens: &[u32]) -> Result<Vec<f32>, TrainError>;

    fn decoder(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Decode>, TrainError>;
}

impl<B: Passes> LocalModel for Llama<B> {
    fn trainer<'a>(
        &'a self,
        adapter: &Adapter,
        factors: Factors,
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Box<dyn Steps + 'a>, TrainError> {
        let trainer = ModelTrainer::new(self, adapter, factors, examples, options)?;
        Ok(Box::new(trainer))
    }

    fn evaluate(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Evaluation, TrainError> {
        held_out::evaluate(self, adapter, examples, progress)
    }

    fn logits(&self, adapter: Option<&Adapter>, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
        held_out::logits(self, adapter, tokens)
    }

    fn decoder(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Decode>, TrainError> {
        let lora = held_out::place(self, adapter)?;
        Ok(Box::new(Sequence::new(self.clone(), lora)))
    }
}

impl Engine {
    /// Reads the Hugging Face folder `base_dir` and places the weights on `device`, held as
    /// [`Device::base_kind`] says.
    pub fn open(base_dir: &Path, device: &Device) -> Result<Self, ModelError> {
        // Before the weights are read: a wrong device should not cost a minute.
        check_device(device)?;
        let weights = BaseWeights::load(base_dir)?;
        let name = base_dir
            .canonicalize()
            .ok()
            .and_then(|dir| {
                dir.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            })
            .unwrap_or_else(|| base_dir.display().to_string());
        Self::from_weights(&weights, name, device)
    }

    /// Places the weights of a checkpoint that was opened before, held as
    /// [`Device::base_kind`] says.
    ///
    /// # Errors
    /// As [`with_kind`](Self::with_kind).
    pub fn from_weights(
        weights: &BaseWeights,
        name: impl Into<String>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::with_kind(weights, device.base_kind(), name, device)
    }

    /// Places the weights of a checkpoint that was opened before, the matrices as `kind`. A GPU
    /// computes in `bf16` then, and in `f32` where they are `f32`; the CPU always in `f32`.
    ///
    /// # Errors
    /// A device that is not there, or a tensor that cannot be read.
    pub fn with_kind(
        weights: &BaseWeights,
        kind: WeightKind,
        name: impl Into<String>,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let free_before = match device {
            Device::Cpu => None,
            Device::Cuda(_) => free_memory(device)?,
        };
        let model: Arc<dyn LocalModel> = match device {
            Device::Cpu => Arc::new(Llama::<Flex>::with_kind(
                weights,
                kind,
                &Default::default(),
            )?),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => {
                let gpu = burn_cuda::CudaDevice::new(*index);
                Arc::new(match kind {
                    WeightKind::F32 => Llama::<burn_cuda::Cuda>::new(weights, &gpu)?,
                    _ => Llama::in_bf16(weights, kind, &gpu)?,
                })
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => return Err(DeviceError::NotBuilt { device: *device }.into()),
        };
        Ok(Self {
            model,
            weights: weights.clone(),
            digest: Arc::default(),
            name: name.into(),
            device: *device,
            kind,
            free_before,
        })
    }

    /// A digest of configuration and weights: members compare it before a run. The first
    /// call reads the whole checkpoint once more; later ones, and clones, know the answer.
    ///
    /// # Errors
    /// A checkpoint that cannot be read any more.
    pub fn base_digest(&self) -> Result<Digest, WeightsError> {
        if let Some(&digest) = self.digest.get() {
            return Ok(digest);
        }
        let digest = self.weights.digest()?;
        Ok(*self.digest.get_or_init(|| digest))
    }

    /// Bytes of a GPU that were taken since the weights were placed: all that the backend
    /// holds, and what other programs took in the meantime. `None` on the CPU.
    pub fn device_memory(&self) -> Option<u64> {
        let before = self.free_before?;
        let now = free_memory(&self.device).ok().flatten()?;
        Some(before.saturating_sub(now))
    }

    /// How much memory a training would take, what is held already included.
    pub fn plan(&self, workload: Workload, batch: Option<usize>, memory: Memory) -> Plan<'_> {
        Plan {
            config: self.config(),
            device: self.device,
            workload,
            batch,
            kind: self.kind,
            memory,
        }
    }

    /// Where it is, and how its weights are held.
    pub fn place(&self) -> (Device, WeightKind) {
        (self.device, self.kind)
    }

    fn config(&self) -> &LlamaConfig {
        self.weights.config()
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.config().vocab_size
    }

    /// Longest sequence in tokens.
    pub fn max_tokens(&self) -> usize {
        self.config().max_position_embeddings
    }

    /// The base model's folder name.
    pub fn model_name(&self) -> &str {
        &self.name
    }

    /// The layout of a full adapter with this configuration on this model.
    pub fn adapter_layout(&self, config: &LoraConfig) -> Result<Layout, LayoutError> {
        Adapter::layout_for(config, self.config().num_hidden_layers, |_, target| {
            self.config().projection(target)
        })
    }

    /// A fresh adapter that changes nothing: B is zero, A uniform within `1 / sqrt(in)`
    /// (what PEFT's Kaiming initialization with a = sqrt 5 comes to). One seed gives one
    /// adapter, on every machine.
    pub fn init_adapter(&self, config: &LoraConfig, seed: u64) -> Result<Adapter, AdapterError> {
        let layout = self.adapter_layout(config).map_err(AdapterError::Layout)?;
        Adapter::initial(config.clone(), layout, seed)
    }

    /// Trains the selected factors of `adapter` on `examples`; the others stay bit for bit
    /// as they are. The same seed on the same device gives the same adapter. `progress` is
    /// called after each optimizer step and may stop the training.
    ///
    /// # Errors
    /// Options out of range, examples without a counted token, an adapter made for another
    /// model, or a loss that is not finite.
    pub fn train(
        &self,
        adapter: &Adapter,
        factors: Factors,
        examples: &[Example],
        options: &TrainOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Trained, TrainError> {
        let trainer = self.trainer(adapter, factors, examples, options)?;
        trainer::train(trainer, progress)
    }

    /// A training to be taken step by step, as [`train`](Self::train) takes it whole.
    ///
    /// # Errors
    /// As [`train`](Self::train), before the first step.
    pub fn trainer<'a>(
        &'a self,
        adapter: &Adapter,
        factors: Factors,
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Trainer<'a>, TrainError> {
        let steps = self.model.trainer(adapter, factors, examples, options)?;
        Ok(Trainer(steps))
    }

    /// Mean loss per counted token of the base, or of the base with an adapter.
    pub fn evaluate(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
    ) -> Result<Evaluation, TrainError> {
        self.evaluate_with(adapter, examples, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`evaluate`](Self::evaluate). `progress` hears from time to time how many examples
    /// are done and may stop the evaluation, which then is of those.
    ///
    /// # Errors
    /// Examples without a counted token, an adapter made for another model, or a loss that is
    /// not finite.
    pub fn evaluate_with(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Evaluation, TrainError> {
        self.model.evaluate(adapter, examples, progress)
    }

    /// A sequence without tokens yet, on the base or on the base with an adapter.
    ///
    /// # Errors
    /// [`TrainError::Lora`] for an adapter made for another model.
    pub fn decoder(&self, adapter: Option<&Adapter>) -> Result<Decoder, TrainError> {
        let inner = self.model.decoder(adapter)?;
        Ok(Decoder::new(inner, self.vocab_size(), self.max_tokens()))
    }

    /// The logits after each token, `[tokens, vocab]` row by row.
    pub fn logits(
        &self,
        adapter: Option<&Adapter>,
        tokens: &[u32],
    ) -> Result<Vec<f32>, TrainError> {
        self.model.logits(adapter, tokens)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("name", &self.name)
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}

/// A base model that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The folder is not a Llama that we run.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}
