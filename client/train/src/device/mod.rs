//! The device that a training runs on, what the machine has, and how fast it multiplies.

pub(crate) mod choice;
#[cfg(feature = "cuda")]
mod kernels;
pub(crate) mod machine;
mod speed;

pub use choice::{Device, DeviceError, check_device, free_memory};
pub use machine::{CpuInfo, CudaInfo, Machine};
pub use speed::product_rate;
