//! The base model, and where it computes.

use fedlora_common::exit::Exit;
use fedlora_model::WeightKind;
use fedlora_shell::{Failure, values};
use fedlora_train::Device;

/// The options of every command that opens a base model.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Base model: a folder, a GGUF file, or owner/name[@revision][:file.gguf] on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    base: String,
    /// Where to compute: cpu or cuda:N.
    #[arg(
        long,
        env = "FEDLORA_DEVICE",
        default_value = "cpu",
        help_heading = "Machine"
    )]
    device: Device,
    /// How the frozen base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long, value_name = "KIND", help_heading = "Machine")]
    base_dtype: Option<WeightKind>,
    /// Threads that compute on the CPU [default: one a processor].
    #[arg(long, value_parser = values::positive, help_heading = "Machine")]
    threads: Option<usize>,
}

/// A base model by name, its device, and how its weights are held there.
#[derive(Debug, Clone)]
pub(crate) struct ModelSpec {
    /// A path, or a name on the hub.
    pub(crate) base: String,
    pub(crate) device: Device,
    pub(crate) kind: WeightKind,
}

impl ModelArgs {
    /// The device and the weights' form, and the number of threads fixed for the whole process:
    /// to be called once, before anything is computed.
    pub(crate) fn resolve(&self) -> Result<ModelSpec, Failure> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .map_err(|error| Failure::new(Exit::Failed, error))?;
        }
        Ok(ModelSpec {
            base: self.base.clone(),
            device: self.device,
            kind: self.base_dtype.unwrap_or(self.device.base_kind()),
        })
    }
}
