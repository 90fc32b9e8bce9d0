//! The threads on which database and objects are talked to. Whoever changes something waits for them,
//! within a runtime or without one: they belong to no other runtime, so that none can wait for itself.

use std::sync::mpsc;

use tokio::runtime::{Builder, Handle, Runtime};

use super::StoreError;

/// A change, and beside it the lease's renewal.
const THREADS: usize = 2;

/// The threads of one store.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Option<Runtime>,
}

impl Worker {
    pub(super) fn start() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("fedlora-store")
            .enable_all()
            .build()
            .map_err(|_| StoreError::Ended)?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    pub(super) fn handle(&self) -> Result<&Handle, StoreError> {
        self.runtime
            .as_ref()
            .map(Runtime::handle)
            .ok_or(StoreError::Ended)
    }

    /// Does the work on these threads; blocks the calling one until it is done.
    ///
    /// # Errors
    /// [`StoreError::Ended`] where the work panicked.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = mpsc::sync_channel(1);
        self.handle()?.spawn(async move {
            // The receiver waits below.
            let _ = done.send(work.await);
        });
        result.recv().map_err(|_| StoreError::Ended)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be dropped within another runtime, where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
