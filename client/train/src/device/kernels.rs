//! Where compiled GPU kernels are kept. The backend compiles each kernel at its first use, some
//! half a minute for a first step; kept on the disk, they are loaded in a second.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

use super::machine::CudaInfo;

/// Tells the backend, before its first use, where to keep kernels: `fedlora/kernels` in the user's
/// cache, one folder for a driver and a kind of GPU, since kernels are made for both. Without a
/// folder that can be written nothing is kept.
pub(super) fn keep_compiled(architecture: (i32, i32)) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::default().override_from_env();
        match folder(architecture) {
            Some(folder) => {
                tracing::debug!(folder = %folder.display(), "GPU kernels are kept");
                config.compilation.cache = Some(CacheConfig::File(folder.clone()));
                config.autotune.cache = CacheConfig::File(folder);
            }
            None => tracing::debug!("no folder for GPU kernels: each run compiles them again"),
        }
        let mut held = CubeClRuntimeConfig::storage().lock();
        // Whoever set one before knows what for.
        held.get_or_insert_with(|| Arc::new(config));
    });
}

fn folder((major, minor): (i32, i32)) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))?;
    let driver = CudaInfo::look().driver.unwrap_or_default();
    let folder = cache
        .join("fedlora/kernels")
        .join(format!("sm_{major}{minor}-{driver}"));
    // The backend panics where it cannot write.
    std::fs::create_dir_all(&folder).ok()?;
    tempfile::tempfile_in(&folder).ok()?;
    Some(folder)
}
