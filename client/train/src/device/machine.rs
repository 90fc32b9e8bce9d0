//! What this machine has to train with: processors, memory and NVIDIA's driver. It reads, and
//! changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The libraries that the CUDA backend loads, with the part of CUDA that holds each.
pub(crate) const CUDA_LIBRARIES: [(&str, &str); 2] = [
    ("libcuda.so", "driver"),
    ("libnvrtc.so", "runtime compiler (NVRTC)"),
];

/// A header that every kernel is compiled with.
#[cfg(feature = "cuda")]
pub(crate) const CUDA_HEADER: &str = "cuda_runtime.h";

/// The hardware of this machine. Field names are those of JSON output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Processor and memory.
    pub cpu: CpuInfo,
    /// Driver, GPUs and libraries.
    pub cuda: CudaInfo,
}

/// The processor and the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CpuInfo {
    /// The processor's model, where the system tells.
    pub name: Option<String>,
    /// Logical processors that this process may use.
    pub processors: usize,
    /// Those of the processor's extensions that the kernels use.
    pub features: Vec<&'static str>,
    /// Memory in bytes, or the limit of the container around this process.
    pub memory_total: Option<u64>,
    /// Bytes that can be allocated without swapping.
    pub memory_available: Option<u64>,
}

/// What a CUDA device needs, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CudaInfo {
    /// Whether this program was built with the feature `cuda`.
    pub built_in: bool,
    /// The driver's version, where one is loaded.
    pub driver: Option<String>,
    /// Models of the GPUs that the driver shows.
    pub devices: Vec<String>,
    /// Path of the driver's library.
    pub libcuda: Option<PathBuf>,
    /// Path of the runtime compiler (NVRTC).
    pub libnvrtc: Option<PathBuf>,
}

impl Machine {
    /// Reads what this machine has; what cannot be read is missing.
    pub fn look() -> Self {
        Self {
            cpu: CpuInfo::look(),
            cuda: CudaInfo::look(),
        }
    }
}

impl CpuInfo {
    pub(crate) fn look() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let limit = cgroup();
        let within = |bytes: Option<u64>, limit: Option<u64>| match (bytes, limit) {
            (Some(bytes), Some(limit)) => Some(bytes.min(limit)),
            (bytes, limit) => bytes.or(limit),
        };
        Self {
            name: field(&info, "model name").map(str::to_owned),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
            memory_total: within(kibibytes(&memory, "MemTotal"), limit.map(|(most, _)| most)),
            memory_available: within(
                kibibytes(&memory, "MemAvailable"),
                limit.map(|(most, used)| most.saturating_sub(used)),
            ),
        }
    }
}

impl CudaInfo {
    pub(crate) fn look() -> Self {
        let version = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
        let [libcuda, libnvrtc] = CUDA_LIBRARIES.map(|(name, _)| library(name));
        Self {
            built_in: cfg!(feature = "cuda"),
            driver: driver_version(&version).map(str::to_owned),
            devices: devices(Path::new("/proc/driver/nvidia/gpus")),
            libcuda,
            libnvrtc,
        }
    }
}

/// Where the loader would find a library whose name begins so.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    let listed: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/nvidia/lib64",
        "/usr/local/cuda/lib64",
        "/usr/lib/wsl/lib",
    ]
    .map(PathBuf::from);
    listed.iter().chain(&usual).find_map(|folder| {
        let entries = fs::read_dir(folder).ok()?;
        let mut found: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found.into_iter().next()
    })
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if cfg!(target_feature = "neon") {
        vec!["neon"]
    } else {
        Vec::new()
    }
}

/// The value of `NAME : VALUE` in a file of such lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?.strip_suffix("kB")?;
    value.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limit that a container sets, and what of it is used and cannot be had back.
fn cgroup() -> Option<(u64, u64)> {
    let read = |file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok();
    let number = |file| read(file)?.trim().parse().ok();
    let cache = read("memory.stat").map_or(0, |text| file_cache(&text));
    let used: u64 = number("memory.current").unwrap_or(0);
    Some((number("memory.max")?, used.saturating_sub(cache)))
}

/// Bytes of a group's memory that hold files' content: the kernel gives them up first.
fn file_cache(stat: &str) -> u64 {
    stat.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"))
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .sum()
}

/// The version in the driver's own words: the first word of digits and dots.
fn driver_version(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace()
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// The models of the GPUs, one folder each.
fn devices(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path.join("information")).ok()?;
            field(&text, "Model").map(str::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_understood() {
        let memory = "MemTotal:       16384 kB\nMemFree: 3 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(kibibytes(memory, "MemAvailable"), Some(1 << 20));
        assert_eq!(kibibytes(memory, "MemTotal"), Some(16 << 20));
        assert_eq!(kibibytes("MemTotal: many kB", "MemTotal"), None);
        assert_eq!(
            field("processor : 0\nmodel name\t: A CPU\n", "model name"),
            Some("A CPU")
        );
        let stat = "anon 5\nfile 400\ninactive_file 100\nactive_file 200\nslab 9\n";
        assert_eq!(file_cache(stat), 300);
        assert_eq!(file_cache(""), 0);
        let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n\
                       GCC version: 12.2.0\n";
        assert_eq!(driver_version(version), Some("550.54.15"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release\n";
        assert_eq!(driver_version(open), Some("570.86.15"));
        assert_eq!(driver_version(""), None);
    }

    #[test]
    fn gpus_are_listed_by_model() {
        let folder = tempfile::tempdir().unwrap();
        for (bus, text) in [
            ("0000:02", "Model: B\nIRQ: 7\n"),
            ("0000:01", "Model: \t A 1\n"),
        ] {
            fs::create_dir(folder.path().join(bus)).unwrap();
            fs::write(folder.path().join(bus).join("information"), text).unwrap();
        }
        assert_eq!(devices(folder.path()), ["A 1", "B"]);
        assert!(devices(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn this_machine_has_a_processor() {
        let machine = Machine::look();
        assert!(machine.cpu.processors > 0);
        let memory = (machine.cpu.memory_available, machine.cpu.memory_total);
        if let (Some(available), Some(total)) = memory {
            assert!(available <= total);
        }
    }
}
