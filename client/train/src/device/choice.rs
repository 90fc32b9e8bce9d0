//! The device that a model runs on, and whether it can be used.

use std::fmt;
use std::str::FromStr;

use fedlora_model::WeightKind;

use crate::device::machine::CpuInfo;
use crate::remedy::Remedy;

/// A device to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number, from 0.
    Cuda(usize),
}

impl Device {
    /// How a base's weights are held on the device by default: the fastest kind.
    pub fn base_kind(self) -> WeightKind {
        match self {
            Self::Cpu => WeightKind::F32,
            Self::Cuda(_) => WeightKind::Bf16,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Device::Cpu),
            None if text == "cuda" => Ok(Device::Cuda(0)),
            Some(("cuda", index)) if !index.starts_with('+') => index
                .parse()
                .map(Device::Cuda)
                .map_err(|_| DeviceError::unknown(text)),
            _ => Err(DeviceError::unknown(text)),
        }
    }
}

/// A device that does not exist or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Text that names no device.
    #[error("'{got}' is not a device: use cpu or cuda:N")]
    Unknown {
        /// The text, cut at 40 characters.
        got: String,
    },
    /// The program was built for the CPU alone.
    #[error("{device} needs a program built with CUDA; this one is built for the CPU alone")]
    NotBuilt {
        /// The device asked for.
        device: Device,
    },
    /// A library that the CUDA backend loads is missing.
    #[error("{device}: {library} was not found; the NVIDIA driver and the CUDA {part} are needed")]
    NoLibrary {
        /// The device asked for.
        device: Device,
        /// Name of the library's file.
        library: &'static str,
        /// The part of CUDA that holds it.
        part: &'static str,
    },
    /// The driver refuses the device.
    #[error("{device} cannot be used: the driver says {why}")]
    Driver {
        /// The device asked for.
        device: Device,
        /// The driver's message.
        why: String,
    },
}

impl DeviceError {
    /// What a caller can change to have a device.
    pub fn remedy(&self) -> Option<Remedy> {
        match *self {
            Self::Unknown { .. } => None,
            Self::NotBuilt { .. } => Some(Remedy::BuildWithCuda),
            Self::NoLibrary { part, .. } => Some(Remedy::InstallCuda { part }),
            Self::Driver { .. } => Some(Remedy::OtherGpu),
        }
    }

    fn unknown(text: &str) -> Self {
        Self::Unknown {
            got: text.chars().take(40).collect(),
        }
    }
}

/// Whether a device can be used.
///
/// # Errors
/// [`DeviceError`] for a GPU that this program was not built for, whose libraries are missing, or
/// that the driver refuses.
pub fn check_device(device: &Device) -> Result<(), DeviceError> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(_) => free_memory(device).map(drop),
    }
}

/// Free memory of a device in bytes; `None` where the system does not tell.
///
/// # Errors
/// As [`check_device`].
pub fn free_memory(device: &Device) -> Result<Option<u64>, DeviceError> {
    match device {
        Device::Cpu => Ok(CpuInfo::look().memory_available),
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => open_cuda(*device).map(Some),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => Err(DeviceError::NotBuilt { device: *device }),
    }
}

/// Free memory of a GPU in bytes. Looks first for the libraries that the CUDA backend loads: the
/// backend panics where they are missing.
#[cfg(feature = "cuda")]
fn open_cuda(device: Device) -> Result<u64, DeviceError> {
    use crate::device::machine::{CUDA_HEADER, CUDA_LIBRARIES, library};
    use cudarc::driver::CudaContext;

    let Device::Cuda(index) = device else {
        return Ok(0);
    };

    for (library_name, part) in CUDA_LIBRARIES {
        if library(library_name).is_none() {
            return Err(DeviceError::NoLibrary {
                device,
                library: library_name,
                part,
            });
        }
    }
    let headers = cubecl::cuda::install::cuda_path().map(|path| path.join("include"));
    if !headers.is_some_and(|path| path.join(CUDA_HEADER).is_file()) {
        return Err(DeviceError::NoLibrary {
            device,
            library: CUDA_HEADER,
            part: "headers, in CUDA_PATH or /usr/local/cuda",
        });
    }
    CudaContext::new(index)
        .and_then(|context| {
            super::kernels::keep_compiled(context.compute_capability()?);
            context.mem_get_info()
        })
        .map(|(free, _)| free as u64)
        .map_err(|error| DeviceError::Driver {
            device,
            why: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_memory_and_a_gpu_that_is_not_there_is_told_of() {
        assert!(
            free_memory(&Device::Cpu)
                .unwrap()
                .is_none_or(|bytes| bytes > 0)
        );
        // No machine has so many.
        let error = free_memory(&Device::Cuda(4096)).unwrap_err();
        assert!(error.to_string().starts_with("cuda:4096"), "{error}");
        assert_eq!(check_device(&Device::Cuda(4096)), Err(error));
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for name in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        for bad in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cpu:0"] {
            assert!(bad.parse::<Device>().is_err(), "{bad:?} was taken");
        }
    }
}
