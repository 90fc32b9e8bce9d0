//! Work on a thread of its own.

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_shell::Failure;

/// Runs work that computes on a thread of its own, so that an interruption is noticed.
pub(super) async fn local<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The panic has printed its message.
        Err(_) => Err(Failure::new(
            Exit::Failed,
            anyhow!("the command ended unexpectedly; the reason stands above"),
        )),
    }
}
