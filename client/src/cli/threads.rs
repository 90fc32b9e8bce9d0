//! How many threads compute.

use anyhow::anyhow;
use fedlora_common::exit::Exit;

use super::Failure;

/// Fixes the number of threads that compute; without, there are as many as processors. Comes
/// before anything is computed.
pub(super) fn limit(threads: Option<usize>) -> Result<(), Failure> {
    let Some(threads) = threads else {
        return Ok(());
    };
    if threads == 0 {
        return Err(Failure::new(
            Exit::Usage,
            anyhow!("--threads is 0: at least 1 has to compute"),
        ));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Failure::new(Exit::Failed, error))
}
