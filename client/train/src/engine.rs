//! A base model on a device. The backend is chosen here, once, and hidden from callers.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn_flex::Flex;
use fedlora_adapter::{Adapter, AdapterError, Factors, Layout, LayoutError, LoraConfig};
use fedlora_common::digest::Digest;
use fedlora_model::{
    ActivationCheckpointing, BaseWeights, Example, Llama, LlamaConfig, Passes, WeightKind,
    WeightsError,
};

use crate::decode::sequence::{Decode, Decoder, Sequence};
use crate::device::choice::{Device, DeviceError, check_device, free_memory};
use crate::eval::held_out;
use crate::eval::held_out::{Evaluation, ExampleLoss};
use crate::memory::fit::MemoryPlan;
use crate::memory::workload::Workload;
use crate::remedy::Remedy;
use crate::step::beside::Beside;
use crate::step::error::TrainError;
use crate::step::model_trainer::ModelTrainer;
use crate::step::options::TrainOptions;
use crate::step::report::{Progress, Trained};
use crate::step::trainer::{self, StepBackend, Trainer};

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

/// What an [`Engine`] needs of a backend; see its methods.
trait LocalModel: Send + Sync {
    fn trainer<'a>(
        &'a self,
        adapter: (&Adapter, Factors, Option<&Beside>),
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Box<dyn StepBackend + 'a>, TrainError>;

    fn evaluate(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Evaluation, TrainError>;

    fn losses(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
    ) -> Result<Vec<ExampleLoss>, TrainError>;

    fn logits(&self, adapter: Option<&Adapter>, tokens: &[u32]) -> Result<Vec<f32>, TrainError>;

    fn decoder(&self, adapter: Option<&Adapter>) -> Result<Box<dyn Decode>, TrainError>;
}

impl<B: Passes> LocalModel for Llama<B> {
    fn trainer<'a>(
        &'a self,
        adapter: (&Adapter, Factors, Option<&Beside>),
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Box<dyn StepBackend + 'a>, TrainError> {
        let trainer = ModelTrainer::new(self, adapter, examples, options)?;
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

    fn losses(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
    ) -> Result<Vec<ExampleLoss>, TrainError> {
        held_out::losses(self, adapter, examples)
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
    ///
    /// # Errors
    /// As [`with_kind`](Self::with_kind), and a folder that is not a supported checkpoint.
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
    /// A device that cannot be used, or a tensor that cannot be read.
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

    /// A digest of configuration and weights, by which machines compare their bases. The first
    /// call reads the whole checkpoint once more; later calls, and clones, reuse the result.
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

    /// Bytes of a GPU taken since just before the weights were placed: all that the backend
    /// holds, and what other programs took in the meantime. `None` on the CPU.
    pub fn device_memory(&self) -> Option<u64> {
        let before = self.free_before?;
        let now = free_memory(&self.device).ok().flatten()?;
        Some(before.saturating_sub(now))
    }

    /// The memory of a training on this base, its weights included. `batch` is the number of
    /// examples of a batch where the caller can choose it.
    pub fn plan(
        &self,
        workload: Workload,
        batch: Option<usize>,
        checkpointing: ActivationCheckpointing,
    ) -> MemoryPlan<'_> {
        MemoryPlan {
            config: self.config(),
            device: self.device,
            workload,
            batch,
            kind: self.kind,
            checkpointing,
        }
    }

    /// The device, and how the weights are held on it.
    pub fn place(&self) -> (Device, WeightKind) {
        (self.device, self.kind)
    }

    fn config(&self) -> &LlamaConfig {
        self.weights.config()
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.config().vocab_size
    }

    /// Positions of the model: the longest sequence in tokens.
    pub fn max_tokens(&self) -> usize {
        self.config().max_position_embeddings
    }

    /// Name of the base model: its folder's, or the one given.
    pub fn model_name(&self) -> &str {
        &self.name
    }

    /// The layout of an adapter with this configuration on this model.
    ///
    /// # Errors
    /// A configuration that does not fit the model.
    pub fn adapter_layout(&self, config: &LoraConfig) -> Result<Layout, LayoutError> {
        Adapter::layout_for(config, self.config().num_hidden_layers, |_, target| {
            self.config().projection(target)
        })
    }

    /// A fresh adapter that changes nothing: B is zero, A uniform within `1 / sqrt(in)`
    /// (PEFT's Kaiming initialization with a = sqrt 5). One seed gives one adapter, on every
    /// machine.
    ///
    /// # Errors
    /// A configuration that does not fit the model.
    pub fn init_adapter(&self, config: &LoraConfig, seed: u64) -> Result<Adapter, AdapterError> {
        let layout = self.adapter_layout(config).map_err(AdapterError::Layout)?;
        Adapter::initial(config.clone(), layout, seed)
    }

    /// Trains the selected factors of `adapter` on `examples`; the others stay bit for bit
    /// as they are. The same seed on the same device gives the same adapter. `progress` is
    /// called after each optimizer step and may stop the training.
    ///
    /// # Errors
    /// Examples without a target token, an adapter made for another model, or a loss that is not
    /// finite.
    pub fn train(
        &self,
        adapter: &Adapter,
        factors: Factors,
        examples: &[Example],
        options: &TrainOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Trained, TrainError> {
        let mut trainer = self.trainer(adapter, factors, examples, options)?;
        trainer::train(&mut trainer, progress)
    }

    /// A training whose caller takes each step; [`train`](Self::train) takes all of them.
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
        self.trainer_beside((adapter, factors, None), examples, options)
    }

    /// The same beside a frozen adapter, where there is one: of the trained one's configuration, and
    /// beside both factors. The weights that it has on each projection are trained with them, without
    /// weight decay.
    ///
    /// # Errors
    /// As [`trainer`](Self::trainer), and a frozen adapter that does not fit.
    pub fn trainer_beside<'a>(
        &'a self,
        adapter: (&Adapter, Factors, Option<&Beside>),
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Trainer<'a>, TrainError> {
        let steps = self.model.trainer(adapter, examples, options)?;
        Ok(Trainer(steps))
    }

    /// Loss, perplexity and accuracy of the base, or of the base with an adapter.
    ///
    /// # Errors
    /// As [`evaluate_with`](Self::evaluate_with).
    pub fn evaluate(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
    ) -> Result<Evaluation, TrainError> {
        self.evaluate_with(adapter, examples, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`evaluate`](Self::evaluate). `progress` receives the number of examples done after
    /// each batch and may stop the evaluation; the figures are then of those.
    ///
    /// # Errors
    /// Examples without a target token, an adapter made for another model, or a loss that is
    /// not finite.
    pub fn evaluate_with(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Evaluation, TrainError> {
        self.model.evaluate(adapter, examples, progress)
    }

    /// The losses of `examples` one by one, in their order; those without a target token are left out.
    ///
    /// # Errors
    /// As [`evaluate_with`](Self::evaluate_with).
    pub fn losses(
        &self,
        adapter: Option<&Adapter>,
        examples: &[Example],
    ) -> Result<Vec<ExampleLoss>, TrainError> {
        self.model.losses(adapter, examples)
    }

    /// An empty sequence on the base, or on the base with an adapter.
    ///
    /// # Errors
    /// [`TrainError::Lora`] for an adapter made for another model.
    pub fn decoder(&self, adapter: Option<&Adapter>) -> Result<Decoder, TrainError> {
        let inner = self.model.decoder(adapter)?;
        Ok(Decoder::new(inner, self.vocab_size(), self.max_tokens()))
    }

    /// The logits after each token, `[tokens, vocab]` row by row.
    ///
    /// # Errors
    /// [`TrainError::Positions`], [`TrainError::Token`] or [`TrainError::Lora`].
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
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The checkpoint cannot be read, or is of an unsupported architecture.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl ModelError {
    /// What a caller can change to open the model.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Device(error) => error.remedy(),
            Self::Weights(_) => None,
        }
    }
}
